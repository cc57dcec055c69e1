"""The read set is exact, however a policy reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from strategies import SMALL_DRQV2, act, drqv2_observations, drqv2_policy
from weightkit.errors import NeedsNotMet, UncoveredRead, UsageError
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.proof import judge, prove_coverage
from weightkit.sync.read_set import read_set, trace

PROBES = [torch.linspace(-1, 1, 12).reshape(3, 4), torch.ones(3, 4)]


class Policy(nn.Module):
    """An encoder, a head that reads it, and a critic that acting does not touch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(4, 2)
        self.critic = nn.Linear(4, 1)
        self.register_buffer("offset", torch.full((4,), 0.5), persistent=False)
        self.mean = torch.full((4,), 0.25)
        self.scale = np.full(4, 2.0, np.float32)
        self.action_of: Callable[[torch.Tensor], Any] = torch.tanh

    @torch.no_grad()
    def act(self, x: Any) -> Any:
        return self.action_of(self.head(self.encoder(x)))


HEAD = {"head.weight", "head.bias"}
ENCODER = {"encoder.weight", "encoder.bias"}


class Eager(nn.Module):
    """Calls a function with itself, so that a case is one line."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.bias = nn.Parameter(torch.randn(4))
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def detached(self: Any, x: Any) -> Any:
    return x @ self.weight.detach() + self.bias.data


def through_numpy(self: Any, x: Any) -> Any:
    weight = self.weight.detach().numpy()
    return torch.from_numpy(x.numpy() @ weight + self.bias.detach().numpy())


def inference(self: Any, x: Any) -> Any:
    with torch.inference_mode():
        return nn.functional.linear(x, self.weight, self.bias)


def nan_to_num(self: Any, x: Any) -> Any:
    return torch.nan_to_num(nn.functional.linear(x, self.weight, self.bias))


def branch_on_the_bias(self: Any, x: Any) -> Any:
    return x @ self.weight if float(self.bias.sum()) > 0 else x @ self.weight.T


@pytest.mark.parametrize("function", [detached, through_numpy, inference, nan_to_num, branch_on_the_bias])
def test_a_read_is_seen_however_it_happens(function: Callable[[Any, Any], Any]) -> None:
    assert read_set(Policy(Eager(function)), act, PROBES) == ENCODER | HEAD


@pytest.mark.parametrize(
    "action_of", [lambda y: y.argmax(-1), lambda y: torch.distributions.Normal(y, 1.0).sample().clamp(-1, 1)]
)
def test_argmax_and_sampling_hide_nothing(action_of: Callable[[torch.Tensor], Any]) -> None:
    policy = Policy(nn.Linear(4, 4))
    policy.action_of = action_of
    state = torch.get_rng_state()
    assert read_set(policy, act, PROBES) == ENCODER | HEAD
    assert torch.equal(torch.get_rng_state(), state)


def test_buffers_and_plain_attributes_are_read_by_name() -> None:
    policy = Policy(nn.Linear(4, 4))

    def scaled(policy: Any, x: Any) -> Any:
        return policy.act((x - policy.mean + policy.offset) * 1.0)

    assert read_set(policy, scaled, PROBES) == ENCODER | HEAD | {"mean", "offset"}


def test_numpy_arithmetic_is_found_by_its_value() -> None:
    policy = Policy(nn.Linear(4, 4))
    assert read_set(policy, lambda p, x: p.act(torch.from_numpy(x.numpy() * p.scale)), PROBES) == ENCODER | HEAD | {
        "scale"
    }


def test_only_metadata_is_no_read() -> None:
    policy = Policy(nn.Linear(4, 4))
    assert "mean" not in read_set(policy, lambda p, x: p.act(x + torch.zeros_like(p.mean)), PROBES)


def test_tied_tensors_are_read_under_all_their_names() -> None:
    policy = Policy(nn.Linear(4, 4))
    policy.twin = policy.encoder
    assert read_set(policy, act, PROBES) == ENCODER | HEAD | {"twin.weight", "twin.bias"}


def test_views_of_one_arena_are_told_apart() -> None:
    policy = Policy(nn.Linear(4, 4))
    flat = torch.randn(sum(p.numel() for p in policy.parameters()))
    start = 0
    for parameter in policy.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    assert read_set(policy, act, PROBES) == ENCODER | HEAD


def test_a_recurrent_net_reads_its_weights_and_the_list_of_them_adds_no_names() -> None:
    policy = nn.LSTM(4, 3)
    found = read_set(policy, lambda p, x: p(x)[0], PROBES)
    assert found == set(policy.state_dict())


def test_embedding_indices_and_integer_buffers_are_read() -> None:
    policy = nn.Module()
    policy.register_buffer("order", torch.tensor([2, 0, 1]))
    policy.table = nn.Embedding(3, 2)
    assert read_set(policy, lambda p, _: p.table(p.order), PROBES) == {"order", "table.weight"}


def test_a_transformer_on_its_fast_path_reads_all_its_weights() -> None:
    policy = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()
    assert read_set(policy, lambda p, x: p(x[None]).detach(), PROBES) == set(policy.state_dict())


def test_weight_norm_reads_direction_and_length() -> None:
    policy = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert read_set(policy, lambda p, x: p(x), PROBES) == set(policy.state_dict())


def test_the_policy_is_left_as_it_was() -> None:
    policy = Policy(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))).train()
    before = {item.name: item.tensor.detach().clone() for item in inventory(policy)}
    trace(policy, act, PROBES)
    assert all(torch.equal(before[item.name], item.tensor) for item in inventory(policy))


def test_batch_norm_in_train_mode_is_an_error_and_in_eval_mode_is_not() -> None:
    policy = Policy(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    groups = {"encoder": "send", "head": "send", "critic": "hold", "offset": "hold", "mean": "hold", "scale": "hold"}
    manifest = make_manifest(policy, groups)
    with pytest.raises(NeedsNotMet, match="WK306") as error:
        prove_coverage(policy.train(), act, PROBES, manifest)
    assert "encoder.1.running_mean" in {f.subject for f in error.value.report.errors()}
    report = prove_coverage(policy.eval(), act, PROBES, manifest)
    assert [(f.code, f.subject) for f in report.findings] == [("WK302", "encoder.1.num_batches_tracked")]
    assert {"encoder.1.running_mean", "encoder.1.running_var"} <= read_set(policy, act, PROBES)


def test_probes_are_needed() -> None:
    with pytest.raises(UsageError):
        read_set(Policy(nn.Linear(4, 4)), act, [])


def test_the_first_policy_reads_encoder_and_actor_alone() -> None:
    policy = drqv2_policy(SMALL_DRQV2, 0)
    expected = {name for name in policy.state_dict() if name.startswith(("encoder.", "actor."))}
    assert read_set(policy, lambda p, o: p.act(o), drqv2_observations(SMALL_DRQV2, 0)) == expected


def test_the_report_counts_by_group_and_the_error_names_the_tensors() -> None:
    policy = drqv2_policy(SMALL_DRQV2, 0)
    probes = drqv2_observations(SMALL_DRQV2, 0)
    manifest = make_manifest(policy, {"encoder": "hold", "actor": "send", "critic": "hold", "critic_target": "hold"})
    report = judge(trace(policy, act, probes), manifest, verb="verify-sync")
    assert (report.verb, report.exit_code) == ("verify-sync", 1)
    rows = report.facts["groups"]
    assert isinstance(rows, list)
    assert {(r["name"], r["read"], r["offered"], r["transfer"]) for r in rows} == {
        ("encoder", 8, 0, "hold"),
        ("actor", 14, 14, "send"),
        ("critic", 0, 0, "hold"),
        ("critic_target", 0, 0, "hold"),
    }
    with pytest.raises(UncoveredRead) as error:
        prove_coverage(policy, act, probes, manifest)
    assert set(error.value.names) == {n for n in policy.state_dict() if n.startswith("encoder.")}
    assert "'encoder'" in error.value.hint
