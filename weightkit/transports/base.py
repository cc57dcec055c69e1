"""What the two sides say to each other, and what a transport must offer for that."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Report
from weightkit.core.tensor import StateSpec
from weightkit.core.version import WeightVersion

PROTOCOL = 1
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Hello:
    """An actor's need: the whole state of its policy, and which of it ``act()`` reads. A session is one connection."""

    protocol: int
    actor_id: str
    session: str
    state: StateSpec
    reads: frozenset[str]


@dataclass(frozen=True, slots=True)
class Welcome:
    """A learner's offer; ``pins`` are the digests of the tensors that never travel and must be equal already.

    ``probe``: the golden probe's observation, b"" where there is none.
    """

    protocol: int
    run_id: str
    manifest: SyncManifest
    pins: Mapping[str, str] = field(default_factory=dict)
    probe: bytes = b""


@dataclass(frozen=True, slots=True)
class Reject:
    """A learner's refusal; ``report`` names every tensor that is in the way (none where it is the protocol)."""

    protocol: int
    message: str
    report: Report


@dataclass(frozen=True, slots=True)
class SnapshotBegin:
    """A version follows: ``n_bytes`` of chunks in order of their offsets, then SnapshotEnd.

    ``golden``: what the learner does on the golden probe with this version, b"" where there is none.
    """

    version: WeightVersion
    manifest_id: str
    n_bytes: int
    digests: Mapping[str, str]
    root: str
    golden: bytes = b""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the payload."""

    offset: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """The version is complete."""

    root: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """The version under way is given up, a newer one (``counter``) follows at once."""

    run_id: str
    counter: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing new, but the learner is there."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The actor acts with a version; ``applied_root`` is its live tensors' root digest, ``apply_ms`` its pause.

    ``probe_ok``: with this version it did on the golden probe what the learner does.
    """

    actor_id: str
    session: str
    run_id: str
    counter: int
    applied_root: str
    apply_ms: float
    probe_ok: bool = False


@dataclass(frozen=True, slots=True)
class Nack:
    """The actor has thrown a version away and wants the current one again."""

    actor_id: str
    session: str
    run_id: str
    counter: int
    reason: str
    tensor: str = ""


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """How one actor stands: the version it acts with, its root digest, versions behind, transfers thrown away.

    ``probe_ok``: it has done on the golden probe what the learner does.
    """

    actor_id: str
    connected: bool
    acked: int
    root: str
    lag: int
    nacks: int
    probe_ok: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """How a learner stands; ``refused`` counts versions that it would not publish."""

    run_id: str
    counter: int
    root: str
    refused: int
    actors: tuple[ActorStatus, ...]


WatchMessage = SnapshotBegin | Chunk | SnapshotEnd | Superseded | Heartbeat


class SyncEndpoint(Protocol):
    """The learner's side, called by a transport from many threads."""

    def hello(self, hello: Hello) -> Welcome | Reject:
        """The answer to an actor's need; a Welcome opens the session."""

    def watch(self, session: str) -> Iterator[WatchMessage]:
        """Versions as they come, the current one at once; Heartbeat in between. Ends when the session does."""

    def ack(self, ack: Ack) -> None:
        """An actor acts with a version."""

    def nack(self, nack: Nack) -> None:
        """An actor could not take a version."""

    def status(self) -> Status:
        """How the learner stands."""

    def closed(self, session: str) -> None:
        """The session's connection is gone: its ``watch`` must end, waiting or not. Unknown sessions are ignored."""


class Server(Protocol):
    """An endpoint that listens."""

    @property
    def address(self) -> str:
        """Where to connect to."""

    def close(self) -> None:
        """Stop listening and end every connection; afterwards no thread of the server is left."""


class Connection(Protocol):
    """The actor's side. Every call has a deadline; any may raise Disconnected, TransportTimeout or TransportError."""

    def hello(self, hello: Hello) -> Welcome | Reject:
        """Say what is needed, hear what is offered."""

    def watch(self, session: str) -> Iterator[WatchMessage]:
        """Versions as they come. Raises Disconnected when the learner goes or falls silent, or ``close`` is called."""

    def ack(self, ack: Ack) -> None:
        """Sent without waiting for an answer, so that the acting thread does not wait either."""

    def nack(self, nack: Nack) -> None:
        """Ask for the current version again."""

    def status(self) -> Status:
        """How the learner stands."""

    def close(self) -> None:
        """End a running ``watch`` and free everything."""


Service = Callable[[Any], None]
"""Adds further handlers to a transport's server before it starts (for gRPC: to the ``grpc.Server``)."""


class Transport(Protocol):
    """One way of carrying the messages."""

    def serve(
        self, bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), insecure: bool = False
    ) -> Server:
        """Listen at ``bind``. Raises AddressInUse, UsageError for what this transport cannot do."""

    def connect(self, address: str, *, insecure: bool = False) -> Connection:
        """A connection to ``address``; nothing is sent before the first call."""


class Backoff:
    """Growing, jittered pauses between attempts, in seconds: ``low_s`` first, doubling up to ``high_s``.

    Drawn from the upper half of each step, so that many actors that lost one learner do not come back together.
    The default ``high_s`` keeps a returning learner unnoticed for less than 5 s.
    """

    def __init__(self, *, low_s: float = 0.1, high_s: float = 4.0, rng: random.Random | None = None) -> None:
        self._low_s, self._high_s = low_s, high_s
        self._rng = rng or random.Random()
        self._step_s = low_s

    def next_s(self) -> float:
        """The next pause."""
        pause_s = max(self._low_s, self._step_s * (0.5 + 0.5 * self._rng.random()))
        self._step_s = min(2 * self._step_s, self._high_s)
        return pause_s

    def reset(self) -> None:
        """Start again at ``low_s``: an attempt succeeded."""
        self._step_s = self._low_s
