"""Law 1: every source name is used or dropped with a reason, every target name made or left out, each exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robobase_files import hidden_names, robobase_spec, robobase_table, second_name
from strategies import drqv2_configs, state_specs
from weightkit.architectures.drqv2.architecture import ARCHITECTURE
from weightkit.architectures.drqv2.layouts.robobase_drqv2 import LAYOUT as ROBOBASE
from weightkit.core.plan import ConversionTarget, Plan
from weightkit.core.report import Report
from weightkit.core.rule import Choices, identity_mapping
from weightkit.core.tensor import StateSpec, spec
from weightkit.core.text import printable
from weightkit.engine import planning
from weightkit.engine.planning import assert_total, make_plan
from weightkit.errors import PlanError, UsageError

LAW = settings(deadline=None, max_examples=120, database=None)
MAPPING = ROBOBASE.mapping(ARCHITECTURE.default_config())
Planner = Callable[..., Plan]


def shown(name: str) -> str:
    """A name as the subject of a finding: in full, and printable."""
    return printable(name, longest=len(name))


def assert_accounts_once(plan: Plan, source: StateSpec, target: StateSpec) -> None:
    """The law, written down a second time and not from the planner: two partitions, reasons, no name in both."""
    used = Counter([name for step in plan.steps for name in step.sources])
    used.update(list(plan.dropped))
    used.update(list(plan.second_names))
    made = Counter([name for step in plan.steps for name in step.targets])
    made.update(list(plan.left_out))
    made.update(list(plan.repeated))
    assert used == Counter(list(source))
    assert made == Counter(list(target))
    assert all(plan.dropped.values())
    assert all(plan.left_out.values())
    for name, second in plan.second_names.items():
        assert second.why
        assert second.of in source
        assert second.of not in plan.second_names
        assert source[name] == source[second.of]
    for step in plan.steps:
        assert step.source_specs == tuple(source[name] for name in step.sources)
        assert step.target_specs == tuple(target[name] for name in step.targets)


def renamed(plan: Plan) -> dict[str, str]:
    """Source name -> target name of a plan that only renames."""
    assert all(len(step.sources) == len(step.targets) == 1 for step in plan.steps)
    return {step.sources[0]: step.targets[0] for step in plan.steps}


def holds(source: StateSpec, config: Any, choices: Choices) -> bool:
    """Whether both partitions hold, by RoboBase's naming alone."""
    table = robobase_table(config)
    target = ARCHITECTURE.target(config)
    claims: Counter[str] = Counter()
    for name, found in source.tensors.items():
        first = f"actor.{name}" if name.startswith("actor_model.") else name
        if first != name and first in source:
            continue
        if any(fnmatchcase(name, pattern) for pattern in choices.drop):
            continue
        if first in hidden_names(config):
            continue
        goal = table.get(first)
        if goal is None or found != target.state[goal]:
            return False
        claims[goal] += 1
    for goal in target.state:
        if claims[goal] > 1:
            return False
        if claims[goal] == 0:
            named = [pattern for pattern in choices.allow_missing if fnmatchcase(goal, pattern)]
            if not named or (goal in target.acting and goal not in named):
                return False
    return True


@st.composite
def damaged(draw: st.DrawFn) -> tuple[StateSpec, Any, Choices]:
    """A RoboBase state with names taken out, put in and reshaped, and a user's choices about it."""
    config = draw(drqv2_configs())
    whole = robobase_spec(config, twice=draw(st.booleans()))
    names = list(whole)
    some = st.lists(st.sampled_from(names), max_size=2, unique=True)
    gone = draw(some)
    tensors = {name: found for name, found in whole.tensors.items() if name not in gone}
    for name in draw(some):
        extra = draw(
            st.sampled_from(
                (f"{name}.copy", f"teacher.{name}", name.replace(".0.", ".00."), name.replace("qs.1", "qs.7"))
            )
        )
        tensors[extra] = whole[name]
    if draw(st.booleans()):
        for name in draw(some):
            if name in tensors and not name.endswith("hidden_state") and name not in whole.aliases.values():
                tensors[name] = spec("float32", *whole[name].shape, 1)
    aliases = {
        a: f for a, f in whole.aliases.items() if tensors.get(a) is not None and tensors.get(a) == tensors.get(f)
    }
    source = StateSpec(tensors, aliases)
    firsts = [n for n in source if second_name(n) is None and not n.startswith("actor_model.")]
    drop = tuple(draw(st.lists(st.sampled_from(firsts), max_size=2, unique=True)))
    lost = [goal for name, goal in robobase_table(config).items() if name not in source or name in drop]
    goals = list(ARCHITECTURE.spec(config))
    missing = draw(st.lists(st.sampled_from([*lost, *lost, goals[0], "critic*", "critic_target.*"]), max_size=4))
    return source, config, Choices(drop=drop, allow_missing=tuple(dict.fromkeys(missing)))


