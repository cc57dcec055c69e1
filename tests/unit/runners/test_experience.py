"""The experience stream: nothing is lost, nothing comes twice, memory is bounded, and the counts balance."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.core.version import WeightVersion
from weightkit.errors import TransportTimeout, UsageError
from weightkit.transports import serve
from weightkit.transports.base import Backoff, Hello, Reject, Status, Welcome
from weightkit_runners.experience import (
    ExperienceBatch,
    ExperienceCounts,
    ExperienceReceiver,
    ExperienceSender,
    decode_transitions,
    encode_transitions,
)
from weightkit_runners.wire.v1 import experience_pb2 as pb

VERSION = WeightVersion("run", 3, 40)


class NoWeights:
    """A learner that has only the experience stream to offer."""

    def hello(self, hello: Hello) -> Welcome | Reject:
        raise ValueError("no weights here")

    def watch(self, session: str) -> Iterator[Any]:
        return iter(())

    def ack(self, ack: object) -> None: ...

    def nack(self, nack: object) -> None: ...

    def status(self) -> Status:
        return Status("", 0, "", 0, ())

    def closed(self, session: str) -> None: ...


class Sink:
    """Keeps what it gets; ``gate`` closed makes it wait."""

    def __init__(self) -> None:
        self.batches: list[ExperienceBatch] = []
        self.gate = threading.Event()
        self.gate.set()
        self.changed = threading.Condition()

    def __call__(self, batch: ExperienceBatch) -> None:
        assert self.gate.wait(20)
        with self.changed:
            self.batches.append(batch)
            self.changed.notify_all()

    def steps(self) -> list[int]:
        return [int(t["step"]) for batch in self.batches for t in batch.transitions]


def transition(step: int, size: int = 16) -> dict[str, np.ndarray]:
    return {"step": np.asarray(step), "image": np.full(size, step % 256, np.uint8), "done": np.asarray(step % 2 == 0)}


def sender_to(address: str, **kwargs: Any) -> ExperienceSender:
    return ExperienceSender(address, "arm", backoff=Backoff(low_s=0.001, high_s=0.02), **kwargs)


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/socket"


def balanced(counts: ExperienceCounts) -> bool:
    return counts.produced == counts.accepted + counts.pending + counts.dropped


DTYPES = ["float32", "float64", "float16", "uint8", "int64", "bool", ">f4"]


@settings(deadline=None, max_examples=40, database=None)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 2**31))
def test_transitions_arrive_as_they_were(dtype: str, shape: list[int], seed: int) -> None:
    array = np.asarray(np.random.default_rng(seed).integers(0, 2, shape)).astype(dtype)
    [row] = decode_transitions(encode_transitions([{"x": array}]))
    assert row["x"].shape == array.shape
    assert row["x"].dtype == array.dtype.newbyteorder("=")
    assert np.array_equal(row["x"], array)
    assert row["x"].flags.writeable


@pytest.mark.parametrize("value", [np.asarray(["text"]), np.asarray([object()])])
def test_what_is_no_tensor_is_refused(value: np.ndarray) -> None:
    with pytest.raises(UsageError, match="cannot be sent"):
        encode_transitions([{"x": value}])


def test_batches_arrive_once_in_order_with_the_version_they_were_acted_with(address: str) -> None:
    sink = Sink()
    server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
    sender = sender_to(address)
    try:
        for start in range(0, 20, 4):
            sender.send([transition(start + i) for i in range(4)], VERSION)
        assert sender.flush(20)
        assert sender.close() == ExperienceCounts(20, 20, 0, 0)
        assert sink.steps() == list(range(20))
        assert {(b.actor_id, b.version) for b in sink.batches} == {("arm", VERSION)}
        assert [b.seq for b in sink.batches] == [1, 2, 3, 4, 5]
    finally:
        sender.close()
        server.close()


def test_a_learner_that_goes_and_comes_back_loses_and_repeats_nothing(address: str) -> None:
    sink = Sink()
    receiver = ExperienceReceiver(sink)
    sender = sender_to(address)
    try:
        for round_ in range(4):
            server = serve(address, NoWeights(), services=(receiver.service,))
            try:
                for step in range(25):
                    sender.send([transition(round_ * 50 + step)], VERSION)
                with sink.changed:
                    assert sink.changed.wait_for(lambda r=round_: len(sink.batches) > r * 50, timeout=20)
            finally:
                server.close()
            for step in range(25, 50):
                sender.send([transition(round_ * 50 + step)], VERSION)
            assert balanced(sender.counts())
        server = serve(address, NoWeights(), services=(receiver.service,))
        try:
            assert sender.flush(20)
        finally:
            server.close()
    finally:
        counts = sender.close()
    assert counts == ExperienceCounts(200, 200, 0, 0)
    assert sink.steps() == list(range(200))
    assert receiver.status()["accepted"] == 200


def test_a_learner_that_resumes_from_its_state_knows_what_it_has(address: str) -> None:
    first, second = Sink(), Sink()
    receiver = ExperienceReceiver(first)
    server = serve(address, NoWeights(), services=(receiver.service,))
    sender = sender_to(address)
    try:
        sender.send([transition(0)], VERSION)
        assert sender.flush(20)
        server.close()
        state = receiver.state()
        assert list(state.values()) == [1]
        server = serve(address, NoWeights(), services=(ExperienceReceiver(second, accepted=state).service,))
        sender.send([transition(1)], VERSION)
        assert sender.flush(20)
        assert (first.steps(), second.steps()) == ([0], [1])
    finally:
        sender.close()
        server.close()


def test_a_sink_that_fails_gets_the_batch_again(address: str) -> None:
    sink, failures = Sink(), [RuntimeError("disk full"), RuntimeError("disk full")]

    def flaky(batch: ExperienceBatch) -> None:
        if failures:
            raise failures.pop()
        sink(batch)

    server = serve(address, NoWeights(), services=(ExperienceReceiver(flaky).service,))
    sender = sender_to(address)
    try:
        sender.send([transition(0)], VERSION)
        sender.send([transition(1)], VERSION)
        assert sender.flush(20)
        assert sink.steps() == [0, 1]
    finally:
        sender.close()
        server.close()


def test_a_full_buffer_blocks_and_then_says_so(address: str) -> None:
    size = len(encode_transitions([transition(0)]))
    sender = sender_to(address, capacity_bytes=2 * size + 4, block_timeout_s=0.05)
    try:
        sender.send([transition(0)], VERSION)
        sender.send([transition(1)], VERSION)
        with pytest.raises(TransportTimeout, match="wait for the learner"):
            sender.send([transition(2)], VERSION)
        assert sender.counts() == ExperienceCounts(2, 0, 2, 0)
    finally:
        sender.close()


def test_a_full_buffer_drops_the_oldest_and_counts_them(address: str) -> None:
    size = len(encode_transitions([transition(0)]))
    sink = Sink()
    sender = sender_to(address, capacity_bytes=3 * size + 6, when_full="drop_oldest")
    try:
        for step in range(10):
            sender.send([transition(step)], VERSION)
            assert balanced(sender.counts())
        assert sender.counts() == ExperienceCounts(10, 0, 3, 7)
        server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
        try:
            assert sender.flush(20)
            assert sink.steps() == [7, 8, 9]
        finally:
            server.close()
    finally:
        counts = sender.close()
    assert counts == ExperienceCounts(10, 3, 0, 7)


def test_what_is_dropped_on_its_way_and_arrives_counts_as_accepted(address: str) -> None:
    size = len(encode_transitions([transition(0)]))
    sink = Sink()
    sink.gate.clear()
    server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
    sender = sender_to(address, capacity_bytes=3 * size + 6, when_full="drop_oldest")
    try:
        for step in range(40):
            sender.send([transition(step)], VERSION)
            assert balanced(sender.counts())
        sink.gate.set()
        assert sender.flush(20)
        counts = sender.counts()
        assert balanced(counts)
        assert counts.accepted == len(sink.steps()) == len(set(sink.steps()))
        assert sink.steps()[-1] == 39
    finally:
        sender.close()
        server.close()


def test_a_waiting_sink_holds_back_its_own_actor_only(address: str) -> None:
    slow, quick = Sink(), Sink()
    slow.gate.clear()
    sinks = {"arm": slow, "other": quick}
    receiver = ExperienceReceiver(lambda batch: sinks[batch.actor_id](batch))
    server = serve(address, NoWeights(), services=(receiver.service,))
    first, second = sender_to(address), ExperienceSender(address, "other")
    try:
        first.send([transition(0)], VERSION)
        second.send([transition(1)], VERSION)
        assert second.flush(20)
        assert first.counts().pending == 1
        slow.gate.set()
        assert first.flush(20)
    finally:
        slow.gate.set()
        first.close()
        second.close()
        server.close()


def test_a_batch_that_could_never_fit_is_refused(address: str) -> None:
    sender = sender_to(address, capacity_bytes=100)
    try:
        with pytest.raises(UsageError, match="too large"):
            sender.send([transition(0, size=200)], VERSION)
    finally:
        sender.close()


def raw_stream(address: str, *messages: Any) -> list[Any]:
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/weightkit_runners.wire.v1.Experience/Exchange",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=pb.FromLearner.FromString,
        )
        return list(call(iter(messages), timeout=10))


OPEN = pb.FromActor(open=pb.Open(protocol=1, actor_id="arm", epoch="e"))


def test_damage_garbage_and_another_protocol_never_reach_the_sink(address: str) -> None:
    sink = Sink()
    server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
    try:
        damaged = pb.FromActor(batch=pb.Batch(seq=1, payload=encode_transitions([transition(0)]), digest="00"))
        with pytest.raises(grpc.RpcError, match="damaged"):
            raw_stream(address, OPEN, damaged)
        with pytest.raises(grpc.RpcError, match="begin with an Open"):
            raw_stream(address, damaged)
        [reply] = raw_stream(address, pb.FromActor(open=pb.Open(protocol=9, actor_id="arm", epoch="e")))
        assert "protocol 1" in reply.refused
        assert "9" in reply.refused
        assert sink.batches == []
    finally:
        server.close()


def test_closing_leaves_no_thread(address: str) -> None:
    before = set(threading.enumerate())
    server = serve(address, NoWeights(), services=(ExperienceReceiver(Sink()).service,))
    sender = sender_to(address)
    sender.send([transition(0)], VERSION)
    assert sender.close(drain_timeout_s=20).pending == 0
    server.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
