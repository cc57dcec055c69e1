"""A scripted expert for the demo arm: straight to the cube, whose position it asks the simulator for."""

from __future__ import annotations

import numpy as np

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
