"""Connections whose TLS handshake came to nothing: counted, since gRPC says no more of them."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

SESSION_S = 5.0  # a connection that has made no call for so long after its handshake began did not become a session
LINE_EVERY_S = 60.0
_MOST_CONNECTIONS = 4096
_FORGET_S = 60.0  # a connection without calls for so long may be gone, and its port another's


@dataclass(slots=True)
class _Peer:
    """One connection: its calls under way, and when the last one began or ended."""

    calls: int
    heard: float


class Handshakes:
    """Counts connections whose TLS handshake began and that made no call within ``SESSION_S``.

    gRPC tells when a handshake begins and who calls, and nothing in between; so the first call of a peer is taken for
    the end of the oldest handshake under way. ``clock`` gives seconds. What is remembered is bounded.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: deque[float] = deque()
        self._peers: OrderedDict[str, _Peer] = OrderedDict()
        self._failed = 0
        self._told = 0
        self._told_at = -math.inf

    @property
    def failed(self) -> int:
        """How many connections came to nothing so far, as of now."""
        self.expire()
        return self._failed

    def started(self) -> None:
        """A handshake has begun. Called by gRPC's own threads: does next to nothing."""
        with self._lock:
            self._under_way.append(self._clock())
            if len(self._under_way) > _MOST_CONNECTIONS:
                self._under_way.popleft()
                self._failed += 1

    def peer(self, address: str) -> None:
        """A call of the connection from ``address`` begins."""
        now = self._clock()
        with self._lock:
            known = self._peers.get(address)
            if known is None or (not known.calls and now - known.heard >= _FORGET_S):
                if self._under_way:
                    self._under_way.popleft()
                known = self._peers[address] = _Peer(0, now)
            known.calls += 1
            known.heard = now
            self._peers.move_to_end(address)
            if len(self._peers) > _MOST_CONNECTIONS:
                self._peers.popitem(last=False)

    def left(self, address: str) -> None:
        """A call of the connection from ``address`` has ended."""
        with self._lock:
            known = self._peers.get(address)
            if known is not None:
                known.calls -= 1
                known.heard = self._clock()

    def expire(self, now: float | None = None) -> None:
        """Count what has waited too long, and log it: one line a minute at most. To be called every second or so."""
        now = self._clock() if now is None else now
        with self._lock:
            while self._under_way and now - self._under_way[0] >= SESSION_S:
                self._under_way.popleft()
                self._failed += 1
            new = self._failed - self._told
            if not new or now - self._told_at < LINE_EVERY_S:
                return
            self._told, self._told_at = self._failed, now
        logger.warning(
            "[transport] %s did not get through the TLS handshake (%d so far): plain text, or a certificate that is"
            " missing, expired or of another authority; the other side's log says which",
            "a connection" if new == 1 else f"{new} connections",
            self._told,
        )
