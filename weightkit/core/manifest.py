"""What a learner offers: every tensor of its policy, in exactly one group."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from weightkit.core.dtype import DTYPES
from weightkit.core.group import Group, Transfer
from weightkit.core.jsonio import canonical_json
from weightkit.core.tensor import StateSpec, TensorSpec

ALIGNMENT = 64
"""Tensors start at multiples of this many bytes in the payload of a push."""
MANIFEST_SCHEMA = "weightkit.manifest.v1"
TensorKind = Literal["parameter", "buffer", "non-persistent buffer", "attribute", "numpy attribute"]
TENSOR_KINDS: tuple[TensorKind, ...] = (
    "parameter",
    "buffer",
    "non-persistent buffer",
    "attribute",
    "numpy attribute",
)


def aligned(nbytes: int) -> int:
    """``nbytes`` rounded up to where the next tensor of a push may start."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One tensor of a policy.

    ``offset`` is where its bytes start in the payload of a push, None where they do not travel (PIN, HOLD, alias).
    ``alias_of`` names the tensor whose storage it shares. ``frozen``: no optimizer may change it.
    """

    name: str
    group: str
    kind: TensorKind
    spec: TensorSpec
    offset: int | None = None
    alias_of: str | None = None
    frozen: bool = False

    def to_dict(self) -> dict[str, object]:
        """The entry as it stands in the manifest's JSON."""
        return {
            "name": self.name,
            "group": self.group,
            "kind": self.kind,
            "dtype": self.spec.dtype.name,
            "shape": list(self.spec.shape),
            "nbytes": self.spec.nbytes,
            "offset": self.offset,
            "alias_of": self.alias_of,
            "frozen": self.frozen,
        }


@dataclass(frozen=True, slots=True)
class Waiver:
    """Why an actor may read ``name``, or what lies below it, although nobody sends it."""

    name: str
    why: str

    def covers(self, name: str) -> bool:
        """Whether ``name`` is, or lies below, what is waived."""
        return name == self.name or name.startswith(f"{self.name}.")


