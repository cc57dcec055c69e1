"""The contract of a run's replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from weightkit_runners.replay.buffer import Batch
from weightkit_runners.transitions import Transition


@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """How much there is: transitions that can be drawn from each buffer, all that were ever added, interventions."""

    online: int = 0
    offline: int = 0
    added: int = 0
    interventions: int = 0


class ReplaySource(Protocol):
    """Takes transitions, gives batches. Used by one thread."""

    def add(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one actor's run, in their order; those of a person go to the offline buffer too."""

    def demonstrate(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one recording, in their order, for the offline buffer."""

    def counts(self) -> ReplayCounts:
        """How much there is, everything counted that `add` was given before."""

    def batches(self, learner_step: int) -> list[Batch]:
        """The ``utd_ratio`` batches of a step; what is drawn depends on the seed, the step and what there is alone.

        Raises ValueError where nothing can be drawn.
        """

    def close(self) -> None:
        """Free what it holds; a second call does nothing."""
