"""Pairs of names as few template rules: what differs between names that are alike becomes a variable.

A rule is kept only if, over all names of the source, it matches exactly pairs that it was made of and fills in exactly
their targets; so no two rules match one name, and none says anything about a name that was not paired.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from weightkit.core.names import Template, parse_template

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_LETTERS = "ijklmnqrstuv"
_SUFFIXES = ("rest", "p", "")


@dataclass(frozen=True, slots=True)
class Generalised:
    """A renaming and the pairs that it makes, source -> target."""

    source: Template
    target: Template
    pairs: Mapping[str, str]


def generalise(pairs: Mapping[str, str], names: Iterable[str]) -> tuple[tuple[Generalised, ...], dict[str, str]]:
    """Rules that make exactly ``pairs`` (source -> target) among ``names``, all names of the source.

    The second result holds the pairs that no template can be written for: names with braces or empty segments.
    """
    alike = _by_pattern(names)
    unwritable = {a: b for a, b in pairs.items() if not (_writable(a) and _writable(b))}
    open_ = {a: b for a, b in pairs.items() if a not in unwritable}
    rules: list[Generalised] = []
    for suffix in _SUFFIXES:
        for candidates in _groups(open_, suffix):
            group = {a: b for a, b in candidates.items() if a in open_}
            for rule in _rules_of(group, suffix, pairs, alike) if group else ():
                if all(name in open_ for name in rule.pairs):
                    rules.append(rule)
                    for name in rule.pairs:
                        del open_[name]
    order = {name: index for index, name in enumerate(pairs)}
    rules.sort(key=lambda rule: min(order[name] for name in rule.pairs))
    return tuple(rules), unwritable


def _writable(name: str) -> bool:
    """Whether a template can say the name, and a file of UTF-8 hold it."""
    unpaired = any("\ud800" <= char <= "\udfff" for char in name)
    return not unpaired and all(part and "{" not in part and "}" not in part for part in name.split("."))


def _groups(pairs: Mapping[str, str], suffix: str) -> list[dict[str, str]]:
    """Pairs whose names are alike but for numbers and what ``suffix`` stands for, the largest groups first."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, str]] = {}
    for a, b in pairs.items():
        one, other = a.split("."), b.split(".")
        for cut in _cuts(one, other, suffix):
            key = (_pattern(one[: len(one) - cut]), _pattern(other[: len(other) - cut]))
            found.setdefault(key, {})[a] = b
    least = 2 if suffix else 1
    groups = [(key, group) for key, group in found.items() if len(group) >= least]
    groups.sort(key=lambda item: (-len(item[1]), len(item[0][0]) + len(item[0][1]), item[0]))
    return [group for _, group in groups]


def _cuts(one: Sequence[str], other: Sequence[str], suffix: str) -> range:
    """How many segments at the end may be left to a variable."""
    if not suffix:
        return range(1)
    common = 0
    while common < min(len(one), len(other)) and one[-1 - common] == other[-1 - common]:
        common += 1
    if suffix == "p":
        return range(1, 2) if common and not _NUMBER.fullmatch(one[-1]) else range(0)
    return range(common, 0, -1)


def _pattern(segments: Sequence[str]) -> tuple[str, ...]:
    return tuple("#" if _NUMBER.fullmatch(segment) else segment for segment in segments)


def _rules_of(
    group: Mapping[str, str], suffix: str, pairs: Mapping[str, str], alike: Mapping[object, Sequence[str]]
) -> list[Generalised]:
    """Rules for a group, split where one number cannot be a variable."""
    rule = _rule_of(group, suffix)
    if rule is not None and _exact(rule, pairs, alike):
        return [rule]
    if len(group) == 1:
        return []
    split = _split(group)
    found = []
    for part in split:
        if len(part) < len(group) and (len(part) > 1 or not suffix):
            found += _rules_of(part, suffix, pairs, alike)
    return found


def _by_pattern(names: Iterable[str]) -> dict[object, list[str]]:
    """Names by the pattern of their segments, and by that of each of their beginnings, marked as such."""
    found: dict[object, list[str]] = {}
    for name in names:
        pattern = _pattern(name.split("."))
        found.setdefault(pattern, []).append(name)
        for length in range(len(pattern)):
            found.setdefault((pattern[:length], "..."), []).append(name)
    return found


def _exact(rule: Generalised, pairs: Mapping[str, str], alike: Mapping[object, Sequence[str]]) -> bool:
    """Whether the rule matches no name but its own pairs', and gives their targets."""
    segments = rule.source.segments
    head = tuple("#" if (s.kind == "int" and s.var) or _NUMBER.fullmatch(s.text) else s.text for s in segments)
    names = alike.get((head[:-1], "...") if segments[-1].var and segments[-1].kind != "int" else head, ())
    matched = 0
    for name in names:
        bound = rule.source.match(name, {})
        if bound is None:
            continue
        if name not in rule.pairs or rule.target.fill(bound, {}) != pairs[name]:
            return False
        matched += 1
    return matched == len(rule.pairs)


