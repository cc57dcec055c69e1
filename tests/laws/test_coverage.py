"""Law 4: every tensor in exactly one group; what act() reads is sent or pinned, or it is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import SMALL_DRQV2, drqv2_groups, drqv2_kwargs, drqv2_policy
from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.engine.coverage import check_coverage
from weightkit.sync.grouping import make_manifest
from weightkit.sync.inventory import inventory, state_of

LAW = settings(deadline=None, max_examples=40, database=None)
POLICY = drqv2_policy(SMALL_DRQV2, 0)
OFFER = make_manifest(POLICY, drqv2_groups(POLICY))
NEEDS = state_of(inventory(POLICY))
SENT = OFFER.names(Transfer.SEND)


def test_what_is_sent_covers_what_is_read() -> None:
    assert check_coverage(SENT, NEEDS, OFFER) == ()


@LAW
@given(drqv2_kwargs())
def test_every_tensor_is_in_exactly_one_group_and_the_payload_has_no_overlap(kwargs: dict[str, Any]) -> None:
    policy = drqv2_policy(kwargs, 0)
    manifest = make_manifest(policy, drqv2_groups(policy))
    assert list(manifest.by_name) == list(policy.state_dict())
    end = 0
    for name in manifest.names(Transfer.SEND):
        offset = manifest.by_name[name].offset
        assert offset is not None
        assert offset >= end
        assert offset % 64 == 0
        end = offset + manifest.by_name[name].spec.nbytes
    assert manifest.payload_bytes == end
    assert SyncManifest.from_dict(manifest.to_dict()) == manifest


@LAW
@given(st.sampled_from(SENT))
def test_a_read_tensor_that_is_missing_from_the_offer_is_the_one_finding(name: str) -> None:
    offer = replace(OFFER, entries=tuple(e for e in OFFER.entries if e.name != name))
    assert [(f.code, f.subject) for f in check_coverage(SENT, NEEDS, offer)] == [("WK301", name)]


@LAW
@given(st.sampled_from(SENT))
def test_a_read_tensor_that_is_held_is_the_one_finding(name: str) -> None:
    offer = replace(
        OFFER, entries=tuple(replace(e, group="critic", offset=None) if e.name == name else e for e in OFFER.entries)
    )
    assert [(f.code, f.subject) for f in check_coverage(SENT, NEEDS, offer)] == [("WK301", name)]


@LAW
@given(st.sampled_from(SENT), st.booleans())
def test_another_shape_or_dtype_is_the_one_finding(name: str, shape: bool) -> None:
    spec = NEEDS[name]
    other = TensorSpec(spec.dtype, (*spec.shape, 1)) if shape else TensorSpec(spec.dtype.replace(name="x"), spec.shape)
    needs = StateSpec({**NEEDS.tensors, name: other})
    assert [(f.code, f.subject) for f in check_coverage(SENT, needs, OFFER)] == [("WK303", name)]


@LAW
@given(st.sampled_from(SENT))
def test_a_sent_tensor_that_the_actor_does_not_have_is_the_one_finding(name: str) -> None:
    needs = NEEDS.only(n for n in NEEDS if n != name)
    reads = [n for n in SENT if n != name]
    assert [(f.code, f.subject) for f in check_coverage(reads, needs, OFFER)] == [("WK304", name)]


def test_two_tensors_that_are_one_on_the_actor_are_a_finding() -> None:
    first, second = "encoder.front.0.bias", "encoder.wrist.0.bias"
    needs = StateSpec(NEEDS.tensors, {second: first})
    assert [(f.code, f.subject) for f in check_coverage(SENT, needs, OFFER)] == [("WK303", second)]


def test_an_actor_without_the_held_tensors_is_covered() -> None:
    assert check_coverage(SENT, NEEDS.only(SENT), OFFER) == ()
