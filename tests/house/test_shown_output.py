"""What README and cookbook show of inspect and diff is what the program prints; ``...`` stands for lines left out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from locations import ROOT

PAGES = ("README.md", "docs/cookbook.md")
COMMANDS = re.compile(r"^```\n\$ (weightkit (?:inspect|diff) [^\n]+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHOWN = [
    pytest.param(command, output, id=f"{page}: {command}")
    for page in PAGES
    for command, output in COMMANDS.findall((ROOT / page).read_text(encoding="utf-8"))
]


class Payload:
    """Pickled as a call of os.system."""

    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader of the pages would type: the fixture, and the files that the cookbook makes."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "fixtures").mkdir()
    shutil.copy(ROOT / "fixtures" / "best_snapshot.pt", folder / "fixtures")
    page = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
    script = re.search(r"^```python make_later.py\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert script is not None
    subprocess.run([sys.executable, "-c", script[1]], cwd=folder, check=True, timeout=120)
    torch.save({"w": torch.zeros(3), "x": Payload()}, folder / "suspect.pt")
    return folder


def appears(shown: str, printed: str) -> bool:
    """Whether the shown lines are the printed ones; between two pieces that ``...`` parts, any lines may be missing."""
    first, *others = [piece.splitlines() for piece in re.split(r"^\.\.\.$\n?", shown, flags=re.MULTILINE)]
    lines = printed.splitlines()
    if not others:
        return first == lines
    if first != lines[: len(first)]:
        return False
    rest = lines[len(first) :]
    for piece in others:
        at = next((at for at in range(len(rest) + 1) if rest[at : at + len(piece)] == piece), None)
        if at is None:
            return False
        rest = rest[at + len(piece) :]
    return True


@pytest.mark.parametrize(("command", "output"), SHOWN)
def test_what_a_page_shows_is_what_is_printed(command: str, output: str, folder: Path) -> None:
    run = command.replace("weightkit", f"{sys.executable} -m weightkit", 1)
    utf8 = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(run, shell=True, cwd=folder, env=utf8, capture_output=True, timeout=120, check=False)
    printed = done.stdout.decode()
    assert appears(output, printed), printed
    assert not done.stderr
    assert not (folder / "ran").exists()


def test_every_page_shows_something() -> None:
    assert {param.id.split(":")[0] for param in SHOWN if param.id} == set(PAGES)


@pytest.mark.parametrize("shown", ["a\nb\n", "b\n...\n", "a\n...\nc\nb\n...\n", "a\n...\nd\n"])
def test_the_comparison_sees_another_output(shown: str) -> None:
    assert appears("a\n...\nc\n", "a\nb\nc\n")
    assert appears("a\n...\n", "a\nb\nc\n")
    assert not appears(shown, "a\nb\nc\n")
