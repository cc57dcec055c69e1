"""SAC's layouts: every tensor of every net there and back, and the names of the real projects' files."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locations import SHARED, needs_shared
from sac_configs import (
    SMALL,
    key_table,
    of_arrays,
    opened,
    random_arrays,
    sac_configs,
    sb3_configs,
    sb3_net,
    table_specs,
    turned_round,
)
from weightkit.architectures import recognise
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.config import SACConfig
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import Plan
from weightkit.core.report import Severity
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.planning import make_plan
from weightkit.engine.turning import layout_target
from weightkit.errors import PlanError, UsageError

LAW = settings(deadline=None, max_examples=50, database=None)
KEYS = SHARED / "facts" / "keys"


def layout_named(name: str) -> Any:
    return import_module(f"weightkit.architectures.sac.layouts.{name.replace('-', '_')}").LAYOUT


LEROBOT, GAUSSIAN, SB3 = map(layout_named, ("lerobot-sac", "lerobot-gaussian-actor", "sb3-sac"))


def plan_of(checkpoint: Checkpoint, config: SACConfig, layout: Any) -> Plan:
    return make_plan(checkpoint.state, ARCHITECTURE.target(config), layout.mapping(config))


def there_and_back(config: SACConfig, layout: Any, options: dict[str, str], seed: int) -> Checkpoint:
    """Native tensors under the layout's names, with zeros for what the net lacks; planned back they are all equal."""
    assert layout.fitted(config) == config
    native = random_arrays(ARCHITECTURE.spec(config), seed)
    names = turned_round(layout.mapping(config, options), config)
    written = {names[name]: array for name, array in native.items()}
    extras = layout.extras(config, options)
    assert not written.keys() & extras.keys()
    for name, each in extras.items():
        written[name] = np.zeros(each.shape, np.float32)
    checkpoint = of_arrays(written)
    plan = plan_of(checkpoint, config, layout)
    back = {step.targets[0]: checkpoint.read(step.sources[0]) for step in plan.steps}
    assert back.keys() == native.keys()
    for name, array in native.items():
        assert back[name].tobytes() == array.tobytes(), name
    assert set(plan.dropped) == set(extras)
    return checkpoint


def recognised_as(checkpoint: Checkpoint, config: SACConfig, **settings: str) -> SACConfig:
    """The configuration that names and shapes alone give."""
    size = {"image_size": f"{config.image_height}x{config.image_width}"} if config.cameras else {}
    cameras = {"cameras": ",".join(config.cameras)} if config.cameras else {}
    found = recognise(checkpoint, {**size, **cameras, **settings})
    assert found is not None
    assert found.config is not None, found.findings
    assert isinstance(found.config, SACConfig)
    assert found.confidence == "likely"
    return found.config


@LAW
@given(sac_configs(lerobot=True), st.sampled_from([{}, {"use_torch_compile": "true"}]), st.integers(0, 9))
def test_lerobots_names_lose_nothing(config: SACConfig, options: dict[str, str], seed: int) -> None:
    checkpoint = there_and_back(config, LEROBOT, options, seed)
    wrapped = any("_orig_mod" in name for name in checkpoint.state)
    assert wrapped == bool(options)
    found = recognised_as(checkpoint, config)
    wanted = replace(config, learned_temperature=True)
    assert ARCHITECTURE.spec(found) == ARCHITECTURE.spec(wanted)
    assert found.cameras == config.cameras


@LAW
@given(sac_configs(lerobot=True), st.integers(0, 9))
def test_the_names_of_actor_and_algorithm_lose_nothing(config: SACConfig, seed: int) -> None:
    checkpoint = there_and_back(config, GAUSSIAN, {}, seed)
    found = recognised_as(checkpoint, config)
    assert ARCHITECTURE.spec(found) == ARCHITECTURE.spec(replace(config, learned_temperature=True))


@LAW
@given(sb3_configs(), st.integers(0, 9))
def test_the_names_of_stable_baselines3_lose_nothing(config: SACConfig, seed: int) -> None:
    checkpoint = there_and_back(config, SB3, {}, seed)
    found = recognised_as(checkpoint, config, mlp=config.mlp)
    assert ARCHITECTURE.spec(found) == ARCHITECTURE.spec(config)
    assert replace(found, features_dim=1, image_channels=3) == replace(
        config, features_dim=1, image_channels=3, discrete_hidden_dims=(256, 256)
    )


