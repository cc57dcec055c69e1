"""Files of every kind of malice through the command line: nothing runs, nothing crashes, nothing hangs, all is named.

Payloads do one thing: they leave a file or a folder whose name starts with ``ran`` in the working directory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from corpus.batches import marked, read, trust
from corpus.case import LIMIT, MALFORMED, OK, UNSAFE, Case
from corpus.cases import corpus, of_kind
from corpus.reading import COMMANDS
from locations import ROOT
from weightkit.formats import open_checkpoint

SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
MOST_SECONDS = 30.0  # of CPU time: to tell work from a hang, on slow machines too
MOST_MEMORY = 400 << 20
ANSWERS = (OK, MALFORMED, UNSAFE, LIMIT)
REFUSED_OUTPUT = 6  # of convert, where the target has no place for what was read well
CASES = corpus()

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a trusting loader did with every live case."""
    return trust(of_kind("live"), tmp_path_factory.mktemp("trusted"))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What weightkit did with every case."""
    return read(CASES, tmp_path_factory.mktemp("read"))


def test_the_corpus_is_wide() -> None:
    count = Counter(case.kind for case in CASES)
    assert count["live"] >= 250
    assert count["hostile"] >= 250
    assert count["good"] >= 80


@pytest.mark.slow
@pytest.mark.parametrize("case", of_kind("live"), ids=str)
def test_a_live_payload_is_live(case: Case, trusted: dict[str, dict[str, Any]]) -> None:
    assert trusted[case.name]["ran"], trusted[case.name]["said"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_runs_crashes_or_hangs(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[case.name]
    assert answer["status"] == 0
    assert not answer["ran"]
    assert not answer["imported"]
    assert answer["rss"] < MOST_MEMORY
    for command in COMMANDS:
        got = answer[command]
        assert got["code"] in (ANSWERS if command != "convert" else (*ANSWERS, REFUSED_OUTPUT)), got["err"]
        assert got["seconds"] < MOST_SECONDS
        assert not got["events"]
        assert "Traceback" not in got["out"] + got["err"]
    assert answer["plain"]["code"] == answer["json"]["code"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_answer_is_one_document_and_fit_for_a_terminal(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[case.name]
    report = json.loads(answer["json"]["out"])
    jsonschema.validate(report, SCHEMA)
    assert report["exit_code"] == answer["json"]["code"]
    assert report["ok"] == (report["exit_code"] == OK)
    assert not answer["json"]["err"]
    for command in ("plain", "convert"):
        assert not unfit(answer[command]["out"]), unfit(answer[command]["out"])
        assert not unfit(answer[command]["err"]), unfit(answer[command]["err"])
        assert answer[command]["out"] or answer[command]["err"]


def unfit(text: str) -> list[str]:
    """The characters that would not simply stand on a terminal."""
    kinds = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return sorted({hex(ord(char)) for char in text if char != "\n" and unicodedata.category(char) in kinds})


@pytest.mark.parametrize("case", of_kind("live", "hostile"), ids=str)
def test_the_exit_code_is_what_it_should_be(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[case.name]
    assert answer["json"]["code"] in case.exits, answer["json"]["out"][:1500]
    if answer["json"]["code"] in (MALFORMED, UNSAFE):
        assert answer["convert"]["code"] == answer["json"]["code"]
    if answer["convert"]["code"] != OK:
        assert not answer["left"]


@pytest.mark.parametrize("case", of_kind("live"), ids=str)
def test_a_payload_is_named_and_nothing_is_written(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[case.name]
    report = json.loads(answer["json"]["out"])
    assert not answer["left"]
    assert answer["convert"]["code"] in (MALFORMED, UNSAFE)
    if report["exit_code"] == UNSAFE:
        said = " ".join(f"{finding['subject']} {finding['message']}" for finding in report["findings"])
        assert any(name.replace(":", ".") in said for name in case.named), said[:1000]
        assert report.get("verdict") in ("unsafe", None)


@pytest.mark.parametrize("case", of_kind("good"), ids=str)
def test_a_good_file_is_read_whole(case: Case, answers: dict[str, dict[str, Any]]) -> None:
    answer = answers[case.name]
    assert answer["json"]["code"] == OK, answer["json"]["out"][:1500]
    assert answer["convert"]["code"] in (OK, REFUSED_OUTPUT), answer["convert"]["err"]
    path: Path = answer["path"]
    found = open_checkpoint(path)
    assert found.verdict in ("data", "opaque", None)
    assert case.expected is not None
    expected = case.expected(path)
    assert set(found.state) == set(expected)
    for name, tensor in expected.items():
        kind, shape, content = bits(tensor)
        array = found.read(name)
        assert (found.state[name].dtype.name, tuple(array.shape)) == (kind, shape), name
        assert array.tobytes() == content, name
    listed = {entry["name"]: entry for entry in json.loads(answer["json"]["out"])["tensors"]}
    assert set(listed) == set(expected)


def bits(tensor: Any) -> tuple[str, tuple[int, ...], bytes]:
    """Element type, shape and bytes in this machine's order, of torch's or numpy's."""
    if isinstance(tensor, torch.Tensor):
        plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
        content = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        return str(plain.dtype).removeprefix("torch."), tuple(plain.shape), content
    array = np.asarray(tensor)
    array = array.astype(array.dtype.newbyteorder("="))
    return array.dtype.name, array.shape, array.tobytes()


PROCESSES = (
    "hidden-whole",
    "legacy-objects-reduce",
    "bare.pkl",
    "zip-crc-wrong",
    "bomb-nested-lists",
    "good-state-dict",
)


@pytest.mark.parametrize("case", [case for case in CASES if case.name in PROCESSES], ids=str)
def test_a_process_answers_as_the_batch_does(case: Case, answers: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    path = case.write(tmp_path / "file")
    words = [sys.executable, "-m", "weightkit.cli.main", "inspect", str(path), "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == answers[case.name]["json"]["code"]
    assert done.stderr == ""
    assert json.loads(done.stdout)["exit_code"] == done.returncode
    assert not marked(tmp_path)
    assert os.listdir(tmp_path) == ["file"]
