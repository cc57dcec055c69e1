"""A conversion that is planned and proven complete, and has moved nothing yet."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from weightkit.architectures import (
    architecture_name_of,
    architecture_of_layout,
    is_layout,
    known_layouts,
    layout_named,
    recognise,
)
from weightkit.architectures.base import Architecture
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.routes import conventions_of, find_route, groups_by_name, native_names
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Choices, identity_mapping
from weightkit.core.rule import Mapping as Rules
from weightkit.core.section import Section
from weightkit.core.text import printable
from weightkit.digest import tensor_digest
from weightkit.engine.execution import Execution, check_source
from weightkit.engine.inversion import invert_plan
from weightkit.engine.matching import first_glob
from weightkit.engine.planning import make_plan, plan_from_rules
from weightkit.engine.reconciling import parse_adapter
from weightkit.engine.saved_plan import read_plan
from weightkit.errors import (
    ConfigError,
    FormatError,
    NotDenseError,
    PlanError,
    UnknownFormat,
    UnsafeContent,
    UsageError,
)
from weightkit.formats import Limits, open_checkpoint
from weightkit.mapping_file import read_mapping
from weightkit.verbs.configure import architecture_of_config, parse_settings, read_train_config
from weightkit.verbs.sync_target import sync_target

AS_IT_IS = "as it is"
"""The target layout of a conversion that keeps every name."""
_MOST_PLAN_BYTES = 1 << 30

Progress = Callable[[int, int], None]
Look = Callable[[str, Any], None]
"""Is shown the name and the array of every tensor that is made."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """The source, what it was recognised as, and the plan.

    ``architecture`` and its ``config`` are those of the target where they are known. ``keeps_metadata``: whether what
    stands beside the tensors goes along, which it does only where the names stay the source's own. ``options`` are
    settings of the target layout, ``beside`` is what goes along with a known policy into any layout, ``acting`` are the
    target's names that choosing an action reads.
    """

    source: Checkpoint
    plan: Plan
    findings: tuple[Finding, ...]
    recognition: Recognition | None = None
    architecture: Architecture | None = None
    config: Any = None
    source_layout: str | None = None
    keeps_metadata: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, object] = field(default_factory=dict)
    acting: frozenset[str] = frozenset()

    def execution(self, progress: Progress | None = None, look: Look | None = None) -> Execution:
        """One application of the plan to the source."""
        return Execution(self.plan, self.source.read, progress, look)

    def arrays(self) -> Iterable[tuple[str, Any]]:
        """Target names and arrays, one at a time; raises as `Execution.arrays`."""
        return self.execution().arrays()

    def grouping(self) -> Callable[[str], str]:
        """What gives the group of a tensor that comes out."""
        layout, target = written_layout(self.plan), self.plan.target
        if self.architecture is None:
            return lambda name: name.split(".", 1)[0]
        if self.config is None or not is_layout(layout):
            return self.architecture.group_of
        group_of = groups_by_name(self.architecture, layout, self.config)
        return lambda name: group_of(target.canonical(name) if name in target else name)


def written_layout(plan: Plan) -> str:
    """The layout of what a plan writes: of names that stay as they are, that of the policy that is known."""
    if plan.target_layout == AS_IT_IS and plan.config is not None:
        return str(plan.config["type"])
    return plan.target_layout


def plan_conversion(
    source: str | Path | Checkpoint,
    *,
    to: str | None = None,
    from_: str | None = None,
    like: str | Path | None = None,
    policy: str | None = None,
    map: str | Path | Rules | None = None,
    config: str | Path | Any = None,
    set: Mapping[str, str] | Iterable[str] | None = None,
    adapt: Mapping[str, str] | Iterable[str] | None = None,
    drop: Iterable[str] | None = None,
    allow_missing: Iterable[str] | None = None,
    allow_lossy: bool = False,
    limits: Limits | None = None,
    recognition: Recognition | None = None,
) -> Conversion:
    """Open ``source``, find out what it is, and plan its conversion. Reads specs only.

    The target is a known layout (``to``), what another checkpoint holds (``like``), the net that ``pkg.mod:factory``
    builds (``policy``), what a mapping gives (``map`` alone), or the source itself. ``map`` is a mapping's path, a
    mapping, or the name under which an installed package has one; beside another target it says how names change.
    ``config`` is the path of a train_config.json, or a configuration of the target's architecture. ``recognition`` is
    what the source is known to be; else that is found out. Raises FormatError, ConfigError, RuleError, UsageError, and
    PlanError with every tensor that is not accounted for.
    """
    settings = parse_settings(set)
    goals = {"--to": to, "--like": like, "--policy": policy}
    given = [option for option, goal in goals.items() if goal is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} each say what the target is: give one of them")
    if to is None and (config is not None or settings):
        raise UsageError("--config_path and --set say what the target is, but no --to LAYOUT is given")
    for layout in (to, from_):
        if layout is not None:
            architecture_of_layout(layout)
    limits = limits or Limits()
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, limits)
    _refuse_unsafe(checkpoint)
    rules = map if map is None or isinstance(map, Rules) else _read_mapping(map)
    choices = Choices(
        adapt=tuple(parse_adapter(text) for text in _adapter_texts(adapt)),
        drop=tuple(drop or ()),
        allow_missing=tuple(allow_missing or ()),
        allow_lossy=allow_lossy,
    )
    recognition = recognition or recognise(checkpoint, settings)
    if to is not None:
        found = _into_layout(checkpoint, recognition, to, from_, rules, config, settings, choices)
    elif policy is not None:
        found = _into_policy(checkpoint, recognition, policy, rules, choices)
    elif like is not None:
        found = _like(checkpoint, recognition, open_checkpoint(like, limits), rules, choices)
    elif rules is not None:
        found = _by_rules(checkpoint, recognition, rules, choices)
    else:
        found = _as_it_is(checkpoint, recognition, choices)
    return replace(found, findings=(*found.findings, *_idle(found.plan, choices)))


def replay(source: str | Path | Checkpoint, plan: str | Path, *, limits: Limits | None = None) -> Conversion:
    """The conversion that a saved plan describes. Raises FormatError, and PlanError for another source."""
    return _of_plan(source, read_plan_file(Path(plan)), limits)


def undo(source: str | Path | Checkpoint, plan: str | Path, *, limits: Limits | None = None) -> Conversion:
    """The conversion of a saved plan's output back into its source. Raises FormatError, and PlanError that lists every
    step that lost something, or what is not the plan's output."""
    return _of_plan(source, invert_plan(read_plan_file(Path(plan))), limits)


