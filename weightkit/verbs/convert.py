"""A checkpoint's weights under another project's names, every tensor accounted for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from weightkit import __version__
from weightkit.architectures import LAYOUTS, architecture_of_layout, recognise
from weightkit.architectures.base import Architecture
from weightkit.architectures.recognition import Recognition
from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.jsonio import canonical_json
from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Choices, identity_mapping
from weightkit.core.text import printable
from weightkit.digest import sha256_file
from weightkit.engine.execution import apply_plan, check_second_names
from weightkit.engine.matching import first_glob
from weightkit.engine.planning import make_plan, parse_adapter
from weightkit.errors import ConfigError, NotDenseError, PlanError, UnknownFormat, UnsafeContent, UsageError, WriteError
from weightkit.formats import Limits, open_checkpoint, writer_for
from weightkit.formats.weightkit_dir import CONFIG, VERSION, VERSION_KEY, WEIGHTS, is_ours
from weightkit.verbs.configure import architecture_of_config, parse_settings, read_train_config

if TYPE_CHECKING:
    import numpy as np

AS_IT_IS = "as it is"
"""The target layout of a conversion that keeps every name."""
OWN_METADATA = frozenset({"config", "lineage", "weightkit_version"})


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion that is planned and proven complete, but has moved nothing yet."""

    source: Checkpoint
    recognition: Recognition | None
    architecture: Architecture | None
    config: Any
    target: ConversionTarget
    plan: Plan
    findings: tuple[Finding, ...]
    source_layout: str | None = None

    @property
    def carries_metadata(self) -> bool:
        """Whether what stands beside the tensors goes along: only where the names stay the source's own."""
        return self.target.layout == AS_IT_IS

    def arrays(self) -> Iterable[tuple[str, np.ndarray]]:
        """Target names and arrays, one at a time, twice-listed tensors compared first."""
        check_second_names(self.plan, self.source.read)
        return apply_plan(self.plan, self.source.read)


def plan_conversion(
    source: str | Path | Checkpoint,
    *,
    to: str | None = None,
    from_: str | None = None,
    config: str | Path | Any = None,
    set: Mapping[str, str] | Iterable[str] | None = None,
    adapt: Mapping[str, str] | Iterable[str] | None = None,
    drop: Iterable[str] | None = None,
    allow_missing: Iterable[str] | None = None,
    allow_lossy: bool = False,
    limits: Limits | None = None,
) -> Conversion:
    """Open ``source``, find out what it is, and plan its conversion. Reads specs only.

    ``config`` is the path of a train_config.json, or a configuration of the target's architecture. Raises FormatError,
    ConfigError, UsageError, and PlanError with every tensor that is not accounted for.
    """
    settings = parse_settings(set)
    for layout in (to, from_):
        if layout is not None:
            architecture_of_layout(layout)
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, limits or Limits())
    if checkpoint.verdict == "unsafe":
        raise UnsafeContent(
            f"{checkpoint.path}: another loader would execute something in this file",
            hint="`weightkit inspect` names it; convert does not carry it on",
        )
    recognition = recognise(checkpoint, settings)
    choices = Choices(
        adapt=tuple(parse_adapter(text) for text in _adapter_texts(adapt)),
        drop=tuple(drop or ()),
        allow_missing=tuple(allow_missing or ()),
        allow_lossy=allow_lossy,
    )
    if to is None:
        if config is not None or settings:
            raise UsageError("--config_path and --set say what the target is, but no --to LAYOUT is given")
        kept = recognition if recognition is not None and recognition.layout == recognition.architecture else None
        architecture = architecture_of_layout(kept.layout) if kept else None
        acting = architecture.acting_path(checkpoint.state) if architecture else frozenset()
        kept_names = [name for name in checkpoint.state if first_glob(name, choices.drop) is None]
        target = ConversionTarget(AS_IT_IS, checkpoint.state.only(kept_names), acting=acting)
        plan = make_plan(checkpoint.state, target, identity_mapping("source"), choices)
        _refuse_not_dense(checkpoint, plan)
        own = kept.config if kept else None
        layout = recognition.layout if recognition else None
        return Conversion(checkpoint, recognition, architecture, own, target, plan, checkpoint.findings, layout)
    architecture = architecture_of_layout(to)
    if to != architecture.name:
        raise UsageError(f"--to {to}: only conversions into {architecture.name!r} are known", hint="give --to drqv2")
    layout = from_ or (recognition.layout if recognition else None)
    if layout is None:
        raise UnknownFormat(
            f"{checkpoint.path}: no layout is recognised in its {len(checkpoint.state)} tensors",
            hint=f"name it with --from: {', '.join(LAYOUTS)}",
        )
    if LAYOUTS[layout] != architecture.name:
        raise UsageError(f"the source is {layout!r}, a {LAYOUTS[layout]} policy: it cannot become {to!r}")
    wanted = _target_config(architecture, recognition, config, settings)
    target = architecture.target(wanted)
    findings = list(checkpoint.findings)
    if recognition is not None:
        answered = config is not None
        findings += [f for f in recognition.findings if not answered or f.code != "WK108"]
    if layout == to:
        message = f"the source is in layout {to!r} already: names stay as they are"
        findings.append(Finding("WK213", Severity.INFO, checkpoint.path, message))
    plan = make_plan(checkpoint.state, target, architecture.mapping_from(layout), choices)
    _refuse_not_dense(checkpoint, plan)
    notes = (*findings, *_notes(plan))
    return Conversion(checkpoint, recognition, architecture, wanted, target, plan, notes, layout)


