"""Which weights these are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightVersion:
    """One published set of weights: the learner's run, a counter that grows by 1 a push, and the learner's step."""

    run_id: str
    counter: int
    learner_step: int

    def __str__(self) -> str:
        return f"{self.run_id[:8]}#{self.counter} (learner step {self.learner_step})"
