"""What is pushed: the policy, the names of its tensors that travel, and how it acts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

_TENSOR_ROWS, _ROW_BYTES = 1024, 4096


@dataclass(frozen=True)
class Work:
    """A policy with what a push of it needs; ``names`` are those of the tensors that travel, in its state dict."""

    policy: nn.Module
    act: Callable[[Any, Any], Any]
    probes: list[Any]
    groups: dict[str, str]
    names: tuple[str, ...]

    def state(self) -> dict[str, Tensor]:
        """The tensors that travel, as they are now."""
        state = self.policy.state_dict()
        return {name: state[name] for name in self.names}

    def load(self, state: dict[str, Tensor]) -> None:
        """Put pushed tensors into the policy, as torch does it."""
        missing, unexpected = self.policy.load_state_dict(state, strict=False)
        assert not unexpected
        assert set(missing).isdisjoint(self.names)

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors that travel."""
        return sum(tensor.nbytes for tensor in self.state().values())

    def digest(self) -> str:
        """A digest over the tensors that travel."""
        found = hashlib.blake2b()
        for name, tensor in self.state().items():
            found.update(name.encode())
            found.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    def change(self, by: float = 1e-4) -> None:
        """Move every number a little, as an optimizer's step would."""
        with torch.no_grad():
            for tensor in self.state().values():
                tensor.add_(by * (0.1 + float(torch.rand(()))))


@lru_cache(maxsize=1)
def make_work(payload: str) -> Work:
    """The work called ``payload``: "all" (10.3 million numbers, 41.2 MB), "acting" (its encoder and actor, 8.3 MB), or
    "synthetic-N" (N MB in tensors of 4 MiB at most). The last one is kept.
    """
    torch.manual_seed(0)
    if payload.startswith("synthetic-"):
        return _synthetic(int(payload.removeprefix("synthetic-")))
    from weightkit.architectures import architecture_named
    from weightkit.architectures.probes import probes

    architecture = architecture_named("drqv2")
    config = architecture.default_config()
    policy = architecture.build(config).eval()
    critics = "send" if payload == "all" else "hold"
    return Work(
        policy,
        lambda net, observation: net.act(observation),
        probes(architecture.inputs(config)),
        {"encoder": "send", "actor": "send", "critic": critics, "critic_target": critics},
        tuple(n for n in policy.state_dict() if critics == "send" or n.startswith(("encoder.", "actor."))),
    )


class _Layers(nn.Module):
    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        rows = size_bytes // _ROW_BYTES
        sizes = [min(_TENSOR_ROWS, rows - start) for start in range(0, rows, _TENSOR_ROWS)]
        self.layers = nn.ParameterList([nn.Parameter(torch.rand(size, _ROW_BYTES // 4)) for size in sizes])

    def act(self, observation: Tensor) -> Tensor:
        """Looks at one number of every layer: what is measured is the way there."""
        return observation + torch.stack([layer[0, 0] for layer in self.layers]).sum()


def _synthetic(megabytes: int) -> Work:
    policy = _Layers(megabytes * 1_000_000).eval()
    return Work(
        policy,
        lambda net, observation: net.act(observation),
        [torch.rand(1, 4) for _ in range(4)],
        {"layers": "send"},
        tuple(policy.state_dict()),
    )
