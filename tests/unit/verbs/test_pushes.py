"""A saved push is judged by what it holds, whatever its keys are called and under whichever names its tensors go."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from weightkit.core.report import Report, Severity
from weightkit.errors import FormatError
from weightkit.verbs.verify_sync import verify_sync

MODULE = "policy_of_the_push_tests"
X = torch.ones(2, 3)


class Actor(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(4, 2)

    def forward(self, x: Any) -> Any:
        return self.head(self.encoder(x))


class Shared(nn.Module):
    """As LeRobot's SACPolicy is built: one encoder under the actor and under the critics."""

    def __init__(self) -> None:
        super().__init__()
        encoder = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.actor, self.critic = Actor(encoder), nn.ModuleDict({"encoder": encoder, "q": nn.Linear(6, 1)})
        self.target = nn.ModuleDict({"encoder": encoder, "q": nn.Linear(6, 1)})
        self.log_alpha = nn.Parameter(torch.zeros(1))


class Twins(nn.Module):
    """Two modules of one shape, and acting takes the one that is called actor."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.policy = nn.Linear(3, 2), nn.Linear(3, 2)


class Positions(nn.Module):
    """As vision transformers have them: indices that are in no state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, 3)
        self.register_buffer("ids", torch.arange(2), persistent=False)


