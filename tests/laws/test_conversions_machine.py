"""Files that are converted, mapped, replayed and undone hold what they held, and the way back ends at the first."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import weightkit as wk
from mapping_strategies import tensor
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.execution import Execution
from weightkit.errors import WeightkitError
from weightkit.formats import open_checkpoint, writer_for
from weightkit.shape_ops.rearrange import Permute
from weightkit.verbs.convert import save_plan

CONTAINERS = ("pt", "npz", "safetensors")


def first_state() -> tuple[dict[str, Any], StateSpec]:
    """Tensors of several types: a tie, one without axes, an empty one, two of one shape."""
    arrays: dict[str, Any] = {
        "enc.0.weight": tensor("a", "float32", 2, 3),
        "enc.1.weight": tensor("b", "float32", 2, 3),
        "enc.0.bias": tensor("c", "float16", 4),
        "head.weight": tensor("d", "float64", 3, 2),
        "log_alpha": tensor("e", "float32"),
        "empty": tensor("f", "float32", 0, 3),
        "count": np.array([7], np.int64),
        "mask": np.array([[True, False, True]]),
        "low": np.arange(6, dtype=np.uint16).view(np.dtype(__import__("ml_dtypes").bfloat16)).reshape(3, 2),
    }
    arrays["tied.weight"] = arrays["head.weight"]
    state = {name: spec(array.dtype.name, *array.shape) for name, array in arrays.items()}
    return arrays, StateSpec(state, {"tied.weight": "head.weight"})


def contents(path: Path) -> Counter[tuple[str, bytes]]:
    """The elements of all tensors, by type, each name counted; bits and not values."""
    checkpoint = open_checkpoint(path)
    found: Counter[tuple[str, bytes]] = Counter()
    for name in checkpoint.state:
        array = np.ascontiguousarray(checkpoint.read(name))
        raw = array.reshape(-1).view(np.uint8).reshape(array.size, array.itemsize)
        found.update((array.dtype.name, row.tobytes()) for row in raw)
    return found


def bijection(draw: Any, state: StateSpec, step: int) -> str:
    """A mapping file that gives each name of ``state`` a place: renamed, turned, parted, or joined with its like."""
    lines = [f'name = "step-{step}"', "version = 1", f'source_layout = "s{step}"', f'target_layout = "s{step + 1}"']
    waiting = draw(st.permutations(list(state)))
    while waiting:
        name, found = waiting[0], state[waiting[0]]
        like = [other for other in waiting[1:] if state[other] == found]
        ways = ["rename", "rename"]
        if len(found.shape) == 2:
            ways.append("turn")
        if found.shape and found.shape[0] > 1:
            ways += ["part", "unstack"]
        if like:
            ways += ["stack", *(["concat"] if found.shape else [])]
        way = draw(st.sampled_from(ways))
        taken = [name, like[0]] if way in ("stack", "concat") else [name]
        waiting = [other for other in waiting if other not in taken]
        new = [f"s{step + 1}.{len(lines)}.w"]
        op = {
            "rename": "",
            "turn": '{op = "transpose"}',
            "stack": f'{{op = "stack", axis = {draw(st.integers(0, len(found.shape)))}}}',
            "concat": '{op = "concat", axis = 0}',
            "part": f'{{op = "split", axis = 0, sizes = [1, {found.shape[0] - 1 if found.shape else 0}]}}',
            "unstack": '{op = "unstack", axis = 0}',
        }[way]
        if way in ("part", "unstack"):
            count = 2 if way == "part" else found.shape[0]
            new = [f"s{step + 1}.{len(lines)}.{number}" for number in range(count)]
        lines += [
            "[[rule]]",
            f'id = "{len(lines)}"',
            f"sources = {json.dumps(taken)}",
            f"targets = {json.dumps(new)}",
            f"ops = [{op}]",
        ]
    return "\n".join(lines)


class Conversions(RuleBasedStateMachine):
    """One file after the other in a folder of its own; each mapping can be undone by the plan that was kept of it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.files = 0
        self.undo: list[tuple[Path, Path]] = []

    def teardown(self) -> None:
        try:
            while self.undo:
                self.go_back("safetensors")
            self.assert_equal(self.current, self.first)
        finally:
            shutil.rmtree(self.folder)

    def new(self, ending: str) -> Path:
        self.files += 1
        return self.folder / f"{self.files}.{ending}"

    def assert_equal(self, one: Path, other: Path) -> None:
        report = wk.diff(one, other, values=True)
        assert report.ok, report.findings
        assert not report.facts["equal_not_in_bits"]

    @initialize(ending=st.sampled_from(CONTAINERS))
    def write_the_first_file(self, ending: str) -> None:
        arrays, state = first_state()
        self.first = self.current = self.new(ending)
        with self.first.open("w+b") as file:
            writer_for(self.first)(file, arrays.items(), spec=state, metadata={})
        self.held = contents(self.first)

    @rule(ending=st.sampled_from(CONTAINERS))
    def change_the_container(self, ending: str) -> None:
        path = self.new(ending)
        assert wk.convert(self.current, out=path).ok
        self.assert_equal(path, self.current)
        self.current = path

    @precondition(lambda self: len(self.undo) < 4)
    @rule(ending=st.sampled_from(CONTAINERS), replayed=st.booleans(), data=st.data())
    def map_the_names(self, ending: str, replayed: bool, data: st.DataObject) -> None:
        state = open_checkpoint(self.current).state
        mapping, plan, path = self.new("toml"), self.new("json"), self.new(ending)
        mapping.write_text(bijection(data.draw, state, len(self.undo)), encoding="utf-8")
        assert save_plan(self.current, plan, map=mapping).facts["class"] == "BIJ"
        if replayed:
            report = wk.convert(self.current, out=path, plan=plan)
        else:
            report = wk.convert(self.current, out=path, map=mapping)
        assert report.facts["class"] == "BIJ"
        self.undo.append((plan, self.current))
        self.current = path

    @precondition(lambda self: self.undo)
    @rule(ending=st.sampled_from(CONTAINERS))
    def go_back(self, ending: str) -> None:
        plan, before = self.undo.pop()
        path = self.new(ending)
        wk.convert(self.current, out=path, invert=plan)
        self.assert_equal(path, before)
        self.current = path

    @precondition(lambda self: self.undo)
    @rule(ending=st.sampled_from(CONTAINERS))
    def go_back_by_a_kept_inverse(self, ending: str) -> None:
        plan, before = self.undo.pop()
        inverse, path = self.new("json"), self.new(ending)
        save_plan(self.current, inverse, invert=plan)
        wk.convert(self.current, out=path, plan=inverse)
        self.assert_equal(path, before)
        self.current = path

    @precondition(lambda self: self.undo)
    @rule()
    def replay_twice(self) -> None:
        plan, before = self.undo[-1]
        path = self.new("safetensors")
        wk.convert(before, out=path, plan=plan)
        self.assert_equal(path, self.current)

    @precondition(lambda self: self.undo)
    @rule()
    def replay_on_the_wrong_file(self) -> None:
        plan, _ = self.undo[-1]
        path = self.new("safetensors")
        with pytest.raises(WeightkitError):
            wk.convert(self.current, out=path, plan=plan)
        assert not path.exists()

    @invariant()
    def nothing_is_lost(self) -> None:
        if self.files:
            assert contents(self.current) == self.held


