"""What the records of a journal say: batches, and how far each actor's run was accepted before them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from weightkit.core.version import WeightVersion
from weightkit_runners.experience.messages import AcceptedBatch, AcceptedEpoch
from weightkit_runners.wire.v1 import experience_pb2 as pb


@dataclass(frozen=True, slots=True)
class Header:
    """The beginning of a segment: what was accepted before it."""

    epochs: dict[tuple[str, str], AcceptedEpoch]
    transitions: int


@dataclass(slots=True)
class Accepted:
    """The accepted numbers by actor and epoch, and all accepted transitions, as the records say one after the other."""

    epochs: dict[tuple[str, str], AcceptedEpoch] = field(default_factory=dict)
    transitions: int = 0

    def add(self, batch: AcceptedBatch) -> bool:
        """Whether the batch is news."""
        key = (batch.actor_id, batch.epoch)
        known = self.epochs.pop(key, AcceptedEpoch(0, 0))
        news = batch.seq > known.seq
        self.epochs[key] = AcceptedEpoch(batch.seq, known.transitions + batch.count) if news else known
        self.transitions += batch.count if news else 0
        return news

    def add_header(self, header: Header) -> None:
        """Learn what a segment begins with."""
        for key, said in header.epochs.items():
            if said.seq > self.epochs.get(key, AcceptedEpoch(0, 0)).seq:
                self.epochs[key] = said
        self.transitions = max(self.transitions, header.transitions)


def header_body(accepted: Accepted) -> bytes:
    """The record that a new segment begins with."""
    rows = [
        pb.AcceptedEpoch(actor_id=actor_id, epoch=epoch, seq=known.seq, transitions=known.transitions)
        for (actor_id, epoch), known in accepted.epochs.items()
    ]
    header = pb.JournalHeader(epochs=rows, transitions=accepted.transitions)
    return bytes(pb.JournalRecord(header=header).SerializeToString())


def batch_body(batch: AcceptedBatch) -> bytes:
    """The record of a batch."""
    message = pb.Batch(
        seq=batch.seq,
        run_id=batch.version.run_id,
        counter=batch.version.counter,
        learner_step=batch.version.learner_step,
        payload=batch.payload,
    )
    kept = pb.JournalBatch(actor_id=batch.actor_id, epoch=batch.epoch, transitions=batch.count, batch=message)
    return bytes(pb.JournalRecord(batch=kept).SerializeToString())


def read_body(body: bytes) -> Header | AcceptedBatch | None:
    """What a verified record says; None for a kind that this version does not know."""
    try:
        record: Any = pb.JournalRecord.FromString(body)
    except DecodeError:
        return None
    kind = record.WhichOneof("record")
    if kind == "header":
        rows = record.header.epochs
        return Header(
            {(str(row.actor_id), str(row.epoch)): AcceptedEpoch(int(row.seq), int(row.transitions)) for row in rows},
            int(record.header.transitions),
        )
    if kind != "batch":
        return None
    kept, batch = record.batch, record.batch.batch
    version = WeightVersion(str(batch.run_id), int(batch.counter), int(batch.learner_step))
    return AcceptedBatch(
        str(kept.actor_id), str(kept.epoch), int(batch.seq), version, bytes(batch.payload), int(kept.transitions)
    )
