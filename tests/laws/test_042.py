"""Law 5: an actor acts as its learner does, bit for bit, and no withheld tensor gets as far as a handshake."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_kwargs, drqv2_observations, drqv2_policy
from weightkit.arena import Arena
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.engine import coverage
from weightkit.errors import NeedsNotMet, UncoveredRead, WeightkitError
from weightkit.sync import acting, handshake, proof, read_set
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.service import SyncService
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import serve
from weightkit.transports.base import PROTOCOL, Hello, Welcome

LAW = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow], database=None)


class UnguardedLearner(SyncService):
    """A learner without any check of its own, as LeRobot's is: it welcomes everybody."""

    def hello(self, hello: Hello) -> Welcome:
        return Welcome(PROTOCOL, self.run_id, self.manifest)


@contextmanager
def unguarded(manifest: SyncManifest) -> Any:
    server = serve("memory:", UnguardedLearner(manifest, "run"))
    try:
        yield server.address
    finally:
        server.close()


def actor_equals_learner(kwargs: dict[str, Any], seed: int, bind: str) -> None:
    learner, actor = drqv2_policy(kwargs, seed), drqv2_policy(kwargs, seed + 1)
    probes, fresh = drqv2_observations(kwargs, seed), drqv2_observations(kwargs, seed + 2, 3)
    manifest = make_manifest(learner, drqv2_groups(learner))
    with Publisher(learner, manifest, act=act, probes=probes, bind=bind) as pub:
        pub.publish(7)
        with Subscriber(actor, pub.address, act=act, probes=probes, actor_id="a") as sub:
            version = sub.wait_for_first(timeout_s=20)
            assert (version.counter, version.learner_step) == (1, 7)
            assert pub.wait_acked("a", 1, timeout_s=10)
    for observation in fresh:
        assert torch.equal(act(actor, observation), act(learner, observation))


def withheld_is_refused(kwargs: dict[str, Any], seed: int, key: str) -> None:
    """Withhold one group or tensor: both sides refuse by themselves, and name all that is missing."""
    learner, actor = drqv2_policy(kwargs, seed), drqv2_policy(kwargs, seed + 1)
    probes = drqv2_observations(kwargs, seed)
    manifest = make_manifest(learner, {**drqv2_groups(learner), key: "hold"})
    missing = {name for name in manifest.by_name if name == key or name.startswith(f"{key}.")}
    with pytest.raises(UncoveredRead) as at_the_learner:
        Publisher(learner, manifest, act=act, probes=probes, bind="memory:")
    assert set(at_the_learner.value.names) == missing
    with (
        unguarded(manifest) as address,
        Subscriber(actor, address, act=act, probes=probes, actor_id="a") as sub,
        pytest.raises(NeedsNotMet) as at_the_actor,
    ):
        sub.wait_for_first(timeout_s=20)
    assert {finding.subject for finding in at_the_actor.value.report.errors()} == missing


@LAW
@given(drqv2_kwargs(), st.integers(0, 2**31))
def test_one_push_over_grpc_makes_the_actor_act_exactly_as_the_learner(kwargs: dict[str, Any], seed: int) -> None:
    actor_equals_learner(kwargs, seed, "127.0.0.1:0")


@LAW
@given(drqv2_kwargs(), st.integers(0, 2**31), st.data())
def test_a_withheld_group_or_tensor_is_refused_by_both_sides(
    kwargs: dict[str, Any], seed: int, data: st.DataObject
) -> None:
    policy = drqv2_policy(kwargs, seed)
    sent = make_manifest(policy, drqv2_groups(policy)).names(Transfer.SEND)
    withheld_is_refused(kwargs, seed, data.draw(st.sampled_from(["encoder", "actor", *sent])))


def test_every_single_withheld_tensor_of_a_small_policy_is_refused_by_both_sides() -> None:
    policy = drqv2_policy(SMALL_DRQV2, 0)
    for name in make_manifest(policy, drqv2_groups(policy)).names(Transfer.SEND):
        withheld_is_refused(SMALL_DRQV2, 0, name)


# ---- mutants: each breaks one part, and the law must notice


def coverage_that_ignores_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def ignore(reads: Any, needs: Any, offer: Any) -> Any:
        return tuple(f for f in coverage.check_coverage(reads, needs, offer) if f.subject != "actor.head.bias")

    monkeypatch.setattr(proof, "check_coverage", ignore)
    monkeypatch.setattr(handshake, "check_coverage", ignore)


def read_set_that_drops_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def drop(*args: Any) -> read_set.Trace:
        traced = original(*args)
        reads = frozenset(name for name in traced.reads if not name.startswith("encoder."))
        return read_set.Trace(reads, traced.writes, traced.items)

    original = read_set.trace
    monkeypatch.setattr(proof, "trace", drop)
    monkeypatch.setattr(acting, "trace", drop)


def applier_that_skips_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    def skip(self: Arena, name: str, target: torch.Tensor) -> None:
        if name != "actor.head.bias":
            original(self, name, target)

    original = Arena.unpack
    monkeypatch.setattr(Arena, "unpack", skip)


def learner_that_packs_one_tensor_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(self: Any, tensors: Any) -> Any:
        return original(self, {**tensors, "actor.head.bias": tensors["actor.head.bias"] + 1})

    original = Arena.pack
    monkeypatch.setattr(Arena, "pack", pack)


@pytest.mark.parametrize(
    "mutant",
    [
        coverage_that_ignores_one_name,
        read_set_that_drops_the_encoder,
        applier_that_skips_one_tensor,
        learner_that_packs_one_tensor_wrongly,
    ],
)
def test_a_mutant_does_not_survive_the_law(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def law() -> None:
        actor_equals_learner(SMALL_DRQV2, 0, "memory:")
        for key in ("encoder", "encoder.front.0.bias", "actor.head.bias"):
            withheld_is_refused(SMALL_DRQV2, 0, key)

    law()
    mutant(monkeypatch)
    with pytest.raises((AssertionError, WeightkitError, pytest.fail.Exception)):
        law()
