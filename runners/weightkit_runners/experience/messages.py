"""The messages of the experience stream: transitions as typed tensors, and requests that are read with suspicion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from weightkit.core.version import WeightVersion
from weightkit.digest import tensor_digest
from weightkit.errors import UsageError
from weightkit_runners.wire.v1 import experience_pb2 as pb

PROTOCOL = 1
SERVICE = "weightkit_runners.wire.v1.Experience"
METHOD = "Exchange"
MAX_BATCH_BYTES = 48 << 20  # below the transport's limit of one message
MAX_TRANSITIONS = 1 << 16
MAX_TENSORS = 1 << 17  # of all transitions of a batch: an array object costs more than the bytes that claim one
MAX_AXES = 32
MAX_NAME = 256
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES = frozenset(["bool", *_INTEGERS, "float16", "float32", "float64", "complex64", "complex128"])
_EPOCH = re.compile(r"[0-9A-Za-z_-]{1,64}")

Transition = Mapping[str, np.ndarray]


class SinkClosed(Exception):
    """Raised by a sink that takes nothing any more: the actor keeps the batch, and its stream ends without noise."""


class BatchRefused(Exception):
    """Raised for a batch that will never be taken. The actor counts it as dropped and goes on with the next one."""


class Malformed(ValueError):
    """A request that no actor of this protocol sends."""


class Damaged(ValueError):
    """A batch whose bytes do not have its digest."""


@dataclass(frozen=True, slots=True)
class ExperienceBatch:
    """Transitions of one actor, in order, with the weights that they were acted with."""

    actor_id: str
    seq: int
    version: WeightVersion
    transitions: tuple[dict[str, np.ndarray], ...]


@dataclass(frozen=True, slots=True)
class AcceptedBatch:
    """A batch as it came: ``payload`` are its ``count`` transitions in wire form; ``epoch`` names the actor's run."""

    actor_id: str
    epoch: str
    seq: int
    version: WeightVersion
    payload: bytes
    count: int

    def decode(self) -> ExperienceBatch:
        """Its transitions as arrays. Raises ValueError where bytes, shape and dtype contradict each other."""
        return ExperienceBatch(self.actor_id, self.seq, self.version, decode_transitions(self.payload))


@dataclass(frozen=True, slots=True)
class AcceptedEpoch:
    """What was accepted of one run of one actor: the highest number, and how many transitions in all."""

    seq: int
    transitions: int


def encode_transitions(transitions: Sequence[Transition]) -> bytes:
    """The transitions as typed tensors. Raises UsageError for what is no plain tensor (objects, text), or too many."""
    if len(transitions) > MAX_TRANSITIONS or sum(map(len, transitions)) > MAX_TENSORS:
        raise UsageError(
            f"a batch holds at most {MAX_TRANSITIONS} transitions and {MAX_TENSORS} tensors, found "
            f"{len(transitions)} and {sum(map(len, transitions))}",
            hint="send fewer transitions at a time",
        )
    message = pb.Transitions()
    for transition in transitions:
        row = message.transitions.add()
        for name, value in transition.items():
            if not _is_name(name):
                raise UsageError(f"transition[{name[:MAX_NAME]!r}]: a name has 1 to {MAX_NAME} printable characters")
            array = np.asarray(value)
            if array.dtype.name not in DTYPES or array.ndim > MAX_AXES or max(array.shape, default=0) > MAX_BATCH_BYTES:
                raise UsageError(f"transition[{name!r}]: {array.dtype}{list(array.shape)} cannot be sent")
            little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
            row.tensors.add(name=name, dtype=array.dtype.name, shape=array.shape, data=little.tobytes())
    return bytes(message.SerializeToString())


def decode_transitions(payload: bytes) -> tuple[dict[str, np.ndarray], ...]:
    """The transitions in ``payload``. Raises ValueError where bytes, shape and dtype contradict each other.

    Transitions and tensors are counted while the bytes are walked, before anything is made of them.
    """
    rows: list[dict[str, np.ndarray]] = []
    tensors = 0
    for row in _submessages(memoryview(payload)):
        if len(rows) == MAX_TRANSITIONS:
            raise ValueError(f"more than {MAX_TRANSITIONS} transitions in one batch")
        arrays: dict[str, np.ndarray] = {}
        for content in _submessages(row):
            tensors += 1
            if tensors > MAX_TENSORS:
                raise ValueError(f"more than {MAX_TENSORS} tensors in one batch")
            name, array = _tensor(content)
            if name in arrays:
                raise ValueError(f"{name[:MAX_NAME]!r} stands twice in one transition")
            arrays[name] = array
        rows.append(arrays)
    return tuple(rows)


