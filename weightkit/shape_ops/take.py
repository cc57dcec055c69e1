"""The newest frames out of a stack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightkit.core.plan import OpClass
from weightkit.core.rule import StackedAxis
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import ShapeOp, frame_blocks

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class TakeNewest:
    """Keep the last ``size`` entries of ``axis`` and forget the others: ``(o, size_before, ...) -> (o, size, ...)``."""

    axis: int
    size: int
    size_before: int
    name = "take:newest"
    op_class: OpClass = "LOSSY"
    preserves: str = "the same only where the older frames had zero weights"

    @property
    def params(self) -> Mapping[str, int | str]:
        return {"axis": self.axis, "size": self.size, "size_before": self.size_before}

    def infer(self, spec: TensorSpec) -> TensorSpec:
        if len(spec.shape) <= self.axis or spec.shape[self.axis] != self.size_before:
            raise ValueError(f"{self.name} wants {self.size_before} entries on axis {self.axis}, found {spec}")
        return TensorSpec(spec.dtype, (*spec.shape[: self.axis], self.size, *spec.shape[self.axis + 1 :]))

    def apply(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        kept = array[(slice(None),) * self.axis + (slice(self.size_before - self.size, None),)]
        return np.ascontiguousarray(kept)

    def inverse(self) -> None:
        """None: the older frames' weights are gone."""
        return


def take(source: TensorSpec, target: TensorSpec, stacked: StackedAxis | None, choice: str) -> ShapeOp:
    """``take:newest`` for an axis that stacks frames."""
    if choice != "newest":
        raise ValueError(f"choose take:newest, found {choice!r}")
    if stacked is None:
        raise ValueError("none of its axes stacks frames")
    axis, have, frames = frame_blocks(source, target, stacked)
    if have <= frames:
        raise ValueError(f"the source has {have} frames, the target {frames}: there is nothing to leave out")
    return TakeNewest(axis, target.shape[axis], source.shape[axis])
