"""Learner and actor in one process: what is sent, with which version, and what is refused."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from weightkit.core.version import WeightVersion
from weightkit.errors import ConfigError, StaleWeights
from weightkit.sync.staleness import Freshness, OnStale
from weightkit_runners.actor import Actor
from weightkit_runners.collecting import Collector
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.environment import RunEnv, make_run_env
from weightkit_runners.experience import BatchRefused, ExperienceBatch
from weightkit_runners.exploring import explorer
from weightkit_runners.learner import Learner
from weightkit_runners.pretrained import prepare_policy
from weightkit_runners.templates import read_template
from weightkit_runners.transitions import make_transition, transition_spec

STEPS = 23
PATIENCE_S = 30.0


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    document = read_template("hilserl_drqv2")
    document["output_dir"] = str(tmp_path / "run")
    document["batch_size"] = 4
    policy, env = document["policy"], document["env"]
    policy["input_features"]["observation.images"]["shape"] = [9, 24, 24]
    env["features"]["observation.images"]["shape"] = [3, 24, 24]
    policy.update(encoder_channels=4, mlp_nodes=[16], online_step_before_learning=4)
    env.update(name="synthetic", max_episode_steps=STEPS, fps=0)
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(document))
    return read_run_config(path)


@pytest.fixture
def learner(config: RunConfig) -> Iterator[Learner]:
    with Learner(config, prepare_policy(config, None), bind="127.0.0.1:0") as learner:
        learner.push()
        yield learner


class Recorder:
    """Takes what an actor sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[WeightVersion, list[dict[str, Any]]]] = []

    def send(self, transitions: list[dict[str, Any]], version: WeightVersion) -> int:
        self.sent.append((version, list(transitions)))
        return len(self.sent)


class Watched:
    """A run's environment that calls ``before_step(number)`` before every step."""

    def __init__(self, env: RunEnv, before_step: Any) -> None:
        self._env = env
        self._before_step = before_step
        self._steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def step(self, action: Any) -> Any:
        self._before_step(self._steps)
        self._steps += 1
        return self._env.step(action)


def make_actor(config: RunConfig, learner: Learner, before_step: Any) -> Actor:
    actor = Actor(
        config,
        address=learner.address,
        name="a",
        make_env=lambda c: Watched(make_run_env(c), before_step),  # type: ignore[arg-type, return-value]
    )
    try:
        assert actor.weights.wait(threading.Event(), timeout_s=PATIENCE_S)
    except BaseException:
        actor.close()
        raise
    return actor


def one_episode(actor: Actor, recorder: Recorder, stop: threading.Event) -> None:
    explore = explorer(actor.policy, actor.config)
    Collector(actor.config, actor.env, explore, actor.weights.current, recorder).episode(0, 0, stop)  # type: ignore[arg-type]


def moved(learner: Learner) -> int:
    return learner.intake.move(learner.training, wait_s=PATIENCE_S)


def await_received(actor: Actor, count: int) -> None:
    """Until the actor's background thread has verified ``count`` versions."""
    tick, waited = threading.Event(), 0.0
    while int(str(actor.subscriber.status()["received"])) < count:
        assert waited < PATIENCE_S
        tick.wait(0.005)
        waited += 0.005


def test_every_transition_carries_the_version_it_was_acted_with(config: RunConfig, learner: Learner) -> None:
    acted: list[int] = []
    pushed = [1]

    def before_step(number: int) -> None:
        version = actor.subscriber.version
        assert version is not None
        acted.append(version.counter)
        if number in (0, 3, 12, 13):
            learner.push()
            pushed[0] += 1
            await_received(actor, pushed[0])

    actor = make_actor(config, learner, before_step)
    with actor:
        recorder = Recorder()
        one_episode(actor, recorder, threading.Event())
    stamped = [version.counter for version, batch in recorder.sent for _ in batch]
    assert acted == [1, *[2] * 3, *[3] * 9, 4, *[5] * 9]
    assert stamped == acted


