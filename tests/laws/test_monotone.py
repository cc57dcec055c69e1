"""Law 7: never an older counter within a run; a new run needs a new handshake."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.arena import Arena
from weightkit.core.version import WeightVersion
from weightkit.digest import root_digest
from weightkit.errors import IncompleteUpdate, StaleVersion
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.publisher import Publisher
from weightkit.sync.receiver import Receiver
from weightkit.sync.subscriber import Subscriber
from weightkit.transports.base import Backoff, Chunk, SnapshotBegin, SnapshotEnd, Superseded, WatchMessage

POLICY = drqv2_policy(SMALL_DRQV2, 0)
PROBES = drqv2_observations(SMALL_DRQV2, 5)
MANIFEST = make_manifest(POLICY, drqv2_groups(POLICY))
ARENA = Arena(MANIFEST)
DIGESTS = ARENA.pack({item.name: item.tensor for item in inventory(POLICY)}).digests


def messages(counter: int, run_id: str = "run") -> list[WatchMessage]:
    root = root_digest(DIGESTS)
    begin = SnapshotBegin(WeightVersion(run_id, counter, 0), MANIFEST.manifest_id, ARENA.nbytes, DIGESTS, root)
    return [begin, Chunk(0, ARENA.buffer.tobytes()), SnapshotEnd(root)]


def accepted(receiver: Receiver, stream: list[WatchMessage]) -> list[int]:
    counters = []
    for message in stream:
        try:
            complete = receiver.take(message)
        except StaleVersion:
            continue
        if complete is not None:
            counters.append(complete.begin.version.counter)
    return counters


@settings(deadline=None, max_examples=60, database=None)
@given(st.lists(st.integers(1, 6), max_size=8))
def test_only_growing_counters_are_accepted(counters: list[int]) -> None:
    stream = [message for counter in counters for message in messages(counter)]
    growing = [c for i, c in enumerate(counters) if c > max([0, *counters[:i]])]
    assert accepted(Receiver(MANIFEST, "run"), stream) == growing


def test_a_counter_from_before_a_reconnect_is_stale() -> None:
    receiver = Receiver(MANIFEST, "run")
    assert accepted(receiver, messages(3)) == [3]
    with pytest.raises(StaleVersion):
        receiver.take(messages(3)[0])


def test_another_run_within_a_session_is_stale() -> None:
    with pytest.raises(StaleVersion):
        Receiver(MANIFEST, "run").take(messages(9, run_id="other")[0])


def test_a_snapshot_of_another_layout_is_refused() -> None:
    begin = messages(1)[0]
    assert isinstance(begin, SnapshotBegin)
    with pytest.raises(IncompleteUpdate):
        Receiver(MANIFEST, "run").take(replace(begin, manifest_id="another"))


def test_a_superseded_snapshot_is_dropped_without_a_complaint() -> None:
    first, second = messages(1), messages(2)
    assert accepted(Receiver(MANIFEST, "run"), [*first[:2], Superseded("run", 2), *second]) == [2]


def poll_until_news(sub: Subscriber, pub: Publisher) -> WeightVersion:
    give_up_at = time.monotonic() + 20
    while time.monotonic() < give_up_at:
        version = sub.poll()
        if version is not None:
            return version
        pub.wait_acked("a", 1, timeout_s=0.005)
    raise AssertionError("no version came")


@pytest.mark.parametrize("scheme", ["memory", "grpc"])
def test_a_restarted_learner_is_followed_from_its_counter_1_but_a_replaced_run_is_refused(scheme: str) -> None:
    bind, address = ("memory:", "") if scheme == "memory" else ("127.0.0.1:0", "")
    learner, actor = drqv2_policy(SMALL_DRQV2, 1), drqv2_policy(SMALL_DRQV2, 2)
    with Publisher(learner, MANIFEST, act=act, probes=PROBES, bind=bind, run_id="first") as pub:
        address = pub.address
        pub.publish()
        pub.publish()
        sub = Subscriber(
            actor, address, act=act, probes=PROBES, actor_id="a", backoff=Backoff(low_s=0.001, high_s=0.01)
        )
        first = sub.wait_for_first(20)
        assert first.run_id == "first"
    with sub:
        with Publisher(learner, MANIFEST, act=act, probes=PROBES, bind=address, run_id="second") as pub:
            assert sub.poll() is None
            pub.publish()
            second = None
            while second is None or second.run_id == "first":
                second = poll_until_news(sub, pub)
            assert (second.run_id, second.counter) == ("second", 1)
        with Publisher(learner, MANIFEST, act=act, probes=PROBES, bind=address, run_id="first") as pub:
            pub.publish()
            with pytest.raises(StaleVersion):
                poll_until_news(sub, pub)
        assert sub.version == second
