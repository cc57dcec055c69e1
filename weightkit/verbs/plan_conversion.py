"""Planning a conversion, keeping the plan, and taking it up again."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightkit.architectures import (
    architecture_of_layout,
    is_layout,
    layout_named,
    recognise,
)
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.routes import native_names
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Choices, Fate
from weightkit.core.rule import Mapping as Rules
from weightkit.core.section import Section
from weightkit.core.text import printable
from weightkit.digest import tensor_digest
from weightkit.engine.execution import check_source
from weightkit.engine.inversion import invert_plan
from weightkit.engine.matching import Matcher
from weightkit.engine.reconciling import parse_adapter
from weightkit.engine.saved_plan import read_plan
from weightkit.engine.wrappers import unwrapped
from weightkit.errors import FormatError, PlanError, UnsafeContent, UsageError
from weightkit.formats import Limits, open_checkpoint
from weightkit.mapping_file import read_mapping
from weightkit.verbs.configure import parse_settings
from weightkit.verbs.conversion import AS_IT_IS, Conversion, Progress, notes_on, refuse_not_dense
from weightkit.verbs.goals import as_it_is, by_rules, into_layout, into_policy, like_file

_MOST_PLAN_BYTES = 1 << 30


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
        found = into_layout(checkpoint, recognition, to, from_, rules, config, settings, choices)
    elif policy is not None:
        found = into_policy(checkpoint, recognition, policy, rules, choices)
    elif like is not None:
        found = like_file(checkpoint, recognition, open_checkpoint(like, limits), rules, choices)
    elif rules is not None:
        found = by_rules(checkpoint, recognition, rules, choices)
    else:
        found = as_it_is(checkpoint, recognition, choices)
    return replace(found, findings=(*found.findings, *_idle(found.plan, choices)))


def replay(source: str | Path | Checkpoint, plan: str | Path, *, limits: Limits | None = None) -> Conversion:
    """The conversion that a saved plan describes. Raises FormatError, and PlanError for another source."""
    return _of_plan(source, read_plan_file(Path(plan)), limits)


def undo(source: str | Path | Checkpoint, plan: str | Path, *, limits: Limits | None = None) -> Conversion:
    """The conversion of a saved plan's output back into its source. Raises FormatError, and PlanError that lists every
    step that lost something, or what is not the plan's output."""
    inverse = invert_plan(read_plan_file(Path(plan)))
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, limits or Limits())
    return _of_plan(_without_what_goes_along(checkpoint, inverse), inverse, limits)


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


def _without_what_goes_along(checkpoint: Checkpoint, plan: Plan) -> Checkpoint:
    """The checkpoint without what its layout never takes for the net's: statistics that were written beside it."""
    strangers = [name for name in checkpoint.state if name not in plan.source]
    recognition = recognise(checkpoint) if strangers else None
    layout = layout_named(recognition.layout) if recognition is not None else None
    if recognition is None or layout is None or recognition.config is None:
        return checkpoint
    matcher = Matcher(layout.mapping(recognition.config), {})
    dropped = {name for name in strangers for hit in matcher.matches(name) if hit.rule.fate is Fate.DROP}
    kept = checkpoint.state.only(name for name in checkpoint.state if name not in dropped)
    return checkpoint.replace(state=kept)


def _of_plan(source: str | Path | Checkpoint, plan: Plan, limits: Limits | None) -> Conversion:
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source, limits or Limits())
    _refuse_unsafe(checkpoint)
    check_source(plan, checkpoint.state)
    refuse_not_dense(checkpoint, plan)
    known = is_layout(plan.target_layout)
    architecture = architecture_of_layout(plan.target_layout) if known else None
    findings = (*checkpoint.findings, *notes_on(plan))
    keeps = plan.target_layout == AS_IT_IS
    if architecture is None or plan.config is None:
        return Conversion(checkpoint, plan, findings, architecture=architecture, keeps_metadata=keeps)
    config = architecture.config_from_dict(Section(plan.config, "the plan", "$.config"))
    recognition = recognise(checkpoint)
    native = architecture.target(config)
    name_of = native_names(architecture, plan.target_layout, config)
    plain = {unwrapped(name): spec for name, spec in plan.target.items()}
    strangers = [name for name in native.state.unique() if plain.get(name_of(name) or "") != native.state[name]]
    if strangers:
        message = f"the plan's configuration is of a net with {strangers[0]!r}, which it does not make like that"
        finding = Finding("WK215", Severity.ERROR, strangers[0], message, "make the plan anew: --plan-only")
        raise PlanError(message, report=Report("plan", (finding,), exit_code=1), hint=finding.hint)
    acting = frozenset(filter(None, map(name_of, native.acting)))
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
