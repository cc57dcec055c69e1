"""Plugins of other packages: what does not load or fails is named, and everything else goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from locations import ROOT

LAYOUT = """
import sys
from weightkit.architectures.drqv2.layouts.robobase_drqv2 import RoboBaseDrQV2


class Mine(RoboBaseDrQV2):
    name = "mine"
    title = "Mine"

    def recognise(self, checkpoint, settings):
        return None


{code}
"""
BROKEN = {
    "an import that fails": ("import nothing_like_this", ""),
    "an import that exits": ("sys.exit(3)", ""),
    "no layout": ("LAYOUT = 5", ""),
    "a layout without options": ("Mine.options = None\nLAYOUT = Mine()", ""),
    "a layout without title": ("Mine.title = None\nLAYOUT = Mine()", ""),
    "another name": ("Mine.name = 'other'\nLAYOUT = Mine()", ""),
    "an unknown architecture": ("Mine.architecture = 'nothing'\nLAYOUT = Mine()", ""),
    "a recogniser that raises": (
        "def r(self, c, s): raise RuntimeError('no')\nMine.recognise = r\nLAYOUT = Mine()",
        "x",
    ),
    "a recogniser that exits": ("def r(self, c, s): sys.exit(3)\nMine.recognise = r\nLAYOUT = Mine()", "x"),
    "a recogniser that gives nonsense": ("Mine.recognise = lambda self, c, s: 'x'\nLAYOUT = Mine()", "x"),
}


def installed(
    folder: Path, code: str, *, group: str = "weightkit.layouts", point: str = "mine = bad_plugin:LAYOUT"
) -> Any:
    """The environment of a process in which such a package is installed."""
    (folder / "bad_plugin.py").write_text(LAYOUT.format(code=code))
    info = folder / "bad_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{point}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, sys.path)])}


def weightkit(env: Any, *words: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "weightkit", *words, "--json"], env=env, capture_output=True, timeout=120, check=False
    )
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("what", BROKEN)
def test_a_plugin_that_is_broken_is_named_and_everything_else_goes_on(what: str, tmp_path: Path) -> None:
    import numpy as np

    code, recogniser = BROKEN[what]
    env = installed(tmp_path, code)
    np.savez(tmp_path / "unknown.npz", a=np.zeros(3))
    assert weightkit(env, "inspect", str(tmp_path / "unknown.npz"))[0] == 0
    exit_code, report = weightkit(env, "layouts")
    assert exit_code == 0
    named = [finding for finding in report["findings"] if finding["code"] == "WK117"]
    assert bool(named) is not bool(recogniser)  # a recogniser is only asked about a file
    assert all("bad-plugin" in finding["message"] for finding in named)
    assert {row["name"] for row in report["layouts"]} >= {"drqv2", "sac"}


def test_what_is_built_in_cannot_be_replaced(tmp_path: Path) -> None:
    env = installed(tmp_path, "LAYOUT = Mine()", point="robobase-drqv2 = bad_plugin:LAYOUT")
    _, report = weightkit(env, "layouts")
    row = next(row for row in report["layouts"] if row["name"] == "robobase-drqv2")
    assert row["from"] == "weightkit"
    assert "cannot be replaced" in report["findings"][0]["message"]
    exit_code, report = weightkit(env, "inspect", str(ROOT / "fixtures" / "best_snapshot.pt"))
    assert (exit_code, report["architecture"]["title"]) == (0, "RoboBase DrQ-v2")


def test_an_architecture_that_does_not_import_is_named(tmp_path: Path) -> None:
    env = installed(tmp_path, "", group="weightkit.architectures", point="mynet = bad_plugin.nothing")
    exit_code, report = weightkit(env, "layouts")
    assert exit_code == 0
    assert [finding["code"] for finding in report["findings"]] == ["WK117"]
