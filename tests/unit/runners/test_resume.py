"""A run that is killed goes on: the same numbers, no fresh weights, no version number twice."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_run import config as config

from weightkit import load_policy
from weightkit.core.version import WeightVersion
from weightkit.errors import ConfigError, PlanError, UsageError
from weightkit_runners.checkpoints import find_training, going_on
from weightkit_runners.config import RunConfig
from weightkit_runners.experience.messages import AcceptedBatch, encode_transitions
from weightkit_runners.learner import Learner
from weightkit_runners.numbering import AT_ONCE, VersionNumbers
from weightkit_runners.pretrained import prepare_policy, resumed_policy
from weightkit_runners.transitions import Transition, make_transition, transition_spec

EPISODE, EPISODES = 12, 4


def episodes(config: RunConfig, *, first: int = 0, count: int = EPISODES) -> list[list[Transition]]:
    random, spec = np.random.default_rng(first), transition_spec(config)

    def frame() -> dict[str, Any]:
        return {
            key: random.integers(0, 256, shape).astype(dtype)
            if dtype.kind == "u"
            else random.normal(size=shape).astype(dtype)
            for key, (dtype, shape) in spec.frame.items()
        }

    found = []
    for number in range(first, first + count):
        frames = [frame() for _ in range(EPISODE + 1)]
        found.append(
            [
                make_transition(
                    frames[step], random.uniform(-1, 1, 4), float(random.normal()), frames[step + 1], episode=number,
                    step=step, terminated=step == EPISODE - 1,
                )
                for step in range(EPISODE)
            ]
        )  # fmt: skip
    return found


def accept(learner: Learner, batches: Sequence[Sequence[Transition]]) -> None:
    """As if an actor had sent them: into the journal, then into training."""
    at = len(learner.intake.journal.accepted())
    for batch in batches:
        at += 1
        seq = learner.training.env_step // EPISODE + 1
        kept = AcceptedBatch("a", "run1", seq, WeightVersion("r", 1, 0), encode_transitions(batch), len(batch))
        learner.intake.journal.append(kept)
        learner.training.add("a", batch)


def begun(config: RunConfig) -> Learner:
    return Learner(config, prepare_policy(config, None), bind="127.0.0.1:0")


def gone_on(config: RunConfig) -> Learner:
    saved = find_training(config.output_dir)
    return Learner(config, resumed_policy(config, saved), bind="127.0.0.1:0", saved=saved)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in learner.training.policy.state_dict().items()}


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_resumed_run_goes_on_bit_for_bit(prefetch: bool, config: RunConfig, tmp_path: Path) -> None:
    """Five updates, a checkpoint, five more; and the same from the checkpoint in another learner."""
    config = replace(config, replay=replace(config.replay, async_prefetch=prefetch))
    with begun(config) as learner:
        accept(learner, episodes(config))
        for _ in range(5):
            learner.training.step()
        learner.save()
        metrics = [learner.training.step() for _ in range(5)]
        wanted = weights(learner)
        moments = learner.training.state()
    with gone_on(config) as learner:
        assert (learner.training.learner_step, learner.training.env_step) == (5, EPISODE * EPISODES)
        again = [learner.training.step() for _ in range(5)]
        assert again == metrics
        assert all(torch.equal(value, wanted[name]) for name, value in weights(learner).items())
        assert all(torch.equal(value, moments[name]) for name, value in learner.training.state().items())


def test_the_comparison_sees_what_is_not_saved(config: RunConfig) -> None:
    """Without the optimizers' moments the next update is another one."""
    with begun(config) as learner:
        accept(learner, episodes(config))
        for _ in range(5):
            learner.training.step()
        learner.save()
        learner.training.step()
        wanted = weights(learner)
    with gone_on(config) as learner:
        for optimizer in learner.training.update.optimizers.values():
            optimizer.state.clear()
        learner.training.step()
        assert any(not torch.equal(value, wanted[name]) for name, value in weights(learner).items())


def test_version_numbers_go_on_and_never_come_twice(config: RunConfig) -> None:
    given: list[tuple[str, int]] = []
    for turn in range(4):
        with gone_on(config) if turn else begun(config) as learner:
            if not turn:
                accept(learner, episodes(config))
                learner.training.step()
                learner.save()
            for _ in range(3):
                version = learner.push()
                given.append((version.run_id, version.counter))
    assert len({run_id for run_id, _ in given}) == 1
    numbers = [number for _, number in given]
    assert numbers == sorted(set(numbers))


