"""Law 4, the other half: the read set of any policy is exact, by an oracle that knows nothing of how it is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from acting_cases import CASES
from module_trees import WIDTH, Drawn, drawn_policies, randomise
from weightkit.errors import UncoveredRead
from weightkit.sync import inventory as inventories
from weightkit.sync import memory, read_set, watching
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.preserved import frozen_outputs
from weightkit.sync.proof import judge, raise_for
from weightkit.sync.publisher import Publisher
from weightkit.sync.read_set import trace
from weightkit.sync.subscriber import Subscriber

LAW = settings(
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MANY = [torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 for seed in range(4)]


def oracle(drawn: Drawn) -> set[str]:
    """Names of the tensors that matter: with other numbers in one of them some action is another."""

    def actions() -> list[object]:
        return [frozen_outputs(drawn.act(drawn.policy, x.clone())) for x in (*drawn.probes, *MANY)]

    expected, found = actions(), set()
    for item in inventory(drawn.policy):
        if not item.tensor.dtype.is_floating_point:
            continue
        before = item.tensor.detach().clone()
        for seed in range(2):
            noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(seed))
            with torch.no_grad():
                item.tensor.detach().copy_(noise.abs() + 0.1 if item.name.endswith("running_var") else noise)
                if actions() != expected:
                    found.add(item.name)
                item.tensor.detach().copy_(before)
    return found


@LAW
@given(drawn_policies())
def test_no_tensor_outside_the_read_set_matters_and_each_in_it_can(drawn: Drawn) -> None:
    matter = oracle(drawn)
    reads = read_set.read_set(drawn.policy, drawn.act, drawn.probes)
    assert matter <= reads
    # what is read may still not matter: a norm over equal numbers, dead units; but it was handed to an operation
    assert reads <= {item.name for item in inventory(drawn.policy)}
    assert not any(name.startswith("critic.") and not shared_with_acting(drawn, name) for name in reads)


def shared_with_acting(drawn: Drawn, name: str) -> bool:
    items = {item.name: item for item in inventory(drawn.policy)}
    leader = items[name].alias_of or name
    group = {other for other, item in items.items() if (item.alias_of or other) == leader}
    return any(not other.startswith("critic.") for other in group)


@LAW
@given(drawn_policies())
def test_each_read_tensor_that_is_held_is_refused_by_name_and_no_other_is_demanded(drawn: Drawn) -> None:
    traced = trace(drawn.policy, drawn.act, drawn.probes)
    leader = {item.name: item.alias_of or item.name for item in traced.items}
    unread = {name for name in leader if name not in traced.reads}
    for held in sorted({leader[name] for name in traced.reads}):
        groups: Any = {n: "hold" if first == held or n in unread else "send" for n, first in leader.items()}
        with pytest.raises(UncoveredRead) as error:
            raise_for(judge(traced, make_manifest(drawn.policy, groups)))
        assert set(error.value.names) == {name for name in traced.reads if leader[name] == held}
    groups = {name: "hold" if name in unread else "send" for name in leader}
    assert judge(traced, make_manifest(drawn.policy, groups)).ok


@LAW
@given(drawn_policies())
def test_with_every_group_sent_the_whole_state_is_the_learners_after_one_push(drawn: Drawn) -> None:
    import copy

    learner, actor = drawn.policy, copy.deepcopy(drawn.policy)
    randomise(actor, torch.Generator().manual_seed(7))
    groups: Any = {item.name: "send" for item in inventory(learner)}
    manifest = make_manifest(learner, groups)
    with Publisher(learner, manifest, act=drawn.act, probes=drawn.probes, bind="memory:") as pub:
        pub.publish()
        with Subscriber(actor, pub.address, act=drawn.act, probes=drawn.probes, actor_id="a") as sub:
            sub.wait_for_first(20)
    mine, theirs = ({i.name: i.tensor for i in inventory(policy)} for policy in (learner, actor))
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for x in MANY:
        assert frozen_outputs(drawn.act(actor, x)) == frozen_outputs(drawn.act(learner, x))


# ---- mutants: each makes a way of reading invisible, and a case or the oracle must notice


def blind_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_EXPORTS", frozenset())
    monkeypatch.setattr(read_set._Trial, "matter", lambda self, groups: [])


def blind_to_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_set._Trial, "matter", lambda self, groups: [])


def poison_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_set, "_SPOILS", read_set._SPOILS[:1])


def no_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_set, "_closed", lambda names, items: frozenset(names))
    monkeypatch.setattr(memory, "share_bytes", lambda one, other: one is other)


def spans_for_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "share_bytes", lambda one, other: True)


def views_are_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    original = watching._Operations._before

    def before(self: Any, schema: Any, args: Any, kwargs: Any) -> Any:
        viewed = original(self, schema, args, kwargs)
        for tensor in viewed:
            self._watch.read(tensor)
        return viewed

    monkeypatch.setattr(watching._Operations, "_before", before)


def scratch_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_WRITE_ONLY", frozenset())


def plain_lists_are_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "modules", lambda policy: policy.named_modules(remove_duplicate=False))


def observations_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_set, "copied_observation", lambda observation: observation)


def attributes_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = inventories._own_tensors

    def own(module: Any, registered: Any) -> Any:
        yield from (each for each in original(module, registered) if each[2] != "attribute")

    monkeypatch.setattr(inventories, "_own_tensors", own)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("mutant", "name"),
    [
        (blind_to_numpy, "read through numpy"),
        (blind_to_values, "another thread"),
        (poison_alone, "boolean mask in another thread"),
        (no_aliases, "tied weights"),
        (spans_for_bytes, "columns of one matrix"),
        (views_are_reads, "functional call with the state"),
        (scratch_is_read, "scratch that is overwritten first"),
        (plain_lists_are_not_looked_into, "modules in a plain list"),
        (observations_are_not_copied, "observation changed in place"),
        (attributes_are_not_found, "tensor in a plain attribute"),
    ],
)
def test_a_mutant_of_the_trace_does_not_survive_the_cases(
    mutant: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def holds() -> bool:
        policy, act, probes = CASES[name].build()
        kept = [probe.clone() for probe in probes]
        try:
            traced = trace(policy, act, probes)
        except Exception:
            return False
        finally:
            torch._dynamo.reset()
        same = all(map(torch.equal, kept, probes))
        return traced.reads == CASES[name].reads and traced.hidden == () and traced.repeats and same

    assert holds()
    mutant(monkeypatch)
    assert not holds()


@pytest.mark.parametrize("skipped", ["trunk", "head"])
def test_the_oracle_notices_a_read_set_that_skips_a_part(skipped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = watching.Watch.read

    def read(self: Any, tensor: Tensor) -> None:
        original(self, tensor)
        self.reads = {name for name in self.reads if not name.startswith(skipped)}

    monkeypatch.setattr(watching.Watch, "read", read)
    monkeypatch.setattr(read_set._Trial, "matter", lambda self, groups: [])

    @settings(LAW, max_examples=20)
    @given(drawn_policies())
    def law(drawn: Drawn) -> None:
        assert oracle(drawn) <= read_set.read_set(drawn.policy, drawn.act, drawn.probes)

    with pytest.raises(AssertionError):
        law()
