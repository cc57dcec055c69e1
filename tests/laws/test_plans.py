"""L4 to L7: a plan exists exactly where both partitions hold, does what the rules say, can be undone and be kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from locations import ROOT
from mapping_strategies import BIJECTIVE, INJECTIVE, Case, Line, Refused, cases, damaged_cases, judge, same_bits, tensor
from weightkit.core.jsonio import canonical_json
from weightkit.core.names import parse_template
from weightkit.core.plan import Plan
from weightkit.core.rule import AxisNote, Choices, Companions, Mapping, Rule, RuleOp, Spelling, renaming
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine import execution, inversion, matching, planning
from weightkit.engine.execution import Execution
from weightkit.engine.forecast import peak_bytes
from weightkit.engine.inversion import invert_plan
from weightkit.engine.planning import assert_total, make_plan, plan_from_rules
from weightkit.engine.saved_plan import read_plan
from weightkit.errors import PlanError, WeightkitError

LAW = settings(deadline=None, max_examples=150, database=None)
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/json/plan.v1.schema.json").read_text(encoding="utf-8"))
)


def planned(case: Case) -> Plan:
    """The engine's plan."""
    if case.target is None:
        return plan_from_rules(case.source, case.mapping, case.choices)
    return make_plan(case.source, case.target, case.mapping, case.choices)


def applied(plan: Plan, arrays: dict[str, Any]) -> dict[str, Any]:
    """What the plan makes of ``arrays``; a name that comes twice fails."""
    made: dict[str, Any] = {}
    for name, array in Execution(plan, lambda name: arrays[name].copy()).arrays():
        assert name not in made
        made[name] = array
    return made


def assert_same(made: dict[str, Any], expected: dict[str, Any]) -> None:
    assert made.keys() == expected.keys()
    for name, array in expected.items():
        assert same_bits(made[name], array), name


# ---- L4


def check_both_partitions(case: Case) -> None:
    try:
        verdict = judge(case)
    except Refused:
        with pytest.raises(PlanError) as refused:
            planned(case)
        assert refused.value.report.errors()
        assert refused.value.report.exit_code == 1
        return
    plan = planned(case)
    assert_total(plan)
    steps = {tuple(sorted(step.sources)): tuple(sorted(step.targets)) for step in plan.steps if step.sources}
    assert steps == {sources: made for sources, made in verdict.made_of.items() if sources[0] != "init"}
    assert set(plan.dropped) == verdict.dropped
    assert all(plan.dropped.values())
    assert set(plan.left_out) == verdict.left_out
    assert {name: second.of for name, second in plan.second_names.items()} == verdict.seconds
    assert plan.op_class == ("LOSSY" if "LOSSY" in verdict.classes else "INJ" if "INJ" in verdict.classes else "BIJ")
    assert_same(applied(plan, case.arrays), verdict.values)


@settings(LAW, max_examples=400)
@given(damaged_cases())
def test_planning_succeeds_exactly_where_both_partitions_hold_and_gives_what_numpy_gives(case: Case) -> None:
    assume(_ties_hold(case))
    check_both_partitions(case)


@LAW
@given(cases(), st.sampled_from(("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")))
def test_what_a_wrapper_puts_in_front_of_the_names_changes_nothing(case: Case, wrapper: str) -> None:
    wrapped = replace(case, arrays={f"{wrapper}{name}": array for name, array in case.arrays.items()})
    assert_same(applied(planned(wrapped), wrapped.arrays), judge(case).values)


def _ties_hold(case: Case) -> bool:
    """Whether what should be equal is: if not, that shows when the values are read, and has tests of its own."""
    try:
        verdict = judge(case)
    except Refused:
        return True
    values = verdict.values
    if not all(same_bits(case.arrays[name], case.arrays[of]) for name, of in (verdict.seconds | case.ties).items()):
        return False
    ties = case.goal_ties.items()
    return all(name not in values or of not in values or same_bits(values[name], values[of]) for name, of in ties)


