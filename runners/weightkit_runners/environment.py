"""The environment of a run: made from the configuration, its observations under the configuration's keys."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightkit.architectures.drqv2.config import IMAGE_KEY, STATE_KEY, is_image_key
from weightkit.errors import ConfigError
from weightkit_runners.config import RunConfig
from weightkit_runners.envs import RobotEnv, make_env
from weightkit_runners.envs.gymnasium_robot import is_gymnasium_id
from weightkit_runners.frame_stack import FrameStackBuffer
from weightkit_runners.transitions import transition_spec

DEFAULT_CAMERA = "front"


class RunEnv:
    """A RobotEnv whose observation keys are those of ``env.features``, and which stacks frames.

    ``reset`` and ``step`` give stacked observations with a batch axis of 1, as the policy takes them; ``frame`` is the
    newest single one. ``robot`` is the environment itself. With ``discrete_actions`` the last component of the policy's
    action is the number of a choice, spread evenly over [-1, 1] for the robot: 0, 1, 2 are -1, 0 and 1.
    """

    def __init__(self, env: RobotEnv, rename: Mapping[str, str], frame_stack: int, discrete_actions: int = 0) -> None:
        self.robot = env
        self._choices = discrete_actions
        self._env = env
        self.frame: dict[str, NDArray[Any]] = {}
        self._rename = dict(rename)
        images = [key for key in self._rename.values() if is_image_key(key)]
        state = STATE_KEY if STATE_KEY in self._rename.values() else None
        self._stack = FrameStackBuffer(frame_stack, images, state)

    @property
    def action_dim(self) -> int:
        """Number of action components."""
        return self._env.action_dim

    @property
    def simulated(self) -> bool:
        """Whether the environment says of itself that nothing real moves in it."""
        return bool(getattr(self._env, "simulated", False))

    def reset(self, seed: int) -> dict[str, NDArray[Any]]:
        """The first stacked observation of the episode that ``seed`` names, ``(1, ...)`` each."""
        return _batched(self._stack.reset(self._single(self._env.reset(seed))))

    def step(self, action: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """The stacked observation after ``action (A,)``, reward, terminated, truncated, info."""
        observation, reward, terminated, truncated, info = self._env.step(self.robot_action(action))
        stacked = _batched(self._stack.update(self._single(observation)))
        return stacked, float(reward), bool(terminated), bool(truncated), info

    def robot_action(self, action: NDArray[Any]) -> NDArray[Any]:
        """What the robot is told for a policy's action (A,)."""
        if self._choices < 2:
            return action
        told = np.array(action, np.float32)
        told[-1] = 2.0 * told[-1] / (self._choices - 1) - 1.0
        return told

    def policy_action(self, told: NDArray[Any]) -> NDArray[np.float32]:
        """The policy's action for what a person tells the robot: the nearest choice."""
        action = np.array(told, np.float32)
        if self._choices >= 2:
            action[-1] = np.clip(np.round((action[-1] + 1.0) / 2.0 * (self._choices - 1)), 0, self._choices - 1)
        return action

    def close(self) -> None:
        """Free the environment."""
        self._env.close()

    def _single(self, observation: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.frame = {wanted: observation[given] for given, wanted in self._rename.items()}
        return self.frame


def _batched(observation: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key: value[None] for key, value in observation.items()}


def _made(config: RunConfig, options: dict[str, Any]) -> RobotEnv:
    if not config.env_in_process:
        return make_env(config.env.name, **options)
    from weightkit_runners.envs.process import ProcessEnv

    return ProcessEnv(config.env.name, **options)


def given_key(key: str) -> str:
    """The key under which an environment gives what the configuration calls ``key``."""
    return f"{IMAGE_KEY}.{DEFAULT_CAMERA}" if key == IMAGE_KEY else key


def make_run_env(config: RunConfig) -> RunEnv:
    """The run's environment. Raises ConfigError where its observations or actions are not what the policy takes."""
    net = config.net
    features = config.env.features or {
        **{f"{IMAGE_KEY}.{camera}": (net.image_channels, net.image_height, net.image_width) for camera in net.cameras},
        **({STATE_KEY: (net.state_dim,)} if net.state_dim else {}),
    }
    rename = {given_key(key): key for key in features}
    cameras = tuple(key.removeprefix(f"{IMAGE_KEY}.") for key in rename if is_image_key(key))
    if ":" in config.env.name and "" not in sys.path:
        sys.path.insert(0, "")
    options: dict[str, Any] = {"max_episode_steps": config.env.max_episode_steps, **config.env.options}
    if is_gymnasium_id(config.env.name):
        options |= {"features": {given: features[wanted] for given, wanted in rename.items()}}
        options |= {"features_map": {theirs: given_key(ours) for theirs, ours in config.env.features_map.items()}}
    else:
        options |= {"cameras": cameras, "image_size": (net.image_height, net.image_width)}
    try:
        env = _made(config, options)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{config.path} @ $.env.name: {config.env.name!r} needs {error.name}, which cannot be imported",
            hint=(
                "your own environment is looked for in the current folder and in what is installed"
                if ":" in config.env.name
                else f"pip install {error.name}"
            ),
        ) from None
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(f"{config.path} @ $.env: {error}") from None
    for given, wanted in rename.items():
        if tuple(env.features.get(given, ())) != features[wanted]:
            env.close()
            raise ConfigError(
                f"{config.path} @ $.env.features.{wanted}: expected what env {config.env.name!r} gives, "
                f"{list(env.features.get(given, ())) or 'nothing'}, found {list(features[wanted])}"
            )
    wanted_dim = transition_spec(config).action_dim
    if env.action_dim != wanted_dim:
        env.close()
        raise ConfigError(
            f"{config.path} @ $.policy.output_features.action: expected {env.action_dim}, the actions of env "
            f"{config.env.name!r}, found {wanted_dim}"
        )
    return RunEnv(env, rename, net.frame_stack, getattr(net, "num_discrete_actions", 0))
