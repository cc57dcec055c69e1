"""What a refusal suggests: adapters that fit and are meant, as the user would type them."""

from __future__ import annotations

import re

import pytest

from weightkit.core.axes import FactoredAxis, parse_axis, stacked_axis
from weightkit.core.report import Finding
from weightkit.core.rule import Choices
from weightkit.core.tensor import TensorSpec, spec
from weightkit.engine.reconciling import Reconciler
from weightkit.shape_ops import ADAPTERS

FRAMES = (stacked_axis(1, frames=3, per_frame=3),)
STATE = (stacked_axis(1, frames=3, per_frame=7, inner="D"),)
BLOCKS = (parse_axis(1, "visual=50|action=7"),)


@pytest.mark.parametrize(
    ("source", "wanted", "axes", "forms"),
    [
        (
            spec("float32", 16, 3, 3, 3),
            spec("float32", 16, 9, 3, 3),
            FRAMES,
            ["inflate:newest", "inflate:mean", "pad:block"],
        ),
        (
            spec("float16", 16, 3, 3, 3),
            spec("float32", 16, 9, 3, 3),
            FRAMES,
            ["cast:float32", "inflate:newest", "inflate:mean", "pad:block"],
        ),
        (spec("float32", 8, 18), spec("float32", 8, 21), STATE, ["pad:block", "pad:D"]),
        (spec("float32", 8, 56), spec("float32", 8, 57), BLOCKS, ["pad:end", "pad:visual", "pad:action"]),
        (spec("float32", 3, 4), spec("float32", 4, 3), (), ["transpose"]),
        (spec("float32", 2), spec("float16", 2), (), ["cast:float16"]),
        (spec("float32", 2, 3), spec("float32", 3), (), []),
    ],
)
def test_a_refusal_lists_the_adapters_that_fit(
    source: TensorSpec, wanted: TensorSpec, axes: tuple[FactoredAxis, ...], forms: list[str]
) -> None:
    findings: list[Finding] = []
    assert Reconciler(Choices(), findings).ops(source, "w", wanted, axes) == ((), ())
    (finding,) = findings
    assert re.findall(r"PATTERN=([^']+)'", finding.hint) == forms


@pytest.mark.parametrize(("adapter", "size", "instead"), [("pad", 6, "inflate:newest"), ("slice", 12, "take:newest")])
def test_frames_are_not_added_or_cut_off_behind_the_newest(adapter: str, size: int, instead: str) -> None:
    with pytest.raises(ValueError, match=instead):
        ADAPTERS[adapter](spec("float32", 8, size), spec("float32", 8, 9), FRAMES, "T")
