"""On every link: who comes late, slowly, often or again, and what is not sent twice."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
import torch

from conformance.links import Link
from conformance.pairs import (
    DEADLINE_S,
    Net,
    fill,
    follow,
    is_connected,
    learners_view,
    publisher_of,
    readers,
    same,
    sent,
    sessions,
    slots,
    subscriber_of,
    wait_until,
)
from conformance.wires import Gate, Wire
from weightkit.sync import service, subscriber
from weightkit.sync.publisher import Publisher
from weightkit.sync.snapshots import MOST_SLOTS, Slot
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import connect
from weightkit.transports.base import Demand, LiveState, Question, WatchMessage


def push(pub: Publisher, learner: Net, count: int = 1) -> int:
    """Publish ``count`` versions, in each of which every tensor is another; the counter of the last."""
    for _ in range(count):
        fill(learner, pub.state().counter + 1)
        pub.publish()
    return pub.state().counter


def test_weights_go_the_way_that_the_link_names(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address) as sub:
        assert push(pub, learner) == 1
        assert follow(sub, 1) == [1]
        assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
        link.assert_used(pub, sub)
        assert same(sent(actor), sent(learner))


# ---- late, slow, fast


def alive(pub: Publisher) -> int:
    """How many versions this learner's memory has room for, those given up but not yet let go counted too."""
    gc.collect()
    return sum(type(found) is Slot and found.arena.manifest is pub.manifest for found in gc.get_objects())


def test_who_comes_late_gets_the_newest_version_at_once(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner, heartbeat_s=30.0) as pub:
        newest = push(pub, learner, 3)
        with subscriber_of(link, actor, pub.address) as sub:
            assert sub.wait_for_first(4.0).counter == newest
            assert same(sent(actor), sent(learner))
            assert pub.wait_acked("a", newest, timeout_s=DEADLINE_S)
            assert sub.lag == learners_view(pub).lag == 0


def test_who_polls_seldom_sees_growing_versions_and_ends_at_the_newest(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address) as sub:
        came = []
        for _ in range(4):
            newest = push(pub, learner, 8)
            came += follow(sub, newest - 7)
            assert len(slots(pub)) <= MOST_SLOTS
        came += follow(sub, newest)
        assert same(sent(actor), sent(learner))
        assert all(earlier < later for earlier, later in pairwise(came))
        assert len(came) < newest
        assert pub.wait_acked("a", newest, timeout_s=DEADLINE_S)
        assert wait_until(lambda: readers(pub) <= (set() if link.chunked else sessions(pub)))


def test_a_blocked_actor_holds_up_nobody_and_costs_no_memory(link: Link) -> None:
    learner, slow, fast = Net(1), Net(2), Net(3)
    gate = Gate(1)
    with publisher_of(link, learner) as pub, ExitStack() as stack:
        push(pub, learner)
        late = stack.enter_context(subscriber_of(link, slow, pub.address, "slow", connector=Wire(link, gate)))
        stack.callback(gate.open)
        assert gate.reached.wait(DEADLINE_S)
        sub = stack.enter_context(subscriber_of(link, fast, pub.address, "fast"))
        for counter in range(2, 12):
            push(pub, learner)
            follow(sub, counter)
            assert same(sent(fast), sent(learner))
            assert pub.wait_acked("fast", counter, timeout_s=DEADLINE_S)
            assert len(slots(pub)) <= MOST_SLOTS
        assert alive(pub) <= MOST_SLOTS
        assert late.version is None
        gate.open()
        came = follow(late, 11)
        assert all(earlier < later for earlier, later in pairwise(came))
        assert same(sent(slow), sent(learner))


