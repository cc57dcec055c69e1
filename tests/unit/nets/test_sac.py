"""The SAC net: what it takes, what it gives, and what must not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_configs import SMALL, sac_configs, sb3_net
from weightkit.architectures.probes import probes
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.config import SACConfig, map_size
from weightkit.nets.resnet import ResNet10
from weightkit.nets.sac import SACPolicy
from weightkit.nets.sac_encoder import IMAGENET_MEAN, IMAGENET_STD

WITH_NETS = settings(deadline=None, max_examples=25, database=None)
DISCRETE = replace(SMALL, num_discrete_actions=3, shared_encoder=False, environment_dim=2)
NATURE = replace(sb3_net(), state_dim=0, cameras=("front",), vision_encoder="nature", features_dim=6)
BY_LAYOUT = {"sac": SMALL, "lerobot-sac": SMALL, "lerobot-gaussian-actor": DISCRETE, "sb3-sac": NATURE}


def built(config: SACConfig, seed: int = 0, **kwargs: bool) -> SACPolicy:
    torch.manual_seed(seed)
    policy = ARCHITECTURE.build(config, **kwargs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return policy


def observation(config: SACConfig, batch: int = 2) -> dict[str, Any]:
    return dict(probes(ARCHITECTURE.inputs(config), batch=batch, kinds=("moving",))[0])


@WITH_NETS
@given(sac_configs())
def test_every_net_acts_on_its_probes(config: SACConfig) -> None:
    policy = built(config)
    for probe in probes(ARCHITECTURE.inputs(config)):
        action = policy.act(probe)
        assert action.shape == (2, config.action_dim + bool(config.num_discrete_actions))
        assert action[:, : config.action_dim].abs().max() <= 1
        assert policy.q_values(probe, action).shape == (config.num_critics, 2)
        assert policy.target_q_values(probe, action[:, : config.action_dim]).shape == (config.num_critics, 2)
        mean, std = policy(probe)
        assert torch.equal(policy.means(probe), mean)
        assert torch.equal(torch.tanh(mean), action[:, : config.action_dim])
        assert std.min() >= config.std_min * 0.999
        assert std.max() <= config.std_max * 1.001


@WITH_NETS
@given(sac_configs())
def test_a_policy_without_critics_acts_the_same(config: SACConfig) -> None:
    whole, acting = built(config), built(config, seed=1, with_critic=False)
    acting.load_state_dict({name: whole.state_dict()[name] for name in acting.state_dict()})
    probe = observation(config)
    assert torch.equal(whole.act(probe), acting.act(probe))
    with pytest.raises(ValueError, match="no critic"):
        acting.q_values(probe, whole.act(probe))


@pytest.mark.parametrize("layout", BY_LAYOUT)
def test_images_as_floats_above_one_are_refused(layout: str) -> None:
    config = BY_LAYOUT[layout]
    policy, probe = built(config), observation(config)
    as_floats = {k: v.astype(np.float32) if k.startswith("observation.images") else v for k, v in probe.items()}
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        policy.act(as_floats)
    scaled = {k: v / np.float32(255) if k.startswith("observation.images") else v for k, v in as_floats.items()}
    assert torch.allclose(policy.act(scaled), policy.act(probe), atol=1e-6)


def test_modes_and_dropout_do_not_reach_acting_but_training_may_ask_for_it() -> None:
    policy, probe = built(SMALL), observation(SMALL)
    policy.train()
    acted = policy.act(probe)
    policy.eval()
    assert torch.equal(policy.act(probe), acted)
    seen = policy.see(probe)
    assert not torch.equal(policy.features(seen, dropout=True), policy.features(seen))


def test_maps_of_a_frozen_backbone_may_be_reused_and_images_detached() -> None:
    policy, probe = built(SMALL), observation(SMALL)
    seen = policy.see(probe)
    maps = policy.encoder.maps(seen.images)
    assert torch.equal(policy.features(seen, maps=maps), policy.features(seen))
    policy.features(seen, detach_images=True).sum().backward()
    assert policy.encoder.state is not None
    assert policy.encoder.state[0].weight.grad is not None
    assert all(p.grad is None for n, p in policy.encoder.named_parameters() if not n.startswith("state."))


def test_a_frozen_backbone_is_not_trained_nor_are_targets() -> None:
    policy = built(replace(DISCRETE, target_encoder="own"))
    held = {
        name.split(".")[0] if ".backbone." not in name else "backbone"
        for name, p in policy.named_parameters()
        if not p.requires_grad
    }
    assert held == {"backbone", "critic_target_encoder", "critic_target", "discrete_critic_target"}
    thawed = built(replace(SMALL, freeze_vision_encoder=False))
    assert all(p.requires_grad for p in thawed.encoder.parameters())


def test_targets_start_as_their_critics() -> None:
    torch.manual_seed(3)
    policy = ARCHITECTURE.build(replace(DISCRETE, target_encoder="own"))
    probe = observation(DISCRETE)
    action = policy.act(probe)
    assert torch.equal(policy.q_values(probe, action), policy.target_q_values(probe, action))


@pytest.mark.parametrize("own", [False, True])
def test_the_critics_own_encoder_reaches_targets_only_where_they_have_no_copy(own: bool) -> None:
    config = replace(DISCRETE, target_encoder="own" if own else "critic")
    policy, probe = built(config), observation(config)
    action = policy.act(probe)
    before, online = policy.target_q_values(probe, action), policy.q_values(probe, action)
    assert policy.critic_encoder is not None
    assert policy.critic_encoder.state is not None
    with torch.no_grad():
        policy.critic_encoder.state[0].bias.add_(1.0)
    assert not torch.equal(policy.q_values(probe, action), online)
    assert torch.equal(policy.target_q_values(probe, action), before) == own
    assert torch.equal(policy.act(probe)[:, :2], action[:, :2]), "the actor has an encoder of its own"


def test_the_discrete_action_is_the_best_of_its_head_and_the_critics_read_the_rest() -> None:
    policy, probe = built(DISCRETE), observation(DISCRETE, batch=5)
    action = policy.act(probe)
    assert action[:, -1].tolist() == policy.discrete_q_values(probe).argmax(1).tolist()
    assert torch.equal(policy.q_values(probe, action), policy.q_values(probe, action[:, :-1]))
    with pytest.raises(ValueError, match=r"expected \(B, 2\) or \(B, 3\)"):
        policy.q_values(probe, torch.zeros(5, 4))
    with pytest.raises(ValueError, match="no discrete head"):
        built(SMALL).discrete_q_values(observation(SMALL))


def test_imagenets_mean_and_deviation_are_taken_out_before_the_encoder() -> None:
    plain, normalised = built(SMALL), built(replace(SMALL, image_normalization="imagenet", frame_stack=1))
    normalised.load_state_dict(plain.state_dict())
    seen = plain.see(observation(SMALL))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    by_hand = seen._replace(images={camera: (images - mean) / std for camera, images in seen.images.items()})
    assert torch.allclose(plain.features(by_hand), normalised.features(seen), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"observation.images.front": None}, KeyError, "observation.images.front"),
        ({"observation.images.front": np.zeros((2, 3, 8, 8), np.uint8)}, ValueError, "expected"),
        ({"observation.images.front": np.zeros((2, 3, 47, 50), np.int64)}, ValueError, "uint8"),
        ({"observation.state": np.zeros((2, 9), np.float32)}, ValueError, "expected"),
        ({"observation.environment_state": None}, KeyError, "environment_state"),
    ],
)
def test_an_observation_of_another_kind_is_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    probe = {**observation(DISCRETE), **change}
    with pytest.raises(error, match=message):
        built(DISCRETE).act({key: value for key, value in probe.items() if value is not None})


def test_a_key_that_is_a_camera_by_itself_is_taken_as_it_is() -> None:
    config = replace(SMALL, cameras=("observation.image", "top.left"))
    policy = built(config)
    assert set(policy.encoder.state_dict()) >= {"spatial.observation_image.kernel", "spatial.top_left.kernel"}
    probe = observation(config)
    probe["observation.image"] = probe.pop("observation.images.observation.image")
    assert policy.act(probe).shape == (2, 2)


@settings(deadline=None, max_examples=30, database=None)
@given(st.integers(17, 80), st.integers(17, 80), st.booleans())
def test_a_resnets_maps_have_the_size_that_arithmetic_says(height: int, width: int, symmetric: bool) -> None:
    net = ResNet10(1, (4, 8, 12, 16), symmetric=symmetric)
    kind = "resnet10_symmetric" if symmetric else "resnet10"
    size = (map_size(kind, height), map_size(kind, width))
    if min(size) < 1:
        return
    with torch.no_grad():
        assert net(torch.rand(2, 1, height, width)).shape[2:] == size
