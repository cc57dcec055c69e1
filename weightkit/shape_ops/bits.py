"""What arrays hold, bit for bit: NaN equals NaN, and minus zero is not zero."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def in_order(array: np.ndarray) -> np.ndarray:
    """``array`` C-contiguous, itself where it is; an array without axes stays one."""
    import numpy as np

    return np.asarray(array, order="C")


def element_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of each element: ``... -> (elements, bytes)`` uint8."""
    import numpy as np

    return in_order(array).reshape(-1).view(np.uint8).reshape(array.size, array.itemsize)


def count_differing(one: np.ndarray, other: np.ndarray) -> int:
    """Elements whose bits differ between two arrays of one shape and type."""
    return int((element_bytes(one) != element_bytes(other)).any(axis=1).sum())


def count_nonzero_bits(array: np.ndarray) -> int:
    """Elements that are not zero with all bits zero: minus zero counts."""
    return int(element_bytes(array).any(axis=1).sum())


def joined(parts: tuple[Any, ...], axis: int) -> np.ndarray:
    """``parts`` one after the other along ``axis``, C-contiguous whatever the order of their bytes."""
    import numpy as np

    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return np.concatenate(parts, axis=axis, out=np.empty(shape, parts[0].dtype))


def section(array: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    """Entries ``start`` to ``stop`` of ``axis``, a view."""
    return array[(slice(None),) * axis + (slice(start, stop),)]


def in_blocks(array: np.ndarray, axis: int, count: int) -> np.ndarray:
    """``axis`` as ``count`` blocks: ``(..., count * n, ...) -> (before, count, n * after)``, mostly without a copy."""
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    return array.reshape(prod(before), count, array.shape[axis] // count * prod(after))


def wide(array: np.ndarray) -> np.ndarray:
    """Floats as what sums and quotients are computed in: float64, float32 for those of at most two bytes."""
    import numpy as np

    return array.astype(np.float64 if array.itemsize > 2 else np.float32)
