"""The learner's side: weights go out in whole, hashed, numbered versions."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from weightkit.arena import Arena
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.text import printable
from weightkit.core.version import WeightVersion
from weightkit.digest import root_digest, tensor_digest
from weightkit.errors import PublishRefused
from weightkit.sync.golden import GoldenProbe
from weightkit.sync.handshake import answer, pin_digests
from weightkit.sync.inventory import inventory
from weightkit.sync.proof import Optimizers, judge, raise_for
from weightkit.sync.read_set import Act, Probes, checked, trace
from weightkit.torch_state import spec_of
from weightkit.transports import serve
from weightkit.transports.base import (
    CHUNK_BYTES,
    Ack,
    ActorStatus,
    Chunk,
    Heartbeat,
    Hello,
    Nack,
    Reject,
    Service,
    SnapshotBegin,
    SnapshotEnd,
    Status,
    Superseded,
    WatchMessage,
    Welcome,
)

REMEMBERED_ACTORS = 256
REMEMBERED_ROOTS = 1024
_SUMMABLE = (torch.float16, torch.float32, torch.float64)


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version, never changed again; hashed once, however many actors it goes to."""

    version: WeightVersion
    arena: Arena
    digests: Mapping[str, str]
    root: str
    golden: bytes = b""


@dataclass(slots=True)
class _Actor:
    """One actor's slot: the newest version is all that waits for it. ``sent``: the counter that went out whole."""

    actor_id: str
    session: str
    sent: int = 0
    acked: int = 0
    root: str = ""
    nacks: int = 0
    probe_ok: bool = False
    connected: bool = False
    ended: bool = False


