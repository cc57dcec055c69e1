"""The demo arm: what an observation holds, that a seed names an episode, that the expert always arrives."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from numpy.typing import NDArray

from weightkit_runners.envs import ENVS, STATE, Observation, make_env
from weightkit_runners.envs.arm import (
    CUBE_HIGH_M,
    CUBE_LOW_M,
    SUCCESS_RADIUS_M,
    TIP_HIGH_M,
    TIP_LOW_M,
    TIP_STEP_M,
    ArmEnv,
)
from weightkit_runners.envs.expert import expert_action
from weightkit_runners.envs.gymnasium_env import GymnasiumEnv
from weightkit_runners.envs.rendering import RenderingUnavailable, choose_gl_backend

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None,
    reason="the arm environment needs mujoco: pip install 'weightkit[arm]'",
)

FRONT = "observation.images.front"
WRIST = "observation.images.wrist"
EXPERT_SEEDS = range(50)

STILL = np.zeros(4, dtype=np.float32)


def drawing_arm(**options: Any) -> ArmEnv:
    """An arm with cameras, or a skip with the sentence that names the package to install."""
    try:
        return ArmEnv(**options)
    except RenderingUnavailable as unavailable:
        pytest.skip(str(unavailable))


@pytest.fixture
def blind() -> Iterator[ArmEnv]:
    env = ArmEnv(cameras=())
    yield env
    env.close()


@pytest.fixture
def seeing() -> Iterator[ArmEnv]:
    env = drawing_arm(cameras=("front", "wrist"), image_size=(48, 64))
    yield env
    env.close()


def random_actions(count: int, *, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(np.float32)


def digest(observation: Observation) -> str:
    hasher = hashlib.sha256()
    for name in sorted(observation):
        hasher.update(name.encode() + observation[name].tobytes())
    return hasher.hexdigest()


def episode_digests(env: ArmEnv, *, seed: int) -> list[str]:
    digests = [digest(env.reset(seed))]
    for action in random_actions(12, seed=seed):
        digests.append(digest(env.step(action)[0]))
    return digests


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.rendering
def test_an_observation_has_exactly_the_announced_names_and_shapes(seeing: ArmEnv) -> None:
    assert dict(seeing.features) == {FRONT: (3, 48, 64), WRIST: (3, 48, 64), STATE: (18,)}
    for observation in (seeing.reset(0), seeing.step(STILL)[0]):
        assert {name: value.shape for name, value in observation.items()} == dict(seeing.features)
        assert {name: value.dtype.name for name, value in observation.items()} == {
            FRONT: "uint8",
            WRIST: "uint8",
            STATE: "float32",
        }


def test_a_step_gives_plain_python_reward_flags_and_success(blind: ArmEnv) -> None:
    blind.reset(0)
    _, reward, terminated, truncated, info = blind.step(STILL)
    found = (reward, terminated, truncated, info["success"])
    assert found == (0.0, False, False, False)
    assert [type(value) for value in found] == [float, bool, bool, bool]


def test_the_state_is_positions_then_velocities_then_targets(blind: ArmEnv) -> None:
    assert not blind.reset(0)[STATE].any()
    down_and_open = np.array([0, 0, -1, 1], dtype=np.float32)
    for _ in range(3):
        state = blind.step(down_and_open)[0][STATE]
    positions, velocities, targets = state.reshape(3, 6)
    assert targets[5] == pytest.approx(0.3)
    assert 0 < positions[5] <= 0.3 + 1e-3
    assert velocities[5] > 0
    assert not np.isclose(positions[1], targets[1], atol=1e-4), "the arm follows its targets with a lag"


def test_an_observation_is_not_changed_by_later_steps(blind: ArmEnv) -> None:
    first = blind.reset(0)[STATE]
    blind.step(np.ones(4, dtype=np.float32))
    assert not first.any()


@pytest.mark.rendering
def test_images_are_not_changed_by_later_steps(seeing: ArmEnv) -> None:
    first = seeing.reset(0)
    before = digest(first)
    for action in random_actions(3, seed=0):
        seeing.step(action)
    assert digest(first) == before


def test_make_env_knows_every_name_in_its_table() -> None:
    assert list(ENVS) == ["arm", "synthetic"]
    env = make_env("arm", cameras=())
    assert env.action_dim == 4
    assert dict(env.features) == {STATE: (18,)}
    env.close()


def test_make_env_refuses_an_unknown_name_and_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"found 'leg', expected one of \['arm', 'synthetic'\]"):
        make_env("leg")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cameras": ("top",)}, r"cameras: found \['top'\], expected some of \['front', 'wrist'\]"),
        ({"cameras": ("front", "front")}, "expected each camera once"),
        ({"cameras": (), "image_size": (0, 48)}, r"image_size: found \(0, 48\)"),
        ({"cameras": (), "max_episode_steps": 0}, "max_episode_steps: found 0"),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ArmEnv(**options)


def test_importing_the_environments_imports_no_simulator_and_no_gymnasium() -> None:
    script = (
        "import sys, weightkit_runners.envs, weightkit_runners.envs.rendering;"
        "print(sorted({'mujoco', 'gymnasium', 'torch'} & set(sys.modules)))"
    )
    assert run_python(script) == "[]"


def run_python(script: str, *, without: tuple[str, ...] = ()) -> str:
    """What ``script`` prints in a process of its own, with this one's import path and environment."""
    environ = {name: value for name, value in os.environ.items() if name not in without}
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ, timeout=120
    )
    return done.stdout.strip()


