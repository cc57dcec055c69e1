"""Casts: widening gives every value back, narrowing refuses what would become another kind of value."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from weightkit.core.dtype import DTYPES, dtype_named, numpy_dtype
from weightkit.shape_ops.cast import WIDER, Cast

HELD_BY_NUMPY = tuple(name for name in DTYPES if name != "complex32" and DTYPES[name].kind != "packed")
INTEGERS = tuple(name for name in HELD_BY_NUMPY if DTYPES[name].kind in ("int", "uint"))


def array_of(dtype: str, *values: object) -> np.ndarray:
    return np.array(values).astype(numpy_dtype(dtype_named(dtype)))


def cast(before: str, after: str, array: np.ndarray) -> np.ndarray:
    (result,) = Cast(before, after).apply((array,))
    return result


def every_value(dtype: str) -> np.ndarray:
    """All bit patterns of a type of one or two bytes, samples and the limits of a larger one; no NaN."""
    wanted = numpy_dtype(dtype_named(dtype))
    if dtype == "bool":
        return np.array([False, True])
    if wanted.itemsize <= 2:
        array = np.arange(1 << (8 * wanted.itemsize), dtype=f"u{wanted.itemsize}").view(wanted)
    else:
        array = np.frombuffer(np.random.default_rng(0).bytes(1 << 16), wanted)
        if wanted.kind in "iu":
            limits = np.iinfo(wanted)
            array = np.concatenate([array, np.array([limits.min, limits.max, 0], wanted)])
    with np.errstate(all="ignore"):
        return array if wanted.kind in "iu" else array[~np.isnan(array)]


@pytest.mark.parametrize(("before", "after"), [(b, a) for b, wider in WIDER.items() for a in wider])
def test_widening_gives_every_value_back_bit_for_bit(before: str, after: str) -> None:
    array = every_value(before)
    wide = cast(before, after, array)
    inverse = Cast(before, after).inverse()
    assert inverse is not None
    (back,) = inverse.apply((wide,))
    assert back.tobytes() == array.tobytes()
    if before != "bool" and array.dtype.kind != "c":
        assert np.array_equal(wide.astype(np.longdouble), array.astype(np.float64 if array.itemsize < 8 else None))


def test_no_widening_is_left_out_of_the_table() -> None:
    missing = []
    for before in HELD_BY_NUMPY:
        if DTYPES[before].itemsize > 2 or before == "bool":
            continue
        array = every_value(before)
        for after in HELD_BY_NUMPY:
            kinds = (DTYPES[before].kind, DTYPES[after].kind)
            if after in (before, *WIDER.get(before, ())) or "bool" in kinds or kinds[1] == "complex":
                continue
            if kinds[0] == "float" and kinds[1] != "float":
                continue
            try:
                wide = cast(before, after, array)
            except ValueError:
                continue
            if np.array_equal(wide.astype(np.float64), array.astype(np.float64)):
                missing.append((before, after))
    assert missing == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float8_e5m2", "complex64"])
def test_an_ordinary_nan_comes_back_bit_for_bit(dtype: str) -> None:
    array = array_of(dtype, float("nan"), 1.0)
    op = Cast(dtype, WIDER[dtype][0])
    inverse = op.inverse()
    assert inverse is not None
    assert inverse.apply(op.apply((array,)))[0].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("before", "after", "bits"),
    [("float32", "float64", np.uint32([0x7F800001, 0])), ("bfloat16", "float32", np.uint16([0x7F81, 0x3F80]))],
)
def test_a_signalling_nan_is_refused_where_it_would_not_come_back(before: str, after: str, bits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="1 of 2 values are signalling NaN"):
        cast(before, after, bits.view(numpy_dtype(dtype_named(before))))


def test_a_boolean_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 3 values are booleans that are neither"):
        cast("bool", "uint8", np.uint8([0, 1, 2]).view(bool))


def test_going_back_is_refused_where_the_wider_digits_are_used() -> None:
    inverse = Cast("float32", "float64").inverse()
    assert inverse is not None
    with pytest.raises(ValueError, match="2 of 3 values are no float32"):
        inverse.apply((np.array([0.1, 1.0, 1e300]),))
    whole = Cast("int8", "int64").inverse()
    assert whole is not None
    with pytest.raises(ValueError, match="1 of 2 values are no int8"):
        whole.apply((np.array([128, -128]),))


@pytest.mark.parametrize("before", INTEGERS)
def test_a_cast_between_whole_numbers_keeps_each_value_or_refuses(before: str) -> None:
    limits = np.iinfo(before)
    changed = []
    for after in INTEGERS:
        for value in (limits.min, limits.max, 0, 1, 127, 128, 255):
            if limits.min <= value <= limits.max:
                try:
                    result = int(cast(before, after, np.array([value], before))[0])
                except ValueError:
                    continue
                if result != value:
                    changed.append(f"{value} as {after} became {result}")
    assert changed == []


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("float32", "float16", 70000.0),
        ("float64", "float32", 1e39),
        ("float32", "float8_e4m3fn", 1e4),
        ("float32", "float8_e4m3fn", float("inf")),
        ("float32", "float8_e8m0fnu", 0.0),
        ("float32", "float8_e8m0fnu", -1.0),
        ("float32", "int8", 300.0),
        ("float32", "int32", float("nan")),
        ("float32", "int32", float("-inf")),
        ("float32", "int64", 0.5),
        ("float64", "int64", 2.0**63),
        ("bfloat16", "bool", 2.0),
        ("int32", "float16", 70000),
        ("int16", "bool", 2),
        ("complex64", "float32", 1 + 2j),
        ("complex64", "int8", 1 + 0j),
        ("complex128", "complex64", 1e300 + 1j),
    ],
)
def test_a_cast_refuses_what_the_smaller_type_cannot_hold(before: str, after: str, value: complex) -> None:
    with pytest.raises(ValueError, match="fit"):
        cast(before, after, array_of(before, value))


def test_float32_to_bfloat16_is_off_by_at_most_one_part_in_256() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    narrow = cast("float32", "bfloat16", values).astype(np.float32)
    error = np.abs(narrow - values) / np.abs(values)
    assert 3.8e-3 < error.max() <= 1 / 256 < 3.91e-3


@pytest.mark.parametrize("before", HELD_BY_NUMPY)
def test_every_type_becomes_every_other_or_is_refused_in_words(before: str) -> None:
    array = array_of(before, *(1, 1) if before == "bool" else (1, 4))
    for after in HELD_BY_NUMPY:
        try:
            result = cast(before, after, array)
        except ValueError as refused:
            assert "fit into" in str(refused)  # noqa: PT017
            assert after == "bool" or (DTYPES[before].kind == "complex") > (DTYPES[after].kind == "complex")
        else:
            assert np.array_equal(result.astype(np.complex128), array.astype(np.complex128))


def test_the_same_type_is_no_change_at_all() -> None:
    op = Cast("bfloat16", "bfloat16")
    array = np.arange(256, dtype=np.uint16).view(ml_dtypes.bfloat16)
    assert op.op_class == "BIJ"
    assert op.apply((array,))[0].tobytes() == array.tobytes()
