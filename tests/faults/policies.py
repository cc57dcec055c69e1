"""Small policies, the random weights that a learner publishes, and what tells one version's weights from another's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn

SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "many": ((256, 256),) * 5,  # 1.3 MB, 10 tensors
    "large": ((64, 1024), (1024, 768), (768, 32)),  # 3.5 MB, 3.1 of them in one tensor
    "wide": ((512, 512), (512, 512)),  # 2.1 MB, 4 tensors
    "tiny": ((32, 32), (32, 32)),  # 8 kB: about as much is said around it
}
POISONED = "poisoned"
TRANSFERS = {"body": "send", "critic": "hold"}


class Policy(nn.Module):
    """``act`` reads the body; the critic stays with the learner."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in SHAPES[kind])
        self.critic = nn.Linear(8, 1)

    def act(self, observation: Tensor) -> Tensor:
        for layer in self.body:
            observation = torch.tanh(layer(observation))
        return observation


def act(policy: Any, observation: Tensor) -> Tensor:
    """What the policy does."""
    with torch.no_grad():
        result: Tensor = policy.act(observation)
        return result


def probes_of(kind: str) -> list[Tensor]:
    """One observation."""
    return [torch.linspace(-1, 1, SHAPES[kind][0][0])[None]]


@dataclass(frozen=True, slots=True)
class Draw:
    """One learner step: new numbers in every ``every``-th tensor of the body, from ``seed``."""

    seed: int
    every: int = 1

    def apply(self, policy: Policy) -> None:
        """Write them."""
        rng = np.random.default_rng(self.seed)
        for index, tensor in enumerate(_sent(policy)):
            if index % self.every == 0:
                tensor.copy_(torch.from_numpy(0.2 * rng.random(tuple(tensor.shape), np.float32) - 0.1))


def digest_of(policy: Policy) -> str:
    """One digest of everything that is sent: of the bytes alone, and not by weightkit, which is what is on trial."""
    digest = xxhash.xxh3_128()
    for tensor in _sent(policy):
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def is_poisoned(policy: Policy) -> bool:
    """Whether no number of any version is in it."""
    return all(bool(tensor.isnan().all()) for tensor in _sent(policy))


def _sent(policy: Policy) -> Iterator[Tensor]:
    return (parameter.detach() for parameter in policy.body.parameters())