def check_there_and_back(case: Case) -> None:
    plan = planned(case)
    back = invert_plan(plan)
    assert_total(back)
    assert_same(applied(back, applied(plan, case.arrays)), case.arrays)


@LAW
@given(cases(BIJECTIVE))
def test_a_plan_of_bijective_steps_is_undone_bit_for_bit(case: Case) -> None:
    check_there_and_back(case)
    inverse = invert_plan(planned(case))
    if all(step.sources for step in planned(case).steps):
        assert inverse.op_class == "BIJ"
        twice = invert_plan(inverse)
        assert [(s.sources, s.targets, s.ops) for s in twice.steps] == [
            (s.sources, s.targets, s.ops) for s in planned(case).steps
        ]


@LAW
@given(cases(INJECTIVE))
def test_a_plan_that_only_adds_is_undone_bit_for_bit(case: Case) -> None:
    check_there_and_back(case)


@LAW
@given(cases())
def test_undoing_is_refused_with_exactly_the_lossy_targets_and_the_dropped_names(case: Case) -> None:
    verdict, plan = judge(case), planned(case)
    lost = verdict.lossy | verdict.dropped
    if not lost:
        check_there_and_back(case)
        return
    with pytest.raises(PlanError) as refused:
        invert_plan(plan)
    assert Counter(finding.subject for finding in refused.value.report.errors()) == Counter(lost)


@pytest.mark.parametrize("changed", ["pad", "copy"])
def test_undoing_is_refused_where_what_was_added_has_changed(changed: str) -> None:
    ops: tuple[dict[str, Any], ...] = ({"op": "pad", "axis": 0, "size": 3},) if changed == "pad" else ({"op": "copy"},)
    targets = ("t",) if changed == "pad" else ("t", "u")
    case = Case({"s": tensor("s", "float32", 2)}, (Line("r", ("s",), targets, ops),))
    plan = planned(case)
    made = {name: array.copy() for name, array in applied(plan, case.arrays).items()}
    made[targets[-1]][-1] += 1
    with pytest.raises(PlanError) as refused:
        applied(invert_plan(plan), made)
    assert refused.value.report.errors()


def test_names_that_the_target_ties_must_be_given_equal_values() -> None:
    case = Case(
        {"a": tensor("a", "float32", 2), "b": tensor("b", "float32", 2)},
        (Line("all", ("{rest:path}",), ("{rest:path}",)),),
        goals={"a": ("float32", (2,)), "b": ("float32", (2,))},
        goal_ties={"b": "a"},
    )
    with pytest.raises(PlanError) as refused:
        applied(planned(case), case.arrays)
    assert [finding.code for finding in refused.value.report.errors()] == ["WK211"]
    assert_same(
        applied(planned(case), {"a": case.arrays["a"], "b": case.arrays["a"]}), dict.fromkeys("ab", case.arrays["a"])
    )


def test_a_second_name_must_hold_what_the_first_holds() -> None:
    case = Case(
        {"x": tensor("x", "float32", 2), "y": tensor("y", "float32", 2)},
        (Line("all", ("{rest:path}",), ("{rest:path}",)),),
        spellings=(("x", "y"),),
    )
    with pytest.raises(PlanError) as refused:
        applied(planned(case), case.arrays)
    assert [(finding.code, finding.subject) for finding in refused.value.report.errors()] == [("WK211", "x")]
    assert_same(applied(planned(case), dict.fromkeys("xy", case.arrays["y"])), {"y": case.arrays["y"]})


def test_a_plan_that_repeats_a_tied_tensor_can_be_undone_and_its_inverse_kept() -> None:
    case = Case(
        {"a": tensor("a", "float32", 2)},
        (Line("all", ("{rest:path}",), ("{rest:path}",)),),
        goals={"a": ("float32", (2,)), "b": ("float32", (2,))},
        goal_ties={"b": "a"},
    )
    check_there_and_back(case)
    back = invert_plan(planned(case))
    assert read_plan(canonical_json(back.to_dict()), origin="kept").digest == back.digest


# ---- ties and spellings by which a tensor could fall between two names


