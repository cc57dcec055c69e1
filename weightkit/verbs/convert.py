"""A checkpoint's weights under another project's names, every tensor accounted for, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from weightkit import __version__
from weightkit.architectures import is_layout
from weightkit.architectures.own import BESIDE, CONFIG, POLICY, own_metadata
from weightkit.architectures.routes import conventions_of
from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.core.jsonio import readable_json
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Mapping as Rules
from weightkit.core.tensor import StateSpec
from weightkit.core.text import printable
from weightkit.engine.execution import Execution
from weightkit.engine.forecast import peak_bytes
from weightkit.errors import PlanError, UsageError, WeightkitError, WriteError
from weightkit.formats import Limits, writer_for
from weightkit.verbs.conversion import Conversion, Look, Progress, written_layout
from weightkit.verbs.convert_page import Asked, report_page
from weightkit.verbs.folder import fill_folder, folder_of, is_ours
from weightkit.verbs.function_check import check_function, note_on, refuse_other_function
from weightkit.verbs.outputs import Comparison
from weightkit.verbs.plan_conversion import plan_conversion, replay, undo, with_digests

OWN_METADATA = frozenset({CONFIG, POLICY, BESIDE, "lineage", "weightkit_version"})
_MOST_LEAVES = 1000
_NOT_YET = "0" * 32
"""Stands where a digest will, so that a file's header has its size before the tensors are read."""


