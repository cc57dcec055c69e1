"""What the soak's learner and actors run: 2 million numbers, of which the first layer changes rarely."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PROBES = [torch.linspace(-1, 1, 64).reshape(1, 64)]


def make_policy(*, seed: int) -> nn.Module:
    """8 MB in four layers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 1024), nn.Tanh(), nn.Linear(1024, 1024), nn.Tanh(), nn.Linear(1024, 1024),
                         nn.Tanh(), nn.Linear(1024, 4))  # fmt: skip


def act(policy: nn.Module, observation: Any) -> Any:
    """Its output, without gradients."""
    with torch.no_grad():
        return policy(observation)
