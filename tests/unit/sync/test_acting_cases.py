"""The read set of every case is exact: no more, no less, and no required tensor can be left out unnoticed."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest
import torch

from acting_cases import CASES, Case
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.errors import UncoveredRead
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory
from weightkit.sync.preserved import Preserved, Randomness, frozen_outputs
from weightkit.sync.proof import judge, prove_coverage, raise_for
from weightkit.sync.read_set import trace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Any:
    yield CASES[request.param]
    torch._dynamo.reset()


def test_the_cases_are_more_than_the_field_knows() -> None:
    assert len(CASES) >= 34


def test_the_read_set_is_exact_and_the_policy_is_as_it_was(case: Case) -> None:
    policy, act, probes = case.build()
    before = {item.name: item.tensor.detach().clone() for item in inventory(policy)}
    kept = copy.deepcopy(probes)
    traced = trace(policy, act, probes)
    assert traced.reads == case.reads
    assert {item.name for item in traced.items} == case.reads | case.unread
    assert traced.hidden == ()
    assert traced.repeats
    assert all(torch.equal(before[item.name], item.tensor) for item in inventory(policy))
    assert all(torch.equal(one, other) for one, other in zip(kept, probes, strict=True))


def test_each_required_tensor_that_is_held_is_named_and_no_unread_one_is_demanded(case: Case) -> None:
    policy, act, probes = case.build()
    traced = trace(policy, act, probes)
    clusters = {i.name: i.alias_of or i.name for i in traced.items}
    for name in sorted({clusters[name] for name in case.reads}):
        aliases = {other for other in case.reads if clusters[other] == name}
        manifest = sent_but(policy, {other for other in clusters if clusters[other] == name} | case.unread)
        with pytest.raises(UncoveredRead) as error:
            raise_for(judge(traced, manifest))
        assert set(error.value.names) == aliases
    assert prove_coverage(policy, act, probes, sent_but(policy, case.unread)).ok


def sent_but(policy: Any, held: Any) -> SyncManifest:
    groups: dict[str, Any] = {i.name: Transfer.HOLD if i.name in held else Transfer.SEND for i in inventory(policy)}
    return make_manifest(policy, groups)


def test_what_is_not_read_does_not_matter_and_what_is_read_does_to_some_observation(case: Case) -> None:
    """The read set again, by brute force: other numbers in one tensor, other actions on one of many observations."""
    policy, act, _ = case.build()
    observations = [torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) * 2 for seed in range(24)]
    before = Preserved(policy, inventory(policy))

    def actions() -> list[object]:
        with torch.compiler.set_stance("force_eager"), Randomness(()) as randomness:
            randomness.start()
            return [frozen_outputs(act(policy, observation.clone())) for observation in observations]

    before.restore()
    expected = actions()
    for item in inventory(policy):
        changed = False
        for seed in range(4):
            before.restore()
            spoil(item.tensor, seed)
            changed = changed or actions() != expected
        before.restore()
        assert changed == (item.name in case.reads), item.name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_policy_that_was_compiled_to_machine_code_and_is_warm_is_looked_into() -> None:
    policy, act, probes = CASES["plain"].build()
    compiled = torch.compile(policy)
    for x in probes:
        compiled(x)
    assert trace(compiled, act, probes).reads == CASES["plain"].reads
    torch._dynamo.reset()


def spoil(tensor: torch.Tensor, seed: int) -> None:
    view = tensor.detach()
    for dimension, stride in enumerate(view.stride()):
        view = view.narrow(dimension, 0, 1) if stride == 0 else view
    with torch.no_grad():
        if view.dtype is torch.bool:
            view.logical_not_()
        elif view.dtype.is_floating_point:
            view.copy_(torch.randn(view.shape, generator=torch.Generator().manual_seed(seed)) * 3)
        else:
            view.copy_(view.flatten().roll(seed + 1).reshape(view.shape) if view.numel() > 1 else view + 1)