@LAW
@given(sac_configs())
def test_what_fits_no_layout_is_refused_with_the_reason_and_else_keeps_its_tensors(config: SACConfig) -> None:
    for layout in (LEROBOT, GAUSSIAN, SB3):
        try:
            fitted = layout.fitted(config)
        except PlanError as error:
            reasons = error.report.errors()
        else:
            reasons = ()
        if reasons:
            continue
        assert layout.fitted(fitted) == fitted
        before, after = ARCHITECTURE.spec(config), ARCHITECTURE.spec(fitted)
        assert [*before.tensors.items()] == [*after.tensors.items()]
        there_and_back(fitted, layout, {}, 0)


REFUSED: list[tuple[Any, dict[str, object], str]] = [
    (LEROBOT, {"mlp": "relu"}, "Linear, LayerNorm and SiLU"),
    (LEROBOT, {"vision_encoder": "nature"}, "no NatureCNN"),
    (LEROBOT, {"target_encoder": "own"}, "no copy of their own"),
    (LEROBOT, {"image_normalization": "imagenet"}, "give the statistics to its preprocessor"),
    (GAUSSIAN, {"state_encoder": "none"}, "a trunk of their own"),
    (SB3, {"mlp": "layernorm_silu"}, "no LayerNorm"),
    (SB3, {"environment_dim": 2}, "one vector"),
    (SB3, {"num_discrete_actions": 3}, "no discrete head"),
    (SB3, {"std_max": 10.0}, "exp\\(-20\\)"),
]


@pytest.mark.parametrize(("layout", "changes", "why"), REFUSED)
def test_a_net_that_a_project_cannot_hold_is_refused(layout: Any, changes: dict[str, object], why: str) -> None:
    base = sb3_net() if layout is SB3 else SMALL
    with pytest.raises(PlanError, match=why):
        layout.fitted(replace(base, **changes))


def test_stacked_frames_become_channels_of_one_frame_where_a_project_has_no_frames() -> None:
    stacked = replace(SMALL, frame_stack=3)
    fitted = LEROBOT.fitted(stacked)
    assert (fitted.frame_stack, fitted.image_channels, fitted.state_dim) == (1, 9, 12)


def test_a_layouts_setting_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="expected true or false"):
        LEROBOT.mapping(SMALL, {"use_torch_compile": "maybe"})
    with pytest.raises(UsageError, match="one archive"):
        SB3.folder(sb3_net(), StateSpec({}), {}, {})


MUTANTS = {
    "lerobot-sac": replace(SMALL, num_discrete_actions=2, shared_encoder=False, environment_dim=1),
    "lerobot-gaussian-actor": replace(SMALL, num_discrete_actions=2, shared_encoder=False),
    "sb3-sac": replace(sb3_net(), cameras=("front",), vision_encoder="nature", state_dim=0, shared_encoder=False),
}


@pytest.mark.parametrize("layout", MUTANTS)
def test_no_tensor_can_be_lost_renamed_or_reshaped_in_silence(layout: str) -> None:
    config, of = MUTANTS[layout], layout_named(layout)
    names = turned_round(of.mapping(config), config)
    native = ARCHITECTURE.spec(config)
    whole = {names[name]: native[name] for name in native}
    for goal, name in names.items():
        rest = {other: each for other, each in whole.items() if other != name}
        for mutant in (rest, {**rest, f"{name}_": whole[name]}, {**rest, name: spec("float32", 1, *whole[name].shape)}):
            checkpoint = opened(StateSpec(mutant))
            recognise(checkpoint, {})  # whatever it says, it must say it
            with pytest.raises(PlanError) as refused:
                plan_of(checkpoint, config, of)
            subjects = {finding.subject for finding in refused.value.report.errors()}
            assert goal in subjects
            assert subjects <= {goal, name, f"{name}_"}


# ---- the real projects' names


def table(name: str) -> dict[str, dict[str, Any]]:
    return key_table(KEYS / f"{name}.json")


def accepted(state: StateSpec, layout: str, metadata: dict[str, object] | None = None) -> tuple[Plan, SACConfig]:
    """The plan of a file of these names, which must leave nothing over."""
    checkpoint = opened(state, metadata)
    found = recognise(checkpoint, {"image_size": "128x128"} if "front" in "".join(state) else {})
    assert found is not None
    assert found.layout == layout
    assert found.config is not None, found.findings
    assert not [finding for finding in found.findings if finding.severity is Severity.ERROR]
    plan = plan_of(checkpoint, found.config, layout_named(layout))
    assert not plan.left_out
    return plan, found.config


LEROBOT_TABLES = (
    "lerobot044_sac_1cam_shared_nodisc",
    "lerobot044_sac_1cam_separate_disc3",
    "lerobot044_sac_1cam_shared_disc3_compile",
)


