"""The DrQ-v2 update: who learns from what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from weightkit.errors import ConfigError
from weightkit.nets.drqv2 import DrQV2Policy
from weightkit_runners.config import Exploration, UpdateConfig
from weightkit_runners.schedules import Linear, parse_schedule
from weightkit_runners.updates.base import average_into
from weightkit_runners.updates.drqv2 import DrQV2Update, noisy

IMAGE, STATE = "observation.images.front", "observation.state"


def make_policy(num_critics: int = 2, **changes: Any) -> DrQV2Policy:
    torch.manual_seed(0)
    return DrQV2Policy(
        cameras=("front",),
        image_channels=3,
        image_height=24,
        image_width=20,
        frame_stack=2,
        state_dim=3,
        action_dim=2,
        encoder_channels=4,
        num_downsample_convs=1,
        num_post_convs=3,
        bottleneck_dim=8,
        hidden_dims=(16, 16),
        num_critics=num_critics,
        **changes,
    )


def make_update(policy: DrQV2Policy, **changes: Any) -> DrQV2Update:
    values: dict[str, Any] = {
        "batch_size": 8,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "encoder_lr": 1e-3,
        "nstep": 1,
        "discount": 0.9,
        "target_update_weight": 0.5,
        "utd_ratio": 1,
        "policy_update_freq": 1,
        "grad_clip_norm": 40.0,
        "use_augmentation": True,
        "temperature_init": 1.0,
        "temperature_lr": 0.0,
        "num_subsample_critics": None,
        "target_entropy": None,
        "use_backup_entropy": True,
    }
    exploration = Exploration(Linear(0.1, 0.1, 0.0), 0.3, "env_step", 0)
    return DrQV2Update(policy, UpdateConfig(**{**values, **changes}), exploration, seed=0)


def make_batch(size: int = 8, *, reward: float = 1.0, terminated: bool = True) -> dict[str, Any]:
    random = np.random.default_rng(0)
    observation = {
        IMAGE: random.integers(0, 256, (size, 6, 24, 20)).astype(np.uint8),
        STATE: random.standard_normal((size, 6)).astype(np.float32),
    }
    return {
        **observation,
        **{f"next.{key}": value[::-1].copy() for key, value in observation.items()},
        "action": random.uniform(-1, 1, (size, 2)).astype(np.float32),
        "reward": np.full(size, reward, np.float32),
        "discount": np.full(size, 0.0 if terminated else 0.9, np.float32),
    }


def changed(policy: DrQV2Policy, before: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}


def snapshot(policy: DrQV2Policy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.state_dict().items()}


def test_the_critic_loss_moves_encoder_and_critic_only() -> None:
    policy = make_policy()
    before = snapshot(policy)
    make_update(policy).update_critic(make_batch(), 0.1)
    assert changed(policy, before) == {"encoder", "critic"}


def test_the_actor_loss_moves_the_actor_only() -> None:
    policy = make_policy()
    update = make_update(policy)
    _, features, state = update.update_critic(make_batch(), 0.1)
    before = snapshot(policy)
    update.update_actor(features, state, 0.1)
    assert changed(policy, before) == {"actor"}
    assert all(p.requires_grad for p in policy.critic.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize(("rate", "still"), [("encoder_lr", "encoder"), ("critic_lr", "critic"), ("actor_lr", "actor")])
def test_each_module_has_a_learning_rate_of_its_own(rate: str, still: str) -> None:
    policy = make_policy()
    before = snapshot(policy)
    make_update(policy, **{rate: 0.0}).update([make_batch()], env_step=0, learner_step=0)
    moved = changed(policy, before)
    assert still not in moved
    assert moved >= {"encoder", "critic", "actor"} - {still}


def test_every_batch_of_the_utd_ratio_moves_the_critic() -> None:
    one, three = make_policy(), make_policy()
    make_update(one).update([make_batch()], env_step=0, learner_step=0)
    make_update(three).update([make_batch()] * 3, env_step=0, learner_step=0)
    assert make_update(three).optimizers["encoder"].state_dict()["state"] == {}
    assert not torch.equal(one.critic.qs[0].head.weight, three.critic.qs[0].head.weight)  # type: ignore[union-attr, arg-type]


def test_the_actor_is_updated_every_policy_update_freq_steps() -> None:
    policy = make_policy()
    update = make_update(policy, policy_update_freq=2)
    for learner_step, expected in ((1, False), (2, True)):
        before = snapshot(policy)
        update.update([make_batch()], env_step=0, learner_step=learner_step)
        assert ("actor" in changed(policy, before)) is expected


def test_the_target_moves_towards_the_critic_by_its_weight() -> None:
    policy = make_policy()
    update = make_update(policy, target_update_weight=0.25)
    update.update_critic(make_batch(), 0.1)
    assert policy.critic is not None
    assert policy.critic_target is not None
    old = policy.critic_target.qs[0].head.weight.clone()  # type: ignore[union-attr, operator]
    average_into(policy.critic_target, policy.critic, update.config.target_update_weight)
    expected = old + 0.25 * (policy.critic.qs[0].head.weight - old)  # type: ignore[operator]
    assert torch.allclose(policy.critic_target.qs[0].head.weight, expected)  # type: ignore[arg-type]


def test_critics_learn_the_value_of_a_batch_that_ends() -> None:
    policy = make_policy()
    update = make_update(policy, use_augmentation=False, critic_lr=1e-2)
    batch = make_batch(reward=1.0, terminated=True)
    for _ in range(60):
        metrics, _, _ = update.update_critic(batch, 0.1)
    assert metrics["critic_loss"] < 0.05
    assert metrics["q"] == pytest.approx(1.0, abs=0.2)


def test_noise_stays_inside_the_action_space_and_passes_gradients() -> None:
    mean = torch.full((64, 3), 0.95, requires_grad=True)
    action = noisy(mean, torch.randn(mean.shape, generator=torch.Generator().manual_seed(0)), 0.3)
    assert float(action.detach().max()) < 1.0
    assert float((action - mean).detach().abs().max()) <= 0.3 + 1e-6
    action.sum().backward()
    assert torch.equal(mean.grad, torch.ones_like(mean))  # type: ignore[arg-type]


def test_training_without_a_critic_is_refused() -> None:
    with pytest.raises(ValueError, match="critic"):
        make_update(make_policy(num_critics=0))


@pytest.mark.parametrize(
    ("text", "step", "value"),
    [
        ("linear(1.0,0.1,50000)", 0, 1.0),
        ("linear(1.0, 0.1, 50000)", 25_000, 0.55),
        ("linear(1.0,0.1,50000)", 10**9, 0.1),
        ("0.2", 77, 0.2),
    ],
)
def test_schedules_read_as_drqv2_writes_them(text: str, step: int, value: float) -> None:
    assert parse_schedule(text).at(step) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "linear(1,2)", "linear(a,b,c)", "step(1,2,3)", "linear(1.0,0.1,50000) "[:-2]])
def test_other_schedules_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="linear"):
        parse_schedule(text)


@pytest.mark.parametrize(
    ("changes", "what"), [({"time_dim": 3}, "see the time"), ({"num_atoms": 5}, "distribution over values")]
)
def test_critics_that_this_rule_does_not_train_are_refused_in_words(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        make_update(make_policy(**changes))


def test_critics_on_one_trunk_are_trained_on_it_together() -> None:
    policy = make_policy(shared_critic_trunk=True)
    before = snapshot(policy)
    update = make_update(policy)
    update.update([make_batch()], env_step=0, learner_step=0)
    assert policy.critic is not None
    first, second = policy.critic.qs
    assert first.visual_trunk is second.visual_trunk
    assert changed(policy, before) == {"encoder", "actor", "critic", "critic_target"}
    trained = sum(len(group["params"]) for group in update.optimizers["critic"].param_groups)
    assert trained == len({id(parameter) for parameter in policy.critic.parameters()})
