"""``weightkit inspect`` as people call it: options, exit codes, nothing heavy on the way, nothing raw on a terminal."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from locations import FIXTURES, ROOT
from weightkit.cli.main import main
from weightkit.formats import Limits

SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
SNAPSHOT = FIXTURES / "best_snapshot.pt"
ESCAPES = "\x1b[31m\x07\u202e\x9b"


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code: Any = 0
    try:
        main(["inspect", *map(str, arguments)])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def imported(*arguments: str) -> set[str]:
    """The modules of a fresh process that called ``weightkit inspect``."""
    code = (
        "import sys\nfrom weightkit.cli.main import main\n"
        "try:\n    main(['inspect', *sys.argv[1:]])\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(found.stderr.split())


@pytest.mark.parametrize("more", [[], ["--flat"], ["--json"]])
def test_without_numbers_nothing_heavy_is_imported(more: list[str]) -> None:
    heavy = {"torch", "numpy", "rich", "ml_dtypes", "xxhash", "weightkit.engine.statistics", "weightkit.verbs.convert"}
    assert not imported(str(SNAPSHOT), *more) & heavy


def test_nothing_of_pythons_own_that_takes_long_is_imported_for_a_torch_archive(tmp_path: Path) -> None:
    """Each of these takes a millisecond or more, a quarter of the whole together."""
    slow = {"argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "importlib", "json", "math"}
    slow |= {"re", "types", "typing", "warnings"}
    code = (
        "import sys\nat_first = set(sys.modules)\nfrom weightkit.cli.entry import plain_inspect\n"
        "plain_inspect(sys.argv[1], as_json=False)\nprint('\\n'.join(set(sys.modules) - at_first), file=sys.stderr)"
    )
    path = tmp_path / "a.pt"
    torch.save({"net.0.weight": torch.ones(2, 3), "net.0.bias": torch.ones(2), "step": 3}, path)
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    modules = set(found.stderr.split())
    assert "weightkit.formats.torch_zip" in modules
    assert not modules & slow


def test_with_numbers_torch_and_rich_stay_out_where_nobody_watches() -> None:
    modules = imported(str(SNAPSHOT), "--stats")
    assert "weightkit.engine.statistics" in modules
    assert not modules & {"torch", "rich"}


def test_fail_on_ends_with_1_and_names_the_tensor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    torch.save({"a.w": torch.tensor([math.nan]), "b.w": torch.ones(2)}, tmp_path / "a.pt")
    code, out, err = call(capsys, tmp_path / "a.pt", "--fail-on", "nan, inf")
    assert code == 1
    assert "WK110 error  a.w" in out
    assert err == ""
    code, out, err = call(capsys, tmp_path / "a.pt", "--fail-on", "nan", "--json")
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert (code, err) == (1, "")
    assert [f["subject"] for f in document["findings"] if f["severity"] == "error"] == ["a.w"]
    assert document["tensors"][0]["stats"]["mean"] is None
    assert call(capsys, tmp_path / "a.pt", "--fail-on", "zero")[0] == 0
    assert call(capsys, tmp_path / "a.pt", "--stats")[0] == 0


@pytest.mark.parametrize("words", ["nan,none", "", "NaN"])
def test_an_unknown_word_is_a_usage_error(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, SNAPSHOT, "--fail-on", words)
    assert code == 2
    assert "known: nan, inf, zero, constant" in err
    code, out, _ = call(capsys, SNAPSHOT, "--fail-on", words, "--json")
    assert code == json.loads(out)["exit_code"] == 2


def test_a_limit_can_be_lowered_and_raised(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, SNAPSHOT, "--limit", "tensors=10")[0] == 5
    assert call(capsys, SNAPSHOT, "--limit", "tensors=10", "--json")[0] == 5
    assert call(capsys, SNAPSHOT, "--limit", "tensors=1k", "--limit", "wall_s=0.5k", "--max-bytes", "1.5G")[0] == 0


@pytest.mark.parametrize("value", ["tensors=0", "tensors=-1", "tensors=many", "tensors", "tensors=1T", "tensors=1e3"])
def test_a_limit_that_is_no_number_is_a_usage_error(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, SNAPSHOT, "--limit", value)
    assert code == 2
    assert "tensors=NUMBER" in err


def test_an_unknown_limit_is_a_usage_error_that_lists_them_with_their_defaults(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = call(capsys, SNAPSHOT, "--limit", "tensor=1")
    assert code == 2
    assert f"tensors={Limits().tensors}" in err
    assert call(capsys, SNAPSHOT, "--max-bytes", "big")[0] == 2


def test_the_tree_is_folded_and_flat_is_one_line_a_tensor(capsys: pytest.CaptureFixture[str]) -> None:
    _, folded, _ = call(capsys, SNAPSHOT)
    assert "critic_target.qs.{0,1}" in folded
    assert "actor.actor_model" in folded
    _, flat, _ = call(capsys, SNAPSHOT, "--flat")
    _, document, _ = call(capsys, SNAPSHOT, "--json")
    for row in json.loads(document)["tensors"]:
        assert sum(line.startswith(f"{row['name']} ") for line in flat.splitlines()) == 1


@pytest.mark.parametrize("more", [[], ["--flat"], ["--stats"], ["--json"], ["--fail-on", "zero"]])
def test_names_never_reach_the_terminal_raw(
    more: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    state = {
        ESCAPES: torch.zeros(1),
        f"module.{ESCAPES}._orig_mod.w": torch.zeros(1),
        f"{ESCAPES}\n.mean": torch.zeros(1),
        f"{ESCAPES}\n.std": torch.zeros(1),
        f"long{'x' * 3000}.w": torch.zeros(1),
    }
    torch.save(state, tmp_path / "a.pt")
    _, out, err = call(capsys, tmp_path / "a.pt", *more)
    assert all(line.isprintable() for line in (out + err).split("\n"))
    # a finding names its tensors whole; everything else is cut
    assert "--json" in more or "--fail-on" in more or max(map(len, out.split("\n"))) < 1500


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_encoding_prints(encoding: str, tmp_path: Path) -> None:
    torch.save({"größe.Ω": torch.zeros(1)}, tmp_path / "a.pt")
    found = subprocess.run(
        [sys.executable, "-m", "weightkit.cli.main", "inspect", str(tmp_path / "a.pt")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    text = found.stdout.decode(encoding)
    assert ("└── größe.Ω" in text) == (encoding == "utf-8")
    assert "gr" in text


def test_a_bar_is_drawn_for_a_long_file_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(capsys, SNAPSHOT, "--stats")[2] == ""
    monkeypatch.setattr("weightkit.cli.progress._LONG_BYTES", 1000)
    code, out, err = call(capsys, SNAPSHOT, "--stats", "--json")
    assert code == 0
    assert "best_snapshot.pt" in err
    json.loads(out)
