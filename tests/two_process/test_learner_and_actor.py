"""Learner and actor as two processes on this machine: the devlogs' usage, in either order, and its refusals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weightkit_runners.children import Child
from weightkit_runners.templates import read_template

VERIFICATION = (
    "[ACTOR] Waiting for initial parameters from Learner...",
    "[ACTOR] Loaded encoder parameters from Learner.",
    "[ACTOR] Loaded initial parameters from Learner.",
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small net in the synthetic environment, so that no simulator is needed."""
    document = read_template("hilserl_drqv2")
    document["output_dir"] = str(tmp_path / "run")
    document["batch_size"] = 8
    document["log_freq"] = 1
    document["save_freq"] = 4
    policy, env = document["policy"], document["env"]
    policy["input_features"]["observation.images"]["shape"] = [9, 24, 24]
    env["features"]["observation.images"]["shape"] = [3, 24, 24]
    policy.update(encoder_channels=4, mlp_nodes=[16], online_step_before_learning=10, online_steps=8)
    policy["actor_learner_config"].update(
        policy_parameters_push_frequency=0, queue_get_timeout=0.2, first_weights_timeout=60
    )
    env.update(name="synthetic", max_episode_steps=12, fps=50)
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(document))
    return path


def edited(config: Path, **changes: Any) -> Path:
    document = json.loads(config.read_text())
    for key, value in changes.items():
        document["policy"]["actor_learner_config"][key] = value
    config.write_text(json.dumps(document))
    return config


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which nobody listens and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def start_learner(config: Path, tmp_path: Path, *options: str) -> Child:
    arguments = ["weightkit_runners.learner", "--config_path", str(config), *options]
    return Child("learner", arguments, log_path=tmp_path / "learner.log")


def start_actor(config: Path, tmp_path: Path, *options: str, name: str = "actor") -> Child:
    arguments = ["weightkit_runners.actor", "--config_path", str(config), "--name", name, *options]
    return Child(name, arguments, log_path=tmp_path / f"{name}.log")


def address_of(learner: Child) -> str:
    line = learner.wait_for_line("[LEARNER] Listening on ", timeout_s=60)
    return line.removeprefix("[LEARNER] Listening on ").split(",")[0]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_learner_trains_on_an_actors_transitions_and_both_hold_equal_digests(config: Path, tmp_path: Path) -> None:
    with start_learner(config, tmp_path, "--bind", "127.0.0.1:0") as learner:
        with start_actor(config, tmp_path, "--learner", address_of(learner)) as actor:
            for line in VERIFICATION:
                actor.wait_for_line(line, timeout_s=60)
            learner.wait(timeout_s=120)
            actor.stop()
            assert actor.returncode == 0
    sent = {row["counter"]: row for row in rows(tmp_path / "run" / "learner_versions.jsonl")}
    got = {row["counter"]: row for row in rows(tmp_path / "run" / "actor_versions.jsonl")}
    assert len(sent) >= 8
    assert len(got) >= 2
    assert list(got) == sorted(got)
    assert all(row["root"] == sent[counter]["root"] for counter, row in got.items())
    assert len({row["root"] for row in sent.values()}) == len(sent), "real updates change the weights"
    assert max(got) == max(sent), "the last weights reach the actor before the learner ends"
    last = tmp_path / "run" / "checkpoints" / "last"
    assert last.resolve().name == "000008"
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 8
    for log in ("learner.log", "actor.log"):
        assert "Traceback" not in (tmp_path / log).read_text()


def test_an_actor_may_start_before_its_learner(config: Path, tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'learner.sock'}"
    with start_actor(config, tmp_path, "--learner", address, "--episodes", "1") as actor:
        actor.wait_for_line("[ACTOR] ...no weights from", timeout_s=60)
        with start_learner(config, tmp_path, "--bind", address, "--set", "policy.online_steps=1000000") as learner:
            address_of(learner)
            for line in VERIFICATION[1:]:
                actor.wait_for_line(line, timeout_s=60)
            actor.wait(timeout_s=60)
            assert actor.returncode == 0
            learner.stop()
            assert learner.returncode == 0


