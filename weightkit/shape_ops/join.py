"""Tensors joined along an axis, and parted again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import Arrays, FieldsAreParams, ShapeOp, Specs, resized, runs_of, specs_of
from weightkit.shape_ops.bits import in_order, joined, section
from weightkit.shape_ops.literals import (
    MAX_RANK,
    MAX_TENSORS,
    Literals,
    check_axis,
    check_count,
    check_extent,
    check_sizes,
    extent,
    only,
)

_JOINED = "the same where the net reads the joined tensor as its parts, in this order"
_PARTED = "the same where the net reads the parts as the whole, in this order"


@dataclass(frozen=True, slots=True)
class Concat(FieldsAreParams):
    """Tensors one after the other along ``axis``: sizes 4, 1, 1 are ``(4, n), (1, n), (1, n) -> (6, n)``."""

    axis: int
    sizes: tuple[int, ...]
    name: ClassVar[str] = "concat"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = _JOINED
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        _check_parts(self.name, self.axis, self.sizes)

    def infer(self, specs: Specs) -> Specs:
        return tuple(self._joined(run) for run in runs_of(specs, len(self.sizes), self.name))

    def _joined(self, run: Specs) -> TensorSpec:
        for spec, size in zip(run, self.sizes, strict=True):
            check_extent(self.name, spec, self.axis, size)
            if resized(spec, self.axis, 0) != resized(run[0], self.axis, 0):
                raise ValueError(
                    f"concat wants tensors that differ on axis {self.axis} only, found {run[0]} and {spec}"
                )
        return resized(run[0], self.axis, sum(self.sizes))

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        return tuple(joined(run, self.axis) for run in runs_of(arrays, len(self.sizes), self.name))

    def inverse(self) -> ShapeOp:
        return Split(self.axis, self.sizes)


@dataclass(frozen=True, slots=True)
class Split(FieldsAreParams):
    """One tensor as its parts along ``axis``, of the ``sizes`` given: ``(6, n) -> (4, n), (1, n), (1, n)``."""

    axis: int
    sizes: tuple[int, ...]
    name: ClassVar[str] = "split"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = _PARTED
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        _check_parts(self.name, self.axis, self.sizes)

    def infer(self, specs: Specs) -> Specs:
        _check_number(self.name, specs, len(self.sizes))
        for spec in specs:
            check_extent(self.name, spec, self.axis, sum(self.sizes))
        return tuple(resized(spec, self.axis, size) for spec in specs for size in self.sizes)

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        stops = tuple(accumulate(self.sizes))
        return tuple(
            in_order(section(array, self.axis, stop - size, stop))
            for array in arrays
            for size, stop in zip(self.sizes, stops, strict=True)
        )

    def scratch(self, specs: Specs) -> int:
        return -sum(spec.nbytes for spec in specs) if self.axis == 0 else 0

    def inverse(self) -> ShapeOp:
        return Concat(self.axis, self.sizes)


@dataclass(frozen=True, slots=True)
class Stack(FieldsAreParams):
    """``count`` tensors of one shape along a new ``axis``: ``count`` times ``(o, i) -> (count, o, i)``."""

    axis: int
    count: int
    name: ClassVar[str] = "stack"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = _JOINED
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        check_count(self.name, self.count)

    def infer(self, specs: Specs) -> Specs:
        return tuple(self._stacked(run) for run in runs_of(specs, self.count, self.name))

    def _stacked(self, run: Specs) -> TensorSpec:
        for spec in run:
            if spec != run[0]:
                raise ValueError(f"stack wants tensors of one type and shape, found {run[0]} and {spec}")
        shape = run[0].shape
        if not self.axis <= len(shape) < MAX_RANK:
            raise ValueError(f"stack cannot add axis {self.axis} to {run[0]}, which has {len(shape)} axes")
        return TensorSpec(run[0].dtype, (*shape[: self.axis], self.count, *shape[self.axis :]))

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        lifted = tuple(array.reshape((*array.shape[: self.axis], 1, *array.shape[self.axis :])) for array in arrays)
        return tuple(joined(run, self.axis) for run in runs_of(lifted, self.count, self.name))

    def inverse(self) -> ShapeOp:
        return Unstack(self.axis, self.count)


@dataclass(frozen=True, slots=True)
class Unstack(FieldsAreParams):
    """The ``count`` entries of ``axis`` as tensors without it: ``(count, o, i) -> count`` times ``(o, i)``."""

    axis: int
    count: int
    name: ClassVar[str] = "unstack"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = _PARTED
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        check_count(self.name, self.count)

    def infer(self, specs: Specs) -> Specs:
        _check_number(self.name, specs, self.count)
        parts: list[TensorSpec] = []
        for spec in specs:
            check_extent(self.name, spec, self.axis, self.count)
            part = TensorSpec(spec.dtype, (*spec.shape[: self.axis], *spec.shape[self.axis + 1 :]))
            parts += [part] * self.count
        return tuple(parts)

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        return tuple(
            in_order(section(array, self.axis, place, place + 1)).reshape(
                (*array.shape[: self.axis], *array.shape[self.axis + 1 :])
            )
            for array in arrays
            for place in range(self.count)
        )

    def scratch(self, specs: Specs) -> int:
        return -sum(spec.nbytes for spec in specs) if self.axis == 0 else 0

    def inverse(self) -> ShapeOp:
        return Stack(self.axis, self.count)


def _check_parts(name: str, axis: int, sizes: tuple[int, ...]) -> None:
    check_axis(name, axis)
    check_sizes(name, sizes)
    check_count(name, len(sizes))


def _check_number(name: str, specs: Specs, count: int) -> None:
    if len(specs) * count > MAX_TENSORS:
        raise ValueError(f"{name} would give {len(specs)} x {count} tensors, at most {MAX_TENSORS}")


# ---- what a rule says


def concat_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``concat(axis[, sizes])``: the sizes are those of the sources, ``count`` at a time (all of them)."""
    del wanted
    given = Literals("concat", params, ("axis", "sizes", "count"))
    axis = given.integer("axis")
    check_axis("concat", axis)
    count = given.integer("count") if "count" in given else len(only("concat", specs))
    if "sizes" in given:
        sizes = given.integers("sizes")
        if "count" in given and len(sizes) != count:
            raise ValueError(f"concat: {len(sizes)} sizes for {count} tensors at a time")
        return Concat(axis, sizes)
    check_count("concat", count)
    runs = runs_of(tuple(extent("concat", (spec,), axis) for spec in specs), count, "concat")
    for run in runs:
        if run != runs[0]:
            raise ValueError(
                f"concat: tensors of {list(runs[0])} and of {list(run)} entries on axis {axis}: name the sizes"
            )
    return Concat(axis, runs[0])


