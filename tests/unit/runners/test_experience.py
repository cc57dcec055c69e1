"""The experience stream: nothing is lost, nothing comes twice, memory is bounded, and the counts balance."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightkit.core.version import WeightVersion
from weightkit.errors import Disconnected, TransportTimeout, UsageError
from weightkit.transports import serve
from weightkit.transports.base import Backoff, Hello, Reject, Status, Welcome
from weightkit_runners.experience import (
    BatchRefused,
    ExperienceBatch,
    ExperienceCounts,
    ExperienceReceiver,
    ExperienceSender,
    decode_transitions,
    encode_transitions,
)
from weightkit_runners.experience.epochs import Epochs, TooManyActors
from weightkit_runners.experience.ledger import Attempt, Ledger
from weightkit_runners.experience.messages import METHOD, SERVICE, AcceptedEpoch, batch_digest
from weightkit_runners.wire.v1 import experience_pb2 as pb

VERSION = WeightVersion("run", 3, 40)
PATIENCE_S = 20.0


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
        self.waiting = False

    def __call__(self, batch: ExperienceBatch) -> None:
        self.waiting = not self.gate.is_set()
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


def await_true(condition: Callable[[], bool]) -> None:
    tick, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.002)


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
        assert sender.close() == ExperienceCounts(20, 20, 0)
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
    assert counts == ExperienceCounts(200, 200, 0)
    assert sink.steps() == list(range(200))
    assert receiver.status()["accepted"] == 200


def test_an_actor_is_back_less_than_5_s_after_its_learner_listens_again(address: str) -> None:
    backoff, sink = Backoff(), Sink()
    for _ in range(10):
        backoff.next_s()
    sender = ExperienceSender(address, "arm", backoff=backoff)
    try:
        sender.send([transition(0)], VERSION)
        await_true(lambda: sender._trouble != "no answer yet")
        began = time.monotonic()
        server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
        try:
            assert sender.flush(5.0)
            assert time.monotonic() - began < 5
        finally:
            server.close()
    finally:
        sender.close()
    assert sink.steps() == [0]


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
        assert sender.counts() == ExperienceCounts(2, 0, 2)
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
        assert sender.counts() == ExperienceCounts(10, 0, 3, {"full": 7})
        server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
        try:
            assert sender.flush(20)
            assert sink.steps() == [7, 8, 9]
        finally:
            server.close()
    finally:
        counts = sender.close()
    assert counts == ExperienceCounts(10, 3, 0, {"full": 7})


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


def test_a_closed_sender_tells_what_had_gone_out_from_what_had_not(address: str) -> None:
    sink = Sink()
    sink.gate.clear()
    server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
    sender, lonely = sender_to(address), sender_to(f"{address}-nobody")
    try:
        sender.send([transition(0)] * 3, VERSION)
        await_true(lambda: sender._ledger.next_for(Attempt(opened=True, sent_seq=1)) is None and sink.waiting)
        assert sender.close() == ExperienceCounts(3, 0, 3), "the learner may take it yet"
        lonely.send([transition(0)] * 2, VERSION)
        counts = lonely.close()
        assert counts == ExperienceCounts(2, 0, 0, {"closed": 2})
        assert json.loads(json.dumps(counts.to_dict())) == {
            "produced": 2, "accepted": 0, "pending": 0, "dropped": 2, "dropped_by": {"closed": 2}
        }  # fmt: skip
        for closed in (sender, lonely):
            with pytest.raises(Disconnected, match="closed"):
                closed.send([transition(1)], VERSION)
    finally:
        sink.gate.set()
        sender.close()
        lonely.close()
        server.close()


# ---- refusals


def refuse_thirds(batch: ExperienceBatch) -> None:
    if int(batch.transitions[0]["step"]) % 3 == 0:
        raise BatchRefused("a third" if batch.seq < 10 else "a late third")


@pytest.mark.parametrize("where", ["check", "sink"])
def test_a_refused_batch_is_dropped_counted_and_said_once_and_the_others_arrive(
    where: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Sink()

    def refusing(batch: ExperienceBatch) -> None:
        refuse_thirds(batch)
        sink(batch)

    receiver = ExperienceReceiver(sink, check=refuse_thirds) if where == "check" else ExperienceReceiver(refusing)
    server = serve(address, NoWeights(), services=(receiver.service,))
    sender = sender_to(address)
    try:
        for step in range(1, 31):
            sender.send([transition(step)] * 2, VERSION)
            assert balanced(sender.counts())
        assert sender.flush(PATIENCE_S)
        assert sender.close() == ExperienceCounts(60, 40, 0, {"refused": 20})
    finally:
        sender.close()
        server.close()
    assert sink.steps() == [step for step in range(1, 31) if step % 3 for _ in range(2)]
    status = receiver.status()
    assert (status["accepted"], status["refused"], status["malformed"]) == (40, 20, 0)
    arm = status["actors"]["arm"]
    assert (arm["connected"], arm["seq"], arm["accepted"], arm["refused"]) == (False, 29, 40, 20)
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("sender") and r.levelno == logging.WARNING]
    assert len(lines) == 2
    assert "a batch of 2 transitions for good: a third" in lines[0]
    assert "a late third" in lines[1]


def test_a_refusal_that_was_not_heard_is_said_again_and_counted_once(address: str) -> None:
    receiver = ExperienceReceiver(Sink(), check=refuse_thirds)
    server = serve(address, NoWeights(), services=(receiver.service,))
    try:
        for _ in range(2):
            replies = raw_stream(address, OPEN, batch_of(encode_transitions([transition(3)]), seq=5))
            assert [(reply.accepted_seq, reply.refused_seq) for reply in replies] == [(0, 0), (0, 5)]
        unheard = batch_of(encode_transitions([transition(4)]), seq=6)
        heard = batch_of(encode_transitions([transition(4)]), seq=6, refusals_heard=1)
        replies = raw_stream(address, OPEN, batch_of(encode_transitions([transition(3)]), seq=5), unheard, heard)
        assert [(reply.accepted_seq, reply.refused_seq) for reply in replies] == [(0, 0), (0, 5), (6, 0)]
        assert receiver.status()["refused"] == 1
        assert receiver.status()["actors"]["arm"]["refused"] == 1
        assert receiver.status()["duplicates"] == 0
    finally:
        server.close()


class ModelLearner:
    """What a learner keeps, and one connection to it on which messages may be lost at any place."""

    def __init__(self) -> None:
        self.seq = 0
        self.accepted: list[int] = []
        self.refused: set[int] = set()
        self.connect()

    def connect(self) -> None:
        self.to_learner: deque[tuple[int, int]] = deque()
        self.to_actor: deque[tuple[int, int]] = deque([(self.seq, 0)])
        self.refusals = 0

    def take(self) -> None:
        seq, heard = self.to_learner.popleft()
        if heard < self.refusals:
            return
        refused = 0
        if seq > self.seq and seq % 3 == 0:
            self.refusals += 1
            self.refused.add(seq)
            refused = seq
        elif seq > self.seq:
            self.accepted.append(seq)
            self.seq = seq
        self.to_actor.append((self.seq, refused))


STEPS = st.lists(st.sampled_from("aaasssstttthhhhddx"), min_size=20, max_size=80)


@settings(deadline=None, max_examples=200, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_whatever_is_lost_on_the_way_every_batch_has_one_fate_on_both_sides(steps: str) -> None:
    ledger, learner, attempt = Ledger(), ModelLearner(), Attempt()

    def step(what: str) -> bool:
        nonlocal attempt
        if what == "a":
            ledger.add(None, count=1, size_bytes=1)
        elif what == "s" and (pending := ledger.next_for(attempt)) is not None:
            ledger.goes_out(pending, attempt)
            learner.to_learner.append((pending.seq, attempt.refusals))
        elif what == "t" and learner.to_learner:
            learner.take()
        elif what == "h" and learner.to_actor:
            accepted, refused = learner.to_actor.popleft()
            ledger.accepted_up_to(accepted, attempt)
            if refused:
                assert ledger.refused(refused, attempt) == 1
        elif what == "d" and len(ledger):
            ledger.drop_oldest()
        elif what == "x":
            learner.connect()
            attempt = Attempt()
        else:
            return False
        counts = ledger.counts()
        assert counts.produced == counts.accepted + counts.pending + counts.dropped
        assert counts.accepted <= len(learner.accepted)
        return True

    for what in steps:
        step(what)
    while any([step("s"), step("t"), step("h")]):
        pass
    counts = ledger.counts()
    assert counts.pending == len(ledger) == ledger.size_bytes == 0
    assert counts.accepted == len(learner.accepted)
    assert learner.accepted == sorted(set(learner.accepted))
    assert not set(learner.accepted) & learner.refused
    assert counts.dropped_by.get("refused", 0) <= len(learner.refused)
    if "d" not in steps:
        assert counts.dropped_by.get("refused", 0) == len(learner.refused) == counts.produced // 3
        assert counts.accepted == counts.produced - counts.produced // 3


def test_an_answer_to_what_was_never_sent_is_no_answer() -> None:
    ledger, attempt = Ledger(), Attempt()
    ledger.add(None, count=1, size_bytes=1)
    for answer in (ledger.accepted_up_to, ledger.refused):
        with pytest.raises(ValueError, match="batch 1, the newest that was sent is 0"):
            answer(1, attempt)
    assert ledger.counts() == ExperienceCounts(1, 0, 1)


# ---- strangers


def raw_stream(address: str, *messages: Any) -> list[Any]:
    with grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(
            f"/{SERVICE}/{METHOD}",
            request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
            response_deserializer=pb.FromLearner.FromString,
        )
        return list(call(iter(messages), timeout=10))


OPEN = pb.FromActor(open=pb.Open(protocol=1, actor_id="arm", epoch="e"))


def batch_of(payload: bytes, **changes: Any) -> Any:
    batch = pb.Batch(**{"seq": 1, "payload": payload, **changes})
    batch.digest = batch.digest or batch_digest("arm", "e", batch)
    return pb.FromActor(batch=batch)


def tensors(*rows: dict[str, Any]) -> bytes:
    made = [pb.Tensor(**{"name": "x", "dtype": "uint8", "shape": [2], "data": b"ab", **row}) for row in rows]
    return bytes(pb.Transitions(transitions=[pb.Transition(tensors=made)]).SerializeToString())


def opening(**changes: Any) -> Any:
    return pb.FromActor(open=pb.Open(**{"protocol": 1, "actor_id": "arm", "epoch": "e", **changes}))


GOOD = encode_transitions([transition(0)])
LIES: dict[str, tuple[Any, ...]] = {
    "nothing at all": (),
    "an empty message": (b"",),
    "random bytes first": (b"\xff\x00random bytes that are no message",),
    "random bytes later": (OPEN, b"\xff\x00random bytes that are no message"),
    "a batch first": (batch_of(GOOD),),
    "a second open": (OPEN, OPEN),
    "no actor": (opening(actor_id=""),),
    "a long actor": (opening(actor_id="a" * 257),),
    "an actor that rewrites the log": (opening(actor_id="arm\nlearner: all is well"),),
    "no epoch": (opening(epoch=""),),
    "an epoch with a slash": (opening(epoch="a/b"),),
    "no number": (OPEN, batch_of(GOOD, seq=0)),
    "a long run": (OPEN, batch_of(GOOD, run_id="r" * 1000)),
    "an answer to no refusal": (OPEN, batch_of(GOOD, refusals_heard=1)),
    "a payload that is no Transitions": (OPEN, batch_of(b"rubbish")),
    "a payload that is cut": (OPEN, batch_of(GOOD[:-1])),
    "a field that Transitions has not": (OPEN, batch_of(b"\x10\x01")),
    "a length without end": (OPEN, batch_of(b"\x0a\xff\xff\xff\xff\xff\xff")),
    "a tensor that is none": (OPEN, batch_of(b"\x0a\x04\x0a\x02\xff\xff")),
    "objects": (OPEN, batch_of(tensors({"dtype": "object"}))),
    "records": (OPEN, batch_of(tensors({"dtype": "f4,f4"}))),
    "an array of arrays": (OPEN, batch_of(tensors({"dtype": "(1000000,1000000)f8"}))),
    "text": (OPEN, batch_of(tensors({"dtype": "S2"}))),
    "no dtype": (OPEN, batch_of(tensors({"dtype": ""}))),
    "fewer bytes than the shape": (OPEN, batch_of(tensors({"shape": [3]}))),
    "more bytes than the shape": (OPEN, batch_of(tensors({"shape": [1]}))),
    "a huge shape": (OPEN, batch_of(tensors({"shape": [2**63, 2**63]}))),
    "a huge shape of nothing": (OPEN, batch_of(tensors({"shape": [0, 2**62], "data": b""}))),
    "a shape whose product wraps to its bytes": (OPEN, batch_of(tensors({"shape": [2**63, 2, 2**63, 2]}))),
    "too many axes": (OPEN, batch_of(tensors({"shape": [1] * 40, "data": b"a"}))),
    "a bool of 2": (OPEN, batch_of(tensors({"dtype": "bool", "data": b"\1\2"}))),
    "one name twice": (OPEN, batch_of(tensors({}, {}))),
    "a name that rewrites the log": (OPEN, batch_of(tensors({"name": "x\n[LEARNER] all is well"}))),
    "too many transitions": (OPEN, batch_of(b"\x0a\x00" * 70_000)),
    "too many tensors": (OPEN, batch_of(tensors(*({"name": str(i)} for i in range(140_000))))),
}


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ExperienceReceiver, Sink]]:
    """A learner that strangers come to."""
    address, sink = f"unix:{tmp_path_factory.mktemp('s')}/socket", Sink()
    receiver = ExperienceReceiver(sink)
    server = serve(address, NoWeights(), services=(receiver.service,))
    yield address, receiver, sink
    server.close()


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_ends_its_call_is_counted_and_leaves_nothing(
    lie: str, visited: tuple[str, ExperienceReceiver, Sink], caplog: pytest.LogCaptureFixture
) -> None:
    address, receiver, sink = visited
    before = receiver.status()["malformed"]
    with pytest.raises(grpc.RpcError) as ended:
        raw_stream(address, *LIES[lie])
    assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(ended.value.details()) <= 500
    assert receiver.status()["malformed"] == before + 1
    assert sink.batches == []
    assert receiver.state() == {}
    assert not [record for record in caplog.records if record.exc_info or record.levelno > logging.WARNING]
    assert "\n[LEARNER]" not in caplog.text


def test_a_damaged_batch_is_data_loss_and_another_protocol_is_refused_by_name(
    visited: tuple[str, ExperienceReceiver, Sink],
) -> None:
    address, receiver, sink = visited
    with pytest.raises(grpc.RpcError, match="damaged") as ended:
        raw_stream(address, OPEN, batch_of(GOOD, digest="00"))
    assert ended.value.code() is grpc.StatusCode.DATA_LOSS
    [reply] = raw_stream(address, pb.FromActor(open=pb.Open(protocol=9, actor_id="arm", epoch="e")))
    assert "protocol 1" in reply.refused
    assert "9" in reply.refused
    assert sink.batches == []
    assert receiver.state() == {}


def ending(address: str, *messages: Any) -> str:
    try:
        replies = raw_stream(address, *messages)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "another protocol" if "protocol 1" in replies[0].refused else "taken"


@settings(deadline=None, max_examples=50, database=None)
@given(first=st.binary(max_size=60), later=st.binary(max_size=60), at=st.integers(0, 10_000), bits=st.integers(1, 255))
def test_random_and_changed_bytes_never_reach_the_sink(
    visited: tuple[str, ExperienceReceiver, Sink], first: bytes, later: bytes, at: int, bits: int
) -> None:
    address, receiver, sink = visited
    good, hello = batch_of(GOOD, run_id="run", counter=3), bytearray(OPEN.SerializeToString())
    changed = bytearray(good.SerializeToString())
    changed[at % len(changed)] ^= bits
    hello[at % len(hello)] ^= bits
    for messages in ((first,), (OPEN, b"\x12" + later), (OPEN, bytes(changed)), (bytes(hello), good)):
        assert ending(address, *messages) in ("INVALID_ARGUMENT", "DATA_LOSS", "another protocol")
    assert sink.batches == []
    assert receiver.state() == {}


def test_a_damaged_answer_is_not_believed(address: str) -> None:
    sink, lies = Sink(), [True] * 3
    receiver = ExperienceReceiver(sink)

    def install(server: Any) -> None:
        def exchange(requests: Iterator[bytes], context: Any) -> Iterator[Any]:
            for reply in receiver._exchange(requests, context):
                if lies and reply.accepted_seq:
                    lies.pop()
                    reply.accepted_seq += 1
                yield reply

        method = grpc.stream_stream_rpc_method_handler(
            exchange, response_serializer=lambda message: message.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))

    server = serve(address, NoWeights(), services=(install,))
    sender = sender_to(address)
    try:
        for step in range(9):
            sender.send([transition(step)], VERSION)
        assert sender.flush(PATIENCE_S)
        assert sender.close() == ExperienceCounts(9, 9, 0)
    finally:
        sender.close()
        server.close()
    assert lies == []
    assert sink.steps() == list(range(9))


def test_strangers_do_not_push_out_whom_the_learner_knows() -> None:
    forgotten: list[tuple[str, str]] = []
    known = {("arm", str(i)): AcceptedEpoch(i, i) for i in range(1, 4)}
    epochs = Epochs(known, forgotten=forgotten.append, limit=4)
    with epochs.connected(("arm", "1")) as live:
        for i in range(20):
            with epochs.connected(("stranger", str(i))):
                pass
        assert forgotten == [("stranger", str(i)) for i in range(19)], "who sent nothing goes first"
        for i in range(20):
            with epochs.connected(("stranger", f"s{i}")) as epoch:
                epoch.seq = 1
        assert ("arm", "1") not in forgotten
        assert epochs.state()["arm/1"] == live.seq == 1
        assert len(epochs.state()) == 4
    with epochs.connected(("arm", "1")) as again:
        assert again is live


def test_when_all_are_connected_one_more_is_turned_away() -> None:
    epochs = Epochs({}, forgotten=lambda key: None, limit=2)
    with epochs.connected(("a", "1")), epochs.connected(("b", "1")), epochs.connected(("a", "1")):
        with pytest.raises(TooManyActors, match="2 actors"):
            with epochs.connected(("c", "1")):
                pass
        assert set(epochs.by_actor()) == {"a", "b"}
    with epochs.connected(("c", "1")):
        pass


def test_a_newer_connection_of_an_actor_ends_what_the_older_may_send(address: str) -> None:
    sink, older = Sink(), deque[Any]()
    receiver = ExperienceReceiver(sink)
    server = serve(address, NoWeights(), services=(receiver.service,))
    newer_is_there = threading.Event()

    def late() -> Iterator[Any]:
        yield OPEN
        assert newer_is_there.wait(PATIENCE_S)
        yield batch_of(GOOD, seq=2)

    try:
        with grpc.insecure_channel(address) as channel:
            call = channel.stream_stream(
                f"/{SERVICE}/{METHOD}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=pb.FromLearner.FromString,
            )(late(), timeout=PATIENCE_S)
            assert next(call).accepted_seq == 0
            assert [reply.accepted_seq for reply in raw_stream(address, OPEN, batch_of(GOOD))] == [0, 1]
            newer_is_there.set()
            with pytest.raises(grpc.RpcError, match="taken over") as ended:
                older.extend(call)
        assert ended.value.code() is grpc.StatusCode.ABORTED
        assert [batch.seq for batch in sink.batches] == [1]
        assert [reply.accepted_seq for reply in raw_stream(address, OPEN, batch_of(GOOD))] == [1, 1]
        assert receiver.status()["duplicates"] == 1
        assert receiver.status()["malformed"] == 0
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


def test_an_answer_that_is_lost_on_a_connection_that_lives_is_asked_for_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a flipped bit gives it to a stream that nobody knows: all else goes on as if nothing were wrong."""
    monkeypatch.setattr("weightkit_runners.experience.sender.ANSWER_S", 0.3)
    monkeypatch.setattr("weightkit_runners.experience.sender.LOOK_EVERY_S", 0.05)
    sink = Sink()
    lost: list[object] = []
    answered = ExperienceSender._answered

    def deaf_once(self: ExperienceSender, reply: object, attempt: Attempt) -> None:
        if attempt.sent_seq and not lost:
            lost.append(reply)
        else:
            answered(self, reply, attempt)

    monkeypatch.setattr(ExperienceSender, "_answered", deaf_once)
    server = serve(address, NoWeights(), services=(ExperienceReceiver(sink).service,))
    sender = ExperienceSender(address, "a", backoff=Backoff(low_s=0.01, high_s=0.02))
    try:
        sender.send([{"x": np.zeros(1, np.float32)}], WeightVersion("r", 1, 0))
        assert sender.flush(20)
        assert (len(lost), sender.counts().accepted) == (1, 1)
    finally:
        sender.close()
        server.close()
