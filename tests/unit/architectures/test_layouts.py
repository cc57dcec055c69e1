"""Every layout, both ways: what is written under a project's names comes back byte for byte, and mutants do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locations import SHARED, needs_shared
from sac_configs import sac_configs, sb3_configs
from strategies import drqv2_configs
from weightkit.architectures import LAYOUTS, architecture_of_layout, layout_named
from weightkit.architectures.routes import Route, find_route
from weightkit.core.plan import Plan
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.execution import Execution
from weightkit.engine.lint import lint
from weightkit.engine.planning import make_plan
from weightkit.errors import PlanError

SPOKES = [name for name, architecture in LAYOUTS.items() if name != architecture]
KEYS = SHARED / "facts" / "keys"


def meet(one: str, other: str) -> bool:
    """Whether there is a net that both layouts can express: LeRobot's has LayerNorm, stable-baselines3's has not."""
    return LAYOUTS[one] == LAYOUTS[other] and (one == other or "sb3-sac" not in (one, other))


@st.composite
def policies(draw: st.DrawFn, layout: str, other: str = "") -> Any:
    """A configuration that both layouts can express, as it fits the first."""
    found = layout_named(layout)
    if LAYOUTS[layout] == "sac":
        config = draw(sb3_configs() if "sb3-sac" in (layout, other) else sac_configs(lerobot=True))
        return config if found is None else found.fitted(config)
    config = draw(drqv2_configs(shared_trunks=True))
    if "fb-drqv2" in (layout, other):
        config = replace(
            config, cameras=config.cameras[:1], state_dim=0, time_dim=0, num_atoms=1, num_critics=2, fusion="flatten",
            mlp_nodes=(config.mlp_nodes * 2)[:2],
        )  # fmt: skip
    return config if found is None else found.fitted(config)


def weights(state: StateSpec, seed: int) -> dict[str, np.ndarray]:
    """Random contents, equal for the names of one tensor."""
    random = np.random.default_rng(seed)
    found = {name: random.standard_normal(state[name].shape).astype(np.float32) for name in state.unique()}
    return found | {alias: found[of] for alias, of in state.aliases.items()}


def route(source: str, target: str, config: Any, options: Mapping[str, str] | None = None) -> Route:
    return find_route(
        architecture_of_layout(target),
        source,
        target,
        source_config=config,
        target_config=config,
        options=options or {},
    )


def applied(plan: Plan, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in Execution(plan, arrays.__getitem__).arrays()}


@pytest.mark.parametrize("layout", SPOKES)
@given(data=st.data())
def test_a_layouts_mapping_has_no_fault_of_its_own(layout: str, data: st.DataObject) -> None:
    found = layout_named(layout)
    assert found is not None
    config = data.draw(policies(layout))
    for mapping in (found.mapping(config), found.mapping(config, {})):
        assert not [fault for fault in lint(mapping) if fault.severity == "error"]


@pytest.mark.parametrize("layout", SPOKES)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_what_is_written_under_a_projects_names_comes_back_byte_for_byte(
    layout: str, data: st.DataObject, seed: int
) -> None:
    config = data.draw(policies(layout))
    architecture = architecture_of_layout(layout)
    native = architecture.target(config).state
    arrays = weights(native, seed)
    there = route(architecture.name, layout, config)
    plan = make_plan(native, there.target, there.mapping)
    assert plan.strictness in ("exact", "total")
    written = applied(plan, arrays)
    assert set(written) == set(plan.target)
    back = route(layout, architecture.name, there.config)
    home = applied(make_plan(plan.produced, back.target, back.mapping), written)
    for name in native:
        assert home[name].tobytes() == arrays[name].tobytes(), name


WRAPPERS: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "data parallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "each module compiled": lambda name: name.replace(".", "._orig_mod.", 1),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("layout", SPOKES)
@settings(max_examples=20)
@given(data=st.data())
def test_what_wrappers_put_into_names_is_looked_through_second_names_included(
    layout: str, wrapper: str, data: st.DataObject
) -> None:
    config = data.draw(policies(layout))
    wrapped = WRAPPERS[wrapper]
    state = route(architecture_of_layout(layout).name, layout, config).target.state
    named = StateSpec({wrapped(name): state[name] for name in state})  # as a file without ties stores it
    back = route(layout, architecture_of_layout(layout).name, config)
    plain = make_plan(StateSpec(dict(state)), back.target, back.mapping)
    plan = make_plan(named, back.target, back.mapping)
    assert plan.produced == plain.produced
    for step, like in zip(plan.steps, plain.steps, strict=True):
        assert (step.targets, step.ops) == (like.targets, like.ops)
        assert step.sources == tuple(map(wrapped, like.sources))


@pytest.mark.parametrize("layout", SPOKES)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_no_mutant_of_one_tensor_survives_the_way_back(layout: str, data: st.DataObject, seed: int) -> None:
    config = data.draw(policies(layout))
    architecture = architecture_of_layout(layout)
    there = route(architecture.name, layout, config)
    state = there.target.state
    back = route(layout, architecture.name, there.config)
    plan = make_plan(architecture.target(there.config).state, there.target, there.mapping)
    made = {target for step in plan.steps if step.sources for target in step.targets}
    needed = [name for name in state.unique() if name in made]
    name = data.draw(st.sampled_from(needed))
    others = [alias for alias, of in state.aliases.items() if of == name]
    kind = data.draw(st.sampled_from(("delete", "rename", "reshape")))
    tensors = {n: s for n, s in state.tensors.items() if kind == "reshape" or n not in (name, *others)}
    if kind == "rename":
        tensors[f"{name}_"] = state[name]
    if kind == "reshape":
        for each in (name, *others):
            tensors[each] = spec("float32", *state[name].shape, 2)
    mutant = StateSpec(
        tensors, {alias: of for alias, of in state.aliases.items() if alias in tensors and of in tensors}
    )
    with pytest.raises(PlanError):
        make_plan(mutant, back.target, back.mapping)


@pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in SPOKES for b in SPOKES if LAYOUTS[a] == LAYOUTS[b] and meet(a, b)]
)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_between_two_layouts_is_the_same_as_by_way_of_the_nets_names(
    source: str, target: str, data: st.DataObject, seed: int
) -> None:
    config = data.draw(policies(source, target))
    architecture = architecture_of_layout(source)
    there = route(source, target, config)
    start = route(architecture.name, source, config)
    native = architecture.target(start.config).state
    arrays = weights(native, seed)
    plan = make_plan(native, start.target, start.mapping)
    written = applied(plan, arrays)
    separate_into_shared = "shared_critic_trunk" in config.to_dict() and (
        there.config.shared_critic_trunk and not config.shared_critic_trunk
    )
    if separate_into_shared:
        with pytest.raises(PlanError):
            applied(make_plan(plan.produced, there.target, there.mapping), written)
        return
    reached = applied(make_plan(plan.produced, there.target, there.mapping), written)
    home = route(target, architecture.name, there.config)
    final = applied(make_plan(there.target.state, home.target, home.mapping), reached)
    for name in home.target.state:
        assert final[name].tobytes() == arrays[name].tobytes(), name


@needs_shared
@pytest.mark.parametrize(
    ("table", "layout", "extra"),
    [
        ("drqv2_fb_default_9ch_A12", "fb-drqv2", {}),
        ("lerobot_fork_drqv2_1cam_fs3_mlp256", "lerobot-drqv2", {}),
        ("robobase_drqv2_1cam_fs3_mlp256", "robobase-drqv2", {"num_train_envs": "1"}),
        ("robobase_drqv2_2cam_fs3_mlp256", "robobase-drqv2", {"num_train_envs": "1"}),
        ("robobase_drqv2_1cam_fs3_distcritic", "robobase-drqv2", {"num_train_envs": "1"}),
    ],
)
def test_what_is_written_has_exactly_the_names_and_shapes_that_the_project_writes(
    table: str, layout: str, extra: dict[str, str]
) -> None:
    entries = json.loads((KEYS / f"{table}.json").read_text(encoding="utf-8"))
    state = StateSpec(
        {key: spec(entry["dtype"], *entry["shape"]) for key, entry in entries.items()},
        {key: entry["alias_of"] for key, entry in entries.items() if entry.get("alias_of")},
    )
    from weightkit.architectures import recognise
    from weightkit.core.checkpoint import Checkpoint

    found = recognise(Checkpoint("x.pt", "torch_zip", "", state, {}, lambda _: np.zeros(0)))
    assert found is not None
    assert (found.layout, found.config is not None) == (layout, True)
    architecture = architecture_of_layout(layout)
    target = route(architecture.name, layout, found.config, extra).target.state
    assert {name: target[name] for name in target} == {name: state[name] for name in state}
    twins = {frozenset((alias, of)) for alias, of in target.aliases.items()}
    assert twins == {frozenset((alias, of)) for alias, of in state.aliases.items()}