def _refuse_not_dense(checkpoint: Checkpoint, plan: Plan) -> None:
    """Raise NotDenseError where the plan uses tensors that are only listed."""
    used = [step.source for step in plan.steps if step.source in checkpoint.not_dense]
    if used:
        named = "; ".join(printable(f"{name}: {checkpoint.not_dense[name].why}") for name in used[:8])
        more = f" and {len(used) - 8} more" if len(used) > 8 else ""
        raise NotDenseError(
            f"{printable(checkpoint.path)}: {len(used)} tensors cannot be read as dense arrays: {named}{more}",
            hint="leave them out with --drop NAME, or save them again as dense tensors with torch",
        )


def convert(
    source: str | Path,
    *,
    to: str | None = None,
    from_: str | None = None,
    config: str | Path | None = None,
    set: Mapping[str, str] | Iterable[str] | None = None,
    adapt: Mapping[str, str] | Iterable[str] | None = None,
    drop: Iterable[str] | None = None,
    allow_missing: Iterable[str] | None = None,
    allow_lossy: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    limits: Limits | None = None,
) -> Report:
    """Convert a checkpoint and write it whole, or not at all.

    ``out`` ending in .safetensors, .pt or .npz is one file with configuration and lineage inside; without an ending it
    is a new directory; None is a name beside ``source``. ``adapt`` maps target patterns to adapters, or lists
    ``PATTERN=ADAPTER`` texts. Raises PlanError (nothing is written), FormatError, ConfigError, UsageError, WriteError.
    """
    conversion = plan_conversion(
        source,
        to=to,
        from_=from_,
        config=config,
        set=set,
        adapt=adapt,
        drop=drop,
        allow_missing=allow_missing,
        allow_lossy=allow_lossy,
        limits=limits,
    )
    source = Path(source)
    if out is not None and str(out).endswith(os.sep) and Path(out).suffix:
        raise WriteError(
            f"{printable(str(out))}: ends like a folder, and is named like a file",
            hint="leave out the slash for one file, or the ending for a folder",
        )
    path = Path(out) if out is not None else source.with_name(f"{source.stem}.{to or 'copy'}.safetensors")
    written = write_conversion(conversion, path, force=force)
    return conversion_report(conversion, out=str(path), sha256=written)


def write_conversion(conversion: Conversion, path: Path, *, force: bool) -> str:
    """Write the converted weights to ``path``; gives the sha256 of the file that holds them."""
    metadata: dict[str, object] = {"weightkit_version": __version__, "lineage": _lineage(conversion)}
    if conversion.carries_metadata:
        metadata = {**conversion.source.metadata, **metadata}
    if conversion.config is not None:
        metadata["config"] = conversion.config.to_dict()
    produced = conversion.target.state.only(step.target for step in conversion.plan.steps)
    inputs = [Path(conversion.source.path)]
    source, goal = Path(os.path.realpath(inputs[0])), Path(os.path.realpath(path))
    if goal == source or goal in source.parents or source in goal.parents:
        raise WriteError(f"{path}: is being read, or holds what is being read", hint="write to another place")

    def weights_to(path: Path) -> Callable[[BinaryIO], None]:
        write = writer_for(path)
        return lambda file: write(file, conversion.arrays(), spec=produced, metadata=metadata)

    digest = ""
    if path.suffix:
        digest = write_atomically(path, weights_to(path), force=force, inputs=inputs)
    else:
        if conversion.config is None:
            raise UsageError(f"{path}: a directory holds a policy's config.json, and this file is of no known policy")

        def fill(folder: Path) -> None:
            nonlocal digest
            digest = write_atomically(folder / WEIGHTS, weights_to(folder / WEIGHTS))
            documents = {
                CONFIG: {VERSION_KEY: VERSION, **conversion.config.to_dict()},
                "plan.json": conversion.plan.to_dict(),
                "report.json": conversion_report(conversion, out=str(path)).to_dict(),
            }
            for name, document in documents.items():
                text = canonical_json(document)
                write_atomically(folder / name, _writing(text))

        write_directory_atomically(path, fill, force=force, is_ours=is_ours)
    return digest


