"""Which tensor of one layout is which of another: proposals with a confidence, never applied by themselves.

Tensors of one kind and shape are paired by an assignment of names and structure. The confidence of a pair is the margin
of that assignment over the best one in which the pair is different; where another is as good within noise (twins such
as the critics of an ensemble) the pair is *ambiguous*. Equal content, found once on each side, decides before anything
else. Works on specs, names and digests that others made; reads no tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import exp
from typing import TYPE_CHECKING, Literal

from weightkit.engine._suggestion_assignment import assign
from weightkit.engine._suggestion_names import role_of, stripped_names
from weightkit.engine._suggestion_scores import Sides
from weightkit.engine._suggestion_shapes import adaptable, choices_between, layout_doubt, undecided_layouts
from weightkit.engine._suggestion_tree import depths_agree, name_tree

if TYPE_CHECKING:
    import numpy as np

    from weightkit.core.tensor import StateSpec, TensorSpec

SURE = 0.9
"""Pairs from this confidence on are proposed as rules."""
_MOST = 0.99
_EQUAL_CONTENT = 0.999
_MOST_ADAPTED = 0.85
_MOST_ADAPTED_SAME_NAME = 0.95
_MOST_OTHER_DEPTH = 0.85
_OTHER_DEPTH = "numbered in stacks of different depth"
_NOISE = 1.0
"""Assignments whose scores differ by less are as good as each other."""
_LEADS = 0.95
_EQUAL_BONUS = 3.0
_PRICE_OF_BROKEN = 8.0
"""How fast margins that rest on structure lose their worth where layers of one side are not whole on the other."""
_FOR_OTHER_SHAPES = 1.0
"""The modules around two tensors of different shapes differ as a matter of course."""
_NEVER = -1e3
_MOST_ADAPTED_PAIRS = 160_000
_MOST_ADAPTED_SIDE = 400

Standing = Literal["sure", "unsure", "ambiguous"]


@dataclass(frozen=True, slots=True)
class Suggested:
    """A proposed pair. ``candidates`` are the targets that are as good, the proposed one first; one where it is clear.

    ``adapters`` are the ways to reconcile the two shapes: none where they are equal, a choice where there are several.
    """

    source: str
    target: str
    confidence: float
    standing: Standing
    evidence: tuple[str, ...]
    candidates: tuple[str, ...]
    adapters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Every tensor of both sides once: in a pair, or left over. Second names of tensors are not counted."""

    pairs: tuple[Suggested, ...]
    left_sources: tuple[str, ...]
    left_targets: tuple[str, ...]

    def standing(self, standing: Standing) -> tuple[Suggested, ...]:
        """The pairs that are sure, unsure or ambiguous."""
        return tuple(pair for pair in self.pairs if pair.standing == standing)


def confidence(margin: float) -> float:
    """A margin in nats as a probability, below 1."""
    return _MOST / (1.0 + exp(-max(-30.0, min(30.0, margin))))


def suggest_pairs(
    source: StateSpec,
    target: StateSpec,
    *,
    source_digests: Mapping[str, str] | None = None,
    target_digests: Mapping[str, str] | None = None,
) -> Suggestion:
    """The suggestion for two states. Digests, of all tensors or of some, let equal content decide."""
    here, there = _spellings(source, target)
    contents = (
        {name: source_digests[of] for name, of in here.items() if source_digests and of in source_digests},
        {name: target_digests[of] for name, of in there.items() if target_digests and of in target_digests},
    )
    colours: dict[object, int] = {}
    sides = Sides(
        name_tree({name: _signature(source[name]) for name in here}, colours),
        name_tree({name: _signature(target[name]) for name in there}, colours),
    )
    same_content = _unique_equals(*contents)
    found: dict[str, Suggested] = {
        one: _by_content(one, other, source[one], target[other]) for one, other in same_content.items()
    }
    _pair_alike(found, sides, source, target, contents, settled=set(same_content))
    leads = {pair.source: pair.target for pair in found.values() if pair.target and pair.confidence >= _LEADS}
    if leads and len(leads) < len(here):
        sides.take_votes(leads)
        _pair_alike(found, sides, source, target, contents, settled=set(leads))
    _pair_adapted(found, sides, source, target)
    for name, pair in found.items():
        if name not in same_content:
            found[name] = _with_evidence(pair, sides, contents)
    pairs = _with_layout_doubts(found, target, same_content)
    order = {name: index for index, name in enumerate(source)}
    pairs.sort(key=lambda pair: order[pair.source])
    taken = {pair.source for pair in pairs}, {name for pair in pairs for name in (pair.target, *pair.candidates)}
    return Suggestion(
        tuple(pairs),
        tuple(name for name in here if name not in taken[0]),
        tuple(name for name in there if name not in taken[1]),
    )


