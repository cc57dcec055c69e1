"""SAC by arithmetic: specs, groups, configurations, and what a train_config.json says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings

from locations import SHARED, needs_shared
from sac_configs import SMALL, sac_configs
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.config import SACConfig, map_size, pixel_range
from weightkit.architectures.sac.spec import sac_spec
from weightkit.architectures.sac.train_config import camera_of, key_of
from weightkit.core.axes import FRAMES
from weightkit.core.group import Transfer
from weightkit.core.section import Section
from weightkit.errors import ConfigError, UsageError

LAW = settings(deadline=None, max_examples=60, database=None)
WITH_NETS = settings(deadline=None, max_examples=40, database=None)
DEVLOG = ARCHITECTURE.default_config()
FACTS = SHARED / "facts"


@WITH_NETS
@given(sac_configs())
def test_the_spec_by_arithmetic_is_that_of_the_net(config: SACConfig) -> None:
    from weightkit.torch_state import state_spec

    for with_critic in (True, False):
        of_the_net = state_spec(ARCHITECTURE.build(config, with_critic=with_critic))
        by_arithmetic = sac_spec(config, with_critic=with_critic)
        assert list(by_arithmetic.tensors.items()) == list(of_the_net.tensors.items())
        assert not of_the_net.aliases, "a tensor stands twice"


@LAW
@given(sac_configs())
def test_acting_reads_exactly_what_a_policy_without_critics_has(config: SACConfig) -> None:
    assert ARCHITECTURE.acting_path(ARCHITECTURE.spec(config)) == set(sac_spec(config, with_critic=False))


@LAW
@given(sac_configs())
def test_a_configuration_survives_its_dictionary(config: SACConfig) -> None:
    document = json.loads(json.dumps(config.to_dict()))
    assert ARCHITECTURE.config_from_dict(Section(document, "config.json")) == config


@LAW
@given(sac_configs())
def test_every_tensor_is_in_one_group_and_what_acting_reads_is_sent_or_pinned(config: SACConfig) -> None:
    groups = {group.name: group for group in ARCHITECTURE.groups(config)}
    state = ARCHITECTURE.spec(config)
    acting = ARCHITECTURE.acting_path(state)
    for name in state:
        transfer = groups[ARCHITECTURE.group_of(name)].transfer
        frozen = config.freeze_vision_encoder and ".backbone." in name
        if name in acting:
            assert transfer is (Transfer.PIN if frozen else Transfer.SEND), name
        else:
            assert transfer is Transfer.HOLD, name


@LAW
@given(sac_configs())
def test_the_axes_that_have_a_meaning_add_up(config: SACConfig) -> None:
    target = ARCHITECTURE.target(config)
    for name, axes in target.axes.items():
        for axis in axes:
            assert axis.size == target.state[name].shape[axis.axis], name
    stacked = [n for n, axes in target.axes.items() if any(f.name == FRAMES for a in axes for b in a.blocks for f in b)]
    assert bool(stacked) == bool(config.cameras or config.state_dim)


def test_parameters_are_those_that_were_counted_in_lerobot() -> None:
    state = ARCHITECTURE.spec(DEVLOG)

    def count(prefix: str) -> int:
        return sum(each.numel for name, each in state.tensors.items() if name.startswith(prefix))

    assert count("encoder.backbone.") == 48_864
    assert count("encoder.") + count("actor.") == 329_446
    assert len(state) == 70


def test_a_frozen_backbone_is_sixth_of_what_would_travel_and_travels_not() -> None:
    groups = {group.name: group.transfer for group in ARCHITECTURE.groups(DEVLOG)}
    assert groups["encoder.backbone"] is Transfer.PIN
    assert groups["encoder"] is Transfer.SEND
    assert groups["critic_encoder"] is Transfer.HOLD
    discrete = {g.name: g.transfer for g in ARCHITECTURE.groups(replace(DEVLOG, num_discrete_actions=3))}
    assert discrete["critic_encoder"] is discrete["discrete_critic"] is Transfer.SEND
    assert discrete["critic_encoder.backbone"] is Transfer.PIN


@pytest.mark.parametrize("kind", ["cnn", "nature", "resnet10", "resnet10_symmetric"])
def test_the_range_of_image_sizes_is_exactly_the_sizes_of_a_map(kind: str) -> None:
    for cells in range(1, 9):
        low, high = pixel_range(kind, cells)
        assert [n for n in range(1, 400) if map_size(kind, n) == cells] == list(range(low, high + 1))


WRONG: list[tuple[dict[str, object], str]] = [
    ({"cameras": ("a.b", "a_b")}, "one name once dots are written"),
    ({"cameras": ("a b",)}, "cannot name a camera"),
    ({"cameras": ("training",)}, "cannot name a camera"),
    ({"cameras": ()}, "does not go with 0 cameras"),
    ({"vision_encoder": "none"}, "does not go with 2 cameras"),
    ({"vision_encoder": "vit"}, "expected one of none, cnn"),
    ({"image_height": 38}, "too small"),
    ({"image_channels": 1, "image_normalization": "imagenet"}, "for cameras of 3 channels"),
    ({"action_dim": 0}, "action_dim: expected a number from 1"),
    ({"latent_dim": 1 << 20}, "latent_dim: expected a number from 1 to 65536"),
    ({"num_critics": 65}, "num_critics"),
    ({"critic_hidden_dims": ()}, "critic_hidden_dims: expected 1 to 64 widths"),
    ({"std_min": 2.0, "std_max": 1.0}, "0 < std_min <= std_max"),
    ({"std_min": float("nan")}, "0 < std_min <= std_max"),
    ({"mlp": "relu", "actor_final": "tanh"}, "only layers of 'layernorm_silu'"),
    ({"resnet_widths": (6, 8, 12, 16)}, "four multiples of 4"),
    ({"resnet_widths": (8, 8, 12, 16)}, "each another one"),
    ({"cameras": (), "vision_encoder": "none", "state_dim": 0}, "would see nothing"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_a_configuration_that_makes_no_net_says_why(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_settings_reach_every_kind_of_value() -> None:
    texts = {
        "cameras": "left, right",
        "image_size": "64x80",
        "shared_encoder": "false",
        "std_max": "5",
        "vision_encoder": "resnet10",
        "resnet_widths": "8,16,24,32",
        "actor_hidden_dims": "32",
        "num_discrete_actions": "3",
    }
    config = ARCHITECTURE.configure(SMALL, texts)
    assert config.cameras == ("left", "right")
    assert (config.image_height, config.image_width, config.std_max, config.shared_encoder) == (64, 80, 5.0, False)
    assert (config.vision_encoder, config.resnet_widths, config.actor_hidden_dims) == (
        "resnet10",
        (8, 16, 24, 32),
        (32,),
    )
    blind = ARCHITECTURE.configure(SMALL, {"cameras": "", "vision_encoder": "none"})
    assert blind.cameras == ()


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("latent", "3", "did you mean 'latent_dim'"),
        ("shared_encoder", "maybe", "expected one of true, false"),
        ("mlp", "relu6", "expected one of layernorm_silu"),
        ("num_critics", "0", "at least 1"),
        ("std_min", "-1", "0 < std_min"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(key: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        ARCHITECTURE.configure(SMALL, {key: text})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "key", ["observation.images.front", "observation.image", "observation.images", "observation.images.observation.x"]
)
def test_the_key_of_a_camera_is_its_name_turned_round(key: str) -> None:
    assert key_of(camera_of(key)) == key


def train_config(**policy: object) -> dict[str, object]:
    return {
        "policy": {
            "type": "sac",
            "input_features": {
                "observation.images.front": {"type": "VISUAL", "shape": [3, 64, 64]},
                "observation.state": {"type": "STATE", "shape": [18]},
            },
            "output_features": {"action": {"type": "ACTION", "shape": [3]}},
            **policy,
        }
    }


def read(document: dict[str, object]) -> SACConfig:
    return ARCHITECTURE.config_from_train_config(Section(document, "train_config.json"))


@needs_shared
def test_lerobots_own_train_config_describes_the_net_of_the_devlogs() -> None:
    document = json.loads((FACTS / "lerobot-0.4.4-train-config.json").read_text())
    config = read(document)
    assert (config.cameras, config.image_height, config.state_dim, config.action_dim) == (("front",), 128, 18, 3)
    assert config.num_discrete_actions == 3
    assert config.freeze_vision_encoder


def test_a_train_config_may_ask_for_what_lerobot_cannot() -> None:
    config = read(train_config(vision_encoder="resnet10", image_normalization="imagenet", frame_stack=1, mlp="relu"))
    assert (config.vision_encoder, config.image_normalization, config.mlp) == ("resnet10", "imagenet", "relu")
    named = read(train_config(vision_encoder_name="helper2424/resnet10"))
    assert named.vision_encoder == "resnet10"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"vision_encoder_name": "microsoft/resnet-18"}, "$.policy.vision_encoder_name: expected null, or ResNet-10's"),
        ({"frame_stack": 2}, "no multiple of"),
        ({"critic_network_kwargs": {"final_activation": "CELU"}}, "$.policy.critic_network_kwargs.final_activation"),
        ({"num_critics": 0}, "$.policy.num_critics"),
        ({"input_features": {"observation.state": {"shape": [3, 4]}}}, "expected [size]"),
    ],
)
def test_a_train_config_that_describes_no_net_is_refused_with_its_address(
    policy: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        read(train_config(**policy))
    assert message in str(refused.value)


def test_stacked_features_must_agree_with_single_ones() -> None:
    document = train_config(frame_stack=3)
    document["env"] = {"features": {"observation.state": {"type": "STATE", "shape": [18]}}}
    with pytest.raises(ConfigError, match="frame_stack 3 x"):
        read(document)
