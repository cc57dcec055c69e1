"""Transitions that the learner draws its batches from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weightkit.architectures.drqv2.config import IMAGE_KEY, STATE_KEY, is_image_key

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig

Transition = Mapping[str, NDArray[Any]]

ACTION, REWARD, TERMINATED = "action", "reward", "terminated"
NEXT = "next."
"""A transition is flat: observation keys, the same keys behind ``next.``, action (A,), reward (), terminated ()."""


Specs = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Key -> dtype and shape of one transition's entry."""


def transition_specs(config: RunConfig) -> Specs:
    """What a transition of the run looks like: stacked observations before and after, action, reward, terminated."""
    net = config.net
    keys = config.env.features or [*(f"{IMAGE_KEY}.{camera}" for camera in net.cameras), STATE_KEY]
    image = (net.frame_stack * net.image_channels, net.image_height, net.image_width)
    specs: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
        ACTION: (np.dtype(np.float32), (net.action_dim,)),
        REWARD: (np.dtype(np.float32), ()),
        TERMINATED: (np.dtype(np.bool_), ()),
    }
    for key in keys:
        if is_image_key(key):
            specs[key] = specs[NEXT + key] = (np.dtype(np.uint8), image)
        elif net.state_dim:
            specs[key] = specs[NEXT + key] = (np.dtype(np.float32), (net.frame_stack * net.state_dim,))
    return specs


def check_transition(transition: Transition, specs: Specs) -> None:
    """Raise ValueError, naming the entry, for a transition with other keys, shapes or dtypes than ``specs``."""
    if set(transition) != set(specs):
        odd = sorted(set(transition) ^ set(specs))
        raise ValueError(f"other entries than expected: {', '.join(odd)}")
    for key, (dtype, shape) in specs.items():
        value = np.asarray(transition[key])
        if value.shape != shape or value.dtype != dtype:
            raise ValueError(f"{key}: expected {dtype}{list(shape)}, found {value.dtype}{list(value.shape)}")


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
        check_transition(transition, {key: (col.dtype, col.shape[1:]) for key, col in self._columns.items()})

    def _grow(self) -> None:
        have = len(next(iter(self._columns.values())))
        if self._next < have:
            return
        rows = min(max(2 * have, 256), self.capacity)
        for key, column in self._columns.items():
            bigger = np.empty((rows, *column.shape[1:]), column.dtype)
            bigger[:have] = column
            self._columns[key] = bigger