def read_plan_file(path: Path) -> Plan:
    """The plan in the file at ``path``. Raises FormatError."""
    shown = printable(str(path))
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{shown}: cannot be read: it is no regular file but a folder, a device or a pipe")
        if found.st_size > _MOST_PLAN_BYTES:
            raise FormatError(f"{shown}: {found.st_size} bytes, which is too much for a plan")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise FormatError(f"{shown}: cannot be read: {why}", hint="check the path") from None
    return read_plan(content, origin=shown)


def with_digests(conversion: Conversion, progress: Progress | None = None) -> Conversion:
    """The same, its plan holding the digest of every source tensor: one pass over the source.

    A plan that is kept notices by them that a tensor changed.
    """
    checkpoint, plan = conversion.source, conversion.plan
    names = [name for name in plan.source if name not in checkpoint.not_dense]
    total = sum(plan.source[name].nbytes for name in names)
    digests: dict[str, str] = {}
    done = 0
    for name in names:
        digests[name] = tensor_digest(checkpoint.read(name))
        done += plan.source[name].nbytes
        if progress is not None:
            progress(done, total)
    return replace(conversion, plan=replace(plan, digests=digests))


def _of_plan(source: str | Path | Checkpoint, plan: Plan, limits: Limits | None) -> Conversion:
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, limits or Limits())
    _refuse_unsafe(checkpoint)
    check_source(plan, checkpoint.state)
    _refuse_not_dense(checkpoint, plan)
    known = is_layout(plan.target_layout)
    architecture = architecture_of_layout(plan.target_layout) if known else None
    findings = (*checkpoint.findings, *_notes(plan))
    keeps = plan.target_layout == AS_IT_IS
    if architecture is None or plan.config is None:
        return Conversion(checkpoint, plan, findings, architecture=architecture, keeps_metadata=keeps)
    config = architecture.config_from_dict(Section(plan.config, "the plan", "$.config"))
    recognition = recognise(checkpoint)
    name_of = native_names(architecture, plan.target_layout, config)
    acting = frozenset(filter(None, map(name_of, architecture.target(config).acting)))
    return Conversion(
        checkpoint,
        plan,
        findings,
        recognition,
        architecture,
        config,
        recognition.layout if recognition is not None else None,
        beside=recognition.beside if recognition is not None else {},
        acting=acting,
    )