@needs_shared
@pytest.mark.parametrize("name", LEROBOT_TABLES)
def test_a_file_of_lerobot_with_its_ties_is_understood(name: str) -> None:
    rows = table(name)
    aliases = {n: row["saved_as"] for n, row in rows.items() if row["saved_as"] != n}
    plan, config = accepted(StateSpec(table_specs(rows), aliases), "lerobot-sac")
    kept = {n for n, row in rows.items() if row["in_safetensors"]}
    assert {step.sources[0] for step in plan.steps} == kept
    assert set(plan.second_names) == set(rows) - kept
    assert config.shared_encoder == ("shared" in name)
    assert config.num_discrete_actions == (0 if "nodisc" in name else 3)
    if "shared_nodisc" in name:
        assert len(plan.steps) == 70
        assert config.image_embedding_pooling_dim == 8


@needs_shared
@pytest.mark.parametrize("name", LEROBOT_TABLES)
def test_what_is_written_has_exactly_the_names_and_ties_of_lerobots_own(name: str) -> None:
    rows = table(name)
    options = {"use_torch_compile": "true" if "compile" in name else "false"}
    config = replace(
        ARCHITECTURE.default_config(),
        shared_encoder="shared" in name,
        num_discrete_actions=0 if "nodisc" in name else 3,
    )
    written = layout_target(ARCHITECTURE.target(config), LEROBOT.mapping(config, options), {}, "lerobot-sac").state
    assert dict(written.tensors) == table_specs(rows)
    assert {n: written.canonical(n) for n in written} == {n: row["saved_as"] for n, row in rows.items()}


@needs_shared
@pytest.mark.parametrize("name", LEROBOT_TABLES)
def test_the_names_that_lerobot_keeps_are_enough(name: str) -> None:
    rows = {n: row for n, row in table(name).items() if row["in_safetensors"]}
    plan, config = accepted(StateSpec(table_specs(rows)), "lerobot-sac")
    assert len(plan.steps) == len(rows)
    assert config.shared_encoder == ("shared" in name)


@needs_shared
@pytest.mark.parametrize("name", LEROBOT_TABLES)
def test_names_without_their_ties_are_copies_of_one_encoder_which_must_be_equal(name: str) -> None:
    specs = table_specs(table(name))
    plan, config = accepted(StateSpec(specs), "lerobot-sac")
    assert len(plan.steps) + len(plan.second_names) == len(specs)
    assert all(second.checked for second in plan.second_names.values())
    assert not config.shared_encoder, "what is stored twice may differ"


@needs_shared
@pytest.mark.parametrize(
    "name", ["lerobotHEAD_gaussian_actor_separate_disc3", "lerobotHEAD_gaussian_actor_shared_nodisc"]
)
def test_a_split_file_of_lerobot_is_understood(name: str) -> None:
    rows = {n.removeprefix("@algorithm/"): row for n, row in table(name).items()}
    specs = table_specs(rows)
    kept = {n for n, row in rows.items() if row["in_safetensors"]}
    discrete = "disc3" in name
    firsts = {
        "encoder_actor": "actor.encoder",
        "encoder_critic": "discrete_critic.encoder" if discrete else "actor.encoder",
    }
    aliases = {n: n.replace(first, of, 1) for first, of in firsts.items() for n in specs if n.startswith(f"{first}.")}
    assert set(aliases) | kept == set(specs)
    features = {
        "observation.images.front": {"type": "VISUAL", "shape": [3, 128, 128]},
        "observation.state": {"type": "STATE", "shape": [18]},
    }
    policy: dict[str, object] = {
        "type": "gaussian_actor",
        "input_features": features,
        "output_features": {"action": {"type": "ACTION", "shape": [3]}},
        "shared_encoder": "shared" in name,
        "num_discrete_actions": 3 if discrete else None,
    }
    metadata: dict[str, object] = {"config": policy, "algorithm": {"type": "sac", "num_critics": 2}}
    plan, config = accepted(StateSpec(specs, aliases), "lerobot-gaussian-actor", metadata)
    assert {step.sources[0] for step in plan.steps} == kept
    assert config.shared_encoder == ("shared" in name)
    assert config.num_discrete_actions == (3 if discrete else 0)


@needs_shared
@pytest.mark.parametrize("name", ["sb3_sac_mlp", "sb3_sac_cnn"])
def test_a_file_of_stable_baselines3_is_understood(name: str) -> None:
    rows = {n.removeprefix("policy.pth:"): row for n, row in table(name).items() if n.startswith("policy.pth:")}
    plan, config = accepted(StateSpec(table_specs(rows)), "sb3-sac")
    assert {step.sources[0] for step in plan.steps} == set(rows)
    assert bool(config.cameras) == name.endswith("cnn")
    assert config.critic_hidden_dims == ((64,) if config.cameras else (64, 64))
    assert not config.learned_temperature
