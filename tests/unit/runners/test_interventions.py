"""People who take over: their actions are taken, marked, and kept for both buffers."""

from __future__ import annotations

import os
import pty
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_run import PATIENCE_S, Recorder
from test_run import config as config
from test_run import learner as learner

from weightkit.core.version import WeightVersion
from weightkit.errors import ConfigError, UsageError
from weightkit_runners import interventions
from weightkit_runners.actor import Actor
from weightkit_runners.collecting import Collector
from weightkit_runners.config import RunConfig
from weightkit_runners.environment import make_run_env
from weightkit_runners.interventions import Keyboard, Scripted, combined, make_source
from weightkit_runners.learner import Learner

VERSION = WeightVersion("r", 1, 0)
PLANNED = np.full(4, 0.25, np.float32)


def collected(config: RunConfig, source: Any) -> tuple[list[dict[str, Any]], Collector]:
    recorder, env = Recorder(), make_run_env(config)
    try:
        collector = Collector(
            config, env, lambda seen, env_step, learner_step: PLANNED.copy(), lambda stop: VERSION, recorder,  # type: ignore[arg-type]
            source=source,
        )  # fmt: skip
        collector.episode(0, 7, threading.Event())
    finally:
        env.close()
    return [transition for _, batch in recorder.sent for transition in batch], collector


def test_what_a_person_does_is_taken_and_marked(config: RunConfig) -> None:
    step = iter(range(1000))
    theirs = np.array([1.0, -1.0, 0.5, 0.0], np.float32)
    transitions, collector = collected(
        config, Scripted(lambda seen, planned: theirs if next(step) in (3, 4, 9) else None)
    )
    marked = [index for index, t in enumerate(transitions) if t["intervention"]]
    assert marked == [3, 4, 9]
    assert collector.interventions == 3
    for index, transition in enumerate(transitions):
        assert np.array_equal(transition["action"], theirs if index in marked else PLANNED)


def test_a_source_sees_what_the_policy_sees_and_plans(config: RunConfig) -> None:
    seen: list[Any] = []
    collected(config, Scripted(lambda observation, planned: seen.append((observation, planned))))
    assert {key: value.shape for key, value in seen[0][0].items()} == {
        "observation.images": (1, 9, 24, 24), "observation.state": (1, 54),
    }  # fmt: skip
    assert np.array_equal(seen[0][1], PLANNED)


