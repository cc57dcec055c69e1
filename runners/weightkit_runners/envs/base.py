"""The contract of a robot environment: single frames out, one bounded action in.

An environment knows nothing of frame stacking, normalisation or replay; whoever acts in it adds those.
Importing this module imports neither a simulator nor gymnasium.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

IMAGE_PREFIX = "observation.images."
STATE = "observation.state"

Observation = dict[str, NDArray[Any]]
"""``observation.images.<camera>`` uint8 (3, H, W) per camera, and ``observation.state`` float32 (D,)."""

Action = NDArray[np.float32]
"""float32 (A,), each component in [-1, 1]."""

Step = tuple[Observation, float, bool, bool, dict[str, Any]]
"""Observation, reward, terminated, truncated and info; ``info["success"]`` is a bool."""


class RobotEnv(Protocol):
    """One robot, one task; an episode is one ``reset`` and the steps up to ``terminated`` or ``truncated``.

    The same seed and actions give bit-equal observations, in this process and in any other on one machine.
    """

    @property
    def features(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every observation of one frame, by name."""

    @property
    def action_dim(self) -> int:
        """Number of action components, A."""

    @property
    def simulated(self) -> bool:
        """Whether nothing real moves, so that acting may be interrupted at any step. May be left out: then not."""

    def reset(self, seed: int) -> Observation:
        """First observation of the episode that ``seed`` names."""

    def step(self, action: Action) -> Step:
        """Outcome of holding ``action`` (A,) for one control period; components beyond [-1, 1] are clipped.

        Raises:
            ValueError: the action's shape is not (A,) or it holds a value that is not finite.
            RuntimeError: no episode runs: ``reset`` was never called, or the last step ended the episode.
        """

    def close(self) -> None:
        """Free the simulator and the drawing context; a second call does nothing."""


def checked_action(action: Action, action_dim: int) -> NDArray[np.float64]:
    """``action`` as float64 (A,), clipped to [-1, 1].

    Raises:
        ValueError: the shape is not (action_dim,) or a component is not finite.
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (action_dim,):
        raise ValueError(f"action: found shape {values.shape}, expected ({action_dim},)")
    if not np.isfinite(values).all():
        raise ValueError(f"action: found {values.tolist()}, expected finite components in [-1, 1]")
    return np.clip(values, -1.0, 1.0)
