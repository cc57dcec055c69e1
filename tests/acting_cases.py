"""Policies that read their tensors in every way that hides a read, each with the names that acting reads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

Built = tuple[Any, Callable[[Any, Any], Any], list[Any]]


@dataclass(frozen=True)
class Case:
    """A policy, how it acts, exactly what that reads, and all else that the policy holds."""

    name: str
    build: Callable[[], Built]
    reads: frozenset[str]
    unread: frozenset[str] = frozenset()


CASES: dict[str, Case] = {}


def case(reads: str, unread: str = "critic.weight critic.bias") -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    """Register a builder under its name; ``reads`` and ``unread`` are all names of its policy."""

    def register(build: Callable[[], Built]) -> Callable[[], Built]:
        name = build.__name__.replace("_", " ")
        CASES[name] = Case(name, build, frozenset(reads.split()), frozenset(unread.split()))
        return build

    return register


def probes(count: int = 2) -> list[Any]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, 4, generator=generator) for _ in range(count)]


class Net(nn.Module):
    """An encoder, a head over it, and a critic that acting leaves alone."""

    def __init__(self, encoder: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Linear(4, 4) if encoder is None else encoder
        self.head = nn.Linear(4, 2)
        self.critic = nn.Linear(4, 1)
        for name, tensor in self.named_parameters():
            if tensor.ndim == 1 and "norm" not in name:
                nn.init.normal_(tensor)

    def forward(self, x: Any) -> Any:
        return torch.tanh(self.head(torch.relu(self.encoder(x))))


def forward(policy: Any, x: Any) -> Any:
    with torch.no_grad():
        return policy(x)


ENCODER, HEAD = "encoder.weight encoder.bias", "head.weight head.bias"
NET = f"{ENCODER} {HEAD}"
NORMED = "encoder.0.weight encoder.0.bias encoder.1." + " encoder.1.".join(
    ("weight", "bias", "running_mean", "running_var")
)


@case(NET)
def plain() -> Built:
    return Net(), lambda p, x: p(x), probes()


@case(NET)
def no_grad() -> Built:
    return Net(), forward, probes()


@case(NET)
def inference_mode() -> Built:
    return Net(), lambda p, x: torch.inference_mode()(p.forward)(x), probes()


@case(f"{NORMED} {HEAD}", "critic.weight critic.bias encoder.1.num_batches_tracked")
def batch_norm_in_eval_mode() -> Built:
    return Net(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))).eval(), forward, probes()


@case(f"{NET} twin.weight twin.bias")
def tied_modules() -> Built:
    net = Net()
    net.twin = net.encoder
    return net, forward, probes()


@case(f"{NET} second.weight", "critic.weight critic.bias second.bias")
def tied_weights() -> Built:
    net = Net()
    net.second = nn.Linear(4, 4)
    net.second.weight = net.encoder.weight
    return net, forward, probes()


@case(NET)
def torch_compile_warm() -> Built:
    net = torch.compile(Net(), backend="aot_eager")
    for x in probes():
        forward(net, x)
    return net, forward, probes()


@case(NET)
def act_itself_compiled_and_warm() -> Built:
    net = Net()
    act = torch.compile(forward, backend="aot_eager")
    for x in probes():
        act(net, x)
    return net, act, probes()


@case(NET)
def detach_in_the_encoder() -> Built:
    def act(p: Any, x: Any) -> Any:
        return p.head(torch.relu(x @ p.encoder.weight.detach().T + p.encoder.bias.data))

    return Net(), act, probes()


@case(f"encoder.0.weight encoder.0.bias {HEAD}")
def dropout_in_eval_mode() -> Built:
    return Net(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))).eval(), forward, probes()


@case(f"encoder.0.weight encoder.0.bias {HEAD}")
def dropout_in_train_mode() -> Built:
    return Net(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))).train(), forward, probes()


@case(f"{NET} gate", "critic.weight critic.bias other.weight other.bias")
def data_dependent_branch() -> Built:
    net = Net()
    net.other, net.gate = nn.Linear(4, 4), nn.Parameter(torch.tensor(1e6))

    def act(p: Any, x: Any) -> Any:
        return p(p.other(x) if bool(x.sum() > p.gate) else x)

    return net, act, probes()


@case(f"encoder.weight_ih_l0 encoder.weight_hh_l0 encoder.bias_ih_l0 encoder.bias_hh_l0 {HEAD}")
def lstm_with_flat_weights() -> Built:
    def act(p: Any, x: Any) -> Any:
        with torch.no_grad():
            return p.head(p.encoder(x)[0])

    return Net(nn.LSTM(4, 4)), act, probes()


@case(f"{NET} offset")
def buffer_that_is_not_persistent() -> Built:
    net = Net()
    net.register_buffer("offset", torch.full((4,), 0.5), persistent=False)
    return net, lambda p, x: p(x - p.offset), probes()


@case(f"{NORMED} {HEAD}", "critic.weight critic.bias encoder.1.num_batches_tracked")
def frozen_backbone_with_batch_norm() -> Built:
    net = Net(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))).eval()
    net.encoder.requires_grad_(False)
    return net, forward, probes()


@case(NET)
def argmax() -> Built:
    return Net(), lambda p, x: forward(p, x).argmax(-1), probes(8)


@case(f"{NET} log_std")
def sampling_and_clamp() -> Built:
    net = Net()
    net.log_std = nn.Parameter(torch.zeros(2))

    def act(p: Any, x: Any) -> Any:
        return torch.distributions.Normal(p(x), p.log_std.exp()).sample().clamp(-1, 1)

    return net, act, probes()


@case(NET)
def nan_to_num() -> Built:
    return Net(), lambda p, x: torch.nan_to_num(forward(p, x)), probes()


@case(f"{NET} shift")
def tensor_in_a_plain_attribute() -> Built:
    net = Net()
    net.shift = torch.full((4,), 0.25)  # type: ignore[assignment]
    return net, lambda p, x: p(x + p.shift), probes()


@case(f"{NET} scale")
def array_in_a_plain_attribute() -> Built:
    net = Net()
    net.scale = np.full(4, 2.0, np.float32)  # type: ignore[assignment]
    return net, lambda p, x: p(torch.from_numpy(x.numpy() * p.scale)), probes()


@case(NET)
def read_through_numpy() -> Built:
    def act(p: Any, x: Any) -> Any:
        hidden = x.numpy() @ p.encoder.weight.detach().numpy().T + np.asarray(p.encoder.bias.detach())
        return p.head(torch.from_numpy(np.maximum(hidden, 0)))

    return Net(), act, probes()


@case(f"{HEAD} order table.weight", f"critic.weight critic.bias {ENCODER}")
def integer_buffer_and_embedding() -> Built:
    net = Net()
    net.register_buffer("order", torch.tensor([2, 0, 1]))
    net.table = nn.Embedding(3, 4)
    return net, lambda p, x: p.head(x + p.table(p.order)), probes()


@case(f"encoder.bias encoder.parametrizations.weight.original0 encoder.parametrizations.weight.original1 {HEAD}")
def weight_norm() -> Built:
    return Net(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))), forward, probes()


@case(f"encoder.bias encoder.parametrizations.weight.original encoder.parametrizations.weight.0._u "
      f"encoder.parametrizations.weight.0._v {HEAD}")  # fmt: skip
def spectral_norm() -> Built:
    return Net(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))).eval(), forward, probes()


@case(f"encoder.0.weight encoder.0.bias {HEAD}")
def torchscript_submodule() -> Built:
    script = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    for x in probes(3):
        script(x)
    return Net(script), forward, probes()


@case(NET)
def parameters_that_are_views_of_one_arena() -> Built:
    net = Net()
    flat = torch.randn(sum(p.numel() for p in net.parameters()))
    start = 0
    for parameter in net.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    return net, forward, probes()


TRANSFORMER = " ".join(f"encoder.{name}" for name in nn.TransformerEncoderLayer(4, 2, 8).state_dict())


@case(f"{TRANSFORMER} {HEAD}")
def transformer_on_its_fast_path() -> Built:
    net = Net(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)).eval()
    return net, lambda p, x: forward(p, x[None]), probes()


# ---- and more than the field's usual suspects


@case(f"nets.0.weight nets.0.bias nets.1.weight nets.1.bias {HEAD}", f"critic.weight critic.bias {ENCODER}")
def modules_in_a_plain_list() -> Built:
    net = Net()
    object.__setattr__(net, "nets", [nn.Linear(4, 4), nn.Linear(4, 4)])
    return net, lambda p, x: p.head(p.nets[1](torch.relu(p.nets[0](x)))), probes()


@case(f"{NET} target.weight target.bias")
def module_behind_the_back_of_its_parent() -> Built:
    net = Net()
    net.__dict__["target"] = nn.Linear(4, 4)
    return net, lambda p, x: p(p.target(x)), probes()


@case(f"{HEAD} left", f"critic.weight critic.bias {ENCODER} right")
def columns_of_one_matrix() -> Built:
    net = Net()
    both = torch.randn(4, 8)
    net.left, net.right = nn.Parameter(both[:, :4]), nn.Parameter(both[:, 4:])
    return net, lambda p, x: p.head(x @ p.left), probes()


@case(f"{NET} gain")
def buffer_that_expand_repeats() -> Built:
    net = Net()
    net.register_buffer("gain", torch.full((1,), 1.5).expand(4))
    return net, lambda p, x: p(x * p.gain), probes()


@case(f"{NET} shift")
def tensor_made_in_inference_mode() -> Built:
    net = Net()
    with torch.inference_mode():
        net.shift = torch.full((4,), 0.5)  # type: ignore[assignment]
    return net, lambda p, x: torch.inference_mode()(lambda: p(x + p.shift))(), probes()


@case(NET, "critic.weight critic.bias pad")
def scratch_that_is_overwritten_first() -> Built:
    net = Net()
    net.register_buffer("pad", torch.zeros(3, 4), persistent=False)

    def act(p: Any, x: Any) -> Any:
        p.pad.copy_(x)
        return p(p.pad)

    return net, act, probes()


@case(NET)
def another_thread() -> Built:
    def act(p: Any, x: Any) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(forward(p, x)))
        thread.start()
        thread.join()
        return found[0]

    return Net(), act, probes()


@case(f"{NET} mask")
def boolean_mask_through_numpy_and_argmax() -> Built:
    net = Net()
    net.register_buffer("mask", torch.tensor([True, True]))

    def act(p: Any, x: Any) -> Any:
        logits = forward(p, x).numpy()
        return int(np.where(p.mask.numpy(), logits, -9.0).argmax(-1)[0])

    return net, act, probes(8)


@case(f"{NET} mask")
def boolean_mask_in_another_thread() -> Built:
    net = Net()
    net.register_buffer("mask", torch.tensor([True, True]))

    def act(p: Any, x: Any) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(torch.where(p.mask, forward(p, x), -9.0).argmax(-1)))
        thread.start()
        thread.join()
        return found[0]

    return net, act, probes(8)


@case(NET)
def automatic_mixed_precision() -> Built:
    def act(p: Any, x: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            return p(x)

    return Net(), act, probes()


@case(NET)
def functional_call_with_the_state() -> Built:
    def act(p: Any, x: Any) -> Any:
        return torch.func.functional_call(p, p.state_dict(), (x,))

    return Net(), act, probes()


@case("nets.weight nets.bias")
def ensemble_under_vmap() -> Built:
    members = [nn.Linear(4, 2) for _ in range(3)]
    stacked, _ = torch.func.stack_module_state(members)
    net = nn.Module()
    net.critic = nn.Linear(4, 1)
    net.nets = stacked  # type: ignore[assignment]

    def act(p: Any, x: Any) -> Any:
        call = torch.func.vmap(lambda w, b: nn.functional.linear(x, w, b))
        return call(p.nets["weight"], p.nets["bias"]).mean(0)

    return net, act, probes()


@case(NET)
def observation_changed_in_place() -> Built:
    def act(p: Any, x: Any) -> Any:
        return forward(p, x.mul_(0.5))

    return Net(), act, probes()


@case(f"{NET} blocks.0.weight blocks.0.bias", "critic.weight critic.bias blocks.1.weight blocks.1.bias")
def one_of_two_experts() -> Built:
    net = Net()
    net.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    return net, lambda p, x: p(p.blocks[int(x.shape[0] > 100)](x)), probes()


@case(f"{NET} noise", "critic.weight critic.bias")
def own_generator() -> Built:
    net = Net()
    net.noise = nn.Parameter(torch.full((4,), 0.1))
    object.__setattr__(net, "rng", np.random.default_rng(5))

    def act(p: Any, x: Any) -> Any:
        jitter = p.rng.standard_normal(4).astype(np.float32) * p.noise.detach().numpy()
        return p(x + torch.from_numpy(jitter))

    return net, act, probes()


@case(NET)
def data_parallel_wrapper() -> Built:
    class DataParallel(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Any) -> Any:
            return self.module(x)

    return DataParallel(Net()), forward, probes()


@case("encoder.weight encoder.bias encoder.k head.weight head.bias")
def attribute_of_a_compiled_script() -> Built:
    return Net(torch.jit.script(_Shifted())), forward, probes()


class _Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.bias = nn.Parameter(torch.randn(4))
        self.k = torch.full((4,), 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias + self.k
