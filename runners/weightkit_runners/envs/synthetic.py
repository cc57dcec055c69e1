"""Pictures of noise and nothing to reach: exercises learner and actor on a machine without a simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from weightkit_runners.envs.base import IMAGE_PREFIX, STATE, Action, Observation, Step, checked_action


class SyntheticEnv:
    """Random frames drawn from the seed and the actions so far. Reward is 0 and no episode succeeds.

    Needs no simulator and no GL library.
    """

    simulated = True

    def __init__(
        self,
        *,
        cameras: Sequence[str] = ("front",),
        image_size: tuple[int, int] = (84, 84),
        max_episode_steps: int = 40,
        state_dim: int = 18,
        action_dim: int = 4,
    ) -> None:
        self.features: Mapping[str, tuple[int, ...]] = {
            **{IMAGE_PREFIX + camera: (3, *image_size) for camera in cameras},
            **({STATE: (state_dim,)} if state_dim else {}),
        }
        self.action_dim = action_dim
        self._max_episode_steps = max_episode_steps
        self._random: np.random.Generator | None = None
        self._step = 0

    def reset(self, seed: int) -> Observation:
        """The first frame of the episode that ``seed`` names."""
        self._random = np.random.default_rng(seed)
        self._step = 0
        return self._observation(self._random)

    def step(self, action: Action) -> Step:
        """The next frame. Raises RuntimeError where no episode runs."""
        checked_action(action, self.action_dim)
        if self._random is None:
            raise RuntimeError("step() before reset(), or after the episode's end")
        self._step += 1
        observation = self._observation(self._random)
        truncated = self._step >= self._max_episode_steps
        if truncated:
            self._random = None
        return observation, 0.0, False, truncated, {"success": False}

    def close(self) -> None:
        """Nothing to free."""

    def _observation(self, random: np.random.Generator) -> Observation:
        return {
            name: random.integers(0, 256, shape).astype(np.uint8)
            if len(shape) == 3
            else random.standard_normal(shape).astype(np.float32)
            for name, shape in self.features.items()
        }
