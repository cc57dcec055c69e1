"""The mapping as ribbons from source to target: what was lost at the top, then what was changed, then what was kept."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from weightkit.core.text import printable
from weightkit.reporting.page.account import Entry
from weightkit.reporting.page.families import family_name, gathered
from weightkit.reporting.page.states import State, Weight

_WIDE_FAMILIES = {Weight.LOST: 16, Weight.CHANGED: 16, Weight.KEPT: 28}
_NARROW_FAMILIES = {Weight.LOST: 10, Weight.CHANGED: 10, Weight.KEPT: 12}
_CHARACTER = 0.602
"""Width of a character of the common monospaced fonts, in font sizes."""
_SANS = 0.56
"""The mean width of a character of the other fonts, above that of most."""
_MOST_PARTS = 6
_REACH = 0.28
"""How far a ribbon goes that has only one end, of the way to the other."""
_HEADINGS = {
    Weight.LOST: "Refused or left out",
    Weight.CHANGED: "Changed on the way, or not carried over",
    Weight.KEPT: "Carried over as they were",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A line of text; ``count`` stands behind it."""

    x: float
    y: float
    text: str
    kind: str
    count: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """A filled path (``kind`` ribbon or end) of one state."""

    path: str
    kind: str
    state: State


@dataclass(frozen=True, slots=True)
class Bundle:
    """One family: its shapes and texts, and a sentence for whoever points at it."""

    shapes: tuple[Shape, ...]
    texts: tuple[Text, ...]
    state: State
    said: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """All bundles, headings, and the size in pixels."""

    width: int
    height: int
    bundles: tuple[Bundle, ...]
    headings: tuple[tuple[Text, State], ...]


@dataclass(frozen=True, slots=True)
class _Format:
    """Where things stand: names beside the ribbons, or, where there is no room for that, above and below them."""

    width: int
    left: int
    right: int
    font: int
    families: dict[Weight, int]

    @property
    def beside(self) -> bool:
        return self.left > 0

    @property
    def columns(self) -> int:
        """Characters that a name may take."""
        room = min(self.left, self.width - self.right) - 12 if self.beside else self.width
        return int(room / (self.font * _CHARACTER))


WIDE = _Format(1120, 430, 690, 12, _WIDE_FAMILIES)
NARROW = _Format(352, 0, 352, 11, _NARROW_FAMILIES)


def draw(entries: Sequence[Entry], form: _Format) -> Drawing:
    """One ribbon a family. Its ends are as high as the logarithm of the elements, so that a bias is still seen."""
    bundles: list[Bundle] = []
    headings: list[tuple[Text, State]] = []
    y = 0.0
    for weight in Weight:
        band = [entry for entry in entries if entry.state.weight is weight]
        if not band:
            continue
        words = f"{_HEADINGS[weight]}: {len(band):,}"
        headings.append((Text(18, y + 22, words, "heading"), band[0].state))
        y += 36
        group = None
        for family in gathered(band, form.families[weight]):
            y += 0 if group in (None, family[0].group) else 8
            group = family[0].group
            bundle, height = _bundle(family, y, form)
            bundles.append(bundle)
            y += height
        y += 14
    return Drawing(form.width, math.ceil(y), tuple(bundles), tuple(headings))


def thickness(numel: int) -> float:
    """The height of a ribbon's end: 2 px for one number, 3 more for every factor of ten."""
    return round(2 + 3 * math.log10(max(1, numel)), 1)


def shortened(name: str, columns: int) -> str:
    """``name`` fit for the page, its middle left out where it takes more than ``columns`` of a monospaced font."""
    text = printable(name, longest=4 * columns)
    if _columns(text) <= columns:
        return text
    head, tail = columns // 3, columns - columns // 3 - 1
    return _cut(text, head) + "…" + _cut(text[::-1], tail)[::-1]


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _cut(text: str, columns: int) -> str:
    kept = ""
    for char in text:
        if _columns(kept + char) > columns:
            break
        kept += char
    return kept


