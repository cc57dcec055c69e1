"""Which tensors share a byte, against numpy's exact answer; writing to what is repeated, and poisoning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.arena import copy_tensor
from weightkit.sync.memory import Spans, byte_span, has_bytes, poison, share_bytes

LAW = settings(deadline=None, max_examples=300, database=None)
ROOM = 48
DTYPES = (torch.uint8, torch.int16, torch.float32)


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """Strided views of one small piece of memory: transposed, with steps, repeated, empty, of several widths."""
    dtype = draw(st.sampled_from(DTYPES))
    width = torch.empty((), dtype=dtype).element_size()
    room = BYTES.view(dtype)
    sizes = draw(st.lists(st.integers(0, 4), max_size=3))
    strides = [draw(st.integers(0, 5)) for _ in sizes]
    reach = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1 if all(sizes) else 0
    if reach * width > ROOM:
        return torch.empty(0)
    return room.as_strided(sizes, strides, draw(st.integers(0, max(0, ROOM // width - reach))))


BYTES = torch.arange(ROOM, dtype=torch.uint8)


@LAW
@given(views(), views())
def test_two_views_share_a_byte_where_numpy_says_so(one: torch.Tensor, other: torch.Tensor) -> None:
    assert share_bytes(one, other) == share_bytes(other, one) == bool(np.shares_memory(one.numpy(), other.numpy()))


@LAW
@given(st.lists(views(), max_size=6), views())
def test_a_look_up_by_span_finds_exactly_those_that_share(named: list[torch.Tensor], tensor: torch.Tensor) -> None:
    spans = Spans((str(index), each) for index, each in enumerate(named))
    assert set(spans.sharing(tensor)) == {str(i) for i, each in enumerate(named) if share_bytes(each, tensor)}


def test_what_has_no_bytes_has_no_span() -> None:
    for tensor in (torch.empty(0), torch.empty(2, device="meta"), torch.eye(2).to_sparse()):
        assert not has_bytes(tensor)
        assert byte_span(tensor) == (0, 0)
        poison(tensor)


@pytest.mark.parametrize(
    ("dtype", "holds"),
    [
        (torch.float32, torch.isnan),
        (torch.bfloat16, torch.isnan),
        (torch.complex64, torch.isnan),
        (torch.int8, lambda t: t == -128),
        (torch.uint8, lambda t: t == 255),
        (torch.bool, lambda t: t),
    ],
)
def test_poison_is_what_no_policy_holds_also_where_one_element_is_repeated(dtype: torch.dtype, holds: object) -> None:
    tensor = torch.ones(1, 3).to(dtype).expand(4, 3)
    poison(tensor)
    assert bool(holds(tensor).all())  # type: ignore[operator]


def test_a_copy_over_a_repeated_tensor_writes_each_element_once() -> None:
    target = torch.zeros(1, 3).expand(4, 3)
    copy_tensor(torch.arange(3.0).expand(4, 3).contiguous(), target)
    assert torch.equal(target, torch.arange(3.0).expand(4, 3))