def test_no_transition_is_lost_when_an_episode_is_stopped_in_the_middle(config: RunConfig, learner: Learner) -> None:
    stop = threading.Event()

    def before_step(number: int) -> None:
        if number == 6:
            stop.set()

    with make_actor(config, learner, before_step) as actor:
        recorder = Recorder()
        one_episode(actor, recorder, stop)
    assert sum(len(batch) for _, batch in recorder.sent) == 7


def test_what_an_actor_sends_is_what_the_learner_expects(config: RunConfig, learner: Learner) -> None:
    with make_actor(config, learner, lambda number: None) as actor:
        actor.collect(0, threading.Event(), episodes=1)
    training = learner.training
    while training.env_step < STEPS:
        assert moved(learner) > 0
    assert learner.intake.status()["refused"] == 0
    assert training.replay.counts().online == STEPS
    (batch,) = training.replay.batches(0)
    assert batch["observation.images"].shape == (4, 9, 24, 24)
    assert batch["discount"].min() > 0, "an episode that is cut short goes on in the value"
    before = {name: value.clone() for name, value in training.policy.state_dict().items()}
    assert np.isfinite(list(training.step().values())).all()
    assert any(not value.equal(before[name]) for name, value in training.policy.state_dict().items())


@pytest.mark.parametrize("key", ["action", "observation.state", "next.observation.images", "reward"])
def test_transitions_of_another_configuration_are_refused_and_training_goes_on(
    key: str, config: RunConfig, learner: Learner
) -> None:
    frame = {name: np.zeros(shape, dtype) for name, (dtype, shape) in transition_spec(config).frame.items()}
    good = [make_transition(frame, np.zeros(4), 0.0, frame, episode=0, step=n, terminated=False) for n in range(4)]
    version = WeightVersion("r", 1, 0)
    bad = {**good[0], key: np.zeros((5, 7), np.float32)}
    missing = {name: value for name, value in good[0].items() if name != key}
    for transition in (bad, missing):
        with pytest.raises(BatchRefused, match=key):
            learner.intake._check(ExperienceBatch("rogue", 1, version, (transition,)))
    learner.intake._check(ExperienceBatch("a", 1, version, tuple(good)))
    learner.intake._accept(ExperienceBatch("a", 1, version, tuple(good)))
    assert moved(learner) == 4
    learner.training.step()


def test_a_learner_that_withholds_the_encoder_does_not_start(config: RunConfig) -> None:
    from weightkit import Group, Transfer, UncoveredRead

    groups = tuple(
        Group(group.name, Transfer.HOLD if group.name == "encoder" else group.transfer, "the devlog's fault")
        for group in config.architecture.groups(config.net)
    )
    with pytest.raises(UncoveredRead) as refused:
        Learner(config, prepare_policy(config, None), bind="127.0.0.1:0", groups=groups)
    assert all(name.startswith("encoder.") for name in refused.value.names)
    assert len(refused.value.names) == 8


# ---- weights that are too old


def acting(config: RunConfig, learner: Learner, on_stale: OnStale) -> tuple[Actor, list[int]]:
    """An actor to which any weights are too old, and the steps that it takes."""
    steps: list[int] = []
    actor = Actor(
        config,
        address=learner.address,
        name="a",
        freshness=Freshness(max_age_s=1e-9, on_stale=on_stale),
        make_env=lambda c: Watched(make_run_env(c), steps.append),  # type: ignore[arg-type, return-value]
    )
    return actor, steps


def test_an_actor_that_is_to_stop_ends_before_it_moves_on_stale_weights(config: RunConfig, learner: Learner) -> None:
    actor, steps = acting(config, learner, "stop")
    with actor:
        assert actor.weights.wait(threading.Event(), timeout_s=PATIENCE_S)
        with pytest.raises(StaleWeights, match="published"):
            actor.collect(0, threading.Event(), episodes=1)
    assert steps == []


