"""Policies with queues, histories, helper objects, votes and wrappers: nothing is missed, nothing is left changed."""

from __future__ import annotations

import threading
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from weightkit.errors import ActsDifferently, NeedsNotMet, SyncError, UnsyncedRead, UsageError
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.proof import judge, prove_coverage
from weightkit.sync.publisher import Publisher
from weightkit.sync.read_set import read_set, trace
from weightkit.sync.subscriber import Subscriber
from weightkit.sync.tripwire import arm

X = [torch.linspace(-1, 1, 4).reshape(1, 4), torch.ones(1, 4)]
Act = Callable[[Any, Any], Any]


class Chunks(nn.Module):
    """Makes four actions at once and hands them out one by one, from a queue one level down."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.critic = nn.Linear(4, 8), nn.Linear(4, 1)
        self._queues = {"action": deque(maxlen=4)}

    @torch.no_grad()
    def forward(self, x: Any) -> Any:
        if not self._queues["action"]:
            self._queues["action"].extend(self.net(x).reshape(4, 2))
        return self._queues["action"].popleft()


class Historic(nn.Module):
    """Goes by the last three observations, which it keeps in a deque and in an object."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(12, 2)
        self.history: deque[Any] = deque(maxlen=3)
        self.seen = types.SimpleNamespace(count=0, nested=[[]])

    @torch.no_grad()
    def forward(self, x: Any) -> Any:
        self.seen.count += 1
        self.seen.nested[0].append(self.seen.count)
        self.history.append(x)
        while len(self.history) < 3:
            self.history.append(x)
        return self.net(torch.cat(list(self.history), -1))


