"""What SAC makes of its features: a Gaussian actor, Q functions and a discrete head.

Function-equal to `MLP`, `Policy`, `CriticHead` and `DiscreteCritic` of LeRobot 0.4.4's `modeling_sac`, and to `Actor`
and `ContinuousCritic` of stable-baselines3.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from weightkit.nets.blocks import mlp, normed_mlp

NORMED = "layernorm_silu"
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU, "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "mish": nn.Mish, "identity": nn.Identity,
}  # fmt: skip


def hidden_layers(kind: str, final: str, in_dim: int, hidden_dims: Sequence[int]) -> nn.Sequential:
    """An MLP's hidden layers: LeRobot's, whose last one ends with ``final``, or Linear and the activation ``kind``."""
    if kind == NORMED:
        return normed_mlp(in_dim, hidden_dims, None if final == "none" else _ACTIVATIONS[final])
    return mlp(in_dim, hidden_dims, _ACTIVATIONS[kind])


class Head(nn.Module):
    """An MLP with a linear layer on top. ``(B, in) -> (B, out)``."""

    def __init__(self, kind: str, final: str, in_dim: int, hidden_dims: Sequence[int], out_dim: int) -> None:
        super().__init__()
        self.mlp = hidden_layers(kind, final, in_dim, hidden_dims)
        self.head = nn.Linear(hidden_dims[-1], out_dim)
        if kind == NORMED:
            nn.init.orthogonal_(self.head.weight)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.head(self.mlp(features))
        return found


class Actor(nn.Module):
    """``(B, features) -> mean and standard deviation, (B, A) each``, both before the tanh.

    What LeRobot's nets call standard deviation is the variance of what they do: it is handed to torch as a covariance
    (0.4.4 `TanhMultivariateNormalDiag`). `deviation` is what actions are drawn with.
    """

    def __init__(
        self,
        kind: str,
        final: str,
        in_dim: int,
        hidden_dims: Sequence[int],
        action_dim: int,
        std_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.log_std_range = (log(std_range[0]), log(std_range[1]))
        self.gives_variance = kind == NORMED
        self.mlp = hidden_layers(kind, final, in_dim, hidden_dims)
        self.mean = nn.Linear(hidden_dims[-1], action_dim)
        self.log_std = nn.Linear(hidden_dims[-1], action_dim)
        if kind == NORMED:
            for layer in (self.mean, self.log_std):
                nn.init.uniform_(layer.weight, -0.05, 0.05)
                nn.init.uniform_(layer.bias, -0.05, 0.05)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.mlp(features)
        return self.mean(hidden), torch.exp(self.log_std(hidden).clamp(*self.log_std_range))

    def deviation(self, std: Tensor) -> Tensor:
        """The standard deviation of actions before their tanh, of what `forward` calls so."""
        return std.sqrt() if self.gives_variance else std


class Critic(nn.Module):
    """Independent Q functions. ``(B, features), (B, A) -> (num_critics, B)``."""

    def __init__(self, kind: str, final: str, in_dim: int, hidden_dims: Sequence[int], num_critics: int) -> None:
        super().__init__()
        self.qs = nn.ModuleList(Head(kind, final, in_dim, hidden_dims, 1) for _ in range(num_critics))

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        inputs = torch.cat([features, action], dim=1)
        return torch.stack([q(inputs).squeeze(1) for q in self.qs])
