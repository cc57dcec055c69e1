"""Transitions from actors to the learner, over the address that serves the weights: none lost, none twice.

An actor numbers its batches and keeps each until the learner acknowledges it; after a lost connection it sends again
what was not acknowledged, and the learner ignores what it has. The learner acknowledges what stands in its journal.
Tensors travel as dtype, shape and bytes: no pickle.
"""

from weightkit_runners.experience.epochs import REMEMBERED_EPOCHS
from weightkit_runners.experience.ledger import ExperienceCounts
from weightkit_runners.experience.messages import (
    AcceptedBatch,
    AcceptedEpoch,
    BatchRefused,
    ExperienceBatch,
    SinkClosed,
    Transition,
    decode_transitions,
    encode_transitions,
)
from weightkit_runners.experience.receiver import ExperienceReceiver
from weightkit_runners.experience.sender import ExperienceSender, WhenFull

__all__ = [
    "REMEMBERED_EPOCHS",
    "AcceptedBatch",
    "AcceptedEpoch",
    "BatchRefused",
    "ExperienceBatch",
    "ExperienceCounts",
    "ExperienceReceiver",
    "ExperienceSender",
    "SinkClosed",
    "Transition",
    "WhenFull",
    "decode_transitions",
    "encode_transitions",
]
