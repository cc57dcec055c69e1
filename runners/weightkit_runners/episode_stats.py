"""How the newest episodes of all actors went, from their transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from weightkit_runners.transitions import INTERVENTION, REWARD, STEP, SUCCESS, TERMINATED, TRUNCATED, Transition

NEWEST = 100
_MOST_ACTORS = 1024


class EpisodeStats:
    """Counts episodes; means are over the newest ``NEWEST``. An episode that was left in its middle is not counted."""

    def __init__(self) -> None:
        self.episodes = 0
        self._ended: deque[tuple[float, bool, int]] = deque(maxlen=NEWEST)
        self._people: deque[bool] = deque(maxlen=10 * NEWEST)
        self._open: dict[str, float] = {}

    def add(self, actor_id: str, transitions: Sequence[Transition]) -> None:
        """What an actor did next."""
        for transition in transitions:
            step = int(transition[STEP])
            before = 0.0 if step == 0 else self._open.pop(actor_id, None)
            self._people.append(bool(transition[INTERVENTION]))
            if before is None:  # the beginning was not seen
                continue
            total = before + float(transition[REWARD])
            if transition[TERMINATED] or transition[TRUNCATED]:
                self.episodes += 1
                self._ended.append((total, bool(transition[SUCCESS]), step + 1))
                continue
            self._open[actor_id] = total
            if len(self._open) > _MOST_ACTORS:
                del self._open[next(iter(self._open))]

    def row(self) -> dict[str, float]:
        """Numbers for a metrics row: episodes in all, and means of the newest where there are any."""
        row: dict[str, float] = {"episodes": self.episodes}
        if self._ended:
            count = len(self._ended)
            row["return"] = sum(total for total, _, _ in self._ended) / count
            row["success"] = sum(success for _, success, _ in self._ended) / count
            row["episode_steps"] = sum(steps for _, _, steps in self._ended) / count
        if self._people:
            row["intervention_rate"] = sum(self._people) / len(self._people)
        return row
