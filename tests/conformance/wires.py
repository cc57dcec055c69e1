"""Connections that are cut, kept from coming back, or damage what goes through them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from conformance.links import Link
from weightkit.errors import Disconnected
from weightkit.shared_memory import SharedBuffer, SharedRef, attach
from weightkit.transports import connect
from weightkit.transports.base import (
    Ack,
    Chunk,
    Connection,
    Fetch,
    Receipt,
    SnapshotBegin,
    SnapshotEnd,
    Watch,
    WatchMessage,
)

Edit = Callable[[Iterator[WatchMessage]], Iterator[WatchMessage]]
"""Makes what the actor hears of a session from what the learner says in it."""

FAULTS = ("cut", "drop", "repeat", "swap", "flip", "truncate", "move")


class Wire:
    """Makes an actor's connections. ``edit`` is applied to every session.

    ``fetches``: damaged tensors can be had. ``holds_acks``: they wait for `deliver_acks`. ``before_receipt``: called
    with its counter before one goes. ``receipts``: the counters of those that the learner has taken.
    """

    def __init__(
        self,
        link: Link,
        edit: Edit = iter,
        *,
        fetches: bool = True,
        holds_acks: bool = False,
        before_receipt: Callable[[int], object] = lambda counter: None,
    ) -> None:
        self.edit = edit
        self.fetches = fetches
        self.before_receipt = before_receipt
        self.holds_acks = holds_acks
        self.held_acks: list[tuple[Connection, Ack]] = []
        self.receipts: list[int] = []
        self._link = link
        self._down = False
        self._open: list[Connection] = []

    def __call__(self, address: str) -> Connection:
        if self._down:
            raise Disconnected("the wire is cut")
        connection = connect(address, access=self._link.actor)
        self._open.append(connection)
        tapped: Any = _Tapped(connection, self)
        return tapped

    def interrupt(self) -> None:
        """End the connection; the next may come at once."""
        while self._open:
            self._open.pop().close()

    def cut(self) -> None:
        """End the connection; none comes before `mend`."""
        self._down = True
        self.interrupt()

    def mend(self) -> None:
        """Let connections come again."""
        self._down = False

    def deliver_acks(self) -> None:
        """Let those that wait go."""
        while self.held_acks:
            connection, ack = self.held_acks.pop(0)
            connection.ack(ack)


class _Tapped:
    def __init__(self, inner: Connection, wire: Wire) -> None:
        self._inner, self._wire = inner, wire

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        return self._wire.edit(self._inner.watch(watch))

    def received(self, receipt: Receipt) -> None:
        self._wire.before_receipt(receipt.counter)
        self._inner.received(receipt)
        self._wire.receipts.append(receipt.counter)

    def fetch(self, fetch: Fetch) -> Iterator[Chunk]:
        if not self._wire.fetches:
            raise LookupError("not held any more")
        return self._inner.fetch(fetch)

    def ack(self, ack: Ack) -> None:
        if self._wire.holds_acks:
            self._wire.held_acks.append((self._inner, ack))
        else:
            self._inner.ack(ack)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def belongs_to_a_version(message: WatchMessage) -> bool:
    return isinstance(message, (SnapshotBegin, Chunk, SnapshotEnd))


class Faults:
    """Spoils the messages of versions at given places, each once; places count from 1 over all sessions.

    What shared memory has instead of a damaged chunk is a damaged copy of it.
    """

    def __init__(self, faults: Iterable[tuple[str, int]]) -> None:
        self._waiting = {place: fault for fault, place in faults}
        self._seen = 0
        self._copies: list[SharedBuffer] = []

    def __call__(self, messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        held: WatchMessage | None = None
        for message in messages:
            fault = ""
            if belongs_to_a_version(message):
                self._seen += 1
                fault = self._waiting.pop(self._seen, "")
            if fault == "swap" and held is None:
                held = message
                continue
            if fault != "drop":
                yield from self._spoilt(fault, message)
            if held is not None:
                yield held
                held = None

    def _spoilt(self, fault: str, message: WatchMessage) -> Iterator[WatchMessage]:
        if fault == "cut":
            raise Disconnected("the wire is cut")
        if fault == "repeat":
            yield from (message, message)
        elif isinstance(message, Chunk):
            yield _spoilt_chunk(fault, message)
        elif isinstance(message, SnapshotBegin) and fault in ("flip", "truncate", "move"):
            yield self.spoilt_begin(fault, message)
        elif isinstance(message, SnapshotEnd) and fault == "flip":
            yield replace(message, root=_flipped(message.root))
        else:
            yield message

    def spoilt_begin(self, fault: str, begin: SnapshotBegin) -> SnapshotBegin:
        """The begin of a version that cannot be put together."""
        if begin.shared is not None:
            return replace(begin, shared=self._spoilt_memory(fault, begin.shared))
        first = min(begin.digests, default="")
        if fault == "flip" or not first:
            return replace(begin, root=_flipped(begin.root))
        if fault == "move":
            return replace(begin, digests={**begin.digests, first: _flipped(begin.digests[first])})
        return replace(begin, digests={name: digest for name, digest in begin.digests.items() if name != first}, base=0)

    def _spoilt_memory(self, fault: str, shared: SharedRef) -> SharedRef:
        if fault == "truncate":
            return replace(shared, nbytes=shared.nbytes - 1)
        if fault == "move":
            return replace(shared, name=_flipped(shared.name))
        copy = SharedBuffer(shared.nbytes)
        copy.array[:] = attach(shared)
        copy.array[shared.nbytes // 2] ^= 4
        self._copies.append(copy)
        return copy.ref


def _spoilt_chunk(fault: str, chunk: Chunk) -> Chunk:
    content = bytearray(chunk.data)
    if fault == "flip":
        content[len(content) // 2] ^= 4
    elif fault == "truncate":
        del content[-1]
    return Chunk(chunk.offset + 64 * (fault == "move"), bytes(content))


def _flipped(text: str) -> str:
    return ("1" if text.startswith("0") else "0") + text[1:]


class Gate:
    """Lets the first ``passing`` messages of versions through; then nothing, until it is opened."""

    def __init__(self, passing: int) -> None:
        self._passing = passing
        self._open = threading.Event()
        self.reached = threading.Event()

    def __call__(self, messages: Iterator[WatchMessage]) -> Iterator[WatchMessage]:
        for message in messages:
            if belongs_to_a_version(message):
                if self._passing == 0 and not self._open.is_set():
                    self.reached.set()
                    self._open.wait()
                self._passing = max(0, self._passing - 1)
            yield message

    def open(self) -> None:
        """Let everything through."""
        self._open.set()

    def close(self) -> None:
        """Let nothing of the next version through."""
        self._passing = 0
        self.reached.clear()
        self._open.clear()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def kept(message: WatchMessage) -> WatchMessage:
    """The message with bytes of its own, to be said again later."""
    return Chunk(message.offset, bytes(message.data)) if isinstance(message, Chunk) else message
