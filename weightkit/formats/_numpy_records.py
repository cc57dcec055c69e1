"""numpy's arrays as pickle records: their bytes lie in the pickle itself.

Source: numpy/_core/src/multiarray/methods.c (``__reduce__``, ``__setstate__``), numpy/_core/numeric.py.
"""

from __future__ import annotations

import sys

from weightkit.core.dtype import DTYPES, DType
from weightkit.core.tensor import TensorSpec, product
from weightkit.formats._pickle_records import Call
from weightkit.formats._pickle_values import bytes_of, items_of

_MOST_DIMENSIONS = 64
_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "c8": "complex64", "c16": "complex128", "i8": "int64",
    "i4": "int32", "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8",
    "b1": "bool",
}  # fmt: skip


class HeldArray:
    """An array whose bytes the pickle holds."""

    __slots__ = ("content", "dtype", "fortran", "shape", "swapped")

    def __init__(self, dtype: DType, shape: tuple[int, ...], content: bytes, *, fortran: bool, swapped: bool) -> None:
        self.dtype = dtype
        self.shape = shape
        self.content = content
        self.fortran = fortran
        self.swapped = swapped

    @property
    def spec(self) -> TensorSpec:
        """Element type and shape."""
        return TensorSpec(self.dtype, self.shape)


def decode_array(node: object) -> HeldArray | None:
    """The array that a record stands for; None for anything else, an array of objects or one whose numbers lie too."""
    if not isinstance(node, Call) or not isinstance(node.arguments, tuple):
        return None
    if node.path == "numpy.core.multiarray._reconstruct":
        state = node.states[0] if node.states else None
        if not isinstance(state, tuple) or len(state) != 5:
            return None
        _, shape, dtype, fortran, content = state
        return _array(dtype, shape, content, fortran is True)
    if node.path == "numpy.core.numeric._frombuffer" and len(node.arguments) == 4:
        content, dtype, shape, order = node.arguments
        return _array(dtype, shape, content, isinstance(order, str) and order == "F")
    return None


def _array(dtype: object, shape: object, content: object, fortran: bool) -> HeldArray | None:
    sizes = items_of(shape)
    raw = bytes_of(content)
    found = _dtype(dtype)
    if found is None or raw is None or sizes is None or len(sizes) > _MOST_DIMENSIONS:
        return None
    known = tuple(size for size in sizes if type(size) is int and 0 <= size < 1 << 63)
    element, swapped = found
    if len(known) != len(sizes) or product(known) * element.itemsize != len(raw):
        return None
    return HeldArray(element, known, raw, fortran=fortran, swapped=swapped)


def _dtype(node: object) -> tuple[DType, bool] | None:
    """The element type and whether its bytes are in the other order: ``dtype("f4", ...)`` with its state."""
    if not isinstance(node, Call) or node.path != "numpy.dtype" or not isinstance(node.arguments, tuple):
        return None
    code = node.arguments[0] if node.arguments else None
    name = _DTYPES.get(code) if isinstance(code, str) else None
    if name is None:
        return None
    state = node.states[0] if node.states else ()
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    native = "<" if sys.byteorder == "little" else ">"
    return DTYPES[name], isinstance(order, str) and order in "<>" and order != native
