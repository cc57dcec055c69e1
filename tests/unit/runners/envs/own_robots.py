"""Environments as users write them, registered with gymnasium."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class OwnRobot(gymnasium.Env):  # type: ignore[type-arg]
    """Cameras in a dictionary of their own, images of another size, joints and gripper apart, actions in degrees."""

    def __init__(self, low: float = -90.0, image: tuple[int, int] = (48, 64)) -> None:
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict({"top": spaces.Box(0, 255, (*image, 3), np.uint8)}),
                "joints": spaces.Box(-100.0, 100.0, (3,), np.float64),
                "gripper": spaces.Box(0.0, 1.0, (), np.float32),
            }
        )
        self.action_space = spaces.Box(np.array([low, 0.0]), np.array([90.0, 1.0]), dtype=np.float64)
        self.image, self.taken = image, np.zeros(2)

    def _observe(self) -> dict[str, Any]:
        picture = np.zeros((*self.image, 3), np.uint8)
        picture[: self.image[0] // 2] = (200, 100, 50)
        return {
            "pixels": {"top": picture},
            "joints": np.array([*self.taken, self.steps], np.float64),
            "gripper": np.array(0.5, np.float32),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps, self.taken = 0, self.np_random.uniform(-1, 1, 2)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps, self.taken = self.steps + 1, np.asarray(action)
        done = self.steps == 5
        return self._observe(), float(done), done, False, {"is_success": done}


class Vector(gymnasium.Env):  # type: ignore[type-arg]
    """No dictionary, and actions without bounds or with choices, as ``space`` says."""

    def __init__(self, space: str = "box") -> None:
        self.observation_space = spaces.Box(-1.0, 1.0, (4,), np.float32)
        kinds: dict[str, Any] = {
            "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "discrete": spaces.Discrete(3),
        }
        self.action_space = kinds[space]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.full(4, 0.5, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(4, np.float32), 0.0, False, False, {}


gymnasium.register("OwnRobot-v0", entry_point=OwnRobot)
gymnasium.register("Vector-v0", entry_point=Vector)
