"""A scripted expert for the demo arm: straight to the cube, whose position it asks the simulator for."""

from __future__ import annotations

from typing import Any

import numpy as np

from weightkit.errors import ConfigError
from weightkit_runners.envs.arm import GRIPPER_STEP_RAD, TIP_STEP_M, ArmEnv
from weightkit_runners.envs.base import Action

GAIN = 0.5
"""Share of the remaining way that one step commands, until a component saturates at 1."""
ABOVE_CUBE_M = 0.002
"""Height of the expert's goal above the cube's top face: it need not push the cube."""
OPEN_GRIPPER_RAD = 0.5


def expert_action(env: ArmEnv) -> Action:
    """The expert's action (4,) as the episode stands: proportional to the error, saturating along a line.

    The error is that of the commanded tip: it is a function of the cube's position and of the joint targets
    in the state, which a policy that clones the expert can compute from one observation.
    """
    goal = env.target_position + np.array([0.0, 0.0, ABOVE_CUBE_M])
    displacement = GAIN * (goal - env.commanded_tip_position) / TIP_STEP_M
    displacement /= max(1.0, float(np.abs(displacement).max()))
    opening = GAIN * (OPEN_GRIPPER_RAD - env.gripper_target) / GRIPPER_STEP_RAD
    return np.array([*displacement, np.clip(opening, -1.0, 1.0)], dtype=np.float32)


class ExpertIntervention:
    """The expert as the person who takes over on the demo arm: in the share ``rate`` of all episodes, for all of them.

    ``after``: only once so many steps have gone by, as a person who watches the policy fail. Episodes are chosen by
    their seed, so runs repeat.
    """

    def __init__(self, action_dim: int, *, rate: float = 0.25, after: int = 0) -> None:
        if not 0.0 <= rate <= 1.0 or after < 0:
            raise ValueError(f"rate: expected 0 to 1, found {rate}; after: expected at least 0, found {after}")
        self._action_dim, self._rate, self._after = action_dim, rate, after
        self._env: ArmEnv | None = None
        self._step, self._helps = 0, False

    def begin(self, env: Any, seed: int) -> None:
        """Decide whether to help. Raises ConfigError for an environment that is not the demo arm."""
        if not isinstance(env, ArmEnv):
            raise ConfigError("interventions by 'expert' are for the demo arm", hint="set env.name to 'arm'")
        self._env, self._step = env, 0
        self._helps = bool(np.random.default_rng([seed, 1]).random() < self._rate)

    def action(self, observation: Any, planned: Action) -> Action | None:
        """The expert's action, where it helps."""
        self._step += 1
        if self._env is None or not self._helps or self._step <= self._after:
            return None
        return expert_action(self._env)

    def close(self) -> None:
        """The environment is not its own."""
        self._env = None
