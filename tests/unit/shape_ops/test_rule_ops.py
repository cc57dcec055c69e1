"""What a rule of a mapping file says becomes an op with all its sizes, or is refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from weightkit.core.tensor import TensorSpec, spec
from weightkit.shape_ops import OP_KINDS
from weightkit.shape_ops.cast import Cast
from weightkit.shape_ops.copies import Copy, Same
from weightkit.shape_ops.inflate import InflateMean, InflateNewest
from weightkit.shape_ops.interpolate import Interpolate
from weightkit.shape_ops.join import Concat, Split, Stack, Unstack
from weightkit.shape_ops.pad import Pad
from weightkit.shape_ops.rearrange import AxisView, Permute, ReorderBlocks, Reshape
from weightkit.shape_ops.sum_blocks import SumBlocks
from weightkit.shape_ops.take import Shrink, Slice, TakeNewest

Specs = tuple[TensorSpec, ...]


def f32(*shapes: tuple[int, ...]) -> Specs:
    return tuple(spec("float32", *shape) for shape in shapes)


SAID: list[tuple[str, Specs, Specs | None, dict[str, Any], Any]] = [
    ("permute", f32((2, 3)), None, {"axes": (1, 0)}, Permute((1, 0))),
    ("transpose", f32((3, 3)), None, {}, Permute((1, 0))),
    ("axis_view", f32((24,)), None, {"axis": 0, "before": "H=2,W=3,C=4", "order": "C,H,W"}, None),
    ("reorder_blocks", f32((5,)), None, {"axis": 0, "sizes": (2, 3), "order": (1, 0)}, None),
    ("reshape", f32((2, 3)), None, {"shape": (2, 1, 3)}, Reshape((2, 3), (2, 1, 3))),
    ("reshape", f32((1,)), None, {"shape": ()}, Reshape((1,), ())),
    ("concat", f32((4, 2), (1, 2), (1, 2)), None, {"axis": 0}, Concat(0, (4, 1, 1))),
    ("concat", f32((4, 2), (1, 2), (4, 2), (1, 2)), None, {"axis": 0, "count": 2}, Concat(0, (4, 1))),
    ("concat", f32((4, 2), (1, 2)), None, {"axis": 0, "sizes": (4, 1)}, Concat(0, (4, 1))),
    ("split", f32((6, 2)), None, {"axis": 0, "sizes": (4, 1, 1)}, Split(0, (4, 1, 1))),
    ("split", f32((6, 2)), f32((4, 2), (1, 2), (1, 2)), {"axis": 0}, Split(0, (4, 1, 1))),
    ("split", f32((5,), (5,)), f32((3,), (2,), (3,), (2,)), {"axis": 0}, Split(0, (3, 2))),
    ("stack", f32((2,), (2,)), None, {"axis": 0, "count": 2}, Stack(0, 2)),
    ("unstack", f32((2, 5)), None, {"axis": 1}, Unstack(1, 5)),
    ("unstack", f32((2, 5)), None, {"axis": 1, "count": 5}, Unstack(1, 5)),
    ("copy", f32((2,)), None, {"count": 3}, Copy(3)),
    ("copy", f32((2,)), f32((2,), (2,)), {}, Copy(2)),
    ("same", f32((2,), (2,)), None, {}, Same(2)),
    ("pad", f32((2, 18)), None, {"axis": 1, "size": 21}, Pad(1, "n=18", "n=21")),
    (
        *("pad", f32((18,)), None, {"axis": 0, "size": 7, "factors": "T=3, D=6", "factor": "D"}),
        Pad(0, "T=3,D=6", "T=3,D=7"),
    ),
    ("shrink", f32((21,)), None, {"axis": 0, "size": 18}, Shrink(0, "n=21", "n=18")),
    (
        *("shrink", f32((21,)), None, {"axis": 0, "size": 6, "factors": "T=3,D=7", "factor": "D"}),
        Shrink(0, "T=3,D=7", "T=3,D=6"),
    ),
    ("inflate:newest", f32((2, 3)), None, {"axis": 1, "size": 9}, InflateNewest(1, 9, 3)),
    ("inflate:mean", f32((2, 3)), None, {"axis": 1, "frames": 3}, InflateMean(1, 3)),
    ("take:newest", f32((2, 9)), None, {"axis": 1, "size": 3}, TakeNewest(1, 3, 9)),
    ("slice", f32((2, 9)), None, {"axis": 1, "start": 2, "stop": 5}, Slice(1, 2, 5, 9)),
    ("sum_blocks", f32((2, 9)), None, {"axis": 1, "frames": 3}, SumBlocks(1, 3)),
    ("cast", f32((2,)), None, {"to": "float16"}, Cast("float32", "float16")),
    (
        *("interpolate", f32((1, 4, 6)), None, {"axes": (1, 2), "sizes": (8, 3), "mode": "linear"}),
        Interpolate((1, 2), (8, 3), (4, 6), "linear"),
    ),
]


@pytest.mark.parametrize(("name", "specs", "wanted", "params", "op"), SAID)
def test_a_rule_becomes_an_op_with_all_its_sizes(
    name: str, specs: Specs, wanted: Specs | None, params: dict[str, Any], op: Any
) -> None:
    made = OP_KINDS[name](specs, wanted, **params)
    if name == "axis_view":
        op = AxisView(0, "H=2,W=3,C=4", "C,H,W")
    if name == "reorder_blocks":
        op = ReorderBlocks(0, (2, 3), (1, 0))
    assert made == op
    made.infer(specs)


def test_no_kind_escapes_that_test() -> None:
    assert {name for name, *_ in SAID} == set(OP_KINDS)


@pytest.mark.parametrize("name", OP_KINDS)
def test_an_unknown_parameter_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has no parameter 'axs'; known: "):
        OP_KINDS[name](f32((2, 2)), None, axs=1)


@pytest.mark.parametrize("name", [name for name in OP_KINDS if name not in ("transpose", "copy", "same")])
def test_a_missing_parameter_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} needs '"):
        OP_KINDS[name](f32((2, 2)), None)


@pytest.mark.parametrize(
    ("name", "specs", "wanted", "params", "words"),
    [
        ("transpose", f32((2, 2, 2)), None, {}, "3 axes"),
        ("transpose", (), None, {}, "no tensor"),
        ("concat", f32((4,), (1,), (1,), (4,)), None, {"axis": 0, "count": 2}, "name the sizes"),
        ("concat", f32((4,), (1,), (1,)), None, {"axis": 0, "count": 2}, "2 tensors at a time, it got 3"),
        ("concat", f32((4,)), None, {"axis": 1}, "no axis 1"),
        ("concat", f32((4,)), None, {"axis": 0, "sizes": (1, 2), "count": 3}, "2 sizes for 3"),
        ("split", f32((6,)), None, {"axis": 0}, "nobody says"),
        ("split", f32((6,)), f32((2,), (2,)), {"axis": 0}, r"2\+2 = 4 entries on axis 0, the source has 6"),
        ("split", f32((4,), (4,)), f32((2,), (2,), (2,)), {"axis": 0}, "2 sources cannot give 3 targets"),
        ("split", f32((4,), (4,)), f32((1,), (3,), (3,), (1,)), {"axis": 0}, "name the sizes"),
        ("unstack", f32((5,), (6,)), None, {"axis": 0}, "differ on axis 0: 5, 6"),
        ("unstack", f32((5,)), None, {"axis": 0, "count": 4}, "4 tensors are wanted, the source has 5"),
        ("copy", f32((5,)), None, {}, "name the count"),
        ("pad", f32((18,)), None, {"axis": 0, "size": 7, "factors": "T=3,D=6"}, "go together"),
        ("pad", f32((18,)), None, {"axis": 0, "size": 7, "factors": "T=3,D=6", "factor": "C"}, "known: T, D"),
        ("pad", f32((18,)), None, {"axis": 0, "size": 17}, "from 18 to 17, the wrong way"),
        ("pad", f32((0,)), None, {"axis": 0, "size": 3}, "from 0 to 3"),
        ("pad", f32((5,)), None, {"axis": -1, "size": 7}, "count from the front"),
        ("cast", (*f32((5,)), spec("float16", 5)), None, {"to": "float64"}, "one type"),
        ("interpolate", f32((5,)), None, {"axes": (0,), "sizes": (2, 3), "mode": "linear"}, "as many"),
    ],
)
def test_what_cannot_be_known_is_refused_with_both_numbers(
    name: str, specs: Specs, wanted: Specs | None, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        OP_KINDS[name](specs, wanted, **params)


def test_factors_that_do_not_make_up_the_axis_are_refused() -> None:
    op = OP_KINDS["pad"](f32((20,)), None, axis=0, size=7, factors="T=3,D=6", factor="D")
    with pytest.raises(ValueError, match=r"18 entries on axis 0, float32\[20\] has 20"):
        op.infer(f32((20,)))
