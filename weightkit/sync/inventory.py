"""Every tensor that a policy holds, and the manifest that says what happens to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest, TensorKind, with_offsets
from weightkit.core.tensor import StateSpec
from weightkit.errors import SyncError, UsageError
from weightkit.torch_state import canonical_name, spec_of, storage_identity

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_STRENGTH = {Transfer.HOLD: 0, Transfer.PIN: 1, Transfer.SEND: 2}


@dataclass(frozen=True, slots=True)
class Item:
    """One tensor of a policy under its canonical name; a numpy attribute is a tensor over the array's own memory."""

    name: str
    tensor: Tensor
    kind: TensorKind
    alias_of: str | None = None

    @property
    def frozen(self) -> bool:
        """Whether no optimizer can change it."""
        return not self.tensor.requires_grad


def inventory(policy: nn.Module) -> tuple[Item, ...]:
    """Parameters, all buffers, tensors and numpy arrays in plain attributes (also in lists, tuples and dicts).

    In the order of ``state_dict()``, a module's attributes after its buffers. A second name of one tensor is an alias
    of its first. Raises SyncError for a read-only numpy array: it could not be filled on an actor.
    """
    registered = {id(t) for t in policy.parameters()} | {id(t) for t in policy.buffers()}
    items: dict[str, Item] = {}
    first: dict[tuple[object, ...], str] = {}
    for prefix, module in policy.named_modules(remove_duplicate=False):
        for local, tensor, kind in _own_tensors(module, registered):
            name = canonical_name(f"{prefix}.{local}" if prefix else local)
            identity = storage_identity(tensor)
            leader = first.setdefault(identity, name)
            if name in items:
                if leader not in (name, items[name].alias_of):
                    raise SyncError(f"{name}: two different tensors of the policy have this name")
                continue
            items[name] = Item(name, tensor, kind, None if leader == name else leader)
    return tuple(items.values())


def _own_tensors(module: nn.Module, registered: set[int]) -> Iterator[tuple[str, Tensor, TensorKind]]:
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        yield name, parameter, "parameter"
    fleeting: set[str] = getattr(module, "_non_persistent_buffers_set", set())
    for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        yield name, buffer, "non-persistent buffer" if name in fleeting else "buffer"
    for name, value in vars(module).items():
        if name not in _OF_EVERY_MODULE:
            yield from _attribute(name, value, registered)


def _attribute(name: str, value: object, registered: set[int]) -> Iterator[tuple[str, Tensor, TensorKind]]:
    if isinstance(value, Tensor):
        if id(value) not in registered:
            yield name, value, "attribute"
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biufc":
            if not value.flags.writeable:
                raise SyncError(f"{name}: a read-only numpy array cannot be synchronised", hint="store a copy of it")
            yield name, torch.from_numpy(value), "numpy attribute"
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(key, str):
                yield from _attribute(f"{name}.{key}", item, registered)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _attribute(f"{name}.{index}", item, registered)


def state_of(items: Iterable[Item]) -> StateSpec:
    """The StateSpec of an inventory."""
    items = tuple(items)
    return StateSpec(
        {item.name: spec_of(item.tensor) for item in items},
        {item.name: item.alias_of for item in items if item.alias_of is not None},
    )


def byte_span(tensor: Tensor) -> tuple[int, int]:
    """First and one-past-last address of a tensor's elements; equal where it has none."""
    if tensor.numel() == 0 or tensor.is_meta or tensor.layout is not torch.strided:
        return (0, 0)
    start = tensor.data_ptr()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (start, start + (reach + 1) * tensor.element_size())


