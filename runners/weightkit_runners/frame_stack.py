"""The last frames of an episode as one observation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Observation = Mapping[str, NDArray[Any]]


class FrameStackBuffer:
    """Stacks single frames over time: images on channels ``(C, H, W) -> (T*C, H, W)``, the state ``(D,) -> (T*D,)``.

    Oldest frame first, newest last: entry ``t*C + c`` (``t*D + d``) is channel ``c`` (component ``d``) of frame ``t``.
    An episode starts with ``reset``, which fills the stack with copies of its first frame.
    """

    def __init__(self, frame_stack: int, image_keys: Iterable[str], state_key: str | None) -> None:
        if frame_stack < 1:
            raise ValueError(f"frame_stack: at least 1 is needed, found {frame_stack}")
        keys = [*image_keys, *([state_key] if state_key else [])]
        if not keys:
            raise ValueError("there is nothing to stack: neither image keys nor a state key")
        self.frame_stack = frame_stack
        self._frames: dict[str, deque[NDArray[Any]]] = {key: deque(maxlen=frame_stack) for key in keys}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def reset(self, obs: Observation) -> dict[str, NDArray[Any]]:
        """The stack of an episode's first frame, repeated; nothing of an earlier episode is left in it."""
        self._check(obs)
        self._shapes = {key: obs[key].shape for key in self._frames}
        for key, frames in self._frames.items():
            frames.clear()
            first = np.array(obs[key])
            frames.extend([first] * self.frame_stack)
        return self._stacked()

    def update(self, obs: Observation) -> dict[str, NDArray[Any]]:
        """The stack with the next frame as its newest. Raises RuntimeError before the first ``reset``."""
        if not self._shapes:
            raise RuntimeError("update() before reset(): an episode starts with reset(first frame)")
        self._check(obs)
        for key, frames in self._frames.items():
            if obs[key].shape != self._shapes[key]:
                raise ValueError(f"{key}: the episode began with shape {self._shapes[key]}, found {obs[key].shape}")
            frames.append(np.array(obs[key]))
        return self._stacked()

    def _check(self, obs: Observation) -> None:
        for key in self._frames:
            if key not in obs:
                raise KeyError(f"the observation has no {key!r}; it has {', '.join(map(repr, obs)) or 'nothing'}")

    def _stacked(self) -> dict[str, NDArray[Any]]:
        return {key: np.concatenate(list(frames), axis=0) for key, frames in self._frames.items()}
