"""Where the bytes of a tensor lie, which tensors share some, and writing to them whatever their layout."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

Run = tuple[np.ndarray, int]
"""Sorted first addresses of equally long, unbroken pieces of memory, and the length of each in bytes."""


def has_bytes(tensor: Tensor) -> bool:
    """Whether the tensor has elements that lie in memory: not on the meta device, not in another tensor's parts."""
    return (
        tensor.layout is torch.strided and not tensor.is_meta and tensor.numel() > 0 and Tensor.data_ptr(tensor) != 0
    )  # a wrapper around other tensors has the address 0


def byte_span(tensor: Tensor) -> tuple[int, int]:
    """First and one-past-last address of a tensor's elements; equal where it has none."""
    if not has_bytes(tensor):
        return (0, 0)
    start = tensor.data_ptr()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (start, start + (reach + 1) * tensor.element_size())


def storage_of(tensor: Tensor) -> int:
    """The address of the memory that the tensor is a view of, 0 where it has none."""
    return tensor.untyped_storage().data_ptr() if has_bytes(tensor) else 0


def share_bytes(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have a byte in common. Columns of one matrix lie between each other and share none."""
    (start, stop), (first, last) = byte_span(one), byte_span(other)
    if one.device != other.device or max(start, first) >= min(stop, last):
        return False
    (starts, length), (firsts, reach) = _runs(one), _runs(other)
    if len(starts) == len(firsts) == 1:
        return True
    nearest = np.searchsorted(firsts, starts - reach, side="right")
    found = nearest < len(firsts)
    return bool((firsts[nearest[found]] < starts[found] + length).any())


def _runs(tensor: Tensor) -> Run:
    """The unbroken pieces of memory that the tensor's elements lie in, adjoining ones joined where strides say so."""
    dimensions = sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    length = 1
    starts = np.zeros(1, np.int64)
    for stride, size in dimensions:
        if len(starts) == 1 and stride == length:
            length *= size
        elif size > 1:
            starts = np.add.outer(np.arange(size) * stride, starts).reshape(-1)
    size_bytes = tensor.element_size()
    return np.unique(tensor.data_ptr() + starts * size_bytes), length * size_bytes


def is_solid(tensor: Tensor) -> bool:
    """Whether the tensor's elements lie in one unbroken piece of memory."""
    return len(_runs(tensor)[0]) == 1


class Spans:
    """Tensors by where their bytes lie."""

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        self._named = tuple(named)
        self._by_device: dict[torch.device, list[tuple[int, int, int]]] = {}
        for index, (_, tensor) in enumerate(self._named):
            start, stop = byte_span(tensor)
            if start != stop:
                self._by_device.setdefault(tensor.device, []).append((start, stop, index))
        self._longest: dict[torch.device, int] = {}
        for device, spans in self._by_device.items():
            spans.sort()
            self._longest[device] = max(stop - start for start, stop, _ in spans)

    def sharing(self, tensor: Tensor) -> tuple[str, ...]:
        """Names of the tensors that share a byte with ``tensor``."""
        spans = self._by_device.get(tensor.device)
        start, stop = byte_span(tensor)
        if spans is None or start == stop:
            return ()
        found = []
        # a span that reaches into [start, stop) starts before stop, and no earlier than start minus the longest one
        place = bisect.bisect_left(spans, (start - self._longest[tensor.device], 0, 0))
        while place < len(spans) and spans[place][0] < stop:
            name, other = self._named[spans[place][2]]
            if spans[place][1] > start and share_bytes(tensor, other):
                found.append(name)
            place += 1
        return tuple(found)


def once(tensor: Tensor) -> Tensor:
    """The tensor with every element once, detached: what ``expand`` repeats lies in memory once and is written once."""
    view = tensor.detach()
    for dimension, (size, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
        if stride == 0 and size > 1:
            view = view.narrow(dimension, 0, 1)
    return view


def poison(tensor: Tensor) -> None:
    """Overwrite with values that no policy holds: NaN; for integers the lowest value (unsigned: the highest).

    Booleans have no such value and stay as they are; so does what has no bytes.
    """
    if not has_bytes(tensor):
        return
    view = once(tensor)
    with torch.no_grad():
        if view.dtype.is_floating_point or view.dtype.is_complex:
            view.copy_(torch.full((), float("nan")).to(view.dtype).expand(view.shape))
        elif view.dtype is not torch.bool:
            limits = torch.iinfo(view.dtype)
            view.fill_(limits.min if limits.min < 0 else limits.max)