def overlapping(items: Iterable[Item]) -> tuple[tuple[Item, ...], ...]:
    """The inventory in clusters of tensors that share bytes; most clusters have one member. Order of the inventory."""
    items = tuple(items)
    order = {item.name: index for index, item in enumerate(items)}
    clusters: list[list[Item]] = []
    spans: list[tuple[str, int]] = []  # device and end of the last cluster
    keyed = sorted((str(i.tensor.device), *byte_span(i.tensor), order[i.name]) for i in items)
    for device, start, stop, index in keyed:
        if clusters and start != stop and spans[-1][0] == device and start < spans[-1][1]:
            clusters[-1].append(items[index])
            spans[-1] = (device, max(stop, spans[-1][1]))
        else:
            clusters.append([items[index]])
            spans.append((device, stop))
    ordered = [tuple(sorted(cluster, key=lambda item: order[item.name])) for cluster in clusters]
    return tuple(sorted(ordered, key=lambda cluster: order[cluster[0].name]))


Choice = str | Transfer | tuple[str | Transfer, str]


def make_manifest(policy: nn.Module, groups: Mapping[str, Choice], *, architecture: str = "") -> SyncManifest:
    """The manifest of ``policy``: each key of ``groups`` names tensors by whole dotted segments, the longest key wins.

    A value is ``"send"``, ``"pin"`` or ``"hold"``, alone or as ``(transfer, why)``. Tensors that share bytes share the
    group that the longest key among their names gives (of equally long keys: send before hold).

    Raises UsageError for a key that matches nothing or an unknown transfer, SyncError naming the tensors that no key
    covers, or that share bytes and are both sent and pinned.
    """
    declared = {key: _group(key, value) for key, value in groups.items()}
    items = inventory(policy)
    keys = {item.name: _longest_key(item.name, declared) for item in items}
    uncovered = [name for name, key in keys.items() if key is None]
    if uncovered:
        raise SyncError(
            f"the manifest says nothing about {len(uncovered)} tensors of the policy: {', '.join(uncovered)}",
            hint='give each a key (a module path or the whole name) and "send", "pin" or ("hold", "why")',
        )
    unused = [key for key in declared if not any(_covers(key, item.name) for item in items)]
    if unused:
        tops = sorted({item.name.split(".")[0] for item in items})
        raise UsageError(
            f"manifest: no tensor of the policy is called or lies below {', '.join(map(repr, unused))}",
            hint=f"the policy's tensors lie below {', '.join(map(repr, tops))}",
        )
    group_of: dict[str, str] = {}
    for cluster in overlapping(items):
        chosen = _one_group([item.name for item in cluster], keys, declared)
        group_of.update({item.name: chosen for item in cluster})
    return SyncManifest(architecture, tuple(declared.values()), _entries(items, group_of, declared))


def _entries(
    items: Iterable[Item], group_of: Mapping[str, str], declared: Mapping[str, Group]
) -> tuple[ManifestEntry, ...]:
    entries = (
        ManifestEntry(
            item.name,
            group_of[item.name],
            item.kind,
            spec_of(item.tensor),
            alias_of=item.alias_of,
            frozen=item.frozen,
        )
        for item in items
    )
    return with_offsets(declared.values(), entries)


def _group(key: str, value: Choice) -> Group:
    transfer, why = value if isinstance(value, tuple) else (value, "")
    try:
        return Group(key, Transfer(transfer), why)
    except ValueError:
        raise UsageError(f"manifest: {key!r}: expected send, pin or hold, found {transfer!r}") from None


def _covers(key: str, name: str) -> bool:
    return name == key or name.startswith(f"{key}.")


def _longest_key(name: str, declared: Mapping[str, Group]) -> str | None:
    return max((key for key in declared if _covers(key, name)), key=len, default=None)


def _one_group(names: list[str], keys: Mapping[str, str | None], declared: Mapping[str, Group]) -> str:
    found = [key for name in names if (key := keys[name]) is not None]
    depth = max(key.count(".") for key in found)
    best = [key for key in found if key.count(".") == depth]
    transfers = {declared[key].transfer for key in best}
    if {Transfer.SEND, Transfer.PIN} <= transfers:
        raise SyncError(
            f"{', '.join(names)} share their bytes, but the manifest both sends and pins them",
            hint=f"give {', '.join(map(repr, sorted(set(best))))} one transfer",
        )
    return max(best, key=lambda key: _STRENGTH[declared[key].transfer])
