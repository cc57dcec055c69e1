"""A line of a plan is read as what it is, or refused in words: users write plans, and so may others."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from typing import Any

import pytest

from weightkit.core.plan import OpCall
from weightkit.core.tensor import spec
from weightkit.shape_ops import ADAPTER_FORMS, ADAPTERS, ALWAYS, JOINS, OP_KINDS, OPS, PARTS, as_call, op_of
from weightkit.shape_ops.join import Concat

HUGE = 1 << 62

HOSTILE: dict[str, tuple[Any, Any, str]] = {
    "an unknown op": ("explode", {}, "unknown op 'explode'; known: permute"),
    "a name that is a list": (["pad"], {}, "unknown op"),
    "parameters that are a list": ("pad", [1], "an object"),
    "an unknown parameter": ("permute", {"axes": [0], "op_class": "BIJ"}, "no parameter 'op_class'; known: axes"),
    "a class smuggled in": ("slice", {"axis": 0, "start": 0, "stop": 1, "size_before": 2, "op_class": "BIJ"}, "known"),
    "a missing parameter": ("split", {"axis": 0}, "needs 'sizes'"),
    "a text for a number": ("stack", {"axis": "0", "count": 2}, "axis must be a whole number, found '0'"),
    "true for a number": ("stack", {"axis": True, "count": 2}, "axis must be a whole number"),
    "a fraction for a number": ("stack", {"axis": 0.0, "count": 2}, "whole number, found 0.0"),
    "nothing for a number": ("stack", {"axis": None, "count": 2}, "whole number, found None"),
    "a number of many digits": ("stack", {"axis": 10**5000, "count": 2}, "many bits"),
    "a number for a list": ("permute", {"axes": 0}, "a list"),
    "a list in a list": ("permute", {"axes": [[0]]}, "a list"),
    "a number for a text": ("pad", {"axis": 0, "before": 3, "after": "n=4"}, "before must be a text"),
    "a text without end": ("pad", {"axis": 0, "before": "n=3" * 10_000, "after": "n=4"}, "1000 characters"),
    "a negative axis": ("stack", {"axis": -1, "count": 2}, "axis -1"),
    "an axis beyond all": ("stack", {"axis": HUGE, "count": 2}, "axes count from the front"),
    "an axis twice": ("permute", {"axes": [0, 0]}, "each of 0 to 1 once"),
    "a negative axis to permute": ("permute", {"axes": [-1, 0]}, "each of 0 to 1 once"),
    "too many axes": ("permute", {"axes": list(range(33))}, "at most 32"),
    "a negative size": ("concat", {"axis": 0, "sizes": [3, -1]}, "-1 is no size"),
    "no sizes": ("split", {"axis": 0, "sizes": []}, "0 tensors at a time"),
    "tensors without end": ("copy", {"count": HUGE}, "1 to 65536"),
    "parts without end": ("unstack", {"axis": 0, "count": HUGE}, "1 to 65536"),
    "no copies": ("copy", {"count": 0}, "0 tensors at a time"),
    "blocks in no order": ("reorder_blocks", {"axis": 0, "sizes": [1, 2], "order": [0, 2]}, "each of 0 to 1 once"),
    "no blocks": ("reorder_blocks", {"axis": 0, "sizes": [], "order": []}, "no blocks"),
    "a reshape of other axes": ("reshape", {"before": [6], "after": [2, 3]}, "axes of size 1"),
    "a reshape with many axes": ("reshape", {"before": [], "after": [1] * 33}, "33 axes"),
    "an axis of no factors": ("axis_view", {"axis": 0, "before": "8x8", "order": "C"}, "NAME=SIZE"),
    "an order of other factors": ("axis_view", {"axis": 0, "before": "H=2,W=3", "order": "H,C"}, "each of H, W once"),
    "a factor twice": ("axis_view", {"axis": 0, "before": "H=2,H=3", "order": "H,H"}, "twice"),
    "two blocks to view": ("axis_view", {"axis": 0, "before": "H=2|W=3", "order": "H,W"}, "2 blocks"),
    "factors without end": (
        "axis_view",
        {"axis": 0, "before": ",".join(f"a{i}=1" for i in range(40)), "order": "a0"},
        "40 factors",
    ),
    "a pad that shrinks": ("pad", {"axis": 0, "before": "n=3", "after": "n=2"}, "from 3 to 2, the wrong way"),
    "a pad of two factors": ("pad", {"axis": 0, "before": "T=3,D=6", "after": "T=4,D=7"}, "differ in 2 factors"),
    "a pad of nothing": ("unpad", {"axis": 0, "before": "n=3", "after": "n=3"}, "differ in 0 factors"),
    "a pad that renames": ("pad", {"axis": 0, "before": "n=3", "after": "m=4"}, "same factors"),
    "a shrink that grows": ("shrink", {"axis": 0, "before": "n=2", "after": "n=3"}, "from 3 to 2, the wrong way"),
    "an inflation that shrinks": ("inflate:newest", {"axis": 0, "size": 2, "size_before": 3}, "3 entries cannot"),
    "a deflation that grows": ("deflate:newest", {"axis": 0, "size": 2, "size_before": 3}, "3 entries cannot"),
    "no frames": ("inflate:mean", {"axis": 0, "frames": 0}, "0 frames"),
    "no frames to sum": ("sum_blocks", {"axis": 0, "frames": 0}, "1 or more"),
    "more than there is": ("take:newest", {"axis": 0, "size": 4, "size_before": 3}, "4 of 3"),
    "a slice from behind": ("slice", {"axis": 0, "start": 2, "stop": 1, "size_before": 3}, "2 to 1"),
    "a slice beyond the end": ("slice", {"axis": 0, "start": 0, "stop": 4, "size_before": 3}, "0 to 4"),
    "an unknown type": ("cast", {"before": "float32", "after": "float7"}, "unknown dtype 'float7'"),
    "a type that numpy has not": ("cast", {"before": "complex32", "after": "complex64"}, "no complex32"),
    "a packed type": ("cast", {"before": "qint8", "after": "int8"}, "no qint8"),
    "a cast back of a narrowing": ("cast:back", {"before": "float32", "after": "float16"}, "is none"),
    "no axes to interpolate": (
        "interpolate",
        {"axes": [], "sizes": [], "before": [], "mode": "linear"},
        "at least one",
    ),
    "an axis twice to interpolate": (
        *("interpolate", {"axes": [0, 0], "sizes": [2, 2], "before": [1, 2], "mode": "linear"}),
        "twice",
    ),
    "sizes that are missing": ("interpolate", {"axes": [0], "sizes": [], "before": [1], "mode": "linear"}, "as many"),
    "a grid without points": ("interpolate", {"axes": [0], "sizes": [0], "before": [1], "mode": "linear"}, "1 or more"),
    "an unknown mode": ("interpolate", {"axes": [0], "sizes": [2], "before": [1], "mode": "cubic"}, "linear, nearest"),
    "a value that is no number": ("fill", {"dtype": "float32", "shape": [], "value": "0"}, "must be a number"),
    "an infinite value": ("fill", {"dtype": "float32", "shape": [], "value": float("inf")}, "finite"),
    "a value that float64 has not": ("fill", {"dtype": "int64", "shape": [], "value": 2**53 + 1}, "float64"),
    "a shape with a negative size": ("fill", {"dtype": "float32", "shape": [-1], "value": 0.0}, "-1 is no size"),
}


@pytest.mark.parametrize("lie", HOSTILE)
def test_a_line_that_is_no_op_is_refused_in_words(lie: str) -> None:
    name, params, words = HOSTILE[lie]
    with pytest.raises(ValueError) as refused:
        op_of(OpCall(name, params, "BIJ", ""))
    assert words in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("wrong", [None, True, -1, 0.5, "x" * 2000, [], [None], {}, 10**400, "T=0", "n=3|"])
def test_no_wrong_value_of_any_parameter_gives_another_error_than_in_words(wrong: Any) -> None:
    some = {"int": 1, "str": "n=1", "float": 1.0, "tuple[int, ...]": (1,)}
    for name, op in OPS.items():
        params = {each.name: some[str(each.type)] for each in fields(op)}
        for victim in params:
            with suppress(ValueError):
                op_of(OpCall(name, {**params, victim: wrong}, "BIJ", ""))


@pytest.mark.parametrize(
    "line",
    [
        ("pad", {"axis": 0, "before": "n=3", "after": "n=999999999"}),
        ("pad", {"axis": 0, "before": "n=3,m=1", "after": "n=3,m=999999999"}),
        ("inflate:newest", {"axis": 0, "size": HUGE, "size_before": 3}),
        ("inflate:mean", {"axis": 0, "frames": 1 << 20}),
        ("interpolate", {"axes": [0], "sizes": [HUGE], "before": [3], "mode": "linear"}),
    ],
)
def test_a_huge_size_is_inferred_without_its_memory(line: tuple[str, Any]) -> None:
    op = op_of(OpCall(*line, "INJ", ""))
    (grown,) = op.infer((spec("float32", 3),))
    assert grown.numel > 1 << 20
    inverse = op.inverse()
    if inverse is not None:
        assert inverse.infer((grown,)) == (spec("float32", 3),)


def test_a_huge_fill_is_inferred_without_its_memory() -> None:
    op = op_of(OpCall("fill", {"dtype": "float32", "shape": [HUGE, HUGE], "value": 0}, "INJ", ""))
    assert op.infer(()) == (spec("float32", HUGE, HUGE),)


def test_a_chain_of_copies_ends() -> None:
    op = op_of(OpCall("copy", {"count": 1 << 16}, "INJ", ""))
    many = op.infer((spec("float32"),))
    with pytest.raises(ValueError, match="65536 x 65536"):
        op.infer(many)
    parts = op_of(OpCall("unstack", {"axis": 0, "count": 1 << 16}, "BIJ", ""))
    with pytest.raises(ValueError, match="2 x 65536"):
        parts.infer((spec("float32", 1 << 16, 0),) * 2)


def test_lists_become_tuples_and_whole_numbers_values() -> None:
    assert op_of(OpCall("concat", {"axis": 0, "sizes": [4, 1, 1]}, "BIJ", "")) == Concat(0, (4, 1, 1))
    filled = op_of(OpCall("fill", {"dtype": "int64", "shape": [], "value": 7}, "INJ", ""))
    assert type(filled.params["value"]) is float
    assert str(as_call(Concat(0, (4, 1, 1)))) == "concat(axis=0, sizes=4+1+1)"


def test_the_tables_speak_of_the_same_things() -> None:
    assert set(OP_KINDS) - {"transpose"} <= set(OPS)
    assert set(OP_KINDS) >= JOINS | PARTS
    assert {form.partition(":")[0] for form in ADAPTER_FORMS} == set(ADAPTERS)
    assert set(ADAPTERS) >= ALWAYS


def test_making_and_inferring_ops_imports_neither_numpy_nor_torch() -> None:
    code = """
import sys
from weightkit.core.plan import OpCall
from weightkit.core.tensor import spec
from weightkit.shape_ops import OP_KINDS, op_of
op = op_of(OpCall("pad", {"axis": 0, "before": "T=3,D=6", "after": "T=3,D=7"}, "INJ", ""))
assert op.inverse().infer(op.infer((spec("float32", 18),))) == (spec("float32", 18),)
assert OP_KINDS["concat"]((spec("float32", 2), spec("float32", 3)), None, axis=0).infer(
    (spec("float32", 2), spec("float32", 3))) == (spec("float32", 5),)
assert not {"numpy", "torch", "ml_dtypes"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
