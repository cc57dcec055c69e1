"""How old the weights may be that an actor acts with, and what happens when they are older."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from weightkit.errors import StaleWeights, UsageError

logger = logging.getLogger(__name__)
OnStale = Literal["warn", "hold", "stop"]
SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """Bounds on what an actor may act with; None where there is none. Raises UsageError for a bound that is none.

    ``max_age_s``: seconds since the version was published. ``max_lag``: versions that the learner has published since,
    as far as the actor knows. ``on_stale``: act on and say so, do not act until there are newer ones, or end the run.
    """

    max_age_s: float | None = None
    max_lag: int | None = None
    on_stale: OnStale = "warn"

    def __post_init__(self) -> None:
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise UsageError(f"--max-age {self.max_age_s:g}: expected seconds above 0")
        if self.max_lag is not None and self.max_lag < 0:
            raise UsageError(f"--max-lag {self.max_lag}: expected versions, 0 or more")

    def fault(self, age_s: float, lag: int) -> str:
        """What is wrong with weights of this age and lag, empty where nothing is."""
        faults = []
        if self.max_age_s is not None and age_s > self.max_age_s:
            faults.append(f"published {age_s:.1f} s ago, of at most {self.max_age_s:g}")
        if self.max_lag is not None and lag > self.max_lag:
            faults.append(f"{lag} versions behind, of at most {self.max_lag}")
        return " and ".join(faults)


class StaleGuard:
    """Asked before every action. Says when weights go stale, again while they are, and when they are fresh again."""

    def __init__(self, freshness: Freshness, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._freshness = freshness
        self._clock = clock
        self._since: float | None = None
        self._said_at = 0.0
        self.episodes = 0

    def may_act(self, age_s: float, lag: int) -> bool:
        """Whether to act with weights of this age and lag. Raises StaleWeights where the run is to end."""
        now, fault = self._clock(), self._freshness.fault(age_s, lag)
        if not fault:
            if self._since is not None:
                logger.warning("the weights are fresh again, after %.1f s", now - self._since)
            self._since = None
            return True
        if self._freshness.on_stale == "stop":
            raise StaleWeights(f"the weights are stale: {fault}", hint="is the learner training, and the network up?")
        begins = self._since is None
        if self._since is None:
            self._since = now
            self.episodes += 1
        if begins or now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            does = "acting on" if self._freshness.on_stale == "warn" else "holding still until newer ones come"
            logger.warning("the weights are stale: %s; %s", fault, does)
        return self._freshness.on_stale == "warn"
