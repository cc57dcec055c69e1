"""Law 2: an op says beforehand what it gives, and what it claims to undo comes back bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.core.dtype import DTYPES, dtype_named
from weightkit.core.plan import OP_CLASSES
from weightkit.core.rule import StackedAxis
from weightkit.core.tensor import TensorSpec, spec
from weightkit.shape_ops import ADAPTER_FORMS, ADAPTERS, OPS, as_call, op_of
from weightkit.shape_ops.cast import Cast
from weightkit.shape_ops.inflate import InflateMean, InflateNewest
from weightkit.shape_ops.take import TakeNewest

LAW = settings(deadline=None, max_examples=150, database=None)
HELD_BY_NUMPY = tuple(name for name in DTYPES if name != "complex32" and DTYPES[name].kind != "packed")
FLOATS = tuple(name for name in HELD_BY_NUMPY if DTYPES[name].kind == "float")
INTEGERS = tuple(name for name in HELD_BY_NUMPY if DTYPES[name].kind in ("int", "uint"))
Case = tuple[Any, TensorSpec]


def numpy_dtype(name: str) -> Any:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def spec_of(array: np.ndarray) -> TensorSpec:
    return TensorSpec(dtype_named(array.dtype.name), array.shape)


def any_array(wanted: TensorSpec, seed: int, *, tame: bool = False) -> np.ndarray:
    """An array of any bits (NaN, infinity, subnormal numbers); ``tame``: of small whole numbers."""
    random = np.random.default_rng(seed)
    dtype = numpy_dtype(wanted.dtype.name)
    if tame or wanted.dtype.kind == "bool":
        return random.integers(0, 2 if wanted.dtype.kind == "bool" else 6, wanted.shape).astype(dtype)
    return np.frombuffer(random.bytes(wanted.nbytes), dtype).reshape(wanted.shape)


def assert_honest(op: Any, array: np.ndarray) -> None:
    """infer = apply, the class means what it says, and the inverse is one, bit for bit."""
    before = array.tobytes()
    promised = op.infer(spec_of(array))
    result = op.apply(array)
    assert spec_of(result) == promised
    assert result.flags.c_contiguous
    assert array.tobytes() == before
    assert op.op_class in OP_CLASSES
    inverse = op.inverse()
    if op.op_class == "LOSSY":
        assert inverse is None
    if isinstance(op, Cast) and op.op_class == "INJ":
        back = result.astype(array.dtype)
        assert bool(np.all((back == array) | (array != array)))  # every value but NaN comes back
    if inverse is not None:
        assert inverse.infer(promised) == spec_of(array)
        assert inverse.apply(result).tobytes() == before


@st.composite
def axes(draw: st.DrawFn, dtypes: tuple[str, ...]) -> tuple[TensorSpec, int]:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    return spec(draw(st.sampled_from(dtypes)), *shape), draw(st.integers(0, len(shape) - 1))


@st.composite
def inflate_newest(draw: st.DrawFn) -> Case:
    source, axis = draw(axes(HELD_BY_NUMPY))
    have = source.shape[axis]
    return InflateNewest(axis, have + draw(st.integers(0, 5)), have), source


@st.composite
def inflate_mean(draw: st.DrawFn) -> Case:
    source, axis = draw(axes(FLOATS))
    return InflateMean(axis, draw(st.integers(1, 4))), source


@st.composite
def take_newest(draw: st.DrawFn) -> Case:
    source, axis = draw(axes(HELD_BY_NUMPY))
    return TakeNewest(axis, draw(st.integers(1, source.shape[axis])), source.shape[axis]), source


@st.composite
def casts(draw: st.DrawFn) -> Case:
    source, _ = draw(axes(HELD_BY_NUMPY))
    return Cast(source.dtype.name, draw(st.sampled_from(HELD_BY_NUMPY))), source


CASES: dict[str, Any] = {
    "inflate:newest": inflate_newest(),
    "inflate:mean": inflate_mean(),
    "take:newest": take_newest(),
    "cast": casts(),
}


def test_no_op_in_the_table_escapes_this_law() -> None:
    assert set(CASES) == set(OPS)
    assert {op.name for op in OPS.values()} == set(OPS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CASES)
@LAW
@given(data=st.data(), seed=st.integers(0, 2**32), tame=st.booleans())
def test_an_op_keeps_its_word(name: str, data: st.DataObject, seed: int, tame: bool) -> None:
    op, source = data.draw(CASES[name])
    array = any_array(source, seed, tame=tame)
    kinds = (source.dtype.kind, op.infer(source).dtype.kind)
    if name == "cast" and kinds[0] == "complex" and kinds[1] != "complex":
        return  # test_casting_complex_numbers_to_real_ones_never_passes_silently
    with np.errstate(all="ignore"):
        try:
            op.apply(array)
        except ValueError:
            return  # it refuses these values, in words
        if array.dtype.kind == "f" or source.dtype.kind == "float":
            array = np.where(np.isnan(array), np.zeros((), array.dtype), array)  # their bits: the test below
        assert_honest(op, array)


@pytest.mark.parametrize("name", CASES)
@LAW
@given(data=st.data())
def test_an_op_survives_being_written_into_a_plan(name: str, data: st.DataObject) -> None:
    op, _ = data.draw(CASES[name])
    call = as_call(op)
    assert op_of(call) == op
    assert all(isinstance(value, (int, str)) for value in call.params.values())
    assert (call.op_class, call.preserves) == (op.op_class, op.preserves)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b, a) for b in HELD_BY_NUMPY for a in HELD_BY_NUMPY if Cast(b, a).inverse() is not None],
)
def test_a_cast_that_claims_an_inverse_has_one_for_every_bit_pattern(before: str, after: str) -> None:
    array = any_array(spec(before, 1 << 16), 0)
    if array.itemsize == 2:
        array = np.arange(1 << 16, dtype=np.uint16).view(array.dtype)
    with np.errstate(all="ignore"):
        assert_honest(Cast(before, after), array)


@pytest.mark.parametrize("before", INTEGERS)
def test_a_cast_between_whole_numbers_keeps_each_value_or_refuses(before: str) -> None:
    limits = np.iinfo(before)
    changed = []
    for after in INTEGERS:
        for value in (limits.min, limits.max, 0, 1, 127, 128, 255):
            if limits.min <= value <= limits.max:
                try:
                    result = int(Cast(before, after).apply(np.array([value], before))[0])
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
        ("float32", "int8", 300.0),
        ("float32", "int32", float("nan")),
        ("float32", "int64", 0.5),
        ("int32", "float16", 70000),
    ],
)
def test_a_cast_refuses_what_the_smaller_type_cannot_hold(before: str, after: str, value: float) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Cast(before, after).apply(np.array([value], numpy_dtype(before)))


def test_casting_complex_numbers_to_real_ones_never_passes_silently() -> None:
    with pytest.raises(ValueError, match="fit"):
        Cast("complex64", "float32").apply(np.array([1 + 2j], np.complex64))


def test_a_cast_to_a_type_that_numpy_lacks_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="complex32"):
        ADAPTERS["cast"](spec("float32", 2), spec("complex32", 2), None, "complex32").apply(np.zeros(2, np.float32))


@pytest.mark.parametrize("name", ["inflate:newest", "take:newest"])
def test_the_newest_frame_is_the_last_one(name: str) -> None:
    single = np.arange(6, dtype=np.float32).reshape(2, 3)
    stack = np.concatenate([np.zeros((2, 6), np.float32), single], axis=1)
    if name == "inflate:newest":
        assert np.array_equal(InflateNewest(1, 9, 3).apply(single), stack)
    else:
        assert np.array_equal(TakeNewest(1, 3, 9).apply(stack), single)


@LAW
@given(
    st.sampled_from([form for form in ADAPTER_FORMS if not form.startswith("cast")]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 1),
)
def test_an_adapter_gives_an_op_that_reaches_the_target_or_refuses(
    form: str, per_frame: int, have: int, frames: int, extra: int
) -> None:
    kind, _, choice = form.partition(":")
    source, target = spec("float32", 2, per_frame * have + extra, 3), spec("float32", 2, per_frame * frames, 3)
    try:
        op = ADAPTERS[kind](source, target, StackedAxis(1, frames), choice)
    except ValueError:
        return
    assert op.infer(source) == target
    assert_honest(op, any_array(source, 0, tame=True))


# ---- mutants


@dataclass(frozen=True)
class InverseOffByAPermutation(InflateNewest):
    def inverse(self) -> Any:
        class Oldest(TakeNewest):
            def apply(self, array: np.ndarray) -> np.ndarray:
                return np.ascontiguousarray(TakeNewest.apply(self, array)[::-1])

        return Oldest(self.axis, self.size_before, self.size)


@dataclass(frozen=True)
class InferLies(InflateNewest):
    def infer(self, spec: TensorSpec) -> TensorSpec:
        return spec


@dataclass(frozen=True)
class LossyWithAnInverse(TakeNewest):
    def inverse(self) -> Any:
        return InflateNewest(self.axis, self.size_before, self.size)


class WidensByWay(Cast):
    def apply(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float16).astype(np.float64)


class WritesIntoItsInput(TakeNewest):
    def apply(self, array: np.ndarray) -> np.ndarray:
        result = TakeNewest.apply(self, array)
        array *= 2
        return result


@pytest.mark.parametrize(
    "mutant",
    [
        InverseOffByAPermutation(1, 6, 3),
        InferLies(1, 6, 3),
        LossyWithAnInverse(1, 1, 3),
        WidensByWay("float32", "float64"),
        WritesIntoItsInput(1, 1, 3),
    ],
    ids=lambda op: type(op).__name__,
)
def test_a_mutant_does_not_survive_the_law(mutant: Any) -> None:
    array = np.linspace(0.1, 1, 6, dtype=np.float32).reshape(2, 3)
    assert_honest(InflateNewest(1, 6, 3), array)
    with pytest.raises(AssertionError):
        assert_honest(mutant, array)
