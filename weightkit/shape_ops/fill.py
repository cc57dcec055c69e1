"""Initial values for tensors that no source gives."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from weightkit.core.dtype import dtype_named, numpy_dtype
from weightkit.core.plan import OpClass
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import Arrays, FieldsAreParams, ShapeOp, Specs, specs_of
from weightkit.shape_ops.bits import count_differing
from weightkit.shape_ops.cast import Cast
from weightkit.shape_ops.literals import MAX_RANK, check_held, check_sizes


@dataclass(frozen=True, slots=True)
class Fill(FieldsAreParams):
    """A tensor of ``shape`` in which each entry is ``value``, of no source: ``() -> shape``."""

    dtype: str
    shape: tuple[int, ...]
    value: float
    name: ClassVar[str] = "fill"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "nothing: these are initial values"
    complement: ClassVar[str] = "initial values, made here"

    def __post_init__(self) -> None:
        _check(self.name, self.dtype, self.shape, self.value)

    def infer(self, specs: Specs) -> Specs:
        if specs:
            raise ValueError(f"fill makes a tensor of nothing, it got {len(specs)}")
        return (TensorSpec(dtype_named(self.dtype), self.shape),)

    def apply(self, arrays: Arrays) -> Arrays:
        import numpy as np

        self.infer(specs_of(arrays))
        element = Cast("float64", self.dtype).apply((np.asarray(self.value, np.float64),))[0]
        return (np.full(self.shape, element, numpy_dtype(dtype_named(self.dtype))),)

    def inverse(self) -> ShapeOp:
        return Unfill(self.dtype, self.shape, self.value)


@dataclass(frozen=True, slots=True)
class Unfill(FieldsAreParams):
    """Takes back what `Fill` of the same parameters made, where each entry still is that value: ``shape -> ()``."""

    dtype: str
    shape: tuple[int, ...]
    value: float
    name: ClassVar[str] = "unfill"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "nothing: these were initial values"
    complement: ClassVar[str] = "initial values, checked to be unchanged"

    def __post_init__(self) -> None:
        _check(self.name, self.dtype, self.shape, self.value)

    def infer(self, specs: Specs) -> Specs:
        wanted = TensorSpec(dtype_named(self.dtype), self.shape)
        if specs != (wanted,):
            raise ValueError(f"unfill takes one tensor, {wanted}, it got {', '.join(map(str, specs[:3])) or 'none'}")
        return ()

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        (made,) = Fill(self.dtype, self.shape, self.value).apply(())
        bad = count_differing(arrays[0], made)
        if bad:
            raise ValueError(f"{bad} of {made.size} values are not the initial {self.value}")
        return ()

    def inverse(self) -> ShapeOp:
        return Fill(self.dtype, self.shape, self.value)


def _check(name: str, dtype: str, shape: tuple[int, ...], value: float) -> None:
    check_held(name, dtype)
    check_sizes(name, shape)
    if len(shape) > MAX_RANK:
        raise ValueError(f"{name}: {len(shape)} axes, a tensor has at most {MAX_RANK}")
    if not isfinite(value):
        raise ValueError(f"{name}: the value must be finite, found {value}")
