"""Law 8: delete, rename, duplicate or reshape any one tensor, and the plan fails and names exactly that tensor."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robobase_files import cfg_of, hidden_names, robobase_spec, robobase_table, second_name
from strategies import SMALL_DRQV2, drqv2_config, drqv2_configs
from weightkit.architectures import recognise
from weightkit.architectures.drqv2.architecture import ARCHITECTURE
from weightkit.architectures.drqv2.layouts.robobase_drqv2 import LAYOUT as ROBOBASE
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.names import parse_template
from weightkit.core.plan import Plan
from weightkit.core.rule import Mapping, renaming
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.engine.execution import Execution, check_second_names
from weightkit.engine.planning import make_plan
from weightkit.errors import PlanError, WeightkitError

LAW = settings(deadline=None, max_examples=100, database=None)
MAPPING = ROBOBASE.mapping(ARCHITECTURE.default_config())
SMALL = drqv2_config(SMALL_DRQV2)


def edited(source: StateSpec, tensors: dict[str, TensorSpec]) -> StateSpec:
    """The state with other tensors; second names stay tied where both names are left and alike."""
    aliases = {a: f for a, f in source.aliases.items() if a in tensors and tensors.get(f) == tensors[a]}
    return StateSpec(tensors, aliases)


def without(source: StateSpec, *names: str) -> StateSpec:
    return edited(source, {name: found for name, found in source.tensors.items() if name not in names})


def renamed(source: StateSpec, old: str, new: str) -> StateSpec:
    return edited(source, {new if name == old else name: found for name, found in source.tensors.items()})


def reshaped(source: StateSpec, name: str, found: TensorSpec) -> StateSpec:
    return edited(source, {**source.tensors, name: found})


def subjects(source: StateSpec, config: Any) -> set[str]:
    """What the refusal names; a plan that holds is a survivor."""
    with pytest.raises(PlanError) as refused:
        make_plan(source, ARCHITECTURE.target(config), MAPPING)
    return {finding.subject for finding in refused.value.report.errors()}


def plan_of(source: StateSpec, config: Any = SMALL) -> Plan:
    return make_plan(source, ARCHITECTURE.target(config), MAPPING)


@LAW
@given(drqv2_configs(), st.data())
def test_a_deleted_tensor_is_the_one_that_is_named(config: Any, data: st.DataObject) -> None:
    name, goal = data.draw(st.sampled_from(list(robobase_table(config).items())))
    source = robobase_spec(config)
    both = [name, *([other] if (other := second_name(name)) else [])]
    assert subjects(without(source, *both), config) == {goal}


@LAW
@given(drqv2_configs(), st.data())
def test_a_renamed_tensor_is_named_with_the_target_that_it_leaves_empty(config: Any, data: st.DataObject) -> None:
    name, goal = data.draw(st.sampled_from(list(robobase_table(config).items())))
    source = robobase_spec(config, twice=False)
    segments = name.split(".")
    place = data.draw(st.integers(0, len(segments) - 1))
    segments[place] = data.draw(st.sampled_from((f"{segments[place]}x", "9", "009", "weight ", "_orig_mod", "٣")))
    new = ".".join(segments)
    if new in source:
        return
    found = subjects(renamed(source, name, new), config)
    assert found in ({new, goal}, {goal})
    if found == {goal}:  # the new name is one that RoboBase has too, and that is no weight
        assert new.endswith(".hidden_state")


@LAW
@given(drqv2_configs(), st.data())
def test_a_duplicated_tensor_is_the_one_that_is_named(config: Any, data: st.DataObject) -> None:
    source = robobase_spec(config)
    name = data.draw(st.sampled_from([*robobase_table(config), *hidden_names(config)]))
    for new in (f"{name}.copy", f"teacher.{name}", f"{name} ", name.replace(".weight", ".weight_orig") + "_"):
        assert subjects(edited(source, {**source.tensors, new: source[name]}), config) == {new}


@LAW
@given(drqv2_configs(), st.data())
def test_a_reshaped_tensor_is_the_one_that_is_named(config: Any, data: st.DataObject) -> None:
    name, goal = data.draw(st.sampled_from(list(robobase_table(config).items())))
    source = robobase_spec(config, twice=False)
    shape = list(source[name].shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    other = data.draw(
        st.sampled_from(
            (
                spec("float32", *shape, 1),
                spec("float32", 1, *shape),
                spec("float32", *shape[:axis], shape[axis] + 1, *shape[axis + 1 :]),
                spec("float32", *shape[:axis], 0, *shape[axis + 1 :]),
                spec("float32"),
                spec("float64", *shape),
                spec("int32", *shape),
            )
        )
    )
    assert subjects(reshaped(source, name, other), config) == {goal}


@LAW
@given(drqv2_configs(), st.data())
def test_a_second_name_of_another_shape_is_refused_by_name(config: Any, data: st.DataObject) -> None:
    source = robobase_spec(config)
    name = data.draw(st.sampled_from([n for n in robobase_table(config) if second_name(n)]))
    other = second_name(name)
    assert other is not None
    found = subjects(reshaped(source, other, spec("float32", *source[name].shape, 1)), config)
    assert found & {name, other, robobase_table(config)[name]}


@LAW
@given(drqv2_configs(), st.lists(st.integers(0, 9), max_size=4).map(tuple), st.data())
def test_live_state_of_any_shape_is_dropped_with_its_reason(
    config: Any, shape: tuple[int, ...], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(hidden_names(config)))
    plan = plan_of(reshaped(robobase_spec(config, twice=False), name, spec("float32", *shape)), config)
    assert "live state" in plan.dropped[name]


@LAW
@given(drqv2_configs(), st.data())
def test_the_loss_of_one_of_two_names_loses_no_tensor(config: Any, data: st.DataObject) -> None:
    source = robobase_spec(config)
    name = data.draw(st.sampled_from([n for n in robobase_table(config) if second_name(n)]))
    for gone in (name, second_name(name)):
        assert gone is not None
        plan = plan_of(without(source, gone), config)
        assert [name for step in plan.steps for name in step.targets] == list(ARCHITECTURE.spec(config))


# ---- the same without a configuration: the file itself says what it is


def opened(state: StateSpec, metadata: dict[str, object]) -> Checkpoint:
    def read(name: str) -> np.ndarray:
        return np.zeros(state[name].shape, state[name].dtype.name)

    return Checkpoint("snapshot.pt", "torch_zip", "agent", state, metadata, read, "data")


def survives(state: StateSpec, metadata: dict[str, object]) -> Plan | None:
    """The plan into whatever net the damaged state itself is taken for, None where there is none."""
    found = recognise(opened(state, metadata))
    if found is None or found.config is None:
        return None
    try:
        return plan_of(state, found.config)
    except PlanError:
        return None


@LAW
@given(drqv2_configs(), st.booleans(), st.data())
def test_no_net_is_found_that_a_damaged_agent_fits_silently(config: Any, stated: bool, data: st.DataObject) -> None:
    metadata = {"cfg": cfg_of(config)} if stated else {}
    source = robobase_spec(config, twice=False)
    name = data.draw(st.sampled_from(list(robobase_table(config))))
    damage = data.draw(st.sampled_from(("delete", "rename", "duplicate", "reshape")))
    shape = source[name].shape
    if damage == "delete":
        mutant = without(source, name)
    elif damage == "rename":
        mutant = renamed(source, name, f"{name}x")
    elif damage == "duplicate":
        mutant = edited(source, {**source.tensors, f"{name}.copy": source[name]})
    else:
        mutant = reshaped(source, name, spec("float32", *shape, 1))
    assert survives(mutant, metadata) is None


@LAW
@given(drqv2_configs(), st.booleans(), st.data())
def test_looking_at_a_damaged_agent_never_ends_in_anything_but_an_answer(
    config: Any, stated: bool, data: st.DataObject
) -> None:
    source = robobase_spec(config, twice=data.draw(st.booleans()))
    for name in data.draw(st.lists(st.sampled_from(list(source)), max_size=3)):
        tensors = dict(source.tensors)
        shape = data.draw(st.sampled_from(((), (0,), (3,), (2, 0, 3, 3), (1, 1, 1, 1, 1), None)))
        if shape is None:
            tensors.pop(name, None)
        else:
            tensors[name] = spec("float32", *shape)
        source = edited(source, tensors)
    with contextlib.suppress(WeightkitError):
        recognise(opened(source, {"cfg": cfg_of(config)} if stated else {}))


@pytest.mark.parametrize("value", [0, -1, 3, 10**4, 20_000, True, 1.5, "3", None, [1], {"a": 1}])
@pytest.mark.parametrize("key", ["frame_stack", "num_downsample_convs", "visual_observation_shape", "method", "cfg"])
def test_whatever_a_file_claims_about_itself_it_is_looked_at_to_the_end(key: str, value: Any) -> None:
    square = replace(SMALL, image_width=SMALL.image_height)
    cfg = cfg_of(square)
    if key == "num_downsample_convs":
        cfg["method"]["encoder_model"][key] = value
        del cfg["visual_observation_shape"]
    elif key == "visual_observation_shape":
        cfg[key] = [value, value]
    else:
        cfg[key] = value
    metadata = {"cfg": value if key == "cfg" else cfg}
    found = recognise(opened(robobase_spec(square), metadata))
    assert found is not None
    assert found.layout == "robobase-drqv2"


@pytest.mark.parametrize("names", [("encoder.convs_per_cam.0.0.weight", "encoder.convs_per_cam.0.0.bias")])
def test_an_agent_whose_first_convolution_is_gone_is_still_looked_at(names: tuple[str, ...]) -> None:
    recognise(opened(without(robobase_spec(SMALL), *names), {}))


# ---- twice-stored tensors, and the order of rules


def differing_second_names() -> tuple[StateSpec, dict[str, np.ndarray], str, str]:
    """An agent whose actor is stored twice, one value of it changed in the second copy."""
    tied = robobase_spec(SMALL)
    source = StateSpec(tied.tensors)
    random_ = np.random.default_rng(0)
    arrays = {n: random_.standard_normal(source[n].shape).astype(np.float32) for n in source}
    arrays |= {alias: arrays[of].copy() for alias, of in tied.aliases.items()}
    first, second = "actor.actor_model.out_mlp.0.bias", "actor_model.out_mlp.0.bias"
    return source, arrays, first, second


def test_equal_copies_under_two_names_are_one_tensor() -> None:
    source, arrays, first, second = differing_second_names()
    plan = plan_of(source)
    assert plan.second_names[second].checked
    check_second_names(plan, arrays.__getitem__)
    assert dict(Execution(plan, arrays.__getitem__).arrays())["actor.head.bias"] is arrays[first]


def test_copies_that_differ_are_refused_by_name() -> None:
    source, arrays, _, second = differing_second_names()
    arrays[second] = arrays[second] + 1
    with pytest.raises(PlanError) as refused:
        check_second_names(plan_of(source), arrays.__getitem__)
    assert [(f.code, f.subject) for f in refused.value.report.errors()] == [("WK211", second)]


@pytest.mark.parametrize("kept", ["first", "second"])
def test_what_the_refusal_of_differing_copies_suggests_works(kept: str) -> None:
    from weightkit.core.rule import Choices

    source, arrays, first, second = differing_second_names()
    arrays[second] = arrays[second] + 1
    with pytest.raises(PlanError) as refused:
        check_second_names(plan_of(source), arrays.__getitem__)
    dropped, used = (second, first) if kept == "first" else (first, second)
    assert f"--drop {dropped!r}" in refused.value.report.errors()[0].hint
    plan = make_plan(source, ARCHITECTURE.target(SMALL), MAPPING, Choices(drop=(dropped,)))
    check_second_names(plan, arrays.__getitem__)
    assert np.array_equal(dict(Execution(plan, arrays.__getitem__).arrays())["actor.head.bias"], arrays[used])


@LAW
@given(drqv2_configs(), st.randoms(use_true_random=False))
def test_the_order_of_the_rules_does_not_change_the_plan(config: Any, shuffler: random.Random) -> None:
    rules, spellings = list(MAPPING.rules), list(MAPPING.spellings)
    shuffler.shuffle(rules)
    shuffler.shuffle(spellings)
    other = replace(MAPPING, rules=tuple(rules), spellings=tuple(spellings))
    source, target = robobase_spec(config), ARCHITECTURE.target(config)
    assert make_plan(source, target, other).digest == make_plan(source, target, MAPPING).digest


def test_two_rules_on_one_name_are_an_ambiguity_in_either_order_unless_one_overrides() -> None:
    general = renaming("general", parse_template("{rest:path}"), parse_template("{rest:path}"))
    special = renaming("special", parse_template("a.{p:name}"), parse_template("b.{p:name}"))
    from weightkit.core.plan import ConversionTarget

    source = StateSpec({"a.w": spec("float32", 1)})
    target = ConversionTarget("t", StateSpec({"b.w": spec("float32", 1)}))
    for rules in ((general, special), (special, general)):
        with pytest.raises(PlanError) as refused:
            make_plan(source, target, Mapping("m", 1, "s", "t", rules))
        assert ("WK210", "a.w") in [(f.code, f.subject) for f in refused.value.report.errors()]
        wins = tuple(replace(r, overrides=("general",)) if r is special else r for r in rules)
        assert make_plan(source, target, Mapping("m", 1, "s", "t", wins)).steps[0].rule == "special"


def test_a_swap_of_two_names_loses_neither() -> None:
    from weightkit.core.plan import ConversionTarget

    a, b = parse_template("a"), parse_template("b")
    rules = (renaming("r1", a, b), renaming("r2", b, a))
    source = StateSpec({"a": spec("float32", 1), "b": spec("float32", 1)})
    plan = make_plan(source, ConversionTarget("t", source), Mapping("m", 1, "s", "t", rules))
    assert {step.sources: step.targets for step in plan.steps} == {("a",): ("b",), ("b",): ("a",)}
