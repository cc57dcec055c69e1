"""A peer that is gone without a word is noticed by both sides in time, and nobody else suffers for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from faults.actor import ActorSpec
from faults.judge import Judge
from faults.peers import ProcessActor, ThreadActor, ThreadLearner
from faults.policies import Draw
from faults.proxy import FaultProxy
from faults.script import Blackhole, Direction
from faults.zygote import Zygote

NOTICED_S = 5.0
PATIENCE_S = 20.0
EVERY_S = 0.05


def wait_until(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
    """How long it took until ``holds()``, in seconds; infinite where it did not in time."""
    started, pause = time.monotonic(), threading.Event()
    while not holds():
        if time.monotonic() - started > timeout_s:
            return float("inf")
        pause.wait(0.01)
    return time.monotonic() - started


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    with Zygote() as opened:
        yield opened


@pytest.fixture
def learner() -> Iterator[ThreadLearner]:
    opened = ThreadLearner("many", lambda marks: None)
    opened.publish(Draw(1))
    yield opened
    opened.close()


def connected(learner: ThreadLearner, name: str) -> bool:
    return bool(learner.status()["actors"].get(name, {}).get("connected"))


@pytest.mark.parametrize("direction", [None, "up", "down"])
def test_a_half_open_peer_is_noticed_in_time_by_whoever_hears_nothing(
    learner: ThreadLearner, direction: Direction | None
) -> None:
    noticed: dict[str, float] = {}
    with FaultProxy(learner.address) as proxy:
        actor = ThreadActor(ActorSpec("a", 0, "many", proxy.address, produce=False), lambda name, look: None)
        try:
            assert wait_until(lambda: actor.last.counter == 1 and connected(learner, "a")) < PATIENCE_S
            proxy.inject(Blackhole(direction=direction))
            learner_sees = threading.Thread(
                target=lambda: noticed.update(learner=wait_until(lambda: not connected(learner, "a")))
            )
            learner_sees.start()
            noticed["actor"] = wait_until(lambda: not actor.last.connected)
            learner_sees.join()
            deaf = {None: ("actor", "learner"), "up": ("learner",), "down": ("actor",)}[direction]
            assert {side: noticed[side] for side in deaf if noticed[side] >= NOTICED_S} == {}
            learner.publish(Draw(2))
            proxy.heal()
            assert wait_until(lambda: actor.last.counter == 2) < NOTICED_S, "it comes back"
        finally:
            actor.close()


class Cadence:
    """Publishes every 50 ms on a thread, and tells how many versions an actor took while something happened."""

    def __init__(self, learner: ThreadLearner, actor: ThreadActor) -> None:
        self._learner, self._actor = learner, actor
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._seed = 100

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            self._seed += 1
            self._learner.publish(Draw(self._seed))

    def rate(self, wait: Callable[[], object]) -> float:
        """Versions per second that the learner went on by in the actor's policy while ``wait`` ran."""
        started, before = time.monotonic(), self._actor.last.counter
        wait()
        return (self._actor.last.counter - before) / (time.monotonic() - started)

    def __enter__(self) -> Cadence:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()


@pytest.mark.parametrize("stopped_s", [0.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_stopped_actor_is_noticed_costs_nobody_anything_and_recovers(
    learner: ThreadLearner, zygote: Zygote, stopped_s: float
) -> None:
    judge = Judge()
    stopped = ProcessActor(
        zygote, ActorSpec("stopped", 0, "many", learner.address, produce=False), lambda n, look: None
    )
    other = ThreadActor(ActorSpec("other", 1, "many", learner.address, produce=False), judge.saw)
    try:
        assert wait_until(lambda: min(stopped.last.counter, other.last.counter) == 1) < PATIENCE_S
        with Cadence(learner, other) as cadence:
            assert wait_until(lambda: stopped.last.counter > 3) < PATIENCE_S
            before = cadence.rate(lambda: threading.Event().wait(1.0))
            os.kill(stopped.pid, signal.SIGSTOP)
            noticed: list[float] = []
            meanwhile = cadence.rate(
                lambda: noticed.append(
                    wait_until(lambda: not connected(learner, "stopped"), max(stopped_s, PATIENCE_S))
                )
            )
            threading.Event().wait(max(0.0, stopped_s - noticed[0]))
            held = stopped.last.counter
            os.kill(stopped.pid, signal.SIGCONT)
            assert noticed[0] < NOTICED_S
            assert meanwhile > 0.7 * before
            back_at = learner.status()["counter"]
            assert wait_until(lambda: stopped.last.counter >= back_at > held) < NOTICED_S
    finally:
        stopped.close()
        other.close()