def _as_it_is(checkpoint: Checkpoint, recognition: Recognition | None, choices: Choices) -> Conversion:
    architecture, acting = _acting_path(checkpoint, recognition)
    kept = [name for name in checkpoint.state if first_glob(name, choices.drop) is None] if choices.drop else None
    state = checkpoint.state if kept is None else checkpoint.state.only(kept)
    plan = make_plan(
        checkpoint.state, ConversionTarget(AS_IT_IS, state, acting=acting), identity_mapping("source"), choices
    )
    native = recognition is not None and recognition.layout == recognition.architecture
    config = recognition.config if recognition is not None and native else None
    findings = (*checkpoint.findings, *_notes(plan))
    return _planned(checkpoint, plan, findings, recognition, architecture, config, keeps_metadata=True)


def _acting_path(checkpoint: Checkpoint, recognition: Recognition | None) -> tuple[Architecture | None, frozenset[str]]:
    """The architecture of a checkpoint, where it is known, and its names that choosing an action reads."""
    if recognition is None:
        return None, frozenset()
    architecture = architecture_of_layout(recognition.layout)
    if recognition.layout == architecture.name:
        return architecture, architecture.acting_path(checkpoint.state)
    if recognition.config is None:
        return architecture, frozenset()
    name_of = native_names(architecture, recognition.layout, recognition.config)
    names = (name_of(name) for name in architecture.target(recognition.config).acting)
    return architecture, frozenset(name for name in names if name is not None and name in checkpoint.state)


def _by_rules(checkpoint: Checkpoint, recognition: Recognition | None, rules: Rules, choices: Choices) -> Conversion:
    plan = plan_from_rules(checkpoint.state, rules, choices)
    return _planned(checkpoint, plan, (*checkpoint.findings, *_notes(plan)), recognition)


def _like(
    checkpoint: Checkpoint,
    recognition: Recognition | None,
    other: Checkpoint,
    rules: Rules | None,
    choices: Choices,
) -> Conversion:
    """Into the names, shapes and dtypes that another checkpoint has; nothing of its values is used."""
    known = recognise(other, {})
    architecture, acting = _acting_path(other, known)
    layout = known.layout if known is not None else f"that of {printable(Path(other.path).name)}"
    target = ConversionTarget(layout, other.state, acting=acting)
    findings = list(checkpoint.findings)
    try:
        plan = make_plan(checkpoint.state, target, rules or identity_mapping("source"), choices)
    except PlanError as error:
        if rules is None or not _is_there_already(checkpoint, other, error):
            raise
        findings.append(_already(checkpoint, layout))
        plan = make_plan(checkpoint.state, target, identity_mapping("source"), choices)
    config = known.config if known is not None and known.layout == known.architecture else None
    return _planned(checkpoint, plan, (*findings, *_notes(plan)), recognition, architecture, config)


def _into_policy(
    checkpoint: Checkpoint, recognition: Recognition | None, policy: str, rules: Rules | None, choices: Choices
) -> Conversion:
    """Into the names, shapes and dtypes of a net that the user's own code builds; its acting path is what it reads."""
    from weightkit.sync.read_set import read_set
    from weightkit.torch_state import state_spec

    built = sync_target(arch=None, policy=policy, config_path=None, settings={})
    with built.acting_on(None):
        acting = read_set(built.policy, built.act, built.probes)
    target = ConversionTarget(f"that of {policy}", state_spec(built.policy), acting=acting)
    plan = make_plan(checkpoint.state, target, rules or identity_mapping("source"), choices)
    return _planned(checkpoint, plan, (*checkpoint.findings, *_notes(plan)), recognition)


