"""Every tensor that a policy holds, under one name each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from weightkit.core.manifest import TensorKind
from weightkit.core.tensor import StateSpec
from weightkit.errors import SyncError
from weightkit.sync.memory import byte_span, is_solid, share_bytes
from weightkit.torch_state import canonical_name, spec_of, storage_identity

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_NEVER_HOLDS = (str, bytes, bool, int, float, type(None))
DEEPEST = 8
_Named = tuple[str, object]


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor of a policy under its canonical name; a numpy attribute is a tensor over the array's own memory.

    ``path``: its name in ``state_dict()``, with what wrappers put there.
    """

    name: str
    tensor: Tensor
    kind: TensorKind
    alias_of: str | None = None
    path: str = ""

    @property
    def frozen(self) -> bool:
        """Whether no optimizer can change it."""
        return not self.tensor.requires_grad


def inventory(policy: nn.Module) -> tuple[Item, ...]:
    """Parameters, all buffers, tensors and numpy arrays in plain attributes (also in lists, tuples and dicts).

    Modules in plain attributes are looked into too: a list of nets that is no ModuleList is on the acting path all the
    same. In the order of ``state_dict()``, a module's attributes after its buffers. A second name of one tensor is an
    alias of its first. Raises SyncError for what cannot be filled on an actor: a read-only numpy array, a sparse
    tensor, a lazy module's parameter that has no shape yet.
    """
    registered = {id(t) for t in policy.parameters()} | {id(t) for t in policy.buffers()}
    items: dict[str, Item] = {}
    first: dict[tuple[object, ...], str] = {}
    for prefix, module in modules(policy):
        for local, tensor, kind in _own_tensors(module, registered):
            path = f"{prefix}.{local}" if prefix else local
            name = canonical_name(path)
            _check(name, tensor)
            identity = storage_identity(tensor)
            leader = first.setdefault(identity, name)
            if name in items:
                if identity != storage_identity(items[name].tensor):
                    raise SyncError(
                        f"{items[name].path} and {path}: two tensors have the name {name!r} once wrappers are left out",
                        hint="rename one of them: the other side could not tell them apart",
                    )
                continue
            items[name] = Item(name, tensor, kind, None if leader == name else leader, path)
    return tuple(items.values())


class Inventory:
    """A policy's `inventory`, made again only where something else is bound, or lies elsewhere, than when it was made.

    Looking costs a twentieth of making it: a learner looks at every push, an actor at every swap.
    """

    def __init__(self, policy: nn.Module) -> None:
        self._policy = policy
        self._items: tuple[Item, ...] | None = None
        self._bound: list[object] = []

    def items(self) -> tuple[Item, ...]:
        """The inventory as it is now."""
        bound = list(self._looked_at())
        if self._items is None or bound != self._bound:
            self._items, self._bound = inventory(self._policy), bound
        return self._items

    def by_name(self) -> dict[str, Tensor]:
        """The tensors as they are now."""
        return {item.name: item.tensor for item in self.items()}

    def _looked_at(self) -> Iterator[object]:
        """What an inventory depends on, as numbers: which object is bound where, and where each tensor lies."""
        waiting, seen = [self._policy], set()
        while waiting:
            module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield id(module)
            if isinstance(module, torch.jit.ScriptModule):
                yield object()  # what it holds can only be found by an inventory
                continue
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    yield from (id(tensor), _address(tensor))
            waiting += [inner for inner in module._modules.values() if inner is not None]
            own = vars(module)
            for name in sorted(own.keys() - _OF_EVERY_MODULE):
                if isinstance(own[name], _NEVER_HOLDS):
                    continue
                for _, held in _opened(name, own[name], 0):
                    yield id(held)
                    if isinstance(held, Tensor):
                        yield _address(held)
                    elif isinstance(held, nn.Module):
                        waiting.append(held)


def _address(tensor: Tensor) -> int:
    """Where its elements lie, 0 where they lie nowhere."""
    try:
        return Tensor.data_ptr(tensor)
    except (RuntimeError, ValueError):  # lazy, sparse
        return 0