# -- a seed names an episode -----------------------------------------------------------------------


@pytest.mark.rendering
def test_the_same_seed_and_actions_give_bit_equal_observations_whatever_came_before(seeing: ArmEnv) -> None:
    first = episode_digests(seeing, seed=7)
    episode_digests(seeing, seed=8)
    assert episode_digests(seeing, seed=7) == first


@pytest.mark.rendering
def test_another_environment_gives_the_same_episode(seeing: ArmEnv) -> None:
    first = episode_digests(seeing, seed=7)
    other = drawing_arm(cameras=("front", "wrist"), image_size=(48, 64))
    try:
        assert episode_digests(other, seed=7) == first
        assert episode_digests(seeing, seed=7) == first, "two environments in one process disturb each other"
    finally:
        other.close()


@pytest.mark.rendering
def test_an_environment_that_nobody_closed_leaves_the_others_as_they_are(seeing: ArmEnv) -> None:
    first = episode_digests(seeing, seed=7)
    forgotten = drawing_arm(image_size=(32, 32))
    forgotten.reset(0)
    seeing.reset(0)
    del forgotten
    gc.collect()
    assert episode_digests(seeing, seed=7) == first


@pytest.mark.rendering
def test_another_process_gives_the_same_episode(seeing: ArmEnv) -> None:
    script = """
import hashlib, numpy as np
from weightkit_runners.envs.arm import ArmEnv
env = ArmEnv(cameras=("front", "wrist"), image_size=(48, 64))
observations = [env.reset(7)]
for action in np.random.default_rng(7).uniform(-1, 1, (12, 4)).astype(np.float32):
    observations.append(env.step(action)[0])
env.close()
for observation in observations:
    hasher = hashlib.sha256()
    for name in sorted(observation):
        hasher.update(name.encode() + observation[name].tobytes())
    print(hasher.hexdigest())
"""
    assert run_python(script).split() == episode_digests(seeing, seed=7)


@pytest.mark.rendering
def test_the_cube_shows_in_the_pixels_and_not_in_the_state(seeing: ArmEnv) -> None:
    first = seeing.reset(1)
    first_cube = seeing.target_position
    second = seeing.reset(2)
    assert np.linalg.norm(first_cube - seeing.target_position) > 0.05
    assert np.array_equal(first[STATE], second[STATE])
    for camera in (FRONT, WRIST):
        assert (first[camera] != second[camera]).any(axis=0).sum() >= 16


def test_the_state_depends_on_the_actions_only_until_the_cube_is_touched(blind: ArmEnv) -> None:
    actions = 0.5 * random_actions(8, seed=3)
    states = []
    for seed in (1, 2):
        blind.reset(seed)
        states.append(np.stack([blind.step(action)[0][STATE] for action in actions]))
    assert np.array_equal(states[0], states[1])


@pytest.mark.rendering
@pytest.mark.parametrize("size", [48, 84])
def test_the_cube_covers_at_least_four_by_four_pixels_wherever_it_lies(size: int) -> None:
    env = drawing_arm(image_size=(size, size))
    try:
        for seed in range(60):
            red, green, blue = env.reset(seed)[FRONT].astype(int)
            rows, columns = np.nonzero((red > 2 * green) & (red > 2 * blue))
            assert np.ptp(rows) + 1 >= 4
            assert np.ptp(columns) + 1 >= 4
            assert rows.size >= 16
            assert 0 < rows.min() <= rows.max() < size - 1
            assert 0 < columns.min() <= columns.max() < size - 1
    finally:
        env.close()