def _split(group: Mapping[str, str]) -> list[dict[str, str]]:
    """The group by the values of the first number that differs within it; by single pairs where none does."""
    rows = [name.split(".") for name in group]
    for place in range(min(map(len, rows))):
        values = {row[place] for row in rows}
        if len(values) > 1 and all(_NUMBER.fullmatch(value) for value in values):
            parts: dict[str, dict[str, str]] = {}
            for row, (a, b) in zip(rows, group.items(), strict=True):
                parts.setdefault(row[place], {})[a] = b
            return list(parts.values())
    return [{a: b} for a, b in group.items()]


def _rule_of(group: Mapping[str, str], suffix: str) -> Generalised | None:
    """The one rule for the group, None where its numbers do not follow from each other."""
    heads: list[tuple[list[str], list[str]]] = []
    cut = _shortest_cut(group, suffix)
    if cut is None:
        return None
    for a, b in group.items():
        one, other = a.split("."), b.split(".")
        heads.append((one[: cut[0]], other[: cut[1]]))
    source, target = list(heads[0][0]), list(heads[0][1])
    letters = iter(_LETTERS)
    bound: set[int] = set()
    for place in range(len(source)):
        numbers = [head[0][place] for head in heads]
        if len(set(numbers)) == 1:
            continue
        followers = [
            (there, steps)
            for there in range(len(target))
            if there not in bound and (steps := _steps(numbers, [head[1][there] for head in heads])) is not None
        ]
        letter = next(letters, "")
        if not followers or not letter:
            return None
        same = [item for item in followers if item[1][0] == item[1][1]] or followers
        there, (here_text, there_text) = same[0]
        source[place], target[there] = f"{{{letter}{here_text}}}", f"{{{letter}{there_text}}}"
        bound.add(there)
    if any(len({head[1][there] for head in heads}) > 1 for there in range(len(target)) if there not in bound):
        return None
    whole = suffix == "rest" and any(name.count(".") > cut[0] for name in group)
    tail = ["{rest:path}"] if whole else ["{p:name}"] if suffix else []
    try:
        templates = [parse_template(".".join([*side, *tail])) for side in (source, target)]
    except ValueError:
        return None
    return Generalised(templates[0], templates[1], dict(group))


def _shortest_cut(group: Mapping[str, str], suffix: str) -> tuple[int, int] | None:
    """How many segments of each side stand before the suffix: as few as there can be for all pairs alike."""
    if suffix != "rest":
        a, b = next(iter(group.items()))
        drop = 1 if suffix == "p" else 0
        return len(a.split(".")) - drop, len(b.split(".")) - drop
    heads = []
    for a, b in group.items():
        one, other = a.split("."), b.split(".")
        heads.append({(_pattern(one[:-cut]), _pattern(other[:-cut])) for cut in _cuts(one, other, suffix)})
    shared = set.intersection(*heads)
    if not shared:
        return None
    best = max(shared, key=lambda key: (len(key[0]) + len(key[1]), key))
    return len(best[0]), len(best[1])


def _steps(here: Sequence[str], there: Sequence[str]) -> tuple[str, str] | None:
    """``("*3", "*2+1")`` where the numbers there are an affine function of those here; None where they are not."""
    if not all(map(_NUMBER.fullmatch, here)) or not all(map(_NUMBER.fullmatch, there)):
        return None
    points = sorted({(int(a), int(b)) for a, b in zip(here, there, strict=True)})
    if len({a for a, _ in points}) != len(points) or len(points) < 2:
        return None
    (a0, b0), (a1, b1) = points[0], points[1]
    if b1 <= b0:
        return None
    step_a = step_b = 0
    for (a, b), (c, d) in pairwise(points):
        if (c - a) * (b1 - b0) != (d - b) * (a1 - a0):
            return None
        step_a, step_b = gcd(step_a, c - a), gcd(step_b, d - b)
    common = step_a // ((a1 - a0) // gcd(a1 - a0, b1 - b0)) if step_a else 1
    scale_a, scale_b = (a1 - a0) // gcd(a1 - a0, b1 - b0) * common, (b1 - b0) // gcd(a1 - a0, b1 - b0) * common
    first = min(a0 // scale_a, b0 // scale_b)
    return _affine(scale_a, a0 - first * scale_a), _affine(scale_b, b0 - first * scale_b)


def _affine(scale: int, offset: int) -> str:
    return (f"*{scale}" if scale != 1 else "") + (f"+{offset}" if offset else "")
