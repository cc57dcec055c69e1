"""SAC of stable-baselines3: what its archives say, and what they leave open."""

from __future__ import annotations

from dataclasses import replace
from math import exp
from typing import Any

import pytest

from locations import FIXTURES
from sac_configs import SMALL, bare, opened, sb3_net
from weightkit.architectures import recognise
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.layouts.sb3_sac import LAYOUT
from weightkit.architectures.sac.recognise import group_of
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.planning import make_plan
from weightkit.formats import open_checkpoint

PEERS = FIXTURES / "peers" / "sac"
IMAGES = replace(
    sb3_net(), cameras=("cam0",), vision_encoder="nature", state_dim=0, image_height=44, image_width=44, features_dim=6
)


def recognised(state: StateSpec, data: dict[str, Any] | None = None, **settings: str) -> Recognition:
    found = recognise(opened(state, {} if data is None else {"data": data}), settings)
    assert found is not None
    return found


def messages(found: Recognition) -> dict[str, str]:
    return {finding.subject: finding.message for finding in found.findings}


def test_an_archive_says_what_its_tensors_do_not() -> None:
    found = recognise(open_checkpoint(PEERS / "sb3_tanh.zip"), {})
    assert found is not None
    config = found.config
    assert isinstance(config, SACConfig)
    assert (found.layout, found.confidence) == ("sb3-sac", "certain")
    assert (config.mlp, config.actor_hidden_dims, config.critic_hidden_dims) == ("tanh", (12, 10, 8), (9,))
    assert (config.num_critics, config.state_dim, config.action_dim) == (3, 7, 3)
    assert (config.std_min, config.std_max) == (exp(-20), exp(2))
    assert "outside the net: [-2.   0.  -0.5] to [1.   4.   0.25]" in messages(found)["action"]
    assert found.beside == {
        "sb3": {
            "action_space": {"dtype": "float32", "_shape": [3], "low": "[-2.   0.  -0.5]", "high": "[1.   4.   0.25]"},
            "observation_space": {"dtype": "float32", "_shape": [7]},
        }
    }


def test_a_constant_entropy_coefficient_is_no_temperature_and_that_is_said() -> None:
    checkpoint = open_checkpoint(PEERS / "sb3_constant.zip")
    found = recognise(checkpoint, {})
    assert found is not None
    assert isinstance(found.config, SACConfig)
    assert not found.config.learned_temperature
    assert "a constant (0.2)" in messages(found)["log_alpha"]
    plan = make_plan(checkpoint.state, ARCHITECTURE.target(found.config), LAYOUT.mapping(found.config))
    assert set(plan.dropped) == {"pytorch_variables.ent_coef_tensor"}


def test_optimizers_are_dropped_with_a_reason_and_their_names_are_no_critics() -> None:
    config = sb3_net()
    tensors = dict(bare(config, LAYOUT).tensors)
    for name in ("actor.optimizer.state.0.exp_avg", "critic.optimizer.state.4.step", "ent_coef_optimizer.state.0.step"):
        tensors[name] = spec("float32", 1)
    plan = make_plan(StateSpec(tensors), ARCHITECTURE.target(config), LAYOUT.mapping(config))
    assert len(plan.dropped) == 3
    assert all("of no use" in why for why in plan.dropped.values())


def test_bare_tensors_leave_the_activation_and_the_bounds_of_actions_open() -> None:
    found = recognised(bare(sb3_net(learned_temperature=False), LAYOUT))
    assert found.confidence == "likely"
    assert {"mlp", "action", "observation", "log_alpha"} == set(messages(found))
    assert "ReLU is assumed" in messages(found)["mlp"]
    assert "which is not stored" in messages(found)["action"]


