"""The SAC update: who learns from what, and that it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_replay import update as update_config

from weightkit.architectures import architecture_named
from weightkit.architectures.sac.config import SACConfig
from weightkit.nets.sac import SACPolicy
from weightkit_runners.config import Exploration
from weightkit_runners.schedules import Linear
from weightkit_runners.updates.sac import SACUpdate

IMAGE, STATE = "observation.images.front", "observation.state"
ACTIONS = 2


def make_policy(**changes: Any) -> SACPolicy:
    torch.manual_seed(0)
    values: dict[str, Any] = {
        "cameras": ("front",), "image_channels": 3, "image_height": 64, "image_width": 64, "state_dim": 3,
        "action_dim": ACTIONS, "image_encoder_hidden_dim": 4, "image_embedding_pooling_dim": 2, "latent_dim": 8,
        "actor_hidden_dims": (16, 16), "critic_hidden_dims": (16, 16), "discrete_hidden_dims": (8,),
        "freeze_vision_encoder": False,
    }  # fmt: skip
    policy: SACPolicy = architecture_named("sac").build(SACConfig(**{**values, **changes}))
    return policy


def make_update(policy: SACPolicy, **changes: Any) -> SACUpdate:
    values: dict[str, Any] = {
        "actor_lr": 1e-3, "critic_lr": 1e-3, "temperature_lr": 1e-3, "target_update_weight": 0.5,
        "grad_clip_norm": 40.0, "use_augmentation": True, "utd_ratio": 1,
    }  # fmt: skip
    exploration = Exploration(Linear(0.0, 0.0, 0.0), 0.3, "env_step", 0)
    return SACUpdate(policy, update_config(**{**values, **changes}), exploration, seed=0)


def make_batch(size: int = 8, *, discrete: bool = False, reward: float = 1.0, discount: float = 0.0) -> dict[str, Any]:
    random = np.random.default_rng(0)
    observation = {
        IMAGE: torch.from_numpy(random.integers(0, 256, (size, 3, 64, 64)).astype(np.uint8)),
        STATE: torch.from_numpy(random.standard_normal((size, 3)).astype(np.float32)),
    }
    action = random.uniform(-1, 1, (size, ACTIONS)).astype(np.float32)
    if discrete:
        action = np.concatenate([action, random.integers(0, 3, (size, 1)).astype(np.float32)], axis=1)
    return {
        **observation,
        **{f"next.{key}": value.flip(0) for key, value in observation.items()},
        "action": torch.from_numpy(action),
        "reward": torch.full((size,), reward),
        "discount": torch.full((size,), discount),
    }


def moved(policy: SACPolicy, before: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}


def snapshot(policy: SACPolicy) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in policy.state_dict().items()}


def seen_by(update: SACUpdate) -> Any:
    return update._seen({IMAGE: make_batch()[IMAGE], STATE: make_batch()[STATE]})


def test_critics_and_their_encoder_learn_from_the_critic_loss() -> None:
    policy = make_policy()
    update = make_update(policy)
    before = snapshot(policy)
    update.update_critics(make_batch(), seen_by(update), seen_by(update))
    assert moved(policy, before) == {"critic", "encoder"}


def test_the_actor_loss_moves_actor_and_temperature_and_no_shared_encoder() -> None:
    policy = make_policy()
    update = make_update(policy)
    before = snapshot(policy)
    update.update_actor(seen_by(update))
    assert moved(policy, before) == {"actor", "log_alpha"}


def test_an_encoder_of_its_own_learns_with_the_actor() -> None:
    policy = make_policy(shared_encoder=False)
    update = make_update(policy)
    before = snapshot(policy)
    update.update_actor(seen_by(update))
    assert moved(policy, before) == {"actor", "encoder", "log_alpha"}
    before = snapshot(policy)
    update.update_critics(make_batch(), seen_by(update), seen_by(update))
    assert moved(policy, before) == {"critic", "critic_encoder"}


def test_a_frozen_backbone_does_not_move_and_is_looked_through_once_for_each_observation() -> None:
    policy = make_policy(freeze_vision_encoder=True)
    update = make_update(policy)
    calls = []
    policy.encoder.backbone.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr]
    before = snapshot(policy)
    update.update([make_batch()], env_step=0, learner_step=0)
    assert len(calls) == 2
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("encoder.backbone") for name in changed)
    assert any(name.startswith("encoder.spatial") for name in changed)


def test_a_discrete_head_learns_too_and_its_target_follows() -> None:
    policy = make_policy(num_discrete_actions=3)
    update = make_update(policy)
    before = snapshot(policy)
    update.update([make_batch(discrete=True)], env_step=0, learner_step=0)
    assert moved(policy, before) >= {"discrete_critic", "discrete_critic_target", "critic", "critic_target", "actor"}


def test_targets_move_by_their_weight() -> None:
    policy = make_policy(target_encoder="own")
    update = make_update(policy, target_update_weight=0.25)
    update.update_critics(make_batch(), seen_by(update), seen_by(update))
    before = snapshot(policy)
    update.update_targets()
    for target, live in (("critic_target", "critic"), ("critic_target_encoder", "encoder")):
        names = [name for name in before if name.startswith(f"{target}.")]
        assert names
        for name in names:
            old, to = before[name], before[name.replace(target, live, 1)]
            torch.testing.assert_close(policy.state_dict()[name], old + 0.25 * (to - old))


def test_critics_learn_the_value_of_a_batch_that_ends() -> None:
    policy = make_policy()
    update = make_update(policy, use_augmentation=False, critic_lr=1e-2)
    update.dropout = False
    batch, seen = make_batch(), seen_by(update)
    for _ in range(80):
        loss = update.update_critics(batch, seen, seen)["critic_loss"]
    assert float(loss) < 0.05


def test_the_temperature_rises_while_the_actor_is_less_random_than_wanted() -> None:
    policy = make_policy()
    sure = make_update(policy, target_entropy=50.0)
    before = float(sure.temperature)
    sure.update([make_batch()], env_step=0, learner_step=0)
    assert float(sure.temperature) > before
    loose = make_update(policy, target_entropy=-50.0)
    before = float(loose.temperature)
    loose.update([make_batch()], env_step=0, learner_step=0)
    assert float(loose.temperature) < before


def test_the_entropy_of_the_next_action_counts_only_where_it_is_asked_for() -> None:
    policy = make_policy()
    losses = []
    for backup in (True, False):
        update = make_update(policy, use_backup_entropy=backup)
        update.dropout = False
        update.random.begin(0)
        loss = update.critic_loss(seen_by(update), *_parts(discount=0.9), seen_by(update))
        losses.append(float(loss.detach()))
    assert losses[0] != losses[1]


def _parts(discount: float) -> tuple[torch.Tensor, ...]:
    batch = make_batch(discount=discount)
    return batch["action"], batch["reward"], batch["discount"]


def test_only_a_subset_of_the_targets_is_read_and_another_for_every_batch() -> None:
    """Five targets that say 0 to 4: the least of all is 0, that of two is drawn."""
    policy = make_policy(num_critics=5)
    said = torch.arange(5.0)[:, None].expand(5, 8)
    least: dict[int | None, set[float]] = {}
    for subset in (None, 2):
        update = make_update(policy, num_subsample_critics=subset, use_backup_entropy=False)
        update.critic_target = lambda features, action: said  # type: ignore[assignment]
        update.critic = lambda features, action: torch.zeros(5, 8)  # type: ignore[assignment]
        action, _, _ = _parts(discount=0.0)
        losses = [
            update.critic_loss(seen_by(update), action, torch.zeros(8), torch.ones(8), seen_by(update))
            for _ in range(30)
        ]
        least[subset] = {round(float(loss.detach() / 5) ** 0.5, 3) for loss in losses}
    assert least == {None: {0.0}, 2: {0.0, 1.0, 2.0, 3.0}}


@pytest.mark.parametrize(("often", "steps"), [(1, [1, 1, 1, 1]), (2, [2, 0, 2, 0])])
def test_the_actor_steps_as_often_as_the_critics_on_average(often: int, steps: list[int]) -> None:
    update = make_update(make_policy(), policy_update_freq=often)
    calls: list[int] = []
    step_actor = update.update_actor
    update.update_actor = lambda seen: (calls.append(1), step_actor(seen))[1]  # type: ignore[method-assign]
    found = []
    for step in range(4):
        calls.clear()
        update.update([make_batch()], env_step=0, learner_step=step)
        found.append(len(calls))
    assert found == steps


def test_one_step_repeats_bit_for_bit_whatever_was_drawn_before() -> None:
    one, other = make_policy(), make_policy()
    make_update(one).update([make_batch()], env_step=0, learner_step=7)
    torch.rand(100)
    make_update(other).update([make_batch()], env_step=0, learner_step=7)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_without_a_critic_is_refused() -> None:
    policy = architecture_named("sac").build(make_policy().config, with_critic=False)
    with pytest.raises(ValueError, match="critic"):
        make_update(policy)
