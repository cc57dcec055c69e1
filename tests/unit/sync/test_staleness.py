"""Weights that are too old are told, held back or the end: never silent."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from weightkit.errors import StaleWeights, UsageError
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.staleness import SAY_EVERY_S, Freshness, OnStale, StaleGuard
from weightkit.sync.subscriber import Subscriber

NEVER = float("inf")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("on_stale", ["warn", "hold", "stop"])
def test_fresh_weights_pass_without_a_word(on_stale: OnStale, caplog: pytest.LogCaptureFixture) -> None:
    guard = StaleGuard(Freshness(30.0, 2, on_stale))
    assert guard.may_act(30.0, 2)
    assert StaleGuard(Freshness()).may_act(NEVER, 10**9)
    assert not caplog.records


@pytest.mark.parametrize(("age_s", "lag", "said"), [(30.1, 0, "30.1 s ago"), (0.0, 3, "3 versions behind")])
@pytest.mark.parametrize("on_stale", ["warn", "hold"])
def test_stale_weights_are_told_once_again_later_and_at_their_end(
    on_stale: OnStale, age_s: float, lag: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    guard = StaleGuard(Freshness(30.0, 2, on_stale), clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert guard.may_act(age_s, lag) == (on_stale == "warn")
        assert [said in record.message for record in caplog.records] == [True]
        clock.now += SAY_EVERY_S
        guard.may_act(age_s, lag)
        assert len(caplog.records) == 2
        assert guard.may_act(1.0, 0)
        assert "fresh again, after 10.0 s" in caplog.records[-1].message
    assert guard.episodes == 1


def test_stop_ends_the_run_and_names_both_bounds() -> None:
    guard = StaleGuard(Freshness(30.0, 2, "stop"))
    with pytest.raises(StaleWeights, match=r"published 31.0 s ago, of at most 30 and 5 versions behind, of at most 2"):
        guard.may_act(31.0, 5)


@pytest.mark.parametrize(("age_s", "lag"), [(0.0, None), (-1.0, None), (float("nan"), None), (None, -1)])
def test_a_bound_that_is_none_is_refused(age_s: float | None, lag: int | None) -> None:
    with pytest.raises(UsageError):
        Freshness(age_s, lag)


def test_age_and_lag_follow_what_is_published_and_what_is_taken() -> None:
    learner, actor, probes = nn.Linear(3, 2), nn.Linear(3, 2), [torch.ones(1, 3)]
    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})

    def act(policy: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return policy(x).detach()

    with Publisher(learner, manifest, act=act, probes=probes, bind="memory:", heartbeat_s=0.01) as pub:
        with Subscriber(actor, pub.address, act=act, probes=probes, actor_id="a") as sub:
            assert (sub.age_s, sub.lag) == (NEVER, 0)
            pub.publish()
            sub.wait_for_first(20)
            assert (sub.lag, sub.age_s < 20) == (0, True)
            pub.publish()
            guard = StaleGuard(Freshness(max_lag=0, on_stale="hold"))
            while guard.may_act(sub.age_s, sub.lag):
                pub.wait_acked("a", 2, timeout_s=0.005)  # heard of before it is there, and told while it is not taken
            before = sub.age_s
            assert sub.poll(20) is not None
            assert guard.may_act(sub.age_s, sub.lag)
            assert sub.age_s < before
