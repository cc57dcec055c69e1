"""Rules and two specs give a plan in which every source name and every target name is accounted for exactly once."""

from __future__ import annotations

from weightkit.core.plan import ConversionTarget, OpCall, Plan, Step
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Adapter, Choices, Fate, Mapping, StackedAxis
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.engine.matching import first_glob, first_spelling, is_glob, matches, nearest, second_names
from weightkit.errors import PlanError, UnmatchedPattern, UsageError
from weightkit.shape_ops import ADAPTER_FORMS, ADAPTERS, as_call

_SAME_OR_DROP = "give the target the source's configuration (--config_path, --set), or leave it out: --drop PATTERN"


def make_plan(source: StateSpec, target: ConversionTarget, mapping: Mapping, choices: Choices | None = None) -> Plan:
    """What happens to every tensor of ``source`` so that ``target`` comes out whole.

    Raises PlanError with all findings (nothing is skipped, nothing guessed), UsageError for a pattern that matches
    nothing.
    """
    choices = choices or Choices()
    findings: list[Finding] = []
    dropped = {name: f"--drop {glob!r}" for name in source if (glob := first_glob(name, choices.drop))}
    kept = source.only(name for name in source if name not in dropped)
    second = second_names(kept, mapping, target.lists)
    for name, other in second.items():
        if other.checked and source[name] != source[other.of]:
            message = f"it should be the same tensor as {other.of!r}, but {source[name]} is not {source[other.of]}"
            findings.append(_error("WK211", name, message, "say which one counts: --drop the other"))
    claims: dict[str, list[tuple[str, str]]] = {}
    for name in kept:
        if name in second:
            continue
        seen = first_spelling(name, kept, mapping, target.lists)
        hits = matches(seen, mapping, target.lists)
        if len(hits) > 1:
            ids = " and ".join(repr(hit.rule.id) for hit in hits)
            findings.append(
                _error(
                    "WK210",
                    name,
                    f"rules {ids} both match",
                    "add overrides = [...] to the rule that should win",
                )
            )
        elif not hits:
            message = f"no rule of mapping {mapping.name!r} knows this source tensor"
            findings.append(_error("WK201", name, message, "leave it out on purpose: --drop PATTERN"))
        elif hits[0].rule.fate is Fate.DROP:
            dropped[name] = hits[0].rule.why
        elif hits[0].target is None:
            message = "this source tensor belongs to a camera that the target does not have"
            findings.append(_error("WK201", name, message, _SAME_OR_DROP))
        elif hits[0].target not in target.state:
            message = f"this source tensor has no place in the target (rule {hits[0].rule.id!r})"
            findings.append(_error("WK201", name, message, _SAME_OR_DROP))
        else:
            claims.setdefault(hits[0].target, []).append((name, hits[0].rule.id))
    left_out: dict[str, str] = {}
    steps: list[Step] = []
    for goal, wanted in target.state.tensors.items():
        claimed = claims.get(goal, [])
        if len(claimed) > 1:
            names = ", ".join(name for name, _ in claimed)
            findings.append(_error("WK203", goal, f"claimed by {len(claimed)} sources: {names}", "drop all but one"))
        elif claimed:
            name, rule = claimed[0]
            ops = _reconcile(source[name], goal, wanted, target.stacked.get(goal), choices, findings)
            steps.append(Step(goal, name, rule, source[name], wanted, ops))
        else:
            _leave_out(goal, target, choices, left_out, findings)
    _check_patterns(choices, source, target.state)
    plan = Plan(mapping.name, mapping.digest, target.layout, tuple(steps), second, dropped, left_out)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        raise PlanError(
            f"{len(errors)} of {len(source)} source and {len(target.state)} target tensors are not accounted for",
            report=Report("plan", tuple(findings), exit_code=1),
        )
    assert_total(plan, source, target.state)
    return plan


def assert_total(plan: Plan, source: StateSpec, target: StateSpec) -> None:
    """Check both partitions of a plan: every source name and every target name exactly once, no name in two places."""
    used = [step.source for step in plan.steps] + list(plan.dropped) + list(plan.second_names)
    made = [step.target for step in plan.steps] + list(plan.left_out)
    for what, names, whole in (("source", used, source), ("target", made, target)):
        if len(names) != len(set(names)) or set(names) != set(whole):
            odd = sorted(set(names) ^ set(whole)) or sorted({n for n in names if names.count(n) > 1})
            raise AssertionError(f"the plan does not account for each {what} name exactly once: {odd}")


