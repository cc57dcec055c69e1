"""Whether two templates can match one name, and whether one matches all that another does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from math import gcd
from typing import NamedTuple

from weightkit.core.names import Lists, Segment, Template, whole_number

_TRIES = 512
"""Names that are tried before two templates count as disjoint; only repeated variables need more than a few."""
_NUMBERS = 24
_ENTRY = "entry"

_Values = dict[str, "int | str"]


class Witness(NamedTuple):
    """A name that two templates match. ``by_chance``: the entry that a looked-up list must have for it, "" for none."""

    name: str
    by_chance: str


def find_overlap(one: Template, other: Template) -> Witness | None:
    """A name that both templates match, None where there is none."""
    words = tuple(dict.fromkeys(_words((*one.segments, *other.segments))))
    for pairs in _aligned(one, other):
        for texts, lists, chance in islice(_texts(pairs, {}, {}, {}, "", words), _TRIES):
            name = ".".join(texts)
            known = {key: _entries(found) for key, found in lists.items()}
            if one.match(name, known) is not None and other.match(name, known) is not None:
                return Witness(name, chance)
    return None


def spelled_out(template: Template, lists: Lists) -> list[Template]:
    """The template with each entry of the lists that are known in the place that looks it up."""
    found: list[list[Segment]] = [[]]
    for segment in template.segments:
        entries = [Segment(entry) for entry in lists.get(segment.lookup, ())] if segment.lookup in lists else [segment]
        found = [[*before, entry] for before in found for entry in entries]
    if len(found) == 1:
        return [template] if found[0] == list(template.segments) else [_template(found[0])]
    return [_template(segments) for segments in found]


def _template(segments: list[Segment]) -> Template:
    """A template for questions about which names match; its text is for people."""
    written = (each.text if not each.var else "{" + each.var + "}" for each in segments)
    return Template(".".join(written), tuple(segments))


def _words(segments: tuple[Segment, ...]) -> Iterator[str]:
    """Texts that a name variable may have to be, because it stands elsewhere too."""
    for segment in segments:
        if not segment.var:
            yield segment.text
        elif segment.kind == "int" and not segment.lookup:
            yield from (str(segment.scale * number + segment.offset) for number in range(3))


def covers(general: Template, narrow: Template) -> bool:
    """Whether ``general`` matches every name that ``narrow`` matches. Where it is hard to tell, the answer is no."""
    names = [segment.var for segment in general.segments if segment.var]
    if len(names) != len(set(names)):
        return general.segments == narrow.segments
    ahead = len(general.segments) - general.takes_rest
    if general.takes_rest:
        if len(narrow.segments) <= ahead:
            return False
    elif narrow.takes_rest or len(narrow.segments) != ahead:
        return False
    return all(map(_covers, general.segments[:ahead], narrow.segments[:ahead]))


def _covers(general: Segment, narrow: Segment) -> bool:
    if not general.var:
        return not narrow.var and narrow.text == general.text
    if general.lookup:
        return narrow.lookup == general.lookup
    if general.kind == "name":
        return narrow.kind != "path" and bool(narrow.text)
    if not narrow.var:
        return general.read(narrow.text, {}) is not None
    if narrow.kind != "int" or narrow.lookup:
        return False
    return narrow.scale % general.scale == 0 and (
        narrow.offset >= general.offset and (narrow.offset - general.offset) % general.scale == 0
    )


def _aligned(one: Template, other: Template) -> Iterator[list[tuple[Segment, Segment]]]:
    """The segments that must be the same text, side by side; a rest is as long as the other side is."""
    if one.takes_rest and other.takes_rest:
        length = max(len(one.segments), len(other.segments))
        yield list(zip(_stretched(one, length), _stretched(other, length), strict=True))
    elif one.takes_rest or other.takes_rest:
        length = len((other if one.takes_rest else one).segments)
        if length >= len((one if one.takes_rest else other).segments):
            yield list(zip(_stretched(one, length), _stretched(other, length), strict=True))
    elif len(one.segments) == len(other.segments):
        yield list(zip(one.segments, other.segments, strict=True))


def _stretched(template: Template, length: int) -> list[Segment]:
    """The segments, the rest as single segments of any text, ``length`` in all."""
    if not template.takes_rest:
        return list(template.segments)
    before = list(template.segments[:-1])
    return [*before, *(Segment("", f"{number} of the rest", "name") for number in range(length - len(before)))]


def _texts(
    pairs: list[tuple[Segment, Segment]],
    left: _Values,
    right: _Values,
    lists: dict[str, dict[int, str]],
    chance: str,
    words: tuple[str, ...],
) -> Iterator[tuple[list[str], dict[str, dict[int, str]], str]]:
    """The texts that could stand in each place, one place after the other, variables keeping their values."""
    if not pairs:
        yield [], lists, chance
        return
    (one, other), rest = pairs[0], pairs[1:]
    for text, by_chance in _candidates(one, other, left, right, lists, words):
        first = _with(one, text, left, lists)
        second = _with(other, text, right, first[1]) if first is not None else None
        if first is None or second is None:
            continue
        for texts, found, last in _texts(rest, first[0], second[0], second[1], chance or by_chance, words):
            yield [text, *texts], found, last


def _candidates(
    one: Segment,
    other: Segment,
    left: _Values,
    right: _Values,
    lists: dict[str, dict[int, str]],
    words: tuple[str, ...],
) -> Iterator[tuple[str, str]]:
    """Texts worth a try for one place, and the list entry that would have to be called so."""
    for segment, values, opposite in ((one, left, other), (other, right, one)):
        text = _forced(segment, values, lists)
        if text is not None:
            by_chance = bool(opposite.lookup) and not segment.lookup and (segment.kind != "name" or not segment.var)
            yield text, text if by_chance else ""
            return
    numeric = [segment for segment in (one, other) if segment.kind == "int" and not segment.lookup]
    if numeric:
        by_chance = len(numeric) == 1 and bool(one.lookup or other.lookup)
        for number in islice(_common_numbers(numeric[0], numeric[-1]), _NUMBERS):
            yield str(number), str(number) if by_chance else ""
        return
    bound = [values[each.var] for each, values in ((one, left), (other, right)) if each.var in values]
    yield from ((f"{_ENTRY}{number}", "") for number in (*bound, *range(3)))
    by_chance = bool(one.lookup or other.lookup)
    yield from ((word, word if by_chance else "") for word in words)


def _forced(segment: Segment, values: _Values, lists: dict[str, dict[int, str]]) -> str | None:
    """The one text that ``segment`` can be by now, None where that is open."""
    if not segment.var:
        return segment.text
    value = values.get(segment.var)
    if value is None:
        return None
    if segment.lookup:
        assert isinstance(value, int)
        return lists.get(segment.lookup, {}).get(value)
    return segment.write(value, {})


def _common_numbers(one: Segment, other: Segment) -> Iterator[int]:
    """The numbers that both segments can be, from the smallest on: two remainders at once."""
    common = gcd(one.scale, other.scale)
    apart, remainder = divmod(other.offset - one.offset, common)
    if remainder:
        return
    step = other.scale // common
    first = one.offset + one.scale * (apart * pow(one.scale // common, -1, step) % step if step > 1 else 0)
    width = one.scale * step
    least = max(one.offset, other.offset)
    first += max(0, -(-(least - first) // width)) * width
    yield from count(first, width)


def _with(
    segment: Segment, text: str, values: _Values, lists: dict[str, dict[int, str]]
) -> tuple[_Values, dict[str, dict[int, str]]] | None:
    """The variables and lists where ``segment`` is written as ``text``, None where it cannot be."""
    if not segment.var:
        return (values, lists) if segment.text == text else None
    if segment.lookup:
        entries = lists.get(segment.lookup, {})
        known = next((number for number, entry in entries.items() if entry == text), None)
        if known is None:
            number = whole_number(text.removeprefix(_ENTRY)) if text.startswith(_ENTRY) else None
            known = number if number is not None and number not in entries else 0
            while entries.get(known, text) != text:
                known += 1
            wanted = values.get(segment.var)
            if isinstance(wanted, int):
                known = wanted
            if entries.get(known, text) != text:
                return None
            lists = {**lists, segment.lookup: {**entries, known: text}}
        value: int | str = known
    else:
        read = segment.read(text, {})
        if read is None:
            return None
        value = read
    if values.get(segment.var, value) != value:
        return None
    return {**values, segment.var: value}, lists


def _entries(found: dict[int, str]) -> list[str]:
    return [found.get(number, f"another {number}") for number in range(max(found, default=-1) + 1)]
