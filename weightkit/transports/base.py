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
from weightkit.shared_memory import SharedRef

PROTOCOL = 1
DEMAND_S = 30.0
"""For so long somebody waits for what an actor's policy holds; later it is not looked at, and never scrambled."""
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Access:
    """How a connection is protected, and which ways it may take.

    ``tls``: a folder that ``weightkit-learner --make-certs`` has filled; both sides then show a certificate of its
    authority. ``token``: a secret that every call carries. ``insecure``: plain text beyond this machine is meant.
    ``shared_memory``: weights may go through memory that both sides map, where they are on one machine.
    """

    insecure: bool = False
    tls: str | None = None
    token: str | None = field(default=None, repr=False)
    shared_memory: bool = True


OPEN = Access()
"""Plain text, on this machine only."""


@dataclass(frozen=True, slots=True)
class Have:
    """The newest version that an actor holds whole, by which a learner knows what need not travel again."""

    run_id: str
    counter: int
    root: str


@dataclass(frozen=True, slots=True)
class Hello:
    """An actor's need: the whole state of its policy, and which of it ``act()`` reads. A session is one connection.

    ``simulated``: nothing real moves when it acts, so that it may be stopped and scrambled at any time.
    """

    protocol: int
    actor_id: str
    session: str
    state: StateSpec
    reads: frozenset[str]
    have: Have | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    """A learner's offer; ``pins`` are the digests of the tensors that never travel and must be equal already.

    ``probe``: the golden probe's observation, b"" where there is none. ``shared``: memory of the learner's machine, for
    an actor to try whether it can map it; None where weights go by chunks only.
    """

    protocol: int
    run_id: str
    manifest: SyncManifest
    pins: Mapping[str, str] = field(default_factory=dict)
    probe: bytes = b""
    shared: SharedRef | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A learner's refusal; ``report`` names every tensor that is in the way (none where it is the protocol)."""

    protocol: int
    message: str
    report: Report


@dataclass(frozen=True, slots=True)
class Resume:
    """A transfer that a lost connection broke off; ``offset`` is that of the first missing byte of the payload."""

    counter: int
    base: int
    offset: int


@dataclass(frozen=True, slots=True)
class Watch:
    """What a session wants to be sent. ``shared``: its actor has mapped the memory that the Welcome named."""

    session: str
    resume: Resume | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotBegin:
    """A version follows: chunks in order of their offsets, then SnapshotEnd.

    With ``base`` 0 all of it travels, and ``digests`` are those of all tensors that are sent. Else only the tensors in
    ``digests`` travel, and the others are those of version ``base``. ``n_bytes`` is the size of the whole payload, of
    which the chunks go on at ``resumed_at``. ``shared``: it lies there, and no chunks come. ``age_ms``: since it was
    published. ``golden``: what the learner does on the golden probe with this version, b"" where there is none.
    """

    version: WeightVersion
    manifest_id: str
    n_bytes: int
    digests: Mapping[str, str]
    root: str
    golden: bytes = b""
    base: int = 0
    resumed_at: int = 0
    age_ms: int = 0
    shared: SharedRef | None = None


