"""Laws 1, 2 and 6: an op says beforehand what it gives, and what it claims to undo comes back bit for bit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from weightkit.core.axes import Factor, axis_text, block_size
from weightkit.core.dtype import DTYPES, dtype_named
from weightkit.core.plan import OP_CLASSES, OpCall
from weightkit.core.tensor import TensorSpec, spec
from weightkit.shape_ops import OPS, as_call, op_of
from weightkit.shape_ops.cast import WIDER, Cast, CastBack
from weightkit.shape_ops.copies import Copy
from weightkit.shape_ops.fill import Fill
from weightkit.shape_ops.inflate import DeflateNewest, InflateMean, InflateNewest
from weightkit.shape_ops.interpolate import MODES, Interpolate
from weightkit.shape_ops.join import Concat, Split, Stack, Unstack
from weightkit.shape_ops.pad import Pad, Unpad
from weightkit.shape_ops.rearrange import AxisView, Permute, ReorderBlocks, Reshape
from weightkit.shape_ops.sum_blocks import SumBlocks
from weightkit.shape_ops.take import Shrink, Slice, TakeNewest

LAW = settings(deadline=None, max_examples=30, database=None)
HELD_BY_NUMPY = tuple(name for name in DTYPES if name != "complex32" and DTYPES[name].kind != "packed")
FLOATS = tuple(name for name in HELD_BY_NUMPY if DTYPES[name].kind == "float")
ZEROED = tuple(name for name in HELD_BY_NUMPY if name != "float8_e8m0fnu")
Specs = tuple[TensorSpec, ...]
Arrays = tuple[np.ndarray, ...]


def numpy_dtype(name: str) -> Any:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def specs_of(arrays: Arrays) -> Specs:
    return tuple(TensorSpec(dtype_named(array.dtype.name), array.shape) for array in arrays)


def bits(arrays: Arrays) -> list[bytes]:
    return [array.tobytes() for array in arrays]


# ---- arrays of any bits, any layout


def any_array(wanted: TensorSpec, seed: int, *, tame: bool) -> np.ndarray:
    """Any bits (NaN, infinity, subnormal numbers); ``tame``: small whole numbers, 1, 2 and 4 where there is no zero."""
    random = np.random.default_rng(seed)
    dtype = numpy_dtype(wanted.dtype.name)
    if wanted.dtype.name == "float8_e8m0fnu" and tame:
        return np.exp2(random.integers(0, 3, wanted.shape)).astype(dtype)
    if tame or wanted.dtype.kind == "bool":
        return np.asarray(random.integers(0, 2 if wanted.dtype.kind == "bool" else 6, wanted.shape)).astype(dtype)
    return np.frombuffer(random.bytes(wanted.nbytes), dtype).reshape(wanted.shape)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values with other strides; "expanded" repeats the first entry of the first axis."""
    if layout == "plain" or array.ndim == 0:
        return array.copy()
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "strided":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return np.broadcast_to(array[:1], array.shape) if array.shape[0] else array


LAYOUTS = st.sampled_from(("plain", "fortran", "strided", "expanded"))


@st.composite
def arrays_of(draw: st.DrawFn, specs: Specs) -> Arrays:
    tame, layout = draw(st.booleans()), draw(LAYOUTS)
    seeds = st.integers(0, 2**32)
    return tuple(laid_out(any_array(each, draw(seeds), tame=tame), layout) for each in specs)


# ---- ops that fit given tensors: one function for each, None where none fits


def _axis(draw: st.DrawFn, specs: Specs) -> int | None:
    """An axis that all have, of one extent."""
    if not specs:
        return None
    ranks = min(len(each.shape) for each in specs)
    fitting = [axis for axis in range(ranks) if len({each.shape[axis] for each in specs}) == 1]
    return draw(st.sampled_from(fitting)) if fitting else None


def _alike(specs: Specs) -> bool:
    return bool(specs) and len(set(specs)) == 1


def _parts(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    cuts = sorted(draw(st.lists(st.integers(0, size), max_size=3)))
    return tuple(b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True))


