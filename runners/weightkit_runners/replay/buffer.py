"""Transitions that the learner draws its batches from, every frame stored once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from weightkit_runners.transitions import (
    ACTION,
    EPISODE,
    INTERVENTION,
    NEXT,
    REWARD,
    STEP,
    TERMINATED,
    Transition,
    TransitionSpec,
)

Batch = Mapping[str, Tensor]
"""Stacked observations ``(B, T*C, H, W)`` uint8 and ``(B, T*D)`` float32, the same behind ``next.``, action (B, A),
reward (B,): the discounted sum of up to ``nstep`` rewards, discount (B,): what the value afterwards counts, 0 where
the episode ended with the robot done.
"""

DISCOUNT = "discount"
_FIRST, _UNKNOWN, _NONE = -1, -2, -1
_MOST_TRIES = 1 << 20


def intervened(transition: Transition) -> bool:
    """Whether a person's action was taken."""
    return bool(transition[INTERVENTION])


class ReplayBuffer:
    """A ring of the newest ``capacity`` frames of any number of streams, each frame with what led to it.

    An episode of T transitions takes T + 1 frames. Stacks of frames and ``nstep`` returns are made when a batch is
    drawn. A transition can be drawn while all frames of both its stacks are there: not across a gap in its stream.
    Frames lie on ``device``. Not safe for several threads.
    """

    def __init__(
        self,
        spec: TransitionSpec,
        capacity: int,
        *,
        nstep: int = 1,
        discount: float = 0.99,
        device: torch.device | str = "cpu",
    ) -> None:
        if capacity < 2:
            raise ValueError(f"capacity: at least 2 frames are needed for one transition, found {capacity}")
        self.spec = spec
        self.capacity = capacity
        self.nstep, self.discount = nstep, discount
        self.added = 0
        self._frames = {
            key: torch.empty(
                (capacity, *shape), dtype=torch.uint8 if dtype.kind == "u" else torch.float32, device=device
            )
            for key, (dtype, shape) in spec.frame.items()
        }
        self._actions = np.zeros((capacity, spec.action_dim), np.float32)
        self._rewards = np.zeros(capacity, np.float32)
        self._terminated = np.zeros(capacity, np.bool_)
        self._previous = np.full(capacity, _UNKNOWN, np.int64)
        self._following = np.full(capacity, _NONE, np.int64)
        self._drawable = np.zeros(capacity, np.bool_)
        self._count = 0
        self._ids = 0
        self._newest: dict[str, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        """How many transitions can be drawn."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Size of everything that is stored at full capacity, in bytes."""
        small = (self._actions, self._rewards, self._terminated, self._previous, self._following, self._drawable)
        return sum(t.numel() * t.element_size() for t in self._frames.values()) + sum(a.nbytes for a in small)

    def add(
        self,
        stream: str,
        transitions: Iterable[Transition],
        *,
        drawable: Callable[[Transition], bool] = lambda _transition: True,
    ) -> None:
        """Put transitions of one stream in, in their order, the oldest frames out; as `TransitionSpec.check` has it.

        Those that are not ``drawable`` are context for those that follow.
        """
        for transition in transitions:
            episode, step = int(transition[EPISODE]), int(transition[STEP])
            if step == 0:
                before = self._put({key: transition[key] for key in self._frames}, _FIRST)
            else:
                newest = self._newest.get(stream)
                goes_on = newest is not None and newest[1:] == (episode, step - 1) and self._is_there(newest[0])
                before = newest[0] if newest is not None and goes_on else _UNKNOWN
            after = self._put({key: transition[NEXT + key] for key in self._frames}, before)
            slot = after % self.capacity
            self._actions[slot] = transition[ACTION]
            self._rewards[slot] = transition[REWARD]
            self._terminated[slot] = transition[TERMINATED]
            if before >= 0:
                self._following[before % self.capacity] = after
            if drawable(transition) and self._has_history(before):
                self._drawable[slot] = True
                self._count += 1
            self.added += 1
            self._newest.pop(stream, None)
            self._newest[stream] = (after, episode, step)
        while len(self._newest) > 1 and not self._is_there(next(iter(self._newest.values()))[0]):
            del self._newest[next(iter(self._newest))]

    def sample(self, batch_size: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Transitions drawn uniformly with replacement. Raises ValueError where there are none."""
        if not self._count:
            raise ValueError("the replay buffer is empty: no transition can be drawn")
        chosen = self._draw(batch_size, random)
        slots = chosen % self.capacity
        rewards, discounts, last = self._returns(chosen)
        batch = {
            ACTION: torch.from_numpy(self._actions[slots]),
            REWARD: torch.from_numpy(rewards),
            DISCOUNT: torch.from_numpy(discounts),
        }
        now, then = self._stack(self._previous[slots]), self._stack(last)
        for key, column in self._frames.items():
            batch[key] = self._gathered(column, now)
            batch[NEXT + key] = self._gathered(column, then)
        return batch

    def _draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """The ids of frames that drawable transitions led to, counted from the newest."""
        there = min(self._ids, self.capacity)
        found: list[NDArray[np.int64]] = []
        missing = count
        while missing:
            tries = min(missing * there // self._count + 64, _MOST_TRIES)
            ids = self._ids - 1 - random.integers(0, there, tries)
            ids = ids[self._drawable[ids % self.capacity]][:missing]
            found.append(ids)
            missing -= len(ids)
        return np.concatenate(found)

    def _returns(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Discounted rewards, what the value afterwards counts, and the frame that it is of.

        Fewer than ``nstep`` steps are added up where the stream ends, or has not gone on yet.
        """
        last = ids.copy()
        rewards = self._rewards[last % self.capacity].astype(np.float64)
        factor = np.full(len(ids), self.discount)
        for _ in range(self.nstep - 1):
            slots = last % self.capacity
            following = self._following[slots]
            goes_on = (following != _NONE) & ~self._terminated[slots]
            rewards += np.where(goes_on, factor * self._rewards[following % self.capacity], 0.0)
            factor = np.where(goes_on, factor * self.discount, factor)
            last = np.where(goes_on, following, last)
        factor[self._terminated[last % self.capacity]] = 0.0
        return rewards.astype(np.float32), factor.astype(np.float32), last

    def _stack(self, newest: NDArray[np.int64]) -> NDArray[np.int64]:
        """The slots of the frames of each observation, ``(B, T)``, oldest first; an episode's first is repeated."""
        rows = [newest]
        for _ in range(self.spec.frame_stack - 1):
            before = self._previous[rows[-1] % self.capacity]
            rows.append(np.where(before == _FIRST, rows[-1], before))
        return np.stack(rows[::-1], axis=1) % self.capacity

    def _gathered(self, column: Tensor, slots: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(slots.reshape(-1)).to(column.device)
        return column.index_select(0, rows).reshape(len(slots), -1, *column.shape[2:])

    def _put(self, frame: Mapping[str, NDArray[np.generic]], previous: int) -> int:
        """Store a frame over the oldest one; its id."""
        new, slot = self._ids, self._ids % self.capacity
        if new >= self.capacity:
            self._forget(new - self.capacity)
        for key, column in self._frames.items():
            column[slot] = torch.from_numpy(np.ascontiguousarray(frame[key]))
        self._previous[slot], self._following[slot], self._drawable[slot] = previous, _NONE, False
        self._rewards[slot], self._terminated[slot], self._actions[slot] = 0.0, False, 0.0
        self._ids += 1
        return new

    def _forget(self, old: int) -> None:
        """What needs the frame ``old`` can be drawn no more: the transition to it, those with it in their stacks."""
        at = old
        for _ in range(self.spec.frame_stack + 1):
            slot = at % self.capacity
            if self._drawable[slot]:
                self._drawable[slot] = False
                self._count -= 1
            at = int(self._following[slot])
            if at == _NONE:
                return

    def _has_history(self, newest: int) -> bool:
        """Whether the whole stack that ends with a frame is there."""
        for _ in range(self.spec.frame_stack):
            if newest == _FIRST:
                return True
            if newest == _UNKNOWN or not self._is_there(newest):
                return False
            newest = int(self._previous[newest % self.capacity])
        return True

    def _is_there(self, frame: int) -> bool:
        return frame >= self._ids - self.capacity
