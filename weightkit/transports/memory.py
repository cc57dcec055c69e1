"""Learner and actors in one process: messages are handed over as they are. ``memory:NAME``."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

from weightkit.errors import AddressInUse, Disconnected, UsageError
from weightkit.transports.base import (
    OPEN,
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
    Service,
    Status,
    SyncEndpoint,
    Watch,
    WatchMessage,
    Welcome,
)

_listening: dict[str, MemoryServer] = {}
_lock = threading.Lock()
_unnamed = itertools.count(1)


class MemoryServer:
    """An endpoint under a name in this process."""

    def __init__(self, bind: str, endpoint: SyncEndpoint) -> None:
        self.endpoint = endpoint
        self._sessions: set[str] = set()
        with _lock:
            self.address = bind if bind != "memory:" else f"memory:unnamed-{next(_unnamed)}"
            if self.address in _listening:
                raise AddressInUse(f"{self.address}: a learner of this process listens there already")
            _listening[self.address] = self

    def opened(self, session: str) -> None:
        """A session watches."""
        with _lock:
            self._sessions.add(session)

    def ended(self, session: str) -> None:
        """A session's connection is gone."""
        with _lock:
            self._sessions.discard(session)
        self.endpoint.closed(session)

    def counts(self) -> Mapping[str, int]:
        """Nothing is ever turned away within a process."""
        return {}

    def close(self) -> None:
        """Free the name and end every watch."""
        with _lock:
            if _listening.get(self.address) is self:
                del _listening[self.address]
            sessions, self._sessions = self._sessions, set()
        for session in sessions:
            self.endpoint.closed(session)


class MemoryConnection:
    """A connection within the process."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._closed = False
        self._session: str | None = None

    def _server(self) -> MemoryServer:
        with _lock:
            server = _listening.get(self._address)
        if server is None or self._closed:
            raise Disconnected(f"{self._address}: nobody listens there")
        return server

    def hello(self, hello: Hello) -> Welcome | Reject:
        reply = self._server().endpoint.hello(hello)
        return replace(reply, shared=None) if isinstance(reply, Welcome) else reply  # it is all one memory

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        server = self._server()
        self._session = watch.session
        server.opened(watch.session)
        try:
            for message in server.endpoint.watch(watch):
                if self._closed:
                    break
                yield message
        finally:
            server.ended(watch.session)
        raise Disconnected(f"{self._address}: the learner ended the session")

    def received(self, receipt: Receipt) -> None:
        self._server().endpoint.received(receipt)

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        return self._server().endpoint.fetch(fetch)

    def ack(self, ack: Ack) -> None:
        self._server().endpoint.ack(ack)

    def nack(self, nack: Nack) -> None:
        self._server().endpoint.nack(nack)

    def answer(self, report: LiveReport) -> None:
        self._server().endpoint.answer(report)

    def status(self) -> Status:
        return self._server().endpoint.status()

    def describe(self) -> Welcome:
        return self._server().endpoint.describe()

    def ask(self, question: Question) -> LiveState:
        return self._server().endpoint.ask(question)

    def close(self) -> None:
        with _lock:
            server = _listening.get(self._address)
        self._closed = True
        if server is not None and self._session is not None:
            server.ended(self._session)


class MemoryTransport:
    """Within one process."""

    def serve(
        self, bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), access: Access = OPEN
    ) -> MemoryServer:
        del access  # nothing leaves the process
        if services:
            raise UsageError(f"{bind}: the memory transport carries no further services", hint="bind to 127.0.0.1:0")
        return MemoryServer(bind, endpoint)

    def connect(self, address: str, *, access: Access = OPEN) -> MemoryConnection:
        del access
        return MemoryConnection(address)


TRANSPORT = MemoryTransport()
