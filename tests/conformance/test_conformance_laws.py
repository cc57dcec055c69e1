"""Laws 5, 6 and 7 on every link: the actor is the learner; whole versions or none; never an older one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.links import Link
from conformance.pairs import (
    DEADLINE_S,
    GROUPS,
    Net,
    fill,
    follow,
    is_poisoned,
    publisher_of,
    same,
    sent,
    subscriber_of,
    wait_until,
)
from conformance.wires import FAULTS, Faults, Wire, kept
from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_kwargs, drqv2_observations, drqv2_policy
from weightkit.core.manifest import SyncManifest
from weightkit.errors import NeedsNotMet, StaleVersion, UncoveredRead
from weightkit.sync import acting, receiver, service
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.receiver import Receiver
from weightkit.sync.service import SyncService
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import serve
from weightkit.transports.base import PROTOCOL, Hello, SnapshotBegin, SnapshotEnd, WatchMessage, Welcome

FEW = settings(deadline=None, max_examples=4, database=None)
MANY = settings(deadline=None, max_examples=60, database=None)


# ---- law 5: after one push the actor acts as the learner does


def actor_equals_learner(link: Link, kwargs: dict[str, Any], seed: int) -> None:
    learner, actor = drqv2_policy(kwargs, seed), drqv2_policy(kwargs, seed + 1)
    probes, fresh = drqv2_observations(kwargs, seed), drqv2_observations(kwargs, seed + 2, 3)
    manifest = make_manifest(learner, drqv2_groups(learner))
    with Publisher(learner, manifest, act=act, probes=probes, bind=link.bind, access=link.learner) as pub:
        pub.publish(7)
        with Subscriber(actor, pub.address, act=act, probes=probes, actor_id="a", access=link.actor) as sub:
            version = sub.wait_for_first(20)
            assert (version.counter, version.learner_step) == (1, 7)
            assert pub.wait_acked("a", 1, timeout_s=10)
            link.assert_used(pub, sub)
    for observation in fresh:
        assert torch.equal(act(actor, observation), act(learner, observation))


def test_after_one_push_the_actor_acts_exactly_as_the_learner(link: Link) -> None:
    @settings(FEW, max_examples=2)
    @given(drqv2_kwargs(), st.integers(0, 2**31))
    def law(kwargs: dict[str, Any], seed: int) -> None:
        actor_equals_learner(link, kwargs, seed)

    actor_equals_learner(link, SMALL_DRQV2, 0)
    law()


class UnguardedLearner(SyncService):
    """A learner without any check of its own: it welcomes everybody."""

    def hello(self, hello: Hello) -> Welcome:
        return Welcome(PROTOCOL, self.run_id, self.manifest)


@contextmanager
def unguarded(link: Link, manifest: SyncManifest) -> Iterator[str]:
    server = serve(link.bind, UnguardedLearner(manifest, "run"), access=link.learner)
    try:
        yield server.address
    finally:
        server.close()


@pytest.mark.parametrize("key", ["encoder", "actor.bias", "steps"])
def test_a_withheld_group_or_tensor_is_refused_by_both_sides_and_named(link: Link, key: str) -> None:
    learner, actor = Net(1), Net(2)
    manifest = make_manifest(learner, {**GROUPS, key: "hold"})
    missing = {name for name in manifest.by_name if name == key or name.startswith(f"{key}.")}
    with pytest.raises(UncoveredRead) as at_the_learner:
        publisher_of(link, learner, manifest=manifest)
    assert set(at_the_learner.value.names) == missing
    with unguarded(link, manifest) as address, subscriber_of(link, actor, address) as sub:
        with pytest.raises(NeedsNotMet) as at_the_actor:
            sub.wait_for_first(20)
    assert {finding.subject for finding in at_the_actor.value.report.errors()} == missing
    assert is_poisoned(actor)


# ---- law 6: an old version or a new one, never a mixture


@pytest.fixture
def _missed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an actor says nothing of is soon sent again."""
    monkeypatch.setattr(service, "RECEIPT_S", 0.1)


def follow_through(link: Link, faults: list[tuple[str, int]], pushes: int = 3) -> dict[str, object]:
    """Push versions through a faulty connection, and look at the policy after every poll; the actor's counts."""
    learner, actor = Net(1), Net(2)
    published: dict[int, dict[str, torch.Tensor]] = {}
    with publisher_of(link, learner, heartbeat_s=0.05) as pub:
        with subscriber_of(link, actor, pub.address, connector=Wire(link, Faults(faults))) as sub:
            newest = 0
            for counter in range(1, pushes + 1):
                fill(learner, counter)
                published[counter] = sent(learner)
                pub.publish(counter)
                deadline = time.monotonic() + DEADLINE_S
                while not pub.wait_acked("a", counter, timeout_s=0.002):
                    assert time.monotonic() < deadline, sub.status()
                    sub.poll(0.02)
                    held = 0 if sub.version is None else sub.version.counter
                    assert held >= newest
                    newest = held
                    assert same(sent(actor), published[held]) if held else is_poisoned(actor)
            assert newest == pushes
            assert same(sent(actor), published[pushes])
            return sub.status()