def _planned(
    checkpoint: Checkpoint,
    plan: Plan,
    findings: tuple[Finding, ...],
    recognition: Recognition | None,
    architecture: Architecture | None = None,
    config: Any = None,
    *,
    layout: str | None = None,
    keeps_metadata: bool = False,
) -> Conversion:
    if config is not None:
        plan = replace(plan, config=config.to_dict())
    _refuse_not_dense(checkpoint, plan)
    layout = layout or (recognition.layout if recognition else None)
    return Conversion(checkpoint, plan, findings, recognition, architecture, config, layout, keeps_metadata)


def _is_there_already(checkpoint: Checkpoint, other: Checkpoint, error: PlanError) -> bool:
    """Whether the source has the target's names and the rules know none of them: they have been applied before."""
    unknown = {finding.subject for finding in error.report.errors() if finding.code == "WK201"}
    known = {printable(name, longest=len(name)) for name in checkpoint.state.unique()}
    return checkpoint.state.keys() == other.state.keys() and known <= unknown


def _already(checkpoint: Checkpoint, layout: str) -> Finding:
    message = f"the source is in layout {layout!r} already: names stay as they are"
    return Finding("WK213", Severity.INFO, checkpoint.path, message)


def _into_layout(
    checkpoint: Checkpoint,
    recognition: Recognition | None,
    to: str,
    from_: str | None,
    rules: Rules | None,
    config: Any,
    settings: Mapping[str, str],
    choices: Choices,
) -> Conversion:
    architecture = architecture_of_layout(to)
    layout = from_ or (recognition.layout if recognition else None)
    if rules is not None:
        if rules.target_layout != to:
            raise UsageError(f"--map {rules.name}: its target_layout is {rules.target_layout!r}, not {to!r}")
        if from_ is not None and rules.source_layout != from_:
            raise UsageError(f"--map {rules.name}: its source_layout is {rules.source_layout!r}, not {from_!r}")
    elif layout is None:
        raise UnknownFormat(
            f"{printable(checkpoint.path)}: no layout is recognised in its {len(checkpoint.state)} tensors",
            hint=f"name it with --from: {', '.join(known_layouts())}, or say how names change: --map M.toml",
        )
    elif architecture_name_of(layout) != architecture.name:
        raise _other_net(checkpoint, layout, to)
    options, settings = _options(to, recognition, settings)
    wanted = _target_config(architecture, recognition, config, settings)
    findings = list(checkpoint.findings)
    if recognition is not None:
        answered = config is not None
        findings += [f for f in recognition.findings if not answered or f.code != "WK108"]
    if layout == to == architecture.name:
        findings.append(_already(checkpoint, to))
    same = recognition is not None and recognition.layout == layout
    route = find_route(
        architecture,
        layout if layout is not None and rules is None else architecture.name,
        to,
        source_config=recognition.config if recognition is not None and same else None,
        target_config=wanted,
        options=options,
    )
    goes_on = rules is not None and layout != to
    plan = make_plan(checkpoint.state, route.target, rules if rules is not None and goes_on else route.mapping, choices)
    findings += _conventions(architecture, layout, to, route.config)
    planned = _planned(
        checkpoint, plan, (*findings, *_notes(plan)), recognition, architecture, route.config, layout=layout
    )
    beside = recognition.beside if recognition is not None else {}
    return replace(planned, options=options, beside=beside, acting=route.target.acting)


