"""Publisher and Subscriber: what each guarantees beyond the laws."""

from __future__ import annotations

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.arena import Arena
from weightkit.errors import (
    AddressInUse,
    IncompleteUpdate,
    NeedsNotMet,
    PinMismatch,
    PublishRefused,
    TransportTimeout,
    UnsyncedRead,
    UsageError,
)
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import connect
from weightkit.transports.base import Backoff, Question

PROBES = drqv2_observations(SMALL_DRQV2, 0)


def publisher_of(policy: Any, groups: dict[str, Any] | None = None, **kwargs: Any) -> Publisher:
    manifest = make_manifest(policy, {**drqv2_groups(policy), **(groups or {})})
    return Publisher(policy, manifest, act=act, probes=PROBES, **{"bind": "memory:", **kwargs})


def subscriber_of(policy: Any, address: str, actor_id: str = "a", **kwargs: Any) -> Subscriber:
    quick = Backoff(low_s=0.001, high_s=0.01)
    return Subscriber(policy, address, act=act, probes=PROBES, actor_id=actor_id, **{"backoff": quick, **kwargs})


def test_before_the_first_version_every_tensor_is_poisoned() -> None:
    actor = drqv2_policy(SMALL_DRQV2, 1)
    with subscriber_of(actor, "memory:nobody"):
        assert all(tensor.isnan().all() for tensor in actor.state_dict().values())
        assert act(actor, PROBES[0]).isnan().all()


def test_what_the_learner_holds_cannot_be_read_on_the_actor() -> None:
    actor = drqv2_policy(SMALL_DRQV2, 1)
    with publisher_of(drqv2_policy(SMALL_DRQV2, 0)) as pub, subscriber_of(actor, pub.address) as sub:
        pub.publish()
        sub.wait_for_first(20)
        assert sub.groups_applied == ("actor", "encoder")
        for name, tensor in actor.critic.named_parameters():
            with pytest.raises(UnsyncedRead) as error:
                tensor + 1
            assert error.value.name == f"critic.{name}"
        assert sub.status()["only_poisoned"] == []


def test_waiting_says_so_and_then_raises() -> None:
    calls: list[int] = []
    with subscriber_of(drqv2_policy(SMALL_DRQV2, 1), "memory:nobody") as sub:
        with pytest.raises(TransportTimeout, match="memory:nobody"):
            sub.wait_for_first(0.05, on_waiting=lambda: calls.append(1), waiting_every_s=0.01)
    assert len(calls) >= 2