def _writing(content: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(content)

    return write


def _lineage(conversion: Conversion) -> dict[str, object]:
    """Where each written tensor comes from, and what was done to it."""
    path = Path(conversion.source.path)
    return {
        "source": {"name": path.name, "sha256": None if path.is_dir() else sha256_file(path)},
        "source_layout": conversion.source_layout,
        "plan": conversion.plan.digest,
        "complete": not conversion.plan.left_out,
        "left_out": dict(conversion.plan.left_out),
        "tensors": {
            step.target: {"sources": [step.source], "ops": [str(op) for op in step.ops]}
            for step in conversion.plan.steps
        },
    }


def conversion_report(conversion: Conversion, *, out: str | None, sha256: str | None = None) -> Report:
    """What a conversion does with every tensor, with totals by group."""
    plan = conversion.plan
    group_of = conversion.architecture.group_of if conversion.architecture else lambda name: name.split(".", 1)[0]
    groups: dict[str, dict[str, int]] = {}
    for step in plan.steps:
        total = groups.setdefault(group_of(step.target), {"tensors": 0, "adapted": 0, "left_out": 0, "parameters": 0})
        total["tensors"] += 1
        total["adapted"] += bool(step.ops)
        total["parameters"] += step.target_spec.numel
    for name in plan.left_out:
        total = groups.setdefault(group_of(name), {"tensors": 0, "adapted": 0, "left_out": 0, "parameters": 0})
        total["left_out"] += 1
    facts: dict[str, object] = {
        "path": conversion.source.path,
        "out": out,
        "sha256": sha256,
        "architecture": conversion.architecture.name if conversion.architecture else None,
        "source_layout": conversion.source_layout,
        "target_layout": conversion.target.layout,
        "config": None if conversion.config is None else conversion.config.to_dict(),
        "complete": not plan.left_out,
        "class": plan.op_class,
        "plan_digest": plan.digest,
        "source_tensors": len(conversion.source.state),
        "target_tensors": len(conversion.target.state),
        "groups": groups,
        "rows": [
            {
                "target": step.target,
                "sources": [step.source],
                "source_shape": list(step.source_spec.shape),
                "target_shape": list(step.target_spec.shape),
                "ops": [str(op) for op in step.ops],
                "preserves": [op.preserves for op in step.ops],
                "class": step.op_class,
            }
            for step in plan.steps
        ],
        "second_names": {name: {"of": second.of, "why": second.why} for name, second in plan.second_names.items()},
        "dropped": dict(plan.dropped),
        "left_out": dict(plan.left_out),
        "not_carried": [] if conversion.carries_metadata else sorted(set(conversion.source.metadata) - OWN_METADATA),
    }
    return Report("convert", conversion.findings, facts)


def refusal_report(error: PlanError, source: str | Path, to: str | None) -> Report:
    """The convert Report of a plan that did not hold: nothing was written."""
    facts: dict[str, object] = {"path": str(source), "out": None, "target_layout": to, "message": error.message}
    findings = error.report.findings
    if not error.report.errors():
        findings = (*findings, Finding(error.code, Severity.ERROR, str(source), error.message, error.hint))
    return Report("convert", findings, facts, error.exit_code)


def _target_config(
    architecture: Architecture, recognition: Recognition | None, config: object, settings: Mapping[str, str]
) -> Any:
    """The target's configuration: as given, else what the source was recognised as, with ``--set`` on top."""
    if isinstance(config, (str, Path)):
        root = read_train_config(config)
        stated = architecture_of_config(root)
        if stated.name != architecture.name:
            raise ConfigError(
                f"{root.origin} @ $.policy.type: expected {architecture.name!r} for --to, found {stated.name!r}"
            )
        config = architecture.config_from_train_config(root)
    elif config is None:
        if recognition is None or recognition.config is None:
            problems = [f for f in recognition.findings if f.severity is Severity.ERROR] if recognition else []
            raise PlanError(
                problems[0].message if problems else "the source does not say what the target should look like",
                report=Report("plan", tuple(problems), exit_code=1),
                hint=(problems[0].hint if problems else "") or "give --config_path train_config.json",
            )
        config = recognition.config
    return architecture.configure(config, settings) if settings else config


def _notes(plan: Plan) -> list[Finding]:
    """What a reader of the report must know although the plan holds."""
    notes = []
    for step in plan.steps:
        for op in step.ops:
            code, severity = ("WK208", Severity.WARNING) if op.op_class == "LOSSY" else ("WK207", Severity.INFO)
            message = f"{step.source_spec} -> {step.target_spec} by {op.name}: {op.preserves}"
            notes.append(Finding(code, severity, step.target, message))
    for name, how in plan.left_out.items():
        notes.append(Finding("WK209", Severity.WARNING, name, f"not in the output, as asked: {how}"))
    return notes


def _adapter_texts(adapt: Mapping[str, str] | Iterable[str] | None) -> list[str]:
    if adapt is None:
        return []
    if isinstance(adapt, Mapping):
        return [f"{pattern}={adapter}" for pattern, adapter in adapt.items()]
    return list(adapt)
