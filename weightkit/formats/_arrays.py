"""Bytes to arrays and back, without torch. numpy and ml_dtypes are imported when the first array moves."""

from __future__ import annotations

import sys

from weightkit.core.dtype import DType, numpy_dtype
from weightkit.core.tensor import TensorSpec, product
from weightkit.core.text import printable
from weightkit.errors import FormatError, WriteError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np


def array_dtype(dtype: DType, *, where: str) -> np.dtype[Any]:
    """numpy's element type for ``dtype``. Raises FormatError for the one that numpy does not have."""
    try:
        return numpy_dtype(dtype)
    except ValueError:
        raise FormatError(
            f"{printable(where)}: elements are {dtype}, which numpy does not have",
            hint="convert it to complex64 with torch first",
        ) from None


def column_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of an array whose first dimension is the fastest, as Fortran has it."""
    return tuple(product(shape[:axis]) for axis in range(len(shape)))


def dense_array(
    content: bytearray,
    spec: TensorSpec,
    *,
    where: str,
    strides: tuple[int, ...] | None = None,
    swapped: bool = False,
) -> np.ndarray:
    """A writable C-contiguous array of ``spec`` from ``content``, which starts at its first element.

    ``strides`` are in elements, as torch counts them; None where the elements are packed already. ``swapped``: the
    bytes are in the order that this machine does not use.
    """
    import numpy as np

    element = array_dtype(spec.dtype, where=where)
    raw: np.ndarray = np.frombuffer(content, dtype=np.uint8)
    if swapped and spec.dtype.itemsize > 1:
        part = 2 if spec.dtype.kind == "complex" else 1  # of a complex number each half is swapped by itself
        raw.view(np.dtype(f"u{spec.dtype.itemsize // part}")).byteswap(inplace=True)
    if spec.dtype.kind == "bool":
        np.not_equal(raw, 0, out=raw.view(np.bool_))  # a byte that is neither 0 nor 1 is no bool to numpy
    flat = raw.view(element)
    if spec.numel == 0:
        try:
            return np.zeros(spec.shape, element)
        except ValueError:
            raise FormatError(f"{where}: an empty array of shape {list(spec.shape)}, which numpy cannot hold") from None
    if strides is None:
        return flat.reshape(spec.shape)
    in_bytes = tuple(step * spec.dtype.itemsize for step in strides)
    view: np.ndarray = np.ndarray(spec.shape, element, buffer=content, strides=in_bytes)  # numpy checks the bounds
    return np.array(view, order="C", copy=True)


def packed_bytes(array: np.ndarray, spec: TensorSpec, name: str) -> memoryview:
    """The little-endian bytes of ``array``. Raises WriteError where it is not what ``spec`` says."""
    import numpy as np

    shown = printable(name)
    wanted = array_dtype(spec.dtype, where=name)
    if array.dtype.newbyteorder("=") != wanted or tuple(array.shape) != spec.shape:
        raise WriteError(f"{shown}: got {array.dtype}{list(array.shape)}, expected {spec}")
    packed = np.asarray(array, dtype=wanted, order="C")
    raw = packed.reshape(-1).view(np.uint8)
    if sys.byteorder == "big" and spec.dtype.itemsize > 1:
        part = 2 if spec.dtype.kind == "complex" else 1
        raw = raw.view(np.dtype(f"u{spec.dtype.itemsize // part}")).byteswap().view(np.uint8)
    return raw.data
