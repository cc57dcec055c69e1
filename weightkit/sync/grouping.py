"""The manifest of a policy: which group each of its tensors is in, and what happens to that group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest, Waiver, with_offsets
from weightkit.errors import SyncError, UsageError
from weightkit.sync.inventory import Item, inventory, overlapping
from weightkit.torch_state import spec_of

_NO_REASON = "whoever made the manifest gave no reason"
_STRENGTH = {Transfer.HOLD: 0, Transfer.PIN: 1, Transfer.SEND: 2}

Choice = str | Transfer | tuple[str | Transfer, str]


def make_manifest(
    policy: nn.Module,
    groups: Mapping[str, Choice],
    *,
    architecture: str = "",
    waivers: Mapping[str, str] | None = None,
) -> SyncManifest:
    """The manifest of ``policy``: each key of ``groups`` names tensors by whole dotted segments, the longest key wins.

    Names are canonical; those of ``state_dict()``, with what torch.compile and DataParallel put there, do as well.
    A value is ``"send"``, ``"pin"`` or ``"hold"``, alone or as ``(transfer, why)``. Tensors that share bytes share the
    group that the longest key among their names gives (of equally long keys: send before hold). ``waivers``: key -> why
    an actor may read these tensors although nobody sends them: its own recurrent state, a counter of its steps.

    Raises UsageError for a key that matches nothing, an unknown transfer or a waiver without a reason, SyncError naming
    the tensors that no key covers, that share bytes and are both sent and pinned, or that are waived and yet sent.
    """
    declared = {key: _group(key, value) for key, value in groups.items()}
    items = inventory(policy)
    keys = {item.name: _longest_key(item, declared) for item in items}
    uncovered = [name for name, key in keys.items() if key is None]
    if uncovered:
        raise SyncError(
            f"the manifest says nothing about {len(uncovered)} tensors of the policy: {', '.join(uncovered)}",
            hint='give each a key (a module path or the whole name) and "send", "pin" or ("hold", "why")',
        )
    waived = [Waiver(key, why) for key, why in (waivers or {}).items()]
    for waiver in waived:
        if not waiver.why.strip():
            raise UsageError(f"manifest: the waiver of {waiver.name!r} gives no reason", hint="say why nobody sends it")
    keyed = [*declared, *(waiver.name for waiver in waived)]
    unused = [key for key in keyed if not any(_covers(key, item) for item in items)]
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
    entries = _entries(items, group_of, declared)
    try:
        return SyncManifest(architecture, tuple(declared.values()), entries, tuple(waived))
    except ValueError as error:
        raise SyncError(str(error), hint="a waiver is for what nobody sends: hold it, or drop the waiver") from None


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
        chosen = Transfer(transfer)
    except ValueError:
        raise UsageError(f"manifest: {key!r}: expected send, pin or hold, found {transfer!r}") from None
    return Group(key, chosen, why or ("" if chosen is Transfer.SEND else _NO_REASON))


def _covers(key: str, item: Item) -> bool:
    """By the canonical name, or by the one in ``state_dict()``, which people copy."""
    return any(name == key or name.startswith(f"{key}.") for name in (item.name, item.path))


def _longest_key(item: Item, declared: Mapping[str, Group]) -> str | None:
    return max((key for key in declared if _covers(key, item)), key=len, default=None)


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
