"""An adapter that a user names gives ops that reach the target, or says in words why it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.core.axes import FactoredAxis, parse_axis
from weightkit.core.dtype import DTYPES
from weightkit.core.tensor import TensorSpec, spec
from weightkit.shape_ops import ADAPTER_FORMS, ADAPTERS
from weightkit.shape_ops.pad import Pad
from weightkit.shape_ops.rearrange import Permute
from weightkit.shape_ops.take import Shrink, Slice

LAW = settings(deadline=None, max_examples=60, database=None)
Case = tuple[str, TensorSpec, TensorSpec, tuple[FactoredAxis, ...]]
SIZES = st.integers(1, 5)


def adapted(form: str, source: TensorSpec, target: TensorSpec, *axes: FactoredAxis) -> tuple[Any, ...]:
    kind, _, choice = form.partition(":")
    return ADAPTERS[kind](source, target, axes, choice)


# ---- every form on shapes that it fits


@st.composite
def fitting(draw: st.DrawFn, form: str) -> Case:
    """A source and a target between which ``form`` leads; the other axes are the same."""
    kind, _, choice = form.partition(":")
    rest = draw(st.lists(SIZES, max_size=2))
    dtype = draw(st.sampled_from(("float32", "float16", "float64")))
    if form == "transpose":
        shape = draw(st.tuples(SIZES, SIZES))
        return form, spec(dtype, *shape), spec(dtype, *shape[::-1]), ()
    if kind == "cast":
        wanted = draw(st.sampled_from(("float64", "float32", "bfloat16", "int8")))
        return f"cast:{wanted}", spec(dtype, *rest), spec(wanted, *rest), ()
    if choice in ("end", "first", "last", "A:B", "linear", "nearest"):
        small = draw(SIZES)
        large = small + draw(SIZES)
        have, want = (small, large) if choice == "end" else (large, small)
        if kind == "interpolate" and draw(st.booleans()):
            have, want = want, have
        if choice == "A:B":
            start = draw(st.integers(0, have - want))
            form = f"slice:{start}:{start + want}"
        known = (parse_axis(0, f"C={want}"),) if draw(st.booleans()) else ()
        return form, spec(dtype, have, *rest), spec(dtype, want, *rest), known
    per_frame, frames = draw(SIZES), draw(st.integers(2, 5))
    stacked = frames * per_frame
    if form in ("inflate:newest", "inflate:mean"):
        have = 1 if choice == "mean" else draw(st.integers(1, frames - 1))
        meaning = parse_axis(0, f"T={frames},C={per_frame}")
        return form, spec(dtype, have * per_frame, *rest), spec(dtype, stacked, *rest), (meaning,)
    if form in ("take:newest", "sum_blocks"):
        keep = 1 if kind == "sum_blocks" else draw(st.integers(1, frames - 1))
        meaning = parse_axis(0, f"T={keep},C={per_frame}")
        return form, spec(dtype, stacked, *rest), spec(dtype, keep * per_frame, *rest), (meaning,)
    small = draw(SIZES)
    large = small + draw(SIZES)
    around, behind = draw(st.sampled_from((("", ""), ("vis=5|", ""), ("vis=5|", "|act=2"), ("", "|act=2"))))
    texts = [f"{around}T={frames},D={size}{behind}" for size in (small, large)]
    source, target = texts if kind == "pad" else texts[::-1]
    name = choice if choice == "block" else "D"
    have, want = parse_axis(0, source), parse_axis(0, target)
    return f"{kind}:{name}", spec(dtype, have.size, *rest), spec(dtype, want.size, *rest), (want,)


@pytest.mark.parametrize("form", ADAPTER_FORMS)
@LAW
@given(data=st.data())
def test_every_form_leads_to_the_target(form: str, data: st.DataObject) -> None:
    named, source, target, axes = data.draw(fitting(form))
    found = adapted(named, source, target, *axes)
    assert found
    specs: tuple[TensorSpec, ...] = (source,)
    for op in found:
        specs = op.infer(specs)
    assert specs == (target,)


@settings(LAW, max_examples=300)
@given(
    st.sampled_from(ADAPTER_FORMS),
    st.lists(st.integers(0, 7), max_size=3),
    st.lists(st.integers(0, 7), max_size=3),
    st.sampled_from(("", "T=1,C=3", "T=2,C=3", "T=3,D=2", "T=6", "vis=2|T=2,D=2", "T=2|T=2,D=2", "D=2,T=3", "H=6")),
    st.integers(0, 2),
)
def test_any_form_on_any_shapes_leads_to_the_target_or_is_refused_in_words(
    form: str, have: list[int], want: list[int], text: str, axis: int
) -> None:
    source, target = spec("float32", *have), spec("float32", *want)
    form = form.replace("FACTOR", "D").replace("A:B", "1:3").replace("DTYPE", "float32")
    try:
        found = adapted(form, source, target, *([parse_axis(axis, text)] if text else []))
        specs: tuple[TensorSpec, ...] = (source,)
        for op in found:
            specs = op.infer(specs)
    except ValueError:
        return
    assert specs == (target,) or form == "cast:float32"


# ---- what exactly they give


def test_pad_end_pads_every_axis_that_differs() -> None:
    found = adapted("pad:end", spec("float32", 2, 3, 4), spec("float32", 5, 3, 6))
    assert found == (Pad(0, "n=2", "n=5"), Pad(2, "n=4", "n=6"))


def test_pad_block_pads_each_frame() -> None:
    found = adapted("pad:block", spec("float32", 2, 18), spec("float32", 2, 21), parse_axis(1, "T=3,D=7"))
    assert found == (Pad(1, "T=3,D=6", "T=3,D=7"),)


def test_a_factor_is_found_in_a_concatenated_axis() -> None:
    before, after = "vis=50|T=3,D=15|act=6", "vis=50|T=3,D=18|act=6"
    small, large = spec("float32", 2, 101), spec("float32", 2, 110)
    assert adapted("pad:D", small, large, parse_axis(1, after)) == (Pad(1, before, after),)
    assert adapted("pad:block", small, large, parse_axis(1, after)) == (Pad(1, before, after),)
    assert adapted("slice:D", large, small, parse_axis(1, before)) == (Shrink(1, after, before),)
    assert adapted("pad:vis", small, large, parse_axis(1, after)) == (Pad(1, after.replace("50", "41"), after),)


def test_slices_keep_what_their_names_say() -> None:
    source, target = spec("float32", 9), spec("float32", 4)
    assert adapted("slice:first", source, target) == (Slice(0, 0, 4, 9),)
    assert adapted("slice:last", source, target) == (Slice(0, 5, 9, 9),)
    assert adapted("slice:2:6", source, target) == (Slice(0, 2, 6, 9),)


def test_a_square_matrix_is_transposed_where_that_is_named() -> None:
    square = spec("float32", 3, 3)
    assert adapted("transpose", square, square) == (Permute((1, 0)),)


@pytest.mark.parametrize(
    ("form", "source", "target", "axes", "words"),
    [
        ("pad:end", (2, 18), (2, 21), "T=3,D=7", r"stacks 3 frames \(T=3,D=7\), and 3 zeros .* pad:block, pad:D"),
        ("pad:end", (2, 18), (2, 15), "", "axis 1 goes from 18 to 15: pad only grows"),
        ("pad:end", (2, 18), (2, 18), "", "agree already"),
        ("pad:end", (18,), (2, 18), "", "1 axes, the target 2"),
        ("pad:end", (2, 0), (2, 3), "", "nothing to pad"),
        ("pad:", (2, 18), (2, 21), "T=3,D=7", "pad:FACTOR"),
        ("pad:block", (2, 18), (2, 21), "", "0 blocks"),
        ("pad:block", (2, 4), (2, 6), "T=3|T=3", "2 blocks"),
        ("pad:block", (2, 4), (2, 6), "T=6", "inflate:newest"),
        ("pad:block", (2, 19), (2, 21), "T=3,D=7", "no size of D makes axis 1 the source's 19 entries"),
        ("pad:block", (2, 24), (2, 21), "T=3,D=7", "T=3,D=8 to T=3,D=7: pad only grows"),
        ("pad:block", (3, 18), (2, 21), "T=3,D=7", "axis 0 differs, 3 and 2"),
        ("pad:C", (2, 18), (2, 21), "T=3,D=7", "0 factors called 'C'; known: T, D"),
        ("pad:block", (2, 18), (2, 21), "T=3,D=6", "axis 1 should be T=3,D=6, 18 entries"),
        ("slice:D", (2, 18), (2, 21), "T=3,D=7", "T=3,D=6 to T=3,D=7: slice only shrinks"),
        ("slice:", (2, 18), (2, 21), "T=3,D=7", "slice:FACTOR"),
        ("slice:first", (2, 18), (2, 21), "", "from 18 to 21: slice only shrinks"),
        ("slice:first", (2, 21), (2, 18), "T=3,D=6", "stacks 3 frames .* take:newest, slice:D"),
        ("slice:last", (2, 21), (2, 18), "C=6,T=3", "stacks 3 frames"),
        ("slice:1:5", (2, 21), (2, 18), "", "1:5 are 4 entries, axis 1 of the target has 18"),
        ("slice:9:27", (2, 21), (2, 18), "", "9 to 27 is no part of 21"),
        ("slice:0:1", (2, 2), (1, 1), "", "2 axes differ"),
        ("inflate:newest", (2, 3), (2, 9), "", "none of its axes stacks frames"),
        ("inflate:newest", (2, 4), (2, 9), "T=3,C=3", "no whole number of frames of 3"),
        ("inflate:newest", (2, 12), (2, 9), "T=3,C=3", "the source has 4 frames already, the target 3"),
        ("inflate:mean", (2, 6), (2, 9), "T=3,C=3", "the source has 2"),
        ("inflate:oldest", (2, 6), (2, 9), "T=3,C=3", "choose inflate:newest or inflate:mean"),
        ("take:newest", (2, 6), (2, 9), "T=3,C=3", "2 frames, the target 3"),
        ("take:oldest", (2, 9), (2, 6), "T=2,C=3", "choose take:newest"),
        ("sum_blocks", (2, 9), (2, 6), "T=2,C=3", "the target has 2"),
        ("sum_blocks:2", (2, 9), (2, 3), "T=1,C=3", "no choices"),
        ("transpose", (2, 3), (2, 3), "", r"\[2, 3\] transposed is \[3, 2\], not \[2, 3\]"),
        ("transpose", (2, 3, 4), (4, 3, 2), "", "3 axes"),
        ("transpose:x", (2, 3), (3, 2), "", "no choices"),
        ("interpolate:cubic", (2, 3), (2, 4), "", "unknown mode 'cubic'"),
        ("interpolate:linear", (2, 6), (2, 9), "T=3,C=3", "no points of one grid"),
        ("cast:float7", (2,), (2,), "", "unknown dtype 'float7'"),
        ("cast:float16", (2,), (2,), "", "the target wants float32, not float16"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    form: str, source: tuple[int, ...], target: tuple[int, ...], axes: str, words: str
) -> None:
    known = [parse_axis(len(target) - 1, axes)] if axes else []
    with pytest.raises(ValueError, match=words):
        adapted(form, spec("float32", *source), spec("float32", *target), *known)


def test_a_cast_to_a_type_that_numpy_lacks_is_refused_in_words() -> None:
    for name in ("complex32", "qint8"):
        with pytest.raises(ValueError, match=f"numpy has no {name}"):
            adapted(f"cast:{name}", spec("float32", 2), TensorSpec(DTYPES[name], (2,)))
