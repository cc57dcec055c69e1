"""Numbers that change over a run."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*"
_LINEAR = re.compile(rf"linear\({_NUMBER},{_NUMBER},{_NUMBER}\)")


@dataclass(frozen=True, slots=True)
class Linear:
    """From ``start`` to ``end`` over ``duration`` steps, ``end`` from then on; ``duration`` 0 is constant."""

    start: float
    end: float
    duration: float

    def at(self, step: float) -> float:
        """The value at ``step``, counted from 0."""
        share = min(max(step / self.duration, 0.0), 1.0) if self.duration else 1.0
        return (1.0 - share) * self.start + share * self.end


def parse_schedule(text: str) -> Linear:
    """``"linear(1.0,0.1,50000)"`` or a plain number. Raises ValueError for anything else.

    Source: drqv2 `utils.schedule`.
    """
    found = _LINEAR.fullmatch(text.strip())
    if found:
        return _checked(*(float(number) for number in found.groups()))
    try:
        constant = float(text)
    except ValueError:
        raise ValueError(f"expected linear(START,END,STEPS) or a number, found {text!r}") from None
    return _checked(constant, constant, 0.0)


def _checked(start: float, end: float, duration: float) -> Linear:
    if not all(0.0 <= value < 1e18 for value in (start, end, duration)):
        raise ValueError(f"expected numbers of at least 0, found {start:g}, {end:g}, {duration:g}")
    return Linear(start, end, duration)