class Buffered(nn.Module):
    """Hands out one buffer, every time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.register_buffer("out", torch.zeros(1, 2), persistent=False)

    @torch.no_grad()
    def forward(self, x: Any) -> Any:
        self.out.copy_(self.net(x))
        return self.out


def call(policy: Any, x: Any) -> Any:
    return policy(x)


def sent(policy: nn.Module, *held: str) -> Any:
    names = {item.name.split(".")[0] for item in inventory(policy)}
    return make_manifest(policy, {name: "hold" if name in held else "send" for name in sorted(names)})


def codes(policy: nn.Module, act: Act = call, probes: Any = X) -> list[tuple[str, str, str]]:
    report = judge(trace(policy, act, probes), sent(policy))
    return [(f.code, f.severity.value, f.subject) for f in report.findings]


# ---- queues and histories


def test_a_policy_that_makes_actions_ahead_is_traced_on_every_probe_and_its_queue_is_as_it_was() -> None:
    policy = Chunks()
    assert read_set(policy, call, X) == {"net.weight", "net.bias"}
    assert list(policy._queues["action"]) == []


def test_actions_that_were_made_before_are_an_error_and_no_empty_proof() -> None:
    policy = Chunks()
    policy(X[0])
    with pytest.raises(NeedsNotMet, match="WK318"):
        prove_coverage(policy, call, X[:1], sent(policy, "critic"))
    assert len(policy._queues["action"]) == 3


@pytest.mark.parametrize("build", [Chunks, Historic])
def test_an_actor_with_a_queue_or_a_history_goes_on_over_versions_and_executes_nothing_of_a_probe(
    build: Callable[[], Any],
) -> None:
    learner, actor = build(), build()
    held = ("critic",) if build is Chunks else ()
    with Publisher(learner, sent(learner, *held), act=call, probes=X, bind="memory:") as pub:
        with Subscriber(actor, pub.address, act=call, probes=X, actor_id="a") as sub:
            pub.publish()
            sub.wait_for_first(20)
            if build is Chunks:
                assert list(actor._queues["action"]) == []
            else:
                assert (len(actor.history), actor.seen.count, actor.seen.nested) == (0, 0, [[]])
            actor(X[1])
            actor(X[0])
            pub.publish()
            while sub.poll() is None:
                pub.wait_acked("a", 2, timeout_s=0.01)
            assert pub.wait_acked("a", 2, timeout_s=10)
            actors: Any = pub.status()["actors"]
            assert actors["a"]["probe_ok"] is True
            if build is Historic:
                assert actor.seen.count == 2


def test_an_action_that_is_a_buffer_of_the_policy_is_what_it_was_when_it_was_handed_out() -> None:
    learner, actor = Buffered(), Buffered()
    manifest = make_manifest(learner, {"net": "send", "out": "hold"})
    with Publisher(learner, manifest, act=call, probes=X, bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=call, probes=X, actor_id="a") as sub:
            sub.wait_for_first(20)
            assert torch.equal(actor(X[1]), learner(X[1]))


def test_an_observation_of_a_class_of_its_own_is_not_changed_by_acting_on_it() -> None:
    class Frame:
        def __init__(self) -> None:
            self.image = torch.ones(1, 4)

    frame = Frame()
    traced = trace(nn.Linear(4, 2), lambda p, o: p(o.image.div_(2)), [frame])
    assert traced.repeats
    assert torch.equal(frame.image, torch.ones(1, 4))


# ---- what a publish must not do


class Trained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))

    def forward(self, x: Any) -> Any:
        return self.net(x)


SIX = [torch.linspace(-1, 1, 24).reshape(6, 4)]


def test_publishing_in_the_middle_of_training_changes_nothing_and_stops_no_actor() -> None:
    learner, actor = Trained().eval(), Trained().eval()
    with Publisher(learner, sent(learner), act=call, probes=SIX, bind="memory:") as pub:
        with Subscriber(actor, pub.address, act=call, probes=SIX, actor_id="a") as sub:
            for _ in range(3):
                learner.train()
                learner(SIX[0] * 2)
                before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
                state = torch.get_rng_state()
                version = pub.publish()
                assert torch.equal(state, torch.get_rng_state())
                assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())
                assert learner.net[1].training
                while sub.version != version:
                    sub.poll()
                    pub.wait_acked("a", version.counter, timeout_s=0.01)


def rarely(policy: Any, x: Any) -> Any:
    return policy(x) if float(torch.rand(())) > 1e-6 else -policy(x)


def drawn_and_not_used(policy: Any, x: Any) -> Any:
    torch.rand(3)
    return policy(x)


def numpys(policy: Any, x: Any) -> Any:
    return policy(x) + 0 * np.random.rand()


@pytest.mark.parametrize("act", [rarely, drawn_and_not_used, numpys])
def test_acting_that_draws_a_number_is_seen_by_the_generators_and_never_compared(act: Act) -> None:
    learner = nn.Linear(4, 2)
    with Publisher(learner, sent(learner), act=act, probes=X, bind="memory:") as pub:
        assert [f.code for f in pub.report.findings] == ["WK315"]


def test_a_second_version_that_is_refused_leaves_the_first_one_acting() -> None:
    learner, actor = nn.Linear(4, 2), nn.Linear(4, 2)
    other = {"on": False}

    def act(policy: Any, x: Any) -> Any:
        return policy(x) * (3.0 if other["on"] and policy is actor else 1.0)

    with Publisher(learner, sent(learner), act=call, probes=X, bind="memory:") as pub:
        first = pub.publish()
        with Subscriber(actor, pub.address, act=lambda p, x: act(p, x), probes=X, actor_id="a") as sub:
            sub.wait_for_first(20)
            held = actor.weight.detach().clone()
            with torch.no_grad():
                learner.weight.add_(1)
            sub._policy._trial._act = lambda p, x: p(x) * 3.0  # the actor's code is reloaded, and is another now
            pub.publish()
            with pytest.raises(ActsDifferently):
                poll_until_news(sub, pub)
            assert torch.equal(actor.weight, held)
            assert sub.version == first
            with pytest.raises(ActsDifferently):
                sub.poll()


def poll_until_news(sub: Subscriber, pub: Publisher) -> None:
    while sub.poll() is None:
        pub.wait_acked("a", 2, timeout_s=0.01)


# ---- what stands outside of the tensors of modules


class Normalised(nn.Module):
    """Its statistics are numpy arrays of a plain object, as gym-style normalisers keep them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.rms = types.SimpleNamespace(mean=np.full(4, 0.5, np.float32), unused=np.ones(3))

    def forward(self, x: Any) -> Any:
        return self.net(torch.from_numpy((x.numpy() - self.rms.mean).astype(np.float32)))


def test_statistics_in_a_plain_object_are_named_and_left_as_they_were() -> None:
    policy = Normalised()
    assert codes(policy) == [("WK311", "warning", "policy.rms.mean")]
    assert (policy.rms.mean == 0.5).all()
    assert (policy.rms.unused == 1).all()


def test_statistics_in_the_closure_of_act_are_named() -> None:
    mean = np.full(4, 0.5, np.float32)
    found = codes(nn.Linear(4, 2), lambda p, x: p(torch.as_tensor(x.numpy() - mean)))
    assert found == [("WK311", "warning", "act().mean")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_weights_that_are_packed_into_objects_are_an_error() -> None:
    policy = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 2)), {nn.Linear}, dtype=torch.qint8)
    assert ("WK311", "error", "act()") in codes(policy)


# ---- reads that only show together


def test_a_vote_of_equal_nets_in_a_thread_reads_all_of_them() -> None:
    policy = nn.ModuleList([nn.Linear(4, 2) for _ in range(3)])
    for net in policy[1:]:
        net.load_state_dict(policy[0].state_dict())
    policy.append(nn.Linear(4, 2))  # not asked

    def vote(p: Any, x: Any) -> Any:
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append([net(x) for net in p[:3]]))
        thread.start()
        thread.join()
        return torch.stack(found[0]).median(0).values.detach()

    reads = read_set(policy, vote, X)
    assert {name.split(".")[0] for name in reads} == {"0", "1", "2"}


