"""Random policies: trees of modules of every kind, and acting paths through some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from weightkit.sync.inventory import inventory, modules

WIDTH = 4


class Shared(nn.Module):
    """Uses another module's weight, transposed or not."""

    def __init__(self, weight: nn.Parameter, transposed: bool) -> None:
        super().__init__()
        self.weight, self.transposed = weight, transposed

    def forward(self, x: Any) -> Any:
        return x @ (self.weight.T if self.transposed else self.weight)


class Recurrent(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Any) -> Any:
        return self.cell(x.unsqueeze(1))[0].squeeze(1)


class Buffered(nn.Module):
    def __init__(self, persistent: bool, plain: bool) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(WIDTH), persistent=persistent)
        self.scale = torch.ones(WIDTH) if plain else nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Any) -> Any:
        return (x - self.offset) * self.scale


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(1, 3, 2), nn.GroupNorm(3, 3), nn.Conv2d(3, WIDTH, 1))

    def forward(self, x: Any) -> Any:
        return self.convs(x.reshape(-1, 1, 2, 2)).flatten(1)


class Wrapper(nn.Module):
    """As DataParallel and torch.compile put theirs around."""

    def __init__(self, inner: nn.Module, name: str) -> None:
        super().__init__()
        self.add_module(name, inner)
        self.inside = name

    def forward(self, x: Any) -> Any:
        return getattr(self, self.inside)(x)


class Containers(nn.Module):
    """Modules in containers, of which acting takes some."""

    def __init__(self, inner: list[nn.Module], taken: list[int], kind: str) -> None:
        super().__init__()
        self.taken = taken
        if kind == "list":
            self.blocks: Any = nn.ModuleList(inner)
        elif kind == "dict":
            self.blocks = nn.ModuleDict({str(index): each for index, each in enumerate(inner)})
        else:
            object.__setattr__(self, "blocks", list(inner))  # known to Python alone

    def forward(self, x: Any) -> Any:
        for index in self.taken:
            x = self.blocks[str(index) if isinstance(self.blocks, nn.ModuleDict) else index](x)
        return x


class Policy(nn.Module):
    """A trunk and a head that acting takes, and a critic that it leaves alone."""

    def __init__(self, trunk: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head, self.critic = trunk, nn.Linear(WIDTH, 3), critic

    def forward(self, x: Any) -> Any:
        return self.head(self.trunk(x))


@dataclass(frozen=True)
class Drawn:
    """A policy, how it acts, and what it is traced on."""

    policy: Policy
    act: Callable[[Any, Any], Any]
    probes: list[Any]


def _leaf(draw: st.DrawFn, made: list[nn.Linear]) -> nn.Module:
    kind = draw(st.sampled_from(("linear", "norm", "batchnorm", "recurrent", "buffer", "image", "tied", "frozen")))
    if kind == "norm":
        return nn.LayerNorm(WIDTH)
    if kind == "batchnorm":
        return nn.BatchNorm1d(WIDTH)
    if kind == "recurrent":
        return Recurrent(draw(st.sampled_from((nn.LSTM, nn.GRU, nn.RNN)))(WIDTH, WIDTH, batch_first=True))
    if kind == "buffer":
        return Buffered(draw(st.booleans()), draw(st.booleans()))
    if kind == "image":
        return Images()
    if kind == "tied" and made:
        return Shared(draw(st.sampled_from(made)).weight, draw(st.booleans()))  # type: ignore[arg-type]
    linear = nn.Linear(WIDTH, WIDTH, bias=draw(st.booleans()))
    linear.requires_grad_(kind != "frozen")
    made.append(linear)
    return linear


def _tree(draw: st.DrawFn, made: list[nn.Linear], depth: int) -> nn.Module:
    kind = draw(st.sampled_from(("leaf", "leaf", "sequence", "containers", "wrapped"))) if depth else "leaf"
    if kind == "leaf":
        return _leaf(draw, made)
    if kind == "wrapped":
        name = draw(st.sampled_from(("module", "_orig_mod", "net")))
        return Wrapper(_tree(draw, made, depth - 1), name)
    inner = [_tree(draw, made, depth - 1) for _ in range(draw(st.integers(1, 3)))]
    if kind == "sequence":
        return nn.Sequential(*inner)
    taken = draw(st.lists(st.sampled_from(range(len(inner))), max_size=3))
    return Containers(inner, taken, draw(st.sampled_from(("list", "dict", "plain"))))


def _through_numpy(policy: Any, x: Any) -> Any:
    hidden = policy.trunk(x).detach().numpy()
    weight, bias = policy.head.weight.detach().numpy(), policy.head.bias.detach().numpy()
    return hidden @ weight.T + bias


def _inference(policy: Any, x: Any) -> Any:
    with torch.inference_mode():
        return policy(x)


ACTS: dict[str, Callable[[Any, Any], Any]] = {
    "forward": lambda policy, x: policy(x),
    "inference": _inference,
    "numpy": _through_numpy,
    "detached": lambda policy, x: torch.tanh(policy.head(policy.trunk(x).detach())),
    "functional": lambda policy, x: torch.func.functional_call(policy, dict(policy.named_parameters()), (x,)),
}


@st.composite
def drawn_policies(draw: st.DrawFn) -> Drawn:
    """Policies of random trees, every tensor random, in eval mode."""
    made: list[nn.Linear] = []
    trunk = _tree(draw, made, 2)
    policy = Policy(trunk, _tree(draw, made, 1))
    for _, module in modules(policy):
        module.eval()  # what stands in a plain list is not reached by its parent's eval()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    randomise(policy, generator)
    act = ACTS[draw(st.sampled_from(sorted(ACTS)))]
    return Drawn(policy, act, [torch.randn(2, WIDTH, generator=generator) for _ in range(draw(st.integers(1, 3)))])


def randomise(policy: nn.Module, generator: torch.Generator) -> None:
    """Other numbers in every tensor; variances stay positive."""
    with torch.no_grad():
        for item in inventory(policy):
            if item.tensor.dtype.is_floating_point:
                item.tensor.detach().copy_(torch.randn(item.tensor.shape, generator=generator))
                if item.name.endswith("running_var"):
                    item.tensor.detach().abs_().add_(0.1)
