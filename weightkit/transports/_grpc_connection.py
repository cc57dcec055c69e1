"""The actor's end of gRPC."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]

from weightkit.errors import (
    Disconnected,
    TransportError,
)
from weightkit.transports import _messages as wire
from weightkit.transports._grpc_channel import (
    ASK_TIMEOUT_S,
    CALL_TIMEOUT_S,
    FLUSH_S,
    SERVICE,
    SILENCE_S,
    error_of,
    open_channel,
)
from weightkit.transports._malloc import keep_freed_memory
from weightkit.transports.base import (
    Access,
    Ack,
    Chunk,
    Fetch,
    Hello,
    LiveReport,
    LiveState,
    Nack,
    Question,
    Receipt,
    Reject,
    Status,
    Watch,
    WatchMessage,
    Welcome,
)
from weightkit.wire.v1 import sync_pb2 as pb

logger = logging.getLogger(__name__)


class GrpcConnection:
    """A connection to a learner on a TCP port or UNIX socket."""

    def __init__(self, address: str, access: Access, *, silence_s: float = SILENCE_S) -> None:
        self._address = address
        self._silence_s = silence_s
        self._access = access
        keep_freed_memory()
        self._channel = open_channel(address, access=access)
        self._lock = threading.Lock()
        self._closed = False
        self._streams: dict[Any, _SilenceGuard] = {}
        self._speaker = ThreadPoolExecutor(1, thread_name_prefix="weightkit-speaker")
        self._under_way: Future[None] | None = None

    def _call(self, name: str, message: Any, reply: Any = pb.Empty, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            content = self._channel.unary_unary(f"/{SERVICE}/{name}", wire.sealed)(message, timeout=timeout_s)
        except grpc.RpcError as error:
            raise error_of(error, self._address, self._access) from None
        except ValueError as error:  # the channel was closed by another thread
            raise Disconnected(f"{self._address}: {error}") from None
        return self._understood(partial(wire.parsed, reply), content)

    def _send(self, name: str, message: Any, what: str) -> None:
        """Without waiting, not even for gRPC to take it: whoever acknowledges is about to act."""

        def send() -> None:
            try:
                self._call(name, message)
            except TransportError as error:
                logger.info("%s was not taken: %s", what, error.message)

        try:
            self._under_way = self._speaker.submit(send)
        except RuntimeError:
            raise Disconnected(f"{self._address}: the connection is closed") from None

    def _understood(self, convert: Callable[[Any], Any], message: Any) -> Any:
        try:
            return convert(message)
        except ValueError as error:
            raise TransportError(f"{self._address}: {error}") from None

    def hello(self, hello: Hello) -> Welcome | Reject:
        reply: Welcome | Reject = self._understood(
            wire.reply_from_wire, self._call("Hello", wire.hello_to_wire(hello), pb.HelloReply)
        )
        return reply

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        yield from self._frames("Watch", wire.watch_to_wire(watch))
        raise Disconnected(f"{self._address}: the learner ended the session")

    def received(self, receipt: Receipt) -> None:
        self._call("Receive", wire.receipt_to_wire(receipt))

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        for message in self._frames("Fetch", wire.fetch_to_wire(fetch)):
            if not isinstance(message, Chunk):
                raise TransportError(f"{self._address}: expected a chunk, found a {type(message).__name__}")
            yield message

    def _frames(self, name: str, request: Any) -> Iterator[WatchMessage]:
        method = self._channel.unary_stream(f"/{SERVICE}/{name}", wire.sealed)
        try:
            with self._lock:
                if self._closed:
                    raise ValueError("the connection is closed")
                stream = method(request)
                guard = self._streams[stream] = _SilenceGuard(stream.cancel, self._silence_s)
        except ValueError as error:
            raise Disconnected(f"{self._address}: {error}") from None
        try:
            for frame in stream:
                guard.heard()
                yield self._understood(wire.message_of, frame)
        except grpc.RpcError as error:
            if guard.fired:
                raise Disconnected(f"{self._address}: nothing was heard for {self._silence_s:g} s") from None
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise LookupError(error.details()) from None
            raise error_of(error, self._address, self._access) from None
        finally:
            guard.close()
            stream.cancel()
            with self._lock:
                self._streams.pop(stream, None)

    def ack(self, ack: Ack) -> None:
        self._send("Acknowledge", wire.ack_to_wire(ack), f"the acknowledgement of version {ack.counter}")

    def nack(self, nack: Nack) -> None:
        self._call("Refuse", wire.nack_to_wire(nack))

    def answer(self, report: LiveReport) -> None:
        self._send("Answer", wire.report_to_wire(report), f"the answer to question {report.number}")

    def status(self) -> Status:
        return wire.status_from_wire(self._call("GetStatus", pb.Empty(), pb.Status))

    def describe(self) -> Welcome:
        offer: Welcome = self._understood(wire.welcome_from_wire, self._call("Describe", pb.Empty(), pb.Welcome))
        return offer

    def ask(self, question: Question) -> LiveState:
        asked = wire.question_to_wire(question)
        return wire.state_from_wire(self._call("Ask", asked, pb.LiveState, timeout_s=ASK_TIMEOUT_S))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            streams = dict(self._streams)
        for stream, guard in streams.items():
            stream.cancel()
            guard.close()
        if self._under_way is not None:
            wait([self._under_way], timeout=FLUSH_S)
        self._channel.close()
        self._speaker.shutdown(cancel_futures=True)


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
