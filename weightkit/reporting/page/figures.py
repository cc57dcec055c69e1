"""Small figures of the page as numbers for its template: a tensor's values, and differences of outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightkit.engine.statistics import Histogram

SPARK_HEIGHT = 22
_BAR = 4


@dataclass(frozen=True, slots=True)
class Spark:
    """A histogram as one path, with what it says in words; ``zero`` is where 0 lies, None outside."""

    path: str
    width: int
    zero: float | None
    low: str
    high: str
    odd: str


def number(value: float) -> str:
    """A number for people, three digits, with a real minus sign."""
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def spark(found: Histogram) -> Spark:
    """Bars as high as their bin is full, relative to the fullest; a bin that holds anything is seen."""
    fullest = max(found.counts, default=0)
    path = ""
    if fullest:
        path = f"M0 {SPARK_HEIGHT}"
        for count in found.counts:
            height = max(1, round(SPARK_HEIGHT * count / fullest)) if count else 0
            path += f"V{SPARK_HEIGHT - height}h{_BAR}"
        path += f"V{SPARK_HEIGHT}z"
    width = _BAR * len(found.counts)
    inside = found.low < 0 < found.high
    zero = round(width * (-found.low / 2) / (found.high / 2 - found.low / 2), 1) if inside else None
    odd = ", ".join(f"{count:,} {what}" for count, what in ((found.nan, "NaN"), (found.inf, "infinite")) if count)
    return Spark(path, width, zero, number(found.low), number(found.high), odd)


@dataclass(frozen=True, slots=True)
class Mark:
    """One difference on the strip: where, how it is called, and whether it may not be larger than the tolerance."""

    label: str
    text: str
    x: float
    control: bool
    within: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """Differences of outputs on a logarithmic axis from ``first`` to ``last``, left of which 0 stands."""

    width: int
    marks: tuple[Mark, ...]
    first: str
    last: str
    limit: float


def strip(check: Mapping[str, Any], width: int) -> Strip:
    """The largest difference of every output, largest first, then of the controls, which should differ."""
    outputs = _finite(check.get("outputs"))
    controls = _finite(check.get("controls"))
    atol = check.get("atol")
    atol = float(atol) if isinstance(atol, (int, float)) and 0 < atol < math.inf else 1e-5
    seen = [value for value in (*outputs.values(), *controls.values(), atol) if 0 < value < math.inf]
    first = math.floor(math.log10(min(seen))) - 1
    last = math.ceil(math.log10(max(seen))) + 1
    zero, left, right = 16.0, 48.0, width - 16.0

    def place(value: float) -> float:
        if value == 0:
            return zero
        if not value < math.inf:
            return right
        return round(left + (right - left) * (math.log10(value) - first) / (last - first), 1)

    marks = [Mark(name, number(value), place(value), False, value <= atol) for name, value in outputs.items()]
    marks += [Mark(name, number(value), place(value), True, value > atol) for name, value in controls.items()]
    marks.sort(key=lambda mark: (mark.control, -mark.x, mark.label))
    return Strip(width, tuple(marks), f"1e{first}", f"1e{last}", place(atol))


def _finite(values: object) -> dict[str, float]:
    """The numbers among them, NaN as infinite: it must not look small."""
    found: dict[str, float] = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, (int, float)):
            found[str(name)] = math.inf if math.isnan(value) else abs(float(value))
    return found
