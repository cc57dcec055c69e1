"""Names as a suggestion sees them: without wrappers, as tokens, as a tree of modules with runs of numbered siblings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Segments that a wrapper of a module adds, wherever they stand."""

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NUMBERED = re.compile(r"(?P<stem>.*?)_?(?P<number>0|[1-9][0-9]{0,8})", re.DOTALL)

_SYNONYMS = (
    "visual vis image img rgb pixel view vision",
    "camera cam",
    "obs observation",
    "encoder enc convnet conv cnn backbone",
    "actor policy pi",
    "critic value q qf vf qnet",
    "target ema slow shadow averaged",
    "mlp net network fc dense ffn",
    "layer block stage",
    "head out output",
    "mean mu",
    "std sigma stddev",
    "norm ln layernorm bn batchnorm groupnorm rmsnorm",
    "state proprio proprioception qpos",
    "action act",
    "embedding embed emb",
    "attention attn",
    "projection proj",
    "temperature temp alpha",
)
_CLASS = {word: line.split()[0] for line in _SYNONYMS for word in line.split()}
COPY = "target"
"""The token of an averaged copy: having it tells a module from its twin even where the other side never says it."""

_ROLES = {
    "weight": "weight w kernel gamma scale",
    "bias": "bias b beta offset",
    "running_mean": "running_mean moving_mean",
    "running_var": "running_var moving_variance",
    "num_batches_tracked": "num_batches_tracked",
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}


def stripped_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without the segments of wrappers; as it is where two names would then be one."""
    names = list(names)
    bare = {name: [s for s in name.split(".") if s not in WRAPPERS] or [name] for name in names}
    if names and all(len(segments) > 1 and segments[0] == "module" for segments in bare.values()):
        bare = {name: segments[1:] for name, segments in bare.items()}
    found = {name: ".".join(segments) for name, segments in bare.items()}
    counts: dict[str, int] = {}
    for text in found.values():
        counts[text] = counts.get(text, 0) + 1
    return {name: text if counts[text] == 1 else name for name, text in found.items()}


def role_of(name: str) -> str:
    """What a tensor is in its module: "weight", "bias"... by its last segment; "" where that is no usual word."""
    return _ROLE_OF.get(name.rpartition(".")[2].lower(), "")


def tokens_of(segment: str) -> list[str]:
    """The words of a segment, lower case, plurals and synonyms as one: ``critic_targets`` -> critic, target."""
    words = []
    for found in _TOKEN.findall(segment):
        word = found.lower()
        if word not in _CLASS and word.endswith("s") and not word.endswith("ss") and word != "bias":
            word = word[:-1]
        words.append(_CLASS.get(word, word))
    return words


def numbered(segment: str) -> tuple[str, int] | None:
    """``(stem, number)`` of ``qf0`` or ``3``; None where a segment does not end in a number."""
    found = _NUMBERED.fullmatch(segment)
    return None if found is None else (found["stem"], int(found["number"]))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a module stands in a sequence of numbered siblings, among those of its kind."""

    rank: int
    length: int
    number: int
    kind: object


@dataclass(slots=True)
class Module:
    """A node of the name tree. ``bag`` counts the specs below it, ``own`` those directly in it.

    Among numbered siblings ``numbers`` are all of theirs; ``place`` is set in sequences, ``member`` in ensembles.
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


@dataclass(slots=True)
class NameTree:
    """All modules of one side, the root first; ``module_of`` gives the module that a tensor stands in."""

    modules: list[Module]
    module_of: dict[str, int]
    stripped: dict[str, str]

    def ancestors(self, module: int) -> list[int]:
        """The module and those around it, up to the root."""
        found = []
        while module >= 0:
            found.append(module)
            module = self.modules[module].parent
        return found


def numbers_agree(one: NameTree, a: str, other: NameTree, b: str) -> bool:
    """Whether two tensors of one name are numbered alike: of ``Q1`` in {Q0, Q1} and in {Q1, Q2} nobody knows."""
    here, there = one.ancestors(one.module_of[a]), other.ancestors(other.module_of[b])
    for i, j in zip(here, there, strict=False):
        numbers, others = one.modules[i].numbers, other.modules[j].numbers
        if numbers and others and not (numbers <= others or others <= numbers):
            return False
    return True


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
    return NameTree(modules, module_of, stripped)


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
        kinds: dict[object, list[tuple[int, int]]] = {}
        for number, child in run:
            kinds.setdefault(_kind(modules[child]), []).append((number, child))
        for kind, same in kinds.items():
            for rank, (number, child) in enumerate(same):
                modules[child].place = Place(rank, len(same), number, kind)


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
    for segment in segments[:-1] if role_of(text) else segments:
        words = tokens_of(segment)
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
