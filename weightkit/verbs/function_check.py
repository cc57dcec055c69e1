"""Does a converted policy do what its source does? Asked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from weightkit import __version__
from weightkit.architectures import is_layout
from weightkit.architectures.own import own_metadata
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import OpCall, Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.errors import ConfigError, PlanError
from weightkit.verbs.conversion import AS_IT_IS, Conversion
from weightkit.verbs.load_policy import policy_of
from weightkit.verbs.outputs import ATOL, KINDS, STILL, Comparison, Judged, compare_policies

_ON_EVERY_INPUT = frozenset({"copy", "same", "inflate:newest", "deflate:newest", "cast:back", "unpad"})
_ON_STILL_INPUTS = frozenset({"inflate:mean", "deflate:mean"})


def check_function(conversion: Conversion) -> Comparison | None:
    """The outputs of the source's policy beside those of what comes out; None where no net is known.

    What counts as equal follows from the plan: renamings must not change any output, ``inflate:mean`` none on still
    observations; a step that changes the function by its nature is measured and not judged.
    """
    recognition, plan = conversion.recognition, conversion.plan
    known = recognition is not None and recognition.config is not None and conversion.config is not None
    if not known or plan.target_layout == AS_IT_IS or not is_layout(plan.target_layout):
        return None
    assert recognition is not None
    assert conversion.architecture is not None
    if recognition.layout != conversion.source_layout:
        return Comparison("not checked", f"the source is not recognised as {conversion.source_layout}", ATOL)
    acting = set(conversion.acting)
    if acting & plan.left_out.keys():
        return Comparison("not checked", "tensors that choosing an action reads are left out, as asked", ATOL)
    expected, why_not = _expected(plan)
    arrays = dict(conversion.arrays())
    metadata = {"weightkit_version": __version__, **own_metadata(plan.config, plan.target_layout, {}, {})}
    made = Checkpoint("the output", "memory", "", plan.produced, metadata, arrays.__getitem__)
    target = Recognition(conversion.architecture.name, plan.target_layout, "", "certain", (), conversion.config)
    inputs = conversion.architecture.inputs
    try:
        source = policy_of(conversion.source, recognition, cast=True)
        output = policy_of(made, target, cast=True)
        policies = (
            Judged("the source", source, inputs(recognition.config)),
            Judged("the output", output, conversion.inputs or inputs(conversion.config)),
        )
        found = compare_policies(*policies, expected=expected or KINDS)
    except (ConfigError, PlanError) as error:
        return Comparison("not checked", error.message, ATOL, failed=True)
    if not expected:
        worst = max(found.worst.values(), default=0.0)
        return replace(found, verdict="not checked", why=f"{why_not}; outputs are up to {worst:.3g} apart")
    return found


def refuse_other_function(comparison: Comparison) -> None:
    """Raise PlanError where the outputs differ."""
    if comparison.verdict != "different":
        return
    hint = "a mapping may give shapes that fit and the wrong function; --no-check writes it all the same"
    finding = Finding("WK212", Severity.ERROR, "outputs", comparison.why, hint)
    facts = {"function_check": comparison.to_dict()}
    raise PlanError(
        f"the outputs were compared, and {comparison.why}",
        report=Report("plan", (finding,), facts, exit_code=1),
        hint=hint,
    )


def note_on(comparison: Comparison | None) -> list[Finding]:
    """What a reader of the report must know about a check that judged nothing, or saw nothing."""
    if comparison is None or comparison.verdict == "equal":
        return []
    if comparison.verdict == "blind":
        return [Finding("WK222", Severity.WARNING, "outputs", comparison.why, "is this a trained policy?")]
    severity = Severity.WARNING if comparison.failed else Severity.INFO
    return [Finding("WK212", severity, "outputs", f"not judged: {comparison.why}")]


def _expected(plan: Plan) -> tuple[Sequence[str], str]:
    """The kinds of observations on which the plan promises equal outputs; and why on none."""
    expected: Sequence[str] = KINDS
    for step in plan.steps:
        for call in step.ops if step.sources else ():
            if call.name in _ON_STILL_INPUTS:
                expected = STILL
            elif call.name == "pad" and call.params.get("axis") != 0:
                continue  # new inputs, which must not matter
            elif not _keeps(call):
                return (), f"{call} on {step.targets[0]} keeps {call.preserves}"
    return expected, ""


def _keeps(call: OpCall) -> bool:
    return call.op_class == "BIJ" or call.name in _ON_EVERY_INPUT
