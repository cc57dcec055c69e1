"""What comes from actors, on its way into training: checked, kept in the journal, queued until the learner takes it."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit_runners.experience import BatchRefused, ExperienceBatch, ExperienceReceiver, SinkClosed
from weightkit_runners.experience.journal import ExperienceJournal
from weightkit_runners.process import log
from weightkit_runners.transitions import TransitionSpec

if TYPE_CHECKING:
    from weightkit_runners.training import Training

MOST_WAITING_BYTES = 64 << 20
LOOK_AT_CLOSING_EVERY_S = 0.2


class Intake:
    """Everything accepted from actors stands in a journal in ``folder``, of at most ``capacity_bytes``, and goes into
    training in its order. Raises WriteError where another learner has the journal open.
    """

    def __init__(self, spec: TransitionSpec, folder: Path, *, capacity_bytes: int) -> None:
        self._spec = spec
        self._waiting = _Waiting()
        self._closing = threading.Event()
        self.journal = ExperienceJournal(folder, capacity_bytes=capacity_bytes)
        self.receiver = ExperienceReceiver(self._accept, check=self._check, journal=self.journal)

    def restore(self, training: Training, newest: int) -> None:
        """Put the newest transitions of the journal into training. To be called before anything is accepted."""
        strange = 0
        training.env_step = self.journal.transitions
        for kept in self.journal.read(newest=newest):
            try:
                batch = kept.decode()
                self._check(batch)
            except (BatchRefused, ValueError) as error:
                strange += kept.count
                why = str(error)
            else:
                training.replay.add(batch.actor_id, batch.transitions)
        if strange:
            log.warning("[LEARNER] Left out %d transitions of another configuration in %s: %s",
                        strange, self.journal.folder, why)  # fmt: skip
        if there := training.replay.counts().online:
            log.info("[LEARNER] Restored %d transitions from %s", there, self.journal.folder)

    def move(self, training: Training, *, wait_s: float) -> int:
        """Move what actors have sent into training; waits up to ``wait_s`` where nothing is there. How many."""
        moved, left_s = 0, wait_s
        while (batch := self._waiting.take(left_s)) is not None:
            training.add(batch.actor_id, batch.transitions)
            moved, left_s = moved + len(batch.transitions), 0.0
        return moved

    def status(self) -> dict[str, Any]:
        """What was accepted, refused and lost, in all and by actor."""
        return self.receiver.status()

    def stop(self) -> None:
        """Accept nothing more; what was accepted can still be moved."""
        self._closing.set()

    def _check(self, batch: ExperienceBatch) -> None:
        """Refuse transitions that are not this run's: one actor with another configuration must not end the training of
        the others."""
        if self._closing.is_set():
            raise SinkClosed("the learner is closing")
        try:
            for transition in batch.transitions:
                self._spec.check(transition)
        except ValueError as error:
            raise BatchRefused(str(error)) from None

    def _accept(self, batch: ExperienceBatch) -> None:
        """Take a batch that stands in the journal; waits while the learner is busy, which holds that actor back."""
        while not self._closing.is_set():
            if self._waiting.put(batch, LOOK_AT_CLOSING_EVERY_S):
                return
        raise SinkClosed("the learner is closing")

    def close(self) -> None:
        """Free the journal for another learner."""
        self.stop()
        self.journal.close()


class _Waiting:
    """Batches in their order, bounded by bytes; a batch that is larger than all room is taken where nothing waits."""

    def __init__(self) -> None:
        self._batches: deque[tuple[ExperienceBatch, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()

    def put(self, batch: ExperienceBatch, timeout_s: float) -> bool:
        """Whether there was room in time."""
        size = sum(array.nbytes for transition in batch.transitions for array in transition.values())
        with self._changed:
            if not self._changed.wait_for(
                lambda: not self._batches or self._bytes + size <= MOST_WAITING_BYTES, timeout_s
            ):
                return False
            self._batches.append((batch, size))
            self._bytes += size
            self._changed.notify_all()
        return True

    def take(self, timeout_s: float) -> ExperienceBatch | None:
        """The oldest, None where none came in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._batches, timeout_s):
                return None
            batch, size = self._batches.popleft()
            self._bytes -= size
            self._changed.notify_all()
        return batch
