"""The contract of a shape op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from weightkit.core.plan import OpCall, OpClass
from weightkit.core.rule import StackedAxis
from weightkit.core.tensor import TensorSpec

if TYPE_CHECKING:
    import numpy as np


class ShapeOp(Protocol):
    """One way to turn a tensor into a tensor of another shape or dtype, honest about what it keeps.

    ``infer(spec(x)) == spec(apply(x))`` always; ``inverse()`` undoes it bit for bit, or is None.
    """

    @property
    def name(self) -> str:
        """The op's name in plans."""

    @property
    def op_class(self) -> OpClass:
        """BIJ (two-sided inverse), INJ (nothing lost) or LOSSY."""

    @property
    def preserves(self) -> str:
        """On which inputs the net computes the same as before, in words."""

    @property
    def params(self) -> Mapping[str, int | str]:
        """The literal parameters, JSON values."""

    def infer(self, spec: TensorSpec) -> TensorSpec:
        """The spec of the result. Raises ValueError where the op does not fit."""

    def apply(self, array: np.ndarray) -> np.ndarray:
        """The result."""

    def inverse(self) -> ShapeOp | None:
        """The op that undoes this one, None where there is none."""


class AdapterKind(Protocol):
    """Finds the op that an adapter of this kind means for one tensor."""

    def __call__(self, source: TensorSpec, target: TensorSpec, stacked: StackedAxis | None, choice: str) -> ShapeOp:
        """The op from ``source`` to ``target``. Raises ValueError, in words for the user, where it does not fit."""


def as_call(op: ShapeOp) -> OpCall:
    """The op as it stands in a plan."""
    return OpCall(op.name, dict(op.params), op.op_class, op.preserves)


def frame_blocks(source: TensorSpec, target: TensorSpec, stacked: StackedAxis | None) -> tuple[int, int, int]:
    """``(axis, frames of the source, frames of the target)`` for two shapes that differ in stacked frames only.

    Raises ValueError where the target's axis does not stack frames or the shapes differ elsewhere.
    """
    if stacked is None:
        raise ValueError("none of its axes stacks frames")
    axis, frames = stacked.axis, stacked.frames
    if len(source.shape) != len(target.shape) or len(target.shape) <= axis:
        raise ValueError(f"the ranks differ: {len(source.shape)} and {len(target.shape)}")
    elsewhere = [i for i, (a, b) in enumerate(zip(source.shape, target.shape, strict=True)) if a != b and i != axis]
    if elsewhere:
        raise ValueError(f"axis {elsewhere[0]} differs too, and it does not stack frames")
    per_frame = target.shape[axis] // frames
    have, remainder = divmod(source.shape[axis], per_frame)
    if remainder or have < 1:
        raise ValueError(
            f"axis {axis} of the source, {source.shape[axis]}, is no whole number of frames of {per_frame}"
        )
    return axis, have, frames