@pytest.mark.parametrize(
    ("names", "spellings"),
    [
        ("xy", (("x", "y"), ("y", "x"))),
        ("xyz", (("x", "y"), ("y", "z"), ("z", "x"))),
        (("0.1.w", "1.0.w"), (("{a}.{b}.w", "{b}.{a}.w"),)),
    ],
)
def test_names_that_stand_for_each_other_do_not_all_vanish(names: Any, spellings: Any) -> None:
    arrays = dict.fromkeys(names, tensor("one", "float32", 2))
    case = Case(arrays, (Line("all", ("{rest:path}",), ("{rest:path}",)),), spellings=spellings)
    try:
        made = applied(planned(case), arrays)
    except WeightkitError:
        return
    assert made


def test_a_second_name_stands_for_a_tensor_that_a_step_takes() -> None:
    arrays = dict.fromkeys("xyz", tensor("one", "float32", 2))
    spellings = (("x", "y"), ("y", "z"))
    case = Case(arrays, (Line("all", ("{rest:path}",), ("{rest:path}",)),), spellings=spellings)
    try:
        plan = planned(case)
    except WeightkitError:
        return
    taken = {name for step in plan.steps for name in step.sources}
    assert {second.of for second in plan.second_names.values()} <= taken
    assert_same(applied(invert_plan(plan), applied(plan, arrays)), arrays)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_tied_tensors_that_the_rules_part_both_arrive_with_a_wrapper_and_without(prefix: str) -> None:
    one = tensor("one", "float32", 2)
    lines = (Line("1", ("a",), ("x",)), Line("2", ("b",), ("y",)))
    case = Case({f"{prefix}a": one, f"{prefix}b": one}, lines, ties={f"{prefix}b": f"{prefix}a"})
    assert_same(applied(planned(case), case.arrays), {"x": one, "y": one})


def test_a_wrapped_name_beside_the_same_name_is_a_collision() -> None:
    case = Case(dict.fromkeys(("module.a", "a"), tensor("a", "float32", 2)), (Line("r", ("a",), ("b",)),))
    with pytest.raises(PlanError) as refused:
        planned(case)
    assert [finding.code for finding in refused.value.report.errors()] == ["WK203"]


def test_a_rule_of_two_sources_and_two_targets_without_ops_records_the_digest_of_each() -> None:
    case = Case({n: tensor(n, "float32", 2) for n in "ab"}, (Line("r", ("a", "b"), ("c", "d")),))
    plan = planned(case)
    run = Execution(plan, case.arrays.__getitem__)
    assert_same(dict(run.arrays()), {"c": case.arrays["a"], "d": case.arrays["b"]})
    assert (run.digests["c"], run.digests["d"]) == (run.source_digests["a"], run.source_digests["b"])


def test_a_tensor_that_is_cast_and_then_parted_is_made() -> None:
    ops: tuple[dict[str, Any], ...] = ({"op": "cast", "to": "float64"}, {"op": "split", "axis": 0, "sizes": [1, 2]})
    case = Case({"a": tensor("a", "float32", 3)}, (Line("r", ("a",), ("c", "d"), ops),))
    wide = case.arrays["a"].astype("float64")
    assert_same(applied(planned(case), case.arrays), {"c": wide[:1], "d": wide[1:]})


# ---- L5


def check_order_does_not_matter(case: Case, data: st.DataObject) -> None:
    rules = case.mapping.rules
    notes = (AxisNote("*", 0, "T=1"), AxisNote("t*", 0, "T=2"))
    spellings = (Spelling(parse_template("u.{rest:path}"), parse_template("{rest:path}"), "1"),
                 Spelling(parse_template("w.x"), parse_template("w.y"), "2"))  # fmt: skip
    companions = (Companions("opt", ("m", "v"), ("step",)), Companions("ema", ("shadow",)))
    arrays = {**case.arrays, **{f"ema.{name}.shadow": array for name, array in case.arrays.items()}}

    def digests(*parts: Any) -> tuple[str, str]:
        mapping = Mapping("m", 1, "a", "b", parts[0], parts[1], parts[2], notes)
        state = replace(case, arrays=arrays).source
        if case.target is None:
            plan = plan_from_rules(state, mapping, case.choices)
        else:
            plan = make_plan(case.source, case.target, mapping, case.choices)
        return mapping.digest, plan.digest

    shuffled = [tuple(data.draw(st.permutations(part))) for part in (rules, spellings, companions)]
    assert digests(rules, spellings, companions) == digests(*shuffled)


