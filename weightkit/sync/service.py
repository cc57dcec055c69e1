"""What a transport serves: the newest version, and for each actor a slot in which only the newest one waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field

from weightkit.core.manifest import SyncManifest
from weightkit.core.text import printable
from weightkit.shared_memory import SharedBuffer
from weightkit.sync.handshake import answer
from weightkit.sync.snapshots import Slot, Snapshot, SnapshotPool, chunks_of
from weightkit.transports.base import (
    DEMAND_S,
    PROTOCOL,
    Ack,
    ActorStatus,
    Chunk,
    Demand,
    Fetch,
    Heartbeat,
    Hello,
    LiveReport,
    LiveState,
    Nack,
    Question,
    Receipt,
    Reject,
    SnapshotBegin,
    SnapshotEnd,
    Status,
    Superseded,
    Watch,
    WatchMessage,
    Welcome,
)

REMEMBERED_ACTORS = 256
REMEMBERED_ROOTS = 1024
REMEMBERED_DIGESTS = 200_000
MOST_DEMANDS = 16
RECEIPT_S = 10.0  # a version of which an actor has said neither that it holds it nor that it does not is sent again
_REAL = "it may be moving a real robot; stop it there first, or say --force"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Actor:
    """One actor's slot: the newest version is all that waits for it.

    ``sent``: the counter that went out last, ``held``: the one that it is known to hold whole, ``in_flight``: the one
    that it has said nothing of yet, and ``told_at`` when that had gone out. ``reads``: what it may still read, by
    counter.
    """

    actor_id: str
    session: str
    simulated: bool = False
    sent: int = 0
    held: int = 0
    in_flight: int = 0
    told_at: float = float("inf")
    reads: dict[int, Snapshot] = field(default_factory=dict)
    acked: int = 0
    root: str = ""
    nacks: int = 0
    probe_ok: bool = False
    path: str = ""
    apply_ms: float = 0.0
    sent_bytes: int = 0
    demands: deque[Demand] = field(default_factory=deque)
    connected: bool = False
    ended: bool = False


class SyncService:
    """One manifest, the newest snapshot, a slot for each actor. Proves nothing itself."""

    def __init__(
        self,
        manifest: SyncManifest,
        run_id: str,
        pins: Mapping[str, str] | None = None,
        *,
        heartbeat_s: float = 1.0,
        probe: bytes = b"",
        shared: bool = False,
    ) -> None:
        self.manifest = manifest
        self.run_id = run_id
        self.pins = pins or {}
        self.refused = 0
        self.rejected = 0
        self._heartbeat_s = heartbeat_s
        self._probe = probe
        self._door = _door() if shared else None
        self._pool = SnapshotPool(manifest, shared=self._door is not None)
        self._current: Snapshot | None = None
        self._changed = threading.Condition()
        self._sessions: dict[str, _Actor] = {}
        self._actors: OrderedDict[str, _Actor] = OrderedDict()
        self._roots: OrderedDict[int, str] = OrderedDict()
        self._digests: OrderedDict[int, Mapping[str, str]] = OrderedDict()
        self._asked: dict[int, str] = {}  # whose answer is waited for, by number
        self._reports: dict[int, LiveReport] = {}
        self._questions = 0
        self._closing = False

    # ---- the learner's own thread

    def blank(self) -> Slot:
        """Room to pack the next version in."""
        with self._changed:
            return self._pool.blank(None if self._current is None else self._current.slot)

    def offer(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the current version."""
        counter = snapshot.version.counter
        with self._changed:
            self._current = snapshot
            self._roots[counter] = snapshot.root
            self._digests[counter] = snapshot.digests
            while len(self._roots) > REMEMBERED_ROOTS:
                self._roots.popitem(last=False)
            while len(self._digests) > max(2, min(64, REMEMBERED_DIGESTS // max(1, len(snapshot.digests)))):
                self._digests.popitem(last=False)
            self._changed.notify_all()

    # ---- the handshake

    def hello(self, hello: Hello) -> Welcome | Reject:
        reply = answer(hello, self.describe())
        if isinstance(reply, Reject):
            names = ", ".join(sorted({finding.subject for finding in reply.report.errors()}))
            logger.warning(
                "refused actor %s: %s: %s", printable(hello.actor_id), printable(reply.message), printable(names)
            )
            with self._changed:
                self.rejected += 1
            return reply
        with self._changed:
            actor = _Actor(hello.actor_id, hello.session, hello.simulated)
            before = self._actors.pop(hello.actor_id, None)
            if before is not None:
                self._end(before)  # one actor, one session: the newer one
                actor.nacks = before.nacks
            have = hello.have
            if have is not None and have.run_id == self.run_id and self._roots.get(have.counter) == have.root:
                actor.sent = actor.held = have.counter
            self._actors[hello.actor_id] = self._sessions[hello.session] = actor
            if len(self._actors) > REMEMBERED_ACTORS:
                self._forget_one()
            self._changed.notify_all()
        return reply

    def describe(self) -> Welcome:
        shared = None if self._door is None else self._door.ref
        return Welcome(PROTOCOL, self.run_id, self.manifest, self.pins, self._probe, shared)

    def _forget_one(self) -> None:
        oldest = next((a for a in self._actors.values() if not a.connected), None)
        if oldest is not None:
            del self._actors[oldest.actor_id]
            self._end(oldest)

    # ---- versions on their way

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        with self._changed:
            actor = self._sessions.get(watch.session)
            if actor is None or self._closing:
                return
            actor.connected = True
            actor.path = "shared memory" if watch.shared and self._door is not None else "stream"
        resume = watch.resume
        try:
            gave_up = False
            while True:
                task = self._next(actor)
                if actor.ended or self._closing:
                    return
                if not isinstance(task, Snapshot):
                    yield task
                    continue
                resumed_at = 0
                if resume is not None and resume.counter == task.version.counter and resume.base == self._base(actor):
                    resumed_at = resume.offset
                resume = None
                # giving up once between two whole versions keeps news fresh and still makes progress
                gave_up = yield from self._send(task, actor, resumed_at, may_give_up=not gave_up)
        finally:
            with self._changed:
                actor.connected = False

    def _next(self, actor: _Actor) -> Snapshot | Demand | Heartbeat:
        """What to send now; a Heartbeat after ``heartbeat_s`` without anything, or when the session ends."""

        def news() -> bool:
            current = self._current
            return current is not None and current.version.counter > actor.sent and not actor.in_flight

        with self._changed:
            self._changed.wait_for(
                lambda: news() or actor.demands or actor.ended or self._closing, timeout=self._heartbeat_s
            )
            if actor.demands:
                return actor.demands.popleft()
            if actor.in_flight and time.monotonic() - actor.told_at > RECEIPT_S:
                actor.nacks += 1  # what it had to say of it was lost
                self._start_again(actor)
            current = self._current
            if not news() or actor.ended:
                return Heartbeat(0 if current is None else current.version.counter, actor.acked)
            assert current is not None
            counter = current.version.counter
            actor.sent = actor.in_flight = counter
            actor.told_at = float("inf")
            actor.reads[counter] = current
            current.slot.users.add(actor.session)
            return current

    def _base(self, actor: _Actor) -> int:
        """The version on which the next one for ``actor`` can build, 0 where all of it must travel."""
        return actor.held if actor.held in self._digests and actor.path == "stream" else 0

    def _send(
        self, snapshot: Snapshot, actor: _Actor, resumed_at: int, *, may_give_up: bool
    ) -> Generator[WatchMessage, None, bool]:
        """The snapshot's messages; the result says whether it was given up for a newer one."""
        with self._changed:
            base = self._base(actor)
            before = self._digests.get(base, {})
        changed = {name: digest for name, digest in snapshot.digests.items() if before.get(name) != digest}
        shared = snapshot.shared if actor.path == "shared memory" else None
        chunks = snapshot.chunks(base, changed) if shared is None else []
        if resumed_at and all(chunk.offset != resumed_at for chunk in chunks):
            resumed_at = 0
        yield SnapshotBegin(
            snapshot.version,
            self.manifest.manifest_id,
            self.manifest.payload_bytes,
            changed,
            snapshot.root,
            snapshot.golden,
            base,
            resumed_at,
            snapshot.age_ms(),
            shared,
        )
        chunks = [chunk for chunk in chunks if chunk.offset >= resumed_at]
        for index, chunk in enumerate(chunks):
            newest = self._current
            outdated = newest is not snapshot and may_give_up and index < len(chunks) // 2
            if newest is not None and (outdated or snapshot.slot.revoked):
                self._let_go(actor, snapshot.version.counter)
                yield Superseded(self.run_id, newest.version.counter)
                return True
            if actor.ended or self._closing:
                return False
            actor.sent_bytes += len(chunk.data)
            yield chunk
        yield SnapshotEnd(snapshot.root)
        actor.told_at = time.monotonic()
        return False

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        with self._changed:
            actor = self._sessions.get(fetch.session)
            snapshot = None if actor is None else actor.reads.get(fetch.counter)
            if actor is None or snapshot is None or fetch.run_id != self.run_id or snapshot.slot.revoked:
                raise LookupError(f"version {fetch.counter} is not held any more")
            unknown = set(fetch.tensors) - set(snapshot.digests)
            if unknown:
                raise ValueError(f"not sent by this learner: {', '.join(sorted(unknown))}")
        for chunk in chunks_of(snapshot.slot.arena, frozenset(fetch.tensors)):
            actor.sent_bytes += len(chunk.data)
            yield chunk

    # ---- what actors say

    def received(self, receipt: Receipt) -> None:
        with self._changed:
            actor = self._sessions.get(receipt.session)
            if actor is None or receipt.run_id != self.run_id or receipt.counter != actor.in_flight:
                return
            actor.held, actor.in_flight = receipt.counter, 0
            self._keep(actor, receipt.holds, up_to=receipt.counter)
            self._changed.notify_all()

    def ack(self, ack: Ack) -> None:
        with self._changed:
            actor = self._sessions.get(ack.session)
            if actor is None or ack.run_id != self.run_id or ack.counter < actor.acked:
                return
            if self._roots.get(ack.counter) != ack.applied_root:
                actor.nacks += 1  # it acts with something that was never published, or is not remembered any more
                self._start_again(actor)
            else:
                actor.acked, actor.root = ack.counter, ack.applied_root
                actor.apply_ms = ack.apply_ms
                actor.probe_ok = actor.probe_ok or ack.probe_ok
                if actor.in_flight == ack.counter:  # before its Receipt, which then says nothing new
                    actor.held, actor.in_flight = ack.counter, 0
                self._keep(actor, ack.holds, up_to=ack.counter)
            self._changed.notify_all()

    def nack(self, nack: Nack) -> None:
        with self._changed:
            actor = self._sessions.get(nack.session)
            if actor is not None:
                actor.nacks += 1
                self._start_again(actor)
                self._keep(actor, nack.holds, up_to=nack.counter)
                self._changed.notify_all()

    def closed(self, session: str) -> None:
        with self._changed:
            actor = self._sessions.get(session)
            if actor is not None:
                self._end(actor)
                self._changed.notify_all()

    def _start_again(self, actor: _Actor) -> None:
        """Send the current version, whole, as soon as possible. What the actor may still read stays as it is."""
        actor.sent = actor.held = actor.in_flight = 0

    def _keep(self, actor: _Actor, holds: tuple[int, ...], *, up_to: int) -> None:
        """Of the versions up to ``up_to`` the actor reads ``holds`` alone; later ones came after it said so."""
        for counter in set(actor.reads) - set(holds):
            if counter <= up_to:
                self._let_go(actor, counter)

    def _let_go(self, actor: _Actor, counter: int) -> None:
        with self._changed:
            snapshot = actor.reads.pop(counter, None)
            if snapshot is not None:
                snapshot.slot.users.discard(actor.session)
            if actor.in_flight == counter:
                actor.in_flight = 0

    def _end(self, actor: _Actor) -> None:
        actor.ended = True
        self._sessions.pop(actor.session, None)
        for counter, snapshot in list(actor.reads.items()):
            snapshot.slot.haunted |= actor.path == "shared memory"
            self._let_go(actor, counter)

    # ---- who looks on

    def ask(self, question: Question) -> LiveState:
        with self._changed:
            newest = 0 if self._current is None else self._current.version.counter
            actor = self._actors.get(question.actor_id)

            def unanswered(why: str) -> LiveState:
                acked = 0 if actor is None else actor.acked
                return LiveState(question.actor_id, acked, newest, unanswered=why)

            if actor is None or not actor.connected:
                return unanswered("it is not connected")
            if question.scramble and not (actor.simulated or question.force):
                return unanswered(_REAL)
            if len(actor.demands) >= MOST_DEMANDS:
                return unanswered("it is asked too much at once")
            self._questions += 1
            number = self._questions
            self._asked[number] = actor.session
            actor.demands.append(Demand(number, question.scramble))
            self._changed.notify_all()
            self._changed.wait_for(lambda: number in self._reports or actor.ended or self._closing, timeout=DEMAND_S)
            del self._asked[number]
            actor.demands = deque(demand for demand in actor.demands if demand.number != number)
            report = self._reports.pop(number, None)
            if report is None:
                gone = actor.ended or self._closing
                return unanswered("it went away" if gone else f"no answer in {DEMAND_S:g} s; it answers between steps")
            if report.refused:
                return unanswered(report.refused)
            published = self._digests.get(report.counter, {}) if report.run_id == self.run_id else {}
            if not published:
                return unanswered(f"it acts with version {report.counter}, which is no longer remembered")
            differing = tuple(name for name in published if report.digests.get(name) != published[name])
            return LiveState(
                question.actor_id,
                report.counter,
                newest if self._current is None else self._current.version.counter,
                tuple(name for name in published if name not in differing),
                differing,
                tuple(name for name in report.at_start if name in differing),
                report.scrambled,
                report.probe_ok,
            )

    def answer(self, report: LiveReport) -> None:
        with self._changed:
            if self._asked.get(report.number) == report.session:
                self._reports[report.number] = report
                self._changed.notify_all()

    def status(self) -> Status:
        with self._changed:
            current = self._current
            counter = 0 if current is None else current.version.counter
            actors = tuple(
                ActorStatus(
                    a.actor_id, a.connected, a.acked, a.root, counter - a.acked, a.nacks, a.probe_ok, a.path,
                    a.apply_ms, a.sent_bytes, a.simulated,
                )
                for a in self._actors.values()
            )  # fmt: skip
            return Status(
                self.run_id,
                counter,
                "" if current is None else current.root,
                self.refused,
                actors,
                0 if current is None else current.version.learner_step,
                0.0 if current is None else time.monotonic() - current.published_at,
                {"rejected": self.rejected},
            )

    def wait_until(self, holds: Callable[[Status], bool], timeout_s: float) -> bool:
        """Wait until ``holds(status)``; whether it did in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not holds(self.status()):
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    return holds(self.status())
        return True

    def close(self) -> None:
        """End every watch."""
        with self._changed:
            self._closing = True
            self._pool.close()
            self._changed.notify_all()


def _door() -> SharedBuffer | None:
    """A piece of memory for actors to try whether they are on this machine; None where it has no such memory."""
    try:
        return SharedBuffer(64)
    except OSError as error:
        logger.info("weights go by chunks only, not through shared memory: %s", error)
        return None
