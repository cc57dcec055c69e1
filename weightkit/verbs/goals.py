"""What a conversion is to give: a layout, what another file holds, a net of the user's, what rules make, the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightkit.architectures import (
    architecture_name_of,
    architecture_of_layout,
    known_layouts,
    layout_named,
    recognise,
)
from weightkit.architectures.base import Architecture
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.routes import conventions_of, find_route, native_names
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import ConversionTarget
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Choices, identity_mapping
from weightkit.core.rule import Mapping as Rules
from weightkit.core.text import printable
from weightkit.engine.matching import first_glob, is_glob
from weightkit.engine.planning import make_plan, plan_from_rules
from weightkit.errors import (
    ConfigError,
    PlanError,
    UnknownFormat,
    UsageError,
)
from weightkit.verbs.configure import architecture_of_config, read_train_config
from weightkit.verbs.conversion import AS_IT_IS, Conversion, notes_on, planned
from weightkit.verbs.sync_target import sync_target


def as_it_is(checkpoint: Checkpoint, recognition: Recognition | None, choices: Choices) -> Conversion:
    """The same names, but for what is dropped. Raises PlanError."""
    architecture, acting = _acting_path(checkpoint, recognition)
    kept = [name for name in checkpoint.state if not _may_go(name, choices, acting)] if choices.drop else None
    state = checkpoint.state if kept is None else checkpoint.state.only(kept)
    plan = make_plan(
        checkpoint.state, ConversionTarget(AS_IT_IS, state, acting=acting), identity_mapping("source"), choices
    )
    native = recognition is not None and recognition.layout == recognition.architecture
    config = recognition.config if recognition is not None and native else None
    findings = (*checkpoint.findings, *notes_on(plan))
    return planned(checkpoint, plan, findings, recognition, architecture, config, keeps_metadata=True)


def by_rules(checkpoint: Checkpoint, recognition: Recognition | None, rules: Rules, choices: Choices) -> Conversion:
    """Whatever the rules make of the source. Raises PlanError."""
    plan = plan_from_rules(checkpoint.state, rules, choices)
    return planned(checkpoint, plan, (*checkpoint.findings, *notes_on(plan)), recognition)


def like_file(
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
    return planned(checkpoint, plan, (*findings, *notes_on(plan)), recognition, architecture, config)


def into_policy(
    checkpoint: Checkpoint, recognition: Recognition | None, policy: str, rules: Rules | None, choices: Choices
) -> Conversion:
    """Into the names, shapes and dtypes of a net that the user's own code builds; its acting path is what it reads."""
    from weightkit.torch_state import state_spec

    built = sync_target(arch=None, policy=policy, config_path=None, settings={})
    target = ConversionTarget(f"that of {policy}", state_spec(built.policy), acting=built.traced.reads)
    plan = make_plan(checkpoint.state, target, rules or identity_mapping("source"), choices)
    return planned(checkpoint, plan, (*checkpoint.findings, *notes_on(plan)), recognition)


def into_layout(
    checkpoint: Checkpoint,
    recognition: Recognition | None,
    to: str,
    from_: str | None,
    rules: Rules | None,
    config: Any,
    settings: Mapping[str, str],
    choices: Choices,
) -> Conversion:
    """Into a layout that is known, by its own rules or by the user's. Raises PlanError, ConfigError, UsageError."""
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
    recognition = _with_names_of(recognition, wanted) if config is not None else recognition
    own_rules = rules if layout != to else None  # what is there already has the names that they would give
    same = recognition is not None and recognition.layout == layout
    route = find_route(
        architecture,
        architecture.name if own_rules is not None or layout is None else layout,
        to,
        source_config=recognition.config if recognition is not None and same else None,
        target_config=wanted,
        options=options,
    )
    plan = make_plan(checkpoint.state, route.target, own_rules or route.mapping, choices)
    findings += _conventions(architecture, layout, to, route.config)
    found = planned(
        checkpoint, plan, (*findings, *notes_on(plan)), recognition, architecture, route.config, layout=layout
    )
    beside = recognition.beside if recognition is not None else {}
    return replace(found, options=options, beside=beside, acting=route.target.acting, inputs=route.inputs)


def _may_go(name: str, choices: Choices, acting: frozenset[str]) -> bool:
    """Whether a tensor is left out as asked: of what choosing an action reads only one that is named by itself."""
    pattern = first_glob(name, choices.drop)
    return pattern is not None and (name not in acting or not is_glob(pattern))


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


def _is_there_already(checkpoint: Checkpoint, other: Checkpoint, error: PlanError) -> bool:
    """Whether the source has the target's names and the rules know none of them: they have been applied before."""
    unknown = {finding.subject for finding in error.report.errors() if finding.code == "WK201"}
    known = {printable(name, longest=len(name)) for name in checkpoint.state.unique()}
    return checkpoint.state.keys() == other.state.keys() and known <= unknown


def _already(checkpoint: Checkpoint, layout: str) -> Finding:
    message = f"the source is in layout {layout!r} already: names stay as they are"
    return Finding("WK213", Severity.INFO, checkpoint.path, message)


def _with_names_of(recognition: Recognition | None, wanted: Any) -> Recognition | None:
    """The recognition with the cameras' names that the target's configuration gives, where the source has none."""
    if recognition is None or recognition.config is None:
        return recognition
    assumed = any(finding.code == "WK108" and finding.subject == "cameras" for finding in recognition.findings)
    cameras = getattr(wanted, "cameras", ())
    if not assumed or len(cameras) != len(getattr(recognition.config, "cameras", ())):
        return recognition
    return replace(recognition, config=replace(recognition.config, cameras=cameras))


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
    problems = [trap for trap in dict.fromkeys((theirs.trap, ours.trap)) if trap]
    if theirs.pixels != ours.pixels and not {"none", "either"} & {theirs.pixels, ours.pixels}:
        problems.append(f"images: {layout} takes {theirs.images}; {to} takes {ours.images}")
    hint = "the weights are right; check what your code hands to the policy"
    found = [Finding("WK221", Severity.WARNING, "observation.images", problem, hint) for problem in problems]
    if ours.stock:
        message = f"the project's own code does not load this policy as it is: {ours.stock}"
        found.append(Finding("WK223", Severity.WARNING, to, message))
    return found


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