def convert(
    source: str | Path,
    *,
    to: str | None = None,
    from_: str | None = None,
    like: str | Path | None = None,
    policy: str | None = None,
    map: str | Path | Rules | None = None,
    config: str | Path | None = None,
    set: Mapping[str, str] | Iterable[str] | None = None,
    adapt: Mapping[str, str] | Iterable[str] | None = None,
    drop: Iterable[str] | None = None,
    allow_missing: Iterable[str] | None = None,
    allow_lossy: bool = False,
    plan: str | Path | None = None,
    invert: str | Path | None = None,
    out: str | Path | None = None,
    force: bool = False,
    check: bool = True,
    limits: Limits | None = None,
    report: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Convert a checkpoint and write it whole, or not at all.

    The target: a layout (``to``), what another file holds (``like``), the net that the user's code ``pkg.mod:factory``
    builds (``policy``), what a mapping gives (``map``), a saved ``plan``, or the source of a saved plan (``invert``);
    with none of these the same names in another container. ``out`` ending in .safetensors, .pt or .npz is one file with
    configuration and lineage inside; without an ending it is a new directory, as the target's project keeps it; None is
    a name beside ``source``. ``adapt`` maps target patterns to adapters, or lists ``PATTERN=ADAPTER`` texts. ``check``:
    between known nets, compare the outputs of both before anything is written. ``report`` is an .html file that shows
    what became of every tensor, written for a conversion that is refused too. ``progress`` is told the bytes that are
    done, and all.

    Raises PlanError (nothing is written), FormatError, ConfigError, RuleError, UsageError, WriteError.
    """
    wanted: dict[str, Any] = {
        "to": to, "from_": from_, "like": like, "policy": policy, "map": map, "config": config, "set": set,
        "adapt": adapt, "drop": drop, "allow_missing": allow_missing, "allow_lossy": allow_lossy,
    }  # fmt: skip
    words = {"like": like or policy, "mapped": map, "replayed": plan, "inverted": invert, "copy": True}
    word = to or next(word for word, given in words.items() if given)
    source = Path(source)
    path = Path(out) if out is not None else source.with_name(f"{source.stem}.{word}.safetensors")
    _check_ending(out)
    inputs = _inputs(source, like, map, plan, invert)
    asked = Asked(source, {**wanted, "plan": plan, "invert": invert, "no_check": not check}, path, force, limits)
    with report_page(report, asked, refusal_report, inputs) as page:
        page.conversion = conversion = _conversion(source, wanted, plan, invert, limits)
        comparison = check_function(conversion) if check else None
        if comparison is not None:
            refuse_other_function(comparison)
        page.report = write_conversion(
            replace(conversion, findings=(*conversion.findings, *note_on(comparison))),
            path,
            comparison=comparison,
            force=force,
            inputs=inputs,
            progress=progress,
            look=page.look,
        )
    return page.report


def save_plan(
    source: str | Path,
    out: str | Path | None,
    *,
    force: bool = False,
    report: str | Path | None = None,
    progress: Progress | None = None,
    **wanted: Any,
) -> Report:
    """Plan as `convert` would, with its keywords; write the plan to ``out``, or nothing where that is None.

    A plan that is written holds the digest of every source tensor, which takes one pass over the source.
    """
    plan, invert, limits = (wanted.pop(key, None) for key in ("plan", "invert", "limits"))
    path = Path(out) if out is not None else None
    inputs = _inputs(source, wanted.get("like"), wanted.get("map"), plan, invert)
    options = {**wanted, "plan": plan, "invert": invert, "plan_only": True}
    with report_page(report, Asked(source, options, path, force, limits), refusal_report, inputs) as page:
        page.conversion = conversion = _conversion(Path(source), wanted, plan, invert, limits)
        if path is not None:
            if path.suffix != ".json":
                raise UsageError(f"{printable(str(path))}: a plan is a .json file", hint="-o PLAN.json")
            page.conversion = conversion = with_digests(conversion, progress)
            write_atomically(path, _writing(readable_json(conversion.plan.to_dict())), force=force, inputs=inputs)
        page.report = conversion_report(conversion, out=None, plan_out=None if path is None else str(path))
    return page.report


def _conversion(
    source: Path, wanted: Mapping[str, Any], plan: str | Path | None, invert: str | Path | None, limits: Limits | None
) -> Conversion:
    given = [f"--{key.rstrip('_').replace('_', '-')}" for key, value in wanted.items() if value]
    if plan is not None and invert is not None:
        raise UsageError("--plan and --invert both say what to do: give one of them")
    if plan is None and invert is None:
        return plan_conversion(source, **wanted, limits=limits)
    if given:
        option = "--plan" if plan is not None else "--invert"
        raise UsageError(f"{option} says all that is to be done: leave out {', '.join(given)}")
    return replay(source, plan, limits=limits) if plan is not None else undo(source, invert or "", limits=limits)


def _inputs(*paths: object) -> list[Path]:
    """The files among what a conversion reads: none of them may be its output."""
    return [Path(path) for path in paths if isinstance(path, (str, Path))]


def _check_ending(out: str | Path | None) -> None:
    if out is not None and str(out).endswith(os.sep) and Path(out).suffix:
        raise WriteError(
            f"{printable(str(out))}: ends like a folder, and is named like a file",
            hint="leave out the slash for one file, or the ending for a folder",
        )


def write_conversion(
    conversion: Conversion,
    path: Path,
    *,
    comparison: Comparison | None = None,
    force: bool = False,
    inputs: Iterable[Path] = (),
    progress: Progress | None = None,
    look: Look | None = None,
) -> Report:
    """Apply the plan and write what comes out to ``path``; the Report of it. Raises as `convert`."""
    plan = conversion.plan
    inputs = [Path(conversion.source.path), *inputs]
    goal = Path(os.path.realpath(path))
    for origin in inputs:
        found = Path(os.path.realpath(origin))
        if goal == found or goal in found.parents or found in goal.parents:
            raise WriteError(
                f"{printable(str(path))}: is being read, or holds what is being read", hint="write elsewhere"
            )
    folder = None if path.suffix else folder_of(plan, conversion.options, conversion.beside)
    execution = conversion.execution(progress, look)
    if folder is None:
        write_atomically(path, _writing_weights(conversion, execution, path), force=force, inputs=inputs)
        return conversion_report(conversion, out=str(path), execution=execution, comparison=comparison)

    def write_weights(file: Path, names: tuple[str, ...]) -> Callable[[BinaryIO], None]:
        return _writing_weights(conversion, execution, file, names)

    reports: list[Report] = []

    def report(files: Mapping[str, str]) -> Mapping[str, object]:
        found = conversion_report(conversion, out=str(path), execution=execution, comparison=comparison)
        reports.append(found.replace(facts={**found.facts, "files": dict(files)}))
        return reports[-1].to_dict()

    def fill(place: Path) -> None:
        fill_folder(place, folder, write_weights, plan=plan, report=report)

    write_directory_atomically(path, fill, force=force, is_ours=is_ours)
    return reports[-1]


def _writing_weights(
    conversion: Conversion, execution: Execution, path: Path, names: tuple[str, ...] | None = None
) -> Callable[[BinaryIO], None]:
    """What writes the file ``path``: all that comes out, or what ``names`` lists, with configuration and lineage."""
    write = writer_for(path)
    produced = conversion.plan.produced
    if names is not None:
        produced = produced.only(name for name in produced if produced.canonical(name) in names)

    def write_all(file: BinaryIO) -> None:
        lineage = _lineage(conversion, produced)
        metadata: dict[str, object] = {"weightkit_version": __version__, "lineage": lineage}
        if conversion.keeps_metadata:
            metadata = {**conversion.source.metadata, **metadata}
        metadata |= own_metadata(
            conversion.plan.config, written_layout(conversion.plan), conversion.options, conversion.beside
        )
        write(file, _recorded(execution, lineage, produced), spec=produced, metadata=metadata)

    return write_all


def _writing(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def _recorded(execution: Execution, lineage: dict[str, Any], produced: StateSpec) -> Iterable[tuple[str, Any]]:
    """The arrays; when the last was taken, ``lineage`` has their digests."""
    yield from execution.arrays(produced)
    rows: dict[str, dict[str, Any]] = lineage["tensors"]
    for step in execution.plan.steps:
        for target in step.targets:
            if target in produced:
                before = [execution.source_digests[name] for name in step.sources]
                rows[target] |= {"source_digests": before, "digest": execution.digests[target]}
    for name, of in execution.plan.repeated.items():
        if name in produced:
            rows[name] |= {"source_digests": rows[of]["source_digests"], "digest": execution.digests[name]}


def _lineage(conversion: Conversion, produced: StateSpec) -> dict[str, Any]:
    """Where each written tensor comes from, and what was done to it; digests come when it is done."""
    plan = conversion.plan
    rows: dict[str, dict[str, object]] = {}
    for step in plan.steps:
        for target in step.targets:
            if target in produced:
                rows[target] = {
                    "sources": list(step.sources),
                    "ops": [str(op) for op in step.ops],
                    "source_digests": [_NOT_YET for _ in step.sources],
                    "digest": _NOT_YET,
                }
    for name, of in plan.repeated.items():
        if name in produced:
            rows[name] = dict(rows[of])
    return {
        "source": {"name": Path(conversion.source.path).name},
        "source_layout": conversion.source_layout,
        "target_layout": plan.target_layout,
        "mapping": plan.mapping,
        "plan": plan.digest,
        "complete": not plan.left_out,
        "left_out": dict(plan.left_out),
        "dropped": dict(plan.dropped),
        "tensors": rows,
    }


def conversion_report(
    conversion: Conversion,
    *,
    out: str | None,
    execution: Execution | None = None,
    plan_out: str | None = None,
    comparison: Comparison | None = None,
) -> Report:
    """What a conversion does with every tensor, with totals by group; digests where it was carried out."""
    plan = conversion.plan
    plan_digest = plan.digest  # which takes memory for a moment, so before the rows
    group_of = conversion.grouping()
    groups: dict[str, dict[str, int]] = {}

    def group(name: str) -> dict[str, int]:
        return groups.setdefault(group_of(name), {"tensors": 0, "adapted": 0, "left_out": 0, "parameters": 0})

    rows: list[dict[str, object]] = []
    for step in plan.steps:
        ops = [str(op) for op in step.ops]
        for target, spec in zip(step.targets, step.target_specs, strict=True):
            total = group(target)
            total["tensors"] += 1
            total["adapted"] += bool(step.ops)
            if target not in plan.target.aliases:
                total["parameters"] += spec.numel
            row: dict[str, object] = {
                "target": target,
                "sources": list(step.sources),
                "source_shapes": [list(found.shape) for found in step.source_specs],
                "target_shape": list(spec.shape),
                "ops": ops,
                "preserves": [op.preserves for op in step.ops],
                "class": step.op_class,
                "rule": step.rule,
                "adapters": list(step.adapters),
            }
            if execution is not None:
                row["source_digests"] = [execution.source_digests.get(name) for name in step.sources]
                row["digest"] = execution.digests.get(target)
                if target in execution.changes:
                    row |= execution.changes[target]
            rows.append(row)
    for name in plan.repeated:
        group(name)["tensors"] += 1
    for name in plan.left_out:
        group(name)["left_out"] += 1
    beside = conversion.source.metadata
    facts: dict[str, object] = {
        "path": conversion.source.path,
        "out": out,
        "plan": plan_out,
        "architecture": conversion.architecture.name if conversion.architecture else None,
        "source_layout": conversion.source_layout,
        "target_layout": plan.target_layout,
        "mapping": plan.mapping,
        "config": None if plan.config is None else dict(plan.config),
        "complete": not plan.left_out,
        "class": plan.op_class,
        "strictness": plan.strictness,
        "plan_digest": plan_digest,
        "peak_bytes": peak_bytes(plan),
        "source_tensors": len(plan.source),
        "target_tensors": len(plan.target),
        "used": sum(len(step.sources) for step in plan.steps),
        "groups": groups,
        "rows": rows,
        "second_names": {name: {"of": second.of, "why": second.why} for name, second in plan.second_names.items()},
        "dropped": dict(plan.dropped),
        "left_out": dict(plan.left_out),
        "repeated": dict(plan.repeated),
        "carried": leaves(beside) if conversion.keeps_metadata else [],
        "not_carried": [] if conversion.keeps_metadata else leaves(beside),
        "conventions": _conventions(conversion),
        "function_check": None if comparison is None else comparison.to_dict(),
    }
    findings = conversion.findings
    aliases = plan.produced.aliases if out is not None and not out.endswith(".pt") else {}
    if aliases:
        name, of = next(iter(aliases.items()))
        more = f", and there are {len(aliases) - 1} more such names" if len(aliases) > 1 else ""
        message = f"a second name of {of!r}{more}; it is written as a reference: readers other than weightkit see the "
        message += "tensor's first name only"
        findings += (Finding("WK220", Severity.INFO, name, message, "write a .pt for both names"),)
    return Report("convert", findings, facts)


def _conventions(conversion: Conversion) -> dict[str, object] | None:
    """What is handed to the policy and taken from it, by the source's project and by the target's."""
    architecture, config = conversion.architecture, conversion.config
    if architecture is None or config is None:
        return None
    layouts = {"source": conversion.source_layout, "target": written_layout(conversion.plan)}
    return {
        side: {"layout": layout, **asdict(conventions_of(architecture, layout, config))}
        for side, layout in layouts.items()
        if layout is not None and is_layout(layout)
    }


def leaves(metadata: Mapping[str, object]) -> list[str]:
    """Dotted paths of the values that stand beside the tensors, but for weightkit's own; lists count as one value."""
    found: list[str] = []
    waiting: list[tuple[str, object]] = [(key, metadata[key]) for key in sorted(set(metadata) - OWN_METADATA)]
    while waiting and len(found) < _MOST_LEAVES:
        path, value = waiting.pop()
        if isinstance(value, Mapping) and value:
            waiting += [(f"{path}.{key}", inner) for key, inner in value.items()]
        else:
            found.append(path)
    left = [f"and what lies below {path}" for path, _ in waiting]
    return sorted(found) + left[:1]


def refusal_report(error: WeightkitError, source: str | Path, to: str | None) -> Report:
    """The convert Report of a plan that did not hold, or of another error: nothing was written."""
    facts: dict[str, object] = {"path": str(source), "out": None, "target_layout": to, "message": error.message}
    findings = error.report.findings if isinstance(error, PlanError) else ()
    if isinstance(error, PlanError) and "function_check" in error.report.facts:
        facts["function_check"] = error.report.facts["function_check"]
    if not any(finding.severity is Severity.ERROR for finding in findings):
        findings = (*findings, Finding(error.code, Severity.ERROR, str(source), error.message, error.hint))
    return Report("convert", findings, facts, error.exit_code)
