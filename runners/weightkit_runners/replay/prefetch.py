"""Batches that are drawn while the learner still computes with those before."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from weightkit_runners.replay.base import ReplayCounts
from weightkit_runners.replay.buffer import Batch
from weightkit_runners.replay.memory import ReplayMemory
from weightkit_runners.transitions import Transition


class Prefetched:
    """A replay whose next step's batches a thread draws; they are of what there was when the step before began."""

    def __init__(self, memory: ReplayMemory) -> None:
        self._memory = memory
        self._using = threading.Lock()
        self._drawer = ThreadPoolExecutor(1, "replay")
        self._ahead: tuple[int, Future[list[Batch]]] | None = None

    def add(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one actor's run, in their order."""
        with self._using:
            self._memory.add(stream, transitions)

    def demonstrate(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one recording, in their order, for the offline buffer."""
        with self._using:
            self._memory.demonstrate(stream, transitions)

    def counts(self) -> ReplayCounts:
        """How much there is."""
        with self._using:
            return self._memory.counts()

    def batches(self, learner_step: int) -> list[Batch]:
        """The batches of a step, drawn already where it follows the one asked for before."""
        ahead, self._ahead = self._ahead, None
        is_drawn = ahead is not None and ahead[0] == learner_step
        found = ahead[1].result() if ahead is not None and is_drawn else self._draw(learner_step)
        self._ahead = learner_step + 1, self._drawer.submit(self._draw, learner_step + 1)
        return found

    def _draw(self, learner_step: int) -> list[Batch]:
        with self._using:
            return self._memory.batches(learner_step)

    def close(self) -> None:
        """Wait for the batches under way."""
        self._drawer.shutdown()
        self._memory.close()