def _signature(spec: TensorSpec) -> tuple[str, tuple[int, ...]]:
    return (spec.dtype.kind, spec.shape)


def _spellings(source: StateSpec, target: StateSpec) -> tuple[dict[str, str], dict[str, str]]:
    """One name for each tensor of each side, name -> first name: one that the other side uses too, else the shortest.

    The order of a file does not matter, so tensors that share a prefix in two spellings are all spelled the same way.
    """
    bare = stripped_names(source), stripped_names(target)
    known = set(bare[0].values()) & set(bare[1].values())
    chosen: list[dict[str, str]] = []
    for state, text in ((source, bare[0]), (target, bare[1])):
        names: dict[str, list[str]] = {}
        for name in state:
            names.setdefault(state.canonical(name), []).append(name)
        ranks = {name: (text[name] not in known, text[name].count("."), text[name]) for name in state}
        chosen.append({min(same, key=ranks.__getitem__): of for of, same in names.items()})
    return chosen[0], chosen[1]


def _unique_equals(here: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Names whose content stands once on each side, and is the same."""
    once: list[dict[str, str]] = []
    for contents in (here, there):
        counts: dict[str, int] = {}
        for digest in contents.values():
            counts[digest] = counts.get(digest, 0) + 1
        once.append({digest: name for name, digest in contents.items() if counts[digest] == 1})
    return {name: once[1][digest] for digest, name in once[0].items() if digest in once[1]}


def _by_content(one: str, other: str, here: TensorSpec, there: TensorSpec) -> Suggested:
    evidence = ("equal content, found once on each side",)
    return Suggested(one, other, _EQUAL_CONTENT, "sure", evidence, (other,), choices_between(here, there))


def _pair_alike(
    found: dict[str, Suggested],
    sides: Sides,
    source: StateSpec,
    target: StateSpec,
    contents: tuple[Mapping[str, str], Mapping[str, str]],
    *,
    settled: set[str],
) -> None:
    """Pair the tensors of each kind and shape that are not settled; overwrites what an earlier pass found of them."""
    gone = {found[name].target for name in settled}
    groups: dict[object, tuple[list[str], list[str]]] = {}
    for name in sides.source_names:
        if name not in settled:
            found.pop(name, None)
            groups.setdefault(_signature(source[name]), ([], []))[0].append(name)
    for name in sides.target_names:
        if name not in gone:
            groups.setdefault(_signature(target[name]), ([], []))[1].append(name)
    trust = max(0.0, 1.0 - _PRICE_OF_BROKEN * sides.broken())
    for sources, targets in _by_role(groups.values()):
        scores = sides.scores(sources, targets)
        scores += _content_and_dtypes(sources, targets, source, target, contents)
        chosen, margins, options = assign(scores, _NOISE)
        for row, name in enumerate(sources):
            columns = [column for column in options[row] if column >= 0]
            if not columns or (chosen[row] < 0 and max(scores[row, column] for column in columns) <= 0):
                continue
            best = targets[chosen[row]] if chosen[row] >= 0 else ""
            candidates = tuple(targets[column] for column in columns)
            if not best:
                found[name] = _judged(name, best, candidates, confidence(margins[row]))
                continue
            same_name = sides.same_name(name, best)
            how_sure = confidence(margins[row] if same_name else margins[row] * trust)
            comparable = same_name or depths_agree(sides.source, name, sides.target, best)
            pair = _judged(name, best, candidates, how_sure if comparable else min(how_sure, _MOST_OTHER_DEPTH))
            said = () if comparable else (_OTHER_DEPTH,)
            found[name] = replace(pair, evidence=said, adapters=choices_between(source[name], target[best]))


def _by_role(groups: Iterable[tuple[list[str], list[str]]]) -> Iterator[tuple[list[str], list[str]]]:
    """The groups that have both sides, parted by role where every tensor's is known: weights are no biases."""
    for sources, targets in groups:
        roles = {role_of(name) for name in (*sources, *targets)}
        for role in [""] if "" in roles else sorted(roles):
            here, there = (
                [name for name in names if not role or role_of(name) == role] for names in (sources, targets)
            )
            if here and there:
                yield here, there


def _content_and_dtypes(
    sources: list[str],
    targets: list[str],
    source: StateSpec,
    target: StateSpec,
    contents: tuple[Mapping[str, str], Mapping[str, str]],
) -> np.ndarray:
    """``(sources, targets)``: a little against another element type, much for equal content that is no one's alone."""
    import numpy as np

    types = [
        np.array([state[name].dtype.name for name in names]) for state, names in ((source, sources), (target, targets))
    ]
    found: np.ndarray = np.where(types[0][:, None] != types[1][None, :], -0.5, 0.0)
    codes: dict[str, int] = {}
    known = [
        np.array([codes.setdefault(of[name], len(codes)) if name in of else none for name in names], int)
        for of, names, none in ((contents[0], sources, -1), (contents[1], targets, -2))
    ]
    found += np.where(known[0][:, None] == known[1][None, :], _EQUAL_BONUS, 0.0)
    return found


def _judged(
    name: str,
    best: str,
    candidates: tuple[str, ...],
    how_sure: float,
) -> Suggested:
    """The pair with its standing; its evidence comes later."""
    standing: Standing = "sure" if how_sure >= SURE else "unsure"
    if how_sure < SURE and (len(candidates) > 1 or not best):
        standing = "ambiguous"
    else:
        candidates = (best,)
    return Suggested(name, best, how_sure, standing, (), candidates)


def _with_evidence(pair: Suggested, sides: Sides, contents: tuple[Mapping[str, str], Mapping[str, str]]) -> Suggested:
    """The pair with what speaks for it."""
    name, best = pair.source, pair.target
    evidence = []
    if best:
        if sides.source.stripped[name] == sides.target.stripped[best]:
            evidence.append("same name")
        elif words := sides.shared_words(name, best)[:3]:
            evidence.append(f"names share {', '.join(words)}")
        evidence += sides.structural_evidence(name, best)
        if name in contents[0] and contents[0][name] == contents[1].get(best):
            evidence.append("equal content")
    if pair.standing == "ambiguous":
        evidence.append("nothing tells the candidates apart" if best else "another source fits as well")
    return replace(pair, evidence=(*evidence, *pair.evidence))


def _pair_adapted(found: dict[str, Suggested], sides: Sides, source: StateSpec, target: StateSpec) -> None:
    """Pair what is left over where an adapter leads from one shape to the other."""
    import numpy as np

    spoken = {other for pair in found.values() for other in (*pair.candidates, pair.target)}
    groups: dict[object, tuple[list[str], list[str]]] = {}
    for side, (names, state, taken) in enumerate(
        ((sides.source_names, source, set(found)), (sides.target_names, target, spoken))
    ):
        for name in names:
            if name not in taken:
                groups.setdefault(len([n for n in state[name].shape if n != 1]), ([], []))[side].append(name)
    for sources, targets in groups.values():
        if not sources or not targets:
            continue
        if len(sources) * len(targets) > _MOST_ADAPTED_PAIRS:
            same = {sides.source.stripped[name] for name in sources}
            same &= {sides.target.stripped[name] for name in targets}
            sources = [name for name in sources if sides.source.stripped[name] in same][:_MOST_ADAPTED_SIDE]
            targets = [name for name in targets if sides.target.stripped[name] in same][:_MOST_ADAPTED_SIDE]
            if not sources or not targets:
                continue
        fits = np.array([[adaptable(source[name], target[other]) for other in targets] for name in sources])
        scores = np.where(fits, sides.scores(sources, targets) + _FOR_OTHER_SHAPES, _NEVER)
        chosen, margins, options = assign(scores, _NOISE)
        for row, name in enumerate(sources):
            if chosen[row] < 0:
                continue
            best = targets[chosen[row]]
            most = _MOST_ADAPTED_SAME_NAME if sides.same_name(name, best) else _MOST_ADAPTED
            candidates = tuple(targets[column] for column in options[row] if column >= 0)
            pair = _judged(name, best, candidates, min(most, confidence(margins[row])))
            ways = choices_between(source[name], target[best])
            said = f"shapes {list(source[name].shape)} and {list(target[best].shape)}: {' or '.join(ways)}"
            found[name] = replace(pair, adapters=ways, evidence=(said,))


def _with_layout_doubts(found: Mapping[str, Suggested], target: StateSpec, same: Mapping[str, str]) -> list[Suggested]:
    """The pairs, those marked ambiguous whose own shape cannot say what other shapes show to be in question."""
    transposed, channels = undecided_layouts(
        (pair.adapters, target[pair.target]) for pair in found.values() if pair.adapters and pair.target
    )
    pairs = []
    for pair in found.values():
        doubt = ""
        if pair.target and pair.source not in same and pair.standing != "ambiguous":
            doubt = layout_doubt(target[pair.target], transposed, channels)
        if doubt:
            pair = replace(
                pair, standing="ambiguous", confidence=min(pair.confidence, 0.5), evidence=(*pair.evidence, doubt)
            )
        pairs.append(pair)
    return pairs