def test_an_actor_without_a_learner_waits_says_so_and_ends_with_an_error_at_its_deadline(
    config: Path, silent_port: int
) -> None:
    config = edited(config, learner_port=silent_port, first_weights_timeout=3)
    done = run("weightkit_runners.actor", "--config_path", str(config))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines.index(VERIFICATION[0]) < next(i for i, line in enumerate(lines) if "no weights from" in line)
    error = next(line for line in lines if line.startswith("error: "))
    assert f"127.0.0.1:{silent_port}" in error
    assert "3 s" in error
    assert "episode" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_clear_line(config: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("weightkit_runners.learner", "--config_path", str(config), "--bind", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "Traceback" not in done.stderr


def test_a_checkpoint_with_a_gap_stops_the_learner_and_names_it(config: Path, tmp_path: Path) -> None:
    import torch

    torch.save({"encoder.convs_per_cam.0.0.weight": torch.zeros(4, 9, 3, 3)}, tmp_path / "gap.pt")
    done = run("weightkit_runners.learner", "--config_path", str(config), "--pretrained", str(tmp_path / "gap.pt"))
    assert done.returncode != 0
    assert "Listening" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_learner_continues_from_its_own_checkpoint(config: Path, tmp_path: Path) -> None:
    from weightkit import load_policy
    from weightkit_runners.config import read_run_config
    from weightkit_runners.learner import Learner
    from weightkit_runners.pretrained import prepare_policy

    run_config = read_run_config(config)
    policy = prepare_policy(run_config, None)
    with Learner(run_config, policy, bind="127.0.0.1:0") as learner:
        saved = learner.save()
    again = prepare_policy(run_config, saved)
    assert all(
        torch_equal(a, b) for a, b in zip(policy.state_dict().values(), again.state_dict().values(), strict=True)
    )
    loaded = load_policy(saved)
    assert loaded.config == run_config.net


def torch_equal(a: Any, b: Any) -> bool:
    import torch

    return torch.equal(a, b)


@pytest.mark.parametrize("module", ["learner", "actor"])
def test_an_output_folder_that_takes_no_files_is_refused_before_anything_starts(module: str, config: Path) -> None:
    done = run(f"weightkit_runners.{module}", "--config_path", str(config), "--set", "output_dir=/dev/null/x")
    assert done.returncode == 6
    assert "/dev/null/x" in done.stderr
    assert "Listening" not in done.stderr
    assert VERIFICATION[0] not in done.stderr
    assert "Traceback" not in done.stderr


def test_an_actors_failure_is_one_json_report_too(config: Path, silent_port: int) -> None:
    config = edited(config, learner_port=silent_port, first_weights_timeout=0)
    done = run("weightkit_runners.actor", "--config_path", str(config), "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_code"], report["ok"], report["verb"]) == (1, 1, False, "actor")
    assert str(silent_port) in report["findings"][0]["message"]


def test_sigterm_ends_a_waiting_learner_with_exit_code_0(config: Path, tmp_path: Path) -> None:
    with start_learner(config, tmp_path, "--bind", "127.0.0.1:0") as learner:
        address_of(learner)
        learner.stop()
        assert learner.returncode == 0


def test_sigterm_ends_an_actor_that_waits_for_weights_with_exit_code_0(
    config: Path, tmp_path: Path, silent_port: int
) -> None:
    with start_actor(config, tmp_path, "--learner", f"127.0.0.1:{silent_port}") as actor:
        actor.wait_for_line("[ACTOR] ...no weights from", timeout_s=60)
        actor.stop()
        assert actor.returncode == 0


def test_ctrl_c_ends_a_waiting_learner_with_exit_code_130(config: Path, tmp_path: Path) -> None:
    with start_learner(config, tmp_path, "--bind", "127.0.0.1:0") as learner:
        address_of(learner)
        os.kill(learner.pid, signal.SIGINT)
        learner.wait_ended(timeout_s=30)
        assert learner.returncode == 130


def test_an_actor_starts_without_mujoco_unless_the_arm_is_used(config: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['mujoco'] = None; from weightkit_runners.actor import main; main()"
    shown = run_python(code, "--config_path", str(edited(config, first_weights_timeout=0)))
    assert VERIFICATION[0] in shown.stderr
    document = json.loads(config.read_text())
    document["env"]["name"] = "arm"
    config.write_text(json.dumps(document))
    refused = run_python(code, "--config_path", str(config))
    assert refused.returncode == 3
    assert "mujoco" in refused.stderr
    assert "pip install" in refused.stderr
    assert "Traceback" not in refused.stderr


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
