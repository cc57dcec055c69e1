"""Recorded episodes: written whole, read back the same, refused where they are of another run."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from test_resume import episodes
from test_run import config as config

from weightkit.errors import ConfigError
from weightkit_runners.config import RunConfig
from weightkit_runners.demonstrations import (
    Demonstration,
    demonstration_files,
    read_demonstration,
    read_demonstrations,
    write_demonstration,
)
from weightkit_runners.environment import make_run_env
from weightkit_runners.interventions import Scripted
from weightkit_runners.learner import Learner
from weightkit_runners.pretrained import prepare_policy
from weightkit_runners.record import command, recorded, replayed
from weightkit_runners.transitions import transition_spec


def same(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(
        np.array_equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


def test_what_is_read_is_what_was_written(config: RunConfig, tmp_path: Path) -> None:
    written = episodes(config)
    for seed, transitions in enumerate(written):
        write_demonstration(tmp_path, Demonstration.of(transitions, seed=seed))
    found = list(read_demonstrations(tmp_path, transition_spec(config)))
    assert [name for name, _ in found] == [f"episode_{n:06d}" for n in range(len(written))]
    for (_, again), transitions in zip(found, written, strict=True):
        assert len(again) == len(transitions)
        assert all(same(one, other) for one, other in zip(again, transitions, strict=True))


def test_numbers_go_on_in_a_folder_that_holds_some(config: RunConfig, tmp_path: Path) -> None:
    demonstration = Demonstration.of(episodes(config)[0], seed=0)
    first, second = (write_demonstration(tmp_path, demonstration) for _ in range(2))
    first.unlink()
    assert write_demonstration(tmp_path, demonstration).name == "episode_000002.safetensors"
    assert demonstration_files(tmp_path)[0] == second


def test_frames_are_stored_once(config: RunConfig, tmp_path: Path) -> None:
    transitions = episodes(config)[0]
    path = write_demonstration(tmp_path, Demonstration.of(transitions, seed=0))
    frames = (len(transitions) + 1) * transition_spec(config).frame_bytes
    assert path.stat().st_size < frames + 4096


@pytest.mark.parametrize("damage", ["cut", "other kind", "lengths", "no metadata"])
def test_a_file_that_is_no_demonstration_is_refused(damage: str, config: RunConfig, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    path = write_demonstration(tmp_path, Demonstration.of(episodes(config)[0], seed=0))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    else:
        arrays = load_file(path)
        if damage == "lengths":
            arrays["reward"] = arrays["reward"][:-1].copy()
        said = {"seed": 0, "success": True, "terminated": True}
        good = {"weightkit_demonstration": "1", "episode": json.dumps(said)}
        metadata = {"other kind": {"weightkit_demonstration": "9"}, "lengths": good, "no metadata": None}[damage]
        save_file(arrays, path, metadata)
    with pytest.raises(ConfigError, match=r"episode_000000\.safetensors: no demonstration can be read"):
        read_demonstration(path)


def test_demonstrations_of_another_configuration_stop_the_learner(config: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "demos"
    folder.mkdir()
    write_demonstration(folder, Demonstration.of(episodes(config)[0], seed=0))
    other = replace(config, net=replace(config.net, action_dim=3), replay=replace(config.replay, demonstrations=folder))
    with pytest.raises(ConfigError, match="another configuration: action"):
        Learner(other, prepare_policy(other, None), bind="127.0.0.1:0")
    with pytest.raises(ConfigError, match="no demonstrations"):
        demonstration_files(tmp_path)


def test_a_learner_takes_them_into_its_offline_buffer(config: RunConfig, tmp_path: Path) -> None:
    folder = tmp_path / "demos"
    folder.mkdir()
    for transitions in episodes(config):
        write_demonstration(folder, Demonstration.of(transitions, seed=0))
    shown = replace(config, replay=replace(config.replay, demonstrations=folder))
    with Learner(shown, prepare_policy(shown, None), bind="127.0.0.1:0") as learner:
        counts = learner.training.replay.counts()
    assert (counts.offline, counts.online) == (sum(map(len, episodes(config))), 0)


def test_what_a_person_does_is_recorded_and_can_be_done_again(config: RunConfig, tmp_path: Path) -> None:
    env = make_run_env(config)
    helper = Scripted(lambda seen, planned: np.full(4, float(seen["observation.state"][0, -1]) * 0.1, np.float32))
    try:
        done = recorded(
            config,
            env,
            lambda seen: np.zeros(4, np.float32),
            helper,
            range(5, 8),
            tmp_path,
            threading.Event(),
            all_of_them=True,
        )
        assert [row["seed"] for row in done] == [5, 6, 7]
        assert all(read_demonstration(Path(row["path"])).interventions.all() for row in done)
        again = replayed(env, tmp_path, threading.Event())
    finally:
        env.close()
    assert [row["apart"] for row in again] == [0.0] * 3


def test_only_successes_are_kept_unless_all_are_wanted(config: RunConfig, tmp_path: Path) -> None:
    env = make_run_env(config)
    try:
        done = recorded(
            config,
            env,
            lambda seen: np.zeros(4, np.float32),
            None,
            range(2),
            tmp_path,
            threading.Event(),
            all_of_them=False,
        )
    finally:
        env.close()
    assert [row["path"] for row in done] == ["", ""], "nothing succeeds in the synthetic environment"
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_episode_that_is_stopped_is_not_recorded(config: RunConfig, tmp_path: Path) -> None:
    stop = threading.Event()
    env = make_run_env(config)

    def plan(seen: Any) -> np.ndarray:
        stop.set()
        return np.zeros(4, np.float32)

    try:
        assert recorded(config, env, plan, None, range(2), tmp_path, stop, all_of_them=True) == []
    finally:
        env.close()
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "who acts"),
        (["-o", "x"], "who acts"),
        (["--by", "expert"], "who acts"),
        (["--replay", "x", "--by", "expert"], "leave -o"),
    ],
)
def test_the_command_asks_for_what_it_needs(words: list[str], what: str, config: RunConfig) -> None:
    done = CliRunner().invoke(command, ["--config_path", config.path, *words])
    assert done.exit_code == 2
    assert what in done.output
