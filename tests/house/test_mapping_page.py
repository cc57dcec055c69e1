"""The mapping cookbook, typed from top to bottom: every command prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from locations import ROOT

PAGE = ROOT / "docs" / "mapping-cookbook.md"
BLOCKS = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
SESSION = re.compile(r"^\$ (?P<command>weightkit [^\n]+)\n(?P<shown>(?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str, str, int]]:
    """Command, what the page shows, what was printed, exit code, in the order of the page."""
    folder = tmp_path_factory.mktemp("typed")
    env = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": os.pathsep.join(sys.path)}
    found = []
    for block in BLOCKS.finditer(PAGE.read_text(encoding="utf-8")):
        kind, text = block["kind"], block["text"]
        if kind.startswith("python "):
            subprocess.run([sys.executable, "-c", text], cwd=folder, check=True, timeout=120)
        elif kind.startswith("toml "):
            (folder / kind.removeprefix("toml ")).write_text(text, encoding="utf-8")
        for session in SESSION.finditer(text) if not kind else ():
            run = session["command"].replace("weightkit", f"{sys.executable} -m weightkit", 1)
            done: Any = subprocess.run(
                run, shell=True, cwd=folder, env=env, capture_output=True, timeout=120, check=False
            )
            assert not done.stderr, done.stderr
            found.append((session["command"], session["shown"], done.stdout.decode(), done.returncode))
    return found


def test_every_command_prints_what_the_page_shows(typed: list[tuple[str, str, str, int]]) -> None:
    assert len(typed) > 10
    for command, shown, printed, _ in typed:
        assert shown == printed, command


def test_what_is_shown_as_refused_is_refused_and_nothing_else(typed: list[tuple[str, str, str, int]]) -> None:
    for command, shown, _, code in typed:
        assert code == (1 if shown.startswith(("REFUSED", "DIFFERENT")) else 0), command
    assert sum(code for *_, code in typed) >= 4


def test_the_rules_of_the_page_are_sound() -> None:
    from weightkit.engine.lint import lint
    from weightkit.mapping_file import parse_mapping

    text = PAGE.read_text(encoding="utf-8")
    mappings = [block["text"] for block in BLOCKS.finditer(text) if block["kind"].startswith("toml ")]
    assert len(mappings) >= 4
    for mapping in mappings:
        assert not lint(parse_mapping(mapping, origin="the page"))
