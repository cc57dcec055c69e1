"""Transitions that the learner draws its batches from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Transition = Mapping[str, NDArray[Any]]

ACTION, REWARD, TERMINATED = "action", "reward", "terminated"
NEXT = "next."
"""A transition is flat: observation keys, the same keys behind ``next.``, action (A,), reward (), terminated ()."""


class ReplayBuffer:
    """A ring of the newest ``capacity`` transitions, in arrays that grow as they are filled.

    Every transition has the same keys, shapes and dtypes as the first.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity: at least 1 is needed, found {capacity}")
        self.capacity = capacity
        self._columns: dict[str, NDArray[Any]] = {}
        self._size = 0
        self._next = 0
        self.added = 0

    def __len__(self) -> int:
        return self._size

    @property
    def transition_bytes(self) -> int:
        """Bytes of one transition; 0 before the first."""
        return sum(column[:1].nbytes for column in self._columns.values())

    def add(self, transitions: Sequence[Transition]) -> None:
        """Put transitions in, the oldest out. Raises ValueError for one that is not like the others."""
        for transition in transitions:
            self._check(transition)
            self._grow()
            for key, column in self._columns.items():
                column[self._next] = transition[key]
            self._next = (self._next + 1) % self.capacity
            self._size = min(self._size + 1, self.capacity)
            self.added += 1

    def sample(self, batch_size: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
        """A batch drawn uniformly with replacement, ``(batch_size, ...)`` each. Raises ValueError when empty."""
        if not self._size:
            raise ValueError("the replay buffer is empty")
        rows = random.integers(0, self._size, batch_size)
        return {key: column[rows] for key, column in self._columns.items()}

    def _check(self, transition: Transition) -> None:
        if not self._columns:
            self._columns = {
                key: np.empty((0, *np.shape(value)), np.asarray(value).dtype) for key, value in transition.items()
            }
        if set(transition) != set(self._columns):
            odd = sorted(set(transition) ^ set(self._columns))
            raise ValueError(f"a transition has other keys than the first: {', '.join(odd)}")
        for key, column in self._columns.items():
            value = np.asarray(transition[key])
            if value.shape != column.shape[1:] or value.dtype != column.dtype:
                raise ValueError(
                    f"{key}: expected {column.dtype}{list(column.shape[1:])}, found {value.dtype}{list(value.shape)}"
                )

    def _grow(self) -> None:
        have = len(next(iter(self._columns.values())))
        if self._next < have:
            return
        rows = min(max(2 * have, 256), self.capacity)
        for key, column in self._columns.items():
            bigger = np.empty((rows, *column.shape[1:]), column.dtype)
            bigger[:have] = column
            self._columns[key] = bigger