@dataclass(frozen=True)
class SyncManifest:
    """Groups over the tensors of one policy: what travels, what is pinned, what stays. Every tensor in exactly one.

    ``waivers``: of what stays, that which ``act()`` may read all the same.
    """

    architecture: str
    groups: tuple[Group, ...]
    entries: tuple[ManifestEntry, ...]
    waivers: tuple[Waiver, ...] = ()

    def __post_init__(self) -> None:
        groups = [group.name for group in self.groups]
        names = [entry.name for entry in self.entries]
        for what, items in (("group", groups), ("tensor", names)):
            twice = sorted({item for item in items if items.count(item) > 1}) if len(set(items)) < len(items) else []
            if twice:
                raise ValueError(f"manifest: {what} {twice[0]!r} is listed twice")
        by_name = {entry.name: entry for entry in self.entries}
        end, room = 0, sum(aligned(entry.spec.nbytes) for entry in self.entries)
        for entry in self.entries:
            if entry.group not in groups:
                raise ValueError(f"manifest: {entry.name!r} is in group {entry.group!r}, which is not declared")
            if entry.alias_of is not None:
                first = by_name.get(entry.alias_of)
                if first is None or first.alias_of is not None:
                    raise ValueError(
                        f"manifest: {entry.name!r} is an alias of {entry.alias_of!r}, which is no first name"
                    )
                if self.transfer_of(entry.group) is not self.transfer_of(first.group):
                    raise ValueError(
                        f"manifest: {entry.name!r} and {entry.alias_of!r} are one tensor, but their groups "
                        f"{entry.group!r} and {first.group!r} transfer differently"
                    )

            travels = self.transfer_of(entry.group) is Transfer.SEND and entry.alias_of is None
            if travels != (entry.offset is not None):
                does = "travels" if travels else "does not travel"
                raise ValueError(f"manifest: {entry.name!r} {does}, but its offset is {entry.offset}")
            if entry.offset is not None:
                if entry.offset % ALIGNMENT or not end <= entry.offset <= room:
                    raise ValueError(
                        f"manifest: {entry.name!r} must stand at a multiple of {ALIGNMENT} from {end} to {room}, "
                        f"found {entry.offset}"
                    )
                end = entry.offset + aligned(entry.spec.nbytes)
            if self.waiver_of(entry.name) is not None and self.transfer_of(entry.group) is not Transfer.HOLD:
                raise ValueError(f"manifest: {entry.name!r} is waived, but its group {entry.group!r} is not held")

    def waiver_of(self, name: str) -> Waiver | None:
        """The waiver that covers ``name``."""
        return next((waiver for waiver in self.waivers if waiver.covers(name)), None)

    def transfer_of(self, group: str) -> Transfer:
        """The transfer of the group called ``group``."""
        return next(g.transfer for g in self.groups if g.name == group)

    @cached_property
    def by_name(self) -> Mapping[str, ManifestEntry]:
        """The entries by tensor name."""
        return {entry.name: entry for entry in self.entries}

    @cached_property
    def state(self) -> StateSpec:
        """The policy's StateSpec."""
        return StateSpec(
            {entry.name: entry.spec for entry in self.entries},
            {entry.name: entry.alias_of for entry in self.entries if entry.alias_of is not None},
        )

    def names(self, *transfers: Transfer) -> tuple[str, ...]:
        """First names of the tensors whose group has one of ``transfers``, in manifest order."""
        chosen = {group.name for group in self.groups if group.transfer in transfers}
        return tuple(e.name for e in self.entries if e.group in chosen and e.alias_of is None)

    def spans(self, names: Collection[str]) -> tuple[tuple[int, int], ...]:
        """Where the bytes of ``names`` lie in the payload of a push, as (first, past the last), in growing order.

        Tensors that follow each other make one span, with the zeros between them.
        """
        found: list[tuple[int, int]] = []
        follows = False
        for name in self.names(Transfer.SEND):
            entry = self.by_name[name]
            assert entry.offset is not None
            wanted = name in names
            if wanted:
                start = found.pop()[0] if follows else entry.offset
                found.append((start, entry.offset + entry.spec.nbytes))
            follows = wanted
        return tuple(span for span in found if span[0] < span[1])

    @cached_property
    def payload_bytes(self) -> int:
        """Size of one push in bytes."""
        return max(
            (entry.offset + entry.spec.nbytes for entry in self.entries if entry.offset is not None),
            default=0,
        )

    def to_dict(self) -> dict[str, object]:
        """The manifest as JSON values."""
        return {
            "schema": MANIFEST_SCHEMA,
            "architecture": self.architecture,
            "groups": [{"name": g.name, "transfer": g.transfer.value, "why": g.why} for g in self.groups],
            "entries": [entry.to_dict() for entry in self.entries],
            "waivers": [{"name": waiver.name, "why": waiver.why} for waiver in self.waivers],
        }

    @cached_property
    def manifest_id(self) -> str:
        """sha256 of the canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()

    @classmethod
    def from_dict(cls, document: object, *, origin: str = "manifest") -> SyncManifest:
        """The manifest in a parsed JSON document; offsets follow from what is sent, so transfers can be edited by hand.

        Raises ValueError with the address of what does not fit.
        """
        top = _object(document, origin)
        if top.get("schema") != MANIFEST_SCHEMA:
            raise ValueError(f"{origin} @ $.schema: expected {MANIFEST_SCHEMA!r}, found {top.get('schema')!r}")
        groups = []
        for index, item in enumerate(_array(top.get("groups"), f"{origin} @ $.groups")):
            where = f"{origin} @ $.groups[{index}]"
            group = _object(item, where)
            transfer = _text(group.get("transfer"), f"{where}.transfer")
            if transfer not in {t.value for t in Transfer}:
                raise ValueError(f"{where}.transfer: expected send, pin or hold, found {transfer!r}")
            why = _text(group.get("why", ""), f"{where}.why")
            groups.append(Group(_text(group.get("name"), f"{where}.name"), Transfer(transfer), why))
        entries = [
            _entry(_object(item, f"{origin} @ $.entries[{index}]"), f"{origin} @ $.entries[{index}]")
            for index, item in enumerate(_array(top.get("entries"), f"{origin} @ $.entries"))
        ]
        waivers = [
            _waiver(_object(item, f"{origin} @ $.waivers[{index}]"), f"{origin} @ $.waivers[{index}]")
            for index, item in enumerate(_array(top.get("waivers", []), f"{origin} @ $.waivers"))
        ]
        architecture = _text(top.get("architecture"), f"{origin} @ $.architecture")
        try:
            return cls(architecture, tuple(groups), with_offsets(groups, entries), tuple(waivers))
        except ValueError as error:
            raise ValueError(f"{origin}: {error}") from None


def with_offsets(groups: Iterable[Group], entries: Iterable[ManifestEntry]) -> tuple[ManifestEntry, ...]:
    """The entries with the offsets that follow from their order: what is sent, packed, each tensor aligned."""
    sent = {group.name for group in groups if group.transfer is Transfer.SEND}
    placed, end = [], 0
    for entry in entries:
        travels = entry.group in sent and entry.alias_of is None
        placed.append(replace(entry, offset=end if travels else None))
        end += aligned(entry.spec.nbytes) if travels else 0
    return tuple(placed)


def _waiver(item: Mapping[str, object], where: str) -> Waiver:
    why = _text(item.get("why"), f"{where}.why")
    if not why.strip():
        raise ValueError(f"{where}.why: expected a reason, found nothing")
    return Waiver(_text(item.get("name"), f"{where}.name"), why)


def _entry(item: Mapping[str, object], where: str) -> ManifestEntry:
    dtype = _text(item.get("dtype"), f"{where}.dtype")
    if dtype not in DTYPES:
        raise ValueError(f"{where}.dtype: unknown dtype {dtype!r}")
    shape = tuple(_size(n, f"{where}.shape[{i}]") for i, n in enumerate(_array(item.get("shape"), f"{where}.shape")))
    kind = next((k for k in TENSOR_KINDS if k == item.get("kind")), None)
    if kind is None:
        raise ValueError(f"{where}.kind: expected one of {', '.join(TENSOR_KINDS)}, found {item.get('kind')!r}")
    spec = TensorSpec(DTYPES[dtype], shape)
    if item.get("nbytes") != spec.nbytes:
        raise ValueError(f"{where}.nbytes: {spec} takes {spec.nbytes} bytes, found {item.get('nbytes')!r}")
    alias_of, frozen = item.get("alias_of"), item.get("frozen")
    if not isinstance(frozen, bool):
        raise ValueError(f"{where}.frozen: expected true or false, found {frozen!r}")
    return ManifestEntry(
        name=_text(item.get("name"), f"{where}.name"),
        group=_text(item.get("group"), f"{where}.group"),
        kind=kind,
        spec=spec,
        alias_of=None if alias_of is None else _text(alias_of, f"{where}.alias_of"),
        frozen=frozen,
    )


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, found {type(value).__name__}")
    return value


def _array(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{where}: expected a list, found {type(value).__name__}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected a string, found {type(value).__name__}")
    return value


def _size(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{where}: expected a whole number >= 0, found {value!r}")
    return value