def _factored(draw: st.DrawFn, size: int) -> tuple[Any, ...]:
    """Blocks of named factors with ``size`` entries together."""
    blocks = []
    for number, part in enumerate(part for part in _parts(draw, size) if part):
        divisors = [d for d in range(1, part + 1) if part % d == 0]
        outer = draw(st.sampled_from(divisors))
        inner = draw(st.sampled_from([d for d in divisors if (part // outer) % d == 0]))
        sizes = (outer, part // outer // inner, inner)
        names = ("T", "H", "C") if number == 0 else tuple(f"{letter}{number}" for letter in "xyz")
        kept = [Factor(name, n) for name, n in zip(names, sizes, strict=True) if n > 1 or draw(st.booleans())]
        blocks.append(tuple(kept) or (Factor(f"n{number}", part),))
    return tuple(blocks)


def _one_changed(draw: st.DrawFn, blocks: tuple[Any, ...], sizes: Callable[[int], Any]) -> tuple[Any, ...]:
    b = draw(st.integers(0, len(blocks) - 1))
    f = draw(st.integers(0, len(blocks[b]) - 1))
    factors = list(blocks[b])
    factors[f] = Factor(factors[f].name, draw(sizes(factors[f].size)))
    return (*blocks[:b], tuple(factors), *blocks[b + 1 :])


def permute(draw: st.DrawFn, specs: Specs) -> Any:
    if not specs or len({len(each.shape) for each in specs}) != 1:
        return None
    return Permute(tuple(draw(st.permutations(range(len(specs[0].shape))))))


def axis_view(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None or not specs[0].shape[axis]:
        return None
    size = specs[0].shape[axis]
    outer = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    inner = draw(st.sampled_from([d for d in range(1, size + 1) if (size // outer) % d == 0]))
    text = f"H={outer},W={size // outer // inner},C={inner}"
    return AxisView(axis, text, ",".join(draw(st.permutations("HWC"))))


def reorder_blocks(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None:
        return None
    sizes = _parts(draw, specs[0].shape[axis])
    return ReorderBlocks(axis, sizes, tuple(draw(st.permutations(range(len(sizes))))))


def reshape(draw: st.DrawFn, specs: Specs) -> Any:
    if not specs or len({each.shape for each in specs}) != 1:
        return None
    after = [size for size in specs[0].shape if size != 1]
    for _ in range(draw(st.integers(0, 2))):
        after.insert(draw(st.integers(0, len(after))), 1)
    return Reshape(specs[0].shape, tuple(after))


def concat(draw: st.DrawFn, specs: Specs) -> Any:
    for axis in range(min((len(each.shape) for each in specs), default=0)):
        if len({(each.dtype, each.shape[:axis], each.shape[axis + 1 :]) for each in specs}) == 1:
            return Concat(axis, tuple(each.shape[axis] for each in specs))
    return None


def split(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    return None if axis is None else Split(axis, _parts(draw, specs[0].shape[axis]))


def stack(draw: st.DrawFn, specs: Specs) -> Any:
    if not _alike(specs):
        return None
    count = draw(st.sampled_from([n for n in range(1, len(specs) + 1) if len(specs) % n == 0]))
    return Stack(draw(st.integers(0, len(specs[0].shape))), count)


def unstack(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    return None if axis is None or not specs[0].shape[axis] else Unstack(axis, specs[0].shape[axis])


def copy(draw: st.DrawFn, specs: Specs) -> Any:
    return Copy(draw(st.integers(1, 3)))


def pad(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None or not specs[0].shape[axis] or any(each.dtype.name not in ZEROED for each in specs):
        return None
    blocks = _factored(draw, specs[0].shape[axis])
    grown = _one_changed(draw, blocks, lambda size: st.integers(size + 1, size + 3))
    return Pad(axis, axis_text(blocks), axis_text(grown))


def inflate_newest(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None or any(each.dtype.name not in ZEROED for each in specs):
        return None
    return InflateNewest(axis, specs[0].shape[axis] + draw(st.integers(0, 5)), specs[0].shape[axis])


def inflate_mean(draw: st.DrawFn, specs: Specs) -> Any:
    if not specs or any(each.dtype.kind != "float" or not each.shape for each in specs):
        return None
    axis = draw(st.integers(0, min(len(each.shape) for each in specs) - 1))
    return InflateMean(axis, draw(st.sampled_from((1, 2, 2, 3, 4, 4, 5, 7, 8))))


def cast(draw: st.DrawFn, specs: Specs) -> Any:
    if len({each.dtype for each in specs}) != 1:
        return None
    before = specs[0].dtype.name
    wider = WIDER.get(before, ())
    return Cast(before, draw(st.sampled_from(wider if wider and draw(st.booleans()) else HELD_BY_NUMPY)))


def fill(draw: st.DrawFn, specs: Specs) -> Any:
    if specs:
        return None
    dtype = draw(st.sampled_from(HELD_BY_NUMPY))
    value = draw(st.sampled_from((1.0, 1.0, 0.0, -0.5, 3.0, 0.1)))
    return Fill(dtype, tuple(draw(st.lists(st.integers(0, 3), max_size=3))), value)


def slice_(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None:
        return None
    start, stop = sorted(draw(st.tuples(*[st.integers(0, specs[0].shape[axis])] * 2)))
    return Slice(axis, start, stop, specs[0].shape[axis])


def shrink(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None or not specs[0].shape[axis]:
        return None
    blocks = _factored(draw, specs[0].shape[axis])
    if all(factor.size == 1 for block in blocks for factor in block):
        return None
    shrunk = _one_changed(draw, blocks, lambda size: st.integers(1, max(1, size - 1)))
    return None if shrunk == blocks else Shrink(axis, axis_text(blocks), axis_text(shrunk))


def take_newest(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None:
        return None
    return TakeNewest(axis, draw(st.integers(0, specs[0].shape[axis])), specs[0].shape[axis])


def sum_blocks(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None or any(each.dtype.kind != "float" for each in specs):
        return None
    size = specs[0].shape[axis]
    return SumBlocks(axis, draw(st.sampled_from([n for n in range(1, size + 2) if size % n == 0])))


def interpolate(draw: st.DrawFn, specs: Specs) -> Any:
    axis = _axis(draw, specs)
    if axis is None or not specs[0].shape[axis] or any(each.dtype.kind != "float" for each in specs):
        return None
    return Interpolate((axis,), (draw(st.integers(1, 6)),), (specs[0].shape[axis],), draw(st.sampled_from(MODES)))


FORWARD: dict[str, Callable[[st.DrawFn, Specs], Any]] = {
    "permute": permute,
    "axis_view": axis_view,
    "reorder_blocks": reorder_blocks,
    "reshape": reshape,
    "concat": concat,
    "split": split,
    "stack": stack,
    "unstack": unstack,
    "copy": copy,
    "pad": pad,
    "inflate:newest": inflate_newest,
    "inflate:mean": inflate_mean,
    "cast": cast,
    "fill": fill,
    "slice": slice_,
    "shrink": shrink,
    "take:newest": take_newest,
    "sum_blocks": sum_blocks,
    "interpolate": interpolate,
}
BACKWARD = {
    "unpad": "pad",
    "deflate:newest": "inflate:newest",
    "deflate:mean": "inflate:mean",
    "cast:back": "cast",
    "same": "copy",
    "unfill": "fill",
}
"""Ops that take back what others did: they are drawn with what those gave."""
MAY_REFUSE = {"cast", "inflate:mean", "sum_blocks", "fill"}
"""Ops for which some values do not fit."""
FLOATS_ONLY = {"inflate:mean", "sum_blocks", "interpolate"}


@st.composite
def sources(draw: st.DrawFn, name: str = "") -> Specs:
    """Tensors for the op ``name``: one or several, mostly alike; 0-d and empty ones too."""
    if name == "fill":
        return ()
    dtypes = FLOATS if name in FLOATS_ONLY else ZEROED if name in ("pad", "inflate:newest") else HELD_BY_NUMPY
    least = 0 if name in ("", "permute", "reshape", "stack", "copy", "cast") else 1
    size = st.integers(1 if name in ("pad", "axis_view", "unstack", "interpolate") else 0, 6)
    if name == "shrink":
        size = st.integers(2, 6)
    one = spec(draw(st.sampled_from(dtypes)), *draw(st.lists(size, min_size=least, max_size=3)))
    several = [one] * draw(st.integers(1, 4))
    if name == "concat":
        several = [spec(one.dtype.name, draw(st.integers(0, 3)), *one.shape[1:]) for _ in several]
    return tuple(several)


@st.composite
def cases(draw: st.DrawFn, name: str) -> tuple[Any, Arrays]:
    """An op and arrays that it fits."""
    forward = BACKWARD.get(name, name)
    specs = draw(sources(forward))
    op = FORWARD[forward](draw, specs)
    assume(op is not None)
    arrays = draw(arrays_of(specs))
    if forward == name:
        return op, arrays
    inverse = op.inverse()
    assume(inverse is not None and inverse.name == name)
    try:
        made = op.apply(arrays)
    except ValueError:
        assume(False)
    layout = draw(st.sampled_from(("plain", "fortran", "strided")))
    return inverse, tuple(laid_out(array, layout) for array in made)


# ---- the laws


def assert_honest(op: Any, arrays: Arrays) -> None:
    """infer = apply, the class means what it says, and the inverse is one, bit for bit."""
    before = bits(arrays)
    specs = specs_of(arrays)
    promised = op.infer(specs)
    result = op.apply(arrays)
    assert specs_of(result) == promised
    assert all(array.flags.c_contiguous for array in result)
    assert bits(arrays) == before
    assert op.op_class in OP_CLASSES
    assert (op.complement == "") == (op.op_class == "BIJ")
    assert op.preserves
    inverse = op.inverse()
    assert (inverse is None) == (op.op_class == "LOSSY")
    if inverse is None:
        return
    assert inverse.inverse() == op
    assert inverse.infer(promised) == specs
    back = inverse.apply(result)
    assert bits(back) == before
    if op.op_class == "BIJ":
        assert inverse.op_class == "BIJ"
        assert elements(arrays) == elements(result)
        assert bits(op.apply(back)) == bits(result)


def elements(arrays: Arrays) -> Counter[bytes]:
    return Counter(row.tobytes() for array in arrays for row in np.frombuffer(array.tobytes(), f"V{array.itemsize}"))


def assert_nothing_is_forgotten(op: Any, arrays: Arrays, which: int) -> None:
    """With one bit of the result changed, the inverse refuses, or gives what leads to the changed result again."""
    changed = [array.copy() for array in op.apply(arrays)]
    sizes = [array.nbytes for array in changed]
    if not sum(sizes):
        return
    place = which % sum(sizes)
    for array in changed:
        if place < array.nbytes:
            place -= place % array.itemsize
            array.reshape(-1).view(np.uint8)[place] ^= 1
            break
        place -= array.nbytes
    try:
        back = op.inverse().apply(tuple(changed))
    except ValueError:
        return
    assert bits(op.apply(back)) == bits(tuple(changed))


def test_no_op_in_the_table_escapes_these_laws() -> None:
    assert set(FORWARD) | set(BACKWARD) == set(OPS)
    assert {op.name for op in OPS.values()} == set(OPS)


@pytest.mark.parametrize("name", OPS)
@LAW
@given(data=st.data())
def test_an_op_keeps_its_word(name: str, data: st.DataObject) -> None:
    op, arrays = data.draw(cases(name))
    try:
        op.apply(arrays)
    except ValueError:
        assert name in MAY_REFUSE
        return
    assert_honest(op, arrays)


@pytest.mark.parametrize("name", [name for name in OPS if name in FORWARD])
@LAW
@given(data=st.data(), which=st.integers(0, 2**16))
def test_what_an_op_added_is_not_taken_away_once_it_has_changed(name: str, data: st.DataObject, which: int) -> None:
    op, arrays = data.draw(cases(name))
    try:
        op.apply(arrays)
    except ValueError:
        return
    if op.op_class != "LOSSY":
        assert_nothing_is_forgotten(op, arrays, which)


@pytest.mark.parametrize("name", OPS)
@LAW
@given(data=st.data())
def test_an_op_survives_being_written_into_a_plan(name: str, data: st.DataObject) -> None:
    op, _ = data.draw(cases(name))
    written = json.loads(json.dumps(as_call(op).to_dict()))
    call = OpCall(written["op"], written["params"], written["class"], written["preserves"])
    assert op_of(call) == op
    assert op_of(as_call(op)) == op
    assert (call.op_class, call.preserves) == (op.op_class, op.preserves)
    assert str(as_call(op)).startswith(name)


@settings(LAW, max_examples=150)
@given(data=st.data())
def test_a_chain_gives_what_it_infers_and_goes_back(data: st.DataObject) -> None:
    specs = data.draw(sources())
    arrays = first = data.draw(arrays_of(specs))
    done = []
    for name in data.draw(st.lists(st.sampled_from(list(FORWARD)), max_size=6)):
        op = FORWARD[name](data.draw, specs)
        if op is None or sum(each.numel for each in op.infer(specs)) > 10_000:
            continue
        try:
            arrays = op.apply(arrays)
        except ValueError:
            assert name in MAY_REFUSE
            continue
        specs = op.infer(specs)
        assert specs_of(arrays) == specs
        done.append(op)
    if any(op.op_class == "LOSSY" for op in done):
        return
    for op in reversed(done):
        specs, arrays = op.inverse().infer(specs), op.inverse().apply(arrays)
        assert specs_of(arrays) == specs
    assert bits(arrays) == bits(first)


@pytest.mark.parametrize("name", OPS)
@LAW
@given(data=st.data())
def test_an_op_refuses_tensors_that_it_was_not_made_for(name: str, data: st.DataObject) -> None:
    op, _ = data.draw(cases(name))
    specs = data.draw(sources())
    arrays = data.draw(arrays_of(specs))
    try:
        promised = op.infer(specs)
    except ValueError:
        with pytest.raises(ValueError):
            op.apply(arrays)
        return
    try:
        assert specs_of(op.apply(arrays)) == promised
    except ValueError:
        assert name in MAY_REFUSE | set(BACKWARD)


# ---- mutants


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.arange(1, 1 + int(np.prod(shape)), dtype=dtype).reshape(shape)


def _unchecked(self: Any) -> Any:
    class Trusting(Unpad):
        def apply_one(self, array: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(array[:, : block_size((Factor("n", 2),))])

    return Trusting(self.axis, self.before, self.after)


def _trusting_deflate(self: Any, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[:, self.size - self.size_before :])


def _writes(self: Any, array: np.ndarray) -> np.ndarray:
    array *= 2
    return array[:, -self.size :].copy()


MUTANTS: dict[str, tuple[Any, str, Any, Any, Arrays]] = {
    "an inverse off by a permutation": (
        *(Permute, "inverse", lambda self: Permute(self.axes)),
        *(Permute((1, 2, 0)), (array(2, 3, 4),)),
    ),
    "blocks put back in the same order": (
        *(ReorderBlocks, "inverse", lambda self: ReorderBlocks(self.axis, self.sizes, self.order)),
        *(ReorderBlocks(0, (1, 3, 2), (2, 0, 1)), (array(6),)),
    ),
    "an unpad that does not check": (Pad, "inverse", _unchecked, Pad(1, "n=2", "n=4"), (array(3, 2),)),
    "a deflate that does not check": (
        *(DeflateNewest, "apply_one", _trusting_deflate),
        *(InflateNewest(1, 5, 2), (array(3, 2),)),
    ),
    "a cast back that does not check": (
        *(CastBack, "apply_one", lambda self, array: array.astype(np.float32)),
        *(Cast("float32", "float64"), (array(3, 2),)),
    ),
    "an infer off by one axis": (
        *(InflateNewest, "infer_one", lambda self, spec: TensorSpec(spec.dtype, (self.size, *spec.shape[1:]))),
        *(InflateNewest(1, 5, 2), (array(2, 2),)),
    ),
    "a lossy op with an inverse": (
        *(TakeNewest, "inverse", lambda self: InflateNewest(self.axis, self.size_before, self.size)),
        *(TakeNewest(1, 1, 2), (array(3, 2),)),
    ),
    "a lossy op that says it loses nothing": (
        *(Slice, "op_class", "BIJ"),
        *(Slice(1, 0, 1, 2), (array(3, 2),)),
    ),
    "a widening by way of a narrower type": (
        *(Cast, "apply_one", lambda self, array: array.astype(np.float16).astype(np.float64)),
        *(Cast("float32", "float64"), (np.float32([0.1]),)),
    ),
    "an op that writes into its input": (TakeNewest, "apply_one", _writes, TakeNewest(1, 1, 2), (array(3, 2),)),
    "a result that is not C-contiguous": (
        *(Permute, "apply_one", lambda self, array: array.transpose(self.axes)),
        *(Permute((1, 0)), (array(2, 3),)),
    ),
    "a split that gives its parts backwards": (
        *(Split, "apply", lambda self, arrays: tuple(np.split(arrays[0], 2))[::-1]),
        *(Split(0, (2, 2)), (array(4),)),
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_does_not_survive_the_laws(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutated, attribute, replacement, op, arrays = MUTANTS[name]

    def hold() -> None:
        assert_honest(op, tuple(each.copy() for each in arrays))
        if op.inverse() is not None:
            for which in range(4 * 16):
                assert_nothing_is_forgotten(op, arrays, which)

    hold()
    monkeypatch.setattr(mutated, attribute, replacement)
    with pytest.raises(AssertionError):
        hold()
    monkeypatch.undo()
    hold()
