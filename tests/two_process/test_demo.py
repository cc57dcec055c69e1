"""The demo as a person runs it, and how it ends on Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from locations import FIXTURES
from weightkit_runners.children import Child
from weightkit_runners.envs.rendering import RenderingUnavailable, choose_gl_backend

SNAPSHOT = FIXTURES / "best_snapshot.pt"


@pytest.fixture(autouse=True)
def can_draw() -> None:
    try:
        choose_gl_backend()
    except RenderingUnavailable as reason:
        pytest.skip(str(reason))


def start_demo(out: Path, *options: str) -> Child:
    arguments = ["weightkit_runners.demo", "--snapshot", str(SNAPSHOT), "--out", str(out), *options]
    return Child("demo", arguments, log_path=out.parent / "demo.log")


def processes_of(out: Path) -> list[int]:
    """Processes whose command line names the demo's output folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(out) in command and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.rendering
def test_the_demo_shows_what_it_says_and_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start_demo(out) as demo:
        demo.wait(timeout_s=280)
        shown = demo.output
    parts = [shown.index(f"=== {number}/6") for number in range(1, 7)]
    assert parts == sorted(parts)
    assert "RoboBase DrQ-v2" in shown
    assert "98 source names = 78 used + 15 second names + 5 dropped" in shown
    assert "the actor reads 2 groups; the learner sends 2" in shown
    assert "act() reads 22 tensors; the push holds 14 of them" in shown
    verification = [
        shown.index("[ACTOR] Waiting for initial parameters from Learner..."),
        shown.index("[ACTOR] Loaded encoder parameters from Learner."),
        shown.index("[ACTOR] Loaded initial parameters from Learner."),
    ]
    assert verification == sorted(verification)
    results = json.loads((out / "results.json").read_text())
    assert [len(episodes) for episodes in results.values()] == [20, 20, 20, 20]
    assert results["file run directly"] == results["actor after sync"]
    success = {name: sum(episode["success"] for episode in episodes) for name, episodes in results.items()}
    assert success["file run directly"] >= 18
    assert success["encoder withheld"] <= 4
    assert success["random actions"] <= 2
    assert (out / "success.png").read_bytes().startswith(b"\x89PNG")
    sent = [json.loads(line) for line in (out / "learner_versions.jsonl").read_text().splitlines()]
    taken = [json.loads(line) for line in (out / "train-actor_versions.jsonl").read_text().splitlines()]
    roots = {row["counter"]: row["root"] for row in sent}
    assert len(taken) >= 4
    assert all(row["root"] == roots[row["counter"]] for row in taken)
    assert processes_of(out) == []


@pytest.mark.slow
@pytest.mark.rendering
def test_ctrl_c_ends_the_demo_and_every_process_it_started(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start_demo(out, "--episodes", "2") as demo:
        demo.wait_for_output("[ACTOR] Waiting for initial parameters", timeout_s=120)
        assert len(processes_of(out)) >= 3
        os.kill(demo.pid, signal.SIGINT)
        demo.wait_ended(timeout_s=30)
        assert demo.returncode == 130
    assert processes_of(out) == []
    assert "Traceback" not in (out.parent / "demo.log").read_text()
