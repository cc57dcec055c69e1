"""Two states and two arrays side by side: nothing differs from itself, and who is first does not matter."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import state_specs
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine import comparison
from weightkit.engine.comparison import compare_arrays, compare_specs, lone_candidates, pair_equal

LAW = settings(deadline=None, max_examples=200, database=None)
NUMBERS = st.floats(width=32) | st.sampled_from((0.0, -0.0, math.nan, math.inf, 1.0))


@LAW
@given(state_specs())
def test_a_state_equals_itself_in_any_order_and_under_any_first_name(state: StateSpec) -> None:
    assert compare_specs(state, state).equal
    backwards = list(reversed(list(state)))
    first: dict[str, str] = {}
    aliases = {}
    for name in backwards:
        leader = first.setdefault(state.canonical(name), name)
        if leader != name:
            aliases[name] = leader
    turned = StateSpec({name: state[name] for name in backwards}, aliases)
    assert compare_specs(state, turned).equal


@LAW
@given(state_specs(), state_specs())
def test_turning_the_sides_round_turns_the_answer_round(a: StateSpec, b: StateSpec) -> None:
    here, there = compare_specs(a, b), compare_specs(b, a)
    assert (here.only_a, here.only_b) == (there.only_b, there.only_a)
    assert set(here.shapes) == set(there.shapes)
    assert set(here.dtypes) == set(there.dtypes)
    assert {n: set(map(frozenset, t)) for n, t in here.ties.items()} == {
        n: set(map(frozenset, t)) for n, t in there.ties.items()
    }
    assert set(here.common) | set(here.only_a) == set(a)


def test_a_tie_on_one_side_only_is_named_for_both_names() -> None:
    two = {"a": spec("float32", 2), "b": spec("float32", 2)}
    found = compare_specs(StateSpec(two, {"b": "a"}), StateSpec(two))
    assert found.ties == {"a": (("b",), ()), "b": (("a",), ())}
    assert not found.equal


@LAW
@given(hnp.arrays(np.float32, st.integers(0, 9), elements=NUMBERS), st.integers(1, 4), st.data())
def test_arrays_are_compared_as_numpy_does_whatever_the_chunks(a: np.ndarray, chunk: int, data: Any) -> None:
    b = data.draw(hnp.arrays(np.float32, a.shape, elements=NUMBERS) | st.just(a.copy()))
    before, comparison.CHUNK = comparison.CHUNK, chunk
    try:
        found, turned = compare_arrays(a, b), compare_arrays(b, a)
    finally:
        comparison.CHUNK = before
    json.dumps(found, allow_nan=False)
    assert found == turned
    unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
    assert found["differing"] == int(unequal.sum())
    assert found["bit_equal"] == (a.tobytes() == b.tobytes())
    finite = unequal & np.isfinite(a) & np.isfinite(b)
    assert found["not_finite"] == int((unequal & ~finite).sum())
    if finite.any():
        assert found["max_difference"] == float(np.abs(a[finite].astype(float) - b[finite].astype(float)).max())


def test_nan_in_the_same_place_is_equal_and_zeros_differ_in_bits_only() -> None:
    a, b = np.array([math.nan, 0.0, 1.0]), np.array([math.nan, -0.0, 1.0])
    found = compare_arrays(a, b)
    assert (found["differing"], found["bit_equal"], found["max_difference"]) == (0, False, 0.0)
    assert compare_arrays(a, a.copy())["bit_equal"]
    lone = compare_arrays(np.array([1.0, math.nan]), np.array([1.0, 2.0]))
    assert (lone["differing"], lone["not_finite"], lone["max_difference"]) == (1, 1, None)


@pytest.mark.parametrize(
    ("dtype", "a", "b", "most"),
    [
        (np.int64, [2**63 - 1], [-(2**63)], 2**64 - 1),
        (np.int64, [2**62 + 1], [2**62], 1),
        (np.uint8, [0, 255], [255, 255], 255),
        (bool, [True, False], [True, True], 1),
        (np.complex64, [3 + 4j], [0j], 5.0),
        (np.float64, [1e308], [-1e308], np.finfo(np.float64).max),
    ],
)
def test_the_largest_difference_is_exact(dtype: Any, a: list[Any], b: list[Any], most: float) -> None:
    found = compare_arrays(np.array(a, dtype), np.array(b, dtype))
    assert found["max_difference"] == most
    assert found["differing"] == 1


def test_cosine_is_that_of_the_angle() -> None:
    assert compare_arrays(np.array([1.0, 0.0]), np.array([1.0, 1.0]))["cosine"] == pytest.approx(math.sqrt(0.5))
    assert compare_arrays(np.array([1.0]), np.array([-2.0]))["cosine"] == -1
    assert compare_arrays(np.array([0.0]), np.array([1.0]))["cosine"] is None
    assert compare_arrays(np.array([1e300, 0.0]), np.array([1e300, 1e300]))["cosine"] == pytest.approx(math.sqrt(0.5))


def test_bfloat16_is_compared_with_float32() -> None:
    import ml_dtypes

    wide = np.array([1.0, 1.001], np.float32)
    found = compare_arrays(wide.astype(ml_dtypes.bfloat16), wide)
    assert (found["differing"], found["bit_equal"]) == (1, False)


def test_only_a_lone_candidate_is_proposed() -> None:
    one, other = spec("float32", 2), spec("float32", 3)
    a = StateSpec({"a": one, "b": other, "c": other})
    b = StateSpec({"x": one, "y": other})
    assert lone_candidates(a, a, b, b) == [("a", "x")]


def test_equal_contents_pair_by_their_last_segment_first() -> None:
    left = {"a.weight": 1, "a.bias": 1, "c": 2, "d": 3}
    right = {"b.bias": 1, "b.weight": 1, "e": 2, "f": 2}
    assert pair_equal(left, right) == [("a.weight", "b.weight"), ("a.bias", "b.bias"), ("c", "e")]
