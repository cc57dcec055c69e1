"""What goes along with a policy and is no tensor of its net: small arrays as JSON values, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from weightkit.core.dtype import dtype_named

if TYPE_CHECKING:
    import numpy as np

MOST_VALUES = 1 << 16
"""Statistics of a feature are a few numbers, of an image one per channel or pixel; more are no statistics."""


def array_to_json(array: np.ndarray) -> dict[str, object]:
    """An array as dtype, shape and values; `array_of_json` gives back every bit of a number that is no NaN."""
    return {"dtype": array.dtype.name, "shape": list(array.shape), "values": array.reshape(-1).tolist()}


def array_of_json(value: object) -> np.ndarray:
    """The array that `array_to_json` wrote. Raises ValueError for anything else."""
    import numpy as np

    if not isinstance(value, Mapping) or not {"dtype", "shape", "values"} <= value.keys():
        raise ValueError("expected an array as dtype, shape and values")
    dtype, shape, values = value["dtype"], value["shape"], value["values"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(values, list):
        raise ValueError("expected an array as dtype, shape and values")
    if len(values) > MOST_VALUES:
        raise ValueError(f"{len(values)} values are no statistics: at most {MOST_VALUES}")
    return np.array(values, dtype_named(dtype).name).reshape([int(n) for n in shape])
