"""One randomised run: a learner, actors, a proxy before each, faults from a seed, then peace, in which all must settle.

The seed fixes the script: who takes part, what is done and in which order. When a fault falls between two bytes that
are under way is up to the machine, so a run that fails once may pass the next time. Run it alone with
``python -m faults.fault_run SEED [LINK]``.
"""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from faults.actor import ActorSpec
from faults.judge import Judge
from faults.ledger import Ledger
from faults.peers import ActorPeer, LearnerPeer, ProcessActor, ProcessLearner, ThreadActor, ThreadLearner
from faults.policies import Draw, Policy, digest_of
from faults.proxy import FaultProxy
from faults.script import BOTH, Blackhole, Direction, Fault, Placed, Refuse, Reset, Slow, Stall, draw_fault
from faults.zygote import Zygote

Link = Literal["stream", "shared memory"]

SETTLE_S = 20.0
STEP_PAUSE_S = 0.12
SMALL_ROOM_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to. ``torn`` to ``unverified`` count looks; ``lost`` and ``duplicates`` count transitions.

    ``unverified``: weights that are not of the version that the subscriber names, or any before the first one.
    ``settle_s`` is infinite where the run never settled; ``trouble`` says what it was that did not hold.
    """

    seed: int
    link: Link
    torn: int
    older: int
    unverified: int
    applied: int
    looks: int
    nacks: int
    discarded: int
    repaired: int
    reconnects: int
    accepted: int
    lost: int
    duplicates: int
    balance_ok: bool
    settle_s: float
    kills: int
    faults: dict[str, int] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything is as it must be."""
        wrong = self.torn + self.older + self.unverified + self.lost + self.duplicates
        return not wrong and not self.trouble and self.balance_ok and math.isfinite(self.settle_s)


def run(seed: int, *, link: Link = "stream", zygote: Zygote | None = None) -> Outcome:
    """The run of ``seed``. Without a ``zygote`` nobody is killed: processes are left out of the script."""
    with ExitStack() as stack:
        return _Run(seed, link, zygote, stack).outcome()


