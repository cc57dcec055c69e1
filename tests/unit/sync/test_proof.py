"""The proof beside the read set: waivers, what training changes, what the policy does not hold or does not repeat."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Report
from weightkit.errors import NeedsNotMet, PublishRefused, SyncError, UncoveredRead, UsageError
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.proof import judge, prove_coverage
from weightkit.sync.publisher import Publisher
from weightkit.sync.read_set import read_set, trace
from weightkit.sync.subscriber import Subscriber

X = [torch.linspace(-1, 1, 8).reshape(2, 4)]
Act = Callable[[Any, Any], Any]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 3), nn.Linear(3, 2)
        self.register_buffer("hidden", torch.zeros(2, 3))

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.encoder(x)))


def act(policy: Any, x: Any) -> Any:
    with torch.no_grad():
        return policy(x)


def recurrent(policy: Any, x: Any) -> Any:
    with torch.no_grad():
        policy.hidden.copy_(torch.tanh(policy.encoder(x) + policy.hidden))
        return policy.head(policy.hidden)


ALL: Any = {"encoder": "send", "head": "send"}
HELD: Any = {**ALL, "hidden": ("hold", "each actor's own")}


def codes(report: Report) -> list[tuple[str, str]]:
    return [(finding.code, finding.subject) for finding in report.findings]


# ---- waivers


def test_state_of_the_actors_own_is_an_error_until_it_is_waived_with_a_reason() -> None:
    policy = Net()
    with pytest.raises(UncoveredRead) as error:
        prove_coverage(policy, recurrent, X, make_manifest(policy, HELD))
    assert error.value.names == ("hidden",)
    waived = make_manifest(policy, HELD, waivers={"hidden": "reset at every episode"})
    report = prove_coverage(policy, recurrent, X, waived)
    assert codes(report) == [("WK310", "hidden")]
    assert "reset at every episode" in report.findings[0].message


@pytest.mark.parametrize("why", ["", "  "])
def test_a_waiver_without_a_reason_is_refused(why: str) -> None:
    with pytest.raises(UsageError, match="no reason"):
        make_manifest(Net(), HELD, waivers={"hidden": why})


def test_a_waiver_of_nothing_and_of_what_is_sent_are_refused() -> None:
    with pytest.raises(UsageError, match="hiden"):
        make_manifest(Net(), HELD, waivers={"hiden": "typed wrong"})
    with pytest.raises(SyncError, match="waived"):
        make_manifest(Net(), HELD, waivers={"encoder": "I know better"})


def test_waivers_travel_in_the_file_and_change_the_id() -> None:
    policy = Net()
    plain, waived = make_manifest(policy, HELD), make_manifest(policy, HELD, waivers={"hidden": "own state"})
    assert plain.manifest_id != waived.manifest_id
    assert SyncManifest.from_dict(waived.to_dict()) == waived
    document = waived.to_dict()
    document["waivers"] = [{"name": "hidden", "why": ""}]
    with pytest.raises(ValueError, match=r"\$\.waivers\[0\]\.why"):
        SyncManifest.from_dict(document)


def test_an_actors_own_state_is_its_own_after_a_push() -> None:
    learner, actor = Net(), Net()
    manifest = make_manifest(learner, HELD, waivers={"hidden": "reset at every episode"})
    with torch.no_grad():
        actor.hidden.fill_(0.25)
    with Publisher(learner, manifest, act=recurrent, probes=X, bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=recurrent, probes=X, actor_id="a") as sub:
            sub.wait_for_first(20)
            assert torch.equal(actor.hidden, torch.full((2, 3), 0.25))  # nor has trying it out moved it
            assert torch.equal(actor.encoder.weight, learner.encoder.weight)
            assert sub.status()["only_poisoned"] == []
        assert codes(pub.report) == [("WK310", "hidden"), ("WK315", "act()")]  # the actions differ by right


# ---- training


def test_a_pinned_or_waived_tensor_that_an_optimizer_holds_is_refused_at_the_start() -> None:
    policy = Net()
    policy.encoder.requires_grad_(False)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)  # frozen or not: it holds the encoder
    pinned = make_manifest(policy, {"encoder": ("pin", "frozen"), "head": "send", "hidden": "hold"})
    prove_coverage(policy, act, X, pinned)
    with pytest.raises(NeedsNotMet, match="optimizer") as error:
        prove_coverage(policy, act, X, pinned, optimizers=[optimizer])
    assert {f.subject for f in error.value.report.errors()} == {"encoder.weight", "encoder.bias"}
    with pytest.raises(NeedsNotMet, match="WK309"):
        Publisher(policy, pinned, act=act, probes=X, bind="memory:", optimizers=[optimizer])
    held = make_manifest(
        policy, {"encoder": "hold", "head": "send", "hidden": "hold"}, waivers={"encoder": "I know better"}
    )
    with pytest.raises(NeedsNotMet, match="held in group 'encoder'"):
        prove_coverage(policy, act, X, held, optimizers=[optimizer])


def test_an_optimizer_over_a_view_of_the_tensor_holds_it_too() -> None:
    policy = Net()
    policy.encoder.requires_grad_(False)
    flat = torch.zeros(15)
    policy.encoder.weight.data, policy.encoder.bias.data = flat[:12].view(3, 4), flat[12:]
    pinned = make_manifest(policy, {"encoder": "pin", "head": "send", "hidden": "hold"})
    with pytest.raises(NeedsNotMet):
        prove_coverage(policy, act, X, pinned, optimizers=[torch.optim.SGD([nn.Parameter(flat)], lr=0.1)])


def test_what_no_optimizer_holds_is_a_warning() -> None:
    policy, before = Net(), Net()
    manifest = make_manifest(policy, HELD)
    stale = torch.optim.Adam(before.parameters())
    assert codes(prove_coverage(policy, act, X, manifest, optimizers=[torch.optim.Adam(policy.parameters())])) == []
    found = codes(prove_coverage(policy, act, X, manifest, optimizers=[stale]))
    assert found == [("WK313", f"{part}.{kind}") for part in ("encoder", "head") for kind in ("weight", "bias")]


# ---- what the policy does not hold


class Outside:
    def __init__(self) -> None:
        self.net = nn.Linear(4, 4)
        self.mean = torch.full((4,), 0.1)


def test_a_net_in_the_closure_of_act_is_an_error_and_its_place_is_named() -> None:
    outside = Outside()

    def closing(policy: Any, x: Any) -> Any:
        return policy(outside.net(x))

    policy = Net()
    with pytest.raises(UncoveredRead) as error:
        prove_coverage(policy, closing, X, make_manifest(policy, HELD))
    assert error.value.names == ("act().outside.net.bias", "act().outside.net.weight")


def test_a_constant_outside_of_the_policy_is_a_warning() -> None:
    outside = Outside()
    policy = Net()
    report = prove_coverage(policy, lambda p, x: p(x - outside.mean), X, make_manifest(policy, HELD))
    assert codes(report) == [("WK311", "act().outside.mean")]
    assert report.ok


def test_what_acting_makes_itself_is_not_outside() -> None:
    def making(policy: Any, x: Any) -> Any:
        table = torch.tensor([1.0, 2.0, 3.0, 4.0])
        return policy(x * table + torch.ones(4) + torch.from_numpy(x.numpy()))

    assert trace(Net(), making, X).hidden == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_weights_frozen_into_a_script_are_a_warning_each() -> None:
    policy = Net()
    policy.encoder = torch.jit.freeze(torch.jit.script(nn.Linear(4, 3).eval()))
    traced = trace(policy, act, X)
    assert traced.reads == {"head.weight", "head.bias"}
    assert sorted(found.what for found in traced.hidden) == ["float32[3, 4]", "float32[3]"]


def test_a_cache_that_outlives_the_call_is_a_warning() -> None:
    def caching(policy: Any, x: Any) -> Any:
        if not hasattr(policy, "wide"):
            policy.wide = policy.encoder.weight.detach() * 2
        return policy(x + (x @ policy.wide.T).sum())

    policy = Net()
    report = prove_coverage(policy, caching, X, make_manifest(policy, HELD))
    assert [code for code in codes(report) if code[0] == "WK311"] == [("WK311", "policy.wide")]
    assert not hasattr(policy, "wide")


def test_an_actor_whose_act_reads_a_net_of_its_own_is_refused_by_itself() -> None:
    outside = Outside()
    learner, actor = Net(), Net()
    with Publisher(learner, make_manifest(learner, HELD), act=act, probes=X, bind="memory:") as pub:
        pub.publish()
        closing: Act = lambda p, x: p(outside.net(x))  # noqa: E731
        with Subscriber(actor, pub.address, act=closing, probes=X, actor_id="a") as sub:
            with pytest.raises(NeedsNotMet, match=r"outside\.net\.weight"):
                sub.wait_for_first(20)


# ---- what does not repeat


def test_acting_that_does_not_repeat_is_a_warning() -> None:
    policy = Net()
    report = prove_coverage(policy, lambda p, x: p(x) + time.perf_counter_ns() % 1009, X, make_manifest(policy, HELD))
    assert codes(report) == [("WK312", "act()")]


def test_own_generators_queues_and_counters_are_put_back_and_repeat() -> None:
    policy = Net()
    policy.generator, policy.queue, policy.steps = torch.Generator(), [1.0], 0

    def busy(p: Any, x: Any) -> Any:
        p.steps += 1
        p.queue.append(float(torch.rand((), generator=p.generator)))
        return p(x) * p.queue[-1] * p.steps

    traced = trace(policy, busy, X)
    assert traced.repeats
    assert (policy.queue, policy.steps) == ([1.0], 0)


# ---- writing


def test_a_scratch_pad_is_not_demanded_and_a_sent_one_is_an_error() -> None:
    def padded(p: Any, x: Any) -> Any:
        p.hidden.copy_(p.encoder(x))
        return p.head(p.hidden)

    policy = Net()
    assert "hidden" not in read_set(policy, padded, X)
    assert codes(prove_coverage(policy, padded, X, make_manifest(policy, HELD))) == [("WK306", "hidden")]
    with pytest.raises(NeedsNotMet, match="WK306"):
        prove_coverage(policy, padded, X, make_manifest(policy, {**ALL, "hidden": "send"}))


def test_a_tensor_that_is_replaced_is_written() -> None:
    def rebinding(p: Any, x: Any) -> Any:
        p.hidden = torch.tanh(p.encoder(x) + p.hidden)
        return p.head(p.hidden)

    traced = trace(Net(), rebinding, X)
    assert "hidden" in traced.reads & traced.writes


# ---- what cannot be traced is said


def test_a_sparse_tensor_a_lazy_module_and_a_tensor_without_values_are_refused_by_name() -> None:
    policy = Net()
    policy.register_buffer("graph", torch.eye(3).to_sparse())
    with pytest.raises(SyncError, match=r"graph.*sparse"):
        inventory(policy)
    lazy = Net()
    lazy.encoder = nn.LazyLinear(3)
    with pytest.raises(SyncError, match=r"encoder\.weight"):
        inventory(lazy)
    empty = Net()
    empty.head = nn.Linear(3, 2, device="meta")
    with pytest.raises(SyncError, match=r"head\.weight, head\.bias"):
        trace(empty, lambda p, _: p.head.weight + 1, X)
    assert trace(empty, lambda p, x: p.encoder(x), X).reads == {
        "encoder.weight",
        "encoder.bias",
    }  # nobody asked the head


def test_the_report_and_the_error_come_from_one_judgement() -> None:
    policy = Net()
    manifest = make_manifest(policy, {**HELD, "encoder": "hold"})
    report = judge(trace(policy, act, X), manifest)
    with pytest.raises(UncoveredRead) as error:
        prove_coverage(policy, act, X, manifest)
    assert set(error.value.names) == {f.subject for f in report.errors()}


def test_a_pinned_tensor_that_changes_after_the_start_stops_the_next_publish() -> None:
    policy = Net()
    policy.encoder.requires_grad_(False)
    pinned = make_manifest(policy, {"encoder": "pin", "head": "send", "hidden": "hold"})
    with Publisher(policy, pinned, act=act, probes=X, bind="memory:") as pub:
        pub.publish()
        with torch.no_grad():
            policy.encoder.bias += 1
        with pytest.raises(PublishRefused, match=r"encoder\.bias"):
            pub.publish()
