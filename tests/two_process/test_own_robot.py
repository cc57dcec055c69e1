"""The worked example of docs/configuration.md: a user's own gymnasium environment trains, as the page says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from locations import ROOT
from weightkit import load_policy
from weightkit_runners.children import Child

BLOCKS = re.compile(r"^```(?:python|json) (?P<name>[\w.]+)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)


def test_a_robot_by_its_gymnasium_id_trains_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in BLOCKS.finditer((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")):
        (tmp_path / block["name"]).write_text(block["text"], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = [str(ROOT), str(ROOT / "runners"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    words = ["--config_path", "reach.json"]
    with Child(
        "learner", ["weightkit_runners.learner", *words, "--bind", "127.0.0.1:0"], log_path=tmp_path / "learner.log"
    ) as learner:
        address = learner.wait_for_line("[LEARNER] Listening on ", timeout_s=90).split()[3].rstrip(",")
        with Child(
            "actor", ["weightkit_runners.actor", *words, "--learner", address], log_path=tmp_path / "actor.log"
        ) as actor:
            actor.wait_for_line("[ACTOR] episode ", timeout_s=90)
            learner.wait(timeout_s=180)
            actor.stop()
            assert actor.returncode == 0
    (metrics,) = (tmp_path / "outputs" / "reach").glob("actor-*_metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert all(row["produced"] == row["accepted"] + row["pending"] + row["dropped"] for row in rows)
    policy = load_policy(tmp_path / "outputs/reach/checkpoints/last")
    assert policy.cameras == ("top",)
    for log in ("learner.log", "actor.log"):
        assert "Traceback" not in (tmp_path / log).read_text()
