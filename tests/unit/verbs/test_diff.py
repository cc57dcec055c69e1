"""diff: a file equals itself, each single change is named, and a rename is seen as one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weightkit
from locations import FIXTURES, ROOT
from strategies import state_specs
from weightkit.core.checkpoint import Checkpoint, NotDense
from weightkit.core.dtype import numpy_dtype
from weightkit.core.report import Report
from weightkit.core.tensor import StateSpec, spec
from weightkit.core.text import printable
from weightkit.reporting.diff import diff_text
from weightkit.verbs.diff import diff, diff_of

LAW = settings(deadline=None, max_examples=100, database=None)
SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
Arrays = dict[str, np.ndarray]


def checkpoint(arrays: Arrays, aliases: dict[str, str] | None = None, **more: Any) -> Checkpoint:
    tensors = {name: spec(array.dtype.name, *array.shape) for name, array in arrays.items()}
    state = StateSpec(tensors, aliases or {})
    return Checkpoint("f.pt", "torch_zip", "", state, {}, lambda name: arrays[name].copy(), **more)


def checked(report: Report) -> dict[str, Any]:
    document = report.to_dict()
    jsonschema.validate(document, SCHEMA)
    json.dumps(document, allow_nan=False)
    for flat in (False, True):
        text = diff_text(report, flat=flat)
        assert text.startswith("EQUAL" if document["equal"] else ("DIFFERENT", "NOT KNOWN"))
        assert all(line.isprintable() for line in text.split("\n"))
    return document


def named(document: dict[str, Any]) -> set[str]:
    return {f["subject"] for f in document["findings"] if f["severity"] == "error"}


@st.composite
def states(draw: st.DrawFn, least: int = 1) -> tuple[Arrays, dict[str, str]]:
    """Arrays of distinct random numbers, with aliases."""
    state = draw(state_specs().filter(lambda s: len(s) >= least))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    arrays = {
        name: np.asarray(random.standard_normal(s.shape) * 50).astype(numpy_dtype(s.dtype))
        for name, s in state.tensors.items()
    }
    for alias, first in state.aliases.items():
        arrays[alias] = arrays[first]
    return arrays, dict(state.aliases)


@LAW
@given(states(0), st.booleans())
def test_a_file_equals_itself(state: tuple[Arrays, dict[str, str]], values: bool) -> None:
    document = checked(diff_of(checkpoint(*state), checkpoint(*state), values=values))
    assert document["equal"]
    assert document["exit_code"] == 0
    assert not document["equal_not_in_bits"]


@LAW
@given(states(0), states(0), st.booleans())
def test_both_directions_say_the_same(
    a: tuple[Arrays, dict[str, str]], b: tuple[Arrays, dict[str, str]], values: bool
) -> None:
    here = checked(diff_of(checkpoint(*a), checkpoint(*b), values=values))
    there = checked(diff_of(checkpoint(*b), checkpoint(*a), values=values))
    assert here["equal"] == there["equal"]
    assert {d["name"] for d in here["differences"]} == {d["name"] for d in there["differences"]}
    assert len(here["only_a"]) == len(there["only_b"])
    assert len(here["renames"]) == len(there["renames"])


@LAW
@given(states(), st.sampled_from(("delete", "rename", "reshape", "dtype", "element")), st.data())
def test_every_single_change_of_one_tensor_is_reported_by_name(
    state: tuple[Arrays, dict[str, str]], change: str, data: Any
) -> None:
    arrays, aliases = state
    firsts = [name for name in arrays if name not in aliases and name not in aliases.values()]
    if change == "element":
        firsts = [name for name in firsts if arrays[name].size]
    if not firsts:
        return
    name = data.draw(st.sampled_from(firsts))
    changed = dict(arrays)
    if change == "delete":
        del changed[name]
    elif change == "rename":
        changed[f"{name}.renamed"] = changed.pop(name)
    elif change == "reshape":
        changed[name] = changed[name].reshape(*changed[name].shape, 1)
    elif change == "dtype":
        changed[name] = changed[name].astype(np.float64 if changed[name].dtype != np.float64 else np.float32)
    else:
        array = changed[name].copy()
        place = np.unravel_index(data.draw(st.integers(0, array.size - 1)), array.shape)
        array[place] = not array[place] if array.dtype == bool else (2 if array[place] == 1 else 1)
        changed[name] = array
    report = diff_of(checkpoint(arrays, aliases), checkpoint(changed, aliases), values=True)
    document = checked(report)
    assert document["exit_code"] == 1
    if change == "rename":
        assert document["renames"]
        assert named(document) <= {printable(name, longest=len(name)) for name in arrays}
        assert {f["code"] for f in document["findings"]} == {"WK113"}
    else:
        assert named(document) == {printable(name, longest=len(name))}
    without = checked(diff_of(checkpoint(arrays, aliases), checkpoint(changed, aliases)))
    assert without["equal"] == (change == "element")


def test_it_is_public_and_another_container_is_no_difference(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {"b.w": torch.randn(3, 2), "a.w": torch.randn(2), "h": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "a.safetensors")
    report = weightkit.diff(tmp_path / "a.pt", tmp_path / "a.safetensors", values=True)
    assert report.ok
    assert checked(report)["a"]["format"] != checked(report)["b"]["format"]
    assert diff(FIXTURES / "best_snapshot.pt", FIXTURES / "best_snapshot.pt", values=True).ok


def test_without_values_the_first_line_says_that_they_were_not_compared() -> None:
    a, b = {"w": np.zeros(2, np.float32)}, {"w": np.ones(2, np.float32)}
    report = diff_of(checkpoint(a), checkpoint(b))
    assert report.ok
    first = diff_text(report).split("\n")[0]
    assert (
        first == "EQUAL  names, shapes and dtypes, 1 name in A and B; values were not compared: --values compares them"
    )


def test_a_difference_as_it_is_printed() -> None:
    a = {
        "encoder.w": np.zeros(2, np.float32),
        "actor.0.w": np.array([1, 2], np.float32),
        "actor.1.w": np.array([1, 2], np.float32),
        "actor.moved": np.arange(3, dtype=np.float32),
        "old": np.zeros(4, np.float32),
    }
    b = {
        "encoder.w": np.zeros((1, 2), np.float32),
        "actor.0.w": np.array([1, 2.5], np.float32),
        "actor.1.w": np.array([1, math.nan], np.float32),
        "actor.arrived": np.arange(3, dtype=np.float32),
    }
    assert diff_text(diff_of(checkpoint(a), checkpoint(b), values=True)).split("\n") == [
        "DIFFERENT  3 of 3 names of both differ, 1 only in A, 1 renamed; values compared",
        "  A  f.pt  (torch_zip, 5 names)",
        "  B  f.pt  (torch_zip, 4 names)",
        "",
        "encoder:  1 of 1 differ",
        "actor:    2 of 2 differ, 1 renamed",
        "old:      1 only in A",
        "",
        "only in A: 1",
        "  old         float32[4]",
        "",
        "equal content under another name: 1",
        "  actor.moved                        ->  actor.arrived",
        "",
        "shape, dtype or ties differ: 1  A           B",
        "  encoder.w                     float32[2]  float32[1, 2]",
        "",
        "values differ: 2  differing  max |A - B|    cosine  not finite",
        "  actor.{0,1}.w      2 of 4          0.5  0.996546           1",
    ]


def test_without_values_a_rename_is_only_perhaps_one() -> None:
    a, b = {"x": np.zeros(2, np.float32)}, {"y": np.ones(2, np.float32)}
    report = diff_of(checkpoint(a), checkpoint(b))
    document = checked(report)
    assert document["renames"] == [{"a": "x", "b": "y", "sure": False}]
    assert named(document) == {"x", "y"}
    assert "perhaps" in diff_text(report)
    assert checked(diff_of(checkpoint(a), checkpoint(b), values=True))["renames"] == []


def test_ties_are_a_difference_and_both_sides_are_named() -> None:
    array = np.zeros(2, np.float32)
    two = {"a": array, "b": array}
    document = checked(diff_of(checkpoint(two, {"b": "a"}), checkpoint(two), values=True))
    assert document["exit_code"] == 1
    assert [(d["name"], d["what"]) for d in document["differences"]] == [("a", ["ties"]), ("b", ["ties"])]
    assert document["differences"][0]["a"]["tied_to"] == ["b"]


def test_each_tensor_is_read_once_and_one_pair_at_a_time() -> None:
    array = np.zeros(2, np.float32)
    reads: list[str] = []
    base = checkpoint({"a": array, "b": array, "c": array}, {"b": "a"})

    def read(name: str) -> np.ndarray:
        reads.append(name)
        return array

    counted = Checkpoint(base.path, base.format, "", base.state, {}, read)
    diff_of(counted, counted, values=True)
    assert sorted(reads) == ["a", "a", "c", "c"]


def test_a_tensor_that_is_listed_only_is_named_and_not_compared() -> None:
    arrays = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}
    listed = {"a": NotDense("sparse_coo", 8, "it is sparse")}

    def read(name: str) -> np.ndarray:
        assert name == "b"
        return arrays[name]

    base = checkpoint(arrays)
    sparse = Checkpoint(base.path, base.format, "", base.state, {}, read, not_dense=listed)
    report = diff_of(sparse, sparse, values=True)
    assert checked(report)["not_compared"] == ["a"]
    assert not report.ok  # what was not looked at is not said to be equal
    assert diff_text(report).startswith("NOT KNOWN")
    assert "but for 1 tensor that cannot be read" in diff_text(report).split("\n")[0]
    assert {f.code for f in report.findings} == {"WK109"}


def test_an_unsafe_file_is_compared_by_specs_only_and_ends_with_4(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (print, ("no",))

    torch.save({"w": torch.zeros(2)}, tmp_path / "good.pt")
    torch.save({"w": torch.ones(2), "x": Payload()}, tmp_path / "bad.pt")
    for a, b in (("good", "bad"), ("bad", "good")):
        report = diff(tmp_path / f"{a}.pt", tmp_path / f"{b}.pt", values=True)
        document = report.to_dict()
        jsonschema.validate(document, SCHEMA)
        assert document["exit_code"] == 4
        assert not document["values_compared"]
        assert document["equal"]
        assert "WK103" in {f["code"] for f in document["findings"]}
        assert "values were not compared" in diff_text(report).split("\n")[0]


def test_values_that_differ_in_bits_only_are_equal_and_said() -> None:
    a, b = {"w": np.array([0.0, math.nan], np.float32)}, {"w": np.array([-0.0, math.nan], np.float32)}
    report = diff_of(checkpoint(a), checkpoint(b), values=True)
    assert report.ok
    assert checked(report)["equal_not_in_bits"] == ["w"]
    assert "not in every bit" in diff_text(report)


def test_tensors_of_another_dtype_are_compared_as_numbers_too() -> None:
    a, b = {"w": np.array([1.0, 2.5], np.float32)}, {"w": np.array([1.0, 2.5], np.float64)}
    document = checked(diff_of(checkpoint(a), checkpoint(b), values=True))
    (found,) = document["differences"]
    assert found["what"] == ["dtype"]
    assert found["values"]["differing"] == 0


@pytest.mark.parametrize("flat", [False, True])
def test_many_differences_stay_readable_and_flat_shows_them_all(flat: bool) -> None:
    a = {f"m.{chr(97 + i % 26)}x{i}y.w": np.zeros(i + 1, np.float32) for i in range(1000)}
    text = diff_text(diff_of(checkpoint(a), checkpoint({})), flat=flat)
    assert (len(text.splitlines()) > 1000) == flat
    assert ("--flat" in text) != flat
