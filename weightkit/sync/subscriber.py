"""The actor's side: acts with whole, verified versions, or not at all."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from types import TracebackType

from torch import nn

from weightkit.core.group import Transfer
from weightkit.core.version import WeightVersion
from weightkit.errors import (
    ActsDifferently,
    Disconnected,
    IncompleteUpdate,
    StaleVersion,
    SyncError,
    TransportError,
    TransportTimeout,
    UnsyncedRead,
    WeightkitError,
)
from weightkit.shared_memory import attach
from weightkit.sync.acting import ActingPolicy
from weightkit.sync.handshake import accept
from weightkit.sync.read_set import Act, Probes
from weightkit.sync.receiver import Damaged, MemoryGone, Received, Receiver
from weightkit.transports import connect
from weightkit.transports.base import (
    DEMAND_S,
    OPEN,
    PROTOCOL,
    Access,
    Ack,
    Backoff,
    Chunk,
    Connection,
    Demand,
    Fetch,
    Heartbeat,
    Hello,
    LiveReport,
    Nack,
    Receipt,
    SnapshotBegin,
    Superseded,
    Watch,
    WatchMessage,
    Welcome,
)

logger = logging.getLogger(__name__)
_WROTE = "does anything else write to the policy?"
SCRAMBLED_S = 30.0
SCRAMBLED_AGAIN_S = 3.0
MOST_DEMANDS = 16
_MOST_SHARED_FAILURES = 2
_MOST_WRONG_IN_A_ROW = 3
_MOST_UNHEARD = 3


@dataclass(frozen=True, slots=True)
class _Staged:
    """A whole, verified version that the acting thread has not taken yet."""

    received: Received
    probe: bytes
    published_at: float


class Subscriber:
    """Keeps ``policy`` at the learner's newest verified version. It owns the policy: never share it with a Publisher.

    The read set is traced at once, on the values that the policy comes with; then every tensor is overwritten with
    values that no policy holds (NaN, the lowest integer; booleans stay), so that acting before weights have come
    cannot pass for acting. Pinned tensors get their values back with the first version, once the learner has confirmed
    their digests. With the first version, what the learner holds and no probe had shown to be read is taken away
    (`tripwire`): a branch that reads it after all raises UnsyncedRead before there is an action. The first two versions
    of a run are tried on the learner's golden probe; where the actions differ ActsDifferently is raised.
    ``golden=False`` leaves that out. ``simulated``: nothing real moves when this policy acts, so whoever looks on may
    have its weights scrambled.

    A background thread connects, receives and verifies; ``poll`` and ``wait_for_first`` write to the policy, on the
    caller's thread. ``connector`` makes the connections, ``backoff`` the pauses between attempts.
    """

    def __init__(
        self,
        policy: nn.Module,
        address: str,
        *,
        act: Act,
        probes: Probes,
        actor_id: str,
        access: Access = OPEN,
        golden: bool = True,
        simulated: bool = False,
        connector: Callable[[str], Connection] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = address
        self.actor_id = actor_id
        self._simulated = simulated
        self._policy = ActingPolicy(policy, act, probes, golden=golden)
        self.reads = self._policy.traced.reads
        self._connector = connector or (lambda where: connect(where, access=access))
        self._backoff = backoff or Backoff()
        self._may_share = access.shared_memory
        self._wrong_in_a_row = self._unheard = 0
        self._changed = threading.Condition()
        self._applying = threading.Lock()
        self._staged: _Staged | None = None
        self._taking: _Staged | None = None
        self._demands: deque[tuple[Demand, str, float]] = deque(maxlen=MOST_DEMANDS)
        self._version: WeightVersion | None = None
        self._published_at = 0.0
        self._groups_applied: tuple[str, ...] = ()
        self._root = ""
        self._last_ack: Ack | None = None
        self._holds: set[int] = set()
        self._failure: WeightkitError | None = None
        self._last_trouble = "no answer yet"
        self._connection: Connection | None = None
        self._connected = False
        self._session_id = ""
        self._path = ""
        self._runs: list[str] = []
        self._newest = 0
        self._receiver: Receiver | None = None
        self._start_over = False
        self._stopping = threading.Event()
        self._counts = {
            "received": 0, "discarded": 0, "stale": 0, "repaired": 0, "resumed": 0, "reconnects": 0, "received_bytes": 0
        }  # fmt: skip
        self._thread = threading.Thread(target=self._run, name=f"weightkit-subscriber-{actor_id}", daemon=True)
        self._thread.start()

    @property
    def version(self) -> WeightVersion | None:
        """The version that the policy holds, None before the first."""
        return self._version

    @property
    def groups_applied(self) -> tuple[str, ...]:
        """Names of the groups that the last applied version brought, in manifest order."""
        return self._groups_applied

    @property
    def root(self) -> str:
        """Root digest of the live tensors of the last applied version, "" before the first."""
        return self._root

    @property
    def age_s(self) -> float:
        """Seconds since the version that the policy holds was published; infinite before the first."""
        return float("inf") if self._version is None else time.monotonic() - self._published_at

    @property
    def lag(self) -> int:
        """How many versions the learner is known to have published since the one that the policy holds."""
        with self._changed:
            held = 0
            if self._version is not None and self._runs and self._version.run_id == self._runs[-1]:
                held = self._version.counter
            return max(0, self._newest - held)

    def status(self) -> dict[str, object]:
        """The version, whether a learner is there, and what was received, discarded and refused.

        "path": how weights come, "shared memory" or "stream". "only_poisoned": tensors that nobody syncs and that hold
        NaN, since they could not be made to raise when read.
        """
        with self._changed:
            version = self._version
            return {
                "actor_id": self.actor_id,
                "address": self.address,
                "connected": self._connected,
                "path": self._path,
                "run_id": None if version is None else version.run_id,
                "counter": 0 if version is None else version.counter,
                "lag": self.lag,
                "age_s": self.age_s,
                **self._counts,
                "only_poisoned": list(self._policy.only_poisoned),
                "trouble": str(self._failure or self._last_trouble),
            }

    def wait_for_first(
        self,
        timeout_s: float = 30.0,
        *,
        on_waiting: Callable[[], object] | None = None,
        waiting_every_s: float = 5.0,
    ) -> WeightVersion:
        """Block until the policy holds a verified version. ``on_waiting`` is called at once and then periodically.

        Raises NeedsNotMet where the learner offers too little, PinMismatch, and TransportTimeout where no verified
        version came within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while self._version is None:
            if self._news():
                self.poll()
                continue
            if on_waiting is not None:
                on_waiting()
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TransportTimeout(
                    f"no verified weights from {self.address} within {timeout_s:g} s: {self._last_trouble}",
                    hint="is the learner running, at this address, and has it published?",
                )
            self._wait(min(left_s, waiting_every_s))
        return self._version

    def _news(self) -> bool:
        return self._staged is not None or self._failure is not None

    def _wait(self, timeout_s: float) -> None:
        """Wait until there is something for the acting thread."""
        with self._changed:
            self._changed.wait_for(lambda: self._news() or bool(self._demands), timeout=timeout_s)

    def poll(self, timeout_s: float = 0.0) -> WeightVersion | None:
        """Put a staged version into the policy, whole, on this thread; the version, or None where there is no news.

        Waits at most ``timeout_s`` for news. Raises what made the handshake fail (NeedsNotMet, PinMismatch), also that
        with a restarted learner, and IncompleteUpdate where the live tensors are not what was verified, ActsDifferently
        where the actor's code does not do what the learner's does. The policy is then poisoned again, or has the
        version before it.
        """
        if timeout_s > 0:
            self._wait(timeout_s)
        with self._changed:
            if self._failure is not None:
                raise self._failure
            staged = self._taking = self._staged
            self._staged = None
            demands = [self._demands.popleft() for _ in range(len(self._demands))]
        version = None if staged is None else self._put_in(staged)
        for demand, session, came_at in demands:
            if time.monotonic() - came_at < DEMAND_S:
                version = self._meet(demand, session) or version
        return version

    def _put_in(self, staged: _Staged, *, try_it: bool = False) -> WeightVersion:
        """A staged version in the policy, acknowledged."""
        started = time.perf_counter()
        begin, manifest = staged.received.begin, staged.received.arena.manifest
        with self._applying:
            try:
                self._root, probe_ok = self._policy.take(
                    staged.received, staged.probe, keep=self._version is not None, try_it=try_it
                )
            except BaseException as error:
                self._fail(error, begin)
                raise
        version = begin.version
        with self._changed:
            self._taking = None
            self._holds.discard(version.counter)
            self._version, self._published_at = version, staged.published_at
            self._groups_applied = tuple(g.name for g in manifest.groups if g.transfer is Transfer.SEND)
            ack = self._last_ack = Ack(
                self.actor_id,
                self._session_id,
                version.run_id,
                version.counter,
                self._root,
                (time.perf_counter() - started) * 1e3,
                probe_ok,
                tuple(sorted(self._holds)),
            )
        self._say(lambda connection: connection.ack(ack), "version %d was applied", version.counter)
        return version

    def _fail(self, error: BaseException, begin: SnapshotBegin) -> None:
        kept = self._policy.kept
        why = f"{begin.version} could not be put into the policy whole; "
        why += "the version before it is back" if kept else "the policy was poisoned again"
        if not kept:
            self._version = None
        with self._changed:
            if isinstance(error, (ActsDifferently, UnsyncedRead)):
                self._failure = error
            else:
                self._failure = IncompleteUpdate(why, hint=_WROTE)

    def _say(self, what: Callable[[Connection], object], done: str, *values: object) -> None:
        """Tell the learner, where one is there; a version that is held is acknowledged in the next session again."""
        with self._changed:
            connection = self._connection
        if connection is not None:
            try:
                what(connection)
            except TransportError as error:
                logger.info(done + ", but the learner was not told: %s", *values, error.message)

    # ---- what somebody who looks on asks for, on the acting thread

    def _meet(self, demand: Demand, session: str) -> WeightVersion | None:
        """Answer with what the policy holds; the version that a scrambled policy has got back."""
        version, receiver = self._version, self._receiver
        restored = None
        report = LiveReport(session, demand.number, "", 0, refused="it holds no weights yet")
        if version is not None and receiver is not None:
            scrambled: tuple[str, ...] = ()
            if demand.scramble:
                scrambled, restored = self._scramble(receiver)
                version = restored
            digests = self._policy.digests(receiver.manifest)
            probe_ok = self._last_ack is not None and self._last_ack.probe_ok
            at_start = self._policy.at_start(digests.items())
            report = LiveReport(
                session, demand.number, version.run_id, version.counter, digests, at_start, scrambled, probe_ok
            )
        self._say(lambda connection: connection.answer(report), "question %d was answered", demand.number)
        return restored

    def _scramble(self, receiver: Receiver) -> tuple[tuple[str, ...], WeightVersion]:
        """Overwrite what is sent with noise and wait until it came again.

        Raises TransportTimeout where it does not come; the policy is then poisoned.
        """
        with self._changed:
            self._start_over = True
            self._version = self._staged = None
        with self._applying:
            names = self._policy.scramble(receiver.manifest)
        logger.warning("the weights were overwritten with noise, as somebody asked, and are sent again")
        deadline = time.monotonic() + SCRAMBLED_S
        staged, told = None, ""
        while staged is None and self._failure is None and time.monotonic() < deadline:
            if told != self._session_id:  # a session that is new may have begun before the weights were overwritten
                told = self._session_id
                nack = Nack(self.actor_id, told, receiver.run_id, receiver.counter, "scrambled")
                self._say(_nacking(nack), "the weights were scrambled")
            with self._changed:
                self._changed.wait_for(self._news, timeout=SCRAMBLED_AGAIN_S)
                staged = self._taking = self._staged
                self._staged = None
        if staged is not None:
            return names, self._put_in(staged, try_it=True)
        with self._applying:
            self._policy.poison()
        raise self._failure or TransportTimeout(
            f"scrambled, and no weights came again in {SCRAMBLED_S:g} s: the policy was poisoned"
        )

    # ---- the background thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._session()
            except TransportError as error:
                self._trouble(error.message)
            except WeightkitError as error:
                self._stop_with(error)
                return
            except Exception as error:  # a bug here must not pass for a silent learner
                logger.exception("the subscriber's thread has failed")
                self._stop_with(SyncError(f"the subscriber's thread has failed: {error!r}"))
                return
            if self._stopping.wait(self._backoff.next_s()):
                return
            self._counts["reconnects"] += 1

    def _stop_with(self, error: WeightkitError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def _trouble(self, message: str) -> None:
        with self._changed:
            if message != self._last_trouble and not self._stopping.is_set():
                logger.info("%s", message)
            self._last_trouble = message

    def _session(self) -> None:
        """One connection, from the handshake to its end. Raises TransportError at the end."""
        connection = self._connector(self.address)
        session = uuid.uuid4().hex
        try:
            with self._changed:
                if self._stopping.is_set():
                    return
                self._connection, self._session_id = connection, session
            welcome = self._greet(connection, session)
            receiver = self._receiver_for(welcome)
            shared = self._may_share and _same_machine(welcome)
            self._backoff.reset()
            with self._changed:
                self._connected = True
                self._path = "shared memory" if shared else "stream"
                self._last_trouble = "the learner answers, but has published nothing yet"
                again = self._last_ack
            resume = receiver.resume
            messages = connection.watch(Watch(session, resume, shared))
            if again is not None and again.run_id == welcome.run_id and self._version is not None:
                connection.ack(replace(again, session=session, holds=tuple(sorted(self._holds))))
            for message in messages:
                self._receive(receiver, message, connection, session, welcome)
                if self._stopping.is_set():
                    return
        finally:
            with self._changed:
                self._connected = False
                self._connection = None
            connection.close()

    def _greet(self, connection: Connection, session: str) -> Welcome:
        receiver = None if self._start_over else self._receiver
        have = None if receiver is None else receiver.have
        policy = self._policy
        hello = Hello(PROTOCOL, self.actor_id, session, policy.state, self.reads, have, self._simulated)
        welcome = accept(connection.hello(hello), traced=policy.traced, address=self.address)
        run_id = welcome.run_id
        if run_id in self._runs[:-1]:
            raise StaleVersion(f"the learner at {self.address} serves run {run_id[:8]}, which a later run has replaced")
        with self._applying:
            policy.check_pins(welcome)
        return welcome

    def _receiver_for(self, welcome: Welcome) -> Receiver:
        """The receiver of this run: that of the last session where it is the same run."""
        receiver = self._receiver
        if receiver is None or (receiver.run_id, receiver.manifest) != (welcome.run_id, welcome.manifest):
            receiver = Receiver(welcome.manifest, welcome.run_id)
            with self._changed:
                if not self._runs or self._runs[-1] != welcome.run_id:
                    self._runs.append(welcome.run_id)
                self._newest = 0
                self._staged = None
                self._holds.clear()
                self._receiver = receiver
        return receiver

    def _receive(
        self, receiver: Receiver, message: WatchMessage, connection: Connection, session: str, welcome: Welcome
    ) -> None:
        if self._start_over:
            self._start_over = False
            receiver.forget()
        self._hear(message, session)
        if isinstance(message, Heartbeat):
            self._acknowledge_again(message, connection, session)
        counter = message.version.counter if isinstance(message, SnapshotBegin) else receiver.counter
        try:
            try:
                complete = receiver.take(message)
            except Damaged as error:
                complete = self._repair(receiver, error, connection, session)
        except SyncError as error:
            self._refuse(receiver, error, counter, connection, session)
            return
        if complete is not None:
            self._backoff.reset()
            self._wrong_in_a_row = 0
            self._stage(receiver, complete, welcome.probe)
            self._confirm(receiver, connection, session)

    def _acknowledge_again(self, heartbeat: Heartbeat, connection: Connection, session: str) -> None:
        """Where the learner does not know what this actor acts with: an acknowledgement was lost, or each one is."""
        ack, version = self._last_ack, self._version
        acting = ack is not None and version is not None and self._runs[-1] == ack.run_id
        if ack is None or not acting or heartbeat.acked == ack.counter:
            self._unheard = 0
            return
        self._unheard += 1
        if self._unheard > _MOST_UNHEARD:
            self._unheard = 0
            raise Disconnected(f"{self.address}: the learner does not hear what is acknowledged")
        connection.ack(replace(ack, session=session, holds=tuple(sorted(self._holds))))

    def _confirm(self, receiver: Receiver, connection: Connection, session: str) -> None:
        have = receiver.have
        assert have is not None
        connection.received(Receipt(session, have.run_id, have.counter, tuple(sorted(self._holds))))

    def _refuse(self, receiver: Receiver, error: SyncError, counter: int, connection: Connection, session: str) -> None:
        """Say that a version was of no use. Raises Disconnected where that happens again and again."""
        stale = isinstance(error, StaleVersion)
        self._counts["stale" if stale else "discarded"] += 1
        self._trouble(error.message)
        if stale and receiver.have is not None and receiver.have.counter == counter:
            self._confirm(receiver, connection, session)  # the learner does not know that it is held
            return
        if not self._stopping.wait(self._backoff.next_s()):
            holds = tuple(sorted(self._holds))
            connection.nack(Nack(self.actor_id, session, receiver.run_id, counter, error.message, holds=holds))
        if isinstance(error, MemoryGone):
            return
        self._wrong_in_a_row += 1
        if self._path == "shared memory" and self._wrong_in_a_row >= _MOST_SHARED_FAILURES:
            self._may_share = False
            raise Disconnected(f"{self.address}: its shared memory cannot be used, so weights come by chunks now")
        if self._wrong_in_a_row >= _MOST_WRONG_IN_A_ROW:
            self._wrong_in_a_row = 0
            raise Disconnected(f"{self.address}: one version after another is wrong, so the handshake is done again")

    def _hear(self, message: WatchMessage, session: str) -> None:
        """Take note of what is known of the learner, whatever becomes of the transfer."""
        with self._changed:
            if isinstance(message, SnapshotBegin):
                if self._runs and message.version.run_id == self._runs[-1]:
                    self._newest = max(self._newest, message.version.counter)
                self._counts["resumed"] += message.resumed_at > 0
            elif isinstance(message, (Heartbeat, Superseded)):
                self._newest = max(self._newest, message.counter)
            elif isinstance(message, Chunk):
                self._counts["received_bytes"] += len(message.data)
            elif isinstance(message, Demand):
                self._demands.append((message, session, time.monotonic()))
                self._changed.notify_all()

    def _repair(self, receiver: Receiver, error: Damaged, connection: Connection, session: str) -> Received:
        """The damaged tensors once more, by themselves."""
        self._counts["repaired"] += 1
        self._trouble(error.message)
        counter = receiver.counter

        def fetch(tensors: tuple[str, ...]) -> Iterable[Chunk]:
            try:
                yield from connection.fetch(Fetch(session, receiver.run_id, counter, tensors))
            except LookupError as gone:
                raise IncompleteUpdate(f"{error.message}; {gone}") from None

        return receiver.repair(fetch, error.tensors)

    def _stage(self, receiver: Receiver, complete: Received, probe: bytes) -> None:
        begin = complete.begin
        staged = _Staged(complete, probe, time.monotonic() - begin.age_ms / 1e3)
        with self._changed:
            replaced, self._staged = self._staged, staged
            if self._taking is None or self._taking.received.arena is not receiver.retired:
                receiver.recycle()
            self._counts["received"] += 1
            if replaced is not None:
                self._holds.discard(replaced.received.begin.version.counter)
            if complete.shared:
                self._holds.add(begin.version.counter)
            self._changed.notify_all()

    def close(self) -> None:
        """End the connection and the background thread. The policy keeps the version it has."""
        self._stopping.set()
        with self._changed:
            connection = self._connection
            self._changed.notify_all()
        if connection is not None:
            connection.close()
        self._thread.join()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _same_machine(welcome: Welcome) -> bool:
    """Whether the learner's memory can be mapped here."""
    if welcome.shared is None:
        return False
    try:
        attach(welcome.shared)
    except OSError as error:
        logger.info("the learner's memory cannot be mapped, so weights come by chunks: %s", error)
        return False
    return True


def _nacking(nack: Nack) -> Callable[[Connection], object]:
    return lambda connection: connection.nack(nack)
