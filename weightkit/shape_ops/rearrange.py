"""The same entries in another order: nothing is lost, nothing made."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import Block, FactoredAxis, axis_text, block_size, parse_blocks
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs
from weightkit.shape_ops.bits import in_order, joined, section
from weightkit.shape_ops.literals import (
    MAX_RANK,
    Literals,
    check_axis,
    check_extent,
    check_order,
    check_sizes,
    only,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

_REORDERED = "the same where the net reads the entries in the new order"


@dataclass(frozen=True, slots=True)
class Permute(EachTensor):
    """The axes in another order: ``permute(axes=(1, 0))`` is ``(a, b) -> (b, a)``."""

    axes: tuple[int, ...]
    name: ClassVar[str] = "permute"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = "the same where the net reads the axes in the new order"
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if len(self.axes) > MAX_RANK:
            raise ValueError(f"permute: {len(self.axes)} axes, a tensor has at most {MAX_RANK}")
        check_order(self.name, self.axes, len(self.axes), "axes")

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        if len(spec.shape) != len(self.axes):
            raise ValueError(f"permute orders {len(self.axes)} axes, {spec} has {len(spec.shape)}")
        return TensorSpec(spec.dtype, tuple(spec.shape[axis] for axis in self.axes))

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        return in_order(array.transpose(self.axes))

    def inverse(self) -> ShapeOp:
        return Permute(_inverted(self.axes))


@dataclass(frozen=True, slots=True)
class AxisView(EachTensor):
    """One axis seen as a product of named factors, which are put in another order.

    ``axis_view(axis=1, before="H=8,W=8,C=4", order="C,H,W")`` is ``(o, (h w c)) -> (o, (c h w))``: what follows a
    flattened picture reads channels first then. With ``"T=3,C=4"`` and ``"C,T"`` stacked frames become stacked
    channels.
    """

    axis: int
    before: str
    order: str
    name: ClassVar[str] = "axis_view"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = _REORDERED
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        names = [factor.name for factor in self._block]
        order = self._order
        if len(set(names)) != len(names):
            raise ValueError(f"axis_view: {self.before!r} names a factor twice, so the order could mean either")
        if sorted(order) != sorted(names):
            raise ValueError(f"axis_view: {self.order!r} does not name each of {', '.join(names)} once")

    @property
    def _block(self) -> Block:
        blocks = parse_blocks(self.before)
        if len(blocks) != 1:
            raise ValueError(f"axis_view: {self.before!r} has {len(blocks)} blocks, expected one; see reorder_blocks")
        if len(blocks[0]) > MAX_RANK - 2:
            raise ValueError(f"axis_view: {len(blocks[0])} factors, it must be at most {MAX_RANK - 2}")
        return blocks[0]

    @property
    def _order(self) -> list[str]:
        return [name.strip() for name in self.order.split(",")]

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, block_size(self._block))
        return spec

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        block, after = self._block, array.shape[self.axis + 1 :]
        names = [factor.name for factor in block]
        places = [1 + names.index(name) for name in self._order]
        rows, rest = prod(array.shape[: self.axis]), prod(after)
        factors = array.reshape(rows, *(factor.size for factor in block), rest)
        return in_order(factors.transpose(0, *places, len(block) + 1)).reshape(array.shape)

    def inverse(self) -> ShapeOp:
        sizes = {factor.name: factor for factor in self._block}
        after = axis_text((tuple(sizes[name] for name in self._order),))
        return AxisView(self.axis, after, ",".join(sizes))


@dataclass(frozen=True, slots=True)
class ReorderBlocks(EachTensor):
    """The concatenated blocks of one axis in another order: block ``order[i]`` of the source comes at place i.

    ``reorder_blocks(axis=1, sizes=(50, 18, 6), order=(2, 0, 1))`` is ``(o, vis|state|act) -> (o, act|vis|state)``.
    """

    axis: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    name: ClassVar[str] = "reorder_blocks"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = _REORDERED
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_axis(self.name, self.axis)
        check_sizes(self.name, self.sizes)
        if not self.sizes:
            raise ValueError("reorder_blocks: no blocks")
        check_order(self.name, self.order, len(self.sizes), "blocks")

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, sum(self.sizes))
        return spec

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        starts = _starts(self.sizes)
        return joined(
            tuple(section(array, self.axis, starts[block], starts[block + 1]) for block in self.order),
            self.axis,
        )

    def inverse(self) -> ShapeOp:
        return ReorderBlocks(self.axis, tuple(self.sizes[block] for block in self.order), _inverted(self.order))


@dataclass(frozen=True, slots=True)
class Reshape(EachTensor):
    """Axes of size 1 added or taken away: ``(a, b) -> (a, 1, b)``, ``(1,) -> ()``. Other reshapes have other names."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    name: ClassVar[str] = "reshape"
    op_class: ClassVar[OpClass] = "BIJ"
    preserves: ClassVar[str] = "the same: only axes of size 1 come or go"
    complement: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for shape in (self.before, self.after):
            check_sizes(self.name, shape)
            if len(shape) > MAX_RANK:
                raise ValueError(f"reshape: {len(shape)} axes, a tensor has at most {MAX_RANK}")
        if [size for size in self.before if size != 1] != [size for size in self.after if size != 1]:
            raise ValueError(
                f"reshape only adds or takes away axes of size 1: {list(self.before)} cannot become "
                f"{list(self.after)}; axis_view, split and concat say which entry goes where"
            )

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        if spec.shape != self.before:
            raise ValueError(f"reshape wants the shape {list(self.before)}, found {spec}")
        return TensorSpec(spec.dtype, self.after)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        return in_order(array).reshape(self.after)

    def inverse(self) -> ShapeOp:
        return Reshape(self.after, self.before)


