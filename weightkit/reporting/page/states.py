"""What can become of a tensor in a conversion, worst first: a word, a sign and a weight for each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Weight(IntEnum):
    """How bad it is; the page shows it as a colour, a sign and a word, never as a colour alone."""

    LOST = 0
    CHANGED = 1
    KEPT = 2

    @property
    def css(self) -> str:
        """The class that carries the colour."""
        return self.name.lower()

    @property
    def sign(self) -> str:
        """The sign's identifier on the page."""
        return ("cross", "diamond", "tick")[self]


@dataclass(frozen=True, slots=True)
class State:
    """One fate of a tensor. ``sign`` is a drawing of the page, ``meaning`` stands in its legend."""

    key: str
    word: str
    weight: Weight
    sign: str
    meaning: str


STATES = (
    State("refused", "refused", Weight.LOST, "cross", "no place, no source, or a shape that does not fit"),
    State("left_out", "left out", Weight.LOST, "gap", "a target tensor that is not in the output, as asked"),
    State("lossy", "lossy", Weight.CHANGED, "wave", "made by a step that loses information"),
    State("initialised", "initialised", Weight.CHANGED, "ring", "not from the source: given initial values"),
    State("adapted", "adapted", Weight.CHANGED, "diamond", "reshaped by an adapter, or by an op that adds entries"),
    State("dropped", "dropped", Weight.CHANGED, "minus", "a source tensor that is not carried over, with its reason"),
    State("not_finite", "not finite", Weight.CHANGED, "wave", "carried over, and holds NaN or infinite values"),
    State("rearranged", "rearranged", Weight.KEPT, "swap", "the same numbers in another order or shape"),
    State("renamed", "renamed", Weight.KEPT, "tick", "bit for bit, under another name"),
    State("kept", "same name", Weight.KEPT, "tick", "bit for bit, under its own name"),
    State("repeated", "repeated", Weight.KEPT, "equal", "holds what another target tensor holds"),
    State("second_name", "second name", Weight.KEPT, "equal", "a second name of a source tensor, carried over once"),
)
STATE = {state.key: state for state in STATES}
RANK = {state.key: rank for rank, state in enumerate(STATES)}
