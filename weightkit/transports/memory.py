"""Learner and actors in one process: messages are handed over as they are. ``memory:NAME``."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

from weightkit.errors import AddressInUse, Disconnected, UsageError
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
        return self._server().endpoint.hello(hello)

    def watch(self, session: str) -> Iterator[WatchMessage]:
        server = self._server()
        self._session = session
        server.opened(session)
        try:
            for message in server.endpoint.watch(session):
                if self._closed:
                    break
                yield message
        finally:
            server.ended(session)
        raise Disconnected(f"{self._address}: the learner ended the session")

    def ack(self, ack: Ack) -> None:
        self._server().endpoint.ack(ack)

    def nack(self, nack: Nack) -> None:
        self._server().endpoint.nack(nack)

    def status(self) -> Status:
        return self._server().endpoint.status()

    def close(self) -> None:
        with _lock:
            server = _listening.get(self._address)
        self._closed = True
        if server is not None and self._session is not None:
            server.ended(self._session)


class MemoryTransport:
    """Within one process."""

    def serve(
        self, bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), insecure: bool = False
    ) -> MemoryServer:
        del insecure  # nothing leaves the process
        if services:
            raise UsageError(f"{bind}: the memory transport carries no further services", hint="bind to 127.0.0.1:0")
        return MemoryServer(bind, endpoint)

    def connect(self, address: str, *, insecure: bool = False) -> MemoryConnection:
        del insecure
        return MemoryConnection(address)


TRANSPORT = MemoryTransport()
