"""The demo arm: reach a cube whose position is in the pixels only; six joints, the last the gripper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightkit_runners.envs.base import IMAGE_PREFIX, STATE, Action, Observation, Step, checked_action
from weightkit_runners.envs.rendering import CameraRenderer, import_mujoco

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
CAMERAS = ("front", "wrist")

ACTION_DIM = 4
STATE_DIM = 3 * len(JOINTS)

TIP_STEP_M = 0.015
"""How far an action component of 1 moves the commanded tip along x, y or z in one step."""
GRIPPER_STEP_RAD = 0.1
"""How far a gripper component of 1 opens the commanded gripper in one step."""
SUBSTEPS = 10
"""Simulator steps of 5 ms in one control period of 50 ms."""
SUCCESS_RADIUS_M = 0.022
"""Distance from the tip to the centre of the cube's top face within which the cube counts as reached."""

TIP_LOW_M = (0.10, -0.24, 0.03)
TIP_HIGH_M = (0.42, 0.24, 0.32)
"""Box, in the base's frame, that the commanded tip is kept in."""
CUBE_LOW_M = (0.16, -0.20)
CUBE_HIGH_M = (0.36, 0.20)
"""Rectangle of the table that the cube's centre is drawn from, uniformly."""

_DAMPING = 0.05
_SOLVER_ITERATIONS = 4
_ACTUATORS = slice(0, len(JOINTS))
_GRIPPER = JOINTS.index("gripper")
# The joints that place the tip; the wrist's roll stays where it is.
_REACHING = slice(0, 4)


