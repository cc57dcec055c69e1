"""Weights divided among frames come back bit for bit, for every number of frames."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from weightkit.core.dtype import dtype_named, numpy_dtype
from weightkit.shape_ops.inflate import DeflateMean, InflateMean

DTYPES = ("float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e5m2")
DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
FRAMES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 16, 31)


def any_numbers(dtype: str, count: int = 20_000) -> np.ndarray:
    """Numbers of any bits that are no NaN: subnormal ones, infinities and both zeros among them."""
    wanted = numpy_dtype(dtype_named(dtype))
    values = np.frombuffer(np.random.default_rng(0).bytes(count * wanted.itemsize), wanted)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return values[~np.isnan(values)][None]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("frames", FRAMES)
def test_every_weight_comes_back(dtype: str, frames: int) -> None:
    array = any_numbers(dtype)
    op = InflateMean(1, frames)
    (spread,) = op.apply((array,))
    assert op.inverse().apply((spread,))[0].tobytes() == array.tobytes()


@pytest.mark.parametrize("frames", [3, 7])
def test_they_come_back_where_the_machine_has_no_wider_floats(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    array = any_numbers("float64", 2_000)
    expected = InflateMean(1, frames).apply((array,))[0]
    monkeypatch.setattr(np, "longdouble", np.float64)
    (spread,) = InflateMean(1, frames).apply((array,))
    assert spread.tobytes() == expected.tobytes()
    assert DeflateMean(1, frames).apply((spread,))[0].tobytes() == array.tobytes()


def test_a_third_alone_would_not_do() -> None:
    """(x / 3) * 3 == x holds for x of one bit less than the type has (Goldberg 1991, theorem 7), not for every x."""
    binade = np.arange(0x3C00, 0x4000, dtype=np.uint16).view(np.float16)
    assert len(np.unique(binade / np.float16(3))) == 854 < len(binade) == 1024
    (spread,) = InflateMean(0, 3).apply((binade,))
    frames = spread.reshape(3, -1)
    assert np.array_equal(frames[0], frames[1])
    assert len(np.unique(np.stack([frames[0], frames[2]]), axis=1).T) == 1024


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("dtype", DIGITS)
def test_every_frame_has_its_share_but_for_the_last_bits(dtype: str, frames: int) -> None:
    random = np.random.default_rng(1)
    array = (random.uniform(1, 2, (2, 5_000)) * random.choice([-1, 1], (2, 5_000))).astype(
        numpy_dtype(dtype_named(dtype))
    )
    (spread,) = InflateMean(1, frames).apply((array,))
    exact = array.astype(np.longdouble) / frames
    for number, frame in enumerate(np.split(spread, frames, axis=1)):
        off = np.max(np.abs(frame.astype(np.longdouble) - exact) / np.abs(exact))
        most = 1 if number < frames - 1 else frames
        assert off <= most * 2.0 ** -DIGITS[dtype]


def test_a_signalling_nan_is_counted() -> None:
    array = np.array([[0.0, 1.0, 2.0]])
    array.view(np.uint64)[0, 0] = 0x7FF0000000000001
    with pytest.raises(ValueError, match="1 of 3 values do not come back from 4 shares"):
        InflateMean(1, 4).apply((array,))


@pytest.mark.parametrize("changed", [0, 4, 11])
def test_going_back_is_refused_where_a_frame_was_trained(changed: int) -> None:
    (spread,) = InflateMean(0, 4).apply((np.array([1.0, 2.0, 5.0]),))
    spread[changed] *= 2
    with pytest.raises(ValueError, match="weights are not the shares of 4 frames"):
        DeflateMean(0, 4).apply((spread,))


def the_newest_gets_a_share_too(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(InflateMean.__module__)
    monkeypatch.setattr(
        module, "_exactly", lambda summand, factor, times: factor if times < 0 else factor * (times + 1)
    )


def test_a_mutant_that_forgets_the_rest_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> Any:
        array = any_numbers("float32")
        return DeflateMean(1, 3).apply(InflateMean(1, 3).apply((array,)))[0].tobytes() == array.tobytes()

    assert law()
    the_newest_gets_a_share_too(monkeypatch)
    with pytest.raises(ValueError, match="do not come back"):
        law()
