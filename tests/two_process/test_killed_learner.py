"""A learner that is killed at any moment and resumed: nothing random, nothing older, nothing lost."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from test_learner_and_actor import config as config
from test_learner_and_actor import rows, start_actor, start_learner

from weightkit import load_policy
from weightkit.arena import Arena
from weightkit.digest import root_digest
from weightkit.sync.grouping import make_manifest
from weightkit.torch_state import named_tensors
from weightkit_runners.children import Child
from weightkit_runners.experience.journal import ExperienceJournal

KILLS = 20


@pytest.fixture
def long_run(config: Path) -> Path:
    """A checkpoint every other update, without an end."""
    document = json.loads(config.read_text())
    document["save_freq"] = 2
    document["policy"].update(online_steps=1_000_000, online_buffer_capacity=5000)
    document["policy"]["actor_learner_config"]["policy_parameters_push_frequency"] = 0.05
    config.write_text(json.dumps(document))
    return config


def killed(learner: Child, after_s: float) -> None:
    """SIGKILL it some time after it has begun to serve, wherever it is then."""
    learner.wait_for_line("[LEARNER] Published weights", timeout_s=90)
    threading.Event().wait(after_s)
    os.kill(learner.pid, signal.SIGKILL)
    learner.wait_ended(timeout_s=30)
    assert learner.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_no_actor_takes_anything_older(long_run: Path, tmp_path: Path) -> None:
    address, run = f"unix:{tmp_path / 'l.sock'}", tmp_path / "run"
    moments = random.Random(8)
    steps: list[int] = []
    with start_actor(long_run, tmp_path, "--learner", address) as actor:
        with start_learner(long_run, tmp_path, "--bind", address) as learner:
            learner.wait_for_line("[LEARNER] Saved", timeout_s=120)
            os.kill(learner.pid, signal.SIGKILL)
            learner.wait_ended(timeout_s=30)
        for _ in range(KILLS):
            with start_learner(long_run, tmp_path, "--bind", address, "--resume", str(run)) as learner:
                line = learner.wait_for_line("[LEARNER] Going on from ", timeout_s=90)
                steps.append(int(line.rsplit(" ", 2)[1]))
                killed(learner, moments.uniform(0.0, 1.5))
        with start_learner(long_run, tmp_path, "--bind", address, "--resume", str(run)) as learner:
            learner.wait_for_line("[LEARNER] step ", timeout_s=90)
            actor.stop()
            assert actor.returncode == 0
            learner.stop()
            assert learner.returncode == 0
    log = (tmp_path / "actor.log").read_text()
    assert "Traceback" not in log
    assert steps == sorted(steps), "no resume went further back than the one before it"
    assert steps[-1] > steps[0]
    _check_versions(run)
    _check_transitions(run)
    _check_not_random(run)


def _check_versions(run: Path) -> None:
    """One run, numbers that only grow on either side, and what the actor took is what was published under it."""
    sent = rows(run / "learner_versions.jsonl")
    got = rows(run / "actor_versions.jsonl")
    assert len({row["run_id"] for row in (*sent, *got)}) == 1
    for each in (sent, got):
        numbers = [row["counter"] for row in each]
        assert all(one < other for one, other in pairwise(numbers))
    roots = {row["counter"]: row["root"] for row in sent}
    known = [row for row in got if row["counter"] in roots]  # a kill may come between publishing and writing it down
    assert len(known) >= len(got) - KILLS - 1
    assert all(row["root"] == roots[row["counter"]] for row in known)


def _check_transitions(run: Path) -> None:
    """Everything that the actor was told is safe stands in the journal once, and comes back as it was."""
    closed = rows(run / "actor_metrics.jsonl")[-1]
    assert closed["produced"] == closed["accepted"] + closed["pending"] + closed["dropped"]
    with ExperienceJournal(run / "experience", capacity_bytes=1 << 30) as journal:
        batches = [kept.decode() for kept in journal.read()]
    transitions = [t for batch in batches for t in batch.transitions]
    assert len(transitions) == closed["accepted"] > 0
    places = [(int(t["episode"]), int(t["step"])) for t in transitions]
    assert places == sorted(set(places)), "in order, none twice"


def _check_not_random(run: Path) -> None:
    """What was published at a step of which there is a checkpoint are the checkpoint's weights, bit for bit: also the
    first that a resumed learner publishes.
    """
    saved = {int(p.name): p for p in (run / "checkpoints").iterdir() if not p.is_symlink()}
    published = [row for row in rows(run / "learner_versions.jsonl") if row["learner_step"] in saved]
    assert len({row["learner_step"] for row in published}) > KILLS // 4
    roots: dict[int, str] = {}
    for row in published:
        step = row["learner_step"]
        if step not in roots:
            roots[step] = root_of(saved[step])
        assert row["root"] == roots[step], f"at step {step}"


def root_of(checkpoint: Path) -> str:
    """The root digest of what is sent of a checkpoint's policy."""
    policy = load_policy(checkpoint)
    groups = {"encoder": "send", "actor": "send", "critic": ("hold", "x"), "critic_target": ("hold", "x")}
    arena = Arena(make_manifest(policy, groups))
    return root_digest(arena.pack(dict(named_tensors(policy))).digests)
