"""Faults that befall a TCP connection at an exact byte, as data; and what they do to the bytes of one direction.

``up`` is the way from the connecting side to the target, ``down`` the way back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Direction = Literal["up", "down"]
BOTH: tuple[Direction, Direction] = ("up", "down")


class Fault:
    """Anything that can go wrong."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed(Fault):
    """``at``: after so many bytes of that direction, counted as they come; ``connection``: its number, from 0 on.

    Without ``at`` it happens at once on every connection that is open. Without ``connection`` it happens on every one.
    A place that has passed is made up for at the next byte, so of two that overlap the later one waits for the first.
    """

    at: int | None = None
    connection: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _OneWay(Placed):
    direction: Direction = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class _EitherWay(Placed):
    """``direction``: None for both. Without ``at`` it holds for connections that come later, too."""

    direction: Direction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall(_EitherWay):
    """Nothing is read or passed on for ``duration_s``, or until it is healed; nothing is lost."""

    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackhole(_EitherWay):
    """Everything is taken and nothing passed on, not even an end: a half-open peer. New connections find nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(_EitherWay):
    """At most ``bytes_per_s`` are passed on."""

    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Refuse(Fault):
    """New connections are refused; those that are open go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(_OneWay):
    """The bytes before ``at`` arrive, then both sides see the connection reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfClose(_OneWay):
    """The bytes before ``at`` arrive, then that direction ends in an orderly way; the other one goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupt(_OneWay):
    """Bit ``bit`` (0 is the lowest) of one byte is flipped."""

    bit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(_OneWay):
    """``length`` bytes are left out."""

    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate(_OneWay):
    """``length`` bytes are sent twice in a row."""

    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reorder(_OneWay):
    """Two pieces of ``length`` bytes each that follow each other change places."""

    length: int


Edit = Corrupt | Drop | Duplicate | Reorder
Switch = Stall | Blackhole | Slow | Reset | HalfClose
_COUNTED_AS = {Drop: "dropped", Duplicate: "duplicated", Reorder: "reordered"}


def draw_fault(rng: random.Random, *, span_bytes: int = 1 << 20) -> Placed:
    """One fault of any kind but Refuse, on every connection, at one of the first ``span_bytes`` bytes.

    Half of the kinds break what gRPC says to itself; a flipped bit of a message is what it does not see, so that comes
    more often.
    """
    at = rng.randrange(span_bytes)
    direction = rng.choice(BOTH)
    length = rng.choice((1, 9, 100, 5_000, 70_000))
    flip = Corrupt(at=at, direction=direction, bit=rng.randrange(8))
    makers: Sequence[Callable[[], Placed]] = (
        lambda: flip,
        lambda: flip,
        lambda: flip,
        lambda: Stall(at=at, direction=direction, duration_s=rng.uniform(0.02, 0.2)),
        lambda: Blackhole(at=at, direction=rng.choice((None, "up", "down"))),
        lambda: Slow(at=at, direction=direction, bytes_per_s=rng.choice((2e5, 2e6))),
        lambda: Reset(at=at, direction=direction),
        lambda: HalfClose(at=at, direction=direction),
        lambda: flip,
        lambda: Drop(at=at, direction=direction, length=length),
        lambda: Duplicate(at=at, direction=direction, length=length),
        lambda: Reorder(at=at, direction=direction, length=length),
    )
    return rng.choice(makers)()


class Bytes:
    """The bytes of one direction on their way through its faults, the same however they are cut. Knows no sockets.

    ``position`` counts the bytes that came through the front. A Switch is handed to ``on_switch`` at its place, when
    everything before it is in the output.
    """

    def __init__(self, on_switch: Callable[[Switch], object], counts: Counter[str]) -> None:
        self.position = 0
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.held_back = False
        self._on_switch = on_switch
        self._counts = counts
        self._faults: list[tuple[int, Edit | Switch]] = []
        self._under_way: Edit | None = None
        self._done = 0
        self._kept = bytearray()

    def add(self, fault: Edit | Switch) -> None:
        """Lay a fault in the way; one without a place acts on the next byte."""
        self._faults.append((self.position if fault.at is None else fault.at, fault))
        self._faults.sort(key=lambda item: item[0])

    def clear(self) -> None:
        """Forget every fault that has not happened; pieces that were kept back for one go on."""
        self._faults.clear()
        self._give_up()

    def end(self) -> None:
        """Nothing more comes: what was kept back goes on."""
        self.advance()
        self._give_up()

    def advance(self) -> None:
        """Move what came in to the output, as far as faults let it."""
        while not self.held_back:
            if self._under_way is not None:
                if not self.inbox:
                    return
                self._edit(self._under_way)
            elif self._faults and self._faults[0][0] <= self.position:
                _, fault = self._faults[0]
                if isinstance(fault, Edit) and not self.inbox:
                    return
                del self._faults[0]
                if isinstance(fault, Edit):
                    self._under_way, self._done = fault, 0
                else:
                    self._on_switch(fault)
            elif self.inbox:
                free = self._faults[0][0] - self.position if self._faults else len(self.inbox)
                self.outbox += self._take(free)
            else:
                return

    def swallow(self) -> int:
        """Throw away what came in; how many bytes. What is in the output stays: it had passed before."""
        return len(self._take(len(self.inbox)))

    def _take(self, size: int) -> bytes:
        piece = bytes(self.inbox[:size])
        del self.inbox[:size]
        self.position += len(piece)
        return piece

    def _edit(self, edit: Edit) -> None:
        if isinstance(edit, Corrupt):
            self.outbox.append(self._take(1)[0] ^ (1 << edit.bit))
            self._finish("corrupted")
            return
        piece = self._take(edit.length - self._done % edit.length)
        first = self._done < edit.length
        self._done += len(piece)
        if isinstance(edit, Drop):
            self._counts["dropped_bytes"] += len(piece)
        elif isinstance(edit, Duplicate):
            self.outbox += piece
            self._kept += piece
        elif first:
            self._kept += piece
        else:
            self.outbox += piece
        if self._done == edit.length * (2 if isinstance(edit, Reorder) else 1):
            self.outbox += self._kept
            self._finish(_COUNTED_AS[type(edit)])

    def _finish(self, what: str) -> None:
        self._counts[what] += 1
        self._under_way = None
        self._kept.clear()

    def _give_up(self) -> None:
        if isinstance(self._under_way, Reorder):
            self.outbox += self._kept
        self._under_way = None
        self._kept.clear()