def _submessages(message: memoryview) -> Iterator[memoryview]:
    """The submessages in field 1 of a protobuf message that has no other field."""
    at, end = 0, len(message)
    while at < end:
        if message[at] != 0x0A:
            raise ValueError("the payload is no Transitions message")
        at, length, shift = at + 1, 0, 0
        while True:
            if at == end or shift > 28:
                raise ValueError("the payload is no Transitions message: a length is cut off or too large")
            byte = message[at]
            length |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                break
        if length > end - at:
            raise ValueError(f"the payload is no Transitions message: {length} bytes announced, {end - at} there")
        yield message[at : at + length]
        at += length


def _tensor(content: memoryview) -> tuple[str, np.ndarray]:
    try:
        tensor = pb.Tensor.FromString(content)
    except DecodeError:
        raise ValueError("the payload is no Transitions message: a tensor cannot be parsed") from None
    name, dtype = str(tensor.name), str(tensor.dtype)
    where = repr(name[:MAX_NAME])
    if not _is_name(name):
        raise ValueError(f"{where} is no name of a tensor: it has 1 to {MAX_NAME} printable characters")
    if dtype not in DTYPES:
        raise ValueError(f"{where}: {dtype[:MAX_NAME]!r} is no element type of a tensor")
    if len(tensor.shape) > MAX_AXES:
        raise ValueError(f"{where}: {len(tensor.shape)} axes, at most {MAX_AXES} are allowed")
    shape, data = tuple(tensor.shape), tensor.data
    if max(shape, default=0) > MAX_BATCH_BYTES:
        raise ValueError(f"{where}: {dtype}{list(shape)} is too large for a batch")
    little = np.dtype(dtype).newbyteorder("<")
    if prod(shape) * little.itemsize != len(data):
        raise ValueError(f"{where}: {dtype}{list(shape)} is not {len(data)} bytes")
    if dtype == "bool" and data.strip(b"\0\1"):
        raise ValueError(f"{where}: a bool is a byte of 0 or 1")
    try:
        array: np.ndarray = np.frombuffer(data, little).astype(dtype).reshape(shape)
    except ValueError:  # no element, and more axes of this size than numpy can count
        raise ValueError(f"{where}: {dtype}{list(shape)} is too large for an array") from None
    return name, array


def batch_digest(actor_id: str, epoch: str, batch: Any) -> str:
    """xxh3-128, in hex, of all that a Batch says and of whose it is: a changed number would lose other batches."""
    said = (actor_id, epoch, batch.seq, batch.run_id, batch.counter, batch.learner_step, batch.refusals_heard)
    return _digest("\n".join(map(str, (*said, _digest(batch.payload)))).encode())


def answer_digest(epoch: str, answer: Any) -> str:
    """xxh3-128, in hex, of all that a FromLearner says and of the epoch that it answers to."""
    return _digest("\n".join(map(str, (epoch, answer.accepted_seq, answer.refused_seq, answer.refused))).encode())


def _digest(content: bytes) -> str:
    return tensor_digest(content, dtype="uint8", shape=(len(content),))


def check_actor_id(actor_id: str) -> None:
    """Raise ValueError for a name that would not fit on a line of a log."""
    if not _is_name(actor_id):
        raise ValueError(f"{actor_id[:MAX_NAME]!r} is no name of an actor: it has 1 to {MAX_NAME} printable characters")


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and text.isprintable()


def read_open(request: bytes | None) -> Any:
    """The first message of a stream as an Open. Raises Malformed for anything else."""
    if request is None:
        raise Malformed("the stream ended before its Open")
    opening = _message(request, "open", "the stream must begin with an Open")
    if opening.protocol == PROTOCOL:
        try:
            check_actor_id(opening.actor_id)
        except ValueError as error:
            raise Malformed(str(error)) from None
        if not _EPOCH.fullmatch(opening.epoch):
            raise Malformed("the epoch must be 1 to 64 letters, digits, '-' or '_'")
    return opening


def read_batch(request: bytes, actor_id: str, epoch: str) -> Any:
    """A later message as a Batch with the digest that it claims. Raises Malformed or Damaged."""
    batch = _message(request, "batch", "expected a Batch")
    if batch_digest(actor_id, epoch, batch) != batch.digest:
        raise Damaged("a batch was damaged on its way: it does not have its digest")
    if len(batch.payload) > MAX_BATCH_BYTES:
        raise Malformed(f"a batch of {len(batch.payload)} bytes, at most {MAX_BATCH_BYTES} are allowed")
    if not batch.seq:
        raise Malformed("a batch has no number: they begin at 1")
    if len(batch.run_id) > MAX_NAME:
        raise Malformed(f"the run_id of batch {batch.seq} has {len(batch.run_id)} characters, at most {MAX_NAME}")
    return batch


def _message(request: bytes, kind: str, otherwise: str) -> Any:
    try:
        message = pb.FromActor.FromString(request)
    except DecodeError:
        raise Malformed(f"{otherwise}; {len(request)} bytes came that cannot be parsed") from None
    if message.WhichOneof("message") != kind:
        raise Malformed(otherwise)
    return getattr(message, kind)
