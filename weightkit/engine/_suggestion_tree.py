"""The tree of modules that names describe, with its runs of numbered siblings: stacks of layers and ensembles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from weightkit.engine._suggestion_names import Wording, numbered, role_of, stripped_names, tokens_of, wording


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module stands in a sequence of numbered siblings, among those of its kind."""

    rank: int
    length: int
    number: int
    kind: object


@dataclass(frozen=True, slots=True)
class Level:
    """Where a module stands in a stack of ``depth`` numbered siblings of its kind.

    ``alone``: no other of them has its structure.
    """

    rank: int
    depth: int
    alone: bool


@dataclass(slots=True)
class Module:
    """A node of the name tree. ``bag`` counts the specs below it, ``own`` those directly in it.

    Among numbered siblings ``numbers`` are all of theirs; ``place`` is set in sequences, ``member`` in ensembles,
    ``level`` in both. ``attends``: a query and a key stand directly in it.
    """

    path: str
    parent: int
    segment: str
    children: dict[str, int] = field(default_factory=dict)
    bag: dict[object, int] = field(default_factory=dict)
    own: frozenset[tuple[object, int]] = frozenset()
    colour: int = 0
    place: Place | None = None
    member: str = ""
    numbers: frozenset[int] = frozenset()
    level: Level | None = None
    attends: bool = False


@dataclass(slots=True)
class NameTree:
    """All modules of one side, the root first; ``module_of`` gives the module that a tensor stands in.

    ``counts``: how many numbered modules hold the same.
    """

    modules: list[Module]
    module_of: dict[str, int]
    stripped: dict[str, str]
    counts: Mapping[object, int]

    def ancestors(self, module: int) -> list[int]:
        """The module and those around it, up to the root."""
        found = []
        while module >= 0:
            found.append(module)
            module = self.modules[module].parent
        return found

    def blocks(self, module: int) -> set[object]:
        """What the numbered modules around a module hold, each as the contents of a block that the tree has once."""
        around = [self.modules[index] for index in self.ancestors(module)]
        contents = {frozenset(block.bag.items()) for block in around if block.numbers}
        return {content for content in contents if self.counts[content] == 1}

    def levels(self, module: int) -> list[Level]:
        """Where the module and those around it stand in stacks; around it, in stacks of several only."""
        found = [self.modules[index].level for index in self.ancestors(module)]
        return [level for i, level in enumerate(found) if level is not None and (level.depth > 1 or i == 0)]


def name_tree(signatures: Mapping[str, object], colours: dict[object, int]) -> NameTree:
    """The tree of the names, whose tensors have these signatures; ``colours`` is shared by the two sides."""
    stripped = stripped_names(signatures)
    modules = [Module("", -1, "")]
    module_of: dict[str, int] = {}
    for name, signature in signatures.items():
        here = 0
        for segment in stripped[name].split(".")[:-1]:
            parent = modules[here]
            if segment not in parent.children:
                parent.children[segment] = len(modules)
                modules.append(Module(f"{parent.path}.{segment}" if parent.path else segment, here, segment))
            here = parent.children[segment]
        module_of[name] = here
        bag = modules[here].bag
        bag[signature] = bag.get(signature, 0) + 1
    for module in modules:
        module.own = frozenset(module.bag.items())
    for index in range(len(modules) - 1, -1, -1):
        module = modules[index]
        if module.parent >= 0:
            above = modules[module.parent].bag
            for signature, count in module.bag.items():
                above[signature] = above.get(signature, 0) + count
        below = tuple(sorted(modules[child].colour for child in module.children.values()))
        colour = (module.own, below) if len(below) != 1 or module.own else ("one", below[0])
        module.colour = below[0] if colour[0] == "one" else colours.setdefault(colour, len(colours))
    for module in modules:
        _mark_runs(modules, module)
        words = {word for segment in module.children for word in tokens_of(segment, attends=True)}
        module.attends = {"query", "key"} <= words
    counts = Counter[object](frozenset(module.bag.items()) for module in modules if module.numbers)
    return NameTree(modules, module_of, stripped, counts)


def _mark_runs(modules: list[Module], parent: Module) -> None:
    """Tell sequences from ensembles among the numbered children of a module.

    Numbered siblings that are all of one structure and lie without gaps may be swapped: an ensemble. Their number is
    then a name like any other, and counts only where the other side uses the same numbers; of two siblings, twins, only
    where it uses them under the same name.
    """
    runs: dict[str, list[tuple[int, int]]] = {}
    for segment, child in parent.children.items():
        split = numbered(segment)
        if split is not None:
            runs.setdefault(split[0], []).append((split[1], child))
    for stem, run in runs.items():
        run.sort()
        numbers = [number for number, _ in run]
        alike = len({modules[child].colour for _, child in run}) == 1
        gaps = numbers != list(range(numbers[0], numbers[0] + len(numbers)))
        kinds: dict[object, list[tuple[int, int]]] = {}
        for number, child in run:
            kinds.setdefault(_kind(modules[child]), []).append((number, child))
        for same in kinds.values():
            if len(same) > 1 or len(run) == 1:
                _mark_levels([modules[child] for _, child in same])
        if len(run) == 1:
            continue
        for _, child in run:
            modules[child].numbers = frozenset(numbers)
        if alike and not gaps:
            few = len(run) == 2
            container = "+".join(sorted(set(tokens_of(stem) or tokens_of(parent.segment)))) if few else ""
            for number, child in run:
                modules[child].member = f"{container}#{numbers[0]}-{numbers[-1]}#{number}"
            continue
        for kind, same in kinds.items():
            for rank, (number, child) in enumerate(same):
                modules[child].place = Place(rank, len(same), number, kind)


