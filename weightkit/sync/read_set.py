"""Which tensors of a policy ``act()`` reads."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from weightkit.errors import SyncError, UsageError
from weightkit.sync.inventory import Item, inventory, overlapping
from weightkit.sync.memory import has_bytes, once, poison
from weightkit.sync.objects import Held, held_in
from weightkit.sync.preserved import Preserved, Randomness, copied_observation, frozen_outputs
from weightkit.sync.watching import Watch
from weightkit.torch_state import spec_of

Act = Callable[[Any, Any], Any]
Probes = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Hidden:
    """A tensor that ``act()`` reads and the policy does not hold: it cannot be synchronised.

    ``where`` is the path to it, "" where none was found; ``trainable``: an optimizer could change it; ``carried``: an
    earlier act made it, so it is a cache or a state of the actor's own.
    """

    where: str
    what: str
    trainable: bool
    carried: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """Names of the tensors that ``act()`` read and wrote, aliases closed over, and the inventory it ran on.

    ``repeats``: with everything put back, the same probes gave the same actions; where not, reads that pass no
    dispatcher cannot be excluded. ``hidden``: what it read besides.
    """

    reads: frozenset[str]
    writes: frozenset[str]
    items: tuple[Item, ...]
    hidden: tuple[Hidden, ...] = ()
    repeats: bool = True

    @property
    def own_state(self) -> tuple[Item, ...]:
        """What ``act()`` writes."""
        return tuple(item for item in self.items if item.name in self.writes)


def read_set(policy: nn.Module, act: Act, probes: Probes) -> frozenset[str]:
    """Canonical names of the tensors that ``act(policy, observation)`` reads on ``probes``, every alias included."""
    return trace(policy, act, probes).reads


def trace(policy: nn.Module, act: Act, probes: Probes) -> Trace:
    """What ``act(policy, observation)`` reads and writes on ``probes``. The policy is left as it was.

    Every operation's arguments are compared with the policy's tensors by address, so it does not matter through which
    name, view or module a tensor is reached, nor whether gradients are on. What never passes the dispatcher (numpy
    arithmetic, other threads) is found by value: all unread tensors are overwritten, and where the actions change, each
    is overwritten alone. What a branch reads that no probe takes stays unseen: that is the tripwire's.

    Raises UsageError where there are no probes, SyncError where ``act()`` computes with tensors without values.
    """
    if not probes:
        raise UsageError("the read set needs at least one probe observation", hint="pass a list of observations")
    items = inventory(policy)
    watch = Watch(items)
    with eager(), _one_thread(), Randomness(i.tensor.device for i in items) as randomness:
        before = Preserved(policy, items)
        try:
            randomness.start()
            first = _watched(watch, policy, act, probes)
            left = {n: now for n, now in before.replaced().items() if isinstance(now, Tensor)}
            again = _watched(watch, policy, act, probes)  # now with what the first round has left behind
            _check_values(watch, items)
            hidden = tuple(_hidden(first, again, policy, act))
            kept_on = {name for name, now in left.items() if _storage(now) in again}
            hidden = tuple(found for found in hidden if found.where.removeprefix("policy.") not in kept_on)
            reads, writes = watch.reads, watch.writes | before.changed() | kept_on
            trial = _Trial(policy, act, probes, before, randomness)
            unread = [cluster for cluster in overlapping(items) if not any(item.name in reads for item in cluster)]
            reads |= trial.read_by_value(unread)
        finally:
            before.restore()
    return Trace(_closed(reads, items), _closed(writes, items), items, hidden, trial.repeats)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if has_bytes(tensor) else 0


def _check_values(watch: Watch, items: Iterable[Item]) -> None:
    if watch.saw_no_values:
        without = [item.name for item in items if item.tensor.numel() and not has_bytes(item.tensor)]
        raise SyncError(
            f"act() computes with tensors that hold no values; the policy's: {', '.join(without) or 'none'}",
            hint="load the weights first",
        )


def _watched(watch: Watch, policy: nn.Module, act: Act, probes: Probes) -> dict[int, Tensor]:
    """Act once on every probe; the tensors, by storage, that were read and belong to nobody."""
    watch.hidden = {}
    for probe in probes:
        observation = copied_observation(probe)
        with watch.acting_on(held.tensor for held in held_in(observation)):
            act(policy, observation)
    return watch.hidden


def _hidden(first: Mapping[int, Tensor], again: Mapping[int, Tensor], policy: nn.Module, act: Act) -> Iterator[Hidden]:
    """Of what was read and belongs to nobody: that which was there in both rounds, or which the first left behind."""
    found: dict[int, Held] = {}
    if again:
        for held in (*held_in(policy, "policy"), *held_in(act, "act()")):
            if has_bytes(held.tensor):
                found.setdefault(held.tensor.untyped_storage().data_ptr(), held)
    for storage, tensor in again.items():
        if storage in first or storage in found:
            holder = found.get(storage, Held("", tensor))
            yield Hidden(
                holder.path,
                str(spec_of(holder.tensor)),
                holder.tensor.requires_grad or tensor.requires_grad,
                carried=storage not in first,
            )


class _Trial:
    """Acts with some tensors overwritten, and whether the actions are the same."""

    def __init__(self, policy: nn.Module, act: Act, probes: Probes, before: Preserved, randomness: Randomness) -> None:
        self._policy, self._act, self._probes, self._before = policy, act, probes, before
        self._randomness = randomness
        self._expected = self._outputs()
        self.repeats = self._outputs() == self._expected

    def read_by_value(self, unread: Sequence[Sequence[Item]]) -> set[str]:
        """Names in the clusters ``unread`` whose values the actions depend on; none where actions do not repeat."""
        if not self.repeats or not unread or self._all_same_without(unread):
            return set()
        return {item.name for cluster in unread if not self._all_same_without([cluster]) for item in cluster}

    def _all_same_without(self, clusters: Sequence[Sequence[Item]]) -> bool:
        """Whether the actions are the same whatever stands there: one kind of value alone can hide in an argmax."""
        spoiled = [item.tensor for cluster in clusters for item in cluster]
        return all(self._same(spoiled, spoil) for spoil in _SPOILS)

    def _same(self, spoiled: Iterable[Tensor], spoil: Callable[[Tensor], None]) -> bool:
        self._before.restore()
        for tensor in spoiled:
            spoil(tensor)
        try:
            return self._outputs(restored=True) == self._expected
        except Exception:  # whatever act() raises on spoiled values, it has read them
            return False

    def _outputs(self, *, restored: bool = False) -> list[object]:
        if not restored:
            self._before.restore()
        self._randomness.start()
        observations = [copied_observation(probe) for probe in self._probes]
        return [frozen_outputs(self._act(self._policy, observation)) for observation in observations]


def _noise(seed: int) -> Callable[[Tensor], None]:
    """Overwrites with other numbers of the same kind; indices stay indices where they were."""

    def overwrite(tensor: Tensor) -> None:
        if not has_bytes(tensor):
            return
        view = once(tensor)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            if view.dtype is torch.bool:
                view.logical_not_()
            elif view.dtype.is_floating_point or view.dtype.is_complex:
                view.copy_((3 * torch.randn(view.shape, generator=generator)).to(view.dtype))
            elif view.numel() > 1 and bool((view != view.reshape(-1)[0]).any()):
                order = torch.randperm(view.numel(), generator=generator)
                view.copy_(view.reshape(-1)[order.to(view.device)].reshape(view.shape))
            else:
                view.bitwise_xor_(1)

    return overwrite


_SPOILS = (poison, *(_noise(seed) for seed in range(4)))


def _closed(names: Iterable[str], items: Iterable[Item]) -> frozenset[str]:
    names, first = set(names), {item.name: item.alias_of or item.name for item in items}
    leaders = {first[name] for name in names}
    return frozenset(name for name, leader in first.items() if leader in leaders)


@contextlib.contextmanager
def eager() -> Iterator[None]:
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
