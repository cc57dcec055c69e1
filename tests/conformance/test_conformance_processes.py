"""On every link: one side is killed, without a word, and the other goes on."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from conformance.links import Link
from conformance.nursery import Child, Nursery
from conformance.pairs import (
    DEADLINE_S,
    Net,
    fill,
    follow,
    is_connected,
    learners_view,
    observations,
    publisher_of,
    readers,
    same,
    sent,
    sessions,
    subscriber_of,
    wait_until,
)
from strategies import act
from weightkit.sync.publisher import Publisher
from weightkit.transports.base import Backoff

RECONNECT_S = 5.0


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


@pytest.fixture
def processes(link: Link, request: pytest.FixtureRequest) -> Nursery | None:
    """What starts processes, None on the link that stays within one."""
    return None if link.name == "memory" else request.getfixturevalue("nursery")


def open_things() -> set[str]:
    """Sockets, and memory to be shared, that this process has open."""
    gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith(("socket:", "/memfd:weightkit")):
            found.add(target)
    return found


def assert_nothing_is_left(before: set[str], *children: Child) -> None:
    assert wait_until(lambda: open_things() <= before, 5), open_things() - before
    assert [name for name in os.listdir("/dev/shm") if "weightkit" in name] == []
    for child in children:
        assert wait_until(lambda pid=child.pid: not Path(f"/proc/{pid}").exists(), 5)


# ---- the actor is killed


class InProcess:
    """The nearest that one process has to a killed actor: its connection is dropped, and it says no more."""

    def __init__(self, link: Link, pub: Publisher) -> None:
        self._sub = subscriber_of(link, Net(2), pub.address, "victim")
        self._sub.wait_for_first(DEADLINE_S)

    def kill(self) -> None:
        connection = self._sub._connection
        self._sub._stopping.set()
        assert connection is not None
        connection.close()
        self._sub.close()


def live_through_a_killed_actor(link: Link, processes: Nursery | None) -> list[Child]:
    learner, other = Net(1), Net(3)
    killed: list[Child] = []
    with publisher_of(link, learner) as pub, subscriber_of(link, other, pub.address, "other") as sub:
        pub.publish()
        follow(sub, 1)
        if processes is None:
            victim: Child | InProcess = InProcess(link, pub)
        else:
            victim = processes.child(role="actor", actor_id="victim", address=pub.address, access=asdict(link.actor))
            assert victim.tell(counter=1) == {"root": pub.state().root, "path": link.path}
            killed.append(victim)
        assert pub.wait_acked("victim", 1, timeout_s=DEADLINE_S)
        victim.kill()
        assert wait_until(lambda: not is_connected(pub, "victim"), RECONNECT_S)
        assert wait_until(lambda: len(sessions(pub)) == 1)
        assert readers(pub) <= sessions(pub)
        for counter in range(2, 8):
            fill(learner, counter)
            pub.publish()
            follow(sub, counter)
            assert same(sent(other), sent(learner))
        assert pub.wait_acked("other", 7, timeout_s=DEADLINE_S)
        assert learners_view(pub, "victim").acked == 1
    return killed


def test_a_killed_actor_is_let_go_and_the_others_go_on(link: Link, processes: Nursery | None) -> None:
    before = open_things()
    assert_nothing_is_left(before, *live_through_a_killed_actor(link, processes))


# ---- the learner is killed


class LearnerInProcess:
    """The nearest that one process has to a killed learner: nobody answers at its address, and nothing was said."""

    def __init__(self, link: Link, seed: int, bind: str) -> None:
        self._net = Net(seed)
        self._pub = publisher_of(link, self._net, bind=bind)
        self.start = {"address": self._pub.address, "run_id": self._pub.run_id}

    def tell(self, *, seed: int) -> None:
        fill(self._net, seed)
        self._pub.publish()

    def kill(self) -> None:
        self._pub._server.close()
        self._pub.close()


def learner_of(link: Link, processes: Nursery | None, seed: int, bind: str) -> Child | LearnerInProcess:
    if processes is None:
        return LearnerInProcess(link, seed, bind)
    return processes.child(role="learner", seed=seed, bind=bind, access=asdict(link.learner))


def tensors_of(seed: int) -> dict[str, torch.Tensor]:
    return sent(Net(seed))


def live_through_a_killed_learner(link: Link, processes: Nursery | None, attempts: int) -> list[Child]:
    """The learner is killed, and started again after the actor has tried ``attempts`` times to reach it."""
    actor = Net(2)
    observation = observations()[0]
    with ExitStack() as stack:
        first = learner_of(link, processes, 10, link.bind)
        stack.callback(lambda: first.kill() if not killed else None)
        killed: list[Child | LearnerInProcess] = []
        address, run_id = first.start["address"], first.start["run_id"]
        sub = stack.enter_context(subscriber_of(link, actor, address, backoff=Backoff()))
        first.tell(seed=11)
        follow(sub, 1)
        assert same(sent(actor), tensors_of(11))
        first.tell(seed=12)
        assert wait_until(lambda: sub.status()["received"] == 2)
        action = act(actor, observation)
        first.kill()
        killed.append(first)
        assert torch.equal(act(actor, observation), action)
        assert follow(sub, 2) == [2]
        assert same(sent(actor), tensors_of(12))
        action = act(actor, observation)
        assert wait_until(lambda: sub._counts["reconnects"] >= attempts)
        assert not sub.status()["connected"]
        assert torch.equal(act(actor, observation), action)

        second = learner_of(link, processes, 20, address)
        stack.callback(second.kill)
        listens_since = time.monotonic()
        assert second.start["run_id"] != run_id
        assert wait_until(lambda: sub.status()["connected"] is True, RECONNECT_S)
        assert time.monotonic() - listens_since < RECONNECT_S
        assert torch.equal(act(actor, observation), action)
        second.tell(seed=21)
        assert follow(sub, 1, run_id=second.start["run_id"]) == [1]
        assert same(sent(actor), tensors_of(21))
        assert sub.status()["path"] == link.path
    return [child for child in (first, second) if isinstance(child, Child)]


@pytest.mark.parametrize("attempts", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_an_actor_outlives_a_killed_learner_and_follows_the_next_within_5_seconds(
    link: Link, processes: Nursery | None, attempts: int
) -> None:
    before = open_things()
    assert_nothing_is_left(before, *live_through_a_killed_learner(link, processes, attempts))