class _Run:
    def __init__(self, seed: int, link: Link, zygote: Zygote | None, stack: ExitStack) -> None:
        self._seed, self._link, self._zygote, self._stack = seed, link, zygote, stack
        self._rng = rng = random.Random(seed)
        self._kind = rng.choice(("large", "many", "wide"))
        self._own_learner = rng.random() < 0.25
        self._own_actors = rng.random() < 0.35
        self._room = rng.choice((0, 0, SMALL_ROOM_BYTES))
        self._judge = Judge()
        self._ledger = Ledger()
        self._trouble: list[str] = []
        self._kills = self._nacks = 0
        self._ended: list[ActorPeer] = []
        self._waiting = threading.Event()
        self._counter = self._starts = 0
        self._actors: list[ActorPeer] = []
        self._epochs: dict[int, str] = {}
        self._learner: LearnerPeer = self._start_learner()
        stack.callback(self._close)
        self._proxies = [stack.enter_context(FaultProxy(self._learner.address)) for _ in range(rng.randint(1, 3))]
        for index in range(len(self._proxies)):
            self._actors.append(self._start_actor(index))

    # ---- who takes part

    def _start_learner(self) -> LearnerPeer:
        shared = self._link == "shared memory"
        known = self._ledger.by_epoch(self._epochs)
        learner: LearnerPeer
        if self._own_learner and self._zygote is not None:
            learner = ProcessLearner(self._zygote, self._kind, self._ledger.take, accepted=known, shared_memory=shared)
        else:
            learner = ThreadLearner(self._kind, self._ledger.take, accepted=known, shared_memory=shared)
        self._judge.started(learner.run_id)
        self._mirror = Policy(self._kind)  # what a learner publishes first follows from its draws alone
        self._counter = 0
        return learner

    def _start_actor(self, index: int) -> ActorPeer:
        spec = ActorSpec(
            f"actor{index}",
            self._starts,
            self._kind,
            self._proxies[index].address,
            self._link == "shared memory",
            self._room,
        )
        self._starts += 1
        actor: ActorPeer
        if self._own_actors and self._zygote is not None:
            actor = ProcessActor(self._zygote, spec, self._judge.saw)
        else:
            actor = ThreadActor(spec, self._judge.saw)
        self._epochs[spec.number] = actor.epoch
        return actor

    # ---- the steps of a script

    def _publish(self) -> None:
        # the first version must be drawn whole, since a new learner begins with numbers of its own
        draw = Draw(self._rng.getrandbits(32), 1 if not self._counter else self._rng.choice((1, 1, 3, 100)))
        draw.apply(self._mirror)
        self._counter += 1
        self._judge.publishes(self._learner.run_id, self._counter, digest_of(self._mirror))
        self._learner.publish(draw)

    def _burst(self) -> None:
        for _ in range(self._rng.randint(3, 12)):
            self._publish()

    def _publish_nan(self) -> None:
        if self._counter and not self._learner.publish_nan():
            self._trouble.append("what is not finite was published")

    def _fault(self) -> None:
        proxy = self._rng.choice(self._proxies)
        proxy.inject(*self._drawn(proxy))

    def _drawn(self, proxy: FaultProxy) -> list[Fault]:
        """Faults at once, for the next bytes of an open connection, or for connections to come."""
        rng = self._rng
        when = rng.choice(("now", "open", "open", "open", "to come"))
        at_once = rng.choice((Stall(duration_s=0.1), Stall(), Blackhole(), Refuse(), Reset(), Slow(bytes_per_s=1e6)))
        drawn = [draw_fault(rng, span_bytes=rng.choice((400, 20_000, 1_000_000))) for _ in range(rng.randint(1, 3))]
        busiest, number, direction = rng.random() < 0.7, rng.random(), rng.choice(BOTH)
        if when == "now":
            return [at_once]
        if when == "to come":
            return [*drawn[:1]]
        positions = proxy.positions()
        if not positions:
            return [at_once]
        numbers = sorted({number for number, _ in positions})
        chosen = numbers[int(number * len(numbers))]
        if busiest:  # the one that weights come on
            chosen, direction = max(numbers, key=lambda n: positions.get((n, "down"), 0)), "down"
        here = positions.get((chosen, direction), 0)
        return [_moved(fault, here, chosen, direction) for fault in drawn]

    def _heal(self) -> None:
        self._rng.choice(self._proxies).heal()

    def _restart_actor(self) -> None:
        index = self._rng.randrange(len(self._actors))
        self._end_actor(index)
        self._actors[index] = self._start_actor(index)

    def _end_actor(self, index: int) -> None:
        actor = self._actors[index]
        if isinstance(actor, ProcessActor) and self._rng.random() < 0.8:
            actor.kill()
            self._kills += 1
            # what it had heard of as accepted is the least that must have been
            self._ledger.ended(actor.spec.number, actor.last, was_killed=True)
        else:
            actor.close()
            self._ledger.ended(actor.spec.number, actor.last, was_killed=False)
        self._ended.append(actor)

    def _restart_learner(self) -> None:
        self._count_nacks()
        if isinstance(self._learner, ProcessLearner) and self._rng.random() < 0.8:
            self._learner.kill()
            self._kills += 1
        else:
            self._learner.close()
        self._learner = self._start_learner()
        for proxy in self._proxies:
            proxy.retarget(self._learner.address)
        if self._rng.random() < 0.7:
            self._publish()

    def _count_nacks(self) -> None:
        self._nacks += sum(actor["nacks"] for actor in self._learner.status()["actors"].values())

    def _play(self) -> None:
        steps: list[Callable[[], None]] = [
            *(self._publish,) * 5, *(self._burst,) * 2, self._publish_nan, *(self._fault,) * 6, *(self._heal,) * 2,
            *(self._restart_actor,) * 2, self._restart_learner,
        ]  # fmt: skip
        self._publish()
        for _ in range(self._rng.randint(5, 15)):
            self._rng.choice(steps)()
            self._waiting.wait(self._rng.uniform(0, STEP_PAUSE_S))

    # ---- peace

    def outcome(self) -> Outcome:
        """Play the script, heal everything, wait until it settles, and count."""
        self._play()
        for proxy in self._proxies:
            proxy.heal()
        if not self._counter:
            self._publish()
        for actor in self._actors:
            actor.quiet()
        started = time.monotonic()
        unsettled = self._unsettled()
        while unsettled and time.monotonic() - started < SETTLE_S:
            self._waiting.wait(0.02)
            unsettled = self._unsettled()
        in_trouble = [f"{actor.spec.name}: {actor.last.trouble}" for actor in self._actors if actor.last.trouble]
        settle_s = math.inf if unsettled or in_trouble else time.monotonic() - started
        self._trouble += unsettled + in_trouble
        self._count_nacks()
        for actor in self._actors:
            if not actor.last.trouble:
                self._ledger.settled(actor.spec.number, actor.last)
        looks = [actor.last for actor in (*self._ended, *self._actors)]
        did: Counter[str] = Counter()
        for proxy in self._proxies:
            did.update(proxy.counts())
        return Outcome(
            seed=self._seed,
            link=self._link,
            torn=self._judge.torn,
            older=self._judge.older,
            unverified=self._judge.unverified,
            applied=self._judge.applied,
            looks=self._judge.looks,
            nacks=self._nacks,
            discarded=sum(look.discarded for look in looks),
            repaired=sum(look.repaired for look in looks),
            reconnects=sum(look.reconnects for look in looks),
            accepted=self._ledger.total,
            lost=self._ledger.lost(),
            duplicates=self._ledger.duplicates,
            balance_ok=not self._judge.unbalanced and not self._ledger.trouble,
            settle_s=settle_s,
            kills=self._kills,
            faults=dict(did),
            trouble=(*self._trouble, *self._ledger.trouble),
        )

    def _unsettled(self) -> list[str]:
        """What is not yet as it must be in peace, in words; an actor that has given up is left out."""
        status = self._learner.status()
        newest = (self._learner.run_id, self._counter, digest_of(self._mirror), status["root"])
        found = []
        for actor in self._actors:
            look, name = actor.last, actor.spec.name
            if look.trouble:
                continue
            if (look.run_id, look.counter, look.digest, look.root) != newest:
                found.append(f"{name} holds {look.run_id[:8]}#{look.counter}, not {newest[0][:8]}#{newest[1]}")
            if look.pending or not look.quiet:
                found.append(f"{name}: {look.pending} transitions wait")
            known = status["actors"].get(name, {})
            if known.get("acked") != self._counter or known.get("root") != status["root"]:
                found.append(f"the learner has {name} at {known.get('acked')}, not {self._counter}")
        return found

    def _close(self) -> None:
        with ExitStack() as closing:
            closing.callback(self._learner.close)
            for actor in self._actors:
                closing.callback(actor.close)


def _moved(fault: Placed, by: int, connection: int, direction: Direction) -> Fault:
    """The fault further down one direction of one connection."""
    at = by + (fault.at or 0)
    if isinstance(fault, Blackhole):
        return replace(fault, at=at, connection=connection)
    return replace(fault, at=at, connection=connection, direction=direction)  # type: ignore[call-arg]


def _main(seed: int, link: Any = "stream") -> int:
    with Zygote() as zygote:
        outcome = run(seed, link=link, zygote=zygote)
    for name, value in asdict(outcome).items():
        sys.stdout.write(f"{name:>12}  {value}\n")
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), *sys.argv[2:]))
