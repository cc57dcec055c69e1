"""The golden probe: equal weights are not enough where the code around them differs."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.errors import ActsDifferently
from weightkit.sync.golden import TOLERANCE, decoded, difference, encoded
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports.base import SnapshotBegin

PROBES = drqv2_observations(SMALL_DRQV2, 3)


def pair(**settings: Any) -> tuple[Publisher, Any, Any]:
    learner, actor = drqv2_policy(SMALL_DRQV2, 4), drqv2_policy(SMALL_DRQV2, 1)
    with torch.no_grad():  # as large as a trained net's, so that the actions are not all at their ends
        for tensor in learner.parameters():
            tensor.mul_(0.5 if tensor.ndim < 2 else 1.5 * tensor[0].numel() ** -0.5)
    manifest = make_manifest(learner, drqv2_groups(learner))
    return Publisher(learner, manifest, act=act, probes=PROBES, bind="memory:", **settings), learner, actor


def swapped_cameras(policy: Any, seen: Any) -> Any:
    front, wrist = "observation.images.front", "observation.images.wrist"
    return act(policy, {**seen, front: seen[wrist], wrist: seen[front]})


def other_scale(policy: Any, seen: Any) -> Any:
    images = {key: value.float() / 511 for key, value in seen.items() if "images" in key}
    return act(policy, {**seen, **images})


def upside_down(policy: Any, seen: Any) -> Any:
    return act(policy, {key: value.flip(-1) if "images" in key else value for key, value in seen.items()})


def turned_state(policy: Any, seen: Any) -> Any:
    return act(policy, {**seen, "observation.state": seen["observation.state"].roll(1, -1)})


def other_units(policy: Any, seen: Any) -> Any:
    return act(policy, seen) * 1.05


def one_action_too_few(policy: Any, seen: Any) -> Any:
    return act(policy, seen)[:, :-1]


def fails(policy: Any, seen: Any) -> Any:
    if float(seen["observation.state"].sum()) == float(PROBES[0]["observation.state"].sum()):
        raise ValueError("not these")  # what bytes that no learner sends would raise, too
    return act(policy, seen)


def test_an_actor_whose_code_fails_on_the_learners_observation_never_acts() -> None:
    pub, _, actor = pair()
    with pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=fails, probes=PROBES[1:], actor_id="a") as sub:
            with pytest.raises(ActsDifferently, match="not these"):
                sub.wait_for_first(20)
            assert sub.version is None


@pytest.mark.parametrize(
    "actors", [swapped_cameras, other_scale, upside_down, turned_state, other_units, one_action_too_few]
)
def test_an_actor_with_the_learners_weights_and_other_code_never_acts(actors: Callable[..., Any]) -> None:
    pub, _, actor = pair()
    with pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=actors, probes=PROBES, actor_id="a") as sub:
            with pytest.raises(ActsDifferently, match="weights"):
                sub.wait_for_first(20)
            assert sub.version is None
            assert actor.actor.head.weight.isnan().all()
            with pytest.raises(ActsDifferently):
                sub.poll()


def test_an_actor_that_acts_alike_says_so_and_nothing_is_changed_by_trying() -> None:
    pub, learner, actor = pair()
    with pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=PROBES, actor_id="a") as sub:
            state = torch.get_rng_state()
            sub.wait_for_first(20)
            assert torch.equal(torch.get_rng_state(), state)
            assert pub.wait_acked("a", 1, timeout_s=10)
            actors: Any = pub.status()["actors"]
            assert actors["a"]["probe_ok"] is True
    assert torch.equal(act(actor, PROBES[1]), act(learner, PROBES[1]))


class Caching(nn.Module):
    """Keeps what it once made of its weights: after a push it acts with old ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.kept: dict[str, Any] = {}

    @torch.no_grad()
    def forward(self, x: Any) -> Any:
        if "transposed" not in self.kept:
            self.kept["transposed"] = self.weight.T.clone()
        return x @ self.kept["transposed"]