def test_the_cube_lies_at_rest_within_its_rectangle(blind: ArmEnv) -> None:
    for seed in range(100):
        blind.reset(seed)
        before = blind.target_position
        assert (np.array(CUBE_LOW_M) <= before[:2]).all()
        assert (before[:2] <= np.array(CUBE_HIGH_M)).all()
        blind.step(STILL)
        assert np.allclose(before, blind.target_position, atol=1e-3)


# -- the task --------------------------------------------------------------------------------------


def test_the_expert_reaches_the_cube_on_every_seed(blind: ArmEnv) -> None:
    for seed in EXPERT_SEEDS:
        blind.reset(seed)
        steps = 0
        terminated = truncated = False
        while not (terminated or truncated):
            action = expert_action(blind)
            assert action.dtype == np.float32
            assert np.abs(action).max() <= 1
            _, reward, terminated, truncated, info = blind.step(action)
            steps += 1
        assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True), f"seed {seed}"
        assert 10 <= steps <= 25
        assert np.linalg.norm(blind.tip_position - blind.target_position) < SUCCESS_RADIUS_M


def test_random_actions_seldom_reach_the_cube(blind: ArmEnv) -> None:
    reached = 0
    for seed in range(20):
        blind.reset(seed)
        for action in random_actions(40, seed=seed):
            _, _, terminated, truncated, _ = blind.step(action)
            if terminated or truncated:
                break
        reached += terminated
    assert reached <= 2


def test_an_episode_without_success_is_truncated_at_its_limit_and_refuses_another_step() -> None:
    env = ArmEnv(cameras=(), max_episode_steps=3)
    env.reset(0)
    assert [env.step(STILL)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]
    with pytest.raises(RuntimeError, match=r"no episode runs, call reset\(seed\)"):
        env.step(STILL)
    env.reset(0)
    env.step(STILL)
    env.close()


def test_a_step_before_the_first_reset_is_refused(blind: ArmEnv) -> None:
    with pytest.raises(RuntimeError, match="no episode runs"):
        blind.step(STILL)


def test_a_closed_environment_refuses_a_step_and_a_second_close_does_nothing(blind: ArmEnv) -> None:
    blind.reset(0)
    blind.close()
    blind.close()
    with pytest.raises(RuntimeError, match="closed"):
        blind.step(STILL)
    with pytest.raises(RuntimeError, match="closed"):
        blind.reset(0)


# -- actions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_unit_action_moves_the_commanded_tip_by_one_step_along_its_axis(blind: ArmEnv, axis: int) -> None:
    blind.reset(0)
    before = blind.commanded_tip_position
    action = np.zeros(4, dtype=np.float32)
    action[axis] = -1
    blind.step(action)
    expected = np.zeros(3)
    expected[axis] = -TIP_STEP_M
    assert np.allclose(blind.commanded_tip_position - before, expected, atol=1e-4)


def test_the_tip_follows_the_command(blind: ArmEnv) -> None:
    blind.reset(0)
    for action in random_actions(5, seed=1):
        blind.step(action)
    for _ in range(10):
        blind.step(STILL)
    assert np.allclose(blind.tip_position, blind.commanded_tip_position, atol=3e-3)


@pytest.mark.parametrize("corner", [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (0.5, 1)])
def test_the_commanded_tip_stays_within_its_box(blind: ArmEnv, corner: tuple[float, float, float]) -> None:
    blind.reset(0)
    for _ in range(30):
        _, _, terminated, truncated, _ = blind.step(np.array([*corner, 0], dtype=np.float32))
        assert (blind.commanded_tip_position > np.array(TIP_LOW_M) - 0.01).all()
        assert (blind.commanded_tip_position < np.array(TIP_HIGH_M) + 0.01).all()
        if terminated or truncated:
            break


def test_an_action_beyond_the_range_is_clipped(blind: ArmEnv) -> None:
    states = []
    for action in ([7, -3, 1, 2], [1, -1, 1, 1]):
        blind.reset(0)
        states.append(blind.step(np.array(action, dtype=np.float32))[0][STATE])
    assert np.array_equal(states[0], states[1])