def test_interventions_reach_both_buffers_and_their_rate_is_logged(
    config: RunConfig, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = iter(range(1000))
    helper = Scripted(lambda seen, planned: PLANNED if next(step) % 4 == 0 else None)
    monkeypatch.setattr("weightkit_runners.actor.make_source", lambda name, action_dim, **options: helper)
    with Actor(config, address=learner.address, name="a") as actor:
        assert actor.weights.wait(threading.Event(), timeout_s=PATIENCE_S)
        done = actor.collect(0, threading.Event(), episodes=2, intervene="somebody")
    steps = sum(episode.steps for episode in done)
    while learner.training.env_step < steps:
        assert learner.intake.move(learner.training, wait_s=PATIENCE_S)
    counts = learner.training.replay.counts()
    assert (counts.online, counts.interventions) == (steps, -(-steps // 4))
    assert counts.offline == counts.interventions
    assert learner.training.episodes.row()["intervention_rate"] == pytest.approx(counts.interventions / steps)


def test_the_expert_helps_in_its_share_of_episodes_and_only_on_the_arm(config: RunConfig) -> None:
    from weightkit_runners.envs.arm import ArmEnv

    arm = ArmEnv(cameras=())
    helped = 0
    for seed in range(60):
        source = make_source("expert", 4, rate=0.5, after=2)
        arm.reset(seed)
        source.begin(arm, seed)
        actions = [source.action({}, PLANNED) for _ in range(4)]
        assert actions[:2] == [None, None]
        helped += actions[2] is not None
    assert 15 < helped < 45
    with pytest.raises(ConfigError, match="demo arm"):
        source.begin(make_run_env(config).robot, 0)
    with pytest.raises(ConfigError, match="rate"):
        make_source("expert", 4, rate=2.0)


def test_names_that_mean_nobody_are_refused() -> None:
    with pytest.raises(UsageError, match="nobody") as refused:
        make_source("nobody", 4)
    assert "keyboard" in str(refused.value.hint)
    with pytest.raises(ConfigError, match="nowhere"):
        make_source("nowhere.at.all:thing", 4)
    assert isinstance(make_source("test_interventions:scripted", 4), Scripted)


def scripted(action_dim: int) -> Scripted:
    return Scripted(lambda seen, planned: np.zeros(action_dim, np.float32))


# ---- keys


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r", buffering=1, closefd=True) as stdin:
        monkeypatch.setattr(interventions.sys, "stdin", stdin)
        yield ours
    os.close(ours)


def test_a_held_key_is_one_movement_and_a_released_one_ends(terminal: int) -> None:
    import termios

    now = [0.0]
    before = termios.tcgetattr(terminal)
    keyboard = Keyboard(4, hold_s=0.25, clock=lambda: now[0])
    assert keyboard.action({}, PLANNED) is None
    os.write(terminal, b"w")
    assert _soon(keyboard).tolist() == [1, 0, 0, 0]
    now[0] = 0.2
    assert keyboard.action({}, PLANNED) is not None
    now[0] = 0.6
    assert keyboard.action({}, PLANNED) is None
    os.write(terminal, b"ad?o")
    assert _soon(keyboard).tolist() == [0, 0, 0, 1]
    keyboard.close()
    assert termios.tcgetattr(terminal) == before


def _soon(keyboard: Keyboard) -> Any:
    """The terminal hands keys on a moment after they were pressed."""
    for _ in range(10_000):
        action = keyboard.action({}, PLANNED)
        if action is not None:
            return action
    raise AssertionError("no key came")


def test_keys_of_components_that_there_are_not_mean_nothing() -> None:
    assert combined({"o": 0.0}, 3) is None
    assert combined({}, 3) is None
    found = combined({"w": 0.0, "o": 0.0}, 3)
    assert found is not None
    assert found.tolist() == [1, 0, 0]


def test_a_keyboard_without_a_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(interventions.sys, "stdin", nothing)
        with pytest.raises(ConfigError, match="terminal"):
            Keyboard(4)


# ---- a gamepad, as pygame shows one


class Pad:
    """Stands in for pygame's module and its joystick: a device is what this machine has not."""

    def __init__(self, connected: int = 1) -> None:
        self.connected, self.held, self.sticks = connected, False, [0.0] * 4
        self.joystick = self.event = self
        self.closed = False

    def init(self) -> None: ...
    def pump(self) -> None: ...
    def quit(self) -> None:
        self.closed = True

    def get_count(self) -> int:
        return self.connected

    def Joystick(self, number: int) -> Pad:
        return self

    def get_button(self, number: int) -> bool:
        return self.held and number == 4

    def get_axis(self, number: int) -> float:
        return self.sticks[number]


def test_sticks_move_only_while_the_button_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    pad = Pad()
    monkeypatch.setitem(__import__("sys").modules, "pygame", pad)
    source = make_source("gamepad", 4)
    pad.sticks = [0.1, -0.5, 0.0, 2.0]
    assert source.action({}, PLANNED) is None
    pad.held = True
    action = source.action({}, PLANNED)
    assert action is not None
    assert action == pytest.approx([0.5, -0.1, -1.0, 0.0])
    source.close()
    assert pad.closed


def test_no_gamepad_and_no_pygame_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pygame", Pad(0))
    with pytest.raises(ConfigError, match="no gamepad"):
        make_source("gamepad", 4)
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    with pytest.raises(ConfigError, match="pygame"):
        make_source("gamepad", 4)


def test_a_person_over_a_process_boundary_is_the_runs_own_choice(config: RunConfig) -> None:
    """What only the arm itself can tell is not there where the environment is a process of its own."""
    arm = replace(config, env_in_process=True)
    env = make_run_env(arm)
    try:
        with pytest.raises(ConfigError, match="demo arm"):
            make_source("expert", 4).begin(env.robot, 0)
    finally:
        env.close()