def test_one_read_in_numpy_among_hundreds_of_tensors_is_found_with_few_acts() -> None:
    policy = nn.Module()
    for index in range(300):
        policy.register_buffer(f"b{index}", torch.full((2,), float(index)))
    acts = []

    def act(p: Any, x: Any) -> Any:
        acts.append(1)
        box: list[Any] = []
        thread = threading.Thread(target=lambda: box.append(x.sum() + p.b123.sum()))
        thread.start()
        thread.join()
        return box[0]

    assert read_set(policy, act, X[:1]) == {"b123"}
    assert len(acts) < 120


def test_a_branch_of_torch_cond_is_looked_into() -> None:
    policy = nn.Linear(4, 2)
    reads = read_set(policy, lambda p, x: torch.cond(x.sum() > 100, lambda y: p(y) * 2, lambda y: p(y), (x,)), X)
    assert reads == {"weight", "bias"}


# ---- names, wrappers, hooks


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_anew_are_no_state(norm: Callable[[nn.Module], nn.Module]) -> None:
    policy = norm(nn.Linear(4, 2)).eval()
    assert [code for code in codes(policy) if code[0] == "WK306"] == []
    assert {"bias"} < read_set(policy, call, X)


def test_what_a_forward_leaves_for_somebody_to_look_at_is_no_state() -> None:
    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x: Any) -> Any:
            self.attention = torch.softmax(x, -1)
            return self.net(x)

    policy = Attentive()
    policy(X[0])
    assert [code for code in codes(policy) if code[0] == "WK306"] == []


def test_two_tensors_that_have_one_name_without_wrappers_are_refused() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))
            self.module = nn.Module()
            self.module.register_buffer("mean", torch.ones(2))

    with pytest.raises(SyncError, match=r"module\.mean"):
        inventory(Wrapper())


def test_modules_that_know_each_other_in_plain_lists_are_listed_once() -> None:
    policy = nn.Module()
    members = [nn.Linear(2, 2) for _ in range(9)]
    for member in members:
        member.__dict__["peers"] = members
    policy.__dict__["members"] = members
    assert len(inventory(policy)) == 18


# ---- the tripwire at its edges


def armed() -> Any:
    policy = nn.ModuleDict({"main": nn.Linear(4, 2), "rescue": nn.Linear(4, 2)})
    policy.flag = np.array(False)
    policy.gain = np.ones(3)
    assert arm(policy, {"rescue.weight", "rescue.bias", "flag", "gain"}) == ()
    return policy


@pytest.mark.parametrize(
    "read",
    [
        lambda p: p["rescue"].weight.data_ptr(),
        lambda p: p.share_memory(),
        lambda p: bool(p.flag),
        lambda p: not p.flag,
        lambda p: float(p.flag),
        lambda p: p.gain[0],
        lambda p: p["rescue"].weight.T @ torch.ones(2),
        lambda p: p["rescue"].weight.chunk(2)[0].sum(),
        lambda p: p.half(),
    ],
)
def test_whatever_would_look_at_numbers_that_are_not_there_says_whose_they_are(read: Callable[[Any], Any]) -> None:
    with pytest.raises(UnsyncedRead) as error:
        read(armed())
    assert error.value.name.split(".")[0] in ("rescue", "flag", "gain")


def test_a_view_alone_reads_nothing() -> None:
    policy = armed()
    weight = policy["rescue"].weight
    for view in (weight.T, weight[0], weight.view(-1), *weight.chunk(2), weight.detach().unsqueeze(0)):
        assert view.numel() in (4, 8)
    assert weight.T.shape == (4, 2)
    assert len(policy.gain) == 3


# ---- what cannot be traced is said in words


@pytest.mark.parametrize(
    ("policy", "act", "probes"),
    [
        (object(), call, X),
        (nn.Linear(4, 2), None, X),
        (nn.Linear(4, 2), call, []),
        (nn.Linear(4, 2), call, X[0]),
        (nn.Linear(4, 2), call, {"image": X[0]}),
        (nn.Linear(4, 2), call, None),
    ],
)
def test_what_is_no_policy_no_act_and_no_list_of_observations_is_a_usage_error(
    policy: Any, act: Any, probes: Any
) -> None:
    with pytest.raises(UsageError):
        trace(policy, act, probes)


def test_probes_may_come_from_a_generator_and_one_optimizer_may_come_alone() -> None:
    policy = nn.Linear(4, 2)
    prove_coverage(policy, call, (x for x in X), sent(policy), optimizers=torch.optim.Adam(policy.parameters()))  # type: ignore[arg-type]
