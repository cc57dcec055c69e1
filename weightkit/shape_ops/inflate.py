"""Weights of one frame, or a few, spread over more stacked frames, and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import copysign, inf, isfinite
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import FactoredAxis
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs, frame_blocks, resized
from weightkit.shape_ops.bits import count_differing, count_nonzero_bits, in_order, joined, section, wide
from weightkit.shape_ops.literals import (
    Literals,
    check_axis,
    check_extent,
    check_float,
    check_sizes,
    check_zero,
    extent,
)

if TYPE_CHECKING:
    import numpy as np

_MAX_FRAMES = 1 << 20
_SCRATCH = {8: (25, 41), 4: (13, 21), 2: (15, 19), 1: (14, 18)}
"""Bytes of an element -> bytes that spreading one takes beside itself and its frames, and that adding it up takes."""


@dataclass(frozen=True, slots=True)
class InflateNewest(EachTensor):
    """Keep the weights on the newest frames, zeros on the older ones.

    ``(o, size_before, ...) -> (o, size, ...)`` on ``axis``. Oldest frame first, newest last. The net computes the
    same as before on every stack: it does not see older frames.
    """

    axis: int
    size: int
    size_before: int
    name: ClassVar[str] = "inflate:newest"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same on every stack: older frames get zero weights"
    complement: ClassVar[str] = "weights of older frames, all zero"

    def __post_init__(self) -> None:
        _check_growth(self.name, self.axis, self.size, self.size_before)

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, self.size_before)
        check_zero(self.name, spec)
        return resized(spec, self.axis, self.size)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        result = np.zeros((*array.shape[: self.axis], self.size, *array.shape[self.axis + 1 :]), array.dtype)
        section(result, self.axis, self.size - self.size_before, self.size)[...] = array
        return result

    def inverse(self) -> ShapeOp:
        return DeflateNewest(self.axis, self.size, self.size_before)


@dataclass(frozen=True, slots=True)
class DeflateNewest(EachTensor):
    """Takes back what `InflateNewest` of the same parameters added, where it is still zero."""

    axis: int
    size: int
    size_before: int
    name: ClassVar[str] = "deflate:newest"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same on every stack: the older frames had zero weights"
    complement: ClassVar[str] = "weights of older frames, checked to be zero"

    def __post_init__(self) -> None:
        _check_growth(self.name, self.axis, self.size, self.size_before)

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, self.size)
        check_zero(self.name, spec)
        return resized(spec, self.axis, self.size_before)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        older = section(array, self.axis, 0, self.size - self.size_before)
        bad = count_nonzero_bits(older)
        if bad:
            raise ValueError(f"{bad} of the {older.size} weights of older frames are not zero")
        return in_order(section(array, self.axis, self.size - self.size_before, self.size))

    def inverse(self) -> ShapeOp:
        return InflateNewest(self.axis, self.size, self.size_before)


@dataclass(frozen=True, slots=True)
class InflateMean(EachTensor):
    """Spread single-frame weights over ``frames`` stacked frames, each scaled by ``1 / frames``.

    ``(o, n, ...) -> (o, frames * n, ...)`` on ``axis``. Keeps the response on a still scene only: on a moving one the
    net computes the response to the mean frame.

    Dividing rounds, and more than one weight can have the same share (of the 1,024 values of float16 from 1 to 2 a
    third leaves 854). So the newest frame gets what the others leave, exactly: it differs from them in its last bits
    at most, the frames add up to the weight itself, and nothing is lost.

    Source: Carreira & Zisserman 2017, section 2.2; the exact rest is ours.
    """

    axis: int
    frames: int
    name: ClassVar[str] = "inflate:mean"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same on still stacks only: on moving ones it is the response to the mean frame"
    complement: ClassVar[str] = "frames of equal shares, the newest with what rounding left"

    def __post_init__(self) -> None:
        _check_frames(self.name, self.axis, self.frames)

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_float(self.name, spec)
        return resized(spec, self.axis, self.frames * extent(self.name, (spec,), self.axis))

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        share, rest = _shares(array, self.frames)
        bad = count_differing(_added_up(share, rest, self.frames), in_order(array))
        if bad:
            raise ValueError(f"{bad} of {array.size} values do not come back from {self.frames} shares of them")
        return joined((share,) * (self.frames - 1) + (rest,), self.axis)

    def scratch(self, specs: Specs) -> int:
        return sum(_SCRATCH[spec.dtype.itemsize][0] * spec.numel for spec in specs)

    def inverse(self) -> ShapeOp:
        return DeflateMean(self.axis, self.frames)


@dataclass(frozen=True, slots=True)
class DeflateMean(EachTensor):
    """Takes back `InflateMean` of the same parameters where all frames still have the shares that it gave them."""

    axis: int
    frames: int
    name: ClassVar[str] = "deflate:mean"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same on still stacks only: the one frame gets the weights of all"
    complement: ClassVar[str] = "frames of weights, checked to be equal shares"

    def __post_init__(self) -> None:
        _check_frames(self.name, self.axis, self.frames)

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        have = extent(self.name, (spec,), self.axis)
        check_float(self.name, spec)
        if have % self.frames:
            raise ValueError(f"deflate:mean wants {self.frames} frames on axis {self.axis}, {spec} has {have} entries")
        return resized(spec, self.axis, have // self.frames)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        width = array.shape[self.axis] // self.frames
        frames = [section(array, self.axis, i * width, (i + 1) * width) for i in range(self.frames)]
        whole = _added_up(in_order(frames[0]), in_order(frames[-1]), self.frames)
        share, rest = _shares(whole, self.frames)
        bad = sum(count_differing(found, share) for found in frames[:-1]) + count_differing(frames[-1], rest)
        if bad:
            raise ValueError(f"{bad} of {array.size} weights are not the shares of {self.frames} frames")
        return whole

    def scratch(self, specs: Specs) -> int:
        return sum(_SCRATCH[spec.dtype.itemsize][1] * spec.numel // self.frames for spec in specs)

    def inverse(self) -> ShapeOp:
        return InflateMean(self.axis, self.frames)


def _shares(array: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """What each frame but the newest gets, and what is left for the newest."""
    import numpy as np

    with np.errstate(all="ignore"):
        share = in_order((wide(array) / frames).astype(array.dtype))
        rest = _exactly(array, share, -(frames - 1))
        alone = (array == 0) | ~np.isfinite(array)  # a zero keeps its sign, what is not finite stays so
        return share, in_order(np.where(alone, share, rest))


def _added_up(share: np.ndarray, rest: np.ndarray, frames: int) -> np.ndarray:
    """The weight whose shares these are."""
    import numpy as np

    with np.errstate(all="ignore"):
        alone = ((share == 0) & (rest == 0)) | ~np.isfinite(share)
        return in_order(np.where(alone, share, _exactly(rest, share, frames - 1)))


def _exactly(summand: np.ndarray, factor: np.ndarray, times: int) -> np.ndarray:
    """``summand + times * factor``, rounded once."""
    import numpy as np

    dtype = summand.dtype
    if dtype.itemsize < 8:
        return (summand.astype(np.float64) + factor.astype(np.float64) * times).astype(dtype)
    if np.finfo(np.longdouble).nmant > np.finfo(np.float64).nmant + abs(times).bit_length():
        return (summand.astype(np.longdouble) + factor.astype(np.longdouble) * times).astype(dtype)
    pairs = zip(summand.reshape(-1).tolist(), factor.reshape(-1).tolist(), strict=True)
    return np.array([_rounded(first, second, times) for first, second in pairs], dtype).reshape(summand.shape)


def _rounded(first: float, second: float, times: int) -> float:
    """``first + times * second`` by exact fractions, where the machine has no wider floats."""
    if not isfinite(first) or not isfinite(second):
        return first
    try:
        return float(Fraction(first) + times * Fraction(second))
    except OverflowError:
        return copysign(inf, first)


def _check_growth(name: str, axis: int, size: int, size_before: int) -> None:
    check_axis(name, axis)
    check_sizes(name, (size, size_before))
    if size < size_before:
        raise ValueError(f"{name}: {size_before} entries cannot become {size}")


def _check_frames(name: str, axis: int, frames: int) -> None:
    check_axis(name, axis)
    if not 1 <= frames <= _MAX_FRAMES:
        raise ValueError(f"{name}: {frames} frames, it must be 1 to {_MAX_FRAMES}")


# ---- what a rule says


def inflate_newest_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``inflate:newest(axis, size)``: the size of the axis after."""
    del wanted
    given = Literals("inflate:newest", params, ("axis", "size"))
    axis = given.integer("axis")
    return InflateNewest(axis, given.integer("size"), extent("inflate:newest", specs, axis))


def inflate_mean_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``inflate:mean(axis, frames)``."""
    del specs, wanted
    given = Literals("inflate:mean", params, ("axis", "frames"))
    return InflateMean(given.integer("axis"), given.integer("frames"))


# ---- what a user names


def inflate(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str) -> tuple[ShapeOp, ...]:
    """``inflate:newest`` or ``inflate:mean`` for an axis that stacks frames."""
    axis, have, frames = frame_blocks(source, target, axes)
    if have >= frames:
        raise ValueError(f"the source has {have} frames already, the target {frames}")
    if choice == "newest":
        return (InflateNewest(axis, target.shape[axis], source.shape[axis]),)
    if choice == "mean":
        if have != 1:
            raise ValueError(f"the mean is defined from a single frame, the source has {have}")
        return (InflateMean(axis, frames),)
    raise ValueError(f"choose inflate:newest or inflate:mean, found {choice!r}")