class Shifted(nn.Module):
    """Its mean is a tensor that nobody registered."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)
        self.mean = torch.full((3,), 0.5)


def shifted() -> Any:
    return Shifted().eval(), lambda p, x: p.net(x - p.mean), [X]


def positions() -> Any:
    return Positions().eval(), lambda p, x: x + p.table(p.ids), [X]


def shared() -> Any:
    return Shared().eval(), lambda p, x: p.actor(x), [X]


def twins() -> Any:
    return Twins().eval(), lambda p, x: p.actor(x), [X]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Report]:
    monkeypatch.setitem(sys.modules, MODULE, sys.modules[__name__])

    def judge(push: Any, factory: str = "shared") -> Report:
        torch.save(push, tmp_path / "push.pt")
        return verify_sync(policy=f"{MODULE}:{factory}", payload=tmp_path / "push.pt")

    return judge


def without(state: dict[str, Any], *parts: str) -> dict[str, Any]:
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


POLICY = Shared()
ACTOR, WHOLE = POLICY.actor.state_dict(), POLICY.state_dict()
COMPLETE: dict[str, Any] = {
    "the actor as policy": {"policy": ACTOR},
    "the actor as actor": {"actor": ACTOR},
    "the actor alone": ACTOR,
    "the whole alone": WHOLE,
    "the whole as policy": {"policy": WHOLE},
    "the whole as model": {"model": WHOLE},
    "the whole as state_dict": {"state_dict": WHOLE},
    "each module by its name": {
        name: module.state_dict() for name, module in POLICY.named_children()
    } | {"log_alpha": POLICY.log_alpha.detach()},
    "a dict around a dict": {"model": {"policy": ACTOR}},
    "data parallel": {"policy": {f"module.{name}": tensor for name, tensor in ACTOR.items()}},
    "compiled": {"policy": {f"_orig_mod.{name}": tensor for name, tensor in ACTOR.items()}},
    "the encoder under the critic's name alone": {
        "policy": without(ACTOR, "encoder"), "critic": POLICY.critic.state_dict()
    },
    "with what no policy has": {"policy": ACTOR, "optimizer": {"exp_avg": torch.ones(3)}},
}  # fmt: skip
ENCODER = {f"{module}.encoder.0.{kind}" for module in ("actor", "critic", "target") for kind in ("weight", "bias")}


@pytest.mark.parametrize("kind", list(COMPLETE))
def test_a_push_that_holds_all_that_acting_reads_passes(kind: str, judged: Callable[..., Report]) -> None:
    report = judged(COMPLETE[kind])
    assert report.errors() == ()
    assert report.exit_code == 0


@pytest.mark.parametrize("key", ["pi", "target_actor", "ema"])
def test_a_key_that_says_nothing_of_the_actor_is_not_taken_for_it(key: str, judged: Callable[..., Report]) -> None:
    report = judged({key: ACTOR})
    assert report.exit_code == 1
    (note,) = (f for f in report.findings if f.code == "WK317")
    assert (note.severity, note.subject) == (Severity.WARNING, key)
    assert "'actor'" in note.message


@pytest.mark.parametrize("segment", ["_orig_mod", "module"])
def test_names_that_load_state_dict_would_not_take_are_a_warning(segment: str, judged: Callable[..., Report]) -> None:
    report = judged({"actor": {f"{segment}.{name}": tensor for name, tensor in ACTOR.items()}})
    assert report.ok
    assert [f.severity for f in report.findings if f.code == "WK317"] == [Severity.WARNING]


def test_a_push_without_a_tensor_is_refused(judged: Callable[..., Report]) -> None:
    with pytest.raises(FormatError, match="no tensor"):
        judged({"actor": {name: tensor.numpy() for name, tensor in ACTOR.items()}})


def test_what_no_state_dict_can_hold_is_a_warning(judged: Callable[..., Report]) -> None:
    report = judged(Positions().state_dict(), "positions")
    assert report.exit_code == 0
    found = [(f.code, f.severity, f.subject) for f in report.findings if f.code == "WK301"]
    assert found == [("WK301", Severity.WARNING, "ids")]


def test_a_plain_attribute_that_acting_reads_is_missing_from_every_state_dict(judged: Callable[..., Report]) -> None:
    report = judged(Shifted().state_dict(), "shifted")
    assert [(f.code, f.subject) for f in report.errors()] == [("WK301", "mean")]
    assert report.exit_code == 1


@pytest.mark.parametrize("key", ["policy", "actor"])
def test_a_push_without_the_encoder_names_it_under_all_its_names(key: str, judged: Callable[..., Report]) -> None:
    report = judged({key: without(ACTOR, "encoder")})
    assert report.exit_code == 1
    assert {(f.code, f.subject) for f in report.errors()} == {("WK301", name) for name in ENCODER}


@pytest.mark.parametrize("name", sorted(ACTOR))
def test_one_tensor_that_is_not_in_the_push_is_the_one_that_is_named(name: str, judged: Callable[..., Report]) -> None:
    report = judged({"policy": without(ACTOR, name)})
    firsts = {f.subject for f in report.errors() if f.subject.startswith("actor.")}
    assert firsts == {f"actor.{name}"}


def test_a_renamed_key_is_missing_under_its_name_and_unknown_under_the_other(judged: Callable[..., Report]) -> None:
    renamed = {name.replace("head", "output"): tensor for name, tensor in ACTOR.items()}
    report = judged({"policy": renamed})
    found = {(f.code, f.subject) for f in report.findings if f.code != "WK317"}
    assert {("WK301", "actor.head.weight"), ("WK304", "actor.output.weight")} <= found
    assert report.exit_code == 1


def test_the_report_says_what_a_key_was_taken_for(judged: Callable[..., Report]) -> None:
    report = judged({"policy": ACTOR})
    (note,) = (f for f in report.findings if f.code == "WK317")
    assert (note.subject, "'actor'" in note.message) == ("policy", True)
    assert "WK317" not in {f.code for f in judged({"actor": ACTOR}).findings}
    assert "the whole policy" in next(f for f in judged({"model": WHOLE}).findings if f.code == "WK317").message


def test_a_module_of_the_keys_own_name_is_not_taken_for_the_actor(judged: Callable[..., Report]) -> None:
    net = Twins()
    report = judged({"policy": net.policy.state_dict()}, "twins")
    assert {f.subject for f in report.errors()} == {"actor.weight", "actor.bias"}
    assert judged({"actor": net.actor.state_dict()}, "twins").ok


def test_other_shapes_are_another_shape_and_not_missing(judged: Callable[..., Report]) -> None:
    wide = {**ACTOR, "encoder.0.weight": torch.ones(4, 5)}
    report = judged({"policy": wide})
    codes = {(f.code, f.subject) for f in report.errors()}
    assert ("WK303", "actor.encoder.0.weight") in codes
    assert "WK301" not in {code for code, _ in codes}
