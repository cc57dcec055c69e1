"""How far each run of each actor was accepted: bounded, and nobody who is connected is ever pushed out."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from weightkit_runners.experience.messages import AcceptedEpoch, ExperienceBatch

REMEMBERED_EPOCHS = 1024

Key = tuple[str, str]


class TooManyActors(Exception):
    """Nobody can be forgotten to remember one more."""


class Epoch:
    """What is known of one run of one actor; ``held`` was accepted and waits for the sink.

    ``lock`` is held while a batch is taken. The newest connection has the highest ``generation``.
    """

    def __init__(self, seq: int = 0, accepted: int = 0) -> None:
        self.seq = seq
        self.accepted = accepted
        self.duplicates = self.refused = self.refused_seq = 0
        self.held: ExperienceBatch | None = None
        self.generation = 0
        self.connections = 0
        self.lock = threading.Lock()


class Epochs:
    """The newest ``limit`` runs of actors, and what was accepted of each.

    ``forgotten`` is told of runs that are given up: of those that are not connected, the ones without an accepted
    batch go first, then those that were heard of longest ago.
    """

    def __init__(
        self,
        known: Mapping[Key, AcceptedEpoch],
        *,
        forgotten: Callable[[Key], object],
        limit: int = REMEMBERED_EPOCHS,
    ) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._forgotten = forgotten
        self._epochs = OrderedDict((key, Epoch(epoch.seq, epoch.transitions)) for key, epoch in known.items())
        self._forget_surplus()

    @contextmanager
    def connected(self, key: Key) -> Iterator[Epoch]:
        """The run's entry, which is not given up as long as this lasts. Raises TooManyActors."""
        with self._lock:
            epoch = self._epochs.setdefault(key, Epoch())
            epoch.connections += 1
            self._epochs.move_to_end(key)
            if not self._forget_surplus():
                del self._epochs[key]
                raise TooManyActors(f"{self._limit} actors are connected, and the learner takes no more")
        try:
            yield epoch
        finally:
            with self._lock:
                epoch.connections -= 1
                self._epochs.move_to_end(key)

    def state(self) -> dict[str, int]:
        """The highest accepted number by ``actor/epoch``."""
        with self._lock:
            return {"/".join(key): epoch.seq for key, epoch in self._epochs.items() if epoch.seq}

    def by_actor(self) -> dict[str, dict[str, Any]]:
        """By actor: ``connected``, the highest number of its newest run (``seq``), its transitions in all runs."""
        actors: dict[str, dict[str, Any]] = {}
        with self._lock:
            for (actor_id, _), epoch in self._epochs.items():
                row = actors.setdefault(
                    actor_id, {"connected": False, "seq": 0, "accepted": 0, "duplicates": 0, "refused": 0}
                )
                row["connected"] |= epoch.connections > 0
                row["seq"] = epoch.seq
                row["accepted"] += epoch.accepted
                row["duplicates"] += epoch.duplicates
                row["refused"] += epoch.refused
        return actors

    def _forget_surplus(self) -> bool:
        surplus = len(self._epochs) - self._limit
        if surplus <= 0:
            return True
        idle = [(key, e) for key, e in self._epochs.items() if not e.connections and e.held is None]
        idle.sort(key=lambda item: item[1].seq > 0)  # stable: each half stays in the order in which it was heard of
        for key, _ in idle[:surplus]:
            del self._epochs[key]
            self._forgotten(key)
        return len(idle) >= surplus