@LAW
@given(damaged())
def test_planning_succeeds_exactly_where_both_partitions_hold(case: tuple[StateSpec, Any, Choices]) -> None:
    source, config, choices = case
    target = ARCHITECTURE.target(config)
    try:
        plan = make_plan(source, target, MAPPING, choices)
    except PlanError as refused:
        report = refused.report
        assert not holds(source, config, choices)
        assert report.errors()
        assert report.exit_code == 1
        return
    assert holds(source, config, choices)
    assert_accounts_once(plan, source, target.state)
    assert_total(plan)
    for name, goal in renamed(plan).items():
        first = f"actor.{name}" if name.startswith("actor_model.") else name
        assert robobase_table(config)[first] == goal


@LAW
@given(state_specs(), state_specs(), st.booleans())
def test_names_that_are_kept_are_accounted_for_or_named_in_the_refusal(
    source: StateSpec, other: StateSpec, same: bool
) -> None:
    target = source if same else other
    tied = {n for n in target if any(m in source and target.canonical(m) == target.canonical(n) for m in target)}
    try:
        plan = make_plan(source, ConversionTarget("as it is", target), identity_mapping("source"))
    except PlanError as error:
        subjects = {finding.subject for finding in error.report.errors()}
        assert {shown(n) for n in source if n not in target and source.canonical(n) == n} <= subjects
        assert {shown(n) for n in target if n not in source and n not in tied} <= subjects
        return
    assert set(plan.repeated) <= tied
    assert dict(source.tensors) == {n: found for n, found in target.tensors.items() if n not in plan.repeated}
    assert_accounts_once(plan, source, target)


@LAW
@given(drqv2_configs(), st.booleans())
def test_a_complete_agent_is_used_up_but_for_its_live_state(config: Any, twice: bool) -> None:
    source, target = robobase_spec(config, twice=twice), ARCHITECTURE.target(config)
    plan = make_plan(source, target, MAPPING)
    assert_accounts_once(plan, source, target.state)
    assert renamed(plan) == robobase_table(config)
    assert set(plan.dropped) == set(hidden_names(config))
    assert all("live state" in why for why in plan.dropped.values())
    seconds = {second_name(name): name for name in source if second_name(name)} if twice else {}
    assert {name: second.of for name, second in plan.second_names.items()} == seconds
    assert not any(second.checked for second in plan.second_names.values())
    assert (plan.left_out, plan.op_class) == ({}, "BIJ")


def one_config() -> Any:
    from strategies import SMALL_DRQV2, drqv2_config

    return drqv2_config(SMALL_DRQV2)


def test_the_order_of_patterns_does_not_decide_what_is_allowed_to_be_missing() -> None:
    config = one_config()
    source = robobase_spec(config)
    source = source.only(name for name in source if "out_mlp" not in name)
    named = [n for n in ARCHITECTURE.spec(config) if n.startswith("actor.head")]
    for patterns in ((*named, "*.head.*"), ("*.head.*", *named)):
        plan = make_plan(source, ARCHITECTURE.target(config), MAPPING, Choices(allow_missing=patterns))
        assert set(named) <= set(plan.left_out)