@LAW
@given(cases(BIJECTIVE, known=None), st.data())
def test_the_order_of_rules_companions_and_spellings_does_not_change_the_plan(case: Case, data: st.DataObject) -> None:
    check_order_does_not_matter(case, data)


@pytest.mark.parametrize(
    "parts",
    [
        {"spellings": tuple(Spelling(parse_template("x"), parse_template(of), "why") for of in "yz")},
        {"companions": (Companions("opt", ("m",)), Companions("opt.state", ("m",)))},
    ],
    ids=["spellings", "companions"],
)
def test_of_two_that_fit_one_name_the_first_does_not_win(parts: dict[str, tuple[Any, ...]]) -> None:
    rules = tuple(
        renaming(name, parse_template(name), parse_template(f"new.{name}")) for name in ("x", "y", "z", "state.x")
    )
    state = StateSpec(dict.fromkeys(("x", "y", "z", "state.x", *(["opt.state.x.m"] if "companions" in parts else [])),
                                    spec("float32", 1)))  # fmt: skip

    def outcome(**given: Any) -> str:
        try:
            return plan_from_rules(state, Mapping("m", 1, "a", "b", rules, **given)).digest
        except WeightkitError as error:
            return type(error).__name__

    assert outcome(**parts) == outcome(**{key: value[::-1] for key, value in parts.items()})


# ---- L6


@st.composite
def chains(draw: st.DrawFn) -> tuple[dict[str, Any], list[Line], list[Line], list[Line]]:
    """Tensors; rules from a to b, from b to c, and the rules from a to c that say the same in one step."""
    arrays: dict[str, Any] = {}
    first, second, whole = [], [], []
    for number in range(draw(st.integers(1, 4))):
        shape = tuple(draw(st.lists(st.integers(1, 3), min_size=2, max_size=3)))
        for name in draw(st.sets(st.sampled_from(("0.w", "3.w", "12.b")), min_size=1)):
            arrays[f"a{number}.{name}"] = tensor(f"{number}{name}", "float32", *shape)
        one, other = (tuple(draw(st.permutations(range(len(shape))))) for _ in range(2))
        axes = [[*one], [*other], [one[axis] for axis in other]]
        ops: list[tuple[dict[str, Any], ...]] = [({"op": "permute", "axes": order},) for order in axes]
        a, b, c = f"a{number}.{{i}}.{{p:name}}", f"b{number}.{{p:name}}.{{i*2+1}}", f"c.{{i*5}}.{number}.{{p:name}}"
        first.append(Line(f"1-{number}", (a,), (b,), ops[0]))
        second.append(Line(f"2-{number}", (b,), (c,), ops[1]))
        whole.append(Line(f"3-{number}", (a,), (c,), ops[2]))
    return arrays, first, second, whole


@LAW
@given(chains())
def test_two_plans_one_after_the_other_give_what_the_plan_of_both_gives(
    case: tuple[dict[str, Any], list[Line], list[Line], list[Line]],
) -> None:
    arrays, first, second, whole = case
    between = applied(planned(Case(arrays, tuple(first))), arrays)
    twice = applied(planned(Case(between, tuple(second))), between)
    assert_same(applied(planned(Case(arrays, tuple(whole))), arrays), twice)


# ---- L7


def with_digests(plan: Plan) -> Plan:
    return replace(plan, digests=dict.fromkeys(plan.source, "0" * 32), config={"net": {"frames": 3, "cameras": ["a"]}})


