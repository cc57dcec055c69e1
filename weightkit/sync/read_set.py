"""Which tensors of a policy ``act()`` reads: watched below autograd, where every access shows its bytes."""

from __future__ import annotations

import bisect
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weightkit.errors import UsageError
from weightkit.sync.inventory import Item, byte_span, inventory, overlapping

Act = Callable[[Any, Any], Any]
Probes = Sequence[Any]

# These look at shape, dtype and device alone.
_METADATA_ONLY = frozenset(
    f"aten::{name}"
    for name in (
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"),
        *("new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full"),
    )
)
# These overwrite their first argument without looking at it.
_WRITE_ONLY = frozenset({"aten::copy_", "aten::fill_", "aten::zero_", "aten::normal_", "aten::uniform_"})


@dataclass(frozen=True, slots=True)
class Trace:
    """Names of the tensors that ``act()`` read and wrote, aliases closed over, and the inventory it ran on."""

    reads: frozenset[str]
    writes: frozenset[str]
    items: tuple[Item, ...]


def read_set(policy: nn.Module, act: Act, probes: Probes) -> frozenset[str]:
    """Canonical names of the tensors that ``act(policy, observation)`` reads on ``probes``, every alias included."""
    return trace(policy, act, probes).reads


def trace(policy: nn.Module, act: Act, probes: Probes) -> Trace:
    """What ``act(policy, observation)`` reads and writes on ``probes``. The policy is left as it was.

    Every operation's arguments are compared with the policy's tensors by address, so it does not matter through which
    name, view or module a tensor is reached, nor whether gradients are on. What never passes the dispatcher (numpy
    arithmetic, ``tensor.numpy()``) is found by value: all unread tensors are overwritten, and where the actions
    change, each is overwritten alone. What a branch reads that no probe takes stays unseen.

    Raises UsageError where there are no probes.
    """
    if not probes:
        raise UsageError("the read set needs at least one probe observation", hint="pass a list of observations")
    items = inventory(policy)
    clusters = overlapping(items)
    backup = {item.name: item.tensor.detach().clone() for item in items}
    watch = _Watch(items)
    with _eager(), _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            with watch:
                first = _outputs(policy, act, probes)
            reads, writes = watch.reads, watch.writes | _changed(items, backup)
            _restore(items, backup)
            reads |= _reads_by_value(policy, act, probes, clusters, reads, backup, first)
        finally:
            _restore(items, backup)
    return Trace(_closed(reads, items), _closed(writes, items), items)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Collects the names of the policy's tensors whose bytes an operation is handed."""

    def __init__(self, items: Iterable[Item]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self._spans: dict[torch.device, list[tuple[int, int, str]]] = {}
        for item in items:
            start, stop = byte_span(item.tensor)
            if start != stop:
                self._spans.setdefault(item.tensor.device, []).append((start, stop, item.name))
        self._longest: dict[torch.device, int] = {}
        for device, spans in self._spans.items():
            spans.sort()
            self._longest[device] = max(stop - start for start, stop, _ in spans)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        if schema.name not in _METADATA_ONLY:
            for index, argument in enumerate(schema.arguments):
                value = args[index] if index < len(args) else kwargs.get(argument.name)
                names = {name for tensor in _tensors(value) for name in self._names(tensor)}
                written = argument.alias_info is not None and argument.alias_info.is_write
                if written:
                    self.writes |= names
                if not (written and (argument.is_out or (index == 0 and schema.name in _WRITE_ONLY))):
                    self.reads |= names
        return func(*args, **kwargs)

    def _names(self, tensor: Tensor) -> Iterator[str]:
        spans = self._spans.get(tensor.device)
        start, stop = byte_span(tensor)
        if spans is None or start == stop:
            return
        # a span that reaches into [start, stop) starts before stop, and no earlier than start minus the longest one
        index = bisect.bisect_left(spans, (start - self._longest[tensor.device], 0, ""))
        while index < len(spans) and spans[index][0] < stop:
            if spans[index][1] > start:
                yield spans[index][2]
            index += 1


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _outputs(policy: nn.Module, act: Act, probes: Probes) -> list[object]:
    return [_frozen(leaf) for probe in probes for leaf in tree_leaves(act(policy, probe))]


def _frozen(leaf: object) -> object:
    if isinstance(leaf, Tensor):
        return _bytes(leaf).tobytes()
    return leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf)


def _bytes(tensor: Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: np.ndarray = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return array


def _changed(items: Iterable[Item], backup: Mapping[str, Tensor]) -> set[str]:
    return {i.name for i in items if not np.array_equal(_bytes(i.tensor), _bytes(backup[i.name]))}


def _restore(items: Iterable[Item], backup: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for item in items:
            item.tensor.detach().copy_(backup[item.name])


def _reads_by_value(
    policy: nn.Module,
    act: Act,
    probes: Probes,
    clusters: Sequence[Sequence[Item]],
    seen: set[str],
    backup: Mapping[str, Tensor],
    expected: list[object],
) -> set[str]:
    """Names among the tensors not ``seen`` whose values the actions depend on."""
    unread = [cluster for cluster in clusters if not any(item.name in seen for item in cluster)]
    everything = [item for cluster in clusters for item in cluster]

    def same_without(spoiled: Sequence[Sequence[Item]]) -> bool:
        for cluster in spoiled:
            for item in cluster:
                poison(item.tensor)
        torch.manual_seed(0)
        try:
            return _outputs(policy, act, probes) == expected
        except Exception:  # whatever act() raises on spoiled values, it has read them
            return False
        finally:
            _restore(everything, backup)

    if not unread or same_without(unread) or not same_without(()):  # the last: actions that do not repeat prove nothing
        return set()
    return {item.name for cluster in unread if not same_without([cluster]) for item in cluster}


def poison(tensor: Tensor) -> None:
    """Overwrite with values that no policy holds: NaN; for integers the lowest value (unsigned: the highest).

    Booleans have no such value and stay as they are.
    """
    tensor = tensor.detach()
    with torch.no_grad():
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
            tensor.copy_(torch.full((), float("nan")).to(tensor.dtype).expand(tensor.shape))
        elif tensor.dtype is not torch.bool:
            limits = torch.iinfo(tensor.dtype)
            tensor.fill_(limits.min if limits.min < 0 else limits.max)


def _closed(names: Iterable[str], items: Iterable[Item]) -> frozenset[str]:
    names, first = set(names), {item.name: item.alias_of or item.name for item in items}
    leaders = {first[name] for name in names}
    return frozenset(name for name, leader in first.items() if leader in leaders)


@contextlib.contextmanager
def _eager() -> Iterator[None]:
    """Compiled code runs as it is written; nothing can be compiled where dynamo was never imported."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Small batches on one core: where the others are busy, torch's thread pool made a trace 35 times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
