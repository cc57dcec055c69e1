"""Over gRPC: ``HOST:PORT`` or ``unix:PATH``. Control messages are protobuf, weights are raw bytes in chunks."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from weightkit.errors import (
    AddressInUse,
    Disconnected,
    TransportError,
    TransportTimeout,
    Unauthenticated,
    UsageError,
)
from weightkit.transports import _messages as wire
from weightkit.transports.base import (
    Ack,
    Hello,
    Nack,
    Reject,
    Service,
    Status,
    SyncEndpoint,
    WatchMessage,
    Welcome,
)
from weightkit.wire.v1 import sync_pb2 as pb

logger = logging.getLogger(__name__)

SERVICE = "weightkit.wire.v1.Sync"
CALL_TIMEOUT_S = 5.0
SILENCE_S = 4.5  # a learner that says nothing for so long (it beats every second) counts as gone
FLUSH_S = 0.5  # how long closing waits for the last acknowledgement to go out
MAX_CALLS = 256
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 3000),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
]
_SERVER_OPTIONS = [
    *_KEEPALIVE,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
]
_CLIENT_OPTIONS = [
    *_KEEPALIVE,
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def is_local(address: str) -> bool:
    """Whether an address stays on this machine: a UNIX socket, localhost or a loopback IP."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_address(address: str, insecure: bool, verb: str) -> None:
    host, colon, port = address.rpartition(":")
    if not address.startswith("unix:") and not (colon and host and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"{address!r} is no address", hint="HOST:PORT, [IPv6]:PORT, unix:PATH or memory:NAME")
    if not (insecure or is_local(address)):
        raise UsageError(
            f"refused to {verb} {address} in plain text: weights and actions would travel unprotected",
            hint="use a loopback address or unix:PATH, or say --insecure (insecure=True) on a network you trust",
        )


def open_channel(address: str, *, insecure: bool = False) -> Any:
    """A channel with this transport's keepalive and limits. Raises UsageError for plain text beyond this machine."""
    _check_address(address, insecure, "connect to")
    return grpc.insecure_channel(address, options=_CLIENT_OPTIONS)


