"""Whether what actors were seen to hold is what a learner had published, whole and in order."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from faults.policies import POISONED


@dataclass(frozen=True, slots=True)
class Look:
    """What an acting thread sees after a poll, on itself alone.

    ``digest`` is that of the live weights, ``run_id`` and ``counter`` are the version that the subscriber says they are
    ("" and 0 before the first). ``balanced``: until now produced was always accepted + pending + dropped, and what was
    handed over. ``quiet``: nothing more is produced. ``trouble``: what has ended the acting.
    """

    digest: str
    run_id: str = ""
    counter: int = 0
    root: str = ""
    connected: bool = False
    produced: int = 0
    accepted: int = 0
    pending: int = 0
    dropped: int = 0
    balanced: bool = True
    discarded: int = 0
    repaired: int = 0
    reconnects: int = 0
    quiet: bool = False
    trouble: str = ""


class Judge:
    """Keeps the book of published versions, and holds every Look against it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._book: dict[tuple[str, int], str] = {}
        self._published: set[str] = set()
        self._runs: list[str] = []
        self._before: dict[str, Look] = {}
        self.torn = self.older = self.unverified = self.applied = self.looks = 0
        self.unbalanced = 0

    def started(self, run_id: str) -> None:
        """A learner begins a run."""
        with self._lock:
            self._runs.append(run_id)

    def publishes(self, run_id: str, counter: int, digest: str) -> None:
        """A version is about to be published."""
        with self._lock:
            self._book[run_id, counter] = digest
            self._published.add(digest)

    def saw(self, actor: str, look: Look) -> None:
        """An actor (one start of it) has looked at itself."""
        with self._lock:
            before = self._before.get(actor, Look(POISONED))
            self._before[actor] = look
            self.looks += 1
            self.unbalanced += not look.balanced
            if (look.digest, look.run_id, look.counter) == (before.digest, before.run_id, before.counter):
                return
            self.applied += (look.run_id, look.counter) != (before.run_id, before.counter)
            if not look.counter:
                self.unverified += look.digest != POISONED
                self.older += before.counter > 0
                return
            if look.digest not in self._published:
                self.torn += 1
            elif self._book.get((look.run_id, look.counter)) != look.digest:
                self.unverified += 1
            self.older += self._place(look) < self._place(before)

    def _place(self, look: Look) -> tuple[int, int]:
        return (self._runs.index(look.run_id) if look.run_id in self._runs else -1, look.counter)
