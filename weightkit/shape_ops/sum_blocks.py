"""Stacked frames seen as one: the weights of all of them added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import FactoredAxis
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs, frame_blocks, resized
from weightkit.shape_ops.bits import in_blocks, in_order, wide
from weightkit.shape_ops.literals import Literals, check_axis, check_float, check_sizes, extent

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class SumBlocks(EachTensor):
    """The sum over ``frames`` blocks of ``axis``: ``(o, frames * n, ...) -> (o, n, ...)``.

    The one frame answers as a still stack did. Added up in float64, float32 for floats of two bytes or one, and rounded
    once.
    """

    axis: int
    frames: int
    name: ClassVar[str] = "sum_blocks"
    op_class: ClassVar[OpClass] = "LOSSY"
    preserves: ClassVar[str] = (
        "the same on still stacks, up to rounding: what moves between frames is not seen any more"
    )

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        check_sizes(self.name, (self.frames,), least=1)

    @property
    def complement(self) -> str:
        return f"how the {self.frames} frames differ"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        have = extent(self.name, (spec,), self.axis)
        check_float(self.name, spec)
        if have % self.frames:
            raise ValueError(f"sum_blocks wants {self.frames} frames on axis {self.axis}, {spec} has {have} entries")
        return resized(spec, self.axis, have // self.frames)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        blocks = in_blocks(array, self.axis, self.frames)
        with np.errstate(all="ignore"):
            total = wide(blocks[:, 0])
            for frame in range(1, min(self.frames, blocks.shape[1])):
                total += wide(blocks[:, frame])
            result = in_order(total.astype(array.dtype))
            too_large = np.isfinite(blocks).all(axis=1) & ~np.isfinite(result)
        if bool(too_large.any()):
            raise ValueError(f"{int(too_large.sum())} of {result.size} sums do not fit into {array.dtype.name}")
        n = array.shape[self.axis] // self.frames
        return result.reshape((*array.shape[: self.axis], n, *array.shape[self.axis + 1 :]))

    def scratch(self, specs: Specs) -> int:
        return sum((8 if spec.dtype.itemsize < 4 else 12) * spec.numel // self.frames for spec in specs)

    def inverse(self) -> None:
        """None: a sum does not say what was added."""
        return


def sum_blocks_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``sum_blocks(axis, frames)``."""
    del specs, wanted
    given = Literals("sum_blocks", params, ("axis", "frames"))
    return SumBlocks(given.integer("axis"), given.integer("frames"))


def sum_blocks(
    source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str
) -> tuple[ShapeOp, ...]:
    """``sum_blocks``, for a target of a single frame."""
    if choice:
        raise ValueError(f"sum_blocks has no choices, found {choice!r}")
    axis, have, frames = frame_blocks(source, target, axes)
    if frames != 1:
        raise ValueError(f"the sum of frames is one frame, the target has {frames}; see take:newest")
    return (SumBlocks(axis, have),)