def _mark_levels(stack: Sequence[Module]) -> None:
    """Number the modules of a stack from its beginning."""
    alike = Counter(module.colour for module in stack)
    for rank, module in enumerate(stack):
        module.level = Level(rank, len(stack), alike[module.colour] == 1)


def _kind(module: Module) -> object:
    """What sort of layer it is, whatever its sizes: how many tensors of which rank."""
    counts: dict[int, int] = {}
    for signature, count in module.bag.items():
        rank = len(signature[1]) if isinstance(signature, tuple) and isinstance(signature[1], tuple) else -1
        counts[rank] = counts.get(rank, 0) + count
    return frozenset(counts.items())


def path_tokens(tree: NameTree, name: str) -> set[str]:
    """What a name says, as a set: words, whole segments, neighbours, the numbers of ensembles."""
    text = tree.stripped[name]
    segments: Sequence[str] = text.split(".")
    found: set[str] = set()
    words_before = ""
    around = [tree.modules[index] for index in reversed(tree.ancestors(tree.module_of[name]))]
    for segment, module_around in zip(segments[:-1] if role_of(text) else segments, around, strict=False):
        words = tokens_of(segment, module_around.attends)
        found.update(words)
        joined = "_".join(words)
        if joined:
            found.add(f"={joined}")
            if words_before:
                found.add(f"{words_before}>{joined}")
            words_before = joined
    module = tree.module_of[name]
    while module > 0:
        if tree.modules[module].member:
            found.add(tree.modules[module].member)
        module = tree.modules[module].parent
    return found


def numbers_agree(one: NameTree, a: str, other: NameTree, b: str) -> bool:
    """Whether two tensors of one name are numbered alike: of ``Q1`` in {Q0, Q1} and in {Q1, Q2} nobody knows."""
    here, there = one.ancestors(one.module_of[a]), other.ancestors(other.module_of[b])
    for i, j in zip(here, there, strict=False):
        numbers, others = one.modules[i].numbers, other.modules[j].numbers
        if numbers and others and not (numbers <= others or others <= numbers):
            return False
    return True


def doubtful_names(one: NameTree, other: NameTree) -> set[str]:
    """Names of both sides, wrappers left out, of which each side has a twin that says more, each in a way of its own.

    Where one has ``encoder`` and ``transformer.encoder``, the other ``encoder`` and ``vae_encoder``, nobody knows. But
    ``critic_target`` and ``critic_old`` beside two ``critic`` are a word for a word.
    """
    common = set(one.stripped.values()) & set(other.stripped.values())
    here, there = _twins(one, common), _twins(other, common)
    doubtful = set()
    for name, text in one.stripped.items():
        if text not in common:
            continue
        said = wording(text)
        key = said.numbers, one.modules[one.module_of[name]].colour
        longer = [{twin.form for twin in twins.get(key, ()) if said.words < twin.words} for twins in (here, there)]
        if all(longer) and not longer[0] & longer[1]:
            doubtful.add(text)
    return doubtful


def _twins(tree: NameTree, common: set[str]) -> dict[object, set[Wording]]:
    """The names that only this side has, by their numbers and the structure of the module."""
    found: dict[object, set[Wording]] = {}
    for name, text in tree.stripped.items():
        if text not in common:
            said = wording(text)
            found.setdefault((said.numbers, tree.modules[tree.module_of[name]].colour), set()).add(said)
    return found


def depths_agree(one: NameTree, a: str, other: NameTree, b: str) -> bool:
    """Whether the numbers in two names may be compared: of stacks of different depth nobody knows which layer is which.

    Known there are layers without their like in both stacks that come as the same from the beginning. Stacks within
    stacks are compared in order, those that only one side has are passed over. Where one side counts through and the
    other by stages, a block is known that each side has once.
    """
    here, there = one.levels(one.module_of[a]), other.levels(other.module_of[b])
    few, many = (here, there) if len(here) <= len(there) else (there, here)
    waiting = iter(many)
    if all(any(_levels_agree(level, candidate) for candidate in waiting) for level in few):
        return True
    nested = [
        sum(bool(tree.modules[index].numbers) for index in tree.ancestors(tree.module_of[name]))
        for tree, name in ((one, a), (other, b))
    ]
    return nested[0] != nested[1] and bool(one.blocks(one.module_of[a]) & other.blocks(other.module_of[b]))


def _levels_agree(a: Level, b: Level) -> bool:
    return a.depth == b.depth or (a.rank == b.rank and a.alone and b.alone)
