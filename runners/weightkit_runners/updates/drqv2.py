"""The DrQ-v2 update, with an optimizer of its own for the encoder.

Source: Yarats et al. 2021 (DrQ-v2), sections 3.1 and 3.2; losses as in drqv2 `DrQV2Agent.update_critic`/`update_actor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weightkit.errors import ConfigError
from weightkit.nets.drqv2 import DrQV2Policy
from weightkit_runners.config import Exploration, UpdateConfig
from weightkit_runners.replay.buffer import Batch
from weightkit_runners.updates.base import (
    Optimizers,
    Shift,
    StepRandom,
    average_into,
    before_and_after,
    in_channels_last,
    learn_in_channels_last,
    learned_from,
)


def noisy(mean: Tensor, noise: Tensor, clip: float) -> Tensor:
    """``mean (B, A)`` plus ``noise`` clipped to ``clip``, inside (-1, 1); gradients pass to ``mean`` unclipped.

    Source: drqv2 `utils.TruncatedNormal`.
    """
    moved = mean + noise.clamp(-clip, clip)
    inside = moved.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    return moved - moved.detach() + inside.detach()


class DrQV2Update:
    """Optimizers and losses for one policy. The encoder learns from the critic loss only.

    ``update`` steps the critic on every batch it gets, the actor every ``policy_update_freq`` steps. Raises ConfigError
    for critics that it does not train.
    """

    def __init__(self, policy: DrQV2Policy, config: UpdateConfig, exploration: Exploration, seed: int) -> None:
        if policy.critic is None or policy.critic_target is None:
            raise ValueError("training needs a critic: this policy holds the acting path only")
        if policy.time_dim or policy.critic.distribution is not None:
            what = "see the time" if policy.time_dim else "give a distribution over values"
            raise ConfigError(
                f"$.policy: its critics {what}; this learner trains critics of one value without it",
                hint="such a policy can act and be converted; to train it here leave its critics out",
            )
        self.policy = policy
        self.critic, self.critic_target = policy.critic, policy.critic_target
        self.config, self.exploration = config, exploration
        self.random = StepRandom(seed)
        self.shift = Shift(self.random.generator)
        learn_in_channels_last(policy.encoder)
        self.optimizers = Optimizers(
            {
                "actor": (policy.actor.parameters(), self.config.actor_lr),
                "critic": (self.critic.parameters(), self.config.critic_lr),
                "encoder": (policy.encoder.parameters(), self.config.encoder_lr),
            },
            self.config.grad_clip_norm,
        )

    def update(self, batches: Sequence[Batch], *, env_step: int, learner_step: int) -> dict[str, float]:
        """One learner step on ``utd_ratio`` batches; the last also updates the actor. Gives the losses of the last."""
        self.random.begin(learner_step)
        stddev = self.exploration.stddev(env_step=env_step, learner_step=learner_step)
        metrics: dict[str, Tensor] = {}
        for index, batch in enumerate(batches):
            metrics, features, state = self.update_critic(batch, stddev)
            if index == len(batches) - 1 and learner_step % self.config.policy_update_freq == 0:
                metrics |= self.update_actor(features, state, stddev)
            average_into(self.critic_target, self.critic, self.config.target_update_weight)
        return {**{name: float(value) for name, value in metrics.items()}, "stddev": stddev}

    def update_critic(self, batch: Batch, stddev: float) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """Step critic and encoder on the temporal-difference loss; gives losses, and detached features and state."""
        policy = self.policy
        action, reward, discount = learned_from(batch, policy.actor.head.weight.device)
        before, after = before_and_after(batch)
        state = policy.state_of(before)
        features = policy.encoder(self._seen(before))
        with torch.no_grad():
            next_state = policy.state_of(after)
            next_features = policy.encoder(self._seen(after))
            next_action = self._explored(torch.tanh(policy.actor(next_features, next_state)), stddev)
            value = self.critic_target(next_features, next_state, next_action).min(dim=0).values
            wanted = reward + discount * value
        values = self.critic(features, state, action)
        loss = nn.functional.mse_loss(values, wanted.expand_as(values), reduction="none").mean(dim=1).sum()
        self.optimizers.step(loss, "critic", "encoder")
        return {"critic_loss": loss.detach(), "q": values.detach().mean()}, features.detach(), state

    def update_actor(self, features: Tensor, state: Tensor | None, stddev: float) -> dict[str, Tensor]:
        """Step the actor towards actions that the critic values; the encoder and the critic do not move."""
        action = self._explored(torch.tanh(self.policy.actor(features, state)), stddev)
        self.critic.requires_grad_(False)
        try:
            loss = -self.critic(features, state, action).min(dim=0).values.mean()
            self.optimizers.step(loss, "actor")
        finally:
            self.critic.requires_grad_(True)
        return {"actor_loss": loss.detach()}

    def _explored(self, mean: Tensor, stddev: float) -> Tensor:
        return noisy(mean, self.random.normal(mean) * stddev, self.exploration.clip)

    def _seen(self, observation: dict[str, Any]) -> dict[str, Tensor]:
        seen = self.shift(observation) if self.config.use_augmentation else observation
        return in_channels_last(self.policy.images_of(seen))
