"""Devlog 042, both halves of its table: the encoder that nobody sends, and the frozen backbone that nobody needs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from learner_042 import EIGHT, NET, FixedLearner042, Learner042
from sac_configs import SMALL
from strategies import act, drqv2_observations, drqv2_policy
from weightkit.architectures.probes import probes
from weightkit.architectures.sac.architecture import ARCHITECTURE as SAC
from weightkit.core.group import Transfer
from weightkit.errors import NeedsNotMet, PinMismatch, UncoveredRead
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.service import SyncService
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import serve
from weightkit.transports.base import PROTOCOL, Hello, Welcome
from weightkit.verbs.verify_sync import verify_sync

SEEN = drqv2_observations(NET, 0)


def test_the_learner_of_devlog_042_does_not_start_and_the_eight_tensors_are_named() -> None:
    learner = Learner042(drqv2_policy(NET, 0))
    with pytest.raises(UncoveredRead) as error:
        Publisher(learner.policy, learner.manifest(), act=act, probes=SEEN, bind="memory:")
    assert set(error.value.names) == EIGHT


@pytest.mark.parametrize("bind", ["memory:", "127.0.0.1:0"])
def test_where_it_starts_all_the_same_an_honest_actor_refuses_it_and_never_acts(bind: str) -> None:
    class Lying(SyncService):
        """Proves nothing and welcomes everybody."""

        def hello(self, hello: Hello) -> Welcome:
            return Welcome(PROTOCOL, self.run_id, self.manifest)

    actor = drqv2_policy(NET, 1)
    server = serve(bind, Lying(Learner042(drqv2_policy(NET, 0)).manifest(), "run"))
    try:
        with Subscriber(actor, server.address, act=act, probes=SEEN, actor_id="a") as sub:
            with pytest.raises(NeedsNotMet) as error:
                sub.wait_for_first(20)
            assert {finding.subject for finding in error.value.report.errors()} == EIGHT
            assert sub.version is None
        assert all(tensor.isnan().all() for tensor in actor.parameters())
    finally:
        server.close()


@pytest.mark.parametrize(("kind", "missing"), [(Learner042, EIGHT), (FixedLearner042, set())])
def test_its_saved_push_is_judged_by_the_command_too(kind: type[Learner042], missing: set[str], tmp_path: Path) -> None:
    push = kind(drqv2_policy(NET, 0)).save_push(tmp_path / "push.pt")
    settings = {"cameras": "front", "image_size": "19", "state_dim": "4", "action_dim": "2", "encoder_channels": "4"}
    report = verify_sync(arch="drqv2", settings={**settings, "mlp_nodes": "8,8", "bottleneck_size": "5"}, payload=push)
    assert {finding.subject for finding in report.errors()} == missing
    assert report.exit_code == (1 if missing else 0)


# ---- the other half: a frozen, pretrained backbone

FROZEN = replace(SMALL, vision_encoder="resnet10", resnet_widths=(4, 8, 12, 16))


def sac(seed: int, backbone: int = 0) -> Any:
    policy = SAC.build(FROZEN).eval()
    with torch.no_grad():
        for name, tensor in policy.state_dict().items():
            torch.manual_seed(backbone if ".backbone." in name else seed)
            nn.init.normal_(tensor, std=0.1)
    return policy


def frozen_manifest(policy: Any) -> Any:
    names = [f"{name}." for name in policy.state_dict()]
    groups = [g for g in SAC.groups(FROZEN) if any(name.startswith(f"{g.name}.") for name in names)]
    return make_manifest(policy, {g.name: (g.transfer.value, g.why) for g in groups}, architecture="sac")


SEEN_BY_SAC = probes(SAC.inputs(FROZEN))


def test_a_frozen_backbone_travels_with_no_byte_and_the_actor_acts_as_the_learner() -> None:
    learner, actor = sac(1), sac(2)
    manifest = frozen_manifest(learner)
    pinned = manifest.names(Transfer.PIN)
    assert pinned
    assert all(".backbone." in name for name in pinned)
    assert all(manifest.by_name[name].offset is None for name in pinned)
    sent = sum(manifest.by_name[name].spec.nbytes for name in manifest.names(Transfer.SEND))
    assert manifest.payload_bytes < sent + 64 * len(manifest.entries)
    assert not any(".backbone." in name for name in manifest.names(Transfer.SEND))
    with Publisher(learner, manifest, act=act, probes=SEEN_BY_SAC, bind="127.0.0.1:0") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=SEEN_BY_SAC, actor_id="a") as sub:
            sub.wait_for_first(20)
            for seen in SEEN_BY_SAC:
                assert torch.equal(act(actor, seen), act(learner, seen))
            assert "encoder.backbone" not in sub.groups_applied


def test_another_backbone_on_the_actor_is_refused_with_its_names() -> None:
    learner, actor = sac(1), sac(2, backbone=9)
    manifest = frozen_manifest(learner)
    with Publisher(learner, manifest, act=act, probes=SEEN_BY_SAC, bind="127.0.0.1:0") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=SEEN_BY_SAC, actor_id="a") as sub:
            with pytest.raises(PinMismatch) as error:
                sub.wait_for_first(20)
            assert all(name in error.value.message for name in manifest.names(Transfer.PIN))
            assert sub.version is None


def test_one_other_number_in_the_backbone_is_refused_with_that_one_name() -> None:
    learner, actor = sac(1), sac(2)
    with torch.no_grad():
        actor.encoder.backbone.stem.conv.weight.view(-1)[3] += 1e-6
    manifest = frozen_manifest(learner)
    with Publisher(learner, manifest, act=act, probes=SEEN_BY_SAC, bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=SEEN_BY_SAC, actor_id="a") as sub:
            with pytest.raises(PinMismatch) as error:
                sub.wait_for_first(20)
            assert error.value.message.endswith("the two sides: encoder.backbone.stem.conv.weight")


@pytest.mark.parametrize("transfer", ["pin", "hold"])
def test_a_backbone_that_is_trained_after_all_is_refused_at_the_learners_start(transfer: str) -> None:
    learner = sac(1)
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-4)
    tops = {name.split(".")[0]: "send" for name in learner.state_dict()}
    waivers = {"encoder.backbone": "it is pretrained"} if transfer == "hold" else {}
    manifest = make_manifest(learner, {**tops, "encoder.backbone": transfer}, waivers=waivers)
    with pytest.raises(NeedsNotMet, match="an optimizer of the learner holds it") as error:
        Publisher(learner, manifest, act=act, probes=SEEN_BY_SAC, bind="memory:", optimizers=[optimizer])
    refused = {finding.subject for finding in error.value.report.errors()}
    assert refused == {name for name in learner.state_dict() if name.startswith("encoder.backbone.")}
