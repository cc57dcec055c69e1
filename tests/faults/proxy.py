"""A TCP proxy that forwards faithfully until it is told not to: one thread, loopback only, exact to the byte."""

from __future__ import annotations

import errno
import fcntl
import math
import selectors
import socket
import struct
import termios
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

from faults.script import (
    BOTH,
    Blackhole,
    Bytes,
    Direction,
    Edit,
    Fault,
    HalfClose,
    Placed,
    Refuse,
    Slow,
    Stall,
    Switch,
)

READ_BYTES = 1 << 16
BUFFER_BYTES = 1 << 18  # where more waits for the sink, nothing more is read from the source
TICK_S = 0.002
DELIVERY_S = 1.0  # how long a reset waits for the bytes before it to arrive


class _Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket | None, counts: Counter[str]) -> None:
        self.source = source
        self.sink = sink
        self.bytes = Bytes(self._switch, counts)
        self.ended = False  # the source says nothing more
        self.finished = False  # the sink was told so, or never will be
        self.dark = self.half_closed = False
        self.lost_bytes = 0
        self.stalled_until = 0.0
        self.bytes_per_s = math.inf
        self.allowance, self.allowed_at = 0.0, 0.0
        self.reset_by: float | None = None
        self._counts = counts

    def _switch(self, fault: Switch) -> None:
        now = time.monotonic()
        if isinstance(fault, Stall):
            self._counts["stalled"] += 1
            self.stalled_until = math.inf if fault.duration_s is None else now + fault.duration_s
        elif isinstance(fault, Slow):
            self._counts["slowed"] += 1
            self.bytes_per_s, self.allowance, self.allowed_at = fault.bytes_per_s, 0.0, now
        elif isinstance(fault, Blackhole):
            self._counts["blackholed"] += 1
            self.dark = True
        elif isinstance(fault, HalfClose):
            self._counts["half_closed"] += 1
            self.half_closed = True
        else:
            self.reset_by = now + DELIVERY_S
        self.bytes.held_back = self._holds(now)

    def _holds(self, now: float) -> bool:
        return self.stalled_until > now or self.reset_by is not None or self.dark or self.half_closed

    def advance(self, now: float) -> None:
        """Take time into account, and move what came in as far as faults let it."""
        if self.bytes_per_s < math.inf:
            # a burst of 50 ms, so that a loop that comes late does not make it slower than it is meant to be
            burst = max(1.0, 0.05 * self.bytes_per_s)
            self.allowance = min(burst, self.allowance + self.bytes_per_s * (now - self.allowed_at))
            self.allowed_at = now
        self.bytes.held_back = self._holds(now)
        self.bytes.advance()
        if self.dark:
            size = self.bytes.swallow()
            self.lost_bytes += size
            self._counts["swallowed_bytes"] += size
        elif self.half_closed:
            self._counts["swallowed_bytes"] += self.bytes.swallow()
        elif self.ended and self.stalled_until <= now:
            self.bytes.end()

    def wants_to_read(self, now: float) -> bool:
        waiting = len(self.bytes.inbox) + len(self.bytes.outbox)
        return not self.ended and self.stalled_until <= now and self.reset_by is None and waiting < BUFFER_BYTES

    def may_write(self) -> int:
        """How many bytes may go out now."""
        if self.sink is None:
            return 0
        return int(min(len(self.bytes.outbox), self.allowance if self.bytes_per_s < math.inf else math.inf))

    def is_delivered(self, now: float) -> bool:
        """Whether all that a reset lets through has arrived, or has had time enough to."""
        assert self.reset_by is not None
        return now >= self.reset_by or (not self.bytes.outbox and (self.sink is None or not _unsent_bytes(self.sink)))

    def heal(self) -> None:
        self.stalled_until, self.bytes_per_s = 0.0, math.inf
        self.dark = False
        self.bytes.clear()


class _Connection:
    """One client, with its own way to the target (none where it came into a black hole)."""

    def __init__(self, number: int, client: socket.socket, server: socket.socket | None, counts: Counter[str]) -> None:
        self.number = number
        self.client, self.server = client, server
        self.connecting = server is not None
        self.up = _Flow(client, server, counts)
        self.flows: dict[Direction, _Flow] = {"up": self.up}
        if server is not None:
            self.flows["down"] = _Flow(server, client, counts)
        self.gone: set[socket.socket] = set()

    def sockets(self) -> list[socket.socket]:
        return [s for s in (self.client, self.server) if s is not None and s not in self.gone]