@pytest.mark.parametrize("shape", [(3,), (5,), (1, 4), ()])
def test_an_action_of_another_shape_is_refused(blind: ArmEnv, shape: tuple[int, ...]) -> None:
    blind.reset(0)
    with pytest.raises(ValueError, match=r"action: found shape .*, expected \(4,\)"):
        blind.step(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused(blind: ArmEnv, value: float) -> None:
    blind.reset(0)
    with pytest.raises(ValueError, match="expected finite components"):
        blind.step(np.array([0, value, 0, 0], dtype=np.float32))


# -- as a gymnasium environment --------------------------------------------------------------------


@pytest.mark.rendering
def test_the_arm_passes_gymnasiums_own_checker(seeing: ArmEnv) -> None:
    with warnings.catch_warnings():
        # It warns of what a registered environment would have: a spec and bounded observations.
        warnings.simplefilter("ignore", UserWarning)
        check_env(GymnasiumEnv(seeing), skip_render_check=True)


def test_gymnasiums_reset_with_a_seed_begins_the_episode_that_the_seed_names(blind: ArmEnv) -> None:
    env = GymnasiumEnv(blind)
    _, info = env.reset(seed=5)
    named = blind.target_position
    assert info == {"seed": 5}
    blind.reset(5)
    assert np.array_equal(blind.target_position, named)


def test_gymnasiums_resets_without_a_seed_are_repeatable_from_the_first(blind: ArmEnv) -> None:
    env = GymnasiumEnv(blind)
    runs = [[env.reset(seed=first)[1]["seed"] for first in (5, None, None)] for _ in range(2)]
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


# -- where nothing can draw ------------------------------------------------------------------------


def no_library(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def only_osmesa(name: str) -> Any:
    if "OSMesa" not in name:
        raise OSError(f"{name}: cannot open shared object file")
    return object()


def test_without_any_gl_library_one_sentence_names_the_packages() -> None:
    environ: dict[str, str] = {}
    with pytest.raises(RenderingUnavailable) as caught:
        choose_gl_backend(environ, load_library=no_library)
    assert str(caught.value) == (
        "cannot draw without a display: EGL has no libEGL.so.1, install the Debian packages libegl1 and "
        "libegl-mesa0; or OSMesa has no libOSMesa.so, install the Debian package libosmesa6"
    )
    assert environ == {}


def test_osmesa_is_taken_where_egl_is_missing() -> None:
    environ = {"MUJOCO_GL": ""}
    assert choose_gl_backend(environ, load_library=only_osmesa) == "osmesa"
    assert environ["MUJOCO_GL"] == "osmesa"


class DispatchWithoutDriver:
    """A libEGL.so.1 that loads and has no vendor library behind it: it knows no device extension."""

    def __init__(self) -> None:
        self.eglGetProcAddress = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)(lambda name: None)


def test_an_egl_that_loads_but_finds_no_device_is_not_taken() -> None:
    def load(name: str) -> Any:
        return DispatchWithoutDriver() if "EGL" in name else no_library(name)

    with pytest.raises(RenderingUnavailable, match=r"initializes no device.*libegl-mesa0"):
        choose_gl_backend({}, load_library=load)


def test_what_the_user_set_is_respected_even_where_something_else_would_work() -> None:
    with pytest.raises(RenderingUnavailable, match=r"cannot draw with MUJOCO_GL=egl: .*libegl1"):
        choose_gl_backend({"MUJOCO_GL": "egl"}, load_library=only_osmesa)
    assert choose_gl_backend({"MUJOCO_GL": "OSMesa"}, load_library=only_osmesa) == "osmesa"
    assert choose_gl_backend({"MUJOCO_GL": "glfw", "DISPLAY": ":0"}, load_library=no_library) == "glfw"


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"MUJOCO_GL": "glfw"}, "needs a display and neither DISPLAY nor WAYLAND_DISPLAY is set"),
        ({"MUJOCO_GL": "disabled"}, "turns drawing off"),
        ({"MUJOCO_GL": "vulkan"}, "mujoco knows no such value"),
        ({"MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "egl"}, "refused while PYOPENGL_PLATFORM is egl"),
    ],
)
def test_a_setting_that_cannot_draw_says_why(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(RenderingUnavailable, match=sentence):
        choose_gl_backend(environ, load_library=only_osmesa)


@pytest.mark.rendering
def test_drawing_works_where_mujoco_was_imported_before_the_choice(seeing: ArmEnv) -> None:
    script = """
import warnings
warnings.simplefilter("ignore")
import mujoco
from weightkit_runners.envs import make_env
env = make_env("arm", image_size=(32, 32))
print(env.reset(0)["observation.images.front"].std() > 10)
env.close()
"""
    assert run_python(script, without=("MUJOCO_GL", "PYOPENGL_PLATFORM")) == "True"
