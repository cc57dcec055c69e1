"""The learner's end of the experience stream: accepts each batch once, durably, and remembers what it accepted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped, unused-ignore]

from weightkit.core.text import printable
from weightkit.core.version import WeightVersion
from weightkit.errors import WriteError
from weightkit.transports.base import Service
from weightkit_runners.experience.epochs import Epoch, Epochs, TooManyActors
from weightkit_runners.experience.journal import ExperienceJournal
from weightkit_runners.experience.messages import (
    METHOD,
    PROTOCOL,
    SERVICE,
    AcceptedBatch,
    AcceptedEpoch,
    BatchRefused,
    Damaged,
    ExperienceBatch,
    Malformed,
    SinkClosed,
    answer_digest,
    decode_transitions,
    read_batch,
    read_open,
)
from weightkit_runners.wire.v1 import experience_pb2 as pb

logger = logging.getLogger(__name__)

SAID_REASONS = 64
MAX_DETAILS = 500
LOOK_AT_CALL_EVERY_S = 0.2

Sink = Callable[[ExperienceBatch], object]


class _TakenOver(Exception):
    """A newer connection of the same run of the same actor is there."""


class _Gone(Exception):
    """The actor went while its call waited."""


class _NotKept(Exception):
    """The journal could not take a batch."""


class ExperienceReceiver:
    """The learner's end: hand ``service`` to a Publisher. ``sink`` gets every accepted batch exactly once.

    ``check`` looks at a batch first and raises BatchRefused for one that will never be taken. With a ``journal`` a
    batch is accepted when it stands there, and goes to ``sink`` afterwards; where ``sink`` raises then, the batch is
    held for it and handed over again when its actor reconnects. Without one, it is accepted when ``sink`` returns,
    which may raise BatchRefused too. A ``sink`` that waits holds that actor back, no other. What is not accepted is not
    acknowledged: the actor sends it again. ``accepted`` restores what ``state()`` gave.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        check: Sink | None = None,
        journal: ExperienceJournal | None = None,
        accepted: Mapping[str, int] | None = None,
    ) -> None:
        self._sink = sink
        self._check = check
        self._journal = journal
        self._lock = threading.Lock()
        known = {_key(name): AcceptedEpoch(seq, 0) for name, seq in (accepted or {}).items()}
        if journal is not None:
            known |= journal.accepted()
        self._epochs = Epochs(known, forgotten=self._forget)
        self._accepted = journal.transitions if journal else 0
        self._duplicates = self._refused = self._malformed = 0
        self._said: set[str] = set()
        self._journal_trouble = ""

    @property
    def service(self) -> Service:
        """Adds the stream to a gRPC server."""

        def install(server: Any) -> None:
            method = grpc.stream_stream_rpc_method_handler(
                self._exchange,
                request_deserializer=None,  # gRPC would log a traceback for bytes that do not parse
                response_serializer=lambda message: message.SerializeToString(),
            )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))

        return install

    def state(self) -> dict[str, int]:
        """The highest accepted number by ``actor/epoch``: what a checkpoint holds beside a buffer without a journal."""
        return self._epochs.state()

    def status(self) -> dict[str, Any]:
        """Transitions ``accepted``, ``duplicates`` (known, ignored) and ``refused``, calls that were ``malformed``.

        ``accepted`` counts from the beginning of the journal. ``actors``: by name, ``connected``, the highest accepted
        number of its newest run (``seq``), and its transitions as above, in all runs that are remembered.
        """
        with self._lock:
            return {
                "accepted": self._accepted,
                "duplicates": self._duplicates,
                "refused": self._refused,
                "malformed": self._malformed,
                "actors": self._epochs.by_actor(),
            }

    def _forget(self, key: tuple[str, str]) -> None:
        if self._journal is not None:
            self._journal.forget(*key)

    # ---- one stream

    def _exchange(self, requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        def end(code: grpc.StatusCode, why: object) -> NoReturn:
            context.abort(code, str(why)[:MAX_DETAILS])
            raise AssertionError("abort raises")

        try:
            yield from self._answers(requests, context)
        except (Malformed, Damaged) as error:
            self._count_malformed(context.peer(), error)
            damaged = isinstance(error, Damaged)
            end(grpc.StatusCode.DATA_LOSS if damaged else grpc.StatusCode.INVALID_ARGUMENT, error)
        except SinkClosed as closed:
            end(grpc.StatusCode.UNAVAILABLE, closed)
        except _NotKept as trouble:
            end(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the learner cannot keep transitions: {trouble}")
        except TooManyActors as error:
            end(grpc.StatusCode.RESOURCE_EXHAUSTED, error)
        except _TakenOver as error:
            end(grpc.StatusCode.ABORTED, error)
        except _Gone:
            return

    def _answers(self, requests: Iterator[bytes], context: Any) -> Iterator[Any]:
        opening = read_open(next(requests, None))
        if opening.protocol != PROTOCOL:
            yield pb.FromLearner(
                refused=f"the learner speaks protocol {PROTOCOL} of the experience stream, the actor {opening.protocol}"
            )
            return
        actor_id, name = str(opening.actor_id), str(opening.epoch)
        with self._epochs.connected((actor_id, name)) as epoch:
            generation = self._open(epoch, context)
            yield _answer(name, accepted_seq=epoch.seq)
            refusals = 0
            for request in requests:
                message = read_batch(request, actor_id, name)
                if message.refusals_heard > refusals:
                    raise Malformed(f"batch {message.seq} answers to a refusal that was not said")
                if message.refusals_heard < refusals:
                    continue
                try:
                    seq = self._accept(*_read(actor_id, name, message), epoch, generation)
                except BatchRefused as refusal:
                    refusals += 1
                    why = str(refusal)[:MAX_DETAILS] or "no reason was given"
                    yield _answer(name, accepted_seq=epoch.seq, refused=why, refused_seq=message.seq)
                else:
                    yield _answer(name, accepted_seq=seq)

    def _open(self, epoch: Epoch, context: Any) -> int:
        """Start a new connection, which ends what older ones may accept: its generation."""
        while not epoch.lock.acquire(timeout=LOOK_AT_CALL_EVERY_S):  # an older connection's batch waits for the sink
            if not context.is_active():
                raise _Gone
        try:
            self._hand_over(epoch)
            epoch.generation += 1
            return epoch.generation
        finally:
            epoch.lock.release()

    def _accept(self, came: AcceptedBatch, batch: ExperienceBatch, epoch: Epoch, generation: int) -> int:
        """The highest accepted number afterwards. Raises BatchRefused, SinkClosed, and what ends the stream."""
        with epoch.lock:
            if generation != epoch.generation:
                raise _TakenOver("a newer connection of this actor has taken over")
            if came.seq <= epoch.seq:
                with self._lock:
                    self._duplicates += came.count
                    epoch.duplicates += came.count
                return epoch.seq
            try:
                if self._check is not None:
                    self._check(batch)
                if self._journal is None:
                    self._sink(batch)
            except BatchRefused as refusal:
                self._count_refused(came, epoch, str(refusal))
                raise
            if self._journal is not None:
                self._keep(came)
                epoch.held = batch
            with self._lock:
                epoch.seq = batch.seq
                epoch.accepted += came.count
                self._accepted += came.count
            self._hand_over(epoch)
            return epoch.seq

    def _hand_over(self, epoch: Epoch) -> None:
        """Give the sink what stands in the journal and it has not had."""
        if epoch.held is None:
            return
        try:
            self._sink(epoch.held)
        except BatchRefused as refusal:
            raise RuntimeError("a batch that stands in the journal was refused: refuse it in check") from refusal
        epoch.held = None

    def _keep(self, batch: AcceptedBatch) -> None:
        assert self._journal is not None
        try:
            self._journal.append(batch)
        except WriteError as error:
            if error.message != self._journal_trouble:
                logger.warning(
                    "transitions cannot be kept, so none is accepted: %s. Actors keep theirs and try again.",
                    error.message,
                )
            self._journal_trouble = error.message
            raise _NotKept(error.message) from None
        if self._journal_trouble:
            logger.warning("transitions are kept again")
            self._journal_trouble = ""

    def _count_refused(self, batch: AcceptedBatch, epoch: Epoch, why: str) -> None:
        with self._lock:
            if batch.seq > epoch.refused_seq:  # else it came again, because the actor had not heard of its refusal
                epoch.refused_seq = batch.seq
                epoch.refused += batch.count
                self._refused += batch.count
            said = f"{batch.actor_id}: {why}"
            if said in self._said or len(self._said) >= SAID_REASONS:
                return
            self._said.add(said)
        logger.warning("refused %d transitions of %s: %s", batch.count, batch.actor_id, printable(why))

    def _count_malformed(self, peer: str, error: Exception) -> None:
        with self._lock:
            self._malformed += 1
            count = self._malformed
        if count & (count - 1) == 0:  # 1, 2, 4, 8, ...: whoever sends rubbish does not fill the log
            logger.warning("malformed request %d, from %s: %s", count, peer, error)


def _answer(epoch: str, **said: Any) -> Any:
    answer = pb.FromLearner(**said)
    answer.digest = answer_digest(epoch, answer)
    return answer


def _key(name: str) -> tuple[str, str]:
    actor_id, _, epoch = name.rpartition("/")
    return actor_id, epoch


def _read(actor_id: str, epoch: str, message: Any) -> tuple[AcceptedBatch, ExperienceBatch]:
    """A Batch message as it came, and decoded. Raises Malformed."""
    version = WeightVersion(str(message.run_id), int(message.counter), int(message.learner_step))
    payload = bytes(message.payload)
    try:
        transitions = decode_transitions(payload)
    except ValueError as error:
        raise Malformed(f"batch {message.seq}: {error}") from None
    came = AcceptedBatch(actor_id, epoch, int(message.seq), version, payload, len(transitions))
    return came, ExperienceBatch(actor_id, came.seq, version, transitions)
