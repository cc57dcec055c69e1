"""The learner's memory: reused when nobody reads it, bounded whatever anybody does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry as Entry
from weightkit.core.manifest import SyncManifest, with_offsets
from weightkit.core.tensor import spec
from weightkit.core.version import WeightVersion
from weightkit.shared_memory import attach
from weightkit.sync.snapshots import MOST_SLOTS, Slot, Snapshot, SnapshotPool, chunks_of
from weightkit.transports.base import CHUNK_BYTES

GROUPS = (Group("all", Transfer.SEND), Group("rest", Transfer.HOLD, "not read"))
ENTRIES = [
    Entry("a", "all", "parameter", spec("uint8", 10)),
    Entry("held", "rest", "parameter", spec("uint8", 10)),
    Entry("b", "all", "parameter", spec("uint8", 65)),
    Entry("empty", "all", "buffer", spec("float32", 0)),
    Entry("c", "all", "parameter", spec("float32", 3)),
    Entry("large", "all", "parameter", spec("uint8", CHUNK_BYTES + 5)),
]
MANIFEST = SyncManifest("tiny", GROUPS, with_offsets(GROUPS, ENTRIES))


def take(pool: SnapshotPool, current: Slot | None, user: str = "") -> Slot:
    slot = pool.blank(current)
    slot.users |= {user} if user else set()
    return slot


@pytest.mark.parametrize("shared", [False, True])
def test_two_slots_are_enough_where_nobody_is_slow(shared: bool) -> None:
    pool = SnapshotPool(MANIFEST, shared=shared)
    seen, current = set(), None
    for _ in range(10):
        current = take(pool, current)
        seen.add(id(current))
    assert len(seen) == 2


def test_a_slot_that_is_read_or_current_is_never_handed_out() -> None:
    pool = SnapshotPool(MANIFEST, shared=False)
    first = take(pool, None, "slow")
    second = take(pool, first)
    third = take(pool, second)
    assert first is not second is not third is not first
    first.users.clear()
    assert take(pool, third) in (first, second)


def test_there_are_never_more_than_the_most_and_the_oldest_that_is_read_stays() -> None:
    pool = SnapshotPool(MANIFEST, shared=False)
    slots, current = [], None
    for number in range(20):
        current = take(pool, current, f"reader {number}")
        slots.append(current)
        alive = [slot for slot in slots if not slot.revoked]
        assert len(alive) <= MOST_SLOTS
        assert slots[0] in alive
        assert current in alive


def test_a_revoked_slot_is_never_written_again_and_whoever_maps_it_keeps_it() -> None:
    pool = SnapshotPool(MANIFEST, shared=True)
    slots, current = [], None
    for number in range(MOST_SLOTS):
        current = take(pool, current, f"reader {number}")
        current.arena.buffer[:] = number
        slots.append(current)
    youngest = slots[-2]
    assert youngest.shared is not None
    view = attach(youngest.shared.ref)
    new = take(pool, current)
    new.arena.buffer[:] = 99
    assert youngest.revoked
    assert (view == MOST_SLOTS - 2).all()
    with pytest.raises(OSError):
        attach(youngest.shared.ref)


def test_spans_join_what_follows_each_other_and_leave_out_the_rest() -> None:
    a, b, c, large = (MANIFEST.by_name[name].offset for name in ("a", "b", "c", "large"))
    assert (a, b, c, large) == (0, 64, 192, 256)
    assert MANIFEST.spans({"a"}) == ((0, 10),)
    assert MANIFEST.spans({"a", "b"}) == ((0, 64 + 65),)
    assert MANIFEST.spans({"a", "c"}) == ((0, 10), (192, 204))
    assert MANIFEST.spans({"b", "empty", "c"}) == ((64, 204),)
    assert MANIFEST.spans({"empty", "held", "nobody"}) == ()
    assert MANIFEST.spans(set(MANIFEST.names(Transfer.SEND))) == ((0, MANIFEST.payload_bytes),)


def test_chunks_are_all_bytes_once_in_order_and_none_is_too_long() -> None:
    slot = SnapshotPool(MANIFEST, shared=False).blank(None)
    for names in ({"a"}, {"a", "large"}, set(MANIFEST.names(Transfer.SEND)), set()):
        chunks = list(chunks_of(slot.arena, names))
        covered = [(chunk.offset, chunk.offset + len(chunk.data)) for chunk in chunks]
        assert all(end - first <= CHUNK_BYTES for first, end in covered)
        merged: list[tuple[int, int]] = []
        for first, end in covered:
            merged.append((merged.pop()[0], end) if merged and merged[-1][1] == first else (first, end))
        assert tuple(merged) == MANIFEST.spans(names)


def test_chunks_are_cut_once_for_all_actors_and_for_the_latest_base() -> None:
    slot = SnapshotPool(MANIFEST, shared=False).blank(None)
    snapshot = Snapshot(WeightVersion("run", 2, 0), slot, {}, "root")
    assert snapshot.chunks(0, ()) is snapshot.chunks(0, ())
    assert snapshot.chunks(1, {"a"}) is snapshot.chunks(1, {"a"})
    other = Snapshot(replace(snapshot.version, counter=3), slot, {}, "root")
    assert other.chunks(1, {"a"}) is not snapshot.chunks(1, {"a"})


def test_a_slot_that_a_lost_session_may_still_map_is_never_written_again() -> None:
    pool = SnapshotPool(MANIFEST, shared=True)
    first = take(pool, None)
    first.arena.buffer[:] = 1
    assert first.shared is not None
    view = attach(first.shared.ref)
    first.haunted = True
    current = take(pool, first)
    for _ in range(6):
        current = take(pool, current)
        current.arena.buffer[:] = 2
        assert current is not first
    assert (view == 1).all()
