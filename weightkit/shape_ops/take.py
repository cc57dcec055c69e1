"""A part of a tensor; the rest is forgotten."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import FRAMES, FactoredAxis
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs, check_meaning, frame_blocks, resized
from weightkit.shape_ops.bits import in_order, section
from weightkit.shape_ops.factors import (
    differing_axes,
    factor_change,
    factor_pairs,
    forms_of,
    kept_places,
    stacked_frames,
)
from weightkit.shape_ops.literals import Literals, check_axis, check_extent, check_sizes, extent
from weightkit.shape_ops.pad import factor_params, text_size

if TYPE_CHECKING:
    import numpy as np

_SPAN = re.compile(r"(\d{1,18}):(\d{1,18})", re.ASCII)
_ZERO = "the same only where what is left out had zero weights, or zero inputs"


@dataclass(frozen=True, slots=True)
class TakeNewest(EachTensor):
    """Keep the last ``size`` entries of ``axis`` and forget the others: ``(o, size_before, ...) -> (o, size, ...)``."""

    axis: int
    size: int
    size_before: int
    name: ClassVar[str] = "take:newest"
    op_class: ClassVar[OpClass] = "LOSSY"
    preserves: ClassVar[str] = "the same only where the older frames had zero weights"

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        check_sizes(self.name, (self.size, self.size_before))
        if self.size > self.size_before:
            raise ValueError(f"take:newest cannot take {self.size} of {self.size_before} entries")

    @property
    def complement(self) -> str:
        return f"the weights of the older frames: {self.size_before - self.size} of {self.size_before} entries"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, self.size_before)
        return resized(spec, self.axis, self.size)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        return in_order(section(array, self.axis, self.size_before - self.size, self.size_before))

    def scratch(self, specs: Specs) -> int:
        return -sum(spec.nbytes for spec in self.infer(specs)) if self.axis == 0 else 0

    def inverse(self) -> None:
        """None: the older frames' weights are gone."""
        return


@dataclass(frozen=True, slots=True)
class Slice(EachTensor):
    """Keep the entries ``start`` to ``stop - 1`` of ``axis``: ``(o, size_before) -> (o, stop - start)``."""

    axis: int
    start: int
    stop: int
    size_before: int
    name: ClassVar[str] = "slice"
    op_class: ClassVar[OpClass] = "LOSSY"
    preserves: ClassVar[str] = _ZERO

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        check_sizes(self.name, (self.start, self.stop, self.size_before))
        if not self.start <= self.stop <= self.size_before:
            raise ValueError(f"slice: {self.start} to {self.stop} is no part of {self.size_before} entries")

    @property
    def complement(self) -> str:
        left_out = self.size_before - (self.stop - self.start)
        return f"{left_out} of {self.size_before} entries: those before {self.start} and from {self.stop} on"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, self.size_before)
        return resized(spec, self.axis, self.stop - self.start)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        return in_order(section(array, self.axis, self.start, self.stop))

    def scratch(self, specs: Specs) -> int:
        return -sum(spec.nbytes for spec in self.infer(specs)) if self.axis == 0 else 0

    def inverse(self) -> None:
        """None: the other entries are gone."""
        return


@dataclass(frozen=True, slots=True)
class Shrink(EachTensor):
    """One factor of ``axis`` keeps its first entries, in each of its instances.

    ``shrink(axis=1, before="T=3,D=7", after="T=3,D=6")`` is ``(o, (3 7)) -> (o, (3 6))``: the last value of each frame
    is forgotten.
    """

    axis: int
    before: str
    after: str
    name: ClassVar[str] = "shrink"
    op_class: ClassVar[OpClass] = "LOSSY"
    preserves: ClassVar[str] = _ZERO

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        factor_change(self.name, self.after, self.before)

    @property
    def complement(self) -> str:
        before, after = text_size(self.before), text_size(self.after)
        return f"{before - after} of {before} entries: what {self.before} has and {self.after} has not"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, text_size(self.before))
        return resized(spec, self.axis, text_size(self.after))

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        return np.take(array, kept_places(factor_change(self.name, self.after, self.before)), axis=self.axis)

    def inverse(self) -> None:
        """None: the last entries are gone."""
        return


