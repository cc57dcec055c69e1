"""The actor's end of the experience stream: it keeps what the learner has not acknowledged, and sends it again."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import grpc  # type: ignore[import-untyped, unused-ignore]

import weightkit.transports.grpc as transport
from weightkit.core.text import printable
from weightkit.core.version import WeightVersion
from weightkit.errors import Disconnected, TransportError, TransportTimeout, UsageError, WeightkitError
from weightkit.transports.base import OPEN, Access, Backoff
from weightkit_runners.experience.ledger import Attempt, ExperienceCounts, Ledger
from weightkit_runners.experience.messages import (
    MAX_BATCH_BYTES,
    METHOD,
    PROTOCOL,
    SERVICE,
    Transition,
    answer_digest,
    batch_digest,
    check_actor_id,
    encode_transitions,
)
from weightkit_runners.wire.v1 import experience_pb2 as pb

logger = logging.getLogger(__name__)

ANSWER_S = 10.0  # an answer can be lost on a connection that is well otherwise; a learner that is busy sorts it out
LOOK_EVERY_S = 1.0
SAID_REASONS = 16

WhenFull = Literal["block", "drop_oldest"]


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
        access: Access = OPEN,
        backoff: Backoff | None = None,
    ) -> None:
        try:
            check_actor_id(actor_id)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self.address = address
        self.actor_id = actor_id
        self.epoch = uuid.uuid4().hex
        self._capacity_bytes = capacity_bytes
        self._when_full = when_full
        self._block_timeout_s = block_timeout_s
        self._access = access
        self._backoff = backoff or Backoff()
        self._changed = threading.Condition()
        self._ledger = Ledger()
        self._said: set[str] = set()
        self._stopping = False
        self._call: Any = None
        self._trouble = "no answer yet"
        self._open_channel().close()  # refuses an address here rather than in the thread
        self._thread = threading.Thread(target=self._run, name=f"weightkit-experience-{actor_id}", daemon=True)
        self._thread.start()

    def send(self, transitions: Sequence[Transition], version: WeightVersion) -> int:
        """Hand a batch over for delivery; its sequence number. The arrays are copied.

        Raises UsageError for a batch that could never be sent, TransportTimeout where the buffer stays full,
        Disconnected after ``close``.
        """
        payload = encode_transitions(transitions)
        if len(payload) > min(MAX_BATCH_BYTES, self._capacity_bytes):
            raise UsageError(
                f"a batch of {len(payload)} bytes is too large: at most {min(MAX_BATCH_BYTES, self._capacity_bytes)}",
                hint="send fewer transitions at a time, or raise capacity_bytes",
            )
        with self._changed:
            self._make_room(len(payload))
            batch = pb.Batch(
                seq=self._ledger.next_seq,
                run_id=version.run_id,
                counter=version.counter,
                learner_step=version.learner_step,
                payload=payload,
            )
            self._ledger.add(pb.FromActor(batch=batch), count=len(transitions), size_bytes=len(payload))
            self._changed.notify_all()
            return int(batch.seq)

    def _make_room(self, size_bytes: int) -> None:
        def fits() -> bool:
            return self._ledger.size_bytes + size_bytes <= self._capacity_bytes

        if self._when_full == "block" and not self._changed.wait_for(
            lambda: fits() or self._stopping, timeout=self._block_timeout_s
        ):
            raise TransportTimeout(
                f"{self.address}: {self._ledger.size_bytes} bytes of transitions wait for the learner, and none was "
                f"taken for {self._block_timeout_s:g} s: {self._trouble}"
            )
        if self._stopping:
            raise Disconnected(f"{self.address}: the sender is closed")
        while not fits():
            self._ledger.drop_oldest()

    def counts(self) -> ExperienceCounts:
        """Transitions by fate so far."""
        with self._changed:
            return self._ledger.counts()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged or refused; whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not len(self._ledger), timeout=timeout_s)

    def close(self, *, drain_timeout_s: float = 0.0) -> ExperienceCounts:
        """Deliver for at most ``drain_timeout_s`` more, then stop.

        What had not gone out is dropped as ``"closed"``; what had, and was not answered, stays ``pending`` in the
        counts. Neither is kept.
        """
        if drain_timeout_s > 0:
            self.flush(drain_timeout_s)
        with self._changed:
            self._stopping = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        self._thread.join()
        with self._changed:
            self._ledger.close()
            return self._ledger.counts()

    # ---- the background thread

    def _open_channel(self) -> Any:
        return transport.open_channel(self.address, access=self._access)

    def _run(self) -> None:
        while True:
            try:
                self._stream()
            except WeightkitError as error:
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
        channel = self._open_channel()
        attempt = Attempt(heard_at=time.monotonic())
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
                self._answered(reply, attempt)
        except grpc.RpcError as error:
            raise transport.error_of(error, self.address, self._access) from None
        finally:
            with self._changed:
                self._call = None
                attempt.over = True
                self._changed.notify_all()
            channel.close()

    def _requests(self, attempt: Attempt) -> Iterator[Any]:
        yield pb.FromActor(open=pb.Open(protocol=PROTOCOL, actor_id=self.actor_id, epoch=self.epoch))
        while True:
            with self._changed:
                while not (attempt.over or self._stopping or self._ledger.next_for(attempt) is not None):
                    self._changed.wait(timeout=LOOK_EVERY_S)
                    if self._owed(attempt) and time.monotonic() - attempt.heard_at > ANSWER_S and self._call:
                        logger.info("%s: nothing was answered for %g s: connecting anew", self.address, ANSWER_S)
                        self._call.cancel()
                        return
                if not self._owed(attempt):
                    attempt.heard_at = time.monotonic()
                pending = self._ledger.next_for(attempt)
                if attempt.over or self._stopping or pending is None:
                    return
                batch = pending.message.batch
                batch.refusals_heard = attempt.refusals
                self._ledger.goes_out(pending, attempt)
            batch.digest = batch_digest(self.actor_id, self.epoch, batch)
            yield pending.message

    def _owed(self, attempt: Attempt) -> bool:
        """Whether the learner has yet to answer: that it has opened, or that it has what was sent."""
        return not attempt.opened or (attempt.sent_seq > 0 and len(self._ledger) > 0)

    def _answered(self, reply: Any, attempt: Attempt) -> None:
        if reply.refused and not reply.refused_seq:
            raise TransportError(f"{self.address}: the learner refused transitions: {printable(reply.refused)}")
        if reply.digest != answer_digest(self.epoch, reply):
            raise TransportError(f"{self.address}: the learner's answer was damaged on its way")
        count = 0
        with self._changed:
            attempt.heard_at = time.monotonic()
            if attempt.opened or not len(self._ledger):  # a learner that opens and fails at each batch is left alone
                self._backoff.reset()
            try:
                self._ledger.accepted_up_to(int(reply.accepted_seq), attempt)
                if reply.refused_seq:
                    count = self._ledger.refused(int(reply.refused_seq), attempt)
            except ValueError as error:
                raise TransportError(f"{self.address}: {error}") from None
            self._changed.notify_all()
        why = printable(reply.refused)
        if reply.refused_seq and why not in self._said and len(self._said) < SAID_REASONS:
            self._said.add(why)
            logger.warning(
                "%s: the learner refused a batch of %d transitions for good: %s (the actor goes on; more of them are "
                "counted only)",
                self.address, count, why,
            )  # fmt: skip