def _leave_out(
    goal: str,
    target: ConversionTarget,
    choices: Choices,
    left_out: dict[str, str],
    findings: list[Finding],
) -> None:
    globs = [glob for glob in choices.allow_missing if first_glob(goal, (glob,))]
    glob = next((glob for glob in globs if not is_glob(glob)), globs[0] if globs else None)
    if glob is None:
        hint = "give the target the source's configuration, or go without it: --allow-missing PATTERN"
        findings.append(_error("WK202", goal, "no source tensor gives this target tensor", hint))
    elif goal in target.acting and is_glob(glob):
        message = f"choosing an action reads it, and --allow-missing {glob!r} does not name it by itself"
        findings.append(_error("WK202", goal, message, f"if you mean it: --allow-missing {goal!r}"))
    else:
        left_out[goal] = f"--allow-missing {glob!r}"


def _reconcile(
    source: TensorSpec,
    goal: str,
    wanted: TensorSpec,
    stacked: StackedAxis | None,
    choices: Choices,
    findings: list[Finding],
) -> tuple[OpCall, ...]:
    """The ops from ``source`` to ``wanted``; what stands in the way goes into ``findings``."""
    named = [adapter for adapter in choices.adapt if first_glob(goal, (adapter.pattern,))]
    ops: list[OpCall] = []
    spec = source
    shape_error = ""
    shaping = sorted({str(adapter) for adapter in named if adapter.kind != "cast"})
    if len(shaping) > 1 and source.shape != wanted.shape:
        named, shape_error = [], f"{' and '.join(shaping)} are both named for it: name one"
    for adapter in named:
        same = spec.dtype == wanted.dtype if adapter.kind == "cast" else spec.shape == wanted.shape
        if same:
            continue
        try:
            op = ADAPTERS[adapter.kind](spec, wanted, stacked, adapter.choice)
            spec = op.infer(spec)
        except ValueError as reason:
            shape_error = f"{adapter} does not fit: {reason}"
            continue
        ops.append(as_call(op))
    if spec != wanted:
        why = f"; {shape_error}" if shape_error else ""
        code = "WK205" if shape_error else "WK204"
        findings.append(
            _error(
                code,
                goal,
                f"the source has {source}, the target wants {wanted}{why}",
                _choices_for(source, wanted, stacked),
            )
        )
        return ()
    for op_call in ops:
        if op_call.op_class == "LOSSY" and not choices.allow_lossy:
            message = f"{source} -> {wanted} by {op_call} loses information ({op_call.preserves})"
            findings.append(_error("WK208", goal, message, "if you mean it: --allow-lossy"))
    return tuple(ops)


def _choices_for(source: TensorSpec, wanted: TensorSpec, stacked: StackedAxis | None) -> str:
    """Which adapters would fit, as the user would type them."""
    fitting = []
    for form in ADAPTER_FORMS:
        kind, _, choice = form.partition(":")
        if kind == "cast":
            if source.dtype != wanted.dtype:
                fitting.append(f"cast:{wanted.dtype}")
            continue
        try:
            ADAPTERS[kind](source, TensorSpec(source.dtype, wanted.shape), stacked, choice)
        except ValueError:
            continue
        fitting.append(form)
    if fitting:
        return "choose how to reconcile it: " + ", or ".join(f"--adapt 'PATTERN={form}'" for form in fitting)
    return "no adapter fits: give the target the source's configuration, or --drop PATTERN and --allow-missing PATTERN"


def _check_patterns(choices: Choices, source: StateSpec, target: StateSpec) -> None:
    """Refuse patterns that match nothing: a typing error must not look like a decision."""
    for option, patterns, names in (
        ("--drop", choices.drop, source),
        ("--adapt", tuple(adapter.pattern for adapter in choices.adapt), target),
        ("--allow-missing", choices.allow_missing, target),
    ):
        for pattern in patterns:
            if not any(first_glob(name, (pattern,)) for name in names):
                side = "source" if option == "--drop" else "target"
                raise UnmatchedPattern(
                    f"{option} {pattern!r} matches no {side} tensor{nearest(pattern, list(names))}",
                    hint=f"{option} takes a glob over whole {side} names, such as {next(iter(names), '')!r}",
                )


def parse_adapter(text: str) -> Adapter:
    """``"PATTERN=KIND:CHOICE"`` as an Adapter. Raises UsageError that lists the kinds."""
    pattern, sign, kind = text.rpartition("=")
    name, _, choice = kind.partition(":")
    if not sign or not pattern or name not in ADAPTERS:
        raise UsageError(f"--adapt {text!r}: expected PATTERN=ADAPTER", hint=f"adapters: {', '.join(ADAPTER_FORMS)}")
    return Adapter(pattern, name, choice)


def _error(code: str, subject: str, message: str, hint: str) -> Finding:
    return Finding(code, Severity.ERROR, subject, message, hint)
