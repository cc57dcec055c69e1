"""Weights on a grid, read off at the points of another grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import FactoredAxis
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs, check_meaning, resized
from weightkit.shape_ops.bits import in_order
from weightkit.shape_ops.factors import differing_axes
from weightkit.shape_ops.literals import Literals, check_axis, check_extent, check_float, check_sizes, extent

if TYPE_CHECKING:
    import numpy as np

MODES = ("linear", "nearest")


@dataclass(frozen=True, slots=True)
class Interpolate(EachTensor):
    """Resample ``axes`` from ``before`` to ``sizes`` points, one axis after the other: position embeddings, kernels.

    "linear": the centres of the cells lie on each other (half-pixel), values beyond the outermost centres are theirs:
    torch's ``interpolate(mode="linear" | "bilinear" | "trilinear", align_corners=False)``, computed in float64 and
    rounded then. "nearest": entry ``floor(i * before / size)``, as torch's ``mode="nearest"`` defines it; torch
    computes the index in float32 and is one off for some pairs of sizes (2 to 82 is the first).
    """

    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    before: tuple[int, ...]
    mode: str
    name: ClassVar[str] = "interpolate"
    op_class: ClassVar[OpClass] = "LOSSY"
    preserves: ClassVar[str] = "nothing exactly: the old weights as they would look on the new grid"

    def __post_init__(self) -> None:
        for axis in self.axes:
            check_axis(self.name, axis)
        if len(set(self.axes)) != len(self.axes):
            raise ValueError("interpolate: an axis stands twice")
        if not len(self.axes) == len(self.sizes) == len(self.before) or not self.axes:
            raise ValueError(
                f"interpolate: {len(self.axes)} axes, {len(self.sizes)} sizes and {len(self.before)} sizes before: "
                "they must be as many, at least one"
            )
        check_sizes(self.name, (*self.sizes, *self.before), least=1)
        if self.mode not in MODES:
            raise ValueError(f"interpolate: unknown mode {self.mode[:40]!r}; known: {', '.join(MODES)}")

    @property
    def complement(self) -> str:
        return "the values at the points of the old grid"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_float(self.name, spec)
        for axis, size, before in zip(self.axes, self.sizes, self.before, strict=True):
            check_extent(self.name, spec, axis, before)
            spec = resized(spec, axis, size)
        return spec

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        if self.mode == "nearest":
            for axis, size, before in zip(self.axes, self.sizes, self.before, strict=True):
                array = np.take(array, np.arange(size) * before // size, axis=axis)
            return in_order(array)
        values = array.astype(np.float64)
        with np.errstate(all="ignore"):
            for axis, size in zip(self.axes, self.sizes, strict=True):
                values = _linear(values, axis, size)
            return in_order(values.astype(array.dtype))

    def scratch(self, specs: Specs) -> int:
        return sum(18 * spec.numel for spec in specs)

    def inverse(self) -> None:
        """None: the old points lie between the new ones."""
        return


def _linear(values: np.ndarray, axis: int, size: int) -> np.ndarray:
    import numpy as np

    before = values.shape[axis]
    if before == size:
        return values
    centres = np.maximum((np.arange(size) + 0.5) * (before / size) - 0.5, 0)
    left = np.minimum(centres.astype(np.int64), before - 1)
    right = np.minimum(left + 1, before - 1)
    weight = (centres - left).reshape(-1, *[1] * (values.ndim - axis - 1))
    weight = np.where(left.reshape(weight.shape) == right.reshape(weight.shape), 0.0, weight)
    result: np.ndarray = np.take(values, left, axis=axis) * (1 - weight) + np.take(values, right, axis=axis) * weight
    return result


def interpolate_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``interpolate(axes, sizes, mode)``."""
    del wanted
    given = Literals("interpolate", params, ("axes", "sizes", "mode"))
    axes = given.integers("axes")
    before = tuple(extent("interpolate", specs, axis) for axis in axes)
    return Interpolate(axes, given.integers("sizes"), before, given.text("mode"))


def interpolate(
    source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str
) -> tuple[ShapeOp, ...]:
    """``interpolate:linear`` or ``interpolate:nearest``, on each axis that differs."""
    check_meaning(target, axes)
    differing = tuple(differing_axes(source, target))
    for each in axes:
        if each.axis in differing and (len(each.blocks) > 1 or len(each.blocks[0]) > 1):
            raise ValueError(f"axis {each.axis} is {each.text}: its entries are no points of one grid")
    sizes = tuple(target.shape[axis] for axis in differing)
    return (Interpolate(differing, sizes, tuple(source.shape[axis] for axis in differing), choice),)