def _bundle(family: Sequence[Entry], y: float, form: _Format) -> tuple[Bundle, float]:
    """The family as drawn from ``y`` on, and how much height it takes."""
    first = family[0]
    sides = _sources(family)
    target = family_name([entry.name for entry in family]) if first.target is not None else None
    numel = sum(entry.numel for entry in family)
    end = thickness(numel)
    ends = [thickness(size) for _, size in sides]
    line = form.font + 6
    pitch = [max(height, line) if form.beside else height + 2 for height in ends]
    inner = max(sum(pitch), end, line if form.beside else 14)
    above = 0 if form.beside else max(4, line * len(sides))
    under = 0 if form.beside else line if target is not None else 4
    height = above + inner + under
    middle = y + above + inner / 2
    shapes: list[Shape] = []
    texts: list[Text] = []
    goal = middle - end / 2
    at = middle - sum(pitch) / 2
    for place, ((name, _), size, step) in enumerate(zip(sides, ends, pitch, strict=True)):
        start = at + (step - size) / 2
        shapes += _ribbon(first, start, size, goal + end * place / len(sides), end / len(sides), form)
        where = start + size / 2 + 4 if form.beside else y + line * (place + 1) - 5
        texts.append(_label(name, len(family) if place == 0 else 1, where, form, "source"))
        at += step
    if target is not None:
        if not sides:
            shapes += _ribbon(first, goal, end, goal, end, form)
        where = middle + 4 if form.beside else y + height - 4
        texts.append(_label(target, len(family), where, form, "target"))
    if first.state.weight is not Weight.KEPT or not sides or target is None:
        texts.append(_word(first, middle + 4, form))
    names = ", ".join(name for name, _ in sides) or "nothing"
    becomes = target if target is not None else "nothing of its own"
    said = f"{first.state.word}, {len(family):,}: {names} to {becomes}; {numel:,} values"
    bundle = Bundle(tuple(shapes), tuple(texts), first.state, printable(said, longest=600))
    return bundle, height + (6 if form.beside else 8)


def _sources(family: Sequence[Entry]) -> list[tuple[str, int]]:
    """Name and elements of each left end: one for each place among an entry's sources, of many one for all."""
    places = len(family[0].sources)
    alike = all(len(entry.sources) == places for entry in family)
    if not places:
        return []
    sizes = [
        [0 if spec is None else spec.numel for spec in entry.source_specs] or [0] * len(entry.sources)
        for entry in family
    ]
    if not alike or places > _MOST_PARTS:
        return [(family_name([name for entry in family for name in entry.sources]), sum(map(sum, sizes)))]
    return [
        (family_name([entry.sources[place] for entry in family]), sum(size[place] for size in sizes))
        for place in range(places)
    ]


def _label(name: str, count: int, y: float, form: _Format, side: str) -> Text:
    many = f"\N{MULTIPLICATION SIGN}{count:,}" if count > 1 else ""
    room = form.columns - (len(many) + 2 if many else 0)
    short = shortened(name, room)
    if side == "source":
        x: float = form.left - 12 if form.beside else 0
    else:
        x = form.right + 12 if form.beside else form.width
    return Text(x, round(y, 1), short, side, many)


def _word(entry: Entry, y: float, form: _Format) -> Text:
    """What became of it: on the ribbon, or where one end is missing in its place, with the reason."""
    reach = (form.right - form.left) * _REACH + 18
    if entry.sources and entry.target is not None:
        word = entry.how if entry.state.weight is Weight.CHANGED and entry.how else entry.state.word
        return Text((form.left + form.right) / 2, y, shortened(word, 30), "word")
    word = f"{entry.state.word}: {entry.why}" if entry.why and entry.state.key != "refused" else entry.state.word
    if entry.sources:
        x, room, side = form.left + reach, form.width - form.left - reach, "after"
    else:
        x, room, side = form.right - reach, form.right - reach, "before"
    columns = int(room / (form.font * _SANS))
    text = printable(word)
    text = text if _columns(text) <= columns else _cut(text, columns - 1) + "…"
    return Text(round(x, 1), y, text, f"word {side}")


def _ribbon(entry: Entry, y0: float, h0: float, y1: float, h1: float, form: _Format) -> list[Shape]:
    """From the left end to the right one; of a tensor that is refused, or has only one of them, the middle is missing.

    Ends come last, so that where there is no room beside the ribbon they lie on it.
    """
    left, right, state = form.left, form.right, entry.state
    paths: list[tuple[str, str]] = []
    if entry.sources and entry.target is not None and state.key != "refused":
        half = (left + right) / 2
        there = f"M{left} {y0:.1f}C{half} {y0:.1f} {half} {y1:.1f} {right} {y1:.1f}v{h1:.1f}"
        back = f"C{half} {y1 + h1:.1f} {half} {y0 + h0:.1f} {left} {y0 + h0:.1f}z"
        paths.append((there + back, "ribbon"))
    else:
        reach = (right - left) * _REACH
        if entry.sources:
            paths.append((_stub(left, left + reach, y0, h0), "ribbon"))
        if entry.target is not None:
            paths.append((_stub(right, right - reach, y1, h1), "ribbon"))
    outside = 6 if form.beside else 0
    if entry.sources:
        paths.append((f"M{left - outside} {y0:.1f}h6v{h0:.1f}h-6z", "end"))
    if entry.target is not None:
        paths.append((f"M{right - 6 + outside} {y1:.1f}h6v{h1:.1f}h-6z", "end"))
    return [Shape(path, kind, state) for path, kind in paths]


def _stub(start: float, tip: float, y: float, height: float) -> str:
    """From ``start`` to a point beyond ``tip``."""
    point = math.copysign(height / 2, tip - start)
    return f"M{start} {y:.1f}H{tip:.0f}l{point:.1f} {height / 2:.1f}l{-point:.1f} {height / 2:.1f}H{start}z"
