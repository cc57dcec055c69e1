"""Another element type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import FactoredAxis
from weightkit.core.dtype import DTYPES, DType, dtype_named, numpy_dtype
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs
from weightkit.shape_ops.bits import count_differing, in_order
from weightkit.shape_ops.literals import Literals, check_held, only

if TYPE_CHECKING:
    import numpy as np

_EIGHT_BITS = ("float16", "bfloat16", "float32", "float64")
WIDER: dict[str, tuple[str, ...]] = {
    "bool": ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", *_EIGHT_BITS),
    "int8": ("int16", "int32", "int64", *_EIGHT_BITS),
    "int16": ("int32", "int64", "float32", "float64"),
    "int32": ("int64", "float64"),
    "uint8": ("uint16", "int16", "uint32", "int32", "uint64", "int64", *_EIGHT_BITS),
    "uint16": ("uint32", "int32", "uint64", "int64", "float32", "float64"),
    "uint32": ("uint64", "int64", "float64"),
    "float8_e4m3fn": _EIGHT_BITS,
    "float8_e5m2": _EIGHT_BITS,
    "float8_e4m3fnuz": _EIGHT_BITS,
    "float8_e5m2fnuz": _EIGHT_BITS,
    "float8_e8m0fnu": ("bfloat16", "float32", "float64"),
    "float16": ("float32", "float64"),
    "bfloat16": ("float32", "float64"),
    "float32": ("float64",),
    "complex64": ("complex128",),
}
"""Element type -> those that hold each of its values exactly."""


@dataclass(frozen=True, slots=True)
class Cast(EachTensor):
    """The same values as another element type. Widening loses nothing; narrowing rounds, and refuses to overflow.

    Shapes stay. A NaN that would not come back bit for bit (a signalling one) is refused where widening promises that.
    """

    before: str
    after: str
    name: ClassVar[str] = "cast"

    def __post_init__(self) -> None:
        check_held(self.name, self.before)
        check_held(self.name, self.after)

    @property
    def op_class(self) -> OpClass:
        if self.before == self.after:
            return "BIJ"
        return "INJ" if self.after in WIDER.get(self.before, ()) else "LOSSY"

    @property
    def preserves(self) -> str:
        return f"up to rounding to {self.after}" if self.op_class == "LOSSY" else "the same values"

    @property
    def complement(self) -> str:
        if self.op_class == "BIJ":
            return ""
        if self.op_class == "INJ":
            return f"digits of {self.after} that {self.before} has not, none of them used"
        return f"digits of {self.before} that {self.after} has not"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        return _with_dtype(self.name, spec, self.before, self.after)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        if self.op_class == "BIJ":
            return in_order(array)
        if self.op_class == "INJ":
            return _widened(array, dtype_named(self.after))
        return _narrowed(array, dtype_named(self.after))

    def scratch(self, specs: Specs) -> int:
        whole = dtype_named(self.after).kind in {"int", "uint", "bool"}
        each = {"BIJ": 0, "INJ": 1, "LOSSY": 16 if whole else 2}[self.op_class]
        return sum(each * spec.numel for spec in specs)

    def inverse(self) -> ShapeOp | None:
        if self.op_class == "BIJ":
            return self
        return CastBack(self.before, self.after) if self.op_class == "INJ" else None


@dataclass(frozen=True, slots=True)
class CastBack(EachTensor):
    """Takes back a widening `Cast` of the same parameters: ``after`` becomes ``before``, where each value is one."""

    before: str
    after: str
    name: ClassVar[str] = "cast:back"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same values"

    def __post_init__(self) -> None:
        check_held(self.name, self.before)
        check_held(self.name, self.after)
        if self.after not in WIDER.get(self.before, ()):
            raise ValueError(f"cast:back takes back a widening, {self.before} to {self.after} is none")

    @property
    def complement(self) -> str:
        return f"digits of {self.after} that {self.before} has not, checked to be unused"

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        return _with_dtype(self.name, spec, self.after, self.before)

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        narrow = _converted(array, dtype_named(self.before))
        bad = count_differing(_converted(narrow, dtype_named(self.after)), in_order(array))
        if bad:
            raise ValueError(f"{bad} of {array.size} values are no {self.before}: they have digits of {self.after}")
        return narrow

    def scratch(self, specs: Specs) -> int:
        return sum(17 * spec.numel for spec in specs)

    def inverse(self) -> ShapeOp:
        return Cast(self.before, self.after)


def _with_dtype(name: str, spec: TensorSpec, before: str, after: str) -> TensorSpec:
    if spec.dtype.name != before:
        raise ValueError(f"{name} wants {before}, found {spec}")
    return TensorSpec(dtype_named(after), spec.shape)


def _converted(array: np.ndarray, after: DType) -> np.ndarray:
    import numpy as np

    with np.errstate(all="ignore"):
        if "float8_e8m0fnu" in (array.dtype.name, after.name):  # ml_dtypes casts no other float8 to it, nor back
            array = array.astype(np.float64)
        return in_order(array.astype(numpy_dtype(after), order="C"))


def _widened(array: np.ndarray, after: DType) -> np.ndarray:
    """``array`` as the wider type. Raises ValueError where an element's bits would not come back."""
    result = _converted(array, after)
    odd, what = _may_not_come_back(array)
    if odd is not None and bool(odd.any()):
        bad = count_differing(_converted(result[odd], dtype_named(array.dtype.name)), array[odd])
        if bad:
            raise ValueError(f"{bad} of {array.size} values are {what}, which {after} does not give back bit for bit")
    return result


