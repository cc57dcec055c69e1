"""On every link: what is damaged, cut off, lost, not finite, laid out otherwise, or never comes."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conformance.links import Link
from conformance.pairs import (
    DEADLINE_S,
    Net,
    fill,
    follow,
    is_poisoned,
    learners_view,
    publisher_of,
    same,
    sent,
    sessions,
    subscriber_of,
    wait_until,
)
from conformance.wires import Faults, Gate, Wire
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.errors import Disconnected, NeedsNotMet, PublishRefused, TransportTimeout
from weightkit.shared_memory import SharedRef
from weightkit.sync import receiver, service
from weightkit.transports import connect
from weightkit.transports.base import Backoff, Chunk, Heartbeat, Nack, SnapshotBegin, SnapshotEnd, WatchMessage

# ---- damage


def tensor_at(manifest: SyncManifest, place: int) -> str:
    """The tensor to which byte ``place`` of the payload belongs."""
    entries = [manifest.by_name[name] for name in manifest.names(Transfer.SEND)]
    return max((entry for entry in entries if (entry.offset or 0) <= place), key=lambda entry: entry.offset or 0).name


def test_damaged_bytes_are_fetched_alone_where_they_come_in_chunks_else_sent_again(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    wire = Wire(link, Faults([("flip", 3 if link.chunked else 1)]))
    with publisher_of(link, learner) as pub:
        with subscriber_of(link, actor, pub.address, connector=wire) as sub:
            pub.publish()
            follow(sub, 1)
            assert same(sent(actor), sent(learner))
            assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
            counts, payload = sub.status(), pub.manifest.payload_bytes
            if link.chunked:
                damaged = pub.manifest.by_name[tensor_at(pub.manifest, 256 + 128)]
                assert (counts["repaired"], counts["discarded"], learners_view(pub).nacks) == (1, 0, 0)
                assert learners_view(pub).sent_bytes == payload + damaged.spec.nbytes < 2 * payload
            else:
                assert (counts["discarded"], learners_view(pub).nacks) == (1, 1)
                link.assert_used(pub, sub)


def test_damaged_bytes_that_cannot_be_fetched_are_refused_and_sent_again(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    wire = Wire(link, Faults([("flip", 3 if link.chunked else 1)]), fetches=False)
    with publisher_of(link, learner) as pub:
        with subscriber_of(link, actor, pub.address, connector=wire) as sub:
            pub.publish()
            follow(sub, 1)
            assert same(sent(actor), sent(learner))
            assert (sub.status()["discarded"], sub.status()["received"], learners_view(pub).nacks) == (1, 1, 1)
            assert learners_view(pub).sent_bytes == (2 * pub.manifest.payload_bytes if link.chunked else 0)


def test_a_mapping_that_is_damaged_for_good_is_done_without(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    if link.chunked:
        pytest.skip("nothing is mapped on this link")

    def attach(ref: SharedRef) -> np.ndarray:
        found = original(ref).copy()
        found[len(found) // 2] ^= 4
        return found

    original = receiver.attach
    monkeypatch.setattr(receiver, "attach", attach)
    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address) as sub:
        for counter in (1, 2):
            fill(learner, counter)
            pub.publish()
            follow(sub, counter)
            assert same(sent(actor), sent(learner))
        assert sub.status()["path"] == learners_view(pub).path == "stream"


# ---- connections that are cut, messages that are lost


class CutOnce:
    """Ends the first session after ``chunks`` of them, or after the begin where none come; ``before`` it does that."""

    def __init__(self, chunks: int, before: Callable[[], object] = lambda: None) -> None:
        self._left = chunks
        self._before = before
        self.done = threading.Event()

    def __call__(self, messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in messages:
            yield message
            self._left -= isinstance(message, Chunk)
            shared = isinstance(message, SnapshotBegin) and message.shared is not None
            if not self.done.is_set() and (self._left == 0 or shared):
                self._before()
                self.done.set()
                raise Disconnected("the wire is cut")


def test_a_version_that_was_cut_in_the_middle_goes_on_where_it_stopped(link: Link) -> None:
    learner, actor = Net(1, hidden=512), Net(2, hidden=512)
    with publisher_of(link, learner) as pub:
        payload = pub.manifest.payload_bytes
        assert payload > 100 * 256
        with subscriber_of(link, actor, pub.address, connector=Wire(link, CutOnce(80))) as sub:
            pub.publish()
            follow(sub, 1)
            assert same(sent(actor), sent(learner))
            counts = sub.status()
    assert (counts["reconnects"], counts["discarded"]) == (1, 0)
    assert (counts["resumed"], counts["received_bytes"]) == ((1, payload) if link.chunked else (0, 0))


def test_a_version_that_was_cut_in_the_middle_is_given_up_where_a_newer_one_waits(link: Link) -> None:
    learner, actor = Net(1, hidden=512), Net(2, hidden=512)
    cutting = CutOnce(80, lambda: wire.cut())
    wire = Wire(link, cutting)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address, connector=wire) as sub:
        pub.publish()
        assert cutting.done.wait(DEADLINE_S)
        fill(learner, 2)
        pub.publish()
        wire.mend()
        assert follow(sub, 1) == [2]
        assert same(sent(actor), sent(learner))
        assert (sub.status()["resumed"], sub.status()["discarded"]) == (0, 0)


@pytest.mark.parametrize("lost", [SnapshotBegin, SnapshotEnd])
def test_an_actor_that_missed_the_begin_or_end_of_a_version_still_comes_to_the_newest(
    link: Link, lost: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RECEIPT_S", 0.2)
    missed: list[WatchMessage] = []

    def lose(messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in messages:
            if isinstance(message, lost) and not missed:
                missed.append(message)
            else:
                yield message

    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner, heartbeat_s=0.05) as pub:
        with subscriber_of(link, actor, pub.address, connector=Wire(link, lose)) as sub:
            pub.publish()
            assert wait_until(lambda: bool(missed))
            fill(learner, 2)
            pub.publish()
            follow(sub, 2)
            assert same(sent(actor), sent(learner))


class Heard:
    """Counts what the learner says; ``again``: the begin of the first version is said once more after its end."""

    def __init__(self, *, again: bool) -> None:
        self._again = again
        self.begins: list[SnapshotBegin] = []
        self.heartbeats = 0

    def __call__(self, messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in messages:
            if isinstance(message, SnapshotBegin):
                self.begins.append(message)
            yield message
            if isinstance(message, SnapshotEnd) and self._again:
                self._again = False
                yield self.begins[0]
            self.heartbeats += isinstance(message, Heartbeat)


@pytest.mark.parametrize("late_refusal", [False, True], ids=["announced twice", "an older one refused late"])
def test_a_version_that_an_actor_has_is_not_sent_to_it_for_ever(link: Link, late_refusal: bool) -> None:
    learner, actor, heard = Net(1), Net(2), Heard(again=not late_refusal)
    patient = Backoff(low_s=0.02, high_s=0.02)
    with publisher_of(link, learner, heartbeat_s=0.1) as pub:
        with subscriber_of(link, actor, pub.address, connector=Wire(link, heard), backoff=patient) as sub:
            for counter in (1, 2):
                fill(learner, counter)
                pub.publish()
                follow(sub, counter)
            assert pub.wait_acked("a", 2, timeout_s=DEADLINE_S)
            if late_refusal:
                (session,) = sessions(pub)
                connection = connect(pub.address, access=link.actor)
                try:
                    connection.nack(Nack("a", session, pub.run_id, 1, "damaged"))
                finally:
                    connection.close()
            beats = heard.heartbeats
            assert wait_until(lambda: heard.heartbeats >= beats + 2 or len(heard.begins) > 8, 5)
            assert len(heard.begins) <= 4
            assert sub.status()["path"] == link.path


def test_a_version_that_waits_stays_whole_while_a_later_one_is_refused(link: Link) -> None:
    gate, faults, refused = Gate(0), Faults([]), threading.Event()
    gate.open()

    def refuse_version_3(messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in gate(messages):
            if isinstance(message, SnapshotBegin) and message.version.counter == 3 and not refused.is_set():
                gate.close()
                yield faults.spoilt_begin("truncate", message)
                refused.set()
            else:
                yield message

    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner) as pub:
        with subscriber_of(link, actor, pub.address, connector=Wire(link, refuse_version_3)) as sub, gate:
            pub.publish()
            follow(sub, 1)
            fill(learner, 2)
            second = sent(learner)
            pub.publish()
            assert wait_until(lambda: sub.status()["received"] == 2)
            fill(learner, 3)
            pub.publish()
            assert refused.wait(DEADLINE_S)
            for counter in (4, 5, 6):
                fill(learner, counter)
                pub.publish()
            if sub.poll() is not None:
                assert same(sent(actor), second)
            gate.open()
            follow(sub, 6)
            assert same(sent(actor), sent(learner))


def test_a_version_that_waits_stays_whole_where_the_acknowledgement_before_it_comes_late(link: Link) -> None:
    gate = Gate(0)
    gate.open()

    def stop_after_version_2(messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in gate(messages):
            if isinstance(message, SnapshotEnd) and sub.status()["received"] == 1:
                gate.close()
            yield message

    learner, actor = Net(1), Net(2)
    wire = Wire(link, stop_after_version_2, holds_acks=True)
    with publisher_of(link, learner) as pub:
        with subscriber_of(link, actor, pub.address, connector=wire) as sub, gate:
            pub.publish()
            follow(sub, 1)
            fill(learner, 2)
            second = sent(learner)
            pub.publish()
            assert wait_until(lambda: wire.receipts == [1, 2])
            wire.deliver_acks()
            assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
            for counter in (3, 4, 5, 6):
                fill(learner, counter)
                pub.publish()
            assert sub.poll() is not None
            assert same(sent(actor), second)


def test_closing_in_the_middle_of_a_call_leaves_no_thread(link: Link) -> None:
    learner, actor = Net(1), Net(2)

    def close(messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in messages:
            if isinstance(message, SnapshotEnd):
                wire.cut()
            yield message

    wire = Wire(link, close)
    with publisher_of(link, learner) as pub:
        pub.publish()
        gc.disable()
        try:
            with subscriber_of(link, actor, pub.address, connector=wire) as sub:
                assert wait_until(lambda: sub.status()["received"] == 1)
            names = ("weightkit-subscriber", "weightkit-silence", "weightkit-speaker")
            assert wait_until(lambda: not any(t.name.startswith(names) for t in threading.enumerate()), 1)
        finally:
            gc.enable()


# ---- what must not be published


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_published_and_the_last_good_version_stays(link: Link, value: float) -> None:
    learner, actor, late = Net(1), Net(2), Net(3)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address) as sub:
        pub.publish()
        follow(sub, 1)
        good = sent(learner)
        for refused, tensor in enumerate((learner.encoder.weight, learner.scale), start=1):
            with torch.no_grad():
                tensor.view(-1)[3] = value
            with pytest.raises(PublishRefused, match=r"encoder\.weight|scale"):
                pub.publish()
            assert (pub.state().refused, pub.state().counter) == (refused, 1)
        assert sub.poll() is None
        assert same(sent(actor), good)
        with subscriber_of(link, late, pub.address, "late") as joined:
            assert joined.wait_for_first(DEADLINE_S).counter == 1
        assert same(sent(late), good)
        fill(learner, 5)
        pub.publish()
        follow(sub, 2)
        assert same(sent(actor), sent(learner))


def other_shape(net: Net) -> str:
    net.encoder.bias = nn.Parameter(torch.zeros(7))
    return "encoder.bias"


def other_dtype(net: Net) -> str:
    net.scale = net.scale.to(torch.float16)
    return "scale"


def another_name(net: Net) -> str:
    net.speed = net.scale
    del net.scale
    return "scale"


@pytest.mark.parametrize("change", [other_shape, other_dtype, another_name])
def test_a_learner_whose_policy_changes_its_layout_publishes_no_more_and_names_what_changed(
    link: Link, change: Any
) -> None:
    learner, late = Net(1), Net(3)
    with publisher_of(link, learner) as pub:
        pub.publish()
        good = sent(learner)
        name = change(learner)
        with pytest.raises(PublishRefused, match=name):
            pub.publish()
        assert (pub.state().refused, pub.state().counter) == (1, 1)
        with subscriber_of(link, late, pub.address) as sub:
            assert sub.wait_for_first(DEADLINE_S).counter == 1
        assert same(sent(late), good)


class Renamed(Net):
    """Its encoder goes by another name."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.trunk = self.encoder
        del self.encoder

    def act(self, observation: Tensor) -> Tensor:
        return self.actor(torch.relu(self.trunk(observation))) * self.scale.float() + self.steps


