"""The DrQ-v2 update, with an optimizer of its own for the encoder.

Source: Yarats et al. 2021 (DrQ-v2), sections 3.1 and 3.2; losses as in drqv2 `DrQV2Agent.update_critic`/`update_actor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weightkit.errors import ConfigError
from weightkit.nets.blocks import RandomShift
from weightkit.nets.drqv2 import DrQV2Policy
from weightkit_runners.config import Exploration, UpdateConfig
from weightkit_runners.replay import ACTION, NEXT, REWARD, TERMINATED

Batch = Mapping[str, Any]


def noisy(mean: Tensor, stddev: float, clip: float, generator: torch.Generator | None) -> Tensor:
    """``mean (B, A)`` plus clipped Gaussian noise, inside (-1, 1); gradients pass to ``mean`` unclipped.

    Source: drqv2 `utils.TruncatedNormal`.
    """
    noise = torch.randn(mean.shape, generator=generator) * stddev
    moved = mean + noise.clamp(-clip, clip).to(mean)
    inside = moved.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    return moved - moved.detach() + inside.detach()


class DrQV2Update:
    """Optimizers and losses for one policy. The encoder learns from the critic loss only.

    A batch holds ``(B, ...)`` arrays: observation keys, the same behind ``next.``, action (B, A), reward (B,),
    terminated (B,). ``update`` steps the critic on every batch it gets, the actor every ``policy_update_freq`` steps.
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
        self.config = config
        self.exploration = exploration
        self.generator = torch.Generator().manual_seed(seed)
        self.shift = RandomShift(4)
        self.optimizers: dict[str, torch.optim.Adam] = {
            "actor": torch.optim.Adam(policy.actor.parameters(), lr=config.actor_lr),
            "critic": torch.optim.Adam(self.critic.parameters(), lr=config.critic_lr),
            "encoder": torch.optim.Adam(policy.encoder.parameters(), lr=config.encoder_lr),
        }

    def update(self, batches: Sequence[Batch], *, env_step: int, learner_step: int) -> dict[str, float]:
        """One learner step on ``utd_ratio`` batches; the last also updates the actor. Gives the losses of the last."""
        stddev = self.exploration.stddev(env_step=env_step, learner_step=learner_step)
        metrics: dict[str, float] = {}
        for index, batch in enumerate(batches):
            metrics, features, state = self.update_critic(batch, stddev)
            if index == len(batches) - 1 and learner_step % self.config.policy_update_freq == 0:
                metrics |= self.update_actor(features, state, stddev)
            self.update_target()
        return {**metrics, "stddev": stddev}

    def update_critic(self, batch: Batch, stddev: float) -> tuple[dict[str, float], Tensor, Tensor | None]:
        """Step critic and encoder on the temporal-difference loss; gives losses, and detached features and state."""
        policy = self.policy
        device = policy.actor.head.weight.device
        reward = torch.as_tensor(batch[REWARD]).to(device, torch.float32)
        going_on = 1.0 - torch.as_tensor(batch[TERMINATED]).to(device, torch.float32)
        action = torch.as_tensor(batch[ACTION]).to(device, torch.float32)
        state = policy.state_of(batch)
        features = policy.encoder(self._augmented(policy.images_of(batch)))
        after = {key.removeprefix(NEXT): value for key, value in batch.items() if key.startswith(NEXT)}
        with torch.no_grad():
            next_state = policy.state_of(after)
            next_features = policy.encoder(self._augmented(policy.images_of(after)))
            mean = torch.tanh(policy.actor(next_features, next_state))
            next_action = noisy(mean, stddev, self.exploration.clip, self.generator)
            value = self.critic_target(next_features, next_state, next_action).min(dim=0).values
            wanted = reward + going_on * self.config.discount * value
        values = self.critic(features, state, action)
        loss = nn.functional.mse_loss(values, wanted.expand_as(values), reduction="none").mean(dim=1).sum()
        self._step(loss, {"critic": self.critic, "encoder": policy.encoder})
        metrics = {"critic_loss": float(loss.detach()), "q": float(values.detach().mean())}
        return metrics, features.detach(), state

    def update_actor(self, features: Tensor, state: Tensor | None, stddev: float) -> dict[str, float]:
        """Step the actor towards actions that the critic values; the encoder and the critic do not move."""
        mean = torch.tanh(self.policy.actor(features, state))
        action = noisy(mean, stddev, self.exploration.clip, self.generator)
        self.critic.requires_grad_(False)
        try:
            loss = -self.critic(features, state, action).min(dim=0).values.mean()
            self._step(loss, {"actor": self.policy.actor})
        finally:
            self.critic.requires_grad_(True)
        return {"actor_loss": float(loss.detach())}

    @torch.no_grad()
    def update_target(self) -> None:
        """Move the critic target a little towards the critic."""
        weight = self.config.target_update_weight
        for target, live in zip(self.critic_target.parameters(), self.critic.parameters(), strict=True):
            target.lerp_(live, weight)

    def _step(self, loss: Tensor, modules: Mapping[str, nn.Module]) -> None:
        for name in modules:
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, module in modules.items():
            if self.config.grad_clip_norm > 0:
                nn.utils.clip_grad_norm_(module.parameters(), self.config.grad_clip_norm)
            self.optimizers[name].step()

    def _augmented(self, images: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.config.use_augmentation:
            return images
        return {camera: self.shift(pixels, self.generator) for camera, pixels in images.items()}
