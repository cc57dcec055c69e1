"""What goes along with a policy and is no tensor of its net: small arrays as JSON values, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from weightkit.core.dtype import dtype_named, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

_MOST_AXES = 8
MOST_VALUES = 1 << 16
"""Statistics of a feature are a few numbers, of an image one per channel or pixel; more are no statistics."""


def array_to_json(array: np.ndarray) -> dict[str, object]:
    """An array as dtype, shape and values; `array_of_json` gives back every bit of a number that is no NaN."""
    numbers = array if array.dtype.kind in "biuf" else array.astype("float64")  # bfloat16 and float8 are numpy's "V"
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": numbers.reshape(-1).tolist()}


def array_of_json(value: object) -> np.ndarray:
    """The array that `array_to_json` wrote. Raises ValueError for anything else."""
    import numpy as np

    if not isinstance(value, Mapping) or not {"dtype", "shape", "values"} <= value.keys():
        raise ValueError("expected an array as dtype, shape and values")
    dtype, shape, values = value["dtype"], value["shape"], value["values"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(values, list):
        raise ValueError("expected an array as dtype, shape and values")
    if len(values) > MOST_VALUES or len(shape) > _MOST_AXES:
        raise ValueError(f"{len(values)} values on {len(shape)} axes are no statistics: at most {MOST_VALUES}")
    if not all(type(size) is int and 0 <= size <= MOST_VALUES for size in shape):
        raise ValueError("a shape is made of whole numbers")
    if not all(isinstance(item, (bool, int, float)) for item in values):
        raise ValueError("values are numbers")
    try:
        return np.array(values, numpy_dtype(dtype_named(dtype))).reshape(shape)
    except (TypeError, OverflowError, KeyError) as error:
        raise ValueError(f"they are no {dtype}: {error}") from None
