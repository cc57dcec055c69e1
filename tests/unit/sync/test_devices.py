"""Learner and actor on different devices hold the same bits. Needs a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from strategies import SMALL_DRQV2, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")


def act_on(device: str) -> Any:
    def act(policy: Any, observation: Any) -> Any:
        return policy.act({name: value.to(device) for name, value in observation.items()})

    return act


@pytest.mark.parametrize(("learners", "actors"), [("cuda", "cpu"), ("cpu", "cuda"), ("cuda", "cuda")])
@pytest.mark.parametrize("bind", ["memory:", "127.0.0.1:0"])
def test_a_learner_and_an_actor_on_different_devices_are_digest_equal(learners: str, actors: str, bind: str) -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0).to(learners)
    actor = drqv2_policy(SMALL_DRQV2, 1).to(actors)
    probes = drqv2_observations(SMALL_DRQV2, 5)
    manifest = make_manifest(learner, drqv2_groups(learner))
    with Publisher(learner, manifest, act=act_on(learners), probes=probes, bind=bind) as pub:
        with Subscriber(actor, pub.address, act=act_on(actors), probes=probes, actor_id="a") as sub:
            for step in range(3):
                with torch.no_grad():
                    for parameter in learner.parameters():
                        parameter.mul_(1.01)
                pub.publish(step)
                assert (sub.wait_for_first(30) if step == 0 else sub.poll(30)) is not None
                assert sub.root == pub.state().root
                held = actor.state_dict()
                for name in sub.reads:
                    assert torch.equal(held[name].cpu(), learner.state_dict()[name].cpu())
