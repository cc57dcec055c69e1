"""The SAC update: learned temperature, an ensemble of critics, frozen or trained encoders, a discrete head.

Source: Haarnoja et al. 2018 (SAC), with critics subsampled as in Chen et al. 2021 (REDQ); losses as in LeRobot 0.4.4
`SACPolicy.compute_loss_*`, for which the discrete head is trained like a double DQN (van Hasselt et al. 2016).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from weightkit.nets.sac import SACPolicy
from weightkit.nets.sac_encoder import Seen
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
    step_seed,
)


class View(NamedTuple):
    """What a batch shows; ``maps`` are what a frozen backbone made of its images, where all encoders share one."""

    seen: Seen
    maps: dict[str, Tensor] | None = None


class SACUpdate:
    """Optimizers and losses for one policy. Encoders that the critics share with the actor learn from them only.

    ``update`` steps the critics on every batch it gets, the actor and the temperature ``policy_update_freq`` times
    every ``policy_update_freq`` steps. ``dropout``: whether the encoders drop features while they learn.
    """

    def __init__(self, policy: SACPolicy, config: UpdateConfig, exploration: Exploration, seed: int) -> None:
        if policy.critic is None or policy.critic_target is None:
            raise ValueError("training needs a critic: this policy holds the acting path only")
        self.policy = policy
        self.critic, self.critic_target = policy.critic, policy.critic_target
        del exploration  # SAC explores by its own entropy
        self.config = config
        self._seed = seed
        self.dropout = True
        self.random = StepRandom(seed)
        self.shift = Shift(self.random.generator)
        for module in (policy.encoder, policy.critic_encoder, policy.critic_target_encoder):
            if module is not None:
                learn_in_channels_last(module)
        self._shared = policy.critic_encoder is None
        encoder = policy.encoder if self._shared else policy.critic_encoder
        assert encoder is not None
        backbone = encoder.backbone
        frozen = backbone is not None and not any(p.requires_grad for p in backbone.parameters())
        self._one_backbone = frozen and self._shared and policy.critic_target_encoder is None
        actor = list(policy.actor.parameters()) + ([] if self._shared else list(policy.encoder.parameters()))
        parts: dict[str, tuple[Any, float]] = {
            "actor": (actor, self.config.actor_lr),
            "critic": ([*self.critic.parameters(), *encoder.parameters()], self.config.critic_lr),
        }
        if policy.log_alpha is not None:
            parts["temperature"] = ([policy.log_alpha], self.config.temperature_lr)
        if policy.discrete_critic is not None:
            discrete = [*policy.discrete_critic.parameters(), *encoder.parameters()]
            parts["discrete_critic"] = (discrete, self.config.critic_lr)
        self.optimizers = Optimizers(parts, self.config.grad_clip_norm)
        dims = policy.action_dim + bool(policy.num_discrete_actions)
        wanted = self.config.target_entropy
        self.target_entropy = -dims / 2 if wanted is None else wanted

    @property
    def temperature(self) -> Tensor:
        """What entropy counts in rewards, ()."""
        if self.policy.log_alpha is None:
            return torch.tensor(self.config.temperature_init, device=self.policy.actor.mean.weight.device)
        return self.policy.log_alpha.detach().exp().squeeze()

    def update(self, batches: Sequence[Batch], *, env_step: int, learner_step: int) -> dict[str, float]:
        """One learner step on ``utd_ratio`` batches; the last also trains actor and temperature. Losses of the last."""
        del env_step
        self.random.begin(learner_step)
        metrics: dict[str, Tensor] = {}
        often = self.config.policy_update_freq
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step_seed(self._seed + 1, learner_step))  # dropout draws from the global generator
            for index, batch in enumerate(batches):
                seen, after = (self._seen(observation) for observation in before_and_after(batch))
                metrics = self.update_critics(batch, seen, after)
                if index == len(batches) - 1 and learner_step % often == 0:
                    for _ in range(often):
                        metrics |= self.update_actor(seen)
                self.update_targets()
        return {name: float(value) for name, value in metrics.items()} | {"temperature": float(self.temperature)}

    def update_critics(self, batch: Batch, seen: View, after: View) -> dict[str, Tensor]:
        """Step the critics, the discrete one too where there is one, and their encoder."""
        action, reward, discount = learned_from(batch, self.policy.actor.mean.weight.device)
        loss = self.critic_loss(seen, action, reward, discount, after)
        self.optimizers.step(loss, "critic")
        metrics = {"critic_loss": loss.detach()}
        if self.policy.discrete_critic is not None:
            loss = self.discrete_critic_loss(seen, action, reward, discount, after)
            self.optimizers.step(loss, "discrete_critic")
            metrics["discrete_critic_loss"] = loss.detach()
        return metrics

    def update_actor(self, seen: View) -> dict[str, Tensor]:
        """Step the actor, then the temperature."""
        self.critic.requires_grad_(False)
        try:
            loss = self.actor_loss(seen)
            self.optimizers.step(loss, "actor")
        finally:
            self.critic.requires_grad_(True)
        metrics = {"actor_loss": loss.detach()}
        if self.policy.log_alpha is not None:
            loss = self.temperature_loss(seen)
            self.optimizers.step(loss, "temperature")
            metrics["temperature_loss"] = loss.detach()
        return metrics

    def critic_loss(self, seen: View, action: Tensor, reward: Tensor, discount: Tensor, after: View) -> Tensor:
        """The temporal-difference loss, summed over the ensemble."""
        with torch.no_grad():
            next_action, log_prob = self._sampled(self._actor_features(after))
            values = self.critic_target(self._features(after, "target"), next_action)
            subsample = self.config.num_subsample_critics
            if subsample is not None:
                values = values[torch.randperm(len(values), generator=self.random.generator)[:subsample]]
            value = values.min(dim=0).values
            if self.config.use_backup_entropy:
                value = value - self.temperature * log_prob
            wanted = reward + discount * value
        found = self.critic(self._features(seen, "critic"), action[:, : self.policy.action_dim])
        loss: Tensor = nn.functional.mse_loss(found, wanted.expand_as(found), reduction="none").mean(dim=1).sum()
        return loss

    def discrete_critic_loss(self, seen: View, action: Tensor, reward: Tensor, discount: Tensor, after: View) -> Tensor:
        """The temporal-difference loss of the discrete head: chosen by the live one, valued by its target."""
        live, target = self.policy.discrete_critic, self.policy.discrete_critic_target
        assert live is not None
        assert target is not None
        with torch.no_grad():
            best = live(self._features(after, "critic")).argmax(dim=1, keepdim=True)
            value = target(self._features(after, "target")).gather(1, best).squeeze(1)
            wanted = reward + discount * value
        taken = action[:, self.policy.action_dim :].round().long()
        found = live(self._features(seen, "critic")).gather(1, taken).squeeze(1)
        return nn.functional.mse_loss(found, wanted)

    def actor_loss(self, seen: View) -> Tensor:
        """Low where the critics value what the actor does, and it stays random."""
        action, log_prob = self._sampled(self._actor_features(seen))
        with torch.no_grad():
            features = self._features(seen, "critic")
        valued: Tensor = self.critic(features, action).min(dim=0).values
        return (self.temperature * log_prob - valued).mean()

    def temperature_loss(self, seen: View) -> Tensor:
        """Low where the actor's entropy is the target's."""
        assert self.policy.log_alpha is not None
        with torch.no_grad():
            _, log_prob = self._sampled(self._actor_features(seen))
        return (-self.policy.log_alpha.exp() * (log_prob + self.target_entropy)).mean()

    def update_targets(self) -> None:
        """Move every target a little towards what it is a target of."""
        policy, weight = self.policy, self.config.target_update_weight
        average_into(self.critic_target, self.critic, weight)
        if policy.critic_target_encoder is not None:
            average_into(policy.critic_target_encoder, policy.critic_encoder or policy.encoder, weight)
        if policy.discrete_critic is not None and policy.discrete_critic_target is not None:
            average_into(policy.discrete_critic_target, policy.discrete_critic, weight)

    def _actor_features(self, seen: View) -> Tensor:
        """What the actor reads; an encoder that it shares does not learn from it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._shared):
            return self._features(seen, "actor")

    def _features(self, view: View, of: Literal["actor", "critic", "target"]) -> Tensor:
        return self.policy.features(view.seen, of, maps=view.maps, dropout=self.dropout)

    def _sampled(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """An action (B, A), drawn so that gradients pass, and the log of its density (B,)."""
        mean, std = self.policy.actor(features)
        stddev = self.policy.actor.deviation(std)
        noise = self.random.normal(mean)
        raw = mean + stddev * noise
        gaussian = -0.5 * noise.square() - stddev.log() - 0.5 * math.log(2 * math.pi)
        squashed = 2.0 * (math.log(2.0) - raw - nn.functional.softplus(-2.0 * raw))
        return torch.tanh(raw), (gaussian - squashed).sum(dim=1)

    def _seen(self, observation: dict[str, Any]) -> View:
        seen = self.policy.see(self.shift(observation) if self.config.use_augmentation else observation)
        seen = seen._replace(images=in_channels_last(seen.images))
        if not self._one_backbone:
            return View(seen)
        with torch.no_grad():
            return View(seen, self.policy.encoder.maps(seen.images))
