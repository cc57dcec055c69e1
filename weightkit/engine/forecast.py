"""How much memory a plan's arrays will take, known before it runs."""

from __future__ import annotations

from weightkit.core.plan import Plan, Step
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops import op_of


def peak_bytes(plan: Plan) -> int:
    """The most bytes of arrays that are alive at once: those of the largest step."""
    return max((step_bytes(step) for step in plan.steps), default=0)


def step_bytes(step: Step) -> int:
    """What the arrays of one step take: each op holds what it takes beside what it gives, and its own scratch."""
    specs = step.source_specs
    most = _bytes(specs)
    for call in step.ops:
        op = op_of(call)
        given = op.infer(specs)
        most = max(most, _bytes(specs) + _bytes(given) + op.scratch(specs))
        specs = given
    return most


def _bytes(specs: tuple[TensorSpec, ...]) -> int:
    return sum(spec.nbytes for spec in specs)
