"""What one tensor's numbers are like: the same as numpy says, whatever the element type and the chunks."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from weightkit.core.dtype import DTYPES, numpy_dtype
from weightkit.engine import statistics as module
from weightkit.engine.statistics import numbers, statistics

LAW = settings(deadline=None, max_examples=200, database=None)
FLOATS = st.floats(width=32) | st.sampled_from((0.0, -0.0, math.nan, math.inf, -math.inf, 1.0))
ELEMENTS = tuple(d for d in DTYPES.values() if d.kind != "packed" and d.name != "complex32")


@LAW
@given(hnp.arrays(np.float32, st.integers(0, 12), elements=FLOATS), st.integers(1, 5))
def test_statistics_are_numpys_whatever_the_chunks(array: np.ndarray, chunk: int) -> None:
    before, module.CHUNK = module.CHUNK, chunk
    try:
        found = statistics(array)
    finally:
        module.CHUNK = before
    json.dumps(found, allow_nan=False)
    wide = array.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    assert found["nan"] == int(np.isnan(wide).sum())
    assert found["inf"] == int(np.isinf(wide).sum())
    assert found["zero"] == (array.size > 0 and bool((array == 0).all()))
    assert found["constant"] == (array.size > 1 and finite.size == array.size and bool((array == array[0]).all()))
    if not finite.size:
        assert [found[key] for key in ("mean", "std", "min", "max")] == [None] * 4
        return
    assert (found["min"], found["max"]) == (finite.min(), finite.max())
    magnitude = np.abs(finite).max()
    assert found["mean"] == pytest.approx(finite.mean(), rel=1e-9, abs=1e-9 * magnitude)
    assert found["std"] == pytest.approx(finite.std(), rel=1e-6, abs=1e-9 * magnitude)


@pytest.mark.parametrize("dtype", ELEMENTS, ids=str)
def test_every_element_type_has_statistics(dtype: Any) -> None:
    values = np.array([[1, 0, 1], [1, 1, 0]]).astype(numpy_dtype(dtype))
    if dtype.name == "float8_e8m0fnu":  # powers of two only
        values = np.array([[1, 2, 4], [2, 1, 1]]).astype(numpy_dtype(dtype))
    found = statistics(values)
    listed = [float(abs(complex(x))) for x in values.reshape(-1).tolist()]
    assert (found["min"], found["max"]) == (min(listed), max(listed))
    assert found["mean"] == pytest.approx(sum(listed) / 6)
    assert found["std"] == pytest.approx(np.std(listed))
    assert (found["nan"], found["inf"], found["zero"], found["constant"]) == (0, 0, False, False)
    assert numbers(values) == listed
    assert ("of" in found) == (dtype.kind == "complex")


def test_whole_numbers_are_exact() -> None:
    found = statistics(np.array([2**63 - 1, -(2**63)], np.int64))
    assert (found["min"], found["max"]) == (-(2**63), 2**63 - 1)
    assert statistics(np.array([2**64 - 1], np.uint64))["max"] == 2**64 - 1


@pytest.mark.parametrize("scale", [1e308, 1e-300])
def test_huge_and_tiny_numbers_have_finite_statistics(scale: float) -> None:
    found = statistics(np.array([1.0, -1.0, 1.0, -1.0]) * scale)
    assert found["mean"] == 0
    assert found["std"] == pytest.approx(scale)


def test_complex_numbers_count_by_magnitude_and_a_half_nan_is_nan() -> None:
    found = statistics(np.array([3 + 4j, complex(math.nan, 1), complex(0, math.inf)], np.complex64))
    assert (found["of"], found["min"], found["max"], found["nan"], found["inf"]) == ("magnitude", 5.0, 5.0, 1, 1)


def test_an_empty_tensor_and_one_number_are_neither_zero_nor_constant_by_chance() -> None:
    assert not statistics(np.zeros(0))["zero"]
    assert statistics(np.zeros(()))["zero"]
    assert not statistics(np.ones(1))["constant"]
    assert statistics(np.ones(2))["constant"]
    assert not statistics(np.full(2, math.nan))["constant"]


def test_numbers_that_differ_beyond_float64_are_not_constant() -> None:
    assert not statistics(np.array([2**62, 2**62 + 1], np.int64))["constant"]