@dataclass(slots=True)
class Chunk:
    """A piece of the payload. ``frame`` is for the transport to keep what it sends, so that it is made once for all."""

    offset: int
    data: bytes | memoryview
    frame: bytes | None = field(default=None, compare=False, repr=False)


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
    """Nothing new since version ``counter``, but the learner is there; it takes the actor to act with ``acked``."""

    counter: int = 0
    acked: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody wants to know what the actor's policy holds: it answers with a LiveReport of this ``number``.

    ``scramble``: it is to overwrite its weights with noise before, and to have them sent again.
    """

    number: int
    scramble: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """A version is whole and verified on the actor, which does not act with it yet.

    ``holds``: the versions whose shared memory the actor still reads, of those up to this one.
    """

    session: str
    run_id: str
    counter: int
    holds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetch:
    """``tensors`` of a version arrived damaged and are wanted once more."""

    session: str
    run_id: str
    counter: int
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """The actor acts with a version; ``applied_root`` is its live tensors' root digest, ``apply_ms`` its pause.

    ``probe_ok``: with this version it did on the golden probe what the learner does. ``holds`` as in a Receipt.
    """

    actor_id: str
    session: str
    run_id: str
    counter: int
    applied_root: str
    apply_ms: float
    probe_ok: bool = False
    holds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Nack:
    """The actor has thrown a version away and wants the current one again, whole. ``holds`` as in a Receipt."""

    actor_id: str
    session: str
    run_id: str
    counter: int
    reason: str
    tensor: str = ""
    holds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What an actor's policy holds: ``digests`` of its live tensors, the answer to the Demand of this ``number``.

    ``at_start``: tensors that hold what they held before any weights came. ``scrambled``: those that were overwritten
    with noise. ``refused``: why the demand was not met, empty where it was.
    """

    session: str
    number: int
    run_id: str
    counter: int
    digests: Mapping[str, str] = field(default_factory=dict)
    at_start: tuple[str, ...] = ()
    scrambled: tuple[str, ...] = ()
    probe_ok: bool = False
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody who looks on asks of an actor; ``force``: also where something real may be moving."""

    actor_id: str
    scramble: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class LiveState:
    """An actor's live tensors held against version ``counter`` as it was published; ``newest`` is the learner's.

    ``unanswered``: why there is nothing to hold against it, empty where there is. The rest as in a LiveReport.
    """

    actor_id: str
    counter: int
    newest: int
    equal: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    at_start: tuple[str, ...] = ()
    scrambled: tuple[str, ...] = ()
    probe_ok: bool = False
    unanswered: str = ""


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """How one actor stands: the version it acts with, its root digest, versions behind, transfers thrown away.

    ``probe_ok``: it has done on the golden probe what the learner does. ``path``: how weights go to it, "shared memory"
    or "stream", "" before any did. ``apply_ms``: its last pause. ``sent_bytes``: to it, in its present session.
    """

    actor_id: str
    connected: bool
    acked: int
    root: str
    lag: int
    nacks: int
    probe_ok: bool = False
    path: str = ""
    apply_ms: float = 0.0
    sent_bytes: int = 0
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """How a learner stands; ``refused`` counts versions that it would not publish, ``age_s`` is its newest version's.

    ``counts``: everything else that is counted, by name: the transport's, and what the learner adds.
    """

    run_id: str
    counter: int
    root: str
    refused: int
    actors: tuple[ActorStatus, ...]
    learner_step: int = 0
    age_s: float = 0.0
    counts: Mapping[str, float] = field(default_factory=dict)


WatchMessage = SnapshotBegin | Chunk | SnapshotEnd | Superseded | Heartbeat | Demand


class SyncEndpoint(Protocol):
    """The learner's side, called by a transport from many threads."""

    def hello(self, hello: Hello) -> Welcome | Reject:
        """The answer to an actor's need; a Welcome opens the session."""

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        """Versions as they come, the current one at once; Heartbeat in between. Ends when the session does.

        The next version begins after the Receipt, or the Nack, of the one before.
        """

    def received(self, receipt: Receipt) -> None:
        """An actor has a version whole."""

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        """The bytes of some tensors of a version. Raises LookupError where it is not held any more."""

    def ack(self, ack: Ack) -> None:
        """An actor acts with a version."""

    def nack(self, nack: Nack) -> None:
        """An actor could not take a version."""

    def answer(self, report: LiveReport) -> None:
        """An actor meets a Demand."""

    def status(self) -> Status:
        """How the learner stands."""

    def describe(self) -> Welcome:
        """What the learner offers, to whoever looks on."""

    def ask(self, question: Question) -> LiveState:
        """What an actor's policy holds, as it says itself. Waits for it, for a while."""

    def closed(self, session: str) -> None:
        """The session's connection is gone: its ``watch`` must end, waiting or not. Unknown sessions are ignored."""


class Server(Protocol):
    """An endpoint that listens."""

    @property
    def address(self) -> str:
        """Where to connect to."""

    def counts(self) -> Mapping[str, int]:
        """What was turned away, by reason."""

    def close(self) -> None:
        """Stop listening and end every connection; afterwards no thread of the server is left."""


class Connection(Protocol):
    """The actor's side. Every call has a deadline; any may raise Disconnected, TransportTimeout or TransportError."""

    def hello(self, hello: Hello) -> Welcome | Reject:
        """Say what is needed, hear what is offered."""

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        """Versions as they come. Raises Disconnected when the learner goes or falls silent, or ``close`` is called."""

    def received(self, receipt: Receipt) -> None:
        """Say that a version is whole, so that the next may come."""

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        """The bytes of some tensors of a version once more. Raises LookupError where the learner has let it go."""

    def ack(self, ack: Ack) -> None:
        """Sent without waiting for an answer, so that the acting thread does not wait either."""

    def nack(self, nack: Nack) -> None:
        """Ask for the current version again."""

    def answer(self, report: LiveReport) -> None:
        """Meet a Demand."""

    def status(self) -> Status:
        """How the learner stands."""

    def describe(self) -> Welcome:
        """What the learner offers."""

    def ask(self, question: Question) -> LiveState:
        """What an actor's policy holds."""

    def close(self) -> None:
        """End a running ``watch`` and free everything."""


Service = Callable[[Any], None]
"""Adds further handlers to a transport's server before it starts (for gRPC: to the ``grpc.Server``)."""


class Transport(Protocol):
    """One way of carrying the messages."""

    def serve(
        self, bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), access: Access = OPEN
    ) -> Server:
        """Listen at ``bind``. Raises AddressInUse, UsageError for what this transport cannot do."""

    def connect(self, address: str, *, access: Access = OPEN) -> Connection:
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