class FaultProxy:
    """Listens at ``address`` and forwards to ``target``, both ``HOST:PORT``; ``faults`` hold from the start.

    ``inject`` and ``heal`` return when the change is in force. Where they act at a byte they are exact: the same faults
    do the same to the same bytes, however the bytes arrive. ``counts()`` says what was done.
    """

    def __init__(self, target: str, *faults: Fault) -> None:
        self._target = _host_port(target)
        self._counts: Counter[str] = Counter()
        self._connections: list[_Connection] = []
        self._faults: list[Placed] = []
        self._number = 0
        # bound, but never listening: keeps the port while connections are refused
        self._keeper = _bound(("127.0.0.1", 0))
        self._listener: socket.socket | None = None
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        for end in (self._wake, self._woken):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._failure: BaseException | None = None
        self._closing = False
        self._listen()
        for fault in faults:
            self._put(fault)
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where to connect to."""
        host, port = self._keeper.getsockname()
        return f"{host}:{port}"

    @property
    def connections(self) -> int:
        """How many connections have come so far: the number that the next one gets."""
        return self._number

    def counts(self) -> dict[str, int]:
        """What was done so far, by kind; with "accepted" connections and "forwarded_bytes"."""
        found: list[dict[str, int]] = []
        self._order(lambda: found.append(dict(self._counts)))
        return found[0]

    def positions(self) -> dict[tuple[int, Direction], int]:
        """How many bytes have come in and through the faults so far, by connection that is open and direction."""
        found: dict[tuple[int, Direction], int] = {}

        def look() -> None:
            for connection in self._connections:
                for direction, flow in connection.flows.items():
                    found[connection.number, direction] = flow.bytes.position

        self._order(look)
        return found

    def inject(self, *faults: Fault) -> None:
        """Let ``faults`` happen, on open connections and on those that come, until ``heal``."""

        def put() -> None:
            for fault in faults:
                self._put(fault)

        self._order(put)

    def heal(self) -> None:
        """End every fault. A connection that has lost bytes in a black hole is reset, since it could never go on."""
        self._order(self._heal)

    def retarget(self, target: str) -> None:
        """Lead connections that come from now on elsewhere."""

        def turn() -> None:
            self._target = _host_port(target)

        self._order(turn)

    def close(self) -> None:
        """Reset every connection and stop; afterwards no thread is left. Raises what made the thread fail."""
        if self._closing:
            return
        self._closing = True
        self._ring()
        self._thread.join()
        for end in (self._wake, self._woken, self._keeper):
            end.close()
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- orders, from any thread

    def _order(self, do: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((do, done))
        self._ring()
        while not done.wait(0.05):
            if not self._thread.is_alive():
                raise RuntimeError(f"the proxy to {self._target} is closed or has failed") from self._failure

    def _ring(self) -> None:
        try:
            self._wake.send(b"!")
        except BlockingIOError:
            pass  # it is ringing already
        except OSError:
            raise RuntimeError(f"the proxy to {self._target} is closed") from self._failure

    # ---- the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                self._look_after(time.monotonic())
                self._wait()
                while self._orders:
                    do, done = self._orders.popleft()
                    do()
                    done.set()
        except BaseException as failure:
            self._failure = failure
        finally:
            for connection in tuple(self._connections):
                self._reset(connection)
            self._stop_listening()
            self._selector.close()

    def _wait(self) -> None:
        for key, _ in self._selector.select(self._timeout_s()):
            if key.fileobj is self._woken:
                self._woken.recv(4096)
            elif key.fileobj is self._listener:
                self._accept()

    def _timeout_s(self) -> float | None:
        """Until when nothing but a socket or an order changes anything."""
        now = time.monotonic()
        flows = [flow for connection in self._connections for flow in connection.flows.values()]
        if any(f.reset_by is not None or (f.bytes_per_s < math.inf and f.bytes.outbox) for f in flows):
            return TICK_S
        ends = [f.stalled_until for f in flows if now < f.stalled_until < math.inf]
        return max(0.0, min(ends) - now) if ends else None

    def _put(self, fault: Fault) -> None:
        if isinstance(fault, Refuse):
            self._counts["refusing"] += 1
            self._stop_listening()
            return
        assert isinstance(fault, Placed)
        later = fault.connection is not None and fault.connection >= self._number
        if later or fault.at is not None or isinstance(fault, (Stall, Blackhole, Slow)):
            self._faults.append(fault)
        for connection in self._connections:
            _lay(fault, connection)

    def _heal(self) -> None:
        self._faults.clear()
        for connection in tuple(self._connections):
            for flow in connection.flows.values():
                flow.heal()
            if connection.server is None or any(flow.lost_bytes for flow in connection.flows.values()):
                self._reset(connection)
        if self._listener is None:
            self._listen()

    def _listen(self) -> None:
        self._listener = _bound(self._keeper.getsockname())
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self._counts["accepted"] += 1
        server = None if any(self._is_dark(fault) for fault in self._faults) else socket.socket()
        for end in (client, server):
            if end is not None:
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(self._number, client, server, self._counts)
        self._number += 1
        self._connections.append(connection)
        for fault in self._faults:
            _lay(fault, connection)
        if server is not None and server.connect_ex(self._target) not in (0, errno.EINPROGRESS):
            self._reset(connection)

    def _is_dark(self, fault: Placed) -> bool:
        """Whether the connection that comes now goes nowhere from its first byte on."""
        dark = isinstance(fault, Blackhole) and fault.at is None and fault.direction is None
        return dark and fault.connection in (None, self._number)

    def _look_after(self, now: float) -> None:
        """Do whatever can be done without waiting, then say what to wait for."""
        for connection in tuple(self._connections):
            try:
                self._serve(connection, now)
            except OSError:
                self._reset(connection)

    def _serve(self, connection: _Connection, now: float) -> None:
        if connection.connecting:
            assert connection.server is not None
            error = connection.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "the target does not answer")
            connection.connecting = not _is_connected(connection.server)
        for flow in connection.flows.values():
            self._move(connection, flow, now)
        if any(flow.reset_by is not None and flow.is_delivered(now) for flow in connection.flows.values()):
            self._counts["reset"] += 1
            self._reset(connection)
        elif all(flow.finished for flow in connection.flows.values()) and connection.server is not None:
            self._end(connection)
        else:
            self._watch(connection, now)

    def _move(self, connection: _Connection, flow: _Flow, now: float) -> None:
        if connection.connecting and flow is not connection.up:
            return
        for _ in range(8):  # then the other connections have their turn
            read = self._read(connection, flow, now)
            flow.advance(now)
            if not (self._write(connection, flow) or read):
                break
        all_out = not flow.bytes.outbox and not (flow.ended and flow.bytes.inbox)
        if (flow.ended or flow.half_closed) and all_out and not flow.finished and flow.stalled_until <= now:
            self._finish(connection, flow)

    def _finish(self, connection: _Connection, flow: _Flow) -> None:
        if flow.dark or flow.reset_by is not None or connection.connecting:
            return  # whoever waits behind a black hole is never told
        flow.finished = True
        if flow.sink is not None and flow.sink not in connection.gone:
            flow.sink.shutdown(socket.SHUT_WR)

    def _read(self, connection: _Connection, flow: _Flow, now: float) -> bool:
        if flow.source in connection.gone or not flow.wants_to_read(now):
            return False
        try:
            piece = flow.source.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self._lost(connection, flow)
            return False
        flow.bytes.inbox += piece
        flow.ended = not piece
        return bool(piece)

    def _lost(self, connection: _Connection, flow: _Flow) -> None:
        """The source was reset. Behind a black hole nobody hears of it."""
        if not flow.dark:
            raise OSError("reset by its peer")
        flow.ended = True
        self._forget(connection, flow.source)

    def _write(self, connection: _Connection, flow: _Flow) -> bool:
        size = 0 if connection.connecting else flow.may_write()
        if not size or flow.sink is None or flow.sink in connection.gone:
            return False
        try:
            sent = flow.sink.send(memoryview(flow.bytes.outbox)[:size])
        except BlockingIOError:
            return False
        del flow.bytes.outbox[:sent]
        flow.allowance -= sent
        self._counts["forwarded_bytes"] += sent
        return sent > 0

    def _watch(self, connection: _Connection, now: float) -> None:
        for end in connection.sockets():
            events = 0
            for flow in connection.flows.values():
                if flow.source is end and flow.wants_to_read(now):
                    events |= selectors.EVENT_READ
                if flow.sink is end and flow.may_write():
                    events |= selectors.EVENT_WRITE
            if connection.connecting and end is connection.server:
                events = selectors.EVENT_WRITE
            self._register(end, events)

    def _register(self, end: socket.socket, events: int) -> None:
        known = self._selector.get_map().get(end)
        if known is None:
            if events:
                self._selector.register(end, events)
        elif not events:
            self._selector.unregister(end)
        elif known.events != events:
            self._selector.modify(end, events)

    def _forget(self, connection: _Connection, end: socket.socket) -> None:
        self._register(end, 0)
        connection.gone.add(end)
        end.close()

    def _end(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        for end in connection.sockets():
            self._forget(connection, end)

    def _reset(self, connection: _Connection) -> None:
        for end in connection.sockets():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(connection)


def _lay(fault: Placed, connection: _Connection) -> None:
    """Lay a fault in the way of a connection, where it is meant for it."""
    if fault.connection not in (None, connection.number):
        return
    assert isinstance(fault, Edit | Switch)
    for direction in BOTH if fault.direction is None else (fault.direction,):
        if direction in connection.flows:
            connection.flows[direction].bytes.add(fault)


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _bound(where: tuple[str, int]) -> socket.socket:
    end = socket.socket()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    end.bind(where)
    return end


def _is_connected(end: socket.socket) -> bool:
    try:
        end.getpeername()
    except OSError:
        return False
    return True


def _unsent_bytes(end: socket.socket) -> int:
    """How many bytes the other side's kernel has not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
