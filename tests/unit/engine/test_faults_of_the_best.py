"""What the mapping engines of other projects get wrong without a word: here each is right, or refused by name.

Observed in transformers 5.23, Megatron-Bridge, mergekit, torchtune, timm and LeRobot.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weightkit as wk
from weightkit.core.names import parse_template
from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.rule import Mapping, Rule, RuleOp, renaming
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.engine.execution import Execution
from weightkit.engine.inversion import invert_plan
from weightkit.engine.planning import make_plan, plan_from_rules
from weightkit.errors import PlanError
from weightkit.formats import open_checkpoint, writer_for

Arrays = dict[str, np.ndarray]


def rename(id: str, source: str, target: str) -> Rule:
    return renaming(id, parse_template(source), parse_template(target))


def rule(id: str, sources: list[str], targets: list[str], *ops: RuleOp) -> Rule:
    return Rule(id, tuple(map(parse_template, sources)), tuple(map(parse_template, targets)), ops)


def state(**shapes: tuple[int, ...]) -> StateSpec:
    return StateSpec({name.replace("__", "."): spec("float32", *shape) for name, shape in shapes.items()})


def numbered(source: StateSpec) -> Arrays:
    """Arrays in which every element is another number."""
    found, start = {}, 0
    for name, each in source.items():
        found[name] = np.arange(start, start + each.numel, dtype=np.float32).reshape(each.shape)
        start += each.numel
    return found


def plan(source: StateSpec, target: StateSpec | None, *rules: Rule) -> Plan:
    mapping = Mapping("m", 1, "a", "b", rules)
    if target is None:
        return plan_from_rules(source, mapping)
    return make_plan(source, ConversionTarget("b", target), mapping)


def applied(made: Plan, arrays: Arrays) -> Arrays:
    return dict(Execution(made, arrays.__getitem__).arrays())


def refusal(*arguments: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(PlanError) as refused:
        plan(*arguments)
    return [(found.code, found.subject, found.message) for found in refused.value.report.errors()]


@pytest.mark.parametrize("target", [state(fc=(2,)), None])
def test_two_tensors_that_would_become_one_are_both_named(target: StateSpec | None) -> None:
    rules = rename("a", "old_a", "fc"), rename("b", "old_b", "fc")
    ((code, subject, message),) = refusal(state(old_a=(2,), old_b=(2,)), target, *rules)
    assert (code, subject) == ("WK203", "fc")
    assert "old_a" in message
    assert "old_b" in message


def experts(*numbers: int) -> StateSpec:
    return StateSpec({f"experts.{number}.w": spec("float32", 3) for number in numbers})


STACKED = rule("moe", ["experts.{e}.w"], ["experts.w"], RuleOp("stack", {"axis": 0}, "e"))


@pytest.mark.parametrize("target", [StateSpec({"experts.w": spec("float32", 2, 3)}), None])
def test_experts_with_a_number_missing_are_not_stacked(target: StateSpec | None) -> None:
    found = refusal(experts(0, 2), target, STACKED)
    assert found[0][:2] == ("WK214", "experts.w")
    assert "1 is missing" in found[0][2]


def test_experts_are_stacked_by_their_numbers_in_whatever_order_they_come() -> None:
    source = experts(10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)
    arrays = numbered(source)
    made = applied(plan(source, None, STACKED), arrays)["experts.w"]
    assert np.array_equal(made, np.stack([arrays[f"experts.{number}.w"] for number in range(11)]))


def test_unequal_parts_are_joined_and_parted_at_the_same_places() -> None:
    source = state(q=(4, 3), k=(1, 3), v=(1, 3))
    arrays = numbered(source)
    made = plan(source, None, rule("qkv", ["q", "k", "v"], ["qkv"], RuleOp("concat", {"axis": 0})))
    assert made.steps[0].ops[0].params == {"axis": 0, "sizes": (4, 1, 1)}
    joined = applied(made, arrays)
    assert joined["qkv"].shape == (6, 3)
    back = applied(invert_plan(made), joined)
    assert {name: array.shape for name, array in back.items()} == {"q": (4, 3), "k": (1, 3), "v": (1, 3)}
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


def test_a_split_is_never_into_equal_parts_because_nobody_said_otherwise() -> None:
    parted = rule("qkv", ["qkv"], ["q", "k", "v"], RuleOp("split", {"axis": 0}))
    ((code, _, message),) = refusal(state(qkv=(6, 3)), None, parted)
    assert code == "WK205"
    assert "sizes" in message
    made = plan(state(qkv=(6, 3)), state(q=(4, 3), k=(1, 3), v=(1, 3)), parted)
    assert made.steps[0].ops[0].params["sizes"] == (4, 1, 1)


def test_a_rule_on_one_segment_does_not_touch_a_name_that_only_looks_like_it() -> None:
    source = StateSpec({"fc10.fc1.weight": spec("float32", 2), "fc1.weight": spec("float32", 2)})
    made = plan(
        source, None, rename("fc1", "fc1.{p:name}", "dense.{p:name}"), rename("fc10", "fc10.{p:path}", "fc10.{p:path}")
    )
    assert {step.sources[0]: step.targets[0] for step in made.steps} == {
        "fc10.fc1.weight": "fc10.fc1.weight",
        "fc1.weight": "dense.weight",
    }
    assert refusal(source, None, rename("fc1", "fc1.{p:name}", "dense.{p:name}"))[0][:2] == ("WK201", "fc10.fc1.weight")


def test_a_swap_loses_neither_tensor() -> None:
    source = state(a=(2,), b=(2,))
    arrays = numbered(source)
    made = applied(plan(source, source, rename("1", "a", "b"), rename("2", "b", "a")), arrays)
    assert np.array_equal(made["a"], arrays["b"])
    assert np.array_equal(made["b"], arrays["a"])


def test_a_chain_of_renames_moves_every_tensor_one_place_only() -> None:
    source = state(a=(1,), b=(1,), c=(1,))
    rules = rename("1", "a", "b"), rename("2", "b", "c"), rename("3", "c", "d")
    made = plan(source, None, *rules)
    assert {step.sources[0]: step.targets[0] for step in made.steps} == {"a": "b", "b": "c", "c": "d"}


@pytest.mark.parametrize("shape", [(3, 3), (2, 3)])
def test_a_transpose_is_applied_to_a_square_matrix_too(shape: tuple[int, int]) -> None:
    source = state(w=shape)
    arrays = numbered(source)
    turned = rule("w", ["w"], ["w"], RuleOp("transpose"))
    made = applied(plan(source, state(w=shape[::-1]), turned), arrays)["w"]
    assert np.array_equal(made, arrays["w"].T)


def test_a_square_matrix_is_transposed_where_the_user_says_so_and_only_then(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    arrays = numbered(state(w=(3, 3)))
    write(path, arrays)
    wk.convert(path, out=tmp_path / "same.safetensors")
    wk.convert(path, adapt={"w": "transpose"}, out=tmp_path / "turned.safetensors")
    assert np.array_equal(open_checkpoint(tmp_path / "same.safetensors").read("w"), arrays["w"])
    assert np.array_equal(open_checkpoint(tmp_path / "turned.safetensors").read("w"), arrays["w"].T)


def test_mismatches_of_different_shapes_are_each_shown(tmp_path: Path) -> None:
    from weightkit.reporting.convert import convert_text
    from weightkit.verbs.convert import refusal_report

    source = StateSpec({f"layers.{i}.w": spec("float32", 2, 3) for i in range(3)})
    target = StateSpec({f"layers.{i}.w": spec("float32", 2, 3 + i) for i in range(3)})
    with pytest.raises(PlanError) as refused:
        plan(source, target, rename("w", "layers.{i}.w", "layers.{i}.w"))
    assert {found.subject for found in refused.value.report.errors()} == {"layers.1.w", "layers.2.w"}
    text = convert_text(refusal_report(refused.value, "a.pt", "b"))
    assert "float32[2, 4]" in text
    assert "float32[2, 5]" in text


def test_views_scalars_and_empty_tensors_are_read_as_they_are(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(24, dtype=torch.float32)
    tensors = {
        "strided": base.view(4, 6).t()[::2],
        "expanded": base[:3].expand(5, 3),
        "offset": base[7:9],
        "log_alpha": torch.tensor(-1.5),
        "empty": torch.zeros(0, 4),
    }
    torch.save(tensors, tmp_path / "in.pt")
    wk.convert(tmp_path / "in.pt", out=tmp_path / "out.safetensors")
    made = open_checkpoint(tmp_path / "out.safetensors")
    assert set(made.state) == set(tensors)
    for name, tensor in tensors.items():
        array = made.read(name)
        assert array.shape == tuple(tensor.shape)
        assert np.array_equal(array, tensor.numpy())


def test_a_name_with_two_numbers_keeps_both() -> None:
    source = StateSpec({name: spec("float32", 1) for name in ("a.0.b.1.c", "a.0.b.2.c")})
    made = plan(source, None, rename("r", "a.{i}.b.{j}.c", "x.{i}.{j}"))
    assert {step.targets[0] for step in made.steps} == {"x.0.1", "x.0.2"}
    with pytest.raises(wk.RuleError, match="two tensors could get one name"):
        rename("r", "a.{i}.b.{j}.c", "x.{i}")


def test_targets_are_never_filled_by_position() -> None:
    source = state(one=(2,), two=(2,))
    target = state(first=(2,), second=(2,), third=(2,))
    found = refusal(source, target, rename("same", "{rest:path}", "{rest:path}"))
    assert {(code, subject) for code, subject, _ in found} == {
        ("WK201", "one"), ("WK201", "two"), ("WK202", "first"), ("WK202", "second"), ("WK202", "third"),
    }  # fmt: skip


def test_two_of_three_targets_are_not_enough() -> None:
    target = state(first=(2,), second=(2,), third=(2,))
    found = refusal(state(first=(2,), second=(2,)), target, rename("same", "{rest:path}", "{rest:path}"))
    assert [(code, subject) for code, subject, _ in found] == [("WK202", "third")]


def test_what_was_written_has_the_digests_of_what_was_read_and_not_of_what_was_there_before(tmp_path: Path) -> None:
    """A target that was never loaded, both sides equally untrained, passes a test of equality: here a digest tells."""
    zeros = {"w": np.zeros((2, 2), np.float32)}
    trained = {"w": np.full((2, 2), 0.5, np.float32)}
    write(tmp_path / "fresh.safetensors", zeros)
    write(tmp_path / "trained.safetensors", trained)
    report = wk.convert(tmp_path / "trained.safetensors", like=tmp_path / "fresh.safetensors", out=tmp_path / "out.pt")
    (row,) = report.to_dict()["rows"]  # type: ignore[misc]
    written = open_checkpoint(tmp_path / "out.pt")
    assert np.array_equal(written.read("w"), trained["w"])
    assert row["digest"] == row["source_digests"][0]
    assert wk.diff(tmp_path / "out.pt", tmp_path / "fresh.safetensors", values=True).exit_code == 1
    lineage: Any = written.metadata["lineage"]
    assert lineage["tensors"]["w"]["digest"] == row["digest"]


def write(path: Path, arrays: Arrays) -> None:
    found = StateSpec(
        {
            name: TensorSpec(wk.DType(array.dtype.name, array.itemsize, "float"), array.shape)
            for name, array in arrays.items()
        }
    )
    with path.open("wb") as file:
        writer_for(path)(file, arrays.items(), spec=found, metadata={})
