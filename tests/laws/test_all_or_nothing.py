"""Law 6: whatever happens to the stream, an actor holds an old version or a new one, never a mixture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.core.version import WeightVersion
from weightkit.errors import Disconnected
from weightkit.sync import acting, receiver, snapshots
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import connect
from weightkit.transports.base import Backoff, Chunk, Connection, Watch, WatchMessage

LAW = settings(deadline=None, max_examples=60, database=None)
PROBES = drqv2_observations(SMALL_DRQV2, 5)
CHUNK_BYTES = 256
FAULTS = ("cut", "drop", "repeat", "swap", "flip", "truncate", "move")


class FaultyConnection:
    """Spoils the ``at``-th chunk that passes, once; everything else goes through to a real connection."""

    def __init__(self, inner: Connection, faults: list[tuple[str, int]]) -> None:
        self._inner = inner
        self._faults = faults

    def watch(self, watch: Watch) -> Iterator[WatchMessage]:
        seen = 0
        held: WatchMessage | None = None
        for message in self._inner.watch(watch):
            if not isinstance(message, Chunk):
                yield message
                continue
            seen += 1
            if held is not None:
                yield message
                yield held
                held = None
                continue
            if not self._faults or self._faults[0][1] > seen:
                yield message
                continue
            fault, _ = self._faults.pop(0)
            if fault == "cut":
                raise Disconnected("cut")
            if fault == "swap":
                held = message
                continue
            yield from self._spoilt(fault, message)

    def _spoilt(self, fault: str, chunk: Chunk) -> Iterator[WatchMessage]:
        if fault == "repeat":
            yield from (chunk, chunk)
        elif fault == "flip":
            spoilt = bytearray(chunk.data)
            spoilt[len(spoilt) // 2] ^= 4
            yield Chunk(chunk.offset, bytes(spoilt))
        elif fault == "truncate":
            yield Chunk(chunk.offset, bytes(chunk.data)[:-1])
        elif fault == "move":
            yield Chunk(chunk.offset + 64, chunk.data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def follow(faults: list[tuple[str, int]], pushes: int = 3) -> int:
    """Push several versions through a faulty connection and check every one; how many were noticed to be wrong."""
    learner, actor = drqv2_policy(SMALL_DRQV2, 1), drqv2_policy(SMALL_DRQV2, 2)
    manifest = make_manifest(learner, drqv2_groups(learner))
    with Publisher(learner, manifest, act=act, probes=PROBES, bind="memory:") as pub:
        published: dict[WeightVersion, dict[str, torch.Tensor]] = {}
        give_up_at = time.monotonic() + 20
        with Subscriber(
            actor,
            pub.address,
            act=act,
            probes=PROBES,
            actor_id="a",
            connector=lambda address: FaultyConnection(connect(address), faults),
            backoff=Backoff(low_s=0.001, high_s=0.002),
        ) as sub:
            for step in range(pushes):
                with torch.no_grad():
                    for parameter in learner.parameters():
                        parameter.mul_(1.01)
                version = pub.publish(step)
                published[version] = {name: learner.state_dict()[name].clone() for name in sub.reads}
                while not pub.wait_acked("a", step + 1, timeout_s=0.002):
                    assert time.monotonic() < give_up_at
                    sub.poll()
                    held = {name: tensor for name, tensor in actor.state_dict().items() if name in sub.reads}
                    if sub.version is None:
                        assert all(tensor.isnan().all() for tensor in held.values())
                    else:
                        expected = published[sub.version]
                        assert all(torch.equal(held[name], expected[name]) for name in held)
            assert sub.version is not None
            assert sub.version.counter == pushes
            status = sub.status()
            discarded, repaired = status["discarded"], status["repaired"]
            assert isinstance(discarded, int)
            assert isinstance(repaired, int)
            return discarded + repaired


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", CHUNK_BYTES)


def test_a_faultless_stream_throws_nothing_away() -> None:
    assert follow([]) == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_of_each_kind_is_noticed(fault: str) -> None:
    discarded = follow([(fault, 2)], pushes=1)
    assert discarded == (0 if fault == "cut" else 1)


def test_faults_anywhere_leave_the_old_version_or_the_new_one() -> None:
    @LAW
    @given(st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(1, 12)), max_size=3))
    def law(faults: list[tuple[str, int]]) -> None:
        follow(list(faults))

    law()


def test_the_law_notices_a_subscriber_that_verifies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (receiver, acting):
        monkeypatch.setattr(module, "verify", lambda found, begin: None)
    with pytest.raises(AssertionError):
        follow([("flip", 2)], pushes=1)
