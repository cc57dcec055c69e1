"""Whatever is sent arrives: with every group sent, an actor's whole state is its learner's, bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sac_configs import sac_configs
from strategies import act, drqv2_kwargs, drqv2_observations, drqv2_policy
from weightkit.architectures.probes import probes
from weightkit.architectures.sac.architecture import ARCHITECTURE as SAC
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber

LAW = settings(
    deadline=None,
    max_examples=15,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def every_tensor_arrives(learner: Any, actor: Any, seen: list[Any]) -> None:
    state = learner.state_dict()
    assert not all(torch.equal(value, state[name]) for name, value in actor.state_dict().items())
    manifest = make_manifest(learner, {name.split(".")[0]: "send" for name in state})
    with Publisher(learner, manifest, act=act, probes=seen, bind="127.0.0.1:0") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=seen, actor_id="a") as sub:
            sub.wait_for_first(20)
            found = actor.state_dict()
            assert list(found) == list(state)
            for name, value in found.items():
                assert value.dtype == state[name].dtype
                assert torch.equal(value.view(torch.uint8), state[name].view(torch.uint8)), name
            assert sub.groups_applied == tuple(group.name for group in manifest.groups)


@LAW
@given(drqv2_kwargs(shared_trunks=True), st.integers(0, 1000))
def test_the_whole_of_drqv2_targets_included(kwargs: dict[str, Any], seed: int) -> None:
    learner = drqv2_policy(kwargs, seed)
    if kwargs["num_critics"]:
        assert any(name.startswith("critic_target.") for name in learner.state_dict())
    every_tensor_arrives(learner, drqv2_policy(kwargs, seed + 1), drqv2_observations(kwargs, seed))


@LAW
@given(sac_configs(), st.integers(0, 1000))
def test_the_whole_of_sac_targets_and_temperature_included(config: Any, seed: int) -> None:
    learner, actor = randomised(SAC.build(config), seed), randomised(SAC.build(config), seed + 1)
    if config.learned_temperature:
        assert "log_alpha" in learner.state_dict()
    seen = [{k: torch.from_numpy(v) for k, v in each.items()} for each in probes(SAC.inputs(config))]
    every_tensor_arrives(learner, actor, seen)


def randomised(policy: Any, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for item in inventory(policy):
            item.tensor.detach().copy_(torch.rand(item.tensor.shape, generator=generator) - 0.3)
    return policy.eval()