def error_of(error: Any, address: str) -> TransportError:
    """What a gRPC failure means."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TransportTimeout(f"{address}: no answer in time")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(f"{address}: {details}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Disconnected(f"{address}: the connection is lost or was never made ({details})")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return TransportError(
            f"{address}: the peer does not speak {SERVICE}", hint="is it a weightkit learner, of this version?"
        )
    return TransportError(f"{address}: {code.name.lower()}: {details}")


class GrpcServer:
    """An endpoint on a TCP port or UNIX socket, with health and reflection."""

    def __init__(self, bind: str, endpoint: SyncEndpoint, services: tuple[Service, ...], insecure: bool) -> None:
        _check_address(bind, insecure, "listen at")
        _check_free(bind)
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._sessions: set[str] = set()
        self._pool = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="weightkit-grpc")
        self._server = grpc.server(self._pool, options=_SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)
        health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME, health.SERVICE_NAME), self._server)
        for install in services:
            install(self._server)
        try:
            port = self._server.add_insecure_port(bind)
        except RuntimeError as error:
            self._pool.shutdown()
            _check_free(bind)
            raise TransportError(f"cannot listen at {bind}: {error}") from None
        self.address = bind if bind.startswith("unix:") else f"{bind.rpartition(':')[0]}:{port}"
        self._health = health_servicer
        self._server.start()

    def _handlers(self) -> Any:
        def unary(function: Callable[[Any], Any], request: Any, reply: Any) -> Any:
            def call(message: Any, context: Any) -> Any:
                try:
                    return function(message)
                except ValueError as error:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

            return grpc.unary_unary_rpc_method_handler(
                call, request_deserializer=request.FromString, response_serializer=reply.SerializeToString
            )

        endpoint = self._endpoint

        def ack(message: Any) -> Any:
            endpoint.ack(wire.ack_from_wire(message))
            return pb.Empty()

        def nack(message: Any) -> Any:
            endpoint.nack(wire.nack_from_wire(message))
            return pb.Empty()

        methods = {
            "Hello": unary(
                lambda m: wire.reply_to_wire(endpoint.hello(wire.hello_from_wire(m))), pb.HelloRequest, pb.HelloReply
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                self._watch, request_deserializer=pb.WatchRequest.FromString, response_serializer=None
            ),
            "Acknowledge": unary(ack, pb.Ack, pb.Empty),
            "Refuse": unary(nack, pb.Nack, pb.Empty),
            "GetStatus": unary(lambda _: wire.status_to_wire(endpoint.status()), pb.Empty, pb.Status),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _watch(self, request: Any, context: Any) -> Iterator[bytes]:
        session = str(request.session)
        with self._lock:
            self._sessions.add(session)
        if not context.add_callback(lambda: self._ended(session)):
            self._ended(session)
            return
        for message in self._endpoint.watch(session):
            yield wire.frame_of(message)

    def _ended(self, session: str) -> None:
        with self._lock:
            self._sessions.discard(session)
        self._endpoint.closed(session)

    def close(self) -> None:
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace=0.5)
        with self._lock:
            sessions = tuple(self._sessions)
        for session in sessions:
            self._ended(session)
        stopped.wait()
        self._pool.shutdown(wait=True)


def _check_free(bind: str) -> None:
    """Raise AddressInUse where somebody listens: gRPC would take a UNIX socket over, and is vague about a port."""
    in_use = AddressInUse(
        f"cannot listen at {bind}: another process listens there already",
        hint="stop it, or choose another address (port 0 takes any free port)",
    )
    if bind.startswith("unix:"):
        path = bind.removeprefix("unix:").removeprefix("//")
        if os.path.exists(path):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(path) == 0:
                    raise in_use
        return
    host, _, port = bind.rpartition(":")
    if port == "0":
        return
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise TransportError(f"cannot listen at {bind}: {error}") from None
    family, kind, protocol, _, where = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(where)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise in_use from None
            raise TransportError(f"cannot listen at {bind}: {error.strerror}") from None


class GrpcConnection:
    """A connection to a learner on a TCP port or UNIX socket."""

    def __init__(self, address: str, insecure: bool, *, silence_s: float = SILENCE_S) -> None:
        self._address = address
        self._silence_s = silence_s
        self._channel = open_channel(address, insecure=insecure)
        self._lock = threading.Lock()
        self._closed = False
        self._stream: Any = None
        self._last_ack: Any = None

        def unary(method: str, reply: Any) -> Any:
            # a message class's SerializeToString, taken unbound, is the serializer
            return self._channel.unary_unary(
                f"/{SERVICE}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reply.FromString,
            )

        self._hello = unary("Hello", pb.HelloReply)
        self._ack = unary("Acknowledge", pb.Empty)
        self._nack = unary("Refuse", pb.Empty)
        self._status = unary("GetStatus", pb.Status)
        self._watch = self._channel.unary_stream(
            f"/{SERVICE}/Watch",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=None,
        )

    def _call(self, method: Any, message: Any) -> Any:
        try:
            return method(message, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise error_of(error, self._address) from None
        except ValueError as error:  # the channel was closed by another thread
            raise Disconnected(f"{self._address}: {error}") from None

    def hello(self, hello: Hello) -> Welcome | Reject:
        reply = self._call(self._hello, wire.hello_to_wire(hello))
        try:
            return wire.reply_from_wire(reply)
        except ValueError as error:
            raise TransportError(f"{self._address}: {error}") from None

    def watch(self, session: str) -> Iterator[WatchMessage]:
        try:
            with self._lock:
                if self._closed:
                    raise ValueError("the connection is closed")
                stream = self._stream = self._watch(pb.WatchRequest(session=session))
        except ValueError as error:
            raise Disconnected(f"{self._address}: {error}") from None
        guard = _SilenceGuard(stream.cancel, self._silence_s)
        try:
            for frame in stream:
                guard.heard()
                yield wire.message_of(frame)
        except grpc.RpcError as error:
            if guard.fired:
                raise Disconnected(f"{self._address}: nothing was heard for {self._silence_s:g} s") from None
            raise error_of(error, self._address) from None
        except ValueError as error:
            raise TransportError(f"{self._address}: {error}") from None
        finally:
            guard.close()
            stream.cancel()
        raise Disconnected(f"{self._address}: the learner ended the session")

    def ack(self, ack: Ack) -> None:
        def report(call: Any) -> None:
            if call.code() is not grpc.StatusCode.OK:
                logger.info("%s: version %d was not acknowledged: %s", self._address, ack.counter, call.code())

        try:
            self._last_ack = self._ack.future(wire.ack_to_wire(ack), timeout=CALL_TIMEOUT_S)
        except ValueError as error:
            raise Disconnected(f"{self._address}: {error}") from None
        self._last_ack.add_done_callback(report)

    def nack(self, nack: Nack) -> None:
        self._call(self._nack, wire.nack_to_wire(nack))

    def status(self) -> Status:
        return wire.status_from_wire(self._call(self._status, pb.Empty()))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            stream = self._stream
        if stream is not None:
            stream.cancel()
        if self._last_ack is not None:
            with contextlib.suppress(grpc.RpcError, grpc.FutureTimeoutError, grpc.FutureCancelledError):
                self._last_ack.result(timeout=FLUSH_S)
        self._channel.close()


class _SilenceGuard:
    """Calls ``cancel`` once, when nothing was heard for ``limit_s``."""

    def __init__(self, cancel: Callable[[], object], limit_s: float) -> None:
        self._cancel, self._limit_s = cancel, limit_s
        self._last = time.monotonic()
        self._done = threading.Event()
        self.fired = False
        self._thread = threading.Thread(target=self._run, name="weightkit-silence-guard", daemon=True)
        self._thread.start()

    def heard(self) -> None:
        self._last = time.monotonic()

    def _run(self) -> None:
        while not self._done.wait(max(0.01, self._last + self._limit_s - time.monotonic())):
            if time.monotonic() - self._last >= self._limit_s:
                self.fired = True
                self._cancel()
                return

    def close(self) -> None:
        self._done.set()
        self._thread.join()


class GrpcTransport:
    """Over gRPC."""

    def serve(
        self, bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), insecure: bool = False
    ) -> GrpcServer:
        return GrpcServer(bind, endpoint, services, insecure)

    def connect(self, address: str, *, insecure: bool = False) -> GrpcConnection:
        return GrpcConnection(address, insecure)


TRANSPORT = GrpcTransport()
