"""What an actor has produced and what became of it: the batches that wait, and the balance of all transitions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Reason = Literal["full", "refused", "closed"]


@dataclass(frozen=True, slots=True)
class ExperienceCounts:
    """Transitions by fate; always ``produced == accepted + pending + dropped``.

    ``pending`` are those whose fate is open. ``dropped_by`` says why others were given up: ``"full"`` (thrown away to
    make room, before the learner had them), ``"refused"`` (the learner never takes them), ``"closed"`` (the sender was
    closed before they had gone out). After ``close``, ``pending`` are those that had gone out and were not answered:
    the learner may have them or not.
    """

    produced: int
    accepted: int
    pending: int
    dropped_by: Mapping[str, int] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """Transitions that were given up, whatever the reason."""
        return sum(self.dropped_by.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "produced": self.produced,
            "accepted": self.accepted,
            "pending": self.pending,
            "dropped": self.dropped,
            "dropped_by": dict(self.dropped_by),
        }


@dataclass(slots=True)
class Pending:
    """A batch that the learner has not answered; ``sent``: it may have arrived."""

    seq: int
    count: int
    size_bytes: int
    message: Any
    sent: bool = False


@dataclass(slots=True)
class Attempt:
    """One connection's progress: the newest number that it carried, and how often the learner has refused on it.

    ``heard_at``: when the learner last answered, or was last asked while nothing was owed, in seconds.
    """

    opened: bool = False
    sent_seq: int = 0
    refusals: int = 0
    over: bool = False
    heard_at: float = 0.0


class Ledger:
    """The batches of one run of an actor by fate. Knows nothing of threads: its owner holds a lock.

    The batches that wait have numbers without a gap, and those that have gone out stand in front of the others: a
    batch leaves as the oldest, or when all is over as the newest.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._waiting: deque[Pending] = deque()
        self._seq = 0
        self._highest_sent = 0
        self._produced = self._accepted = 0
        self._dropped: Counter[Reason] = Counter()
        self._unsure: list[tuple[int, int]] = []  # seq and count of what was thrown away and may have arrived

    def __len__(self) -> int:
        """Batches that wait."""
        return len(self._waiting)

    @property
    def next_seq(self) -> int:
        """The number of the next batch."""
        return self._seq + 1

    def add(self, message: Any, *, count: int, size_bytes: int) -> None:
        """A new batch of ``count`` transitions, with the number ``next_seq``."""
        self._seq += 1
        self._waiting.append(Pending(self._seq, count, size_bytes, message))
        self.size_bytes += size_bytes
        self._produced += count

    def drop_oldest(self) -> None:
        """Throw the oldest batch away to make room."""
        oldest = self._pop_oldest()
        if oldest.sent:
            self._unsure.append((oldest.seq, oldest.count))
        else:
            self._dropped["full"] += oldest.count

    def next_for(self, attempt: Attempt) -> Pending | None:
        """The oldest batch that this connection has not carried; None before the learner said what it has."""
        if not attempt.opened or not self._waiting or self._waiting[-1].seq <= attempt.sent_seq:
            return None
        return self._waiting[max(0, attempt.sent_seq + 1 - self._waiting[0].seq)]

    def goes_out(self, pending: Pending, attempt: Attempt) -> None:
        """The batch is on its way."""
        pending.sent = True
        attempt.sent_seq = pending.seq
        self._highest_sent = max(self._highest_sent, pending.seq)

    def accepted_up_to(self, seq: int, attempt: Attempt) -> None:
        """The learner has accepted batches up to ``seq``; the first word of a connection, and each acknowledgement.

        Raises ValueError for a number that was never sent.
        """
        self._check_sent(seq)
        # batches arrive in order, so everything that was sent up to ``seq`` has arrived
        while self._waiting and self._waiting[0].seq <= seq:
            self._accepted += self._pop_oldest().count
        self._accepted += sum(count for unsure_seq, count in self._unsure if unsure_seq <= seq)
        self._unsure = [item for item in self._unsure if item[0] > seq]
        if not attempt.opened:  # a new connection: what the last one carried beyond ``seq`` is lost and must go again
            attempt.opened = True
            self._go_back(0, attempt)

    def refused(self, seq: int, attempt: Attempt) -> int:
        """The learner never takes batch ``seq``; how many transitions it held.

        What went out after it must go again: the learner ignores it until it sees that its refusal was heard. Raises
        ValueError where an older batch has no answer yet.
        """
        self._check_sent(seq)
        if self._waiting and self._waiting[0].seq < seq:
            raise ValueError(f"the learner refused batch {seq} and said nothing of batch {self._waiting[0].seq}")
        count = sum(count for unsure_seq, count in self._unsure if unsure_seq == seq)
        self._unsure = [item for item in self._unsure if item[0] != seq]
        if self._waiting and self._waiting[0].seq == seq:
            count += self._pop_oldest().count
        self._dropped["refused"] += count
        attempt.refusals += 1
        self._go_back(seq, attempt)
        return count

    def close(self) -> None:
        """What has not gone out never will."""
        while self._waiting and not self._waiting[-1].sent:
            newest = self._waiting.pop()
            self.size_bytes -= newest.size_bytes
            self._dropped["closed"] += newest.count

    def counts(self) -> ExperienceCounts:
        """Transitions by fate so far."""
        pending = sum(batch.count for batch in self._waiting) + sum(count for _, count in self._unsure)
        dropped = {str(reason): count for reason, count in self._dropped.items() if count}
        return ExperienceCounts(self._produced, self._accepted, pending, dropped)

    def _go_back(self, seq: int, attempt: Attempt) -> None:
        """Everything after ``seq`` must go again, and what was thrown away after it has certainly not arrived."""
        attempt.sent_seq = seq
        self._dropped["full"] += sum(count for _, count in self._unsure)
        self._unsure = []
        for batch in self._waiting:
            batch.sent = False

    def _check_sent(self, seq: int) -> None:
        if seq > self._highest_sent:
            raise ValueError(f"the learner answered to batch {seq}, the newest that was sent is {self._highest_sent}")

    def _pop_oldest(self) -> Pending:
        oldest = self._waiting.popleft()
        self.size_bytes -= oldest.size_bytes
        return oldest
