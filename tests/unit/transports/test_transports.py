"""What every transport must do, run on each; then what is gRPC's alone."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import StateSpec, spec
from weightkit.core.version import WeightVersion
from weightkit.errors import AddressInUse, Disconnected, TransportError, TransportTimeout, UsageError
from weightkit.shared_memory import SharedRef
from weightkit.sync.handshake import accept, answer
from weightkit.sync.read_set import Trace
from weightkit.transports import _messages as wire
from weightkit.transports import connect, serve
from weightkit.transports._grpc_connection import GrpcConnection
from weightkit.transports.base import (
    OPEN,
    PROTOCOL,
    Access,
    Ack,
    ActorStatus,
    Backoff,
    Chunk,
    Demand,
    Fetch,
    Have,
    Heartbeat,
    Hello,
    LiveReport,
    LiveState,
    Nack,
    Question,
    Receipt,
    Reject,
    Resume,
    SnapshotBegin,
    SnapshotEnd,
    Status,
    Superseded,
    Watch,
    WatchMessage,
    Welcome,
)

MANIFEST = SyncManifest(
    "tiny",
    (Group("all", Transfer.SEND), Group("rest", Transfer.HOLD, "not read")),
    (
        ManifestEntry("a", "all", "parameter", spec("float32", 2, 3), 0),
        ManifestEntry("b", "all", "buffer", spec("int64"), 64),
        ManifestEntry("c", "rest", "attribute", spec("bfloat16", 0), frozen=True),
    ),
)
STATE = StateSpec({"a": spec("float32", 2, 3), "b": spec("int64"), "tied": spec("int64")}, {"tied": "b"})
OFFER = Welcome(PROTOCOL, "run", MANIFEST, {"pin": "digest"})
WATCH = Watch("session", Resume(2, 1, 64), shared=True)
HELLO = Hello(PROTOCOL, "actor", "session", STATE, frozenset({"a", "b"}), Have("run", 2, "before"), True)
BEGIN = SnapshotBegin(WeightVersion("run", 3, -1), MANIFEST.manifest_id, 72, {"a": "1", "b": "2"}, "root")
SHARED = SharedRef(7, 5, "weightkit-x", 72)
MESSAGES: list[WatchMessage] = [
    BEGIN, Chunk(0, b"\x00" * 64), Heartbeat(9), Superseded("run", 4), Chunk(64, b"12345678"), SnapshotEnd("root"),
    Demand(3, scramble=True), replace(BEGIN, golden=b"g", base=2, resumed_at=64, age_ms=12, shared=SHARED),
]  # fmt: skip
REFUSAL = Reject(
    PROTOCOL, "no", Report("handshake", (Finding("WK301", Severity.ERROR, "a", "said", "do"),), exit_code=1)
)
STATUS = Status(
    "run", 3, "root", 1, (ActorStatus("actor", True, 2, "old", 1, 4, True, "stream", 1.5, 72, True),), 9, 0.5
)
LIVE = LiveState("actor", 3, 4, ("a",), ("b",), ("b",), ("a", "b"), True, "why")


class Recorder:
    """An endpoint that remembers what it was told and says ``MESSAGES``, then waits until its session is closed."""

    def __init__(self, reply: Welcome | Reject | None = None) -> None:
        self.reply = reply or OFFER
        self.heard: list[object] = []
        self.changed = threading.Condition()
        self.over: set[str] = set()

    def _hear(self, message: object) -> None:
        with self.changed:
            self.heard.append(message)
            self.changed.notify_all()

    def wait_for(self, message: object) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: message in self.heard, timeout=10)

    def hello(self, hello: Hello) -> Welcome | Reject:
        self._hear(hello)
        return self.reply

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        self._hear(watch)
        yield from MESSAGES
        with self.changed:
            self.changed.wait_for(lambda: watch.session in self.over, timeout=30)

    def ack(self, ack: Ack) -> None:
        self._hear(ack)

    def nack(self, nack: Nack) -> None:
        self._hear(nack)

    def received(self, receipt: Receipt) -> None:
        self._hear(receipt)

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        self._hear(fetch)
        if fetch.counter != 3:
            raise LookupError("gone")
        yield Chunk(64, b"12345678")

    def answer(self, report: LiveReport) -> None:
        self._hear(report)

    def describe(self) -> Welcome:
        return OFFER

    def ask(self, question: Question) -> LiveState:
        self._hear(question)
        return LIVE

    def status(self) -> Status:
        return STATUS

    def closed(self, session: str) -> None:
        with self.changed:
            self.over.add(session)
            self.heard.append(("closed", session))
            self.changed.notify_all()


@pytest.fixture(params=["memory:", "127.0.0.1:0", "unix:"])
def bind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name: str = request.param
    return f"unix:{tmp_path}/socket" if name == "unix:" else name


def same(left: WatchMessage, right: WatchMessage) -> bool:
    if isinstance(left, Chunk) and isinstance(right, Chunk):
        return (left.offset, bytes(left.data)) == (right.offset, bytes(right.data))
    return left == right


def test_every_message_arrives_as_it_was_sent(bind: str) -> None:
    endpoint = Recorder()
    server, connection = serve(bind, endpoint), None
    try:
        connection = connect(server.address)
        assert connection.hello(HELLO) == endpoint.reply
        assert endpoint.heard == [HELLO]
        assert connection.describe() == OFFER
        stream = connection.watch(WATCH)
        for expected in MESSAGES:
            assert same(next(stream), expected)
        ack, nack = Ack("actor", "session", "run", 3, "root", 1.5), Nack("actor", "session", "run", 3, "why", "a")
        connection.ack(ack)
        connection.nack(nack)
        assert endpoint.wait_for(ack)
        assert endpoint.wait_for(nack)
        receipt, fetch = Receipt("session", "run", 3, (2, 3)), Fetch("session", "run", 3, ("b",))
        report = LiveReport("session", 3, "run", 3, {"a": "1"}, ("a",), ("b",), True, "why")
        question = Question("actor", scramble=True, force=True)
        connection.received(receipt)
        connection.answer(report)
        assert [(chunk.offset, bytes(chunk.data)) for chunk in connection.fetch(fetch)] == [(64, b"12345678")]
        with pytest.raises(LookupError):
            list(connection.fetch(replace(fetch, counter=2)))
        assert connection.ask(question) == LIVE
        for message in (WATCH, receipt, report, fetch, question):
            assert endpoint.wait_for(message)
        assert replace(connection.status(), counts={}) == STATUS
    finally:
        if connection is not None:
            connection.close()
        server.close()


def test_a_refusal_keeps_its_findings(bind: str) -> None:
    server = serve(bind, Recorder(REFUSAL))
    connection = connect(server.address)
    try:
        assert connection.hello(HELLO) == REFUSAL
    finally:
        connection.close()
        server.close()


def test_closing_a_connection_ends_its_watch_and_frees_its_session(bind: str) -> None:
    endpoint = Recorder()
    server = serve(bind, endpoint)
    connection = connect(server.address)
    outcome: list[BaseException] = []
    arrived = threading.Event()

    def follow() -> None:
        try:
            for message in connection.watch(WATCH):
                if isinstance(message, SnapshotEnd):
                    arrived.set()
        except TransportError as error:
            outcome.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert arrived.wait(10)
        connection.close()
        thread.join(10)
        assert [type(error) for error in outcome] == [Disconnected]
        assert endpoint.wait_for(("closed", "session"))
    finally:
        server.close()
        thread.join(10)


def test_closing_a_server_ends_every_watch(bind: str) -> None:
    server = serve(bind, Recorder())
    connection = connect(server.address)
    try:
        stream = connection.watch(WATCH)
        for _ in MESSAGES:
            next(stream)
        closing = threading.Thread(target=server.close)
        closing.start()
        with pytest.raises(Disconnected):
            next(stream)
        closing.join(10)
        assert not closing.is_alive()
        with pytest.raises((Disconnected, TransportTimeout)):
            connection.hello(HELLO)
    finally:
        connection.close()


def test_an_address_is_taken_once(bind: str) -> None:
    server = serve(bind, Recorder())
    try:
        with pytest.raises(AddressInUse):
            serve(server.address, Recorder())
    finally:
        server.close()
    serve(server.address, Recorder()).close()


def test_a_closed_server_is_nobody(bind: str) -> None:
    server = serve(bind, Recorder())
    server.close()
    connection = connect(server.address)
    try:
        with pytest.raises((Disconnected, TransportTimeout)):
            connection.hello(HELLO)
    finally:
        connection.close()


# ---- gRPC alone


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.168.1.2:50051", "robot.example:50051", "[::]:0"])
def test_plain_text_beyond_this_machine_is_refused_on_both_sides(address: str) -> None:
    with pytest.raises(UsageError, match="plain text"):
        serve(address, Recorder())
    with pytest.raises(UsageError, match="plain text"):
        connect(address)


def test_insecure_is_said_aloud_and_then_taken() -> None:
    server = serve("0.0.0.0:0", Recorder(), access=Access(insecure=True))
    server.close()


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:", "127.0.0.1:99999", ":0", "memory"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        connect(address)


def test_a_port_that_another_program_holds_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with pytest.raises(AddressInUse, match="another process"):
            serve(f"127.0.0.1:{other.getsockname()[1]}", Recorder())


def test_a_silent_learner_counts_as_gone() -> None:
    server = serve("127.0.0.1:0", Recorder())  # says MESSAGES, then never a heartbeat
    connection = GrpcConnection(server.address, OPEN, silence_s=0.2)
    try:
        with pytest.raises(Disconnected, match="nothing was heard"):
            list(connection.watch(WATCH))
    finally:
        connection.close()
        server.close()


def test_a_peer_that_accepts_and_never_answers_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightkit.transports._grpc_connection.CALL_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        connection = connect(f"127.0.0.1:{mute.getsockname()[1]}")
        try:
            with pytest.raises((TransportTimeout, Disconnected)):
                connection.hello(HELLO)
        finally:
            connection.close()


def test_health_and_further_services_share_the_server() -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    def install(server: Any) -> None:
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Back": handler}),))

    server = serve("127.0.0.1:0", Recorder(), services=(install,))
    try:
        with grpc.insecure_channel(server.address) as channel:
            assert channel.unary_unary("/test.Echo/Back")(b"abc", timeout=10) == b"cba"
            request = health_pb2.HealthCheckRequest(service="weightkit.wire.v1.Sync")
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        server.close()


def test_the_memory_transport_refuses_further_services() -> None:
    with pytest.raises(UsageError):
        serve("memory:", Recorder(), services=(lambda server: None,))


@pytest.mark.parametrize("frame", [b"", b"\x07", b"\x02abc"])
def test_a_frame_that_makes_no_sense_is_refused(frame: bytes) -> None:
    with pytest.raises(ValueError):
        wire.message_of(frame)


def test_a_hello_with_an_unknown_dtype_is_refused_and_the_server_lives_on() -> None:
    endpoint = Recorder()
    server = serve("127.0.0.1:0", endpoint)
    connection = connect(server.address)
    bad = wire.hello_to_wire(HELLO)
    bad.tensors[0].dtype = "float33"
    try:
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/weightkit.wire.v1.Sync/Hello")
            with pytest.raises(grpc.RpcError, match="float33"):
                call(wire.sealed(bad), timeout=10)
        assert connection.hello(HELLO) == endpoint.reply
    finally:
        connection.close()
        server.close()


def test_version_skew_names_both_protocols_on_either_side() -> None:
    newer = Hello(PROTOCOL + 6, "actor", "session", STATE, frozenset())
    reply = answer(newer, OFFER)
    assert isinstance(reply, Reject)
    assert "protocol 1" in reply.message
    assert "protocol 7" in reply.message
    with pytest.raises(TransportError, match=r"protocol 7 .* protocol 1"):
        accept(Welcome(7, "run", MANIFEST), traced=Trace(frozenset(), frozenset(), ()), address="it")


def test_pauses_grow_with_jitter_between_their_bounds_and_start_again() -> None:
    backoff = Backoff(low_s=0.1, high_s=2.0)
    pauses = [backoff.next_s() for _ in range(12)]
    assert all(0.1 <= pause <= 2.0 for pause in pauses)
    assert all(pause >= 1.0 for pause in pauses[6:])
    backoff.reset()
    assert backoff.next_s() == 0.1
