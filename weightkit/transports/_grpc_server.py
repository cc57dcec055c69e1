"""The learner's end of gRPC."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from weightkit.errors import (
    AddressInUse,
    TransportError,
)
from weightkit.transports import _messages as wire
from weightkit.transports._grpc_channel import MAX_CALLS, SERVER_OPTIONS, SERVICE, STALL_S, check_address
from weightkit.transports._handshakes import Handshakes
from weightkit.transports._malloc import keep_freed_memory
from weightkit.transports._security import server_credentials
from weightkit.transports._tokens import Refusals, server_interceptor
from weightkit.transports.base import (
    Access,
    Service,
    Status,
    SyncEndpoint,
)
from weightkit.wire.v1 import sync_pb2 as pb

logger = logging.getLogger(__name__)


class GrpcServer:
    """An endpoint on a TCP port or UNIX socket, with health and reflection."""

    def __init__(self, bind: str, endpoint: SyncEndpoint, services: tuple[Service, ...], access: Access) -> None:
        check_address(bind, access, "listen at")
        _check_free(bind)
        keep_freed_memory()
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._sessions: set[str] = set()
        self._counts = {"malformed": 0, "stalled": 0}
        self._stalls = _Stalls()
        self._refusals = Refusals()
        self._handshakes = None if access.tls is None else Handshakes()
        credentials = (
            None if self._handshakes is None else server_credentials(str(access.tls), self._handshakes.started)
        )
        self._done = threading.Event()
        self._watchdog = threading.Thread(target=self._watch_over, name="weightkit-watchdog", daemon=True)
        self._pool = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="weightkit-grpc")
        self._server = grpc.server(
            self._pool,
            interceptors=(server_interceptor(access.token, self._refusals, self._handshakes),),
            options=SERVER_OPTIONS,
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._methods()),))
        health_servicer = health.HealthServicer(experimental_non_blocking=False)  # the default can freeze a server
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)
        health_servicer.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME, health.SERVICE_NAME), self._server)
        for install in services:
            install(self._server)
        try:
            port = (
                self._server.add_insecure_port(bind)
                if credentials is None
                else self._server.add_secure_port(bind, credentials)
            )
        except RuntimeError as error:
            self._pool.shutdown()
            _check_free(bind)
            raise TransportError(f"cannot listen at {bind}: {error}") from None
        self.address = bind if bind.startswith("unix:") else f"{bind.rpartition(':')[0]}:{port}"
        self._health = health_servicer
        self._watchdog.start()
        self._server.start()

    def _methods(self) -> dict[str, Any]:
        endpoint = self._endpoint
        return {
            "Hello": self._unary(
                pb.HelloRequest, lambda m: endpoint.hello(wire.hello_from_wire(m)), wire.reply_to_wire
            ),
            "Watch": self._stream(pb.WatchRequest, self._watch),
            "Receive": self._unary(pb.Receipt, lambda m: endpoint.received(wire.receipt_from_wire(m))),
            "Fetch": self._stream(pb.FetchRequest, self._fetch),
            "Acknowledge": self._unary(pb.Ack, lambda m: endpoint.ack(wire.ack_from_wire(m))),
            "Refuse": self._unary(pb.Nack, lambda m: endpoint.nack(wire.nack_from_wire(m))),
            "Answer": self._unary(pb.LiveReport, lambda m: endpoint.answer(wire.report_from_wire(m))),
            "GetStatus": self._unary(pb.Empty, lambda _: self._status(), wire.status_to_wire),
            "Describe": self._unary(pb.Empty, lambda _: endpoint.describe(), wire.welcome_to_wire),
            "Ask": self._unary(pb.Question, lambda m: endpoint.ask(wire.question_from_wire(m)), wire.state_to_wire),
        }

    def _unary(
        self, kind: Any, function: Callable[[Any], Any], reply: Callable[[Any], Any] = lambda _: pb.Empty()
    ) -> Any:
        """A call whose request is parsed here: what does not parse is the caller's fault, and no traceback of ours."""

        def call(content: bytes, context: Any) -> Any:
            try:
                return reply(function(wire.parsed(kind, content)))
            except ValueError as error:
                self._malformed(context, error)

        return grpc.unary_unary_rpc_method_handler(call, response_serializer=wire.sealed)

    def _stream(self, kind: Any, function: Callable[[Any, Any], Iterator[bytes]]) -> Any:
        def call(content: bytes, context: Any) -> Iterator[bytes]:
            try:
                yield from function(wire.parsed(kind, content), context)
            except ValueError as error:
                self._malformed(context, error)

        return grpc.unary_stream_rpc_method_handler(call)

    def _malformed(self, context: Any, error: ValueError) -> None:
        with self._lock:
            self._counts["malformed"] += 1
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def _watch(self, request: Any, context: Any) -> Iterator[bytes]:
        watch = wire.watch_from_wire(request)
        with self._lock:
            self._sessions.add(watch.session)
        if not context.add_callback(lambda: self._ended(watch.session)):
            self._ended(watch.session)
            return
        for message in self._endpoint.watch(watch):
            with self._stalls.sending(watch.session, context):
                yield wire.frame_of(message)

    def _fetch(self, request: Any, context: Any) -> Iterator[bytes]:
        try:
            for chunk in self._endpoint.fetch(wire.fetch_from_wire(request)):
                yield wire.frame_of(chunk)
        except LookupError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    def _status(self) -> Status:
        status = self._endpoint.status()
        return replace(status, counts={**status.counts, **self.counts()})

    def _ended(self, session: str) -> None:
        with self._lock:
            self._sessions.discard(session)
        self._endpoint.closed(session)

    def _watch_over(self) -> None:
        while not self._done.wait(1.0):
            if self._handshakes is not None:
                self._handshakes.expire()
            for session, context in self._stalls.since(time.monotonic() - STALL_S):
                with self._lock:
                    self._counts["stalled"] += 1
                logger.warning("cut off a session that took nothing of what it was sent for %g s", STALL_S)
                self._ended(session)
                context.cancel()

    def counts(self) -> dict[str, int]:
        failed = {} if self._handshakes is None else {"failed handshake": self._handshakes.failed}
        with self._lock:
            return {**self._counts, **self._refusals.counts(), **failed}

    def close(self) -> None:
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(grace=0.5)
        with self._lock:
            sessions = tuple(self._sessions)
        for session in sessions:
            self._ended(session)
        stopped.wait()
        self._done.set()
        self._watchdog.join()
        self._pool.shutdown(wait=True)


class _Stalls:
    """Which sessions are in the middle of sending a message, and since when."""

    def __init__(self) -> None:
        self._sending: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def sending(self, session: str, context: Any) -> Iterator[None]:
        """While gRPC takes a message off our hands."""
        with self._lock:
            self._sending[session] = (time.monotonic(), context)
        try:
            yield
        finally:
            with self._lock:
                self._sending.pop(session, None)

    def since(self, then: float) -> list[tuple[str, Any]]:
        """The sessions that have been sending one message since before ``then``; each is told once."""
        with self._lock:
            stuck = [(session, context) for session, (since, context) in self._sending.items() if since < then]
            for session, _ in stuck:
                del self._sending[session]
        return stuck


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
