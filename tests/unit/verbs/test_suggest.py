"""suggest: a draft from files, contents read only where names leave something open, and the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file

import weightkit as wk
from locations import FIXTURES, ROOT
from weightkit.cli.main import run_command
from weightkit.cli.suggest import command
from weightkit.core.names import parse_template
from weightkit.core.report import Report
from weightkit.errors import FormatError, PlanError, UsageError
from weightkit.reporting.suggest import suggest_text
from weightkit.verbs import suggest as verb
from weightkit.verbs.suggest import suggest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
SNAPSHOT = FIXTURES / "best_snapshot.pt"
Arrays = dict[str, np.ndarray]


def net(draw: np.random.Generator) -> Arrays:
    """Two critics of one shape under a shared trunk; biases are zeros, as in a fresh net."""
    arrays: Arrays = {"critic.trunk.weight": draw.standard_normal((5, 9)).astype(np.float32)}
    for q in (0, 1):
        arrays[f"critic.qs.{q}.0.weight"] = draw.standard_normal((8, 5)).astype(np.float32)
        arrays[f"critic.qs.{q}.0.bias"] = np.zeros(8, np.float32)
        arrays[f"critic.qs.{q}.2.weight"] = draw.standard_normal((1, 8)).astype(np.float32)
    return arrays


def other_name(name: str) -> str:
    """Critics are lettered, and crossed."""
    return name.replace("qs.0", "second").replace("qs.1", "first")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    arrays = net(np.random.default_rng(0))
    save_file(arrays, tmp_path / "one.safetensors")
    save_file({other_name(name): array for name, array in arrays.items()}, tmp_path / "other.safetensors")
    return tmp_path / "one.safetensors", tmp_path / "other.safetensors"


def facts(report: Report) -> dict[str, Any]:
    jsonschema.validate(report.to_dict(), SCHEMA)
    return dict(report.facts)


def sure(report: Report) -> dict[str, str]:
    return {pair["source"]: pair["target"] for pair in facts(report)["pairs"] if pair["standing"] == "sure"}


def test_contents_tell_twins_apart_and_biases_follow_their_weights(files: tuple[Path, Path]) -> None:
    report = suggest(files[0], like=files[1])
    assert sure(report) == {name: other_name(name) for name in net(np.random.default_rng(0))}
    assert report.exit_code == 0
    assert facts(report)["counts"]["ambiguous"] == 0


def test_without_contents_twins_are_ambiguous_and_nothing_is_read(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(verb, "_digests", unwanted)
    report = suggest(files[0], like=files[1], values=False)
    assert sure(report) == {"critic.trunk.weight": "critic.trunk.weight"}
    assert {pair["source"] for pair in facts(report)["ambiguous"]} == {
        name for name in net(np.random.default_rng(0)) if "qs" in name
    }


def test_tensors_of_the_same_name_are_not_read(files: tuple[Path, Path]) -> None:
    assert facts(suggest(files[0], like=files[0]))["bytes_compared"] == {"source": 0, "target": 0}


def test_no_more_is_read_than_the_cap(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "MOST_BYTES", 100)
    assert all(size <= 100 for size in facts(suggest(files[0], like=files[1]))["bytes_compared"].values())


def test_a_recognised_snapshot_is_drafted_to_the_native_layout() -> None:
    report = suggest(SNAPSHOT, to="drqv2")
    found = facts(report)
    assert found["unmatched_target"] == []
    assert found["counts"]["sure"] + found["counts"]["ambiguous"] == found["target"]["tensors"]
    document = tomllib.loads(found["draft"])
    assert (document["source_layout"], document["target_layout"]) == ("robobase-drqv2", "drqv2")
    rules = [(parse_template(rule["source"]), parse_template(rule["target"])) for rule in document["rule"]]
    for name, target in sure(report).items():
        given = [goal.fill(bound, {}) for here, goal in rules if (bound := here.match(name, {})) is not None]
        assert given == [target]


def test_one_target_must_be_named() -> None:
    for wanted in ({}, {"to": "drqv2", "like": SNAPSHOT}):
        with pytest.raises(UsageError, match="one target"):
            suggest(SNAPSHOT, **wanted)  # type: ignore[arg-type]
    assert suggest(SNAPSHOT, to="robobase-drqv2").facts["unmatched_target"] == []
    with pytest.raises(UsageError, match="no layout"):
        suggest(SNAPSHOT, to="drqv3")
    with pytest.raises(FormatError):
        suggest(FIXTURES / "README.md", to="drqv2")


def test_nothing_in_common_ends_with_1(tmp_path: Path) -> None:
    save_file({"a.weight": np.ones((3, 4), np.float32)}, tmp_path / "a.safetensors")
    save_file({"b.steps": np.ones((2, 2, 2), np.int64)}, tmp_path / "b.safetensors")
    report = suggest(tmp_path / "a.safetensors", like=tmp_path / "b.safetensors")
    assert report.exit_code == 1
    assert {finding.code for finding in report.findings} == {"WK201", "WK202"}


def test_the_text_answers_first_and_shows_the_worst_first(files: tuple[Path, Path]) -> None:
    text = suggest_text(suggest(files[0], like=files[1], values=False))
    lines = text.splitlines()
    assert lines[0] == "SUGGESTED 1 of 7 tensors (>= 0.9), 0 less sure, 6 ambiguous, 0 without a partner"
    rows = [line for line in lines if "critic." in line]
    assert [row.split()[0] for row in rows[:6]] == ["ambiguous"] * 6


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code: Any = 0
    try:
        run_command(command, "weightkit suggest", [str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_without_out_the_draft_goes_to_stdout_and_the_summary_to_stderr(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, files[0], "--like", files[1])
    assert code == 0
    assert tomllib.loads(out)["rule"]
    assert err.startswith("SUGGESTED 7 of 7")


def test_with_out_the_draft_is_written_and_the_summary_printed(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = tmp_path / "draft.toml"
    code, out, err = call(capsys, files[0], "--like", files[1], "-o", draft)
    assert (code, err) == (0, "")
    assert out.startswith("SUGGESTED 7 of 7")
    assert tomllib.loads(draft.read_text(encoding="utf-8"))["target_layout"] == "other"
    code, _, err = call(capsys, files[0], "--like", files[1], "-o", draft)
    assert code == 6
    assert "draft.toml" in err


def test_json_prints_the_report(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, files[0], "--like", files[1], "--json")
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert (code, document["verb"], document["counts"]["sure"]) == (0, "suggest", 7)
    code, out, _ = call(capsys, files[0], "--json")
    assert code == 2
    assert json.loads(out)["ok"] is False


def test_a_draft_that_is_decided_converts_as_the_shipped_mapping_does(tmp_path: Path) -> None:
    report = suggest(SNAPSHOT, to="drqv2")
    draft = tmp_path / "draft.toml"
    draft.write_text(str(report.facts["draft"]), encoding="utf-8")
    assert wk.lint(draft).ok
    with pytest.raises(PlanError) as refused:  # what has no partner is not passed over
        wk.convert(SNAPSHOT, to="drqv2", map=draft, out=tmp_path / "drafted.safetensors")
    assert all(finding.subject.endswith("hidden_state") for finding in refused.value.report.errors())
    wk.convert(SNAPSHOT, to="drqv2", map=draft, drop=["*hidden_state"], out=tmp_path / "drafted.safetensors")
    wk.convert(SNAPSHOT, to="drqv2", out=tmp_path / "shipped.safetensors")
    assert wk.diff(tmp_path / "drafted.safetensors", tmp_path / "shipped.safetensors", values=True).ok
