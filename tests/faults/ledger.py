"""The learner's side of the balance: which transitions were accepted, and how often."""

from __future__ import annotations

import threading
from collections import Counter

from faults.judge import Look


class Ledger:
    """Every transition that a learner has accepted, by the start of the actor that made it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[int, Counter[int]] = {}
        self._newest: dict[int, tuple[str, int]] = {}
        self._lost = 0
        self.trouble: list[str] = []

    def take(self, marks: list[tuple[str, int, int, int]]) -> None:
        """The sink of every learner."""
        with self._lock:
            for name, number, step, seq in marks:
                self._times.setdefault(number, Counter())[step] += 1
                self._newest[number] = (name, max(seq, self._newest.get(number, ("", 0))[1]))

    def by_epoch(self, epochs: dict[int, str]) -> dict[str, int]:
        """What a learner must know that comes after one that was killed, as the receiver keeps it."""
        with self._lock:
            return {f"{name}/{epochs[number]}": seq for number, (name, seq) in self._newest.items()}

    def _arrived(self, number: int) -> int:
        with self._lock:
            return len(self._times.get(number, ()))

    def ended(self, number: int, last: Look, *, was_killed: bool) -> None:
        """A start of an actor that ended with transitions on their way: between what it knew of and all it made."""
        arrived = self._arrived(number)
        self._lost += max(0, last.accepted - arrived)
        if not was_killed and arrived > last.produced:
            self.trouble.append(f"start {number}: {arrived} arrived, {last.produced} were made")

    def settled(self, number: int, last: Look) -> None:
        """An actor in peace: what it counts as accepted is what was."""
        arrived = self._arrived(number)
        self._lost += max(0, last.accepted - arrived)
        if arrived != last.accepted or last.produced != last.accepted + last.dropped:
            self.trouble.append(f"start {number}: {arrived} arrived of {last}")

    def lost(self) -> int:
        """Transitions that an actor was told of as accepted and that never were."""
        return self._lost

    @property
    def total(self) -> int:
        """Different transitions that were accepted."""
        with self._lock:
            return sum(len(times) for times in self._times.values())

    @property
    def duplicates(self) -> int:
        """How often one was accepted again."""
        with self._lock:
            return sum(n - 1 for times in self._times.values() for n in times.values())