def test_numbers_are_set_aside_before_they_are_given(tmp_path: Path) -> None:
    numbers = VersionNumbers(tmp_path, resume=False)
    assert numbers.first == 1
    for number in (1, 2, AT_ONCE, AT_ONCE + 1):
        numbers.reserve(number)
        killed = VersionNumbers(tmp_path, resume=True)
        assert killed.run_id == numbers.run_id
        assert killed.first > number
    assert VersionNumbers(tmp_path, resume=False).run_id != numbers.run_id


def test_a_file_of_numbers_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"run\.json"):
        VersionNumbers(tmp_path, resume=True)


def test_a_second_run_in_a_folder_must_say_what_it_wants(config: RunConfig) -> None:
    assert going_on(config, anew=False) is None
    with begun(config) as learner:
        accept(learner, episodes(config))
        learner.training.step()
        learner.push()
        learner.save()
    with pytest.raises(UsageError, match="up to update 1; nothing was started") as refused:
        going_on(config, anew=False)
    assert "--resume" in str(refused.value.hint)
    assert "--anew" in str(refused.value.hint)
    other = replace(config, output_dir=config.output_dir.parent / "other")
    with pytest.raises(UsageError, match="a checkpoint of the run in"):
        going_on(other, resume=config.output_dir)
    assert going_on(config, resume=config.output_dir) is not None
    found = going_on(replace(config, resume=True), anew=False)
    assert found is not None
    assert found.learner_step == 1
    assert going_on(config, anew=True) is None
    assert {path.name for path in config.output_dir.iterdir()} >= {"checkpoints.1", "experience.1", "run.json.1"}
    assert going_on(config, anew=False) is None


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/last", "checkpoints/000001"])
def test_a_checkpoint_is_found_by_the_run_or_by_itself(place: str, config: RunConfig) -> None:
    with begun(config) as learner:
        accept(learner, episodes(config))
        learner.training.step()
        learner.save()
    found = find_training(config.output_dir / place)
    assert found.learner_step == 1
    assert found.train_config.is_file()
    policy = load_policy(found.path)
    whole = learner.training.policy.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in policy.state_dict().items())


@pytest.mark.parametrize("what", ["nothing", "no policy", "a damaged state", "a damaged step"])
def test_nothing_starts_from_a_checkpoint_that_is_not_whole(what: str, config: RunConfig, tmp_path: Path) -> None:
    if what == "nothing":
        with pytest.raises(ConfigError, match="nothing was started"):
            find_training(tmp_path / "empty")
        return
    with begun(config) as learner:
        accept(learner, episodes(config))
        learner.training.step()
        path = learner.save()
    if what == "no policy":
        model = path / "pretrained_model" / "model.safetensors"
        model.write_bytes(model.read_bytes()[:-100])
    elif what == "a damaged state":
        (path / "training_state" / "optimizer_state.safetensors").write_bytes(b"123")
    else:
        (path / "training_state" / "training_step.json").write_text('{"step": -1}')
    with pytest.raises((ConfigError, PlanError, Exception), match=r"model\.safetensors|optimizer_state|training_step"):
        gone_on(config).close()


def test_a_state_of_another_net_is_refused(config: RunConfig) -> None:
    with begun(config) as learner:
        accept(learner, episodes(config))
        learner.training.step()
        state = learner.training.state()
        with pytest.raises(ConfigError, match=r"actor\.0\.exp_avg is"):
            learner.training.load_state({**state, "actor.0.exp_avg": torch.zeros(3)}, learner_step=1)
        with pytest.raises(ConfigError, match="nothing here is trained by"):
            learner.training.load_state({**state, "temperature.0.exp_avg": torch.zeros(1)}, learner_step=1)


def test_checkpoints_come_every_save_freq_updates_and_at_the_end(config: RunConfig) -> None:
    config = replace(config, save_freq=2, online_steps=5)
    with begun(config) as learner:
        accept(learner, episodes(config))
        learner.run(threading.Event())
    folder = config.output_dir / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["000002", "000004", "000005", "last"]
    assert (folder / "last").resolve().name == "000005"


def test_a_checkpoint_says_with_what_it_was_trained_defaults_too(config: RunConfig) -> None:
    with begun(config) as learner:
        accept(learner, episodes(config))
        learner.training.step()
        path = learner.save()
    said = json.loads((path / "pretrained_model" / "train_config.json").read_text())
    assert said["policy"]["replay_memory_gb"] == 8.0
    assert said["policy"]["nstep"] == 3
    assert said["policy"]["encoder_channels"] == 4