# ---- what a rule says


def take_newest_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``take:newest(axis, size)``."""
    del wanted
    given = Literals("take:newest", params, ("axis", "size"))
    axis = given.integer("axis")
    return TakeNewest(axis, given.integer("size"), extent("take:newest", specs, axis))


def slice_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``slice(axis, start, stop)``."""
    del wanted
    given = Literals("slice", params, ("axis", "start", "stop"))
    axis = given.integer("axis")
    return Slice(axis, given.integer("start"), given.integer("stop"), extent("slice", specs, axis))


def shrink_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``shrink(axis, size)``, or ``shrink(axis, size, factors, factor)``: ``factor`` of ``factors`` keeps ``size``."""
    del wanted
    return Shrink(*factor_params("shrink", specs, params))


# ---- what a user names


def take(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str) -> tuple[ShapeOp, ...]:
    """``take:newest`` for an axis that stacks frames."""
    if choice != "newest":
        raise ValueError(f"choose take:newest, found {choice!r}")
    axis, have, frames = frame_blocks(source, target, axes)
    if have <= frames:
        raise ValueError(f"the source has {have} frames, the target {frames}: there is nothing to leave out")
    return (TakeNewest(axis, target.shape[axis], source.shape[axis]),)


def slice_entries(
    source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str
) -> tuple[ShapeOp, ...]:
    """``slice:first``, ``slice:last``, ``slice:A:B``, or ``slice:FACTOR``."""
    span = _SPAN.fullmatch(choice)
    if choice not in ("first", "last") and span is None:
        return _shrink(source, target, axes, choice)
    check_meaning(target, axes)
    differing = differing_axes(source, target)
    if span is not None and len(differing) != 1:
        raise ValueError(f"{len(differing)} axes differ, slice:{choice} is for one")
    ops = []
    for axis in differing:
        have, want = source.shape[axis], target.shape[axis]
        if have < want:
            raise ValueError(f"axis {axis} goes from {have} to {want}: slice only shrinks")
        start = {"first": 0, "last": have - want}[choice] if span is None else int(span[1])
        stop = start + want if span is None else int(span[2])
        if stop - start != want:
            raise ValueError(f"{start}:{stop} are {stop - start} entries, axis {axis} of the target has {want}")
        _check_frames(axes, axis, have, want, start)
        ops.append(Slice(axis, start, stop, have))
    return tuple(ops)


def _check_frames(axes: Sequence[FactoredAxis], axis: int, have: int, want: int, start: int) -> None:
    stacked = stacked_frames(axes, axis)
    if stacked is None:
        return
    each, frames = stacked
    per_frame = want // frames
    whole = len(each.blocks) == 1 and each.blocks[0][0].name == FRAMES
    if not whole or have % per_frame or start % per_frame:
        raise ValueError(
            f"axis {axis} of the target stacks {frames} frames ({each.text}), and {want} entries from {start} on of "
            f"the source's {have} would mix them; choose take:newest{forms_of(each, 'slice')}"
        )


def _shrink(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], factor: str) -> tuple[ShapeOp, ...]:
    if factor == FRAMES:
        raise ValueError("a cut behind the frames would take the newest away; choose take:newest")
    if not factor:
        raise ValueError("choose slice:first, slice:last, slice:A:B or slice:FACTOR")
    ops = []
    for before, after in factor_pairs(source, target, axes, factor):
        if before.size < after.size:
            raise ValueError(f"axis {after.axis} goes from {before.text} to {after.text}: slice only shrinks")
        ops.append(Shrink(after.axis, before.text, after.text))
    return tuple(ops)
