"""Versions as they lie in the learner's memory: packed once, never changed, reused when nobody reads them."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from weightkit.arena import Arena
from weightkit.core.manifest import SyncManifest
from weightkit.core.version import WeightVersion
from weightkit.shared_memory import SharedBuffer, SharedRef
from weightkit.transports.base import CHUNK_BYTES, Chunk

MOST_SLOTS = 4
logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Slot:
    """Room for one version. ``users``: sessions that read it. ``revoked``: given up, and never written again.

    ``haunted``: a session that is gone may still read it, for its actor maps it and acts on.
    """

    arena: Arena
    shared: SharedBuffer | None
    users: set[str] = field(default_factory=set)
    revoked: bool = False
    haunted: bool = False


@dataclass(slots=True, eq=False)
class Snapshot:
    """One version; hashed once, and cut into chunks once, however many actors it goes to."""

    version: WeightVersion
    slot: Slot
    digests: Mapping[str, str]
    root: str
    golden: bytes = b""
    published_at: float = field(default_factory=time.monotonic)
    _whole: list[Chunk] | None = None
    _changed: tuple[int, list[Chunk]] = (0, [])

    @property
    def shared(self) -> SharedRef | None:
        """Where actors of this machine find the payload."""
        return None if self.slot.shared is None else self.slot.shared.ref

    def age_ms(self) -> int:
        """Milliseconds since it was published."""
        return int((time.monotonic() - self.published_at) * 1e3)

    def chunks(self, base: int, changed: Collection[str]) -> list[Chunk]:
        """The whole payload for ``base`` 0, else what ``changed`` holds; the newest two answers are kept."""
        if base == 0:
            if self._whole is None:
                self._whole = list(chunks_of(self.slot.arena, self.slot.arena.names))
            return self._whole
        if self._changed[0] != base:
            self._changed = (base, list(chunks_of(self.slot.arena, changed)))
        return self._changed[1]


def chunks_of(arena: Arena, names: Collection[str]) -> Iterator[Chunk]:
    """The bytes of ``names`` in growing order of their offsets, at most ``CHUNK_BYTES`` at a time."""
    buffer = memoryview(arena.buffer.data).toreadonly()
    for first, end in arena.manifest.spans(names):
        for offset in range(first, end, CHUNK_BYTES):
            yield Chunk(offset, buffer[offset : min(offset + CHUNK_BYTES, end)])


class SnapshotPool:
    """At most ``MOST_SLOTS`` versions, however many actors are slow. The caller holds the lock.

    Where all are read from, one is revoked: its transfers are given up, and whoever maps it keeps what it has. Never
    the oldest, so that some transfer always comes to its end. A transfer in which an actor is stuck keeps what it was
    sending until the actor goes on or is cut off.
    """

    def __init__(self, manifest: SyncManifest, *, shared: bool) -> None:
        self._manifest = manifest
        self._shared = shared
        self._slots: list[Slot] = []  # oldest version first

    def blank(self, current: Slot | None) -> Slot:
        """Room for the next version; ``current`` holds the newest and is left alone."""
        for slot in [slot for slot in self._slots if slot.haunted and not slot.users and slot is not current]:
            self._revoke(slot)
        idle = next((slot for slot in self._slots if not slot.users and slot is not current), None)
        if idle is not None:
            self._slots.remove(idle)
        else:
            if len(self._slots) >= MOST_SLOTS:
                self._revoke(next(slot for slot in reversed(self._slots) if slot is not current))
            idle = self._make()
        self._slots.append(idle)
        return idle

    def _revoke(self, slot: Slot) -> None:
        slot.revoked = True
        self._slots.remove(slot)
        if slot.shared is not None:
            slot.shared.close()

    def _make(self) -> Slot:
        if self._shared:
            try:
                shared = SharedBuffer(self._manifest.payload_bytes)
                return Slot(Arena(self._manifest, shared.array), shared)
            except OSError as error:
                logger.info("weights go by chunks only, not through shared memory: %s", error)
                self._shared = False
        return Slot(Arena(self._manifest), None)

    def close(self) -> None:
        """Let nobody map any of it any more."""
        for slot in self._slots:
            if slot.shared is not None:
                slot.shared.close()
