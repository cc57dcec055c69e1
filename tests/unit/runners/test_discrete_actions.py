"""A gripper of a few choices: numbers for the policy, even steps for the robot, also where a person decides."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_config_effects import document
from test_interventions import VERSION
from test_run import Recorder

from weightkit_runners.collecting import Collector
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.environment import make_run_env
from weightkit_runners.exploring import explorer
from weightkit_runners.interventions import Scripted
from weightkit_runners.pretrained import build_policy
from weightkit_runners.training import Training


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    written = document("sac", tmp_path)
    written["policy"] |= {"num_discrete_actions": 3, "output_features": {"action": [3]}}
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(written))
    return read_run_config(path)


def test_choices_are_spread_over_what_a_robot_takes(config: RunConfig) -> None:
    env = make_run_env(config)
    try:
        for number, told in ((0, -1.0), (1, 0.0), (2, 1.0)):
            action = np.array([0.1, 0.2, 0.3, number], np.float32)
            assert env.robot_action(action).tolist() == pytest.approx([0.1, 0.2, 0.3, told])
            assert env.policy_action(env.robot_action(action)).tolist() == pytest.approx(action.tolist())
        assert [env.policy_action(np.array([0, 0, 0, x]))[-1] for x in (-0.7, -0.3, 0.2, 0.9)] == [0, 1, 1, 2]
    finally:
        env.close()


def test_an_episode_with_a_gripper_trains_its_critic_on_what_was_chosen(config: RunConfig) -> None:
    env, recorder, told = make_run_env(config), Recorder(), list[Any]()
    step = env.robot.step
    env.robot.step = lambda action: (told.append(np.array(action)), step(action))[1]  # type: ignore[method-assign]
    policy = build_policy(config)
    helper = Scripted(lambda seen, planned: np.array([0, 0, 0, 0.9]) if len(told) == 2 else None)
    try:
        collector = Collector(config, env, explorer(policy, config), lambda stop: VERSION, recorder, source=helper)  # type: ignore[arg-type]
        collector.episode(0, 0, threading.Event())
    finally:
        env.close()
    sent = [transition for _, batch in recorder.sent for transition in batch]
    chosen = [float(transition["action"][-1]) for transition in sent]
    assert set(chosen) <= {0.0, 1.0, 2.0}
    assert chosen[2] == 2.0
    assert [action[-1] for action in told] == [choice - 1.0 for choice in chosen]
    training = Training(policy, config)
    training.add("a", sent)
    assert training.step()["discrete_critic_loss"] >= 0
    training.close()
