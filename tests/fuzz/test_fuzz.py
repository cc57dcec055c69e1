"""Mutants of every format end in one of the documented ways, and what once did not is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from fuzz.guided import dictionary, inputs
from fuzz.judge import Room, Violation, judge
from fuzz.kept import KEPT, Kept
from fuzz.mutate import mutant
from fuzz.seeds import Sample, samples
from weightkit.errors import FormatError
from weightkit.formats import FORMATS, open_checkpoint

MUTANTS = 20_000
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A room for the judge."""
    (tmp_path / "room").mkdir()
    return Room(tmp_path / "room", tmp_path / "printed")


def judged(sample: Sample, folder: Path, room: Room) -> str:
    """How the sample ends."""
    (folder / "at").mkdir()
    path = sample.write(folder / "at")
    with room.entered():
        return judge(path, room, thorough=True).outcome


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_the_good_files_are_opened_as_what_they_are(sample: Sample, tmp_path: Path, room: Room) -> None:
    outcome = judged(sample, tmp_path, room)
    assert outcome.startswith("opened")
    assert outcome.endswith("4" if sample.name == "torch-payload" else "0")


def test_every_format_is_among_the_good_files() -> None:
    assert {sample.format for sample in samples()} == set(FORMATS)


def test_a_number_gives_the_same_mutant_each_time() -> None:
    assert [mutant(number) for number in range(300)] == [mutant(number) for number in range(300)]
    assert len({repr((mutant(number).content, mutant(number).members)) for number in range(300)}) > 280


@pytest.mark.timeout(600)
def test_mutants_end_as_documented(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "fuzz.campaign", "--mutants", str(MUTANTS), "--guided", "0", "--jobs", "2"]
    words += ["--every", "100", "--kept", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["mutants"]
    assert found["violations"] == {}
    assert found["mutants"] == MUTANTS
    ends: dict[str, set[str]] = defaultdict(set)
    for key in found["outcomes"]:
        format, outcome = key.split("|")
        ends[format].add(outcome.split()[0])
    assert ends.keys() == set(FORMATS)
    for format, outcomes in ends.items():
        assert {"opened", "CorruptFile"} <= outcomes, format


@pytest.mark.parametrize("case", KEPT, ids=lambda case: case.name)
def test_what_was_found_stays_mended(case: Kept, tmp_path: Path, room: Room) -> None:
    sample = case.sample()
    assert judged(sample, tmp_path, room) in case.ends


@pytest.mark.parametrize("depth", [60, 300, 600, 900, 960, 3000, 100_000])
def test_how_deep_json_may_nest_does_not_hang_on_how_deep_the_caller_stands(depth: int, tmp_path: Path) -> None:
    """Near the interpreter's own limit one opening of a file said something else than the next."""
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {}, "metadata": {"x": ' + "[" * depth + "]" * depth + "}}", encoding="ascii")

    def said(deeper: int) -> str:
        if deeper:
            return said(deeper - 1)
        with pytest.raises(FormatError) as caught:
            open_checkpoint(path)
        return str(caught.value)

    assert said(0) == said(100) == said(400)


class Crash:
    """Stands for a reader with a fault."""

    def __init__(self, error: BaseException | None, prints: str = "", leaves: str = "") -> None:
        self.error, self.prints, self.leaves = error, prints, leaves

    def __call__(self, *_: object) -> None:
        if self.prints:
            sys.stdout.write(self.prints)
        if self.leaves:
            Path(self.leaves).touch()
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("fault", "caught"),
    [
        (Crash(RecursionError("deep")), RecursionError),
        (Crash(MemoryError()), MemoryError),
        (Crash(AttributeError("x")), AttributeError),
        (Crash(None, prints="hello"), Violation),
        (Crash(None, leaves="ran"), Violation),
    ],
    ids=["recursion", "memory", "attribute", "print", "file"],
)
def test_the_judge_sees_a_reader_that_fails(
    fault: Crash, caught: type[BaseException], tmp_path: Path, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightkit.formats import _torch_state

    original = _torch_state.find_root

    def broken(value: object, paths: object) -> str:
        fault()
        return original(value, paths)  # type: ignore[arg-type]

    monkeypatch.setattr(_torch_state, "find_root", broken)
    monkeypatch.setattr("weightkit.formats.armed", _unarmed)
    with pytest.raises(caught):
        judged(samples()[0], tmp_path, room)


class _unarmed:
    """No tripwire, so that the fault itself is what the judge sees."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def test_the_guided_fuzzer_starts_from_the_good_files() -> None:
    assert len(inputs()) > len(samples())
    assert all(line.startswith('"\\x') for line in dictionary().splitlines())
