"""The actor's side: acts with whole, verified versions, or not at all."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from torch import Tensor, nn

from weightkit.arena import Arena, copy_tensor
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.version import WeightVersion
from weightkit.digest import root_digest
from weightkit.errors import (
    ActsDifferently,
    IncompleteUpdate,
    StaleVersion,
    SyncError,
    TransportError,
    TransportTimeout,
    UnsyncedRead,
    WeightkitError,
)
from weightkit.sync.golden import TOLERANCE, GoldenTrial
from weightkit.sync.handshake import accept, check_pins, live_digest
from weightkit.sync.inventory import inventory, state_of
from weightkit.sync.memory import has_bytes, poison
from weightkit.sync.publisher import arena_digests
from weightkit.sync.read_set import Act, Probes, checked, trace
from weightkit.sync.tripwire import arm, disarm
from weightkit.transports import connect
from weightkit.transports.base import (
    PROTOCOL,
    Ack,
    Backoff,
    Chunk,
    Connection,
    Hello,
    Nack,
    SnapshotBegin,
    SnapshotEnd,
    Superseded,
    WatchMessage,
    Welcome,
)

logger = logging.getLogger(__name__)
_TRIED = 2
_WROTE = "does anything else write to the policy?"


@dataclass(frozen=True, slots=True)
class _Staged:
    """A whole, verified version that the acting thread has not taken yet."""

    begin: SnapshotBegin
    arena: Arena
    session: str
    probe: bytes = b""


class Receiver:
    """Puts one session's messages together to whole versions, verified against their digests. Knows no threads.

    ``newest`` is the highest counter that this actor has accepted in the run.
    """

    def __init__(self, manifest: SyncManifest, run_id: str, *, newest: int = 0) -> None:
        self._manifest = manifest
        self._run_id = run_id
        self._newest = newest
        self._begin: SnapshotBegin | None = None
        self._arena: Arena | None = None
        self._received = 0

    @property
    def counter(self) -> int:
        """The counter of the version under way, 0 where none is."""
        return 0 if self._begin is None else self._begin.version.counter

    def take(self, message: WatchMessage) -> tuple[SnapshotBegin, Arena] | None:
        """The version that ``message`` completes, or None.

        Raises StaleVersion for a version that is not newer, or of another run; IncompleteUpdate for anything that does
        not add up. After either, the version under way is thrown away and its remaining messages are ignored.
        """
        try:
            return self._take(message)
        except SyncError:
            self._begin = None
            raise

    def _take(self, message: WatchMessage) -> tuple[SnapshotBegin, Arena] | None:
        if isinstance(message, SnapshotBegin):
            self._start(message)
        elif isinstance(message, Superseded):
            self._begin = None
        elif isinstance(message, Chunk) and self._begin is not None:
            self._add(message)
        elif isinstance(message, SnapshotEnd) and self._begin is not None:
            return self._finish(self._begin)
        return None

    def _start(self, begin: SnapshotBegin) -> None:
        version, unfinished = begin.version, self._begin
        self._begin = None
        if unfinished is not None:
            raise IncompleteUpdate(f"{version} began before {unfinished.version} ended")
        if version.run_id != self._run_id:
            raise StaleVersion(f"{version} is of another run than this session's, {self._run_id[:8]}")
        if version.counter <= self._newest:
            raise StaleVersion(f"{version} came after version {self._newest}")
        if begin.manifest_id != self._manifest.manifest_id or begin.n_bytes != self._manifest.payload_bytes:
            raise IncompleteUpdate(f"{version} is not laid out as the handshake's manifest says")
        if self._arena is None:
            self._arena = Arena(self._manifest)
        self._begin, self._received = begin, 0

    def _add(self, chunk: Chunk) -> None:
        assert self._arena is not None
        if chunk.offset != self._received:
            raise IncompleteUpdate(f"expected the bytes from {self._received} on, found those from {chunk.offset} on")
        try:
            self._arena.write(chunk.offset, chunk.data)
        except ValueError as error:
            raise IncompleteUpdate(str(error)) from None
        self._received += len(chunk.data)

    def _finish(self, begin: SnapshotBegin) -> tuple[SnapshotBegin, Arena]:
        arena = self._arena
        assert arena is not None
        if self._received != arena.nbytes:
            raise IncompleteUpdate(f"{begin.version} ended after {self._received} of {arena.nbytes} bytes")
        verify(arena_digests(arena), begin)
        self._begin = self._arena = None
        self._newest = begin.version.counter
        return begin, arena


def verify(found: dict[str, str], begin: SnapshotBegin) -> None:
    """Raises IncompleteUpdate, naming the tensors, where digests are not those that the version announced."""
    differing = sorted(name for name in found | dict(begin.digests) if found.get(name) != begin.digests.get(name))
    if differing or root_digest(found) != begin.root:
        raise IncompleteUpdate(
            f"{begin.version}: the bytes are not those that were published: {', '.join(differing) or 'root digest'}"
        )


class Subscriber:
    """Keeps ``policy`` at the learner's newest verified version. It owns the policy: never share it with a Publisher.

    The read set is traced at once, on the values that the policy comes with; then every tensor is overwritten with
    values that no policy holds (NaN, the lowest integer; booleans stay), so that acting before weights have come
    cannot pass for acting. Pinned tensors get their values back with the first version, once the learner has confirmed
    their digests. With the first version, what the learner holds and no probe had shown to be read is taken away
    (`tripwire`): a branch that reads it after all raises UnsyncedRead before there is an action. The first two versions
    of a run are tried on the learner's golden probe; where the actions differ ActsDifferently is raised.
    ``golden=False`` leaves that out.

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
        insecure: bool = False,
        golden: bool = True,
        connector: Callable[[str], Connection] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = address
        self.actor_id = actor_id
        self._policy, self._act = policy, act
        self._probes = checked(policy, act, probes)
        self._traced = traced = trace(policy, act, self._probes)
        self.reads, self._state = traced.reads, state_of(traced.items)
        self._trial = GoldenTrial(policy, act, traced, like=self._probes[0])
        self._golden = golden and not self._trial.why_not
        if self._trial.why_not:
            logger.info("the golden probe is left out: %s", self._trial.why_not)
        self._original: dict[str, Tensor] | None = {i.name: i.tensor.detach().clone() for i in traced.items}
        for item in traced.items:
            poison(item.tensor)
        self._armed = ""
        self._only_poisoned: tuple[str, ...] = ()
        self._tried, self._tried_run = 0, ""
        self._connector = connector or (lambda where: connect(where, insecure=insecure))
        self._backoff = backoff or Backoff()
        self._changed = threading.Condition()
        self._applying = threading.Lock()
        self._staged: _Staged | None = None
        self._version: WeightVersion | None = None
        self._groups_applied: tuple[str, ...] = ()
        self._root = ""
        self._failure: WeightkitError | None = None
        self._last_trouble = "no answer yet"
        self._connection: Connection | None = None
        self._connected = False
        self._runs: list[str] = []
        self._newest = 0
        self._stopping = threading.Event()
        self._counts = {"received": 0, "discarded": 0, "stale": 0, "reconnects": 0}
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

    def status(self) -> dict[str, object]:
        """The version, whether a learner is there, and what was received, discarded and refused.

        "only_poisoned": tensors that nobody syncs and that hold NaN, since they could not be made to raise when read.
        """
        with self._changed:
            version = self._version
            return {
                "actor_id": self.actor_id,
                "address": self.address,
                "connected": self._connected,
                "run_id": None if version is None else version.run_id,
                "counter": 0 if version is None else version.counter,
                **self._counts,
                "only_poisoned": list(self._only_poisoned),
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
            with self._changed:
                ready = self._staged is not None or self._failure is not None
            if ready:
                self.poll()
                continue
            if on_waiting is not None:
                on_waiting()
            with self._changed:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise TransportTimeout(
                        f"no verified weights from {self.address} within {timeout_s:g} s: {self._last_trouble}",
                        hint="is the learner running, at this address, and has it published?",
                    )
                self._changed.wait_for(
                    lambda: self._staged is not None or self._failure is not None,
                    timeout=min(left_s, waiting_every_s),
                )
        return self._version

    def poll(self) -> WeightVersion | None:
        """Put a staged version into the policy, whole, on this thread; the version, or None where there is no news.

        Raises what made the handshake fail (NeedsNotMet, PinMismatch), also that with a restarted learner, and
        IncompleteUpdate where the live tensors are not what was verified, ActsDifferently where the actor's code does
        not do what the learner's does. The policy is then poisoned again, or has the version before it.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            staged, self._staged = self._staged, None
        if staged is None:
            return None
        started = time.perf_counter()
        with self._applying:
            self._root, probe_ok = self._take(staged)
        version = staged.begin.version
        ack = Ack(
            self.actor_id,
            staged.session,
            version.run_id,
            version.counter,
            self._root,
            (time.perf_counter() - started) * 1e3,
            probe_ok,
        )
        with self._changed:
            self._version, connection = version, self._connection
        if connection is not None:
            try:
                connection.ack(ack)
            except TransportError as error:
                logger.info("version %d was applied, but not acknowledged: %s", version.counter, error.message)
        return version

    def _apply(self, staged: _Staged) -> str:
        """Copy a verified version into the live tensors and hash those; the root digest."""
        manifest = staged.arena.manifest
        if self._armed not in ("", manifest.manifest_id):
            disarm(self._policy, self._act)
            self._armed = ""
        own = {item.name: item.tensor for item in inventory(self._policy)}
        sent = {g.name for g in manifest.groups if g.transfer is Transfer.SEND}
        if self._original is not None:
            for name in (*self._pinned(manifest), *self._waived(manifest)):
                copy_tensor(self._original[name], own[name])
        for entry in manifest.entries:
            if entry.group in sent:
                copy_tensor(staged.arena.tensor(entry.alias_of or entry.name), own[entry.name])
        live = {name: live_digest(own[name]) for name in staged.arena.names}
        verify(live, staged.begin)
        self._original = None
        self._groups_applied = tuple(g.name for g in manifest.groups if g.name in sent)
        return root_digest(live)

    def _take(self, staged: _Staged) -> tuple[str, bool]:
        """The staged version in the policy, tried out; its root, and whether its actions were compared.

        Where that fails, whatever the reason, the version before it is put back if there is one that the trial could
        cost, else the policy is poisoned again; `poll` raises from then on.
        """
        kept: dict[str, Tensor] = {}
        if self._version is not None and self._will_try(staged):
            sent = set(staged.arena.names)
            held = [i for i in inventory(self._policy) if i.name in sent and has_bytes(i.tensor)]
            kept = {item.name: item.tensor.detach().clone() for item in held}
        try:
            return self._apply(staged), self._try_out(staged)
        except BaseException as error:
            why = f"{staged.begin.version} could not be put into the policy whole; "
            why += "the version before it is back" if kept else "the policy was poisoned again"
            failure = (
                error if isinstance(error, (ActsDifferently, UnsyncedRead)) else IncompleteUpdate(why, hint=_WROTE)
            )
            for item in inventory(self._policy):
                if item.name in kept:
                    copy_tensor(kept[item.name], item.tensor)
                elif not kept:
                    poison(item.tensor)
            if not kept:
                self._version = None
            with self._changed:
                self._failure = failure
            raise

    def _will_try(self, staged: _Staged) -> bool:
        tried = self._tried if self._tried_run == staged.begin.version.run_id else 0
        return self._golden and bool(staged.probe and staged.begin.golden) and tried < _TRIED

    def _try_out(self, staged: _Staged) -> bool:
        """Take away what nobody syncs, then act once as the learner did; whether that could be compared.

        Twice in a run: the first time before anything moves, the second time because what code keeps of old weights
        shows then. Later versions bring other numbers, which digests prove, and no other code.
        """
        if not self._armed:
            self._arm(staged.arena.manifest)
        if self._tried_run != staged.begin.version.run_id:
            self._tried_run, self._tried = staged.begin.version.run_id, 0
        if not self._will_try(staged):
            return False
        probe, golden = staged.probe, staged.begin.golden
        try:
            self._trial.check(probe, golden)
            if self._tried and self._trial.compare(probe, golden) > TOLERANCE:
                logger.warning(
                    "from where it stands act() does not do what the learner does: it goes by a history, "
                    "or it keeps something that it made of old weights"
                )
        except ValueError as error:
            logger.warning("%s", error)
            return False
        self._tried += 1
        return True

    def _arm(self, manifest: SyncManifest) -> None:
        """Make what nobody syncs raise when it is read; poisoned it stays where the policy cannot act without it."""
        covered = {e.name for e in manifest.entries if manifest.transfer_of(e.group) is not Transfer.HOLD}
        covered |= {name for name in self._state if manifest.waiver_of(name) is not None}
        names = set(self._state) - covered - self._traced.reads - self._traced.writes
        try:
            self._only_poisoned = arm(self._policy, names, self._act)
            self._trial.try_probes(self._probes)
        except Exception as error:  # it wants to look at what it does not read: at an address, at a type
            logger.warning("what nobody syncs is poisoned only, not taken away: %s", error)
            disarm(self._policy, self._act)
            self._only_poisoned = tuple(sorted(names))
        self._armed = manifest.manifest_id

    def _waived(self, manifest: SyncManifest) -> list[str]:
        return [name for name in self._state if manifest.waiver_of(name) is not None]

    def _pinned(self, manifest: SyncManifest) -> list[str]:
        pinned = {g.name for g in manifest.groups if g.transfer is Transfer.PIN}
        return [e.name for e in manifest.entries if e.group in pinned and e.name in self._state]

    # ---- the background thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._session()
            except TransportError as error:
                self._trouble(error.message)
            except WeightkitError as error:
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            except Exception as error:  # a bug here must not pass for a silent learner
                logger.exception("the subscriber's thread has failed")
                with self._changed:
                    self._failure = SyncError(f"the subscriber's thread has failed: {error!r}")
                    self._changed.notify_all()
                return
            if self._stopping.wait(self._backoff.next_s()):
                return
            self._counts["reconnects"] += 1

    def _trouble(self, message: str) -> None:
        with self._changed:
            if message != self._last_trouble and not self._stopping.is_set():
                logger.info("%s", message)
            self._last_trouble = message

    def _session(self) -> None:
        """One connection, from the handshake to its end. Raises TransportError at the end."""
        connection = self._connector(self.address)
        session = uuid.uuid4().hex
        with self._changed:
            self._connection = connection
        try:
            if self._stopping.is_set():
                return
            welcome = self._greet(connection, session)
            self._backoff.reset()
            with self._changed:
                self._connected = True
                self._last_trouble = "the learner answers, but has published nothing yet"
            receiver = Receiver(welcome.manifest, welcome.run_id, newest=self._newest)
            for message in connection.watch(session):
                self._receive(receiver, message, connection, session, welcome)
                if self._stopping.is_set():
                    return
        finally:
            with self._changed:
                self._connected = False
                self._connection = None
            connection.close()

    def _greet(self, connection: Connection, session: str) -> Welcome:
        hello = Hello(PROTOCOL, self.actor_id, session, self._state, self.reads)
        welcome = accept(connection.hello(hello), traced=self._traced, address=self.address)
        run_id = welcome.run_id
        if run_id in self._runs[:-1]:
            raise StaleVersion(f"the learner at {self.address} serves run {run_id[:8]}, which a later run has replaced")
        with self._applying:
            live = {item.name: item.tensor for item in inventory(self._policy)}
            check_pins(welcome, self._original if self._original is not None else live)
        if not self._runs or self._runs[-1] != run_id:
            with self._changed:
                self._runs.append(run_id)
                self._newest = 0
                self._staged = None
        return welcome

    def _receive(
        self, receiver: Receiver, message: WatchMessage, connection: Connection, session: str, welcome: Welcome
    ) -> None:
        counter = message.version.counter if isinstance(message, SnapshotBegin) else receiver.counter
        try:
            complete = receiver.take(message)
        except StaleVersion as error:
            self._counts["stale"] += 1
            self._trouble(error.message)
            return
        except IncompleteUpdate as error:
            self._counts["discarded"] += 1
            self._trouble(error.message)
            if not self._stopping.wait(self._backoff.next_s()):
                connection.nack(Nack(self.actor_id, session, welcome.run_id, counter, error.message))
            return
        if complete is None:
            return
        self._backoff.reset()
        begin, arena = complete
        with self._changed:
            self._counts["received"] += 1
            self._newest = begin.version.counter
            self._staged = _Staged(begin, arena, session, welcome.probe)
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
