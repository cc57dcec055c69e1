"""``weightkit diff`` as people call it: exit codes, JSON, nothing heavy on the way, nothing raw on a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from locations import FIXTURES, ROOT
from weightkit.cli.main import main

SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
SNAPSHOT = FIXTURES / "best_snapshot.pt"
ESCAPES = "\x1b[31m\x07\u202e\x9b"


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code: Any = 0
    try:
        main(["diff", *map(str, arguments)])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    one = {"encoder.w": torch.arange(4.0), "actor.w": torch.ones(2), "old.w": torch.tensor([5.0])}
    other = {"encoder.w": torch.arange(4.0) + 1, "actor.w": torch.ones(2), "new.w": torch.tensor([5.0])}
    torch.save(one, tmp_path / "a.pt")
    torch.save(other, tmp_path / "b.pt")
    return tmp_path / "a.pt", tmp_path / "b.pt"


def test_equal_ends_with_0_and_different_with_1(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--values"], ["--flat"], ["--values", "--flat"], ["--json"], ["--values", "--json"]):
        code, out, err = call(capsys, SNAPSHOT, SNAPSHOT, *more)
        assert (code, err) == (0, "")
        assert "--json" in more or out.startswith("EQUAL")
        code, out, err = call(capsys, *pair, *more)
        assert (code, err) == (1, "")
        assert "--json" in more or out.startswith("DIFFERENT")
        if "--json" in more:
            document = json.loads(out)
            jsonschema.validate(document, SCHEMA)
            assert document["values_compared"] == ("--values" in more)


def test_with_values_the_difference_and_the_rename_are_shown(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = call(capsys, *pair, "--values")
    lines = out.splitlines()
    assert lines[0] == "DIFFERENT  1 of 2 names of both differs, 1 renamed; values compared"
    assert "  old.w                              ->  new.w" in lines
    assert any(line.split() == ["encoder.w", "4", "of", "4", "1", "0.975900"] for line in lines)


@pytest.mark.parametrize(("index", "bad"), [(0, "missing.pt"), (1, "missing.pt"), (0, "text"), (1, "text")])
def test_a_file_that_cannot_be_read_ends_with_3(
    index: int, bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no weights")
    files = [SNAPSHOT, SNAPSHOT]
    files[index] = tmp_path / bad
    assert call(capsys, *files)[0] == 3
    code, out, _ = call(capsys, *files, "--json")
    jsonschema.validate(json.loads(out), SCHEMA)
    assert code == 3


def test_limits_are_heard(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, SNAPSHOT, SNAPSHOT, "--limit", "tensors=10")[0] == 5
    assert call(capsys, SNAPSHOT, SNAPSHOT, "--limit", "tensor=10")[0] == 2


@pytest.mark.parametrize("more", [[], ["--values"], ["--flat"], ["--json"]])
def test_names_never_reach_the_terminal_raw(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = {f"a.{ESCAPES}": torch.zeros(2), f"{ESCAPES}.b": torch.zeros(3), "c\n": torch.ones(1)}
    other = {f"a.{ESCAPES}": torch.ones(2), f"{ESCAPES}.c": torch.zeros(3), "c\n": torch.ones(2)}
    torch.save(one, tmp_path / "a.pt")
    torch.save(other, tmp_path / "b.pt")
    code, out, err = call(capsys, tmp_path / "a.pt", tmp_path / "b.pt", *more)
    assert code == 1
    assert all(line.isprintable() for line in (out + err).split("\n"))


@pytest.mark.parametrize(("more", "heavy"), [([], {"torch", "numpy", "rich"}), (["--values"], {"torch", "rich"})])
def test_nothing_heavy_is_imported(more: list[str], heavy: set[str]) -> None:
    code = (
        "import sys\nfrom weightkit.cli.main import main\n"
        "try:\n    main(['diff', *sys.argv[1:]])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(SNAPSHOT), str(SNAPSHOT), *more]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not set(found.stderr.split()) & heavy
