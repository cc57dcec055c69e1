"""Many names as few: tensors that differ in numbers or last segments only, gathered until few enough are left."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from weightkit.reporting.page.account import Entry

LEVELS = 7
_NUMBER = "\0"
_MOST_NUMBERS, _MOST_WORDS = 4, 2
_LOOKED_AT = 2000


def template(name: str, level: int) -> str:
    """What names of one family have in common: at level 0 all of it, then all but numbers, all but numbers and the
    last segment, the first three segments, two, one, and at last nothing."""
    if level == 0:
        return name
    if level == LEVELS - 1:
        return ""
    parts = [_NUMBER if part.isdecimal() else part for part in name.split(".")]
    if level == 2:
        parts = parts[:-1] or parts
    elif level > 2:
        parts = parts[: 6 - level]
    return ".".join(parts)


def gathered(entries: Sequence[Entry], most: int) -> list[list[Entry]]:
    """The entries of equal state and equal treatment in at most ``most`` families, as fine as that allows.

    Where even states and treatments are more than ``most``, treatments are no longer told apart. Order of first
    appearance; the entries of a family keep their order.
    """
    for level in range(LEVELS):
        families: dict[Hashable, list[Entry]] = {}
        for entry in entries:
            families.setdefault((entry.state.key, *key(entry, level)), []).append(entry)
            if len(families) > most:
                break
        else:
            return list(families.values())
    families = {}
    for entry in entries:
        families.setdefault(entry.state.key, []).append(entry)
    return list(families.values())


def key(entry: Entry, level: int) -> tuple[Hashable, ...]:
    """What two entries must have in common to be one family at this level."""
    sources = tuple(dict.fromkeys(template(name, level) for name in entry.sources))
    how = entry.how if entry.state.key not in ("second_name", "repeated") else ""
    return how, sources, None if entry.target is None else template(entry.target, level)


def family_name(names: Sequence[str]) -> str:
    """One text for several names: ``critic.qs.{0,1}.head.{bias, weight}``, and ``*`` where they differ in more.

    For reading only: it may stand for names that are not there, so it comes with their number.
    """
    names = list(dict.fromkeys(names))
    if len(names) == 1:
        return names[0]
    several = [name.split(".") for name in names[:_LOOKED_AT]]
    length = min(map(len, several))
    columns = [list(dict.fromkeys(parts[place] for parts in several)) for place in range(length)]
    whole = len({len(parts) for parts in several}) == 1 and len(names) <= _LOOKED_AT
    text = ".".join(map(_options, columns))
    return text if whole else f"{text}.*" if not text.endswith("*") else text


def _options(column: Sequence[str]) -> str:
    if len(column) == 1:
        return column[0]
    numbers = sorted(int(part) for part in column if part.isdecimal() and part.isascii() and len(part) < 10)
    are_numbers = len(numbers) == len(column)
    if are_numbers and len(numbers) > 2 and numbers[-1] - numbers[0] + 1 == len(numbers):
        return f"{{{numbers[0]}…{numbers[-1]}}}"
    if len(column) > (_MOST_NUMBERS if are_numbers else _MOST_WORDS):
        return "*"
    return "{" + ",".join(map(str, numbers) if are_numbers else sorted(column)) + "}"
