"""Transitions from actors to the learner, over the address that serves the weights: none lost, none twice.

An actor numbers its batches and keeps each until the learner acknowledges it; after a lost connection it sends again
what was not acknowledged, and the learner ignores what it has. Tensors travel as dtype, shape and bytes: no pickle.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc  # type: ignore[import-untyped, unused-ignore]
import numpy as np

import weightkit.transports.grpc as transport
from weightkit.core.version import WeightVersion
from weightkit.digest import tensor_digest
from weightkit.errors import Disconnected, TransportError, TransportTimeout, UsageError
from weightkit.transports.base import Backoff, Service
from weightkit_runners.wire.v1 import experience_pb2 as pb

logger = logging.getLogger(__name__)

PROTOCOL = 1
SERVICE = "weightkit_runners.wire.v1.Experience"
METHOD = "Exchange"
REMEMBERED_EPOCHS = 1024
MAX_BATCH_BYTES = 48 << 20  # below the transport's limit of one message

Transition = Mapping[str, np.ndarray]
WhenFull = Literal["block", "drop_oldest"]


class SinkClosed(Exception):
    """Raised by a sink that takes nothing any more: the actor keeps the batch, and its stream ends without noise."""


@dataclass(frozen=True, slots=True)
class ExperienceBatch:
    """Transitions of one actor, in order, with the weights that they were acted with."""

    actor_id: str
    seq: int
    version: WeightVersion
    transitions: tuple[dict[str, np.ndarray], ...]


@dataclass(frozen=True, slots=True)
class ExperienceCounts:
    """Transitions by fate; always ``produced == accepted + pending + dropped``."""

    produced: int
    accepted: int
    pending: int
    dropped: int


def encode_transitions(transitions: Sequence[Transition]) -> bytes:
    """The transitions as typed tensors. Raises UsageError for an array that is no plain tensor (objects, text)."""
    message = pb.Transitions()
    for transition in transitions:
        row = message.transitions.add()
        for name, value in transition.items():
            array = np.asarray(value)
            if array.dtype.kind not in "biufc":
                raise UsageError(f"transition[{name!r}]: an array of {array.dtype} cannot be sent")
            little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            row.tensors.add(name=name, dtype=array.dtype.name, shape=array.shape, data=little.tobytes())
    return bytes(message.SerializeToString())


def decode_transitions(payload: bytes) -> tuple[dict[str, np.ndarray], ...]:
    """The transitions in ``payload``. Raises ValueError where bytes, shape and dtype contradict each other."""
    return tuple(
        {str(tensor.name): _array(tensor) for tensor in row.tensors}
        for row in pb.Transitions.FromString(payload).transitions
    )


def _array(tensor: Any) -> np.ndarray:
    dtype = np.dtype(str(tensor.dtype))
    if dtype.kind not in "biufc":
        raise ValueError(f"{tensor.name}: {dtype} is no element type of a tensor")
    array: np.ndarray = np.frombuffer(tensor.data, dtype.newbyteorder("<")).astype(dtype)
    return array.reshape(tuple(tensor.shape))


def _digest(payload: bytes) -> str:
    return tensor_digest(payload, dtype="uint8", shape=(len(payload),))


@dataclass(slots=True)
class _Pending:
    """A batch that the learner has not acknowledged; ``sent``: it may have arrived."""

    seq: int
    count: int
    size_bytes: int
    message: Any
    sent: bool = False


class ExperienceSender:
    """The actor's end. ``send`` hands a batch over; a background thread delivers it and sends again where it must.

    ``capacity_bytes`` bounds what waits for an acknowledgement. When it is full, ``"block"`` makes ``send`` wait (at
    most ``block_timeout_s``, then TransportTimeout), ``"drop_oldest"`` throws the oldest batches away and counts them.
    """

    def __init__(
        self,
        address: str,
        actor_id: str,
        *,
        capacity_bytes: int = 256 << 20,
        when_full: WhenFull = "block",
        block_timeout_s: float = 60.0,
        insecure: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        self.address = address
        self.actor_id = actor_id
        self.epoch = uuid.uuid4().hex
        self._capacity_bytes = capacity_bytes
        self._when_full = when_full
        self._block_timeout_s = block_timeout_s
        self._insecure = insecure
        self._backoff = backoff or Backoff()
        self._changed = threading.Condition()
        self._waiting: deque[_Pending] = deque()
        self._size_bytes = 0
        self._seq = 0
        self._produced = self._accepted = self._dropped = 0
        self._dropped_unsure: list[tuple[int, int]] = []  # seq and count of dropped batches that may have arrived
        self._stopping = False
        self._call: Any = None
        self._trouble = "no answer yet"
        transport.open_channel(address, insecure=insecure).close()  # refuses an address here rather than in the thread
        self._thread = threading.Thread(target=self._run, name=f"weightkit-experience-{actor_id}", daemon=True)
        self._thread.start()

    def send(self, transitions: Sequence[Transition], version: WeightVersion) -> int:
        """Hand a batch over for delivery; its sequence number. The arrays are copied.

        Raises UsageError for a batch that could never be sent, TransportTimeout where the buffer stays full.
        """
        payload = encode_transitions(transitions)
        if len(payload) > min(MAX_BATCH_BYTES, self._capacity_bytes):
            raise UsageError(
                f"a batch of {len(payload)} bytes is too large: at most {min(MAX_BATCH_BYTES, self._capacity_bytes)}",
                hint="send fewer transitions at a time, or raise capacity_bytes",
            )
        with self._changed:
            self._make_room(len(payload))
            self._seq += 1
            batch = pb.Batch(
                seq=self._seq,
                run_id=version.run_id,
                counter=version.counter,
                learner_step=version.learner_step,
                payload=payload,
                digest=_digest(payload),
            )
            self._waiting.append(_Pending(self._seq, len(transitions), len(payload), pb.FromActor(batch=batch)))
            self._size_bytes += len(payload)
            self._produced += len(transitions)
            self._changed.notify_all()
            return self._seq

    def _make_room(self, size_bytes: int) -> None:
        def fits() -> bool:
            return self._size_bytes + size_bytes <= self._capacity_bytes

        if self._when_full == "block":
            if not self._changed.wait_for(lambda: fits() or self._stopping, timeout=self._block_timeout_s):
                raise TransportTimeout(
                    f"{self.address}: {self._size_bytes} bytes of transitions wait for the learner, and none was "
                    f"taken for {self._block_timeout_s:g} s: {self._trouble}"
                )
            if self._stopping:
                raise Disconnected(f"{self.address}: the sender is closed")
            return
        while not fits():
            oldest = self._waiting.popleft()
            self._size_bytes -= oldest.size_bytes
            self._dropped += oldest.count
            if oldest.sent:
                self._dropped_unsure.append((oldest.seq, oldest.count))

    def counts(self) -> ExperienceCounts:
        """Transitions by fate so far."""
        with self._changed:
            pending = sum(batch.count for batch in self._waiting)
            return ExperienceCounts(self._produced, self._accepted, pending, self._dropped)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged; whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout=timeout_s)

    def close(self, *, drain_timeout_s: float = 0.0) -> ExperienceCounts:
        """Deliver for at most ``drain_timeout_s`` more, then stop; what is still pending is lost with this object."""
        if drain_timeout_s > 0:
            self.flush(drain_timeout_s)
        with self._changed:
            self._stopping = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        self._thread.join()
        return self.counts()

    # ---- the background thread

    def _run(self) -> None:
        while True:
            try:
                self._stream()
            except TransportError as error:
                if error.message != self._trouble and not self._stopping:
                    logger.info("%s", error.message)
                self._trouble = error.message
            pause_until = time.monotonic() + self._backoff.next_s()
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=max(0.0, pause_until - time.monotonic()))
                if self._stopping:
                    return

    def _stream(self) -> None:
        """One connection until it ends. Raises TransportError at the end."""
        channel = transport.open_channel(self.address, insecure=self._insecure)
        attempt = _Attempt()
        try:
            method = channel.stream_stream(
                f"/{SERVICE}/{METHOD}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=pb.FromLearner.FromString,
            )
            with self._changed:
                if self._stopping:
                    return
                call = self._call = method(self._requests(attempt))
            for reply in call:
                self._acknowledged(reply, attempt)
        except grpc.RpcError as error:
            raise transport.error_of(error, self.address) from None
        finally:
            with self._changed:
                self._call = None
                attempt.over = True
                self._changed.notify_all()
            channel.close()

    def _requests(self, attempt: _Attempt) -> Iterator[Any]:
        yield pb.FromActor(open=pb.Open(protocol=PROTOCOL, actor_id=self.actor_id, epoch=self.epoch))
        while True:
            with self._changed:
                self._changed.wait_for(lambda: attempt.over or self._stopping or self._next(attempt) is not None)
                batch = self._next(attempt)
                if attempt.over or self._stopping or batch is None:
                    return
                batch.sent = True
                attempt.sent_seq = batch.seq
            yield batch.message

    def _next(self, attempt: _Attempt) -> _Pending | None:
        """The oldest batch that this connection has not carried; None before the learner said what it has."""
        if not attempt.opened or not self._waiting or self._waiting[-1].seq <= attempt.sent_seq:
            return None
        return next(batch for batch in self._waiting if batch.seq > attempt.sent_seq)

    def _acknowledged(self, reply: Any, attempt: _Attempt) -> None:
        if reply.refused:
            raise TransportError(f"{self.address}: the learner refused transitions: {reply.refused}")
        seq = int(reply.accepted_seq)
        with self._changed:
            # batches arrive in order, so everything that was sent up to ``seq`` has arrived
            while self._waiting and self._waiting[0].seq <= seq:
                batch = self._waiting.popleft()
                self._size_bytes -= batch.size_bytes
                self._accepted += batch.count
            arrived = sum(count for dropped_seq, count in self._dropped_unsure if dropped_seq <= seq)
            self._dropped -= arrived
            self._accepted += arrived
            if attempt.opened:
                self._dropped_unsure = [item for item in self._dropped_unsure if item[0] > seq]
            else:  # a new connection: what the last one carried beyond ``seq`` is lost and must go again
                self._dropped_unsure = []
                for batch in self._waiting:
                    batch.sent = False
            attempt.opened = True
            self._backoff.reset()
            self._changed.notify_all()


@dataclass(slots=True)
class _Attempt:
    """One connection's progress."""

    opened: bool = False
    sent_seq: int = 0
    over: bool = False