class ArmEnv:
    """Reach the cube with the gripper's tip: reward 1 and ``terminated`` within ``SUCCESS_RADIUS_M``, else 0.

    An episode begins with all joints at zero; the seed draws the cube's position and yaw.
    Action (4,): commanded tip displacement along x, y, z in the base's frame (scaled by ``TIP_STEP_M``) and
    gripper opening (scaled by ``GRIPPER_STEP_RAD``), turned into joint position targets by damped least
    squares with the hand held pointing down.
    State (18,): joint positions (6,) in rad, velocities (6,) in rad/s and position targets (6,) in rad, in
    the order of ``JOINTS``.
    The episode is truncated after ``max_episode_steps``; ``info["distance_m"]`` is the way that is left.
    With ``cameras=()`` nothing is drawn and no GL library is needed. An environment is used by one thread.

    Raises:
        ValueError: a camera is unknown or named twice, or a size is not positive.
        ModuleNotFoundError: mujoco is not installed.
        RenderingUnavailable: cameras are asked for and this machine cannot draw.
    """

    simulated = True

    def __init__(
        self,
        *,
        cameras: Sequence[str] = ("front",),
        image_size: tuple[int, int] = (84, 84),
        max_episode_steps: int = 40,
    ) -> None:
        self._cameras = _checked_cameras(cameras)
        height, width = image_size
        if height < 1 or width < 1:
            raise ValueError(f"image_size: found {tuple(image_size)}, expected a positive (height, width)")
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps: found {max_episode_steps}, expected at least 1")
        self._max_episode_steps = max_episode_steps
        image = (3, int(height), int(width))
        self._features = MappingProxyType(
            {**{IMAGE_PREFIX + camera: image for camera in self._cameras}, STATE: (STATE_DIM,)}
        )

        self._mujoco = mujoco = import_mujoco()
        self._model = model = mujoco.MjModel.from_xml_path(str(Path(__file__).with_name("arm.xml")))
        self._data = mujoco.MjData(model)
        # Kinematics of the position targets, which the arm itself only follows.
        self._commanded = mujoco.MjData(model)
        self._tip_site = model.site("tip").id
        self._target_site = model.site("target").id
        self._cube_qpos = int(model.joint("cube").qposadr[0])
        self._target_low, self._target_high = model.actuator_ctrlrange[_ACTUATORS].T.copy()
        self._jacobian = np.zeros((3, model.nv))
        self._renderer = CameraRenderer(model, height=height, width=width) if self._cameras else None
        self._episode_step = 0
        self._running = False
        self._closed = False

    @property
    def features(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every observation of one frame, by name: ``(3, H, W)`` per camera and ``(18,)``."""
        return self._features

    @property
    def action_dim(self) -> int:
        """Number of action components: x, y, z and gripper."""
        return ACTION_DIM

    @property
    def tip_position(self) -> NDArray[np.float64]:
        """Where the gripper's tip is, (3,) in metres; the pixels and joint positions tell it too."""
        return self._array(self._data.site_xpos[self._tip_site])

    @property
    def commanded_tip_position(self) -> NDArray[np.float64]:
        """Where the tip is once the joints have reached their targets, (3,) in metres."""
        return self._array(self._commanded.site_xpos[self._tip_site])

    @property
    def target_position(self) -> NDArray[np.float64]:
        """Centre of the cube's top face, (3,) in metres: privileged, no part of the state."""
        return self._array(self._data.site_xpos[self._target_site])

    @property
    def gripper_target(self) -> float:
        """Commanded opening of the gripper in rad, 0 for closed."""
        return float(self._data.ctrl[_GRIPPER])

    def reset(self, seed: int) -> Observation:
        """First observation of the episode that ``seed`` (0 or more) names."""
        self._check_open()
        generator = np.random.default_rng(seed)
        x, y = generator.uniform(CUBE_LOW_M, CUBE_HIGH_M)
        yaw = generator.uniform(-np.pi / 4, np.pi / 4)
        self._mujoco.mj_resetData(self._model, self._data)
        pose = self._data.qpos[self._cube_qpos : self._cube_qpos + 7]
        pose[:2] = x, y
        pose[3:] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
        self._mujoco.mj_forward(self._model, self._data)
        self._mujoco.mj_resetData(self._model, self._commanded)
        self._update_commanded(self._data.ctrl[_ACTUATORS])
        self._episode_step = 0
        self._running = True
        return self._observation()

    def step(self, action: Action) -> Step:
        """Outcome of holding ``action`` (4,) for 50 ms; components beyond [-1, 1] are clipped.

        Raises:
            ValueError: the action's shape is not (4,) or it holds a value that is not finite.
            RuntimeError: no episode runs: ``reset`` was never called, or the last step ended the episode.
        """
        command = checked_action(action, ACTION_DIM)
        self._check_open()
        if not self._running:
            raise RuntimeError("step: no episode runs, call reset(seed) first")
        self._data.ctrl[_ACTUATORS] = self._joint_targets(command)
        self._mujoco.mj_step(self._model, self._data, SUBSTEPS)
        # mj_step integrates last, so bodies, sites and cameras lag the joints by one simulator step.
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)
        self._episode_step += 1
        distance_m = float(np.linalg.norm(self.tip_position - self.target_position))
        success = distance_m < SUCCESS_RADIUS_M
        truncated = not success and self._episode_step >= self._max_episode_steps
        self._running = not (success or truncated)
        info = {"success": success, "distance_m": distance_m}
        return self._observation(), float(success), success, truncated, info

    def close(self) -> None:
        """Free the drawing context; a second call does nothing."""
        self._closed = True
        if self._renderer is not None:
            self._renderer.close()

    def _joint_targets(self, command: NDArray[np.float64]) -> NDArray[np.float64]:
        """Position targets (6,) in rad that carry out ``command`` (4,), within the joints' ranges."""
        targets = self._array(self._data.ctrl[_ACTUATORS])
        goal = np.clip(self.commanded_tip_position + TIP_STEP_M * command[:3], TIP_LOW_M, TIP_HIGH_M)
        for _ in range(_SOLVER_ITERATIONS):
            targets[_REACHING] += self._damped_least_squares(goal, targets)
            np.clip(targets, self._target_low, self._target_high, out=targets)
            self._update_commanded(targets)
        targets[_GRIPPER] += GRIPPER_STEP_RAD * command[3]
        return np.clip(targets, self._target_low, self._target_high)

    def _damped_least_squares(self, goal: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Change (4,) in rad of the reaching joints for a tip at ``goal`` (3,) and a hand pointing down.

        Source: Wampler 1986, "Manipulator inverse kinematic solutions based on vector formulations and damped
        least-squares methods".
        """
        self._mujoco.mj_jacSite(self._model, self._commanded, self._jacobian, None, self._tip_site)
        jacobian = np.zeros((4, 4))
        jacobian[:3] = self._jacobian[:, _REACHING]
        # Lift, elbow and wrist turn about parallel axes, so the hand's pitch is their sum.
        jacobian[3, 1:] = 1.0
        error = np.append(goal - self.commanded_tip_position, -targets[1:4].sum())
        gram = jacobian @ jacobian.T + _DAMPING**2 * np.eye(4)
        return np.asarray(jacobian.T @ np.linalg.solve(gram, error), dtype=np.float64)

    def _update_commanded(self, targets: NDArray[np.float64]) -> None:
        self._commanded.qpos[_ACTUATORS] = targets
        self._mujoco.mj_kinematics(self._model, self._commanded)
        self._mujoco.mj_comPos(self._model, self._commanded)

    def _observation(self) -> Observation:
        observation: Observation = {}
        if self._renderer is not None:
            for camera in self._cameras:
                observation[IMAGE_PREFIX + camera] = self._renderer.draw(self._data, camera)
        data = self._data
        state = (data.qpos[_ACTUATORS], data.qvel[_ACTUATORS], data.ctrl[_ACTUATORS])
        observation[STATE] = np.concatenate(state).astype(np.float32)
        return observation

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the environment is closed")

    @staticmethod
    def _array(values: Any) -> NDArray[np.float64]:
        """A copy: what mujoco hands out is a view that changes with the next step."""
        return np.array(values, dtype=np.float64)


def _checked_cameras(cameras: Sequence[str]) -> tuple[str, ...]:
    names = (cameras,) if isinstance(cameras, str) else tuple(cameras)
    unknown = [name for name in names if name not in CAMERAS]
    if unknown:
        raise ValueError(f"cameras: found {unknown}, expected some of {list(CAMERAS)}")
    if len(set(names)) != len(names):
        raise ValueError(f"cameras: found {list(names)}, expected each camera once")
    return names