def _inverted(order: tuple[int, ...]) -> tuple[int, ...]:
    places = {source: place for place, source in enumerate(order)}
    return tuple(places[source] for source in range(len(order)))


def _starts(sizes: tuple[int, ...]) -> list[int]:
    return [0, *accumulate(sizes)]


# ---- what a rule says


def permute_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``permute(axes)``."""
    del specs, wanted
    return Permute(Literals("permute", params, ("axes",)).integers("axes"))


def transpose_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``transpose()``, of matrices only."""
    del wanted
    Literals("transpose", params, ())
    for spec in only("transpose", specs):
        _check_matrix(spec)
    return Permute((1, 0))


def axis_view_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``axis_view(axis, before, order)``."""
    del specs, wanted
    given = Literals("axis_view", params, ("axis", "before", "order"))
    return AxisView(given.integer("axis"), given.text("before"), given.text("order"))


def reorder_blocks_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``reorder_blocks(axis, sizes, order)``."""
    del specs, wanted
    given = Literals("reorder_blocks", params, ("axis", "sizes", "order"))
    return ReorderBlocks(given.integer("axis"), given.integers("sizes"), given.integers("order"))


def reshape_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``reshape(shape)``: the shape after."""
    del wanted
    given = Literals("reshape", params, ("shape",))
    return Reshape(only("reshape", specs)[0].shape, given.integers("shape"))


# ---- what a user names


def transpose(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str) -> tuple[ShapeOp, ...]:
    """``transpose``: always, a square matrix too, whose shape could not say it."""
    del axes
    if choice:
        raise ValueError(f"transpose has no choices, found {choice!r}")
    _check_matrix(source)
    if source.shape[::-1] != target.shape:
        raise ValueError(f"{list(source.shape)} transposed is {list(source.shape[::-1])}, not {list(target.shape)}")
    return (Permute((1, 0)),)


def _check_matrix(spec: TensorSpec) -> None:
    if len(spec.shape) != 2:
        raise ValueError(f"transpose is for matrices, {spec} has {len(spec.shape)} axes; see permute")
