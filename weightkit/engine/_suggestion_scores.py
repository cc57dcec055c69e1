"""How well two tensors of two layouts go together: what their names say, and the modules that they stand in.

Scores are in nats, roughly: a pair of 0 is as likely as no pair at all. Nothing here looks at the order of a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, log1p
from typing import TYPE_CHECKING

from weightkit.engine._suggestion_names import COPY, role_of
from weightkit.engine._suggestion_tree import NameTree, Place, doubtful_names, numbers_agree, path_tokens

if TYPE_CHECKING:
    import numpy as np

PRIOR = -2.0
"""What speaks against a pair before anything is known of it."""
_SAME_NAME = 4.0
_OTHER_ROLE = -8.0
_UNSURE_ROLE = -1.0
_SAME_ROLE = 0.8
_SKIPPED_LEVEL = -0.25
_VOTE = 5.0
_SUPPORT = 3.0
_RARITY = 0.5
_WHOLE_CONTEXT = 1.5


class Sides:
    """The two sets of names with all that is known of each, and the score of any two of them."""

    def __init__(self, source: NameTree, target: NameTree) -> None:
        self.source, self.target = source, target
        self.source_names, self.target_names = list(source.module_of), list(target.module_of)
        self._source_index = {name: index for index, name in enumerate(self.source_names)}
        self._target_index = {name: index for index, name in enumerate(self.target_names)}
        self._doubtful = doubtful_names(source, target)
        self._prepare_names()
        self._bags: dict[tuple[int, int], float] = {}
        self._chains: dict[tuple[int, int], float] = {}
        self._chain_ids: dict[tuple[int, ...], int] = {}
        self._places_ids: dict[tuple[Place, ...], int] = {}
        self._source_chain = [self._chain_id(source, source.module_of[name]) for name in self.source_names]
        self._target_chain = [self._chain_id(target, target.module_of[name]) for name in self.target_names]
        self._source_places = [self._places_id(source, source.module_of[name]) for name in self.source_names]
        self._target_places = [self._places_id(target, target.module_of[name]) for name in self.target_names]
        self._chain_of, self._places_of = list(self._chain_ids), list(self._places_ids)
        self._bag_of = {module.colour: module.bag for tree in (source, target) for module in tree.modules}
        self.votes: np.ndarray | None = None

    # ---- names

    def _prepare_names(self) -> None:
        import numpy as np

        said = [
            [path_tokens(tree, name) for name in names]
            for tree, names in ((self.source, self.source_names), (self.target, self.target_names))
        ]
        here, there = (set().union(*sets) if sets else set() for sets in said)
        unified = _abbreviations(here - there, there - here)
        if unified:
            said[1] = [{unified.get(token, token) for token in tokens} for tokens in said[1]]
            there = {unified.get(token, token) for token in there}
        words = sorted(here | there)
        place = {token: index for index, token in enumerate(words)}
        marks = []
        for sets in said:
            matrix = np.zeros((len(sets), len(words)), np.float32)
            for row, tokens in enumerate(sets):
                matrix[row, [place[token] for token in tokens]] = 1
            marks.append(matrix)
        share = sum(matrix.mean(axis=0) if len(matrix) else np.zeros(len(words)) for matrix in marks) / 2
        weight = np.clip(0.6 - 0.5 * np.log(np.maximum(share, 1e-9)), 0.3, 2.0)
        whole = np.array([token[0] == "=" or ">" in token for token in words], bool) if words else np.zeros(0, bool)
        weight = np.where(whole, 0.4 * weight, weight)
        both = np.array([(token in here and token in there) or token == COPY for token in words], bool)
        against = np.where(both & ~whole, 0.6, 0.03) * weight
        self._said, self._marks, self._place_of = said, marks, place
        self._weight, self._against = weight.astype(np.float32), against.astype(np.float32)
        self._alone = [matrix @ self._against for matrix in marks]

    def same_name(self, source: str, target: str) -> bool:
        """Whether two tensors are called the same, and by a name that tells them from their twins."""
        text = self.source.stripped[source]
        return text == self.target.stripped[target] and text not in self._doubtful

    def shared_words(self, source: str, target: str) -> list[str]:
        """The words that two names share, the most telling first."""
        both = self._said[0][self._source_index[source]] & self._said[1][self._target_index[target]]
        words = [word for word in both if word[0] != "=" and ">" not in word and "#" not in word]
        return sorted(words, key=lambda word: (-self._weight[self._place_of[word]], word))

    # ---- structure

    def _chain_id(self, tree: NameTree, module: int) -> int:
        chain: list[int] = []
        for index in tree.ancestors(module):
            colour = tree.modules[index].colour
            if not chain or chain[-1] != colour:
                chain.append(colour)
        return self._chain_ids.setdefault(tuple(chain), len(self._chain_ids))

    def _places_id(self, tree: NameTree, module: int) -> int:
        found = (tree.modules[index].place for index in tree.ancestors(module))
        places = tuple(place for place in found if place is not None)
        return self._places_ids.setdefault(places, len(self._places_ids))

    def bags_alike(self, a: int, b: int) -> float:
        """How alike the contents of two modules are, by their colours: 1 for the same structure, down to -1."""
        if a == b:
            return 1.0
        key = (a, b)
        if key not in self._bags:
            one, other = self._bag_of[a], self._bag_of[b]
            shared = sum(min(count, other[spec]) for spec, count in one.items() if spec in other)
            total_one, total_other = sum(one.values()), sum(other.values())
            differing = total_one + total_other - 2 * shared
            if not differing:
                self._bags[key] = 0.8
            else:
                self._bags[key] = max(-1.0, 0.4 - 0.4 * log1p(differing)) if shared else -1.0
        return self._bags[key]

    def modules_alike(self, a: int, b: int) -> float:
        """The score of two chains of modules, leaf to root, aligned in order as well as can be."""
        key = (a, b)
        if key not in self._chains:
            one, other = self._chain_of[a], self._chain_of[b]
            alike = [[self.bags_alike(here, there) for there in other] for here in one]
            self._chains[key] = _aligned(alike, _SKIPPED_LEVEL) + (_WHOLE_CONTEXT if a == b else 0.0)
        return self._chains[key]

    def places_alike(self, a: int, b: int) -> float:
        """The score of two chains of places in sequences."""
        one, other = self._places_of[a], self._places_of[b]
        if len(one) == len(other):
            return sum(_place_alike(here, there) for here, there in zip(one, other, strict=True))
        return _aligned([[_place_alike(here, there) for there in other] for here in one], 0.0)

    def structural_evidence(self, source: str, target: str) -> list[str]:
        """What the modules around two tensors have in common, as short sentences."""
        here, there = self._source_index[source], self._target_index[target]
        one, other = self._chain_of[self._source_chain[here]], self._chain_of[self._target_chain[there]]
        if one == other:
            found = ["same structure up to the root"]
        else:
            levels = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
            found = [f"same structure {levels} level{'' if levels == 1 else 's'} up"] if levels else []
        places = self._places_of[self._source_places[here]], self._places_of[self._target_places[there]]
        if all(places) and places[0][0].rank == places[1][0].rank:
            found.append(f"layer {places[0][0].rank + 1} of {places[0][0].length}")
        return found

    def broken(self) -> float:
        """The share of the smaller side's tensors whose layer stands on the other side with other tensors, or not.

        Only layers of which each tensor's shape is known on the other side count. Where it is large, tensors are
        missing here and there, and likeness of structure is chance.
        """
        layers = []
        for tree, other in ((self.source, self.target), (self.target, self.source)):
            known = other.modules[0].bag
            counts: dict[frozenset[tuple[object, int]], int] = {}
            for module in tree.modules:
                if module.own and all(signature in known for signature, _ in module.own):
                    counts[module.own] = counts.get(module.own, 0) + 1
            layers.append(counts)
        sizes = [
            {layer: count * sum(times for _, times in layer) for layer, count in counts.items()} for counts in layers
        ]
        smaller = min(sum(size.values()) for size in sizes)
        whole = sum(min(size, sizes[1].get(layer, 0)) for layer, size in sizes[0].items())
        return 1.0 - whole / smaller if smaller else 0.0

    # ---- both

    def scores(self, sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
        """``(sources, targets)``: what each pair has going for it."""
        import numpy as np

        rows = [self._source_index[name] for name in sources]
        columns = [self._target_index[name] for name in targets]
        here, there = self._marks[0][rows], self._marks[1][columns]
        found = (here * (self._weight + 2 * self._against)) @ there.T
        found -= self._alone[0][rows][:, None] + self._alone[1][columns][None, :]
        for table, here_ids, there_ids in (
            (self.modules_alike, self._source_chain, self._target_chain),
            (self.places_alike, self._source_places, self._target_places),
        ):
            kinds_here, where_here = np.unique([here_ids[row] for row in rows], return_inverse=True)
            kinds_there, where_there = np.unique([there_ids[column] for column in columns], return_inverse=True)
            scored = np.array([[table(int(a), int(b)) for b in kinds_there] for a in kinds_here], np.float32)
            found += scored[where_here.reshape(-1)][:, where_there.reshape(-1)]
        found += _roles_alike(sources, targets)
        everything = len(self.source_names) + len(self.target_names)
        found += _RARITY * log(everything / (len(sources) + len(targets)))
        place = {self.target.stripped[name]: column for column, name in enumerate(targets)}
        for row, name in enumerate(sources):
            column = place.get(self.source.stripped[name])
            if (
                column is not None
                and self.same_name(name, targets[column])
                and numbers_agree(self.source, name, self.target, targets[column])
            ):
                found[row, column] += _SAME_NAME
        if self.votes is not None:
            modules_here = [self.source.module_of[name] for name in sources]
            modules_there = [self.target.module_of[name] for name in targets]
            votes = self.votes[modules_here][:, modules_there]
            most = votes.max(axis=1, keepdims=True)
            found += _VOTE * (votes - most) + _SUPPORT * np.minimum(most, 1.0)
        result: np.ndarray = (found + PRIOR).astype(np.float64)
        return result

    def take_votes(self, pairs: Mapping[str, str]) -> None:
        """Let decided pairs speak for the modules that they stand in: ``pairs`` source -> target."""
        import numpy as np

        sizes = len(self.source.modules), len(self.target.modules)
        count = np.zeros(sizes, np.float32)
        above = [[tree.ancestors(index) for index in range(len(tree.modules))] for tree in (self.source, self.target)]
        together: dict[tuple[int, int], int] = {}
        for source, target in pairs.items():
            key = (self.source.module_of[source], self.target.module_of[target])
            together[key] = together.get(key, 0) + 1
        for (one, other), times in together.items():
            count[np.ix_(above[0][one], above[1][other])] += times
        here, there = count[:, 0].copy(), count[0].copy()
        with np.errstate(invalid="ignore", divide="ignore"):
            dice = np.where(count > 0, 2 * count / (here[:, None] + there[None, :]), 0)
        for index, module in enumerate(self.target.modules):
            if module.parent >= 0:
                np.maximum(dice[:, index], dice[:, module.parent], out=dice[:, index])
        dice[0] = 0  # everything stands below the root
        for index, module in enumerate(self.source.modules):
            if module.parent >= 0:
                dice[index] += dice[module.parent]
        self.votes = dice.astype(np.float32)


def _abbreviations(here: set[str], there: set[str]) -> dict[str, str]:
    """Words of one side only that are the beginning of each other, as ``obs`` of ``observation``: there -> here."""
    found: dict[str, str] = {}
    plain = [sorted(token for token in side if token.isalpha() and len(token) >= 3) for side in (here, there)]
    for word in plain[1]:
        close = [other for other in plain[0] if other.startswith(word) or word.startswith(other)]
        if len(close) == 1 and close[0] not in found.values():
            found[word] = close[0]
    return found


def _place_alike(a: Place, b: Place) -> float:
    if a.kind != b.kind:
        return -1.0
    if a.length == b.length:
        return 1.5 if a.rank == b.rank else -1.5
    if a.number == b.number:
        return 0.5
    return 0.0 if a.rank == b.rank else -0.5


def _aligned(alike: Sequence[Sequence[float]], skipped: float) -> float:
    """The best sum over an alignment in order; each item that is left out of it adds ``skipped``."""
    width = len(alike[0]) if alike else 0
    row = [skipped * j for j in range(width + 1)]
    for line in alike:
        before, row = row, [row[0] + skipped]
        for j, value in enumerate(line):
            row.append(max(before[j] + value, before[j + 1] + skipped, row[j] + skipped))
    return row[-1]


def _roles_alike(sources: Sequence[str], targets: Sequence[str]) -> np.ndarray:
    import numpy as np

    codes: dict[str, int] = {"": 0}
    here, there = (
        np.array([codes.setdefault(role_of(name), len(codes)) for name in names], int) for names in (sources, targets)
    )
    same = here[:, None] == there[None, :]
    known = (here[:, None] > 0) & (there[None, :] > 0)
    neither = (here[:, None] == 0) & (there[None, :] == 0)
    result: np.ndarray = np.where(
        known, np.where(same, _SAME_ROLE, _OTHER_ROLE), np.where(neither, 0.0, _UNSURE_ROLE)
    ).astype(np.float32)
    return result