def test_an_actor_that_is_to_hold_does_not_move_until_it_is_stopped(config: RunConfig, learner: Learner) -> None:
    actor, steps = acting(config, learner, "hold")
    stop, asked = threading.Event(), threading.Event()
    with actor:
        assert actor.weights.wait(threading.Event(), timeout_s=PATIENCE_S)
        may_act = actor.weights._guard.may_act

        def counted(age_s: float, lag: int) -> bool:
            asked.set()
            return may_act(age_s, lag)

        actor.weights._guard.may_act = counted  # type: ignore[method-assign]
        thread = threading.Thread(target=lambda: actor.collect(0, stop, episodes=1))
        thread.start()
        assert asked.wait(PATIENCE_S)
        stop.set()
        thread.join(PATIENCE_S)
    assert steps == []


def test_an_actor_that_is_to_warn_acts_on_and_says_so(
    config: RunConfig, learner: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    actor, steps = acting(config, learner, "warn")
    with actor:
        assert actor.weights.wait(threading.Event(), timeout_s=PATIENCE_S)
        actor.collect(0, threading.Event(), episodes=1)
    assert len(steps) == STEPS
    assert sum("the weights are stale" in record.getMessage() for record in caplog.records) == 1


def test_what_became_of_an_actors_transitions_is_on_disk_on_both_sides(config: RunConfig, learner: Learner) -> None:
    actor = make_actor(config, learner, lambda number: None)
    with actor:
        actor.collect(0, threading.Event(), episodes=2)
    rows = [json.loads(line) for line in (config.output_dir / "a_metrics.jsonl").read_text().splitlines()]
    assert [row.get("steps") for row in rows] == [STEPS, STEPS, None]
    assert all(row["produced"] == row["accepted"] + row["pending"] + row["dropped"] for row in rows)
    assert (rows[-1]["produced"], rows[-1]["accepted"], rows[-1]["dropped_by"]) == (2 * STEPS, 2 * STEPS, {})
    learner.push()
    last = json.loads((config.output_dir / "sync.jsonl").read_text().splitlines()[-1])
    assert last["experience"]["accepted"] == 2 * STEPS
    assert (last["counter"], last["refused_versions"]) == (2, 0)


def test_a_run_that_cannot_measure_as_it_was_told_leaves_nothing_open(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    asked = replace(config, tensorboard=True)
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match="not installed"):
        Learner(asked, prepare_policy(asked, None), bind="127.0.0.1:0")
    with pytest.raises(ConfigError, match="not installed"):
        Actor(asked, address="127.0.0.1:1", name="a")
    assert not set(threading.enumerate()) - before
    with Learner(config, prepare_policy(config, None), bind="127.0.0.1:0") as learner:  # the journal is nobody's
        assert learner.push().counter == 1


# ---- what waits for training


def waiting(number: int, megabytes: int) -> ExperienceBatch:
    return ExperienceBatch("a", number, WeightVersion("r", 1, 0), ({"x": np.zeros(megabytes << 20, np.uint8)},))


def test_what_waits_for_training_is_bounded_by_bytes_and_keeps_its_order(learner: Learner) -> None:
    queue = learner.intake._waiting
    taken = [queue.put(waiting(number, 30), 0.0) for number in range(4)]
    assert taken == [True, True, False, False]
    assert [batch.seq for batch in (queue.take(0.0), queue.take(0.0)) if batch] == [0, 1]
    assert queue.take(0.0) is None
    assert queue.put(waiting(9, 100), 0.0), "one that is larger than all room is taken alone"
    assert not queue.put(waiting(10, 1), 0.0)


def test_an_actor_whose_batch_waits_is_let_go_when_the_learner_closes(learner: Learner) -> None:
    from weightkit_runners.experience import SinkClosed

    assert learner.intake._waiting.put(waiting(1, 100), 0.0)
    ended: list[bool] = []

    def accept() -> None:
        try:
            learner.intake._accept(waiting(2, 1))
        except SinkClosed:
            ended.append(True)

    thread = threading.Thread(target=accept)
    thread.start()
    learner.intake.stop()
    thread.join(PATIENCE_S)
    assert ended == [True]