def test_blocked_actors_cost_at_most_a_version_each(link: Link) -> None:
    learner, blocked = Net(1), 6
    with publisher_of(link, learner) as pub, ExitStack() as stack:
        late = []
        for index in range(blocked):
            push(pub, learner)
            gate = Gate(1)
            wire = Wire(link, gate)
            late.append(stack.enter_context(subscriber_of(link, Net(2), pub.address, f"a{index}", connector=wire)))
            stack.callback(gate.open)
            assert gate.reached.wait(DEADLINE_S)
        newest = push(pub, learner, 3)
        assert len(slots(pub)) <= MOST_SLOTS
        assert alive(pub) <= MOST_SLOTS + blocked
        stack.pop_all().close()
        assert wait_until(lambda: readers(pub) == sessions(pub) == set())
        with subscriber_of(link, Net(3), pub.address) as sub:
            assert sub.wait_for_first(DEADLINE_S).counter == newest
        assert alive(pub) <= MOST_SLOTS


def test_many_actors_that_fall_behind_stay_on_their_way(link: Link) -> None:
    learner, nets = Net(1), [Net(index) for index in range(2, 8)]
    gates = [Gate(0) for _ in nets]
    wires = [Wire(link, gate) for gate in gates]
    with publisher_of(link, learner) as pub, ExitStack() as stack:
        subs = []
        for index, (net, gate, wire) in enumerate(zip(nets, gates, wires, strict=True)):
            gate.open()
            subs.append(stack.enter_context(subscriber_of(link, net, pub.address, f"a{index}", connector=wire)))
            stack.callback(gate.open)
        newest = push(pub, learner)
        for _ in range(2):
            for gate, wire in zip(gates, wires, strict=True):
                assert wait_until(lambda wire=wire, newest=newest: wire.receipts[-1:] == [newest])
                gate.close()
                newest = push(pub, learner)
                assert gate.reached.wait(DEADLINE_S)
            newest = push(pub, learner, 2)
            for gate in gates:
                gate.open()
            for sub, net in zip(subs, nets, strict=True):
                follow(sub, newest)
                assert same(sent(net), sent(learner))
        assert {sub.status()["path"] for sub in subs} == {link.path}


# ---- coming and going


def come_and_go(link: Link, rounds: int, actors: int = 8) -> None:
    """Actors join and leave while the learner publishes; the last session of each stays until all hold the newest."""
    learner = Net(1)
    published: dict[int, dict[str, torch.Tensor]] = {}
    turn, over = threading.Event(), threading.Event()

    def visit(index: int, pub: Publisher) -> tuple[Net, Subscriber]:
        for number in range(rounds):
            net = Net(100 + index)
            with subscriber_of(link, net, pub.address, f"a{index}-{number}") as sub:
                version = sub.wait_for_first(DEADLINE_S)
                assert same(sent(net), published[version.counter])
            turn.set()
        net = Net(100 + index)
        sub = subscriber_of(link, net, pub.address, f"a{index}")
        sub.wait_for_first(DEADLINE_S)
        while not over.is_set():
            sub.poll(0.02)
        follow(sub, max(published))
        return net, sub

    def publish(pub: Publisher) -> None:
        fill(learner, len(published) + 1)
        published[len(published) + 1] = sent(learner)
        pub.publish()

    with publisher_of(link, learner) as pub:
        publish(pub)
        with ThreadPoolExecutor(actors) as pool:
            visits = [pool.submit(visit, index, pub) for index in range(actors)]
            try:
                while learned(pub) < actors and not any(visit.done() for visit in visits):
                    turn.wait(0.05)
                    turn.clear()
                    publish(pub)
                publish(pub)
            finally:
                over.set()
            present = [visit.result() for visit in visits]
        try:
            newest = max(published)
            assert all(same(sent(net), published[newest]) for net, _ in present)
            assert all(pub.wait_acked(sub.actor_id, newest, timeout_s=DEADLINE_S) for _, sub in present)
        finally:
            for _, sub in present:
                sub.close()
        assert wait_until(lambda: sessions(pub) == readers(pub) == set())
        assert wait_until(lambda: not any(actor.connected for actor in pub.state().actors))
        assert len(slots(pub)) <= MOST_SLOTS


