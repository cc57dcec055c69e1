"""Any gymnasium id as a robot: keys, images, units and ends of episodes are the policy's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from weightkit_runners.envs import RobotEnv, make_env
from weightkit_runners.envs.gymnasium_robot import is_gymnasium_id

FEATURES = {"observation.images.front": (3, 24, 32), "observation.state": (4,)}
MAP = {"pixels/top": "observation.images.front", "joints": "observation.state", "gripper": "observation.state"}
NAME = "own_robots:OwnRobot-v0"


def robot(**changes: Any) -> RobotEnv:
    options: dict[str, Any] = {"features": FEATURES, "features_map": MAP, "resize": True}
    return make_env(NAME, **{**options, **changes})


@pytest.fixture
def env() -> Iterator[RobotEnv]:
    made = robot()
    yield made
    made.close()


def test_observations_come_under_our_keys_with_channels_first_and_states_joined(env: RobotEnv) -> None:
    observation = env.reset(3)
    image, state = observation["observation.images.front"], observation["observation.state"]
    assert (image.dtype, image.shape) == (np.uint8, (3, 24, 32))
    assert image[:, 2, 5].tolist() == [200, 100, 50]
    assert image[:, 20, 5].tolist() == [0, 0, 0]
    assert (state.dtype, state.shape, state[3]) == (np.float32, (4,), 0.5)


def test_actions_are_scaled_to_its_bounds_and_clipped(env: RobotEnv) -> None:
    env.reset(3)
    for action, wanted in (([-1, -1], [-90, 0]), ([1, 1], [90, 1]), ([0, 0], [0, 0.5]), ([5, -5], [90, 0])):
        observation, *_ = env.step(np.array(action, np.float32))
        assert observation["observation.state"][:2].tolist() == wanted


def test_an_episode_ends_and_succeeds_as_it_says(env: RobotEnv) -> None:
    env.reset(3)
    outcomes = [env.step(np.zeros(2, np.float32)) for _ in range(5)]
    assert [terminated for _, _, terminated, _, _ in outcomes] == [False] * 4 + [True]
    assert [info["success"] for *_, info in outcomes] == [False] * 4 + [True]
    assert [reward for _, reward, *_ in outcomes] == [0.0] * 4 + [1.0]


def test_a_seed_is_an_episode(env: RobotEnv) -> None:
    first, again, other = (env.reset(seed)["observation.state"].tolist() for seed in (3, 3, 4))
    assert first == again != other


def test_the_run_says_how_long_an_episode_lasts() -> None:
    env = robot(max_episode_steps=2)
    env.reset(0)
    assert [env.step(np.zeros(2, np.float32))[3] for _ in range(2)] == [False, True]
    env.close()


def test_an_observation_that_is_no_dictionary_has_a_name() -> None:
    features = {"observation.state": (4,)}
    env = make_env("own_robots:Vector-v0", features=features, features_map={"observation": "observation.state"})
    assert env.reset(0)["observation.state"].tolist() == [0.5] * 4
    assert env.action_dim == 2
    env.close()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"resize": False}, r"pixels/top: expected an image of \[3, 24, 32\], found \[3, 48, 64\].*resize"),
        ({"features_map": {**MAP, "joint": "observation.state"}}, "there is no 'joint' in the observation"),
        ({"features_map": {"joints": "observation.state"}}, "nothing of .* its keys are gripper, joints, pixels/top"),
        ({"features": {**FEATURES, "observation.state": (9,)}}, r"expected \[9\], joints \+ gripper is \[4\]"),
        ({"features_map": {**MAP, "joints": "observation.images.front"}}, "observation.state"),
        ({"unknown_option": 1}, "unknown_option"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], what: str) -> None:
    with pytest.raises((ValueError, TypeError), match=what):
        robot(**changes)


@pytest.mark.parametrize("space", ["unbounded", "discrete"])
def test_actions_without_bounds_are_refused(space: str) -> None:
    with pytest.raises(ValueError, match="bounded"):
        make_env(
            "own_robots:Vector-v0", features={"observation.state": (4,)},
            features_map={"observation": "observation.state"}, space=space,
        )  # fmt: skip


def test_an_id_that_nobody_registered_is_refused() -> None:
    with pytest.raises(ValueError, match="Nobody-v0"):
        make_env("Nobody-v0", features={}, features_map={})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_robots:OwnRobot-v0", True), ("Reach-v3", True), ("gym_hil/PandaPick-v0", True), ("a.b:ns/Id-v12", True),
        ("arm", False), ("package.module:factory", False), ("package.module:Class", False), ("x-v1:factory", False),
    ],
)  # fmt: skip
def test_ids_are_told_from_factories(name: str, expected: bool) -> None:
    assert is_gymnasium_id(name) is expected