def of_another_dtype(seed: int) -> Net:
    net = Net(seed)
    net.scale = net.scale.float()
    return net


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (Renamed, {"trunk.weight", "trunk.bias"}),
        (lambda seed: Net(seed, hidden=24), {"encoder.weight", "encoder.bias", "actor.weight"}),
        (of_another_dtype, {"scale"}),
    ],
    ids=["renamed", "other shape", "other dtype"],
)
def test_an_actor_with_another_net_is_refused_by_name(link: Link, make: Any, names: set[str]) -> None:
    learner, actor = Net(1), make(2)
    with publisher_of(link, learner) as pub:
        pub.publish()
        with subscriber_of(link, actor, pub.address) as sub:
            with pytest.raises(NeedsNotMet) as refusal:
                sub.wait_for_first(DEADLINE_S)
        assert pub.state().counts["rejected"] == 1
    assert names <= {finding.subject for finding in refusal.value.report.errors()}
    assert is_poisoned(actor)


# ---- what never comes


@pytest.mark.parametrize("listens", [False, True], ids=["nobody listens", "nothing is published"])
def test_waiting_for_weights_that_never_come_ends_at_the_deadline_with_a_poisoned_policy(
    link: Link, listens: bool
) -> None:
    actor = Net(2)
    with publisher_of(link, Net(1)) as pub:
        if not listens:
            pub.close()
        with subscriber_of(link, actor, pub.address) as sub:
            with pytest.raises(TransportTimeout, match=r"within 0\.3 s"):
                sub.wait_for_first(0.3)
            assert sub.version is None
    assert is_poisoned(actor)