def _options(
    to: str, recognition: Recognition | None, settings: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The target layout's own settings, as found in a source that has them too and as given; and the others."""
    layout = layout_named(to)
    own = {} if layout is None else layout.options
    found = {} if recognition is None else {key: text for key, text in recognition.options.items() if key in own}
    of_source = layout_named(recognition.layout) if recognition is not None else None
    theirs = {} if of_source is None else of_source.options
    given = {key: text for key, text in settings.items() if key in own}
    return found | given, {key: text for key, text in settings.items() if key not in own and key not in theirs}


def _other_net(checkpoint: Checkpoint, layout: str, to: str) -> PlanError:
    source, target = architecture_name_of(layout), architecture_name_of(to)
    message = f"the source is {layout!r}, a {source} policy: no {target} net computes what it does"
    hint = f"layouts of a {source} policy: {', '.join(name for name, of in known_layouts().items() if of == source)}"
    finding = Finding("WK204", Severity.ERROR, printable(checkpoint.path), message, hint)
    return PlanError(message, report=Report("plan", (finding,), exit_code=1), hint=hint)


def _conventions(architecture: Architecture, layout: str | None, to: str, config: Any) -> list[Finding]:
    """What whoever feeds the policy must know: none of it is in the tensors."""
    if layout is None:
        return []
    theirs, ours = (conventions_of(architecture, name, config) for name in (layout, to))
    if theirs.pixels == ours.pixels or "none" in (theirs.pixels, ours.pixels):
        return []
    mild = "either" in (theirs.pixels, ours.pixels)
    message = f"images: {layout} takes {theirs.images}; {to} takes {ours.images}"
    severity = Severity.INFO if mild else Severity.WARNING
    return [Finding("WK221", severity, "observation.images", message, "check what your code hands to the policy")]


def _read_mapping(given: str | Path) -> Rules:
    """The mapping in a file, or the one that an installed package calls so."""
    path = Path(given)
    if not path.suffix and not path.exists():
        from weightkit.architectures.plugins import mapping_named

        path = mapping_named(str(given)) or path
    return read_mapping(path)


def _refuse_unsafe(checkpoint: Checkpoint) -> None:
    if checkpoint.verdict == "unsafe":
        raise UnsafeContent(
            f"{printable(checkpoint.path)}: another loader would execute something in this file",
            hint="`weightkit inspect` names it; convert does not carry it on",
        )


def _refuse_not_dense(checkpoint: Checkpoint, plan: Plan) -> None:
    """Raise NotDenseError where the plan uses tensors that are only listed."""
    if not checkpoint.not_dense:
        return
    used = [name for step in plan.steps for name in step.sources if name in checkpoint.not_dense]
    if used:
        named = "; ".join(printable(f"{name}: {checkpoint.not_dense[name].why}") for name in used[:8])
        more = f" and {len(used) - 8} more" if len(used) > 8 else ""
        raise NotDenseError(
            f"{printable(checkpoint.path)}: {len(used)} tensors cannot be read as dense arrays: {named}{more}",
            hint="leave them out with --drop NAME, or save them again as dense tensors with torch",
        )


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
            if op.op_class == "BIJ" and not step.adapters:
                continue
            code, severity = ("WK208", Severity.WARNING) if op.op_class == "LOSSY" else ("WK207", Severity.INFO)
            before, after = (
                " and ".join(map(str, specs)) or "nothing" for specs in (step.source_specs, step.target_specs)
            )
            notes.append(Finding(code, severity, step.targets[0], f"{before} -> {after} by {op.name}: {op.preserves}"))
    for name, how in plan.left_out.items():
        notes.append(Finding("WK209", Severity.WARNING, name, f"not in the output, as asked: {how}"))
    return notes


def _idle(plan: Plan, choices: Choices) -> list[Finding]:
    """A warning for each adapter that had nothing to do: whoever named it expects otherwise."""
    at_work = {adapter for step in plan.steps for adapter in step.adapters}
    message = "it changed nothing: every tensor that it matches has what the target wants already"
    hint = "name a target with --like FILE or --to LAYOUT, or leave the adapter out"
    return [
        Finding("WK206", Severity.WARNING, f"--adapt {adapter.pattern}={adapter}", message, hint)
        for adapter in choices.adapt
        if str(adapter) not in at_work
    ]


def _adapter_texts(adapt: Mapping[str, str] | Iterable[str] | None) -> list[str]:
    if adapt is None:
        return []
    if isinstance(adapt, Mapping):
        return [f"{pattern}={adapter}" for pattern, adapter in adapt.items()]
    return list(adapt)