def _may_not_come_back(array: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Where elements are whose bits are not all of their value, and what they are."""
    import numpy as np

    if array.dtype.kind == "b":
        return in_order(array).view(np.uint8) > 1, "booleans that are neither 0 nor 1"
    if array.dtype.kind in "iu":
        return None, ""
    with np.errstate(all="ignore"):
        return np.isnan(array), "signalling NaN, or NaN with bits of their own"


def _narrowed(array: np.ndarray, after: DType) -> np.ndarray:
    """``array`` rounded to another type. Raises ValueError where a value would become another kind of value."""
    import numpy as np

    if array.dtype.kind == "c" and after.kind != "complex":
        raise ValueError(f"complex values do not fit into {after}")
    if after.kind in {"int", "uint", "bool"}:
        return _whole_numbers(array, after)
    result = _converted(array, after)
    with np.errstate(all="ignore"):
        overflowing = int((np.isfinite(array) & ~np.isfinite(result)).sum())
        infinite = int((np.isinf(array) & ~np.isinf(result)).sum())
    if overflowing:
        raise ValueError(f"a value does not fit into {after}: {overflowing} of {array.size} would be infinite or NaN")
    if infinite:
        raise ValueError(
            f"a value does not fit into {after}: {infinite} of {array.size} are infinite, which it has not"
        )
    if after.name == "float8_e8m0fnu" and _has_zero(array):
        raise ValueError(f"a value does not fit into {after}: it has no zero")
    return result


def _has_zero(array: np.ndarray) -> bool:
    import numpy as np

    with np.errstate(all="ignore"):
        return bool(np.any(array == 0))


def _whole_numbers(array: np.ndarray, after: DType) -> np.ndarray:
    """``array`` as whole numbers or booleans. Raises ValueError where a value is not one of ``after``."""
    import numpy as np

    wanted = numpy_dtype(after)
    low, high = (0, 1) if after.kind == "bool" else (int(np.iinfo(wanted).min), int(np.iinfo(wanted).max))
    if array.size:
        values = _converted(array, DTYPES["float64"]) if array.dtype.kind not in "iub" else array
        least, most = values.min(), values.max()
        if not np.isfinite(least) or not np.isfinite(most) or int(least) < low or int(most) > high:
            raise ValueError(f"a value does not fit into {after}, which holds {low} to {high}: found {least} to {most}")
        bad = int((_converted(_converted(values, after), dtype_named(values.dtype.name)) != values).sum())
        if bad:
            raise ValueError(f"a value does not fit into {after}: {bad} of {array.size} are no whole numbers")
    return _converted(array, after)


def cast_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``cast(to)``."""
    del wanted
    to = Literals("cast", params, ("to",)).text("to")
    first = only("cast", specs)[0]
    for spec in specs:
        if spec.dtype != first.dtype:
            raise ValueError(f"cast is for tensors of one type, found {first} and {spec}")
    return Cast(first.dtype.name, to)


def cast(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str) -> tuple[ShapeOp, ...]:
    """``cast:DTYPE``, where DTYPE is what the target wants."""
    del axes
    if choice not in DTYPES:
        raise ValueError(f"unknown dtype {choice!r}; known: {', '.join(DTYPES)}")
    if DTYPES[choice] != target.dtype:
        raise ValueError(f"the target wants {target.dtype}, not {choice}")
    return (Cast(source.dtype.name, target.dtype.name),)
