"""Pages that are typed from top to bottom: every command prints what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from locations import ROOT

DOCS = ROOT / "docs"
PAGES = ["mapping-cookbook.md", "pretrained-weights.md", "plugins.md", "is-my-sync-complete.md"]
BLOCKS = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE)
SESSION = re.compile(r"^\$ (?P<command>weightkit [^\n]+)\n(?P<shown>(?:(?!\$ )[^\n]*\n)*)", re.MULTILINE)
MEASURED = re.compile(r"-?\d+(?:\.\d+)?e[+-]?\d+|-?\d+\.\d+")
"""What a net computes: the last digits are the machine's."""
FAILS = ("REFUSED", "DIFFERENT", "FAIL")

Typed = list[tuple[str, str, str, int]]


@pytest.fixture(scope="module")
def type_page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @lru_cache
    def typed(page: str) -> Typed:
        """Command, what the page shows, what was printed, exit code, in the order of the page."""
        folder = tmp_path_factory.mktemp("typed")
        (folder / "fixtures").symlink_to(ROOT / "fixtures")
        path = os.pathsep.join([str(folder), *filter(None, sys.path)])
        env = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        found = []
        for block in BLOCKS.finditer((DOCS / page).read_text(encoding="utf-8")):
            kind, text = block["kind"], block["text"]
            if kind.startswith(("python ", "toml ")):
                file = folder / kind.split(" ", 1)[1]
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
                if file.name.startswith("make_"):
                    subprocess.run([sys.executable, file.name], cwd=folder, env=env, check=True, timeout=120)
                if file.name == "pyproject.toml":
                    install(file, folder)
            for session in SESSION.finditer(text) if not kind else ():
                run = session["command"].replace("weightkit", f"{sys.executable} -m weightkit", 1)
                done: Any = subprocess.run(
                    run, shell=True, cwd=folder, env=env, capture_output=True, timeout=120, check=False
                )
                said = [line for line in done.stderr.splitlines() if not line.endswith(b": runs your own code")]
                assert not said, done.stderr
                found.append((session["command"], session["shown"], done.stdout.decode(), done.returncode))
        return found

    return typed


def install(project: Path, folder: Path) -> None:
    """What an installer leaves of a package: its name and its entry points."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    document = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    info = folder / f"{document['name'].replace('-', '_')}-{document['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {document['name']}\nVersion: {document['version']}\n")
    lines = []
    for group, points in document["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def masked(text: str, page: str) -> str:
    """The text without the digits that a net computes; spaces of a table move with them."""
    if page == "mapping-cookbook.md":
        return text
    return re.sub(r" +", " ", MEASURED.sub("#", text))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_prints_what_the_page_shows(page: str, type_page: Any) -> None:
    typed: Typed = type_page(page)
    assert len(typed) >= 3
    for command, shown, printed, _ in typed:
        assert masked(shown, page) == masked(printed, page), command


@pytest.mark.parametrize("page", PAGES)
def test_what_is_shown_as_refused_is_refused_and_nothing_else(page: str, type_page: Any) -> None:
    typed: Typed = type_page(page)
    for command, shown, _, code in typed:
        assert code == (1 if shown.startswith(FAILS) else 0), command
    assert page == "plugins.md" or any(code for *_, code in typed)


def test_the_rules_of_the_pages_are_sound() -> None:
    from weightkit.engine.lint import lint
    from weightkit.mapping_file import parse_mapping

    texts = [(DOCS / page).read_text(encoding="utf-8") for page in PAGES]
    blocks = [block for text in texts for block in BLOCKS.finditer(text)]
    mappings = [block["text"] for block in blocks if block["kind"].startswith("toml ") and "[[rule]]" in block["text"]]
    assert len(mappings) >= 5
    for mapping in mappings:
        assert not lint(parse_mapping(mapping, origin="the page"))
