"""One flipped bit anywhere in what an actor and a learner say to each other: it costs time, never more."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import weightkit as wk
from faults.actor import quick
from faults.judge import Judge, Look
from faults.learner import Learner
from faults.policies import POISONED, Draw, Policy, act, digest_of, is_poisoned, probes_of
from faults.proxy import FaultProxy
from faults.script import Corrupt, Direction
from weightkit.transports.base import Access

KIND = "tiny"
SPAN_BYTES = {"up": 3_500, "down": 12_000}  # of the handshake, the first version and the next one
SETTLE_S = 15.0
SIZE = 50


@pytest.fixture(scope="module")
def learner() -> Iterator[Learner]:
    opened = Learner(KIND, lambda marks: None)
    yield opened
    opened.close()


class Flip:
    """An actor behind a proxy that flips one bit of its first connection, over two versions."""

    def __init__(self, learner: Learner, name: str, fault: Corrupt) -> None:
        self.learner, self.name, self.fault = learner, name, fault
        self.judge, self.policy, self.mirror = Judge(), Policy(KIND), Policy(KIND)
        self.judge.started(learner.run_id)

    def publish(self) -> int:
        draw = Draw(self.learner.status()["counter"] + 1)
        draw.apply(self.mirror)
        self.judge.publishes(self.learner.run_id, draw.seed, digest_of(self.mirror))
        return self.learner.publish(draw)

    def wrong(self) -> str:
        """What did not come right, "" for nothing."""
        self.publish()
        access = Access(shared_memory=False)
        with FaultProxy(self.learner.address, self.fault) as proxy:
            subscriber = wk.Subscriber(
                self.policy,
                proxy.address,
                act=act,
                probes=probes_of(KIND),
                actor_id=self.name,
                backoff=quick(),
                access=access,
            )
            with subscriber:
                try:
                    return self._follow(subscriber, "first") or self._follow(subscriber, "next")
                except wk.WeightkitError as error:
                    return f"{type(error).__name__}: {error}"

    def _follow(self, subscriber: wk.Subscriber, which: str) -> str:
        counter = self.publish() if which == "next" else self.learner.status()["counter"]
        deadline, pause = time.monotonic() + SETTLE_S, threading.Event()
        while True:
            subscriber.poll()
            self._look(subscriber)
            status = self.learner.status()
            known = status["actors"].get(self.name, {})
            held = 0 if subscriber.version is None else subscriber.version.counter
            if (held, known.get("acked"), known.get("root")) == (counter, counter, status["root"]):
                return self._judged()
            if time.monotonic() > deadline:
                trouble = subscriber.status()["trouble"]
                return (
                    f"{which} version: {held} of {counter} held, {known.get('acked')} known to the learner: {trouble}"
                )
            pause.wait(0.004)

    def _look(self, subscriber: wk.Subscriber) -> None:
        version = subscriber.version
        if version is None:
            self.judge.saw("a", Look(POISONED if is_poisoned(self.policy) else digest_of(self.policy)))
        else:
            self.judge.saw("a", Look(digest_of(self.policy), version.run_id, version.counter))

    def _judged(self) -> str:
        counts: dict[str, Any] = {name: getattr(self.judge, name) for name in ("torn", "older", "unverified")}
        return str(counts) if any(counts.values()) else ""


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(4))
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_flipped_bit_anywhere_is_survived_and_never_acted_with(
    learner: Learner, direction: Direction, batch: int
) -> None:
    rng = random.Random(batch)
    wrong: dict[str, str] = {}
    for index in range(SIZE):
        at, bit = rng.randrange(SPAN_BYTES[direction]), rng.randrange(8)
        name = f"{direction}-{batch}-{index}"
        what = Flip(learner, name, Corrupt(at=at, bit=bit, direction=direction, connection=0)).wrong()
        if what:
            wrong[f"bit {bit} of byte {at}"] = what
    assert not wrong, "\n".join(f"{where}: {what}" for where, what in wrong.items())