def learned(pub: Publisher) -> int:
    """How many actors have come to stay, and act with some version."""
    return sum(actor.acked > 0 and "-" not in actor.actor_id for actor in pub.state().actors)


def test_actors_that_come_and_go_leave_nothing_and_all_present_hold_the_newest(link: Link) -> None:
    come_and_go(link, rounds=2)


@pytest.mark.slow
def test_hundreds_of_actors_that_come_and_go_leave_nothing(link: Link) -> None:
    come_and_go(link, rounds=30)


# ---- what did not change


@pytest.mark.parametrize("overtaken", [False, True], ids=["before the Ack", "after the Ack"])
def test_what_did_not_change_is_not_sent_again_whenever_the_receipt_arrives(link: Link, overtaken: bool) -> None:
    learner, actor = Net(1), Net(2)

    def before_receipt(counter: int) -> None:
        assert not overtaken or pub.wait_acked("a", counter, timeout_s=3)

    wire = Wire(link, holds_acks=not overtaken, before_receipt=before_receipt)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address, connector=wire) as sub:

        def sent_for(counter: int) -> int:
            before = learners_view(pub).sent_bytes if is_connected(pub) else 0
            pub.publish()
            follow(sub, counter)
            assert wait_until(lambda: overtaken or wire.receipts[-1:] == [counter])
            wire.deliver_acks()
            assert pub.wait_acked("a", counter, timeout_s=DEADLINE_S)
            assert wait_until(lambda: wire.receipts[-1:] == [counter])
            assert same(sent(actor), sent(learner))
            return learners_view(pub).sent_bytes - before

        whole = sent_for(1)
        with torch.no_grad():
            learner.encoder.bias.add_(1)
        one, none = sent_for(2), sent_for(3)
        assert learners_view(pub).nacks == 0
        assert wait_until(lambda: readers(pub) == set())
    changed = learner.encoder.bias.nbytes
    payload = pub.manifest.payload_bytes
    assert (whole, one, none) == ((payload, changed, 0) if link.chunked else (0, 0, 0))


def test_an_actor_that_comes_back_is_not_sent_what_it_has(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    wire = Wire(link)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address, connector=wire) as sub:
        pub.publish()
        follow(sub, 1)
        wire.cut()
        assert wait_until(lambda: not is_connected(pub))
        with torch.no_grad():
            learner.actor.bias.add_(1)
        pub.publish()
        wire.mend()
        follow(sub, 2)
        assert same(sent(actor), sent(learner))
        assert learners_view(pub).sent_bytes == (learner.actor.bias.nbytes if link.chunked else 0)


# ---- what somebody who looks on asks for


def asked(link: Link, pub: Publisher, sub: Subscriber, question: Question) -> LiveState:
    """The answer of an actor that goes on polling."""
    connection = connect(pub.address, access=link.actor)
    with ThreadPoolExecutor(1) as pool:
        try:
            answer = pool.submit(connection.ask, question)
            while not answer.done():
                sub.poll(0.02)
            return answer.result()
        finally:
            connection.close()


