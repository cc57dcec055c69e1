"""Resampling gives what torch's ``interpolate`` gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.shape_ops.interpolate import Interpolate

torch: Any = pytest.importorskip("torch")
SIZES = st.integers(1, 40)


def by_torch(array: np.ndarray, sizes: tuple[int, ...], mode: str) -> np.ndarray:
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(sizes)]
    more = {"mode": smooth, "align_corners": False} if mode == "linear" else {"mode": "nearest"}
    result: np.ndarray = torch.nn.functional.interpolate(torch.from_numpy(array), size=sizes, **more).numpy()
    return result


@settings(deadline=None, max_examples=100, database=None)
@given(st.lists(st.tuples(SIZES, SIZES), min_size=1, max_size=2), st.sampled_from(("linear", "nearest")), st.booleans())
def test_it_is_what_torch_gives(grid: list[tuple[int, int]], mode: str, double: bool) -> None:
    before, sizes = tuple(a for a, _ in grid), tuple(b for _, b in grid)
    array = np.random.default_rng(0).standard_normal((2, 3, *before)).astype(np.float64 if double else np.float32)
    axes = tuple(range(2, 2 + len(grid)))
    (result,) = Interpolate(axes, sizes, before, mode).apply((array,))
    wanted = by_torch(array, sizes, mode)
    if mode == "nearest":
        assert np.array_equal(result, wanted)
    elif double:
        assert np.abs(result - wanted).max() < 1e-12
    else:
        assert np.abs(result - wanted).max() < 2e-5  # torch computes the weights in float32
        assert np.abs(result - by_torch(array.astype(np.float64), sizes, mode)).max() < 1e-6


def test_three_axes_at_once() -> None:
    array = np.random.default_rng(0).standard_normal((1, 2, 3, 4, 5))
    (result,) = Interpolate((2, 3, 4), (5, 2, 7), (3, 4, 5), "linear").apply((array,))
    assert np.abs(result - by_torch(array, (5, 2, 7), "linear")).max() < 1e-12


def test_an_axis_before_others_is_resampled_alone() -> None:
    array = np.random.default_rng(0).standard_normal((16, 3))
    (result,) = Interpolate((0,), (9,), (16,), "linear").apply((array,))
    assert np.abs(result - by_torch(array.T[None], (9,), "linear")[0].T).max() < 1e-12


def test_a_constant_and_an_unchanged_grid_stay_as_they_are() -> None:
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    assert np.array_equal(Interpolate((0, 1), (4, 6), (4, 6), "linear").apply((values,))[0], values)
    ones = np.full((4, 6), 0.1, np.float32)
    assert np.array_equal(
        Interpolate((0, 1), (7, 3), (4, 6), "linear").apply((ones,))[0], np.full((7, 3), 0.1, np.float32)
    )


def test_nearest_is_exact_where_torch_rounds_its_index() -> None:
    (result,) = Interpolate((0,), (82,), (2,), "nearest").apply((np.array([0.0, 1.0]),))
    assert np.array_equal(result, np.repeat([0.0, 1.0], 41))