def poll_until_news(sub: Subscriber, pub: Publisher) -> None:
    while sub.poll() is None:
        pub.wait_acked("a", 2, timeout_s=0.01)


def test_an_actor_that_keeps_something_of_old_weights_is_told_with_the_second_version(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learner, actor = Caching(), Caching()
    probes = [torch.ones(1, 3)]

    def fresh(policy: Any, x: Any) -> Any:
        policy.kept.clear()
        return policy(x)

    manifest = make_manifest(learner, {"weight": "send"})
    with Publisher(learner, manifest, act=fresh, probes=probes, bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=lambda p, x: p(x), probes=probes, actor_id="a") as sub:
            assert sub.wait_for_first(20).counter == 1
            actor(probes[0])  # it acts, and keeps something
            with torch.no_grad():
                learner.weight.mul_(2)
            pub.publish()
            poll_until_news(sub, pub)
            assert "something that it made of old weights" in caplog.text


def test_where_acting_draws_random_numbers_nothing_is_compared_and_the_report_says_so() -> None:
    learner = nn.Linear(3, 2)

    def sampled(policy: Any, x: Any) -> Any:
        return torch.distributions.Normal(policy(x), 1.0).sample()

    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})
    with Publisher(learner, manifest, act=sampled, probes=[torch.ones(1, 3)], bind="memory:") as pub:
        assert [(f.code, "random" in f.message) for f in pub.report.findings] == [("WK315", True)]
        pub.publish()
        with Subscriber(nn.Linear(3, 2), pub.address, act=sampled, probes=[torch.ones(1, 3)], actor_id="a") as sub:
            sub.wait_for_first(20)
            assert pub.wait_acked("a", 1, timeout_s=10)
            actors: Any = pub.status()["actors"]
            assert actors["a"]["probe_ok"] is False


def test_an_observation_that_is_no_plain_data_is_not_sent_and_the_report_says_so() -> None:
    class Frame:
        image = torch.ones(1, 3)

    learner = nn.Linear(3, 2)
    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})
    with Publisher(learner, manifest, act=lambda p, f: p(f.image), probes=[Frame()], bind="memory:") as pub:
        assert [f.code for f in pub.report.findings] == ["WK315"]


def test_it_can_be_left_out() -> None:
    pub, _, actor = pair(golden=False)
    with pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=other_units, probes=PROBES, actor_id="a") as sub:
            assert sub.wait_for_first(20).counter == 1


def test_a_learner_that_sends_no_probe_or_a_broken_one_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    pub, _, actor = pair()
    with pub:
        pub._service._probe = b"no probe at all"
        pub.publish()
        with Subscriber(actor, pub.address, act=act, probes=PROBES, actor_id="a") as sub:
            assert sub.wait_for_first(20).counter == 1


# ---- as bytes

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.sampled_from([torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.int64]).map(
        lambda dtype: torch.arange(6).reshape(2, 3).to(dtype)
    ),
    st.sampled_from(["float64", "uint8", "int32"]).map(lambda dtype: np.arange(4).astype(dtype)),
    st.just(torch.zeros(0, 3)),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=60, database=None)
@given(TREES)
def test_an_observation_comes_back_as_it_was(tree: Any) -> None:
    content = encoded(tree)
    assert content is not None
    found = decoded(content)
    assert same(found, tree)
    assert difference(found, tree) == 0.0


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@settings(deadline=None, max_examples=200, database=None)
@given(st.data())
def test_damaged_bytes_are_a_value_error_or_another_observation_and_nothing_else(data: st.DataObject) -> None:
    content = bytearray(encoded({"a": torch.ones(2), "b": [1, "x", None]}) or b"")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        decoded(bytes(content[: data.draw(st.integers(0, len(content)))]))


