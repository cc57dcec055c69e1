"""Randomised runs under faults: never torn, never older, never unverified; nothing lost, nothing twice; all settle."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import xxhash

import weightkit as wk
import weightkit.digest
from faults.actor import ActorSpec, quick
from faults.fault_run import Link, Outcome, run
from faults.judge import Judge, Look
from faults.ledger import Ledger
from faults.peers import ThreadActor, ThreadLearner
from faults.policies import POISONED, Draw, Policy, act, digest_of, probes_of
from faults.proxy import FaultProxy
from faults.script import Corrupt, Reset
from faults.zygote import Zygote
from weightkit.transports.base import Access

RUNS, BATCHES = 200, 10
PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as opened:
        yield opened


def link_of(seed: int) -> Link:
    """Every fourth run takes the way through shared memory."""
    return "stream" if seed % 4 else "shared memory"


def wait_until(holds: Callable[[], bool], timeout_s: float = PATIENCE_S) -> bool:
    started, pause = time.monotonic(), threading.Event()
    while not holds():
        if time.monotonic() - started > timeout_s:
            return False
        pause.wait(0.005)
    return True


@pytest.mark.parametrize("seed", [3, 8, 9, 14, 17, 20])
def test_a_run_under_faults_settles_and_was_right_throughout(seed: int, zygote: Zygote) -> None:
    before = set(threading.enumerate())
    outcome = run(seed, link=link_of(seed), zygote=zygote)
    assert outcome.holds, outcome
    assert outcome.applied > 0
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_two_hundred_runs_settle_and_were_right_throughout(batch: int, zygote: Zygote) -> None:
    size = RUNS // BATCHES
    seeds = range(1000 + batch * size, 1000 + (batch + 1) * size)
    with ThreadPoolExecutor(2) as two:  # most of a run is waiting
        outcomes = list(two.map(lambda seed: run(seed, link=link_of(seed), zygote=zygote), seeds))
    wrong = [outcome for outcome in outcomes if not outcome.holds]
    assert wrong == []
    happened = counted(outcomes)
    missing = [
        name for name in ("stalled", "blackholed", "reset", "corrupted", "kills", "reconnects") if not happened[name]
    ]
    assert missing == [], "a batch in which these never happen shows nothing"


def counted(outcomes: list[Outcome]) -> Counter[str]:
    """What happened in all of them."""
    happened: Counter[str] = Counter()
    for outcome in outcomes:
        happened.update(outcome.faults)
        happened.update(kills=outcome.kills, reconnects=outcome.reconnects, applied=outcome.applied)
    return happened


# ---- what a run has found once


@pytest.mark.parametrize("shared_memory", [False, True])
def test_a_version_that_waits_while_its_connection_is_lost_is_taken_and_acknowledged_after_it(
    shared_memory: bool,
) -> None:
    learner = ThreadLearner("many", lambda marks: None, shared_memory=shared_memory)
    policy = Policy("many")
    with FaultProxy(learner.address) as proxy:
        access = Access(shared_memory=shared_memory)
        probes = probes_of("many")
        with wk.Subscriber(
            policy, proxy.address, act=act, probes=probes, actor_id="a", backoff=quick(), access=access
        ) as subscriber:

            def received(counter: int) -> bool:
                return subscriber.status()["received"] == counter

            def is_acknowledged(counter: int) -> bool:
                return bool(learner.status()["actors"]["a"]["acked"] == counter)

            learner.publish(Draw(1))
            subscriber.wait_for_first(PATIENCE_S)
            assert wait_until(lambda: is_acknowledged(1))
            learner.publish(Draw(2))
            assert wait_until(lambda: received(2))
            proxy.inject(Reset())
            assert wait_until(lambda: bool(subscriber.status()["reconnects"] and subscriber.status()["connected"]))
            # the next session has begun with its acknowledgement of version 1, before version 2 is taken
            assert wait_until(lambda: is_acknowledged(1))
            version = subscriber.poll()
            assert version is not None
            assert version.counter == 2
            assert wait_until(lambda: is_acknowledged(2))
    learner.close()


def test_a_shared_version_that_waits_is_not_written_over_when_its_connection_is_lost() -> None:
    learner = ThreadLearner("many", lambda marks: None, shared_memory=True)
    policy, mirror = Policy("many"), Policy("many")
    with FaultProxy(learner.address) as proxy:
        probes = probes_of("many")
        with wk.Subscriber(policy, proxy.address, act=act, probes=probes, actor_id="a", backoff=quick()) as subscriber:
            draws = [Draw(seed) for seed in range(8)]
            learner.publish(draws[0])
            subscriber.wait_for_first(PATIENCE_S)
            learner.publish(draws[1])
            assert wait_until(lambda: subscriber.status()["received"] == 2)
            proxy.inject(Reset(), *(Reset(at=0, connection=number) for number in range(proxy.connections, 999)))
            assert wait_until(lambda: not subscriber.status()["connected"])
            assert wait_until(lambda: not learner.status()["actors"]["a"]["connected"])
            for draw in draws[2:]:
                learner.publish(draw)
            version = subscriber.poll()
            assert version is not None
            for draw in draws[: version.counter]:
                draw.apply(mirror)
            assert digest_of(policy) == digest_of(mirror)
    learner.close()


# ---- the judge and the ledger can say no

BLIND_BEHIND_BYTES = 128


class HeadsOnly:
    """A digest of the first bytes alone, however they are handed over: what lies behind them may be anything."""

    def __init__(self, content: Any = b"") -> None:
        self._head = b""
        self.update(content)

    def update(self, content: Any) -> None:
        room = BLIND_BEHIND_BYTES - len(self._head)
        self._head += bytes(memoryview(content).cast("B")[:room]) if len(content) else b""

    def hexdigest(self) -> str:
        return str(xxhash.xxh3_128(self._head).hexdigest())


class BlindXxhash:
    xxh3_128 = HeadsOnly


@pytest.mark.parametrize("blind", [False, True])
def test_flipped_bits_of_weights_are_seen_by_the_judge_only_where_weightkit_does_not_verify(
    monkeypatch: pytest.MonkeyPatch, blind: bool
) -> None:
    if blind:
        monkeypatch.setattr(weightkit.digest, "xxhash", BlindXxhash)
    judge, mirror = Judge(), Policy("large")
    learner = ThreadLearner("large", lambda marks: None)
    judge.started(learner.run_id)

    def publish(seed: int) -> int:
        Draw(seed).apply(mirror)
        judge.publishes(learner.run_id, seed, digest_of(mirror))
        return learner.publish(Draw(seed))

    try:
        # in the middle of the payload, where a message is nothing but numbers
        with FaultProxy(learner.address, *(Corrupt(at=1_000_000 + 3 * i, bit=i % 8) for i in range(40))) as proxy:
            spec = ActorSpec("a", 0, "large", proxy.address, produce=False)
            actor = ThreadActor(spec, judge.saw, golden=False)  # the golden probe would see some of them, too
            try:
                for seed in range(1, 4):
                    counter = publish(seed)
                    assert wait_until(lambda c=counter: actor.last.counter == c)  # type: ignore[misc]
                corrupted = proxy.counts()["corrupted"]
            finally:
                actor.close()
    finally:
        learner.close()
    assert corrupted >= 40
    assert (judge.torn > 0) == blind
    assert judge.older == judge.unverified == 0
    assert (actor.last.discarded + actor.last.repaired > 0) == (not blind)


FIRST = Look("digest 1", "run", 1)


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ([FIRST, replace(FIRST, digest="digest 2", counter=2)], {}),
        ([Look(POISONED), FIRST, FIRST], {}),
        ([FIRST, replace(FIRST, digest="digest 0")], {"torn": 1}),
        ([replace(FIRST, digest=POISONED)], {"torn": 1}),
        ([FIRST, replace(FIRST, digest="digest 2")], {"unverified": 1}),
        ([Look("digest 1")], {"unverified": 1}),
        ([Look("digest 0")], {"unverified": 1}),
        ([replace(FIRST, run_id="no run")], {"unverified": 1}),
        ([replace(FIRST, digest="digest 2", counter=2), FIRST], {"older": 1}),
        ([replace(FIRST, run_id="next", digest="digest 3"), FIRST], {"older": 1}),
        ([FIRST, Look(POISONED)], {"older": 1}),
        ([replace(FIRST, balanced=False)], {"unbalanced": 1}),
    ],
)
def test_the_judge_says_what_is_wrong_and_nothing_else(looks: list[Look], said: dict[str, int]) -> None:
    judge = Judge()
    judge.started("run")
    judge.started("next")
    for run_id, counter, digest in (("run", 1, "digest 1"), ("run", 2, "digest 2"), ("next", 1, "digest 3")):
        judge.publishes(run_id, counter, digest)
    for look in looks:
        judge.saw("a", look)
    names = ("torn", "older", "unverified", "unbalanced")
    assert {name: getattr(judge, name) for name in names} == dict.fromkeys(names, 0) | said


def test_the_ledger_counts_what_was_lost_and_what_came_twice() -> None:
    ledger = Ledger()
    ledger.take([("a", 0, 1, 1), ("a", 0, 2, 1)])
    ledger.take([("a", 0, 2, 2)])
    assert (ledger.total, ledger.duplicates) == (2, 1)
    ledger.settled(0, Look(POISONED, produced=2, accepted=2))
    assert (ledger.lost(), ledger.trouble) == (0, [])
    ledger.settled(0, Look(POISONED, produced=3, accepted=3))
    assert ledger.lost() == 1
    assert len(ledger.trouble) == 1
    ledger.ended(0, Look(POISONED, produced=1, accepted=1), was_killed=False)
    assert len(ledger.trouble) == 2
    assert ledger.by_epoch({0: "epoch"}) == {"a/epoch": 2}
