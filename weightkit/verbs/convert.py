"""A checkpoint's weights under another project's names, every tensor accounted for, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from weightkit import __version__
from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.core.jsonio import readable_json
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Mapping as Rules
from weightkit.core.text import printable
from weightkit.engine.execution import Execution
from weightkit.engine.forecast import peak_bytes
from weightkit.errors import PlanError, UsageError, WriteError
from weightkit.formats import Limits, writer_for
from weightkit.formats.weightkit_dir import CONFIG, VERSION, VERSION_KEY, WEIGHTS, is_ours
from weightkit.verbs.conversion import Conversion, Progress, plan_conversion, replay, undo, with_digests

OWN_METADATA = frozenset({"config", "lineage", "weightkit_version"})
_MOST_LEAVES = 1000
_NOT_YET = "0" * 32
"""Stands where a digest will, so that a file's header has its size before the tensors are read."""


def convert(
    source: str | Path,
    *,
    to: str | None = None,
    from_: str | None = None,
    like: str | Path | None = None,
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
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Report:
    """Convert a checkpoint and write it whole, or not at all.

    The target: a layout (``to``), what another file holds (``like``), what a mapping gives (``map``), a saved ``plan``,
    or the source of a saved plan (``invert``); with none of these the same names in another container. ``out`` ending
    in .safetensors, .pt or .npz is one file with configuration and lineage inside; without an ending it is a new
    directory; None is a name beside ``source``. ``adapt`` maps target patterns to adapters, or lists
    ``PATTERN=ADAPTER`` texts. ``progress`` is told the bytes that are done, and all.

    Raises PlanError (nothing is written), FormatError, ConfigError, RuleError, UsageError, WriteError.
    """
    wanted: dict[str, Any] = {
        "to": to, "from_": from_, "like": like, "map": map, "config": config, "set": set, "adapt": adapt, "drop": drop,
        "allow_missing": allow_missing, "allow_lossy": allow_lossy,
    }  # fmt: skip
    word = to or ("like" if like else "mapped" if map else "replayed" if plan else "inverted" if invert else "copy")
    source = Path(source)
    path = Path(out) if out is not None else source.with_name(f"{source.stem}.{word}.safetensors")
    _check_ending(out)
    conversion = _conversion(source, wanted, plan, invert, limits)
    return write_conversion(
        conversion, path, force=force, inputs=_inputs(source, like, map, plan, invert), progress=progress
    )


def save_plan(
    source: str | Path, out: str | Path | None, *, force: bool = False, progress: Progress | None = None, **wanted: Any
) -> Report:
    """Plan as `convert` would, with its keywords; write the plan to ``out``, or nothing where that is None.

    A plan that is written holds the digest of every source tensor, which takes one pass over the source.
    """
    plan, invert, limits = (wanted.pop(key, None) for key in ("plan", "invert", "limits"))
    conversion = _conversion(Path(source), wanted, plan, invert, limits)
    if out is None:
        return conversion_report(conversion, out=None)
    path = Path(out)
    if path.suffix != ".json":
        raise UsageError(f"{printable(str(path))}: a plan is a .json file", hint="-o PLAN.json")
    conversion = with_digests(conversion, progress)
    text = readable_json(conversion.plan.to_dict())
    inputs = _inputs(source, wanted.get("like"), wanted.get("map"), plan, invert)
    write_atomically(path, _writing(text), force=force, inputs=inputs)
    return conversion_report(conversion, out=None, plan_out=str(path))


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
    force: bool = False,
    inputs: Iterable[Path] = (),
    progress: Progress | None = None,
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
    if not path.suffix and plan.config is None:
        raise UsageError(
            f"{printable(str(path))}: a directory holds a policy's config.json, and this file is of no known policy",
            hint="give a name that ends in .safetensors, .pt or .npz",
        )
    execution = conversion.execution(progress)
    if path.suffix:
        write_atomically(path, _writing_weights(conversion, execution, path), force=force, inputs=inputs)
        return conversion_report(conversion, out=str(path), execution=execution)

    def fill(folder: Path) -> None:
        write_atomically(folder / WEIGHTS, _writing_weights(conversion, execution, folder / WEIGHTS))
        documents = {
            CONFIG: {VERSION_KEY: VERSION, **(plan.config or {})},
            "plan.json": plan.to_dict(),
            "report.json": conversion_report(conversion, out=str(path), execution=execution).to_dict(),
        }
        for name, document in documents.items():
            write_atomically(folder / name, _writing(readable_json(document)))

    write_directory_atomically(path, fill, force=force, is_ours=is_ours)
    return conversion_report(conversion, out=str(path), execution=execution)


def _writing_weights(conversion: Conversion, execution: Execution, path: Path) -> Callable[[BinaryIO], None]:
    """What writes the file ``path`` with all that comes out, its configuration and its lineage."""
    write = writer_for(path)

    def write_all(file: BinaryIO) -> None:
        lineage = _lineage(conversion)
        metadata: dict[str, object] = {"weightkit_version": __version__, "lineage": lineage}
        if conversion.keeps_metadata:
            metadata = {**conversion.source.metadata, **metadata}
        if conversion.plan.config is not None:
            metadata["config"] = dict(conversion.plan.config)
        write(file, _recorded(execution, lineage), spec=conversion.plan.produced, metadata=metadata)

    return write_all


def _writing(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def _recorded(execution: Execution, lineage: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """The arrays; when the last was taken, ``lineage`` has their digests."""
    yield from execution.arrays()
    rows: dict[str, dict[str, Any]] = lineage["tensors"]
    for step in execution.plan.steps:
        before = [execution.source_digests[name] for name in step.sources]
        for target in step.targets:
            rows[target] |= {"source_digests": before, "digest": execution.digests[target]}
    for name, of in execution.plan.repeated.items():
        rows[name] |= {"source_digests": rows[of]["source_digests"], "digest": execution.digests[name]}


def _lineage(conversion: Conversion) -> dict[str, Any]:
    """Where each written tensor comes from, and what was done to it; digests come when it is done."""
    plan = conversion.plan
    rows: dict[str, dict[str, object]] = {}
    for step in plan.steps:
        for target in step.targets:
            rows[target] = {
                "sources": list(step.sources),
                "ops": [str(op) for op in step.ops],
                "source_digests": [_NOT_YET for _ in step.sources],
                "digest": _NOT_YET,
            }
    for name, of in plan.repeated.items():
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
    conversion: Conversion, *, out: str | None, execution: Execution | None = None, plan_out: str | None = None
) -> Report:
    """What a conversion does with every tensor, with totals by group; digests where it was carried out."""
    plan = conversion.plan
    plan_digest = plan.digest  # which takes memory for a moment, so before the rows
    group_of = conversion.architecture.group_of if conversion.architecture else lambda name: name.split(".", 1)[0]
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
    }
    findings = conversion.findings
    if out is not None and not out.endswith(".pt"):
        message = "it is written as a reference: readers other than weightkit see the tensor's first name only"
        findings += tuple(
            Finding("WK220", Severity.INFO, alias, f"a second name of {of!r}; {message}", "write a .pt for both names")
            for alias, of in plan.produced.aliases.items()
        )
    return Report("convert", findings, facts)


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


def refusal_report(error: PlanError, source: str | Path, to: str | None) -> Report:
    """The convert Report of a plan that did not hold: nothing was written."""
    facts: dict[str, object] = {"path": str(source), "out": None, "target_layout": to, "message": error.message}
    findings = error.report.findings
    if not error.report.errors():
        findings = (*findings, Finding(error.code, Severity.ERROR, str(source), error.message, error.hint))
    return Report("convert", findings, facts, error.exit_code)
