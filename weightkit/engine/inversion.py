"""A plan backwards, where nothing was lost."""

from __future__ import annotations

from weightkit.core.plan import Plan, SecondName, Step
from weightkit.core.report import Finding, Report, Severity
from weightkit.errors import PlanError
from weightkit.shape_ops import as_call, op_of

_KEEP = "only a plan without lossy steps can be undone: keep the source"


def invert_plan(plan: Plan) -> Plan:
    """The plan from what ``plan`` writes back to its source, bit for bit.

    An INJ step is undone by an op that first checks that what the step added is still as it was added; it refuses
    otherwise. Raises PlanError that lists every lossy step and every dropped tensor.
    """
    findings = [_lost(name, f"it was dropped ({why})") for name, why in plan.dropped.items()]
    steps: list[Step] = []
    dropped: dict[str, str] = {}
    for step in plan.steps:
        ops = [op_of(call) for call in step.ops]
        inverses = [op.inverse() for op in ops]
        for op, inverse in zip(ops, inverses, strict=True):
            if inverse is None:
                findings += [_lost(name, f"{as_call(op)} has no inverse: {op.complement}") for name in step.targets]
        if not step.sources:
            dropped[step.targets[0]] = f"rule {step.rule!r} made it, from no source tensor"
            continue
        backwards = tuple(as_call(inverse) for inverse in reversed(inverses) if inverse is not None)
        steps.append(
            Step(step.targets, step.sources, step.rule, step.target_specs, step.source_specs, backwards, step.adapters)
        )
    if findings:
        raise PlanError(
            f"{len(findings)} steps of the plan lose information, so it cannot be undone",
            report=Report("plan", tuple(findings), exit_code=1),
            hint=_KEEP,
        )
    target = plan.produced
    return Plan(
        mapping=f"inverse of {plan.mapping}",
        mapping_digest=plan.mapping_digest,
        target_layout="source",
        source=target,
        target=plan.source,
        steps=tuple(steps),
        second_names={
            name: SecondName(of, "the plan wrote it twice", checked=target.canonical(name) != target.canonical(of))
            for name, of in plan.repeated.items()
        },
        dropped=dropped,
        left_out={},
        repeated={name: second.of for name, second in plan.second_names.items()},
    )


def _lost(name: str, why: str) -> Finding:
    return Finding("WK208", Severity.ERROR, name, why, _KEEP)