def modules(policy: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module with its path, as ``named_modules`` finds them, and those that stand in plain attributes alone."""
    registered = {id(module) for module in policy.modules()}

    def below(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        for inner, found in module.named_modules(remove_duplicate=False):
            if path and id(found) in registered:
                continue  # it has a name of its own
            where = ".".join(filter(None, (path, inner)))
            yield where, found
            for name, value in _plain(found):
                if isinstance(value, nn.Module) and id(value) not in registered | entered:
                    entered.add(id(value))  # once, however many modules refer to it
                    yield from below(f"{where}.{name}" if where else name, value)

    entered: set[int] = set()
    return below("", policy)


def _check(name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise SyncError(f"{name}: it has no shape yet", hint="act once on an observation: lazy modules take shape then")
    if tensor.layout is not torch.strided:
        raise SyncError(f"{name}: a tensor of layout {tensor.layout} cannot be synchronised", hint="make it dense")


def _own_tensors(module: nn.Module, registered: set[int]) -> Iterator[tuple[str, Tensor, TensorKind]]:
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        yield name, parameter, "parameter"
    fleeting: set[str] = getattr(module, "_non_persistent_buffers_set", set())
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        yield name, buffer, "non-persistent buffer" if name in fleeting else "buffer"
    for name, value in _plain(module):
        if isinstance(value, Tensor):
            if id(value) not in registered:
                yield name, value, "attribute"
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            yield name, _tensor_over(name, value), "numpy attribute"


def _plain(module: nn.Module) -> Iterator[_Named]:
    """What a module's plain attributes hold, lists, tuples and dicts opened."""
    for name, value in attributes(module).items():
        yield from _opened(name, value, 0)


def attributes(module: nn.Module) -> Mapping[str, object]:
    """A module's own attributes, without its parameters, buffers and modules and what every module has."""
    if not isinstance(module, torch.jit.ScriptModule):
        return {name: value for name, value in vars(module).items() if name not in _OF_EVERY_MODULE}
    kinds = getattr(module, "_concrete_type", None)  # a compiled module keeps its attributes where Python has none
    known = _OF_EVERY_MODULE.union(name for name, _ in module.named_buffers(recurse=False))
    names = [] if kinds is None else [name for name in kinds.get_attributes() if name not in known]
    return {name: getattr(module, name, None) for name in names}


def _opened(name: str, value: object, depth: int) -> Iterator[_Named]:
    yield name, value
    if depth > DEEPEST:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(key, (str, int)):
                yield from _opened(f"{name}.{key}", inner, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _opened(f"{name}.{index}", inner, depth + 1)


def _tensor_over(name: str, array: np.ndarray) -> Tensor:
    if not array.flags.writeable:
        raise SyncError(f"{name}: a read-only numpy array cannot be synchronised", hint="store a copy of it")
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError) as error:
        raise SyncError(f"{name}: a numpy array that torch does not take: {error}", hint="store a copy of it") from None


def state_of(items: Iterable[Item]) -> StateSpec:
    """The StateSpec of an inventory."""
    items = tuple(items)
    return StateSpec(
        {item.name: spec_of(item.tensor) for item in items},
        {item.name: item.alias_of for item in items if item.alias_of is not None},
    )


def overlapping(items: Iterable[Item]) -> tuple[tuple[Item, ...], ...]:
    """The inventory in clusters of tensors that share bytes; most clusters have one member. Order of the inventory."""
    items = tuple(items)
    order = {item.name: index for index, item in enumerate(items)}
    near: list[list[Item]] = []
    spans: list[tuple[str, int]] = []  # device and end of the last cluster
    keyed = sorted((str(i.tensor.device), *byte_span(i.tensor), order[i.name]) for i in items)
    for device, start, stop, index in keyed:
        if near and start != stop and spans[-1][0] == device and start < spans[-1][1]:
            near[-1].append(items[index])
            spans[-1] = (device, max(stop, spans[-1][1]))
        else:
            near.append([items[index]])
            spans.append((device, stop))
    clusters = [cluster for group in near for cluster in _apart(group)]
    ordered = [tuple(sorted(cluster, key=lambda item: order[item.name])) for cluster in clusters]
    return tuple(sorted(ordered, key=lambda cluster: order[cluster[0].name]))


def _apart(near: list[Item]) -> list[list[Item]]:
    """Tensors whose spans overlap, in clusters of those that do share bytes."""
    if len(near) == 1 or all(is_solid(item.tensor) for item in near):
        return [near]
    clusters: list[list[Item]] = []
    for item in near:
        joined, others = [item], []
        for cluster in clusters:
            if any(share_bytes(item.tensor, other.tensor) for other in cluster):
                joined += cluster
            else:
                others.append(cluster)
        clusters = [*others, joined]
    return clusters
