"""How much memory a plan's arrays will take, known before it runs."""

from __future__ import annotations

from weightkit.core.plan import Plan, Step
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops import op_of

LOOKED_AT = 1 << 15
"""Elements of a changed tensor that are looked at together, in float64, for its statistics and what a cast cost it."""
_LOOK, _COMPARE = 4 * 8, 7 * 8


def peak_bytes(plan: Plan) -> int:
    """The most bytes of arrays that are alive at once: of the largest step, or of a tensor that is only checked."""
    checked = (plan.source[name].nbytes for name in (*plan.dropped, *plan.second_names) if name in plan.digests)
    return max(0, *checked, *(step_bytes(step) for step in plan.steps), 0)


def step_bytes(step: Step) -> int:
    """What the arrays of one step take: each op holds what it takes beside what it gives, and its own scratch."""
    specs = step.source_specs
    held = most = _bytes(specs)
    for call in step.ops:
        op = op_of(call)
        given, scratch = op.infer(specs), op.scratch(specs)
        most = max(most, held + _bytes(given) + scratch)
        if call.name == "cast":
            most = max(most, held + _bytes(given) + _chunk(specs) * _COMPARE)
        held = held if scratch < 0 else _bytes(given)  # a view keeps alive what it is a view of
        specs = given
    return max(most, held + _chunk(specs) * _LOOK) if step.ops else most


def _bytes(specs: tuple[TensorSpec, ...]) -> int:
    return sum(spec.nbytes for spec in specs)


def _chunk(specs: tuple[TensorSpec, ...]) -> int:
    return max((min(spec.numel, LOOKED_AT) for spec in specs), default=0)
