"""Named sets of tensors that travel together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Transfer(str, Enum):
    """What happens to a group at every push.

    SEND: it travels. PIN: it never travels, but its digest must agree at the handshake. HOLD: it stays on the learner.
    """

    SEND = "send"
    PIN = "pin"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Group:
    """A named set of tensors with its transfer, and why that transfer was chosen."""

    name: str
    transfer: Transfer
    why: str = ""