@dataclass(slots=True)
class SyncService:
    """What a transport serves: one manifest, the newest snapshot, a slot for each actor. Proves nothing itself."""

    manifest: SyncManifest
    run_id: str
    pins: Mapping[str, str] = field(default_factory=dict)
    heartbeat_s: float = 1.0
    refused: int = 0
    probe: bytes = b""
    _current: Snapshot | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _sessions: dict[str, _Actor] = field(default_factory=dict)
    _actors: OrderedDict[str, _Actor] = field(default_factory=OrderedDict)
    _roots: OrderedDict[int, str] = field(default_factory=OrderedDict)
    _closing: bool = False

    def offer(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` the current version."""
        with self._changed:
            self._current = snapshot
            self._roots[snapshot.version.counter] = snapshot.root
            if len(self._roots) > REMEMBERED_ROOTS:
                self._roots.popitem(last=False)
            self._changed.notify_all()

    def hello(self, hello: Hello) -> Welcome | Reject:
        reply = answer(hello, self.manifest, run_id=self.run_id, pins=self.pins, probe=self.probe)
        if isinstance(reply, Reject):
            names = ", ".join(sorted({finding.subject for finding in reply.report.errors()}))
            logger.warning("refused actor %s: %s", printable(hello.actor_id), printable(names or "see its log"))
            return reply
        with self._changed:
            before = self._actors.pop(hello.actor_id, None)
            actor = _Actor(hello.actor_id, hello.session)
            if before is not None:
                before.ended = True  # one actor, one session: the newer one
                self._sessions.pop(before.session, None)
                actor.nacks = before.nacks
            self._actors[hello.actor_id] = self._sessions[hello.session] = actor
            if len(self._actors) > REMEMBERED_ACTORS:
                self._forget_one()
            self._changed.notify_all()
        return reply

    def _forget_one(self) -> None:
        oldest = next((a for a in self._actors.values() if not a.connected), None)
        if oldest is not None:
            del self._actors[oldest.actor_id]
            self._sessions.pop(oldest.session, None)

    def watch(self, session: str) -> Iterator[WatchMessage]:
        with self._changed:
            actor = self._sessions.get(session)
            if actor is None or self._closing:
                return
            actor.connected = True
        try:
            gave_up = False
            while True:
                snapshot = self._next(actor)
                if actor.ended or self._closing:
                    return
                if snapshot is None:
                    yield Heartbeat()
                    continue
                # giving up once between two whole versions keeps news fresh and still makes progress
                gave_up = yield from self._send(snapshot, actor, may_give_up=not gave_up)
        finally:
            with self._changed:
                actor.connected = False

    def _next(self, actor: _Actor) -> Snapshot | None:
        """The version to send now, or None after ``heartbeat_s`` without one or when the session ends."""

        def ready() -> bool:
            current = self._current
            news = current is not None and current.version.counter > actor.sent
            return news or actor.ended or self._closing

        with self._changed:
            self._changed.wait_for(ready, timeout=self.heartbeat_s)
            current = self._current
            if current is None or current.version.counter <= actor.sent:
                return None
            actor.sent = current.version.counter
            return current

    def _send(self, snapshot: Snapshot, actor: _Actor, *, may_give_up: bool) -> Generator[WatchMessage, None, bool]:
        """The snapshot's messages; the result says whether it was given up for a newer one."""
        version, buffer = snapshot.version, memoryview(snapshot.arena.buffer.data).toreadonly()
        yield SnapshotBegin(
            version, self.manifest.manifest_id, len(buffer), snapshot.digests, snapshot.root, snapshot.golden
        )
        for offset in range(0, len(buffer), CHUNK_BYTES):
            newest = self._current
            if may_give_up and newest is not None and newest is not snapshot and offset < len(buffer) // 2:
                yield Superseded(self.run_id, newest.version.counter)
                return True
            if actor.ended or self._closing:
                return False
            yield Chunk(offset, buffer[offset : offset + CHUNK_BYTES])
        yield SnapshotEnd(snapshot.root)
        return False

    def ack(self, ack: Ack) -> None:
        with self._changed:
            actor = self._sessions.get(ack.session)
            if actor is None or ack.run_id != self.run_id or ack.counter < actor.acked:
                return
            if self._roots.get(ack.counter, ack.applied_root) != ack.applied_root:
                actor.nacks += 1  # it acts with something that was never published
                actor.sent = 0
            else:
                actor.acked, actor.root = ack.counter, ack.applied_root
                actor.probe_ok = actor.probe_ok or ack.probe_ok
            self._changed.notify_all()

    def nack(self, nack: Nack) -> None:
        with self._changed:
            actor = self._sessions.get(nack.session)
            if actor is not None:
                actor.nacks += 1
                actor.sent = 0
                self._changed.notify_all()

    def closed(self, session: str) -> None:
        with self._changed:
            actor = self._sessions.pop(session, None)
            if actor is not None:
                actor.ended = True
                self._changed.notify_all()

    def status(self) -> Status:
        with self._changed:
            counter = 0 if self._current is None else self._current.version.counter
            actors = tuple(
                ActorStatus(a.actor_id, a.connected, a.acked, a.root, counter - a.acked, a.nacks, a.probe_ok)
                for a in self._actors.values()
            )
            root = "" if self._current is None else self._current.root
            return Status(self.run_id, counter, root, self.refused, actors)

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
            self._changed.notify_all()


class Publisher:
    """Serves the weights of ``policy`` to actors, from construction until ``close``.

    ``optimizers``: all that train the policy; what they hold must be sent where ``act()`` reads it. ``golden``: send
    with every version what ``act()`` does on the first probe, so that an actor sees whether its code does the same;
    left out, with the reason in ``report``, where ``act()`` draws random numbers or its observation is no plain data.

    Raises UncoveredRead where ``act()`` reads a tensor that ``manifest`` does not send (NeedsNotMet where the manifest
    does not fit for another reason), AddressInUse, UsageError for a plain-text bind beyond this machine.
    """

    def __init__(
        self,
        policy: nn.Module,
        manifest: SyncManifest,
        *,
        act: Act,
        probes: Probes,
        bind: str = "127.0.0.1:0",
        services: tuple[Service, ...] | list[Service] = (),
        run_id: str | None = None,
        insecure: bool = False,
        heartbeat_s: float = 1.0,
        optimizers: Optimizers = (),
        golden: bool = True,
    ) -> None:
        probes = checked(policy, act, probes)
        traced = trace(policy, act, probes)
        report = judge(traced, manifest, optimizers=optimizers)
        raise_for(report)
        self._golden = GoldenProbe(policy, act, probes[0], traced, manifest) if golden else None
        self.report = (
            report if self._golden is None else report.replace(findings=report.findings + self._golden.findings)
        )
        self._policy = policy
        self.manifest = manifest
        self.run_id = run_id or uuid.uuid4().hex
        self._counter = 0
        self._publishing = threading.Lock()
        own = {item.name: item.tensor for item in inventory(policy)}
        probe = b"" if self._golden is None else self._golden.observation
        self._service = SyncService(manifest, self.run_id, pin_digests(own, manifest), heartbeat_s, probe=probe)
        self._server = serve(bind, self._service, services=tuple(services), insecure=insecure)

    @property
    def address(self) -> str:
        """Where actors connect to."""
        return self._server.address

    def publish(self, learner_step: int = 0) -> WeightVersion:
        """Copy the policy's SEND tensors as they are now and offer them as the next version; the first counter is 1.

        The caller keeps the policy still while this runs (the optimizer's lock). Actors are served by other threads.
        Raises PublishRefused, and keeps offering the last good version, for NaN, infinity, or a tensor whose dtype or
        shape is not the manifest's.
        """
        with self._publishing:
            try:
                arena = self._copy()
            except PublishRefused:
                self._service.refused += 1
                raise
            golden = b"" if self._golden is None else self._golden.action()
            digests = arena_digests(arena)
            self._counter += 1
            version = WeightVersion(self.run_id, self._counter, learner_step)
            self._service.offer(Snapshot(version, arena, digests, root_digest(digests), golden))
            return version

    def _copy(self) -> Arena:
        own: dict[str, Tensor] = {item.name: item.tensor for item in inventory(self._policy)}
        for name in self.manifest.names(Transfer.SEND):
            wanted, tensor = self.manifest.by_name[name].spec, own.get(name)
            if tensor is None or spec_of(tensor) != wanted:
                found = "nothing" if tensor is None else str(spec_of(tensor))
                raise PublishRefused(
                    f"{name}: the manifest says {wanted}, the policy now has {found}; the last version stays",
                    hint="a policy must not change its layout while it is published: restart with a new manifest",
                )
        pins = pin_digests(own, self.manifest)
        moved = sorted(name for name, digest in self._service.pins.items() if pins.get(name) != digest)
        if moved:
            raise PublishRefused(
                f"pinned, but changed since the learner started; the last version stays: {', '.join(moved)}",
                hint="a pinned tensor never travels, so actors would not follow: freeze it, or give its group 'send'",
            )
        arena = Arena(self.manifest)
        arena.pack(own)
        spoiled = [name for name in arena.names if not _finite(arena.tensor(name))]
        if spoiled:
            raise PublishRefused(
                f"not finite, so not published; the last version stays: {', '.join(spoiled)}",
                hint="training has diverged: look at the losses before the last good version",
            )
        return arena

    def status(self) -> dict[str, object]:
        """run_id, counter, root, refused publishes; by actor: acked counter, root, lag, nacks, connected, probe_ok."""
        status = self._service.status()
        return {
            "run_id": status.run_id,
            "counter": status.counter,
            "root": status.root,
            "refused": status.refused,
            "actors": {
                a.actor_id: {
                    "acked": a.acked, "root": a.root, "lag": a.lag, "nacks": a.nacks, "connected": a.connected,
                    "probe_ok": a.probe_ok,
                }
                for a in status.actors
            },
        }  # fmt: skip

    def wait_acked(self, actor_id: str, counter: int, *, timeout_s: float) -> bool:
        """Wait until an actor acts with version ``counter`` or a later one; whether it did in time."""
        return self._service.wait_until(
            lambda status: any(a.actor_id == actor_id and a.acked >= counter for a in status.actors), timeout_s
        )

    def close(self) -> None:
        """End every session and stop listening."""
        self._service.close()
        self._server.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def arena_digests(arena: Arena) -> dict[str, str]:
    """The digest of each tensor in an arena."""
    specs = arena.manifest.state
    return {
        name: tensor_digest(arena.bytes_of(name).data, dtype=specs[name].dtype.name, shape=specs[name].shape)
        for name in arena.names
    }


def _finite(tensor: Tensor) -> bool:
    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return True
    if tensor.dtype in _SUMMABLE:
        with np.errstate(all="ignore"):
            if np.isfinite(tensor.numpy().sum()):  # a sum is the cheapest look at every element; NaN and inf stick
                return True
    elif tensor.element_size() == 1:  # float8 knows few operations
        tensor = tensor.to(torch.float32)
    return bool(torch.isfinite(tensor).all())