def test_a_learner_that_never_publishes_is_told_apart_from_none() -> None:
    with publisher_of(drqv2_policy(SMALL_DRQV2, 0)) as pub:
        with subscriber_of(drqv2_policy(SMALL_DRQV2, 1), pub.address) as sub:
            with pytest.raises(TransportTimeout, match="published nothing"):
                sub.wait_for_first(0.3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_published(value: float) -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with publisher_of(learner) as pub:
        pub.publish()
        with torch.no_grad():
            learner.encoder.front[0].weight.view(-1)[3] = value
        with pytest.raises(PublishRefused, match=r"encoder\.front\.0\.weight"):
            pub.publish()
        status = pub.status()
        assert (status["counter"], status["refused"]) == (1, 1)


def test_large_finite_values_are_published() -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with torch.no_grad():
        learner.encoder.front[0].weight.fill_(3e38)
    with publisher_of(learner) as pub:
        assert pub.publish().counter == 1


def test_a_changed_shape_is_not_published() -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with publisher_of(learner) as pub:
        learner.actor.head = nn.Linear(5, 3)
        with pytest.raises(PublishRefused, match=r"actor\.head\.weight.*float32\[2, 5\].*float32\[3, 5\]"):
            pub.publish()


def test_training_on_after_a_publish_changes_nothing_that_was_published() -> None:
    learner, actor = drqv2_policy(SMALL_DRQV2, 0), drqv2_policy(SMALL_DRQV2, 1)
    with publisher_of(learner) as pub:
        expected = act(learner, PROBES[0])
        pub.publish()
        with torch.no_grad():
            learner.actor.head.weight.mul_(2)
        with subscriber_of(actor, pub.address) as sub:
            sub.wait_for_first(20)
            assert torch.equal(act(actor, PROBES[0]), expected)


def test_a_late_actor_gets_the_newest_version_and_status_tells_the_lag() -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with publisher_of(learner) as pub:
        for _ in range(5):
            pub.publish()
        with subscriber_of(drqv2_policy(SMALL_DRQV2, 1), pub.address) as sub:
            assert sub.wait_for_first(20).counter == 5
            assert pub.wait_acked("a", 5, timeout_s=10)
            pub.publish()
            status = pub.status()
            actors = status["actors"]
            assert isinstance(actors, dict)
            assert {k: actors["a"][k] for k in ("acked", "lag", "nacks")} == {"acked": 5, "lag": 1, "nacks": 0}


def test_poll_without_news_is_none() -> None:
    with publisher_of(drqv2_policy(SMALL_DRQV2, 0)) as pub:
        with subscriber_of(drqv2_policy(SMALL_DRQV2, 1), pub.address) as sub:
            pub.publish()
            version = sub.wait_for_first(20)
            assert sub.poll() is None
            assert sub.version == version


def test_pinned_tensors_come_back_when_they_are_equal_and_are_never_sent() -> None:
    learner, actor = drqv2_policy(SMALL_DRQV2, 0), drqv2_policy(SMALL_DRQV2, 1)
    learner.encoder.requires_grad_(False)
    actor.encoder.load_state_dict(learner.encoder.state_dict())
    with publisher_of(learner, {"encoder": "pin"}) as pub, subscriber_of(actor, pub.address) as sub:
        pub.publish()
        sub.wait_for_first(20)
        assert sub.groups_applied == ("actor",)
        assert torch.equal(act(actor, PROBES[0]), act(learner, PROBES[0]))


def test_a_pinned_tensor_that_changes_on_the_learner_stops_the_publishing_by_name() -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    learner.encoder.requires_grad_(False)
    with publisher_of(learner, {"encoder": "pin"}) as pub:
        pub.publish()
        with torch.no_grad():
            learner.encoder.front[0].bias.add_(1)
        with pytest.raises(PublishRefused, match=r"encoder\.front\.0\.bias"):
            pub.publish()
        assert pub.status()["counter"] == 1


def test_a_pinned_tensor_that_training_can_change_is_refused_at_the_start() -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with pytest.raises(NeedsNotMet, match="WK309"):
        publisher_of(learner, {"encoder": "pin"})


def test_pinned_tensors_that_differ_are_refused_by_name() -> None:
    learner, actor = drqv2_policy(SMALL_DRQV2, 0), drqv2_policy(SMALL_DRQV2, 1)
    learner.encoder.requires_grad_(False)
    actor.encoder.load_state_dict(learner.encoder.state_dict())
    with torch.no_grad():
        actor.encoder.wrist[2].bias[0] += 1
    with publisher_of(learner, {"encoder": "pin"}) as pub, subscriber_of(actor, pub.address) as sub:
        pub.publish()
        with pytest.raises(PinMismatch, match=r"not the same on the two sides: encoder\.wrist\.2\.bias\n"):
            sub.wait_for_first(20)


def test_another_architecture_is_refused_by_the_learner_with_every_name() -> None:
    wider = {**SMALL_DRQV2, "frame_stack": 3, "state_dim": 2}
    actor = drqv2_policy(wider, 1)
    with publisher_of(drqv2_policy(SMALL_DRQV2, 0), bind="127.0.0.1:0") as pub:
        probes = drqv2_observations(wider, 0)
        with Subscriber(actor, pub.address, act=act, probes=probes, actor_id="a") as sub:
            with pytest.raises(NeedsNotMet) as error:
                sub.wait_for_first(20)
    assert {f.code for f in error.value.report.errors()} == {"WK303"}
    assert {f.subject for f in error.value.report.errors()} == {"encoder.front.0.weight", "encoder.wrist.0.weight"}


def test_weights_that_cannot_be_put_in_whole_leave_a_poisoned_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = drqv2_policy(SMALL_DRQV2, 1)
    with publisher_of(drqv2_policy(SMALL_DRQV2, 0)) as pub, subscriber_of(actor, pub.address) as sub:
        monkeypatch.setattr(Arena, "unpack", lambda self, name, target: None)
        pub.publish()
        with pytest.raises(IncompleteUpdate):
            sub.wait_for_first(20)
        assert act(actor, PROBES[0]).isnan().all()
        assert sub.version is None
        with pytest.raises(IncompleteUpdate):
            sub.poll()


def test_many_actors_all_get_the_newest_version() -> None:
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with publisher_of(learner, bind="127.0.0.1:0") as pub:
        subs = [subscriber_of(drqv2_policy(SMALL_DRQV2, i), pub.address, f"a{i}") for i in range(4)]
        try:
            for step in range(5):
                pub.publish(step)
            for sub in subs:
                sub.wait_for_first(20)
            while any(sub.version is None or sub.version.counter < 5 for sub in subs):
                for sub in subs:
                    sub.poll()
            assert all(pub.wait_acked(f"a{i}", 5, timeout_s=10) for i in range(4))
        finally:
            for sub in subs:
                sub.close()


def test_a_failed_start_leaves_no_listener_and_closing_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    learner = drqv2_policy(SMALL_DRQV2, 0)
    with publisher_of(learner, bind="127.0.0.1:0") as pub:
        with pytest.raises(AddressInUse, match="another process listens"):
            publisher_of(copy.deepcopy(learner), bind=pub.address)
        with pytest.raises(UsageError, match="plain text"):
            publisher_of(copy.deepcopy(learner), bind="0.0.0.0:0")
        with subscriber_of(drqv2_policy(SMALL_DRQV2, 1), pub.address) as sub:
            pub.publish()
            sub.wait_for_first(20)
    ours = [thread for thread in set(threading.enumerate()) - before if "weightkit" in thread.name]
    assert ours == []
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_integers_are_sent_and_poisoned_too() -> None:
    class Counting(nn.Module):
        def __init__(self, value: int) -> None:
            super().__init__()
            self.register_buffer("count", torch.tensor([value, 2]))
            self.register_buffer("flag", torch.tensor(value > 0))
            self.register_buffer("brain16", torch.full((3,), float(value), dtype=torch.bfloat16), persistent=False)

        def act(self, x: Any) -> Any:
            return x + self.count.sum() + self.flag + self.brain16.sum()

    learner, actor = Counting(7), Counting(0)
    probes = [torch.ones(1)]
    manifest = make_manifest(learner, {"count": "send", "flag": "send", "brain16": "send"})
    with Publisher(learner, manifest, act=act, probes=probes, bind="127.0.0.1:0") as pub:
        with Subscriber(actor, pub.address, act=act, probes=probes, actor_id="a") as sub:
            assert actor.count.tolist() == [torch.iinfo(torch.int64).min] * 2
            pub.publish()
            sub.wait_for_first(20)
    assert torch.equal(act(actor, probes[0]), act(learner, probes[0]))


def test_after_a_reconnect_versions_are_acknowledged_and_scrambled_weights_come_again() -> None:
    learner, actor = drqv2_policy(SMALL_DRQV2, 0), drqv2_policy(SMALL_DRQV2, 1)
    with publisher_of(learner, bind="127.0.0.1:0") as pub, subscriber_of(actor, pub.address) as sub:
        pub.publish()
        sub.wait_for_first(20)
        connection, before = sub._connection, sub._session_id
        assert connection is not None
        connection.close()
        pub.publish()
        give_up_at = time.monotonic() + 20
        while sub.poll(0.05) is None or sub._session_id == before:
            assert time.monotonic() < give_up_at
        assert pub.wait_acked("a", 2, timeout_s=10)
        onlooker = connect(pub.address)
        try:
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(onlooker.ask, Question("a", scramble=True, force=True))
                while not answer.done():
                    sub.poll(0.05)
            state = answer.result()
        finally:
            onlooker.close()
    assert (state.unanswered, state.differing, state.probe_ok) == ("", (), True)
    assert set(state.scrambled) == set(state.equal) == set(sub.reads)
    assert torch.equal(act(actor, PROBES[0]), act(learner, PROBES[0]))


def test_what_nobody_waits_for_any_more_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scramble that comes to an actor in a long step must not hit it later, when whoever asked has gone."""
    monkeypatch.setattr("weightkit.sync.service.DEMAND_S", 0.05)
    monkeypatch.setattr("weightkit.sync.subscriber.DEMAND_S", 0.0)
    learner, actor = drqv2_policy(SMALL_DRQV2, 0), drqv2_policy(SMALL_DRQV2, 1)
    with publisher_of(learner) as pub, subscriber_of(actor, pub.address) as sub:
        pub.publish()
        sub.wait_for_first(20)
        held = sub.version
        onlooker = connect(pub.address)
        state = onlooker.ask(Question("a", scramble=True, force=True))
        onlooker.close()
        assert "no answer" in state.unanswered
        with sub._changed:
            assert sub._changed.wait_for(lambda: bool(sub._demands), 20)
        assert sub.poll() is None
        assert sub.version == held
    assert torch.equal(act(actor, PROBES[0]), act(learner, PROBES[0]))