class ExperienceReceiver:
    """The learner's end: hand ``service`` to a Publisher. ``sink`` gets every accepted batch exactly once.

    A batch is accepted when ``sink`` returns; a ``sink`` that waits holds that actor back, no other. Where it raises,
    the batch is not accepted and the actor sends it again. ``accepted`` restores what ``state()`` gave, so that a
    learner that resumes knows what its replay buffer holds already.
    """

    def __init__(self, sink: Callable[[ExperienceBatch], object], *, accepted: Mapping[str, int] | None = None) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._epochs: OrderedDict[str, _Epoch] = OrderedDict()
        for key, seq in (accepted or {}).items():
            self._epochs[key] = _Epoch(seq)
        self._accepted = 0
        self._duplicates = 0

    @property
    def service(self) -> Service:
        """Adds the stream to a gRPC server."""

        def install(server: Any) -> None:
            method = grpc.stream_stream_rpc_method_handler(
                self._exchange,
                request_deserializer=pb.FromActor.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))

        return install

    def state(self) -> dict[str, int]:
        """The highest accepted number by actor and epoch: what a checkpoint must hold beside the replay buffer."""
        with self._lock:
            return {key: epoch.seq for key, epoch in self._epochs.items()}

    def status(self) -> dict[str, int]:
        """Transitions accepted, and those that came a second time and were ignored."""
        with self._lock:
            return {"accepted": self._accepted, "duplicates": self._duplicates}

    def _epoch(self, actor_id: str, epoch: str) -> _Epoch:
        with self._lock:
            key = f"{actor_id}/{epoch}"
            found = self._epochs.setdefault(key, _Epoch(0))
            self._epochs.move_to_end(key)
            if len(self._epochs) > REMEMBERED_EPOCHS:
                self._epochs.popitem(last=False)
            return found

    def _exchange(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        first = next(requests, None)
        if first is None or first.WhichOneof("message") != "open":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the stream must begin with an Open")
            return
        opening = first.open
        if opening.protocol != PROTOCOL:
            yield pb.FromLearner(
                refused=f"the learner speaks protocol {PROTOCOL} of the experience stream, the actor {opening.protocol}"
            )
            return
        epoch = self._epoch(str(opening.actor_id), str(opening.epoch))
        generation, seq = epoch.open()
        yield pb.FromLearner(accepted_seq=seq)
        for request in requests:
            if request.WhichOneof("message") != "batch":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "expected a Batch")
            if _digest(request.batch.payload) != request.batch.digest:
                context.abort(grpc.StatusCode.DATA_LOSS, "a batch was damaged on its way")
            try:
                seq = self._accept(str(opening.actor_id), epoch, generation, request.batch)
            except (ValueError, TypeError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except SinkClosed as closed:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(closed))
            yield pb.FromLearner(accepted_seq=seq)

    def _accept(self, actor_id: str, epoch: _Epoch, generation: int, message: Any) -> int:
        with epoch.lock:
            if generation != epoch.generation:
                raise ValueError("a newer connection of this actor has taken over")
            if message.seq <= epoch.seq:
                with self._lock:
                    self._duplicates += len(decode_transitions(message.payload))
                return epoch.seq
            version = WeightVersion(str(message.run_id), int(message.counter), int(message.learner_step))
            batch = ExperienceBatch(actor_id, int(message.seq), version, decode_transitions(message.payload))
            self._sink(batch)
            epoch.seq = batch.seq
            with self._lock:
                self._accepted += len(batch.transitions)
            return epoch.seq


class _Epoch:
    """The highest accepted number of one run of one actor."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.generation = 0
        self.lock = threading.Lock()

    def open(self) -> tuple[int, int]:
        """Start a new connection, which ends what older ones may accept: its generation, the highest number so far."""
        with self.lock:
            self.generation += 1
            return self.generation, self.seq