def test_nothing_is_thrown_away_where_nothing_goes_wrong(link: Link) -> None:
    counts = follow_through(link, [])
    assert [counts[key] for key in ("discarded", "stale", "repaired", "reconnects")] == [0, 0, 0, 0]
    assert counts["path"] == link.path


@pytest.mark.usefixtures("_missed_soon")
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_of_each_kind_is_noticed_and_mended(link: Link, fault: str) -> None:
    def noticed(place: int) -> list[str]:
        counts = follow_through(link, [(fault, place)], pushes=1)
        assert counts["received"] == 1
        return [key for key in ("discarded", "repaired", "reconnects") if counts[key]]

    assert "reconnects" in noticed(1) or fault != "cut"
    if link.chunked:
        assert noticed(3) == {"cut": ["reconnects"], "flip": ["repaired"]}.get(fault, ["discarded"])
    assert "reconnects" in noticed(14 if link.chunked else 2) or fault != "cut"


def faults_anywhere(link: Link, many: settings) -> None:
    @many
    @given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(1, 40)), max_size=4))
    def law(faults: list[tuple[str, int]]) -> None:
        follow_through(link, faults)

    law()


@pytest.mark.usefixtures("_missed_soon")
def test_faults_anywhere_leave_the_old_version_or_the_new_one(link: Link) -> None:
    faults_anywhere(link, FEW)


@pytest.mark.slow
@pytest.mark.usefixtures("_missed_soon")
def test_many_faults_anywhere_leave_the_old_version_or_the_new_one(link: Link) -> None:
    faults_anywhere(link, MANY)


def test_the_law_notices_an_actor_that_verifies_nothing(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (receiver, acting):
        monkeypatch.setattr(module, "verify", lambda found, begin: None)
    with pytest.raises(AssertionError):
        follow_through(link, [("flip", 3 if link.chunked else 1)], pushes=1)


# ---- law 7: never an older version


class Replay:
    """What the learner says; and once more version 1, when the actor acts with version 2."""

    def __init__(self) -> None:
        self._first: list[WatchMessage] = []
        self._acting = threading.Event()

    def __call__(self, messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        counter = 0
        for message in messages:
            if isinstance(message, SnapshotBegin):
                counter = message.version.counter
            if counter == 1:
                self._first.append(kept(message))
            yield message
            if isinstance(message, SnapshotEnd) and counter == 2:
                assert self._acting.wait(DEADLINE_S)
                first, self._first = self._first, []
                yield from first

    def begin(self) -> None:
        self._acting.set()


def versions_through_a_replay(link: Link) -> list[int]:
    learner, actor, replay = Net(1), Net(2), Replay()
    with publisher_of(link, learner) as pub:
        with subscriber_of(link, actor, pub.address, connector=Wire(link, replay)) as sub:
            came = []
            for counter in (1, 2):
                fill(learner, counter)
                pub.publish()
                came += follow(sub, counter)
            replay.begin()
            assert wait_until(lambda: sub.status()["stale"] != 0 or sub.status()["received"] == 3)
            if (again := sub.poll()) is not None:
                came.append(again.counter)
            fill(learner, 3)
            pub.publish()
            came += follow(sub, 3)
            assert same(sent(actor), sent(learner))
    return came


def never_older(link: Link) -> None:
    assert versions_through_a_replay(link) == [1, 2, 3]


def test_a_version_that_comes_again_is_stale_and_never_acted_with(link: Link) -> None:
    never_older(link)


def test_the_law_notices_an_actor_that_compares_no_counters(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: Receiver, begin: SnapshotBegin) -> None:
        held = self._held
        self._held = held if begin.base else None
        try:
            original(self, begin)
        finally:
            self._held = held

    original = Receiver._start
    monkeypatch.setattr(Receiver, "_start", start)
    with pytest.raises(AssertionError):
        never_older(link)


def test_a_restarted_learner_is_followed_from_its_counter_1_but_a_replaced_run_is_refused(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner, run_id="first") as pub:
        address = pub.address
        pub.publish()
        pub.publish()
        sub = subscriber_of(link, actor, address)
        assert sub.wait_for_first(20).run_id == "first"
    with sub:
        fill(learner, 3)
        with publisher_of(link, learner, bind=address, run_id="second") as pub:
            assert sub.poll() is None
            pub.publish()
            assert follow(sub, 1, run_id="second") == [1]
            assert same(sent(actor), sent(learner))
            assert pub.wait_acked("a", 1, timeout_s=10)
        fill(learner, 4)
        with publisher_of(link, learner, bind=address, run_id="first") as pub:
            for _ in range(3):
                pub.publish()
            with pytest.raises(StaleVersion):
                follow(sub, 3)
        assert sub.version is not None
        assert (sub.version.run_id, sub.version.counter) == ("second", 1)
