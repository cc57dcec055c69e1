"""What two saved plans do differently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from weightkit.core.plan import Plan, Step
from weightkit.core.report import Finding, Report, Severity
from weightkit.verbs.plan_conversion import read_plan_file


def are_plans(*paths: str | Path) -> bool:
    """Whether all of ``paths`` are named like plans: .json files, which no checkpoint is."""
    return all(Path(path).suffix == ".json" and not Path(path).name.endswith(".index.json") for path in paths)


def diff_plans(a: str | Path, b: str | Path) -> Report:
    """The diff Report of two saved plans, by what becomes of each tensor. Exit code 0 where they do the same, else 1.

    Raises FormatError.
    """
    first, second = read_plan_file(Path(a)), read_plan_file(Path(b))
    findings = tuple(
        Finding("WK219", Severity.ERROR, name, f"A: {before}; B: {after}")
        for name, before, after in _differences(first, second)
    )
    facts: dict[str, object] = {
        "plans": [
            {"path": str(path), "mapping": plan.mapping, "digest": plan.digest, "steps": len(plan.steps)}
            for path, plan in ((a, first), (b, second))
        ],
        "same": not findings,
    }
    return Report("diff", findings, facts, int(bool(findings)))


def _differences(a: Plan, b: Plan) -> Iterator[tuple[str, str, str]]:
    """``(name, what A does, what B does)`` for every source and target tensor that they treat differently."""
    for side, one, other in (("source", a.source, b.source), ("target", a.target, b.target)):
        for name in dict.fromkeys((*one, *other)):
            before, after = (str(state.tensors.get(name, "no such tensor")) for state in (one, other))
            if before != after:
                yield name, f"the {side} has {before}", after
    for name in dict.fromkeys((*a.digests, *b.digests)):
        before, after = a.digests.get(name, "not known"), b.digests.get(name, "not known")
        if before != after:
            yield name, f"its values have the digest {before}", after
    made, also_made = _fates(a), _fates(b)
    for name in dict.fromkeys((*made, *also_made)):
        before, after = made.get(name, "nothing"), also_made.get(name, "nothing")
        if before != after:
            yield name, before, after


def _fates(plan: Plan) -> dict[str, str]:
    """Name -> what becomes of a source tensor, or how a target tensor comes about, in words."""
    found = {target: _made(step) for step in plan.steps for target in step.targets}
    found |= {name: f"repeats {of}" for name, of in plan.repeated.items()}
    found |= {name: f"left out ({why})" for name, why in plan.left_out.items()}
    sources = {name: f"dropped ({why})" for name, why in plan.dropped.items()}
    sources |= {name: f"second name of {second.of}" for name, second in plan.second_names.items()}
    for name, fate in sources.items():
        found[name] = f"{found[name]}; as a source {fate}" if name in found else fate
    return found


def _made(step: Step) -> str:
    made_of = " and ".join(step.sources) or "nothing"
    ops = ", ".join(map(str, step.ops))
    return f"made of {made_of}" + (f" by {ops}" if ops else "")
