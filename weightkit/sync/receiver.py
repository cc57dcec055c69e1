"""The actor's end of a transfer: messages become whole versions, verified against their digests. Knows no threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from weightkit.arena import Arena, StreamedDigests
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.digest import root_digest
from weightkit.errors import IncompleteUpdate, StaleVersion, SyncError
from weightkit.shared_memory import SharedRef, attach
from weightkit.transports.base import (
    Chunk,
    Have,
    Resume,
    SnapshotBegin,
    SnapshotEnd,
    Superseded,
    WatchMessage,
)

MOST_MAPPINGS = 8


class Damaged(IncompleteUpdate):
    """All bytes are there, but those of ``tensors`` are not what was announced."""

    def __init__(self, message: str, tensors: tuple[str, ...]) -> None:
        super().__init__(message)
        self.tensors = tensors


class MemoryGone(IncompleteUpdate):
    """The learner has taken back the memory in which a version lay: a newer one is there."""


@dataclass(frozen=True, slots=True)
class Received:
    """A whole, verified version, ``begin`` with the digests of all tensors. ``shared``: it lies with the learner."""

    begin: SnapshotBegin
    arena: Arena
    shared: bool


class Receiver:
    """Puts the messages of one run together, over as many connections as it takes.

    It keeps the newest whole version, on which the next may build, and what a broken connection left unfinished.
    """

    def __init__(self, manifest: SyncManifest, run_id: str) -> None:
        self.manifest = manifest
        self.run_id = run_id
        self._held: Received | None = None
        self._begin: SnapshotBegin | None = None
        self._arena: Arena | None = None
        self._spare: Arena | None = None
        self.retired: Arena | None = None  # of the version before the one that is held; somebody may still read it
        self._shared = False
        self._spans: list[tuple[int, int]] = []
        self._at = 0
        self._streamed: StreamedDigests
        self._mapped: OrderedDict[SharedRef, Arena] = OrderedDict()

    @property
    def counter(self) -> int:
        """The counter of the version under way, 0 where none is."""
        return 0 if self._begin is None else self._begin.version.counter

    @property
    def have(self) -> Have | None:
        """The newest whole version."""
        if self._held is None:
            return None
        version = self._held.begin.version
        return Have(version.run_id, version.counter, self._held.begin.root)

    @property
    def resume(self) -> Resume | None:
        """Where the chunks of an unfinished version can go on."""
        if self._begin is None or self._shared or not self._spans:
            return None
        return Resume(self._begin.version.counter, self._begin.base, self._at)

    def recycle(self) -> None:
        """Nobody looks at `retired` any more: a later version may be put into it."""
        self._spare, self.retired = self.retired, None

    def forget(self) -> None:
        """Give up what is unfinished and what is held: the next version must come whole."""
        self._begin = self._held = None

    def take(self, message: WatchMessage) -> Received | None:
        """The version that ``message`` completes, or None.

        Raises StaleVersion for a version that is not newer, or of another run; Damaged where digests differ, after
        which `repair` may be tried; IncompleteUpdate for anything else that does not add up. Except after Damaged,
        the version under way is thrown away and its remaining messages are ignored.
        """
        try:
            return self._take(message)
        except Damaged:
            raise
        except SyncError:
            self._begin = None
            raise

    def _take(self, message: WatchMessage) -> Received | None:
        if isinstance(message, SnapshotBegin):
            self._start(message)
        elif isinstance(message, Superseded):
            self._begin = None
        elif isinstance(message, Chunk) and self._begin is not None:
            self._add(message)
        elif isinstance(message, SnapshotEnd) and self._begin is not None:
            return self._finish(self._begin)
        return None

    def _start(self, begin: SnapshotBegin) -> None:
        version, unfinished = begin.version, self._begin
        self._begin = None
        if begin.resumed_at and unfinished is not None:
            self._go_on(begin, unfinished)
            return
        if begin.resumed_at:
            raise IncompleteUpdate(f"{version} goes on at byte {begin.resumed_at}, of a transfer that is not under way")
        if version.run_id != self.run_id:
            raise StaleVersion(f"{version} is of another run than this session's, {self.run_id[:8]}")
        newest = 0 if self._held is None else self._held.begin.version.counter
        if version.counter <= newest:
            raise StaleVersion(f"{version} came after version {newest}")
        if begin.manifest_id != self.manifest.manifest_id or begin.n_bytes != self.manifest.payload_bytes:
            raise IncompleteUpdate(f"{version} is not laid out as the handshake's manifest says")
        digests = self._all_digests(begin)
        if begin.shared is not None:
            self._arena, self._spans = self._mapping(begin.shared), []
        else:
            self._arena = self._blank()
            self._spans = list(self.manifest.spans(begin.digests))
            self._keep_the_rest(begin)
        self._shared = begin.shared is not None
        self._at = self._spans[0][0] if self._spans else 0
        self._streamed = StreamedDigests(self._arena, () if self._shared else begin.digests)
        self._begin = replace(begin, digests=digests)

    def _go_on(self, begin: SnapshotBegin, unfinished: SnapshotBegin) -> None:
        same = (begin.version, begin.root, begin.base) == (unfinished.version, unfinished.root, unfinished.base)
        if not same or begin.resumed_at != self._at:
            raise IncompleteUpdate(
                f"{begin.version} goes on at byte {begin.resumed_at}, expected {unfinished.version} from {self._at} on"
            )
        self._begin = unfinished

    def _all_digests(self, begin: SnapshotBegin) -> dict[str, str]:
        """The digests of every tensor that is sent: those announced, the others as in the version it builds on."""
        known: Mapping[str, str] = {}
        if begin.base:
            if self._held is None or self._held.shared or self._held.begin.version.counter != begin.base:
                raise IncompleteUpdate(f"{begin.version} builds on version {begin.base}, which is not held here")
            known = self._held.begin.digests
        digests = {**known, **begin.digests}
        if digests.keys() != set(self.manifest.names(Transfer.SEND)):
            raise IncompleteUpdate(f"{begin.version} has not one digest for each tensor that is sent")
        return digests

    def _keep_the_rest(self, begin: SnapshotBegin) -> None:
        """What does not travel comes from the version that is held."""
        if begin.base and self._held is not None and self._arena is not None:
            kept = set(self._held.begin.digests) - set(begin.digests)
            for first, end in self.manifest.spans(kept):
                self._arena.buffer[first:end] = self._held.arena.buffer[first:end]

    def _blank(self) -> Arena:
        """Room that nobody looks at."""
        unfinished = None if self._shared else self._arena
        arena = unfinished or self._spare or Arena(self.manifest)
        if arena is self._spare:
            self._spare = None
        return arena

    def _mapping(self, shared: SharedRef) -> Arena:
        arena = self._mapped.get(shared)
        if arena is None:
            if shared.nbytes != self.manifest.payload_bytes:
                raise IncompleteUpdate(f"shared memory of {shared.nbytes} bytes for {self.manifest.payload_bytes}")
            try:
                arena = Arena(self.manifest, attach(shared))
            except FileNotFoundError as error:
                raise MemoryGone(f"the learner's shared memory is gone: {error}") from None
            except OSError as error:
                raise IncompleteUpdate(f"the learner's shared memory cannot be read: {error}") from None
            self._mapped[shared] = arena
        self._mapped.move_to_end(shared)
        while len(self._mapped) > MOST_MAPPINGS:
            self._mapped.popitem(last=False)
        return arena

    def _add(self, chunk: Chunk) -> None:
        assert self._arena is not None
        if not self._spans:
            raise IncompleteUpdate(f"bytes from {chunk.offset} on, which nobody announced")
        end = self._spans[0][1]
        if chunk.offset != self._at or not chunk.data or self._at + len(chunk.data) > end:
            raise IncompleteUpdate(
                f"expected the bytes from {self._at} to {end}, found {len(chunk.data)} from {chunk.offset} on"
            )
        self._arena.write(chunk.offset, chunk.data)
        self._streamed.came(self._at, self._at + len(chunk.data))
        self._at += len(chunk.data)
        if self._at == end:
            del self._spans[0]
            self._at = self._spans[0][0] if self._spans else 0

    def _finish(self, begin: SnapshotBegin) -> Received:
        arena = self._arena
        assert arena is not None
        if self._spans:
            raise IncompleteUpdate(f"{begin.version} ended before byte {self._at} of {arena.nbytes}")
        known = self._streamed.done
        verify({name: known.get(name) or arena.digest(name) for name in arena.names}, begin)
        self.retired = None if self._held is None or self._held.shared else self._held.arena
        self._begin = self._arena = None
        self._held = Received(begin, arena, self._shared)
        return self._held

    def repair(self, fetch: Callable[[tuple[str, ...]], Iterable[Chunk]], damaged: tuple[str, ...]) -> Received:
        """The version, after its damaged tensors came once more. Raises IncompleteUpdate where that did not help."""
        begin, arena = self._begin, self._arena
        assert begin is not None
        assert arena is not None
        if self._shared:
            self._begin = None
            raise IncompleteUpdate(f"{begin.version}: what the learner shares is not what it announced")
        self._spans = list(self.manifest.spans(damaged))
        self._at = self._spans[0][0] if self._spans else 0
        intact = {name: digest for name, digest in self._streamed.done.items() if name not in damaged}
        self._streamed = StreamedDigests(arena, damaged)
        self._streamed.done |= intact
        try:
            for chunk in fetch(damaged):
                self._add(chunk)
            return self._finish(begin)
        except SyncError:
            self._begin = None
            raise


def verify(found: Mapping[str, str], begin: SnapshotBegin) -> None:
    """Raises Damaged, naming the tensors, where digests are not those that the version announced."""
    differing = tuple(sorted(name for name in {**found, **begin.digests} if found.get(name) != begin.digests.get(name)))
    if differing or root_digest(found) != begin.root:
        raise Damaged(
            f"{begin.version}: the bytes are not those that were published: {', '.join(differing) or 'root digest'}",
            differing,
        )
