"""Which rule takes which source name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Generic, NamedTuple, TypeVar

from weightkit.core.names import Lists, Segment, Template
from weightkit.core.plan import SecondName
from weightkit.core.rule import Companions, Mapping, Rule
from weightkit.core.tensor import StateSpec
from weightkit.engine.wrappers import are_plain, by_plain_name, unwrapped

Bound = dict[str, "int | str"]
T = TypeVar("T")


class _Node:
    """What stands behind the segments read so far: further ones, and templates that end here or take the rest."""

    __slots__ = ("ends", "literals", "rests", "variable")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.ends: list[int] = []
        self.rests: list[int] = []


class TemplateIndex(Generic[T]):
    """Templates with what they stand for, found by a name in time that does not grow with their number."""

    def __init__(self, items: Iterable[tuple[Template, T]], lists: Lists) -> None:
        self._items: list[tuple[list[tuple[int, Segment]], bool, T]] = []
        self._lists = lists
        self._root = _Node()
        for template, stands_for in items:
            segments = template.segments
            node = self._root
            for segment in segments[: -1 if template.takes_rest else None]:
                if not segment.var:
                    node = node.literals.setdefault(segment.text, _Node())
                else:
                    node.variable = node.variable or _Node()
                    node = node.variable
            (node.rests if template.takes_rest else node.ends).append(len(self._items))
            variables = [(place, segment) for place, segment in enumerate(segments) if segment.var]
            self._items.append((variables, template.takes_rest, stands_for))

    def find(self, name: str) -> list[tuple[T, Bound]]:
        """Every template that matches the whole of ``name``, as what it stands for and its variables."""
        pieces = name.split(".")
        nodes, numbers = [self._root], self._root.rests
        last = len(pieces) - 1
        for place, piece in enumerate(pieces):
            behind: list[_Node] = []
            for node in nodes:
                literal = node.literals.get(piece)
                if literal is not None:
                    behind.append(literal)
                if node.variable is not None:
                    behind.append(node.variable)
            if not behind:
                break
            nodes = behind
            for node in nodes:
                more = node.ends if place == last else node.rests
                if more:
                    numbers = [*numbers, *more]
        found: list[tuple[T, Bound]] = []
        for number in numbers:
            variables, takes_rest, stands_for = self._items[number]
            bound = self._read(variables, takes_rest, pieces)
            if bound is not None:
                found.append((stands_for, bound))
        return found

    def _read(self, variables: list[tuple[int, Segment]], takes_rest: bool, pieces: list[str]) -> Bound | None:
        """The variables of a template whose literal segments are known to match."""
        bound: Bound = {}
        for place, segment in variables:
            is_rest = takes_rest and segment.kind == "path"
            piece = ".".join(pieces[place:]) if is_rest else pieces[place]
            value = segment.read(piece, self._lists)
            if value is None or bound.setdefault(segment.var, value) != value:
                return None
        return bound


class Filler:
    """A template prepared for writing many names: `Template.fill`, faster."""

    __slots__ = ("_lists", "_pattern", "_variables")

    def __init__(self, template: Template, lists: Lists) -> None:
        self._lists = lists
        self._pattern = ".".join("%s" if each.var else each.text.replace("%", "%%") for each in template.segments)
        self._variables = [
            (each.var, None if not each.lookup and (each.scale, each.offset) == (1, 0) else each)
            for each in template.segments
            if each.var
        ]

    def fill(self, bound: Bound) -> str | None:
        """The name that the variables give; None where a looked-up list is too short for the number."""
        texts = []
        for var, segment in self._variables:
            text = bound[var] if segment is None else segment.write(bound[var], self._lists)
            if text is None:
                return None
            texts.append(text)
        return self._pattern % tuple(texts)


class Match(NamedTuple):
    """A rule that takes a name, the place of the template among the rule's sources, and its variables."""

    rule: Rule
    place: int
    bound: Bound