@LAW
@given(cases())
def test_a_kept_plan_is_read_back_as_itself_and_fits_its_schema(case: Case) -> None:
    for plan in (planned(case), with_digests(planned(case))):
        text = canonical_json(plan.to_dict())
        SCHEMA.validate(json.loads(text))
        again = read_plan(text, origin="kept")
        assert again == plan
        assert again.digest == plan.digest
        assert canonical_json(again.to_dict()) == text


def fixed_cases() -> list[Case]:
    """A few cases that every process has alike."""
    names = [f"s.{number}.{parameter}" for number in range(3) for parameter in ("weight", "bias")]
    arrays = {name: tensor(name, "float32", 2, 2) for name in names}
    plain = Line("r", ("s.{i}.{p:name}",), ("t.{p:name}.{i*2}",), ({"op": "transpose"},))
    stack = Line("r", ("s.{i}.{p:name}",), ("t.{p:name}",), ({"op": "stack", "axis": 0, "over": "i"},))
    drop = Line("d", ("s.{i}.bias",), fate="drop", overrides=("r",))
    return [Case(arrays, lines) for lines in ((plain,), (stack,), (plain, drop), (drop, stack))]


def test_digests_are_the_same_in_another_process() -> None:
    program = (
        "import sys, test_plans as t\n"
        "from weightkit.engine.saved_plan import read_plan\n"
        "for case in t.fixed_cases(): print(case.mapping.digest, t.planned(case).digest)\n"
        "for line in sys.stdin: print(read_plan(line, origin='kept').digest)\n"
    )
    plans = [planned(case) for case in fixed_cases()]
    kept = b"\n".join(canonical_json(plan.to_dict()) for plan in plans)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=kept,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "4711"},
        timeout=120,
        check=True,
    )
    here = [f"{case.mapping.digest} {plan.digest}" for case, plan in zip(fixed_cases(), plans, strict=True)]
    assert done.stdout.decode().split("\n")[:-1] == [*here, *(plan.digest for plan in plans)]


# ---- what it takes


def chain(*ops: RuleOp, sources: int = 1, targets: int = 1, shape: tuple[int, ...] = (512, 1024)) -> tuple[Any, Plan]:
    names = [f"s{number}" for number in range(sources)]
    state = StateSpec({name: spec("float32", *shape) for name in names})
    rule = Rule(
        "r",
        tuple(map(parse_template, names)),
        tuple(parse_template(f"t{number}") for number in range(targets)),
        ops,
    )
    return state, plan_from_rules(state, Mapping("m", 1, "a", "b", (rule,)), Choices(allow_lossy=True))


@pytest.mark.parametrize(
    ("ops", "sources", "targets"),
    [
        ((), 1, 1),
        ((RuleOp("transpose"),), 1, 1),
        ((RuleOp("concat", {"axis": 0}),), 3, 1),
        ((RuleOp("stack", {"axis": 1}),), 2, 1),
        ((RuleOp("split", {"axis": 0, "sizes": [100, 400, 12]}),), 1, 3),
        ((RuleOp("copy"),), 1, 2),
        ((RuleOp("concat", {"axis": 0}), RuleOp("transpose")), 2, 1),
        ((RuleOp("transpose"), RuleOp("split", {"axis": 0, "sizes": [512, 512]})), 1, 2),
        ((RuleOp("cast", {"to": "float64"}),), 1, 1),
        ((RuleOp("cast", {"to": "float64"}), RuleOp("transpose")), 1, 1),
        ((RuleOp("pad", {"axis": 0, "size": 600}),), 1, 1),
        ((RuleOp("slice", {"axis": 0, "start": 0, "stop": 100}),), 1, 1),
    ],
    ids=lambda value: "+".join(op.name for op in value) or "rename" if isinstance(value, tuple) else str(value),
)
def test_the_forecast_is_what_the_arrays_take(ops: tuple[RuleOp, ...], sources: int, targets: int) -> None:
    state, plan = chain(*ops, sources=sources, targets=targets)
    read = {name: np.dtype("float32") for name in state}

    def run() -> None:
        for _, array in Execution(plan, lambda name: np.ones(state[name].shape, read[name])).arrays():
            del array

    run()  # what is imported at first use is not what the arrays take
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak == pytest.approx(peak_bytes(plan), rel=0.1)


