"""Mappings read backwards, and two joined by way of the net's names."""

from __future__ import annotations

import pytest

from weightkit.core.plan import ConversionTarget
from weightkit.core.rule import Mapping
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.lint import lint
from weightkit.engine.planning import make_plan
from weightkit.engine.turning import backwards, joined, layout_target, same_name
from weightkit.errors import PlanError, RuleError
from weightkit.mapping_file import parse_mapping

TOP = 'name = "m"\nversion = 1\nsource_layout = "theirs"\ntarget_layout = "ours"\n'


def mapping(text: str) -> Mapping:
    return parse_mapping(TOP + text, origin="m.toml")


def rule(id: str, source: str, target: str, more: str = "") -> str:
    return f'[[rule]]\nid = "{id}"\nsource = "{source}"\ntarget = "{target}"\n{more}\n'


LISTED = mapping('[lists]\nheads = ["Q1", "Q2"]\n' + rule("q", "{q@heads}.{p:name}", "q.{q}.{p:name}"))


def test_a_listed_name_is_found_both_ways_and_no_third() -> None:
    name_of = backwards(LISTED, {})
    assert [name_of(f"q.{q}.weight") for q in range(3)] == ["Q1.weight", "Q2.weight", None]
    source = StateSpec({"Q1.weight": spec("float32", 2), "Q2.weight": spec("float32", 2)})
    target = ConversionTarget("ours", StateSpec({f"q.{q}.weight": spec("float32", 2) for q in range(2)}))
    plan = make_plan(source, target, LISTED)
    assert [(step.sources[0], step.targets[0]) for step in plan.steps] == [
        ("Q1.weight", "q.0.weight"), ("Q2.weight", "q.1.weight"),
    ]  # fmt: skip
    with pytest.raises(PlanError):
        make_plan(StateSpec({"Q3.weight": spec("float32", 2)}), target, LISTED)


def test_lint_knows_what_a_list_holds() -> None:
    rules = rule("q", "{q@heads}.w", "q.{q}.w") + rule("t", "trunk.w", "t.w")
    assert not lint(mapping('[lists]\nheads = ["Q1", "Q2"]\n' + rules))
    taken = mapping('[lists]\nheads = ["Q1", "trunk"]\n' + rules)
    assert {fault.code for fault in lint(taken)} == {"WK210"}


@pytest.mark.parametrize(
    "text",
    [
        rule("t", "a", "b", "ops = [{op = 'transpose', axes = [1, 0]}]"),
        '[[rule]]\nid = "s"\nsources = ["a", "b"]\ntarget = "c"\nops = [{op = "concat", axis = 0}]\n',
        '[[rule]]\nid = "i"\ntarget = "c"\nfate = "init"\nwhy = "it starts afresh"\n',
    ],
)
def test_a_mapping_that_does_more_than_rename_leads_one_way(text: str) -> None:
    with pytest.raises(RuleError, match="leads one way only"):
        backwards(mapping(text), {})


def test_a_name_that_two_rules_would_give_is_an_error_and_not_a_choice() -> None:
    name_of = backwards(mapping(rule("a", "x.{p:name}", "y.{p:name}") + rule("b", "z.{p:name}", "y.{p:name}")), {})
    with pytest.raises(RuleError, match="two names"):
        name_of("y.weight")


def test_a_tensor_that_has_no_name_in_a_layout_is_named() -> None:
    native = ConversionTarget("ours", StateSpec({"q.0.w": spec("float32", 2), "q.7.w": spec("float32", 2)}))
    with pytest.raises(PlanError, match=r"q\.7\.w"):
        layout_target(native, LISTED, {}, "theirs")


def test_copies_become_one_tensor_by_same_and_one_becomes_several_by_copy() -> None:
    separate = StateSpec({"q.0.w": spec("float32", 2), "q.1.w": spec("float32", 2)})
    tied = StateSpec(separate.tensors, {"q.1.w": "q.0.w"})
    one = mapping(rule("w", "w", "q.0.w"))
    target = layout_target(ConversionTarget("ours", tied), one, {}, "theirs")
    name_of = backwards(one, {})
    together = joined(mapping(""), separate, same_name, target, tied, name_of, {})
    plan = make_plan(separate, target, together)
    assert [(step.sources, step.targets, [op.name for op in step.ops]) for step in plan.steps] == [
        (("q.0.w", "q.1.w"), ("w",), ["same"])
    ]
    apart = joined(one, tied, name_of, ConversionTarget("ours", separate), separate, same_name, {})
    plan = make_plan(StateSpec({"w": spec("float32", 2)}), ConversionTarget("ours", separate), apart)
    assert [(step.sources, step.targets, [op.name for op in step.ops]) for step in plan.steps] == [
        (("w",), ("q.0.w", "q.1.w"), ["copy"])
    ]