class Matcher:
    """The rules of a mapping, for given lists: which of them takes a name, and what stands for what."""

    def __init__(self, mapping: Mapping, lists: Lists) -> None:
        self.mapping = mapping
        lists = self.lists = {**lists, **mapping.lists} if mapping.lists else lists
        self._rules = TemplateIndex(
            ((template, (rule, place)) for rule in mapping.rules for place, template in enumerate(rule.sources)), lists
        )
        self._spellings = TemplateIndex(((each.name, each) for each in mapping.spellings), lists)
        self.fillers = {rule.id: Filler(rule.targets[0], lists) for rule in mapping.rules if rule.is_plain}
        """Rule -> what writes its target's name, for the rules that make one tensor of one."""

    def matches(self, name: str) -> list[Match]:
        """Every rule that takes ``name``, those that another one overrides left out. More than one is an ambiguity."""
        found = self._rules.find(name)
        if len(found) == 1:
            (rule, place), bound = found[0]
            return [Match(rule, place, bound)]
        beaten = {other for (rule, _), _ in found for other in rule.overrides}
        return [Match(rule, place, bound) for (rule, place), bound in found if rule.id not in beaten]

    def travels_with(self, name: str) -> list[tuple[Companions, str, str]]:
        """Companions that ``name`` belongs to, with the parameter's name and the suffix, where a rule takes that."""
        found = []
        for companions in self.mapping.companions:
            parts = companions.parameter_of(name)
            if parts is not None and (self.matches(parts[0]) or self.matches(unwrapped(parts[0]))):
                found.append((companions, *parts))
        return found

    def outcome(self, name: str) -> set[object]:
        """What becomes of ``name``, for comparison: equal outcomes mean that the rules do not tell two names apart."""
        hits = self.matches(name) or self.matches(unwrapped(name))
        if not hits:
            return {
                (companions.prefix, suffix, one)
                for companions, parameter, suffix in self.travels_with(name)
                for one in self.outcome(parameter)
            }
        return {
            (hit.rule.id, self.fillers[hit.rule.id].fill(hit.bound))
            if hit.rule.id in self.fillers
            else (hit.rule.id, hit.place, tuple(sorted(hit.bound.items())))
            for hit in hits
        }

    def second_names(self, source: StateSpec) -> tuple[dict[str, SecondName], list[str]]:
        """Source names that stand for another name of the source: as the layout spells it, or as the file's ties say.

        Where a name stands for one that is a second name itself, it stands for that one's first; names that stand for
        each other are none. A spelling whose first name is not in the file is no second name: the rules see it as the
        first. What wrappers put into names is looked through where a name is nothing as it is.
        Second: the names that the layout has as second names of two others.
        """
        spelled: dict[str, tuple[str, str]] = {}
        ambiguous: list[str] = []
        stored = {} if not self.mapping.spellings or are_plain(source) else by_plain_name(source)
        for name in source if self.mapping.spellings else ():
            firsts = {of: why for of, why in self._spelled(name) if of in source and of != name}
            if stored and not firsts and not self.matches(name):
                others = ((stored.get(of), why) for of, why in self._spelled(unwrapped(name)))
                firsts = {of: why for of, why in others if of is not None and of != name}
            if len(firsts) > 1:
                ambiguous.append(name)
            elif firsts:
                spelled[name] = next(iter(firsts.items()))
        found: dict[str, SecondName] = {}
        for name, (of, why) in spelled.items():
            passed = {name}
            while of in spelled and of not in passed:
                passed.add(of)
                of = spelled[of][0]
            if of not in passed:
                tied = source.canonical(of) == source.canonical(name)
                found[name] = SecondName(of, why, checked=not tied)
        for alias, of in source.aliases.items():
            if alias in found or (of in found and found[of].of == alias):
                continue
            if self.outcome(alias) != self.outcome(of):
                continue  # the rules know both names and part them: each becomes a tensor of its own
            found[alias] = SecondName(found[of].of if of in found else of, "shares its storage", checked=False)
        return found, ambiguous

    def _spelled(self, name: str) -> list[tuple[str, str]]:
        """The names that the layout has ``name`` as a second name of, each with the reason."""
        filled = ((spelling.of.fill(bound, self.lists), spelling.why) for spelling, bound in self._spellings.find(name))
        return [(of, why) for of, why in filled if of is not None]

    def first_spelling(self, name: str, source: StateSpec) -> str:
        """The name that the rules see for ``name``: its first spelling where the file has only the second."""
        if self.mapping.spellings:
            firsts = {of for of, _ in self._spelled(name) if of not in source}
            if len(firsts) == 1:
                return firsts.pop()
        return name


class Globs:
    """Patterns over whole names (``*`` crosses dots)."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = patterns
        self._plain = {pattern for pattern in patterns if not is_glob(pattern)}
        self._globs = [pattern for pattern in patterns if is_glob(pattern)]

    def all(self, name: str) -> list[str]:
        """The patterns that match the whole of ``name``: itself first, then in the order given."""
        if not self.patterns:
            return []
        found = [name] if name in self._plain else []
        found += [pattern for pattern in self._globs if fnmatchcase(name, pattern)]
        return found


def first_glob(name: str, patterns: Sequence[str]) -> str | None:
    """The first of the globs that matches the whole of ``name`` (``*`` crosses dots), or None."""
    return next((pattern for pattern in patterns if fnmatchcase(name, pattern)), None)


def is_glob(pattern: str) -> bool:
    """Whether the pattern can match more than the one name it spells."""
    return any(sign in pattern for sign in "*?[")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """``" (nearest: 'x')"`` for the candidate that looks most like ``name``, else an empty text."""
    close = get_close_matches(name, list(candidates)[:5000], n=1, cutoff=0.6)
    return f" (nearest: {close[0]!r})" if close else ""