LAW = settings(
    deadline=None,
    max_examples=50,
    stateful_step_count=10,
    database=None,
    phases=[Phase.generate],  # shrinking would write files for minutes
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_files_that_are_converted_mapped_and_undone_keep_all_that_they_hold() -> None:
    run_state_machine_as_test(Conversions, settings=LAW)


def a_permutation_is_its_own_inverse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Permute, "inverse", lambda self: Permute(self.axes[::-1]))


def parts_are_written_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Execution._apply

    def apply(self: Any, step: Any) -> Any:
        made = original(self, step)
        same = len({(array.shape, array.dtype) for array in made}) == 1
        return made[::-1] if same and len(step.sources) == 1 and self.plan.mapping.startswith("step") else made

    monkeypatch.setattr(Execution, "_apply", apply)


def a_step_forgets_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Execution._apply

    def apply(self: Any, step: Any) -> Any:
        return tuple(np.zeros_like(array) if step.ops else array for array in original(self, step))

    monkeypatch.setattr(Execution, "_apply", apply)


@pytest.mark.parametrize(
    "mutant", [a_permutation_is_its_own_inverse, parts_are_written_in_another_order, a_step_forgets_its_values]
)
def test_a_mutant_does_not_survive_the_machine(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises((AssertionError, WeightkitError)):
        run_state_machine_as_test(Conversions, settings=LAW)
