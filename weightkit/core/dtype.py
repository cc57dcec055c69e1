"""Element types by their torch names."""

from __future__ import annotations

from weightkit.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    import numpy as np

    Kind = Literal["float", "complex", "int", "uint", "bool", "packed"]


class DType(Record):
    """One element type: its torch name, bytes per element, and kind.

    The kind "packed" is listed only: quantized or sub-byte elements, which have no plain numbers.
    """

    name: str
    itemsize: int
    kind: Kind

    def __str__(self) -> str:
        return self.name


_ALL = (
    DType("float64", 8, "float"),
    DType("float32", 4, "float"),
    DType("float16", 2, "float"),
    DType("bfloat16", 2, "float"),
    DType("float8_e4m3fn", 1, "float"),
    DType("float8_e5m2", 1, "float"),
    DType("float8_e4m3fnuz", 1, "float"),
    DType("float8_e5m2fnuz", 1, "float"),
    DType("float8_e8m0fnu", 1, "float"),
    DType("complex32", 4, "complex"),
    DType("complex64", 8, "complex"),
    DType("complex128", 16, "complex"),
    DType("int64", 8, "int"),
    DType("int32", 4, "int"),
    DType("int16", 2, "int"),
    DType("int8", 1, "int"),
    DType("uint64", 8, "uint"),
    DType("uint32", 4, "uint"),
    DType("uint16", 2, "uint"),
    DType("uint8", 1, "uint"),
    DType("bool", 1, "bool"),
    DType("qint8", 1, "packed"),
    DType("quint8", 1, "packed"),
    DType("qint32", 4, "packed"),
    DType("quint4x2", 1, "packed"),
    DType("quint2x4", 1, "packed"),
    DType("float4_e2m1fn_x2", 1, "packed"),
    DType("bits8", 1, "packed"),
    DType("bits16", 2, "packed"),
    DType("bits1x8", 1, "packed"),
    DType("bits2x4", 1, "packed"),
    DType("bits4x2", 1, "packed"),
)
DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _ALL}


def dtype_named(name: str) -> DType:
    """The element type called ``name``. Raises KeyError with the known names."""
    try:
        return DTYPES[name]
    except KeyError:
        raise KeyError(f"unknown dtype {name!r}; known: {', '.join(DTYPES)}") from None


def numpy_dtype(dtype: DType) -> np.dtype[Any]:
    """numpy's element type; bfloat16 and float8 come from ml_dtypes. Raises ValueError where it has none."""
    import numpy as np

    if dtype.name == "bfloat16" or dtype.name.startswith("float8"):
        import ml_dtypes

        special: np.dtype[Any] = np.dtype(getattr(ml_dtypes, dtype.name))
        return special
    if dtype.name == "complex32" or dtype.kind == "packed":
        raise ValueError(f"numpy has no {dtype.name}")
    return np.dtype(dtype.name)