# ---- mutants: each law has an engine that breaks it


def a_planner_skips_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def match(self: Any, name: str, kept: Any) -> None:
        if name != next(iter(kept)):
            original(self, name, kept)
        else:
            self.dropped[name] = "overlooked"

    original = planning._Planner._match
    monkeypatch.setattr(planning._Planner, "_match", match)


def a_matcher_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    def matches(self: Any, name: str) -> Any:
        hits = original(self, name)
        if len(hits) == 1 and hits[0].rule.id in self.fillers:
            further = self.fillers[hits[0].rule.id].fill(hits[0].bound)
            again = original(self, further) if further is not None and further != name else []
            return again or hits
        return hits

    original = matching.Matcher.matches
    monkeypatch.setattr(matching.Matcher, "matches", matches)


def a_fill_forgets_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(self: Any, bound: Any) -> Any:
        return original(self, {name: 0 if isinstance(value, int) else value for name, value in bound.items()})

    original = matching.Filler.fill
    monkeypatch.setattr(matching.Filler, "fill", fill)


def a_more_specific_rule_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def matches(self: Any, name: str) -> Any:
        hits = original(self, name)
        return sorted(hits, key=lambda hit: len(hit.bound))[:1]

    original = matching.Matcher.matches
    monkeypatch.setattr(matching.Matcher, "matches", matches)


def a_split_comes_in_the_wrong_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(self: Any, step: Any) -> Any:
        arrays = original(self, step)
        specs = {array.shape for array in arrays}
        return arrays[::-1] if len(arrays) > 1 and len(specs) == 1 else arrays

    original = execution.Execution._apply
    monkeypatch.setattr(execution.Execution, "_apply", apply)


def an_inversion_leaves_out_an_op(monkeypatch: pytest.MonkeyPatch) -> None:
    def invert(plan: Plan) -> Plan:
        found = original(plan)
        return replace(found, steps=tuple(replace(step, ops=step.ops[:-1]) for step in found.steps))

    original = inversion.invert_plan
    monkeypatch.setitem(globals(), "invert_plan", invert)


def an_inversion_reverses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def invert(plan: Plan) -> Plan:
        found = original(plan)
        return replace(found, steps=tuple(replace(step, ops=step.ops[::-1]) for step in found.steps))

    original = inversion.invert_plan
    monkeypatch.setitem(globals(), "invert_plan", invert)


def a_digest_depends_on_the_order_of_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_dict(self: Any) -> Any:
        return {**original(self), "rules": [rule.to_dict() for rule in self.rules]}

    original = Mapping.to_dict
    monkeypatch.setattr(Mapping, "to_dict", to_dict)


MUTANTS = {
    a_planner_skips_one_name: "partitions",
    a_matcher_chains: "partitions",
    a_fill_forgets_a_variable: "partitions",
    a_more_specific_rule_wins: "partitions",
    a_split_comes_in_the_wrong_order: "partitions",
    an_inversion_leaves_out_an_op: "back",
    an_inversion_reverses_nothing: "back",
    a_digest_depends_on_the_order_of_rules: "order",
}
QUICK = settings(deadline=None, max_examples=250, database=None, phases=[Phase.generate], report_multiple_bugs=False)


@QUICK
@given(damaged_cases())
def _partitions(case: Case) -> None:
    assume(_ties_hold(case))
    check_both_partitions(case)


@QUICK
@given(cases(BIJECTIVE))
def _back(case: Case) -> None:
    check_there_and_back(case)


@QUICK
@given(cases(BIJECTIVE), st.data())
def _order(case: Case, data: st.DataObject) -> None:
    check_order_does_not_matter(case, data)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_mutant_does_not_survive_its_law(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    law: Any = {"partitions": _partitions, "back": _back, "order": _order}[MUTANTS[mutant]]
    mutant(monkeypatch)
    with pytest.raises((AssertionError, WeightkitError, pytest.fail.Exception)):
        law()
