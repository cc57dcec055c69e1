"""Which rule takes which source name."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

from weightkit.core.names import Lists
from weightkit.core.plan import SecondName
from weightkit.core.rule import Fate, Mapping, Rule
from weightkit.core.tensor import StateSpec


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that takes a name; ``target`` is None for a drop or where a looked-up list is too short."""

    rule: Rule
    target: str | None


def second_names(source: StateSpec, mapping: Mapping, lists: Lists) -> dict[str, SecondName]:
    """Source names that stand for another name of the source: as the layout spells it, or as the file's ties say.

    A spelling whose first name is not in the file is no second name: the rules see it as the first (`first_spelling`).
    """
    found: dict[str, SecondName] = {}
    for name in source:
        for spelling in mapping.spellings:
            bound = spelling.name.match(name, lists)
            of = spelling.of.fill(bound, lists) if bound is not None else None
            if of is not None and of in source and of != name:
                tied = source.canonical(of) == source.canonical(name)
                found[name] = SecondName(of, spelling.why, checked=not tied)
                break
    for alias, of in source.aliases.items():
        if alias in found or (of in found and found[of].of == alias):
            continue
        if any(_target(rule, alias, lists) != _target(rule, of, lists) for rule in mapping.rules):
            continue  # the rules know both names and part them: each becomes a tensor of its own
        found[alias] = SecondName(found[of].of if of in found else of, "shares its storage", checked=False)
    return found


def first_spelling(name: str, source: StateSpec, mapping: Mapping, lists: Lists) -> str:
    """The name that the rules see for ``name``: its first spelling where the file has only the second."""
    for spelling in mapping.spellings:
        bound = spelling.name.match(name, lists)
        of = spelling.of.fill(bound, lists) if bound is not None else None
        if of is not None and of not in source:
            return of
    return name


def matches(name: str, mapping: Mapping, lists: Lists) -> list[Match]:
    """Every rule that takes ``name``, those that another match overrides left out. More than one is an ambiguity."""
    hits = [rule for rule in mapping.rules if _matches(rule, name, lists)]
    beaten = {other for rule in hits for other in rule.overrides}
    return [Match(rule, _target(rule, name, lists)) for rule in hits if rule.id not in beaten]


def _matches(rule: Rule, name: str, lists: Lists) -> bool:
    return rule.source.match(name, lists) is not None


def _target(rule: Rule, name: str, lists: Lists) -> str | None:
    bound = rule.source.match(name, lists)
    if bound is None or rule.fate is Fate.DROP or rule.target is None:
        return None
    return rule.target.fill(bound, lists)


def first_glob(name: str, patterns: tuple[str, ...]) -> str | None:
    """The first of the globs that matches the whole of ``name`` (``*`` crosses dots), or None."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def is_glob(pattern: str) -> bool:
    """Whether the pattern can match more than the one name it spells."""
    return any(sign in pattern for sign in "*?[")


def nearest(name: str, candidates: NameMap[str, object] | list[str]) -> str:
    """``" (nearest: 'x')"`` for the candidate that looks most like ``name``, else an empty text."""
    close = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return f" (nearest: {close[0]!r})" if close else ""
