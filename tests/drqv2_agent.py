"""Stand-ins of the shape that facebookresearch/drqv2 gives its agent: the same modules, names and attributes.

Loaded under the name ``drqv2`` while a snapshot is saved: tests/whole_agents.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class RandomShiftsAug(nn.Module):
    """No parameters, one number."""

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad


class Encoder(nn.Module):
    """Four convolutions; for images of 84x84 they give 32*35*35 numbers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.repr_dim = width * 35 * 35
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, stride=2), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(width, width, 3, stride=1), nn.ReLU()]
        self.convnet = nn.Sequential(*layers)


def _trunk(repr_dim: int, feature_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(repr_dim, feature_dim), nn.LayerNorm(feature_dim), nn.Tanh())


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )


class Actor(nn.Module):
    """A trunk and a policy."""

    def __init__(self, repr_dim: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = _trunk(repr_dim, feature_dim)
        self.policy = _head(feature_dim, hidden_dim, action_dim)


class Critic(nn.Module):
    """One trunk that both Qs share."""

    def __init__(self, repr_dim: int, action_dim: int, feature_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.trunk = _trunk(repr_dim, feature_dim)
        self.Q1 = _head(feature_dim + action_dim, hidden_dim, 1)
        self.Q2 = _head(feature_dim + action_dim, hidden_dim, 1)


class DrQV2Agent:
    """Not a module: a plain object that holds four of them and three optimizers."""

    def __init__(self, channels: int, action_dim: int, width: int, feature_dim: int, hidden_dim: int) -> None:
        self.device = "cpu"
        self.critic_target_tau = 0.01
        self.update_every_steps = 2
        self.use_tb = False
        self.num_expl_steps = 2000
        self.stddev_schedule = "linear(1.0,0.1,500000)"
        self.stddev_clip = 0.3
        self.encoder = Encoder(channels, width)
        self.actor = Actor(self.encoder.repr_dim, action_dim, feature_dim, hidden_dim)
        self.critic = Critic(self.encoder.repr_dim, action_dim, feature_dim, hidden_dim)
        self.critic_target = Critic(self.encoder.repr_dim, action_dim, feature_dim, hidden_dim)
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.encoder_opt = torch.optim.Adam(self.encoder.parameters(), lr=1e-4)
        self.actor_opt = torch.optim.Adam(self.actor.parameters(), lr=1e-4)
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), lr=1e-4)
        self.aug = RandomShiftsAug(pad=4)
        self.training = True

    @property
    def nets(self) -> dict[str, nn.Module]:
        """The modules by the names of their attributes."""
        return {name: getattr(self, name) for name in ("encoder", "actor", "critic", "critic_target")}

    @property
    def optimizers(self) -> dict[str, Any]:
        """The optimizers by the nets that they train."""
        return {"encoder": self.encoder_opt, "actor": self.actor_opt, "critic": self.critic_opt}

    def step(self) -> None:
        """One step of every optimizer on random gradients, and the target a little after the critic."""
        for name, optimizer in self.optimizers.items():
            for parameter in self.nets[name].parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for target, source in zip(self.critic_target.parameters(), self.critic.parameters(), strict=True):
                target.lerp_(source, self.critic_target_tau)