def test_a_pattern_does_not_leave_out_what_choosing_an_action_reads() -> None:
    config = one_config()
    source = robobase_spec(config)
    source = source.only(name for name in source if "out_mlp" not in name)
    with pytest.raises(PlanError) as refused:
        make_plan(source, ARCHITECTURE.target(config), MAPPING, Choices(allow_missing=("*.head.*",)))
    assert {finding.subject for finding in refused.value.report.errors()} == {"actor.head.weight", "actor.head.bias"}


@pytest.mark.parametrize("side", ["drop", "allow_missing"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_name(side: str) -> None:
    config = one_config()
    name = "encoder.convs_per_cam.0.0.wieght" if side == "drop" else "encoder.front.0.wieght"
    with pytest.raises(UsageError, match="matches no") as refused:
        make_plan(robobase_spec(config), ARCHITECTURE.target(config), MAPPING, Choices(**{side: (name,)}))
    assert name.replace("wieght", "weight") in refused.value.message


def test_a_dropped_second_name_is_accounted_for_as_dropped() -> None:
    config = one_config()
    source = robobase_spec(config)
    plan = make_plan(source, ARCHITECTURE.target(config), MAPPING, Choices(drop=("actor_model.main_mlp.*",)))
    names = {name for name in source if name.startswith("actor_model.main_mlp.")}
    assert names <= set(plan.dropped)
    assert_accounts_once(plan, source, ARCHITECTURE.spec(config))


# ---- mutants: planners that lose a name


def skips_one_step(source: StateSpec, target: ConversionTarget, *rest: Any) -> Plan:
    plan = make_plan(source, target, *rest)
    return replace(plan, steps=plan.steps[:-1])


def maps_two_sources_to_one_target(source: StateSpec, target: ConversionTarget, *rest: Any) -> Plan:
    plan = make_plan(source, target, *rest)
    return replace(plan, steps=(*plan.steps[:-1], replace(plan.steps[-1], targets=plan.steps[0].targets)))


def uses_one_source_twice(source: StateSpec, target: ConversionTarget, *rest: Any) -> Plan:
    plan = make_plan(source, target, *rest)
    return replace(plan, steps=(*plan.steps[:-1], replace(plan.steps[-1], sources=plan.steps[0].sources)))


def forgets_what_it_dropped(source: StateSpec, target: ConversionTarget, *rest: Any) -> Plan:
    return replace(make_plan(source, target, *rest), dropped={})


def leaves_out_what_it_makes(source: StateSpec, target: ConversionTarget, *rest: Any) -> Plan:
    plan = make_plan(source, target, *rest)
    return replace(plan, left_out={plan.steps[0].targets[0]: "because"})


MUTANTS: list[Planner] = [
    skips_one_step,
    maps_two_sources_to_one_target,
    uses_one_source_twice,
    forgets_what_it_dropped,
    leaves_out_what_it_makes,
]


@pytest.mark.parametrize("check", [lambda plan, *_: assert_total(plan), assert_accounts_once])
@pytest.mark.parametrize("planner", MUTANTS)
def test_a_mutant_planner_does_not_survive_either_check(planner: Planner, check: Any) -> None:
    config = one_config()
    source, target = robobase_spec(config), ARCHITECTURE.target(config)
    check(make_plan(source, target, MAPPING), source, target.state)
    with pytest.raises(AssertionError):
        check(planner(source, target, MAPPING), source, target.state)


def test_a_planner_that_overlooks_a_source_name_is_stopped_by_its_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    config = one_config()
    original = planning.Matcher.matches

    def overlook(matcher: Any, name: str) -> Any:
        return original(matcher, name.removesuffix(".copy"))

    whole = robobase_spec(config)
    source = StateSpec({**whole.tensors, "critic.qs.0.out_mlp.0.bias.copy": spec("float32", 1)}, whole.aliases)
    monkeypatch.setattr(planning.Matcher, "matches", overlook)
    with pytest.raises(PlanError) as refused:
        make_plan(source, ARCHITECTURE.target(config), MAPPING)
    report: Report = refused.value.report
    assert [(f.code, f.subject) for f in report.errors()] == [("WK203", "critic.qs.0.head.bias")]
