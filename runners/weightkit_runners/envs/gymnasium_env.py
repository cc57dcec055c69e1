"""Any robot environment as a ``gymnasium.Env``, for tools that speak that interface."""

from __future__ import annotations

from typing import Any, cast

import gymnasium
import numpy as np

from weightkit_runners.envs.base import IMAGE_PREFIX, Action, Observation, RobotEnv, Step

_SEED_LIMIT = 2**31


class GymnasiumEnv(gymnasium.Env[Observation, Action]):
    """``env`` with gymnasium's spaces and its ``reset(seed=None)``; closing it closes ``env``.

    ``reset(seed=n)`` begins the episode that ``n`` names. A reset without a seed draws the episode's seed
    from ``np_random``, so a run is repeatable from its first seed; ``info["seed"]`` tells which it was.
    """

    def __init__(self, env: RobotEnv) -> None:
        self._env = env
        spaces: dict[str, gymnasium.Space[Any]] = {
            name: _feature_space(name, shape) for name, shape in env.features.items()
        }
        # gymnasium types a Dict space's samples by its own wide type; these hold arrays only.
        self.observation_space = cast("gymnasium.Space[Observation]", gymnasium.spaces.Dict(spaces))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """First observation of the next episode, and ``{"seed": its seed}``; ``options`` are not used."""
        super().reset(seed=seed, options=options)
        episode_seed = int(self.np_random.integers(_SEED_LIMIT)) if seed is None else seed
        return self._env.reset(episode_seed), {"seed": episode_seed}

    def step(self, action: Action) -> Step:
        """Outcome of ``action`` (A,), as ``env`` gives it."""
        return self._env.step(action)

    def close(self) -> None:
        """Close ``env``."""
        self._env.close()


def _feature_space(name: str, shape: tuple[int, ...]) -> gymnasium.spaces.Box:
    if name.startswith(IMAGE_PREFIX):
        return gymnasium.spaces.Box(0, 255, shape, np.uint8)
    return gymnasium.spaces.Box(-np.inf, np.inf, shape, np.float32)