def test_numbers_apart_are_measured_against_the_largest() -> None:
    ones = torch.full((2, 2), 100.0)
    assert difference(ones, ones * (1 + TOLERANCE / 2)) < TOLERANCE
    assert difference(ones, ones * (1 + TOLERANCE * 4)) > TOLERANCE
    assert difference(torch.tensor([float("nan")]), torch.tensor([float("nan")])) == 0
    assert difference(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert difference(torch.ones(2), torch.ones(3)) == float("inf")
    assert difference({"a": 1}, {"a": 1, "b": 2}) == float("inf")
    assert difference("left", "right") == float("inf")


def test_a_begin_carries_what_the_learner_does() -> None:
    pub, learner, _ = pair()
    with pub:
        pub.publish()
        snapshot = pub._service._current
        assert snapshot is not None
        assert difference(decoded(snapshot.golden), act(learner, PROBES[0])) == 0
        assert SnapshotBegin(snapshot.version, "", 0, {}, "").golden == b""


def test_two_versions_of_each_run_are_tried_and_no_more() -> None:
    """A later version brings other numbers and no other code; a new run may be another program."""
    learner, actor = nn.Linear(3, 2), nn.Linear(3, 2)
    probes, counter = [torch.ones(1, 3)], itertools.count()

    def counted(policy: Any, x: Any) -> Any:
        if policy is actor:
            next(counter)
        return policy(x).detach()

    def seen() -> int:
        return int(repr(counter)[len("count(") : -1])

    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})
    where = "memory:tried-runs"
    first = Publisher(learner, manifest, act=counted, probes=probes, bind=where)
    with Subscriber(actor, where, act=counted, probes=probes, actor_id="a") as sub:
        first.publish()
        sub.wait_for_first(20)
        acts = []
        for _ in range(4):
            before = seen()
            first.publish()
            poll_until_news(sub, first)
            acts.append(seen() - before)
        assert acts == [2, 0, 0, 0]  # from the beginning, and from where it stands
        first.close()
        with Publisher(learner, manifest, act=counted, probes=probes, bind=where) as second:
            before = seen()
            second.publish()
            while sub.version is None or sub.version.run_id != second.run_id:
                sub.poll()
                second.wait_acked("a", 1, timeout_s=0.01)
            assert seen() - before == 1


def test_what_acting_writes_is_not_taken_away() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(3, 2)
            self.register_buffer("pad", torch.zeros(1, 3), persistent=False)

        @torch.no_grad()
        def forward(self, x: Any) -> Any:
            self.pad.copy_(x)
            return self.net(self.pad)

    learner, actor = Padded(), Padded()
    manifest = make_manifest(learner, {"net": "send", "pad": "hold"})
    with Publisher(learner, manifest, act=lambda p, x: p(x), probes=[torch.ones(1, 3)], bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=lambda p, x: p(x), probes=[torch.ones(1, 3)], actor_id="a") as sub:
            sub.wait_for_first(20)
            assert sub.status()["only_poisoned"] == []
            assert type(actor.pad) is torch.Tensor
            assert torch.equal(actor(torch.ones(1, 3)), learner(torch.ones(1, 3)))


def test_an_act_that_changes_something_of_its_own_is_never_tried_and_nothing_of_it_is_put_back_later() -> None:
    """A publish must not put back what other threads do to the learner in the meantime."""

    class Agent:
        def __init__(self) -> None:
            self.steps = 0
            self.received: list[int] = []

        def act(self, policy: Any, x: Any) -> Any:
            self.steps += 1
            return policy(x).detach()

    agent, learner = Agent(), nn.Linear(3, 2)
    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})
    with Publisher(learner, manifest, act=agent.act, probes=[torch.ones(1, 3)], bind="memory:") as pub:
        assert [(f.code, "of its own" in f.message) for f in pub.report.findings] == [("WK315", True)]
        assert agent.steps == 0
        agent.received.append(7)
        pub.publish()
        assert (agent.steps, agent.received) == (0, [7])
        with Subscriber(nn.Linear(3, 2), pub.address, act=agent.act, probes=[torch.ones(1, 3)], actor_id="a") as sub:
            sub.wait_for_first(20)
