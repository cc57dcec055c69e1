"""A branch that no probe took reads what nobody syncs: it raises before an action leaves, however it is reached."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from weightkit.errors import UnsyncedRead
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.publisher import Publisher
from weightkit.sync.read_set import trace
from weightkit.sync.subscriber import Subscriber
from weightkit.sync.tripwire import UnsyncedTensor, arm, disarm

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TorchScript still runs on robots

NORMAL, STRANGE = torch.full((2, 4), 0.5), torch.full((2, 4), 100.0)
Act = Callable[[Any, Any], Any]


class Robot(nn.Module):
    """Acts by ``main``; by ``rescue`` where an observation is strange, which no probe is."""

    def __init__(self, rescue: Any = None) -> None:
        super().__init__()
        self.rescue = nn.Linear(4, 2) if rescue is None else rescue
        self.main = nn.Linear(4, 2)
        self.table = [torch.ones(4), torch.ones(4)]
        self.gain = np.ones(4, np.float32)
        self.calm = True
        self.steps = 0

    def forward(self, x: Any) -> Any:
        return self.rescue(x) if bool(x.mean() > 10) else self.main(x)


class Scripted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rescue = nn.Linear(4, 2)
        self.main = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.mean() > 10):
            return self.rescue(x)
        return self.main(x)


def strange(x: Any) -> bool:
    return bool(x.mean() > 10)


def by_the_state(policy: Any, x: Any) -> Any:
    return policy(x).argmax(-1)  # an argmax shows no NaN


def by_the_number_of_steps(policy: Any, x: Any) -> Any:
    policy.steps += 1
    return (policy.rescue if policy.steps > 6 else policy.main)(x)


def by_a_mode_set_later(policy: Any, x: Any) -> Any:
    return torch.nan_to_num((policy.main if policy.calm else policy.rescue)(x))


def by_a_failure(policy: Any, x: Any) -> Any:
    try:
        if strange(x):
            raise KeyError("the camera is gone")
        return policy.main(x)
    except KeyError:
        return policy.rescue(x).clamp(-1, 1)


def by_looking_up_a_tensor(policy: Any, x: Any) -> Any:
    return policy.main(x * (policy.table[1] if strange(x) else policy.table[0]))


def in_numpy(policy: Any, x: Any) -> Any:
    return policy.main(torch.from_numpy(x.numpy() * policy.gain) if strange(x) else x)


def under_inference_mode(policy: Any, x: Any) -> Any:
    with torch.inference_mode():
        return policy(x)


def where_the_first_parameter_says_where(policy: Any, x: Any) -> Any:
    first = next(policy.parameters())  # unsynced, and only asked for its device and type
    return policy(x.to(first.device).to(first))


def through_tolist(policy: Any, x: Any) -> Any:
    return [policy.rescue.weight.tolist()] if strange(x) else policy.main(x)


def after_deciding_by_shape(policy: Any, x: Any) -> Any:
    padded = torch.zeros_like(policy.rescue.weight).sum() if policy.rescue.weight.shape == (2, 4) else 0
    return policy(x) + padded


class Recurrent(Robot):
    def __init__(self) -> None:
        super().__init__(nn.LSTM(4, 2))

    def forward(self, x: Any) -> Any:
        return self.rescue(x)[0] if strange(x) else self.main(x)


SCENARIOS: dict[str, tuple[Callable[[], Any], Act]] = {
    **{
        function.__name__: (Robot, function)
        for function in (
            *(by_the_state, by_the_number_of_steps, by_a_mode_set_later, by_a_failure, by_looking_up_a_tensor),
            *(in_numpy, under_inference_mode, where_the_first_parameter_says_where, through_tolist),
            after_deciding_by_shape,
        )
    },
    "in_a_recurrent_net": (Recurrent, lambda p, x: p(x)),
    "in_torchscript": (lambda: torch.jit.script(Scripted()), lambda p, x: p(x)),
    "in_a_compiled_policy": (lambda: torch.compile(Robot(), backend="aot_eager"), lambda p, x: p(x)),
    "in_a_list_of_experts": (
        lambda: Robot(nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])),
        lambda p, x: p.rescue[1](x) if strange(x) else p.main(x),
    ),
}


@contextmanager
def synced(build: Callable[[], Any], act: Act) -> Iterator[tuple[Any, Subscriber]]:
    learner, actor = build(), build()
    reads = trace(learner, act, [NORMAL]).reads
    groups: Any = {i.name: "send" if i.name in reads else ("hold", "not read") for i in inventory(learner)}
    with Publisher(learner, make_manifest(learner, groups), act=act, probes=[NORMAL], bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=[NORMAL], actor_id="a") as sub:
            sub.wait_for_first(20)
            yield actor, sub


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_an_untaken_branch_raises_when_it_is_taken_and_nothing_else_does(scenario: str) -> None:
    build, act = SCENARIOS[scenario]
    with synced(build, act) as (actor, sub):
        actor.calm, actor.steps = True, 0
        for _ in range(3):
            act(actor, NORMAL)
        actor.calm, actor.steps = False, 100
        with pytest.raises(RuntimeError if scenario == "in_torchscript" else UnsyncedRead) as error:
            act(actor, STRANGE)
        if isinstance(error.value, UnsyncedRead):
            assert error.value.name.split(".")[0] in ("rescue", "table", "gain")
            assert error.value.name in str(error.value)
        else:  # TorchScript keeps the message to itself and shows the line
            assert "rescue" in str(error.value)
        assert sub.status()["only_poisoned"] == []
        actor.calm, actor.steps = True, 0
        act(actor, NORMAL)
    torch._dynamo.reset()


def test_without_the_tripwire_the_same_branches_give_an_action() -> None:
    """The mutant: poison alone shows in no argmax, no clamp of nan_to_num, no list."""
    silent = 0
    for scenario in ("by_the_state", "by_a_mode_set_later", "through_tolist", "in_numpy"):
        build, act = SCENARIOS[scenario]
        with synced(build, act) as (actor, _):
            disarm(actor)
            actor.calm = False
            act(actor, STRANGE)
            silent += 1
    assert silent == 4


def test_what_cannot_be_taken_away_is_said_to_be_poisoned_only() -> None:
    def nosy(policy: Any, x: Any) -> Any:
        if isinstance(policy.rescue.weight, UnsyncedTensor):
            raise RuntimeError("what is this?")
        return policy.main(x)

    with synced(Robot, nosy) as (actor, sub):
        assert "rescue.weight" in sub.status()["only_poisoned"]  # type: ignore[operator]
        assert actor.rescue.weight.isnan().all()


def test_an_unsynced_tensor_has_everything_but_numbers() -> None:
    policy = Robot()
    policy.twin = policy.rescue
    before = policy.rescue.weight
    assert arm(policy, {"rescue.weight", "twin.weight", "rescue.bias", "twin.bias"}) == ()
    found = policy.rescue.weight
    assert policy.twin.weight is found
    assert isinstance(found, nn.Parameter)
    assert (found.shape, found.dtype, found.device, found.requires_grad) == (
        before.shape, before.dtype, before.device, before.requires_grad
    )  # fmt: skip
    assert set(policy.state_dict()) == set(Robot().state_dict()) | {"twin.weight", "twin.bias"}
    assert isinstance(copy.deepcopy(policy).rescue.weight, UnsyncedTensor)
    with pytest.raises(UnsyncedRead, match=r"rescue\.weight"):
        torch.save(policy.state_dict(), io.BytesIO())
    for read in (lambda: found.numpy(), lambda: np.asarray(found), lambda: found.sum(), lambda: found.cpu() + 1):
        with pytest.raises(UnsyncedRead, match=r"rescue\.weight"):
            read()
    disarm(policy)
    assert policy.rescue.weight.isnan().all()
    assert policy.twin.weight is policy.rescue.weight
    assert type(policy.rescue.weight) is nn.Parameter


def test_parameters_that_act_has_taken_hold_of_raise_too() -> None:
    policy = Robot()
    taken = dict(policy.named_parameters())

    def act(p: Any, x: Any) -> Any:
        prefix = "rescue" if strange(x) else "main"
        return nn.functional.linear(x, taken[f"{prefix}.weight"], taken[f"{prefix}.bias"]).argmax(-1)

    assert arm(policy, {"rescue.weight", "rescue.bias"}, act) == ()
    act(policy, NORMAL)
    with pytest.raises(UnsyncedRead, match="rescue"):
        act(policy, STRANGE)
    disarm(policy, act)
    assert taken["rescue.weight"] is policy.rescue.weight
    act(policy, STRANGE)


def test_a_tensor_where_nothing_can_be_replaced_is_told() -> None:
    policy = Robot()
    policy.pair = (torch.ones(2), torch.ones(2))
    assert set(arm(policy, {"pair.0", "pair.1", "rescue.bias"})) == {"pair.0", "pair.1"}


def test_a_new_learner_may_send_what_the_last_one_held() -> None:
    act = SCENARIOS["by_the_state"][1]
    learner, actor = Robot(), Robot()
    held: Any = {"main": "send", "rescue": ("hold", "not read"), "table": "hold", "gain": "hold"}
    first = Publisher(learner, make_manifest(learner, held), act=act, probes=[NORMAL], bind="memory:tripwire-two")
    first.publish()
    with Subscriber(actor, first.address, act=act, probes=[NORMAL], actor_id="a") as sub:
        sub.wait_for_first(20)
        with pytest.raises(UnsyncedRead):
            act(actor, STRANGE)
        first.close()
        manifest = make_manifest(learner, {**held, "rescue": "send"})
        with Publisher(learner, manifest, act=act, probes=[NORMAL, STRANGE], bind="memory:tripwire-two") as second:
            version = second.publish()
            while sub.version != version:
                sub.poll()
                second.wait_acked("a", 1, timeout_s=0.01)
            assert torch.equal(act(actor, STRANGE), act(learner, STRANGE))
