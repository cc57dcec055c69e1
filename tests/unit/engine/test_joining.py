"""Tensors that belong together: all of them or none, in the order that their names say, with sizes that are literal."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from mapping_strategies import Case, Line, same_bits, tensor
from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.rule import Companions, Mapping
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.execution import Execution
from weightkit.engine.inversion import invert_plan
from weightkit.engine.planning import make_plan, plan_from_rules
from weightkit.errors import PlanError, WeightkitError

STACK: dict[str, Any] = {"op": "stack", "axis": 0, "over": "e"}
CONCAT: dict[str, Any] = {"op": "concat", "axis": 0}
EXPERTS = Line("experts", ("moe.{e}.{p:name}",), ("moe.{p:name}",), (STACK,))
QKV = tuple(f"attn.{letter}.{{p:name}}" for letter in "qkv")
MERGE = Line("qkv", QKV, ("attn.qkv.{p:name}",), (CONCAT,))
ADAM = Companions("optim", ("exp_avg", "exp_avg_sq"), ("step",))


def planned(arrays: dict[str, Any], *lines: Line, companions: tuple[Companions, ...] = ()) -> Plan:
    case = Case(arrays, lines)
    rules = tuple(line.rule() for line in lines)
    return plan_from_rules(case.source, Mapping("m", 1, "a", "b", rules, companions=companions))


def applied(plan: Plan, arrays: dict[str, Any]) -> dict[str, Any]:
    return dict(Execution(plan, lambda name: arrays[name].copy()).arrays())


def assert_gives(arrays: dict[str, Any], expected: dict[str, Any], *lines: Line, **more: Any) -> Plan:
    """The values, and that undoing them gives the source back bit for bit."""
    plan = planned(arrays, *lines, **more)
    made = applied(plan, arrays)
    assert made.keys() == expected.keys()
    for name, array in expected.items():
        assert same_bits(made[name], array), name
    back = applied(invert_plan(plan), made)
    assert back.keys() == arrays.keys()
    assert all(same_bits(back[name], arrays[name]) for name in arrays)
    return plan


def tensors(*names: str, shape: tuple[int, ...] = (2, 3)) -> dict[str, Any]:
    return {name: tensor(name, "float32", *shape) for name in names}


def refusal(arrays: dict[str, Any], *lines: Line, **more: Any) -> list[tuple[str, str]]:
    with pytest.raises(PlanError) as refused:
        planned(arrays, *lines, **more)
    assert all(finding.message for finding in refused.value.report.errors())
    return [(finding.code, finding.message) for finding in refused.value.report.errors()]


# ---- all or none


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [((0, 2), "1 is missing"), ((1, 2), "0 is missing"), ((0, 1, 4), "2, 3"), ((1,), "0 is missing")],
)
def test_experts_with_a_gap_are_not_stacked_as_if_there_were_none(numbers: tuple[int, ...], missing: str) -> None:
    ((code, message),) = refusal(tensors(*(f"moe.{number}.w" for number in numbers)), EXPERTS)
    assert code == "WK214"
    assert missing in message


@pytest.mark.parametrize("gone", ["q", "k", "v"])
def test_a_merge_without_one_of_its_tensors_names_the_one_that_is_missing(gone: str) -> None:
    arrays = tensors(*(f"attn.{letter}.w" for letter in "qkv" if letter != gone))
    ((code, message),) = refusal(arrays, MERGE)
    assert code == "WK214"
    assert repr(f"attn.{gone}.w") in message


def test_one_parameter_that_is_incomplete_does_not_hide_another() -> None:
    arrays = tensors("moe.0.w", "moe.2.w", "moe.0.b", "moe.3.b", "moe.0.whole", "moe.1.whole")
    assert [code for code, _ in refusal(arrays, EXPERTS)] == ["WK214", "WK214"]


@pytest.mark.parametrize("twin", ["module.moe.1.w", "_orig_mod.moe.1.w"])
def test_two_tensors_for_one_place_of_a_group_are_refused_with_both_names(twin: str) -> None:
    ((code, message),) = refusal(tensors("moe.0.w", "moe.1.w", twin), EXPERTS)
    assert code == "WK214"
    assert repr("moe.1.w") in message
    assert repr(twin) in message


def test_fewer_experts_than_the_target_has_are_refused() -> None:
    target = ConversionTarget("b", StateSpec({"moe.w": spec("float32", 3, 2, 3)}))
    case = Case(tensors("moe.0.w", "moe.1.w"), (EXPERTS,))
    with pytest.raises(PlanError) as refused:
        make_plan(case.source, target, case.mapping)
    assert [finding.code for finding in refused.value.report.errors()] == ["WK204"]


@pytest.mark.parametrize("said", [1, 3, 8])
def test_a_count_that_a_rule_names_is_checked_and_not_replaced(said: int) -> None:
    arrays = tensors("moe.0.w", "moe.1.w")
    line = Line("experts", ("moe.{e}.w",), ("moe.w",), ({**STACK, "count": said},))
    assert refusal(arrays, line)
    assert_gives(
        arrays,
        {"moe.w": np.stack([arrays["moe.0.w"], arrays["moe.1.w"]])},
        Line("experts", ("moe.{e}.w",), ("moe.w",), ({**STACK, "count": 2},)),
    )


def test_a_count_of_copies_that_are_not_the_targets_is_refused() -> None:
    assert refusal(tensors("a"), Line("r", ("a",), ("b", "c"), ({"op": "copy", "count": 7},)))


def test_members_of_different_shapes_are_refused() -> None:
    arrays = {**tensors("moe.0.w"), **tensors("moe.1.w", shape=(3, 2))}
    assert [code for code, _ in refusal(arrays, EXPERTS)] == ["WK205"]


# ---- order and sizes


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_the_file_is_not_the_order_of_the_stack(order: tuple[int, ...]) -> None:
    arrays = tensors(*(f"moe.{number}.w" for number in order))
    assert_gives(arrays, {"moe.w": np.stack([arrays[f"moe.{number}.w"] for number in range(3)])}, EXPERTS)


def test_the_tenth_expert_comes_behind_the_second() -> None:
    arrays = tensors(*(f"moe.{number}.w" for number in range(12)))
    assert_gives(arrays, {"moe.w": np.stack([arrays[f"moe.{number}.w"] for number in range(12)])}, EXPERTS)


def test_indices_that_are_written_with_a_step_are_stacked_by_their_number() -> None:
    arrays = tensors("net.7.w", "net.1.w", "net.4.w")
    line = Line("r", ("net.{e*3+1}.w",), ("net",), (STACK,))
    assert_gives(arrays, {"net": np.stack([arrays[f"net.{number}.w"] for number in (1, 4, 7)])}, line)


def test_a_merge_of_4_1_1_rows_is_saved_back_as_4_1_1() -> None:
    arrays = {
        f"attn.{letter}.w": tensor(letter, "float32", rows, 3) for letter, rows in zip("qkv", (4, 1, 1), strict=True)
    }
    expected = {"attn.qkv.w": np.concatenate([arrays[f"attn.{letter}.w"] for letter in "qkv"])}
    plan = assert_gives(arrays, expected, MERGE)
    assert [dict(op.params) for op in plan.steps[0].ops] == [{"axis": 0, "sizes": (4, 1, 1)}]
    (back,) = invert_plan(plan).steps
    assert [(op.name, dict(op.params)) for op in back.ops] == [("split", {"axis": 0, "sizes": (4, 1, 1)})]
    assert back.targets == ("attn.q.w", "attn.k.w", "attn.v.w")


def test_parts_without_sizes_are_as_large_as_the_target_says_and_never_guessed() -> None:
    arrays = tensors("qkv.w", shape=(6, 2))
    line = Line("r", ("qkv.{p:name}",), ("q.{p:name}", "k.{p:name}", "v.{p:name}"), ({"op": "split", "axis": 0},))
    case = Case(arrays, (line,))
    goals = {"q.w": spec("float32", 4, 2), "k.w": spec("float32", 1, 2), "v.w": spec("float32", 1, 2)}
    plan = make_plan(case.source, ConversionTarget("b", StateSpec(goals)), case.mapping)
    made = applied(plan, arrays)
    for letter, part in zip("qkv", np.split(arrays["qkv.w"], [4, 5]), strict=True):
        assert same_bits(made[f"{letter}.w"], part)
    assert refusal(arrays, line)


def test_a_group_for_each_of_the_other_variables() -> None:
    arrays = tensors(*(f"{layer}.moe.{number}.{p}" for layer in (3, 0) for number in (1, 0) for p in ("w", "b")))
    line = Line("r", ("{i}.moe.{e}.{p:name}",), ("{i*2}.{p:name}",), (STACK,))
    expected = {
        f"{layer * 2}.{p}": np.stack([arrays[f"{layer}.moe.{number}.{p}"] for number in (0, 1)])
        for layer in (3, 0)
        for p in ("w", "b")
    }
    assert_gives(arrays, expected, line)


# ---- joins inside joins


GATES = ("moe.{e}.gate", "moe.{e}.up")


def gates() -> tuple[dict[str, Any], list[list[Any]]]:
    names = [f"moe.{number}.{letter}" for number in range(3) for letter in ("gate", "up")]
    arrays = tensors(*names[::-1])
    return arrays, [[arrays[f"moe.{number}.{letter}"] for letter in ("gate", "up")] for number in range(3)]


def test_gate_and_up_of_each_expert_are_joined_and_then_all_experts_stacked() -> None:
    arrays, rows = gates()
    expected = {"gate_up": np.stack([np.concatenate(row) for row in rows])}
    assert_gives(arrays, expected, Line("r", GATES, ("gate_up",), (CONCAT, STACK)))


def test_all_gates_are_stacked_and_then_joined_with_all_ups() -> None:
    arrays, rows = gates()
    columns = [np.stack([row[place] for row in rows]) for place in range(2)]
    line = Line("r", GATES, ("gate_up",), (STACK, {"op": "concat", "axis": 1}))
    assert_gives(arrays, {"gate_up": np.concatenate(columns, axis=1)}, line)


def test_gates_and_ups_are_stacked_each_for_itself() -> None:
    arrays, rows = gates()
    expected = {name: np.stack([row[place] for row in rows]) for place, name in enumerate(("gate", "up"))}
    assert_gives(arrays, expected, Line("r", GATES, ("gate", "up"), (STACK,)))


def test_one_missing_up_is_named() -> None:
    arrays, _ = gates()
    del arrays["moe.1.up"]
    for ops in permutations((CONCAT, STACK)):
        ((code, message),) = refusal(arrays, Line("r", GATES, ("gate_up",), ops))
        assert code == "WK214"
        assert repr("moe.1.up") in message


@pytest.mark.parametrize("first", ["unstack", "split"])
def test_what_is_parted_twice_is_named_by_both(first: str) -> None:
    arrays = tensors("gate_up", shape=(3, 4, 2))
    unstack: dict[str, Any] = {"op": "unstack", "axis": 0, "over": "e"}
    if first == "unstack":
        ops: tuple[dict[str, Any], ...] = (unstack, {"op": "split", "axis": 0, "sizes": [3, 1]})
    else:
        ops = ({"op": "split", "axis": 1, "sizes": [3, 1]}, unstack)
    whole = arrays["gate_up"]
    expected = {f"moe.{e}.gate": whole[e, :3] for e in range(3)} | {f"moe.{e}.up": whole[e, 3:] for e in range(3)}
    assert_gives(arrays, expected, Line("r", ("gate_up",), GATES, ops))


@pytest.mark.parametrize(
    "ops",
    [
        ({"op": "split", "axis": 0, "sizes": [2, 2]}, {"op": "split", "axis": 0, "sizes": [1, 1]}),
        ({"op": "copy"}, {"op": "copy"}),
        ({"op": "split", "axis": 0, "sizes": [2, 2]},),
        (),
    ],
)
def test_parts_that_the_targets_do_not_name_are_refused(ops: tuple[dict[str, Any], ...]) -> None:
    arrays = tensors("a", shape=(4, 1))
    with pytest.raises(WeightkitError):
        planned(arrays, Line("r", ("a",), ("t0", "t1", "t2", "t3"), ops))


@pytest.mark.parametrize("name", ["specs", "wanted", "self", "no such"])
def test_a_parameter_that_an_op_does_not_have_is_refused_by_its_name(name: str) -> None:
    ((code, message),) = refusal(tensors("a"), Line("r", ("a",), ("b",), ({"op": "transpose", name: 1},)))
    assert code == "WK205"
    assert name in message


# ---- parts and copies


def test_unstacked_tensors_come_by_their_number() -> None:
    arrays = tensors("moe.w", shape=(3, 2))
    line = Line("r", ("moe.{p:name}",), ("moe.{e}.{p:name}",), ({"op": "unstack", "axis": 0, "over": "e"},))
    assert_gives(arrays, {f"moe.{number}.w": arrays["moe.w"][number] for number in range(3)}, line)


def test_copies_stand_under_each_target() -> None:
    arrays = tensors("a", "b")
    line = Line("r", ("{p:name}",), ("q.{p:name}", "k.{p:name}"), ({"op": "copy"},))
    assert_gives(arrays, {f"{q}.{p}": arrays[p] for q in "qk" for p in "ab"}, line)


def test_tensors_that_are_said_to_be_the_same_are_compared() -> None:
    one = tensor("one", "float32", 2)
    line = Line("r", ("a.w", "b.w"), ("w",), ({"op": "same"},))
    assert_gives({"a.w": one, "b.w": one}, {"w": one}, line)
    arrays = tensors("a.w", "b.w")
    with pytest.raises(PlanError) as refused:
        applied(planned(arrays, line), arrays)
    assert [finding.code for finding in refused.value.report.errors()] == ["WK205"]


# ---- what travels with a parameter


def moments(*parameters: str, shape: tuple[int, ...] = (2, 3)) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter in parameters:
        for name in (parameter, f"optim.{parameter}.exp_avg", f"optim.{parameter}.exp_avg_sq"):
            found[name] = tensor(name, "float32", *shape)
        found[f"optim.{parameter}.step"] = tensor(f"optim.{parameter}.step", "float32")
    return found


def test_moments_take_their_parameters_name_and_ops_and_the_step_count_its_name_only() -> None:
    arrays = moments("net.0.w", "net.1.w")
    line = Line("r", ("net.{i}.{p:name}",), ("{p:name}.{i*2}",), ({"op": "transpose"},))
    expected = {
        name.replace("net.0.w", "w.0").replace("net.1.w", "w.2"): array if name.endswith("step") else array.T
        for name, array in arrays.items()
    }
    assert_gives(arrays, expected, line, companions=(ADAM,))


def test_moments_of_stacked_parameters_are_stacked_and_their_step_counts_refused() -> None:
    arrays = moments("moe.0.w", "moe.1.w")
    steps = [name for name in arrays if name.endswith("step")]
    with pytest.raises(PlanError) as refused:
        planned(arrays, EXPERTS, companions=(ADAM,))
    assert {finding.subject for finding in refused.value.report.errors()} == set(steps)
    arrays = {name: array for name, array in arrays.items() if name not in steps}
    expected = {
        f"{before}moe.w{after}": np.stack([arrays[f"{before}moe.{number}.w{after}"] for number in range(2)])
        for before, after in (("", ""), ("optim.", ".exp_avg"), ("optim.", ".exp_avg_sq"))
    }
    assert_gives(arrays, expected, EXPERTS, companions=(ADAM,))


def test_moments_of_merged_and_parted_parameters_follow_with_the_same_literal_sizes() -> None:
    arrays: dict[str, Any] = {}
    for letter, rows in zip("qkv", (4, 1, 1), strict=True):
        arrays |= {n: a for n, a in moments(f"attn.{letter}.w", shape=(rows, 2)).items() if not n.endswith("step")}
    expected = {
        f"{before}attn.qkv.w{after}": np.concatenate([arrays[f"{before}attn.{letter}.w{after}"] for letter in "qkv"])
        for before, after in (("", ""), ("optim.", ".exp_avg"), ("optim.", ".exp_avg_sq"))
    }
    plan = assert_gives(arrays, expected, MERGE, companions=(ADAM,))
    assert [[dict(op.params) for op in step.ops] for step in plan.steps] == [[{"axis": 0, "sizes": (4, 1, 1)}]] * 3


def test_an_incomplete_group_of_moments_is_refused_although_the_parameters_are_whole() -> None:
    arrays = {name: array for name, array in moments("moe.0.w", "moe.1.w").items() if not name.endswith("step")}
    del arrays["optim.moe.0.w.exp_avg"]
    ((code, message),) = refusal(arrays, EXPERTS, companions=(ADAM,))
    assert code == "WK214"
    assert "0 is missing" in message or "optim.moe.0.w.exp_avg" in message


def test_moments_of_a_dropped_parameter_are_dropped_with_its_reason() -> None:
    arrays = moments("old.w", "net.w")
    drop = Line("d", ("old.{rest:path}",), fate="drop")
    plan = planned(arrays, drop, Line("r", ("net.{p:name}",), ("new.{p:name}",)), companions=(ADAM,))
    assert set(plan.dropped) == {name for name in arrays if "old.w" in name}
    assert set(plan.dropped.values()) == {"said so"}


def test_moments_of_a_parameter_that_no_rule_takes_are_refused_with_it() -> None:
    arrays = {**moments("net.w"), **tensors("optim.nobody.w.exp_avg", "optim.net.w.other", "optim.net.w")}
    with pytest.raises(PlanError) as refused:
        planned(arrays, Line("r", ("net.{p:name}",), ("new.{p:name}",)), companions=(ADAM,))
    subjects = {finding.subject for finding in refused.value.report.errors()}
    assert subjects == {"optim.nobody.w.exp_avg", "optim.net.w.other", "optim.net.w"}


def test_moments_under_a_wrapper_travel_with_the_ops_or_are_refused() -> None:
    arrays = {
        "module.net.w": tensor("w", "float32", 2, 3),
        "optim.module.net.w.exp_avg": tensor("m", "float32", 2, 3),
    }
    line = Line("r", ("net.{p:name}",), ("new.{p:name}",), ({"op": "transpose"},))
    try:
        plan = planned(arrays, line, companions=(ADAM,))
    except PlanError as refused:
        subjects = [finding.subject for finding in refused.report.errors()]
    else:
        subjects = []
        assert {step.targets for step in plan.steps} == {("new.w",), ("optim.new.w.exp_avg",)}
        assert all(step.ops for step in plan.steps)
    assert subjects in ([], ["optim.module.net.w.exp_avg"])