def split_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``split(axis[, sizes])``: the sizes are those of the targets. Never an equal division of the source."""
    given = Literals("split", params, ("axis", "sizes", "count"))
    axis = given.integer("axis")
    check_axis("split", axis)
    if "sizes" in given:
        sizes = given.integers("sizes")
        if "count" in given and len(sizes) != given.integer("count"):
            raise ValueError(f"split: {len(sizes)} sizes for {given.integer('count')} tensors")
        return Split(axis, sizes)
    if wanted is None:
        raise ValueError("split: nobody says how large the parts are; name them: sizes = [...]")
    count = given.integer("count") if "count" in given else len(wanted) // len(only("split", specs))
    check_count("split", count)
    if len(wanted) != count * len(specs):
        raise ValueError(f"split: {len(specs)} sources cannot give {len(wanted)} targets, {count} each")
    whole = extent("split", specs, axis)
    runs = runs_of(tuple(extent("split", (spec,), axis) for spec in wanted), count, "split")
    for run in runs:
        if sum(run) != whole or run != runs[0]:
            raise ValueError(
                f"split: the targets have {'+'.join(map(str, run))} = {sum(run)} entries on axis {axis}, the source "
                f"has {whole}: name the sizes"
            )
    return Split(axis, runs[0])


def stack_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``stack(axis)``, with the ``count`` of tensors that the rule joins."""
    del specs, wanted
    given = Literals("stack", params, ("axis", "count"))
    return Stack(given.integer("axis"), given.integer("count"))


def unstack_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``unstack(axis[, count])``: as many as the source has on the axis."""
    del wanted
    given = Literals("unstack", params, ("axis", "count"))
    axis = given.integer("axis")
    count = extent("unstack", specs, axis)
    if "count" in given and given.integer("count") != count:
        raise ValueError(f"unstack: {given.integer('count')} tensors are wanted, the source has {count} on axis {axis}")
    return Unstack(axis, count)