@pytest.fixture
def _short_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits half a minute for what does not come."""
    monkeypatch.setattr(subscriber, "SCRAMBLED_S", 1.5)
    monkeypatch.setattr(service, "DEMAND_S", 2.0)


@pytest.mark.usefixtures("_short_of_patience")
@pytest.mark.parametrize("came_back", [False, True], ids=["in one session", "after coming back"])
def test_a_scramble_overwrites_every_tensor_and_brings_every_tensor_back(
    link: Link, came_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, actor = Net(1), Net(2)
    noise: list[dict[str, torch.Tensor]] = []
    wire = Wire(link)
    with publisher_of(link, learner) as pub:
        with subscriber_of(link, actor, pub.address, connector=wire, simulated=True) as sub:
            original = sub._policy.scramble

            def scramble(manifest: Any) -> tuple[str, ...]:
                names = original(manifest)
                noise.append(sent(actor))
                return names

            monkeypatch.setattr(sub._policy, "scramble", scramble)
            push(pub, learner)
            follow(sub, 1)
            assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
            if came_back:
                wire.interrupt()
                assert wait_until(lambda: sub.status()["reconnects"] != 0 and is_connected(pub))
                assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
            state = asked(link, pub, sub, Question("a", scramble=True))
            names = set(sent(learner))
            assert (set(state.scrambled), set(state.equal), state.differing) == (names, names, ())
            assert state.unanswered == ""
            assert not any(torch.equal(noise[0][name], tensor) for name, tensor in sent(learner).items())
            assert same(sent(actor), sent(learner))
            push(pub, learner)
            follow(sub, 2)
            assert same(sent(actor), sent(learner))


def test_an_actor_that_may_move_something_real_is_not_scrambled(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address) as sub:
        push(pub, learner)
        follow(sub, 1)
        state = asked(link, pub, sub, Question("a", scramble=True))
        assert "real robot" in state.unanswered
        assert same(sent(actor), sent(learner))


@pytest.mark.usefixtures("_short_of_patience")
def test_questions_that_come_together_are_all_answered(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    heard: list[WatchMessage] = []

    def listen(messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in messages:
            yield message
            heard.append(message)

    wire = Wire(link, listen)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address, connector=wire) as sub:
        push(pub, learner)
        follow(sub, 1)
        connections = [connect(pub.address, access=link.actor) for _ in range(3)]
        try:
            with ThreadPoolExecutor(3) as pool:
                answers = [pool.submit(connection.ask, Question("a")) for connection in connections]
                assert wait_until(lambda: sum(isinstance(message, Demand) for message in heard) == 3)
                while not all(answer.done() for answer in answers):
                    sub.poll(0.02)
                assert [answer.result().unanswered for answer in answers] == ["", "", ""]
        finally:
            for connection in connections:
                connection.close()


# ---- acknowledgements and lost connections


def test_a_version_applied_while_the_connection_was_down_is_acknowledged_later(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    wire = Wire(link)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address, connector=wire) as sub:
        push(pub, learner)
        assert wait_until(lambda: sub.status()["received"] == 1)
        wire.cut()
        assert wait_until(lambda: not is_connected(pub))
        assert follow(sub, 1) == [1]
        assert learners_view(pub).acked == 0
        wire.mend()
        assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
        assert learners_view(pub).root == pub.state().root


def test_a_version_received_before_a_reconnect_and_applied_after_it_is_acknowledged(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    wire = Wire(link)
    with publisher_of(link, learner, heartbeat_s=0.05) as pub:
        with subscriber_of(link, actor, pub.address, connector=wire) as sub:
            push(pub, learner)
            assert wait_until(lambda: sub.status()["received"] == 1)
            wire.cut()
            assert wait_until(lambda: not is_connected(pub))
            wire.mend()
            assert wait_until(lambda: is_connected(pub))
            assert follow(sub, 1) == [1]
            assert pub.wait_acked("a", 1, timeout_s=2)


def test_a_version_received_before_the_connection_was_lost_can_be_applied_however_long_it_is_down(link: Link) -> None:
    learner, actor = Net(1), Net(2)
    wire = Wire(link)
    with publisher_of(link, learner) as pub, subscriber_of(link, actor, pub.address, connector=wire) as sub:
        push(pub, learner)
        follow(sub, 1)
        assert pub.wait_acked("a", 1, timeout_s=DEADLINE_S)
        push(pub, learner)
        published = sent(learner)
        assert wait_until(lambda: sub.status()["received"] == 2)
        wire.cut()
        assert wait_until(lambda: not is_connected(pub))
        newest = push(pub, learner, 3)
        if sub.poll() is not None:
            assert same(sent(actor), published)
        wire.mend()
        follow(sub, newest)
        assert same(sent(actor), sent(learner))
