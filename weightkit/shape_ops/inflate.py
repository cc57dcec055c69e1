"""Weights of one frame, or a few, spread over more stacked frames."""

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


def _grown(spec: TensorSpec, axis: int, size: int) -> TensorSpec:
    return TensorSpec(spec.dtype, (*spec.shape[:axis], size, *spec.shape[axis + 1 :]))


@dataclass(frozen=True, slots=True)
class InflateNewest:
    """Keep the weights on the newest frames, zeros on the older ones: ``(o, n, ...) -> (o, size, ...)`` on ``axis``.

    The net computes the same as before on every stack, since it does not see the older frames.
    """

    axis: int
    size: int
    size_before: int
    name = "inflate:newest"
    op_class: OpClass = "INJ"
    preserves: str = "the same on every stack: older frames get zero weights"

    @property
    def params(self) -> Mapping[str, int | str]:
        return {"axis": self.axis, "size": self.size, "size_before": self.size_before}

    def infer(self, spec: TensorSpec) -> TensorSpec:
        if len(spec.shape) <= self.axis or spec.shape[self.axis] != self.size_before:
            raise ValueError(f"{self.name} wants {self.size_before} entries on axis {self.axis}, found {spec}")
        return _grown(spec, self.axis, self.size)

    def apply(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        older = list(array.shape)
        older[self.axis] = self.size - self.size_before
        return np.concatenate([np.zeros(older, array.dtype), array], axis=self.axis)

    def inverse(self) -> ShapeOp:
        from weightkit.shape_ops.take import TakeNewest

        return TakeNewest(self.axis, self.size_before, self.size)


@dataclass(frozen=True, slots=True)
class InflateMean:
    """Spread single-frame weights over ``frames`` stacked frames, each scaled by ``1 / frames``.

    ``(o, n, ...) -> (o, frames * n, ...)`` on ``axis``.

    Keeps the response on a still scene only: on a moving one the net computes the response to the mean frame.

    Source: Carreira & Zisserman 2017, section 2.2.
    """

    axis: int
    frames: int
    name = "inflate:mean"
    op_class: OpClass = "INJ"
    preserves: str = "the same on still stacks only: on moving ones it is the response to the mean frame"

    @property
    def params(self) -> Mapping[str, int | str]:
        return {"axis": self.axis, "frames": self.frames}

    def infer(self, spec: TensorSpec) -> TensorSpec:
        if spec.dtype.kind != "float" or len(spec.shape) <= self.axis:
            raise ValueError(f"{self.name} wants floats with an axis {self.axis}, found {spec}")
        return _grown(spec, self.axis, self.frames * spec.shape[self.axis])

    def apply(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        share = (array / array.dtype.type(self.frames)).astype(array.dtype)
        return np.concatenate([share] * self.frames, axis=self.axis)

    def inverse(self) -> None:
        """None: dividing by the number of frames rounds, so the weights do not come back bit for bit."""
        return


def inflate(source: TensorSpec, target: TensorSpec, stacked: StackedAxis | None, choice: str) -> ShapeOp:
    """``inflate:newest`` or ``inflate:mean`` for an axis that stacks frames."""
    axis, have, frames = frame_blocks(source, target, stacked)
    if have >= frames:
        raise ValueError(f"the source has {have} frames already, the target {frames}")
    if choice == "newest":
        return InflateNewest(axis, target.shape[axis], source.shape[axis])
    if choice == "mean":
        if have != 1:
            raise ValueError(f"the mean is defined from a single frame, the source has {have}")
        return InflateMean(axis, frames)
    raise ValueError(f"choose inflate:newest or inflate:mean, found {choice!r}")