def test_the_size_of_an_image_is_that_of_the_observation_space_else_a_square_that_fits() -> None:
    state = bare(IMAGES, LAYOUT)
    guessed = recognised(state)
    assert isinstance(guessed.config, SACConfig)
    assert guessed.config.image_height == guessed.config.image_width == 44
    assert "squares of 44 to 51 fit" in messages(guessed)["image_size"]
    space = {"_shape": [3, 48, 51], "dtype": "uint8"}
    said = recognised(state, {"observation_space": space, "policy_kwargs": {}}, cameras="front")
    assert isinstance(said.config, SACConfig)
    assert (said.config.image_height, said.config.image_width, said.config.cameras) == (48, 51, ("front",))
    assert "image_size" not in messages(said)
    wrong = recognised(state, None, image_size="84x84")
    assert wrong.config is None


def test_a_flattened_image_says_how_it_is_made() -> None:
    config = sb3_net(learned_temperature=False)
    space = {"_shape": [1, 2, 2], "dtype": "uint8"}
    found = recognised(bare(config, LAYOUT), {"observation_space": space, "policy_kwargs": {"use_sde": False}})
    assert "flattened (channels first) and divided by 255" in messages(found)["state"]


@pytest.mark.parametrize(
    ("tensors", "data", "why"),
    [
        ({"actor.features_extractor.extractors.front.cnn.0.weight": (32, 3, 8, 8)}, {}, "other than NatureCNN"),
        ({"actor.mu.weight": None, "actor.mu.0.weight": (2, 7)}, {}, "use_sde"),
        ({}, {"use_sde": True}, "use_sde"),
        ({}, {"policy_kwargs": {"normalize_images": False}}, "normalize_images"),
        ({}, {"policy_kwargs": {"activation_fn": "<class 'torch.nn.modules.activation.Hardswish'>"}}, "Hardswish"),
        ({"critic.qf0.0.weight": ()}, {}, "fit no sac configuration"),
        ({"actor.mu.weight": (2,), "actor.latent_pi.0.weight": ()}, {}, "fit no sac configuration"),
    ],
)
def test_a_variant_that_the_net_cannot_hold_is_a_finding(
    tensors: dict[str, tuple[int, ...] | None], data: dict[str, Any], why: str
) -> None:
    state = dict(bare(sb3_net(), LAYOUT).tensors)
    for name, shape in tensors.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = spec("float32", *shape)
    found = recognised(StateSpec(state), data)
    assert found.config is None
    assert found.findings[-1].code == "WK107"
    assert why in found.findings[-1].message


def test_shared_extractors_are_one_where_the_file_or_its_settings_say_so() -> None:
    separate = replace(IMAGES, shared_encoder=False)
    tensors = dict(bare(separate, LAYOUT).tensors)
    tied = {
        name: name.replace("critic.", "actor.", 1) for name in tensors if name.startswith("critic.features_extractor")
    }
    for state, data in ((StateSpec(tensors, tied), None), (StateSpec(tensors), {"share_features_extractor": True})):
        found = recognised(state, None if data is None else {"policy_kwargs": data})
        assert isinstance(found.config, SACConfig)
        assert found.config.shared_encoder
        plan = make_plan(state, ARCHITECTURE.target(found.config), LAYOUT.mapping(found.config))
        assert set(plan.second_names) == set(tied)
        assert all(second.checked for second in plan.second_names.values()) == (data is not None)


def test_the_conventions_name_the_range_of_pixels() -> None:
    assert LAYOUT.conventions(IMAGES).pixels == "0..255"
    assert LAYOUT.conventions(sb3_net()).pixels == "none"
    assert SMALL.cameras


def test_every_tensor_has_a_group_of_the_native_net() -> None:
    groups = {group.name for group in ARCHITECTURE.groups(IMAGES)}
    assert {group_of(name) for name in bare(replace(IMAGES, shared_encoder=False), LAYOUT)} <= groups
    assert group_of("critic_target.features_extractor.cnn.0.weight") == "critic_target_encoder.backbone"
    assert group_of("actor.features_extractor.linear.0.weight") == "encoder"
