"""Which tensors of a policy ``act()`` reads."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightkit.errors import SyncError, UsageError
from weightkit.sync.inventory import Item, inventory, overlapping
from weightkit.sync.memory import Spans, has_bytes, once, poison, storage_of
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
    dispatcher cannot be excluded. ``hidden``: what it read besides. ``stale``: it gave an action that it had not made,
    out of a queue. ``packed``: it read weights that are no tensors, as quantised modules hold them.
    """

    reads: frozenset[str]
    writes: frozenset[str]
    items: tuple[Item, ...]
    hidden: tuple[Hidden, ...] = ()
    repeats: bool = True
    stale: bool = False
    packed: bool = False

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
    probes = checked(policy, act, probes)
    compiler = "torch._dynamo" in sys.modules
    try:
        return _traced(policy, act, probes)
    except Exception:
        if compiler or "torch._dynamo" not in sys.modules:
            raise
    return _traced(policy, act, probes)  # acting has loaded torch's compiler (torch.cond does): now it is known


def _traced(policy: nn.Module, act: Act, probes: Sequence[Any]) -> Trace:
    items = inventory(policy)
    watch = Watch(items)
    with eager(), _one_thread(), Randomness(i.tensor.device for i in items) as randomness:
        before = Preserved(policy, items, act)
        try:
            randomness.start()
            watch.around = {storage_of(held.tensor) for held in _queued(policy, act, items)} - {0}
            first = _watched(watch, policy, act, probes, before.restore_objects)
            left = {n: now for n, now in before.replaced().items() if isinstance(now, Tensor)}
            stale = watch.gave_old
            again = _watched(watch, policy, act, probes, lambda: None)  # with what the first round has left behind
            _check_values(watch, items)
            kept_on = {name for name, now in left.items() if storage_of(now) in again}
            hidden = [h for h in _hidden(first, again, policy, act) if h.where.removeprefix("policy.") not in kept_on]
            reads, writes = watch.reads, watch.writes | before.changed() | kept_on
            trial = _Trial(policy, act, probes, before, randomness)
            unread = [cluster for cluster in overlapping(items) if not any(item.name in reads for item in cluster)]
            found = trial.matter([[item.tensor for item in cluster] for cluster in unread])
            reads |= {item.name for number in found for item in unread[number]}
            outside = _outside(policy, act, probes, items, before)
            hidden += [_as_hidden(outside[n]) for n in trial.matter([[held.tensor] for held in outside])]
        finally:
            before.restore()
    reads_closed, writes_closed = _closed(reads, items), _closed(writes, items)
    return Trace(reads_closed, writes_closed, items, tuple(hidden), trial.repeats, stale, watch.saw_packed)


def _queued(policy: nn.Module, act: Act, items: Iterable[Item]) -> Iterator[Held]:
    """Tensors that plain objects hold: those of the policy are known by name."""
    known = Spans((item.name, item.tensor) for item in items)
    for held in (*held_in(policy), *held_in(act)):
        if not known.sharing(held.tensor):
            yield held


def checked(policy: object, act: object, probes: object) -> list[Any]:
    """The probes as a list. Raises UsageError for what cannot be traced."""
    if not isinstance(policy, nn.Module):
        raise UsageError(f"a policy is an nn.Module, found {type(policy).__name__}")
    if not callable(act):
        raise UsageError(f"act is a function of the policy and an observation, found {type(act).__name__}")
    if isinstance(probes, (Tensor, np.ndarray, str, bytes, Mapping)) or not isinstance(probes, Iterable):
        raise UsageError(
            f"probes are a list of observations, found {type(probes).__name__}", hint="probes=[observation]"
        )
    found = list(probes)
    if not found:
        raise UsageError("the read set needs at least one probe observation", hint="pass a list of observations")
    return found


def _outside(
    policy: nn.Module, act: Act, probes: Sequence[Any], items: Iterable[Item], before: Preserved
) -> list[Held]:
    """Arrays that plain objects of the policy or ``act`` hold: not the policy's tensors, nor the observations."""
    known = Spans((*((i.name, i.tensor) for i in items), *(("", held.tensor) for held in held_in(list(probes)))))
    kept = {array.ctypes.data for array in before.contents.arrays}
    found = [held for root, path in ((policy, "policy"), (act, "act()")) for held in held_in(root, path)]
    chosen = {h.tensor.data_ptr(): h for h in found if h.tensor.device.type == "cpu" and h.tensor.data_ptr() in kept}
    return [held for held in chosen.values() if not known.sharing(held.tensor)]


def _as_hidden(held: Held) -> Hidden:
    return Hidden(held.path, str(spec_of(held.tensor)), trainable=False, carried=False)


def _check_values(watch: Watch, items: Iterable[Item]) -> None:
    if watch.saw_no_values:
        without = [item.name for item in items if item.tensor.numel() and not has_bytes(item.tensor)]
        raise SyncError(
            f"act() computes with tensors that hold no values; the policy's: {', '.join(without) or 'none'}",
            hint="load the weights first",
        )


def _watched(
    watch: Watch, policy: nn.Module, act: Act, probes: Probes, between: Callable[[], None]
) -> dict[int, Tensor]:
    """Act once on every probe; the tensors, by storage, that were read and belong to nobody."""
    watch.hidden = {}
    for probe in probes:
        between()
        observation = copied_observation(probe)
        with watch.acting_on(held.tensor for held in held_in(observation)):
            action = act(policy, observation)
        watch.handed_out(action)
    return watch.hidden


def _hidden(first: Mapping[int, Tensor], again: Mapping[int, Tensor], policy: nn.Module, act: Act) -> Iterator[Hidden]:
    """Of what was read and belongs to nobody: that which was there in both rounds, or which the first left behind."""
    found: dict[int, Held] = {}
    if again:
        for held in (*held_in(policy, "policy"), *held_in(act, "act()")):
            if storage := storage_of(held.tensor):
                found.setdefault(storage, held)
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

    def matter(self, groups: Sequence[Sequence[Tensor]]) -> list[int]:
        """Indices of the groups of tensors whose values the actions depend on; none where actions do not repeat."""
        return self._find(groups, list(range(len(groups)))) if self.repeats else []

    def _find(self, groups: Sequence[Sequence[Tensor]], among: list[int]) -> list[int]:
        """Halves are looked into while they matter: few of many are found with few acts."""
        if not among or self._all_same_without(groups, among):
            return []
        if len(among) == 1:
            return among
        half = len(among) // 2
        found = self._find(groups, among[:half]) + self._find(groups, among[half:])
        return found or self._together(groups, among)

    def _together(self, groups: Sequence[Sequence[Tensor]], among: list[int]) -> list[int]:
        """Of what matters only together, each that makes a difference beside the others: what a vote is taken of."""
        needed = list(among)
        for index in among:
            fewer = [other for other in needed if other != index]
            if fewer and not self._all_same_without(groups, fewer):
                needed = fewer
        rest = [index for index in among if index not in needed]
        return needed + [index for index in rest if not self._all_same_without(groups, [index, needed[0]])]

    def _all_same_without(self, groups: Sequence[Sequence[Tensor]], chosen: Iterable[int]) -> bool:
        """Whether the actions are the same whatever stands there: one kind of value alone can hide in an argmax."""
        spoiled = [tensor for index in chosen for tensor in groups[index]]
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
        found: list[object] = []
        for probe in self._probes:
            self._before.restore_objects()
            found.append(frozen_outputs(self._act(self._policy, copied_observation(probe))))
        return found


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
