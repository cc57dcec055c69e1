"""What is sure between nets that the suggestion was not made for is right: `fixtures/suggest`, both ways, shuffled."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from locations import FIXTURES
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine import _suggestion_scores as scores_of_pairs
from weightkit.engine import suggestion as engine
from weightkit.engine.suggestion import suggest_pairs

LEAST_PRECISION = 0.95
LEAST_COVERAGE = 0.35
FOLDER = FIXTURES / "suggest"
TOTALS = ("part A", "part B", "part C", "all")


@dataclass(frozen=True, slots=True)
class Unseen:
    """Two layouts and which tensor of one is which of the other.

    ``part``: A was looked at while the rules for depth were made, B only after them, C not at all (docs/mapping.md).
    """

    source: str
    target: str
    part: str
    truth: Mapping[str, str]

    @property
    def title(self) -> str:
        return f"{self.source} > {self.target}"

    def backwards(self) -> Unseen:
        return Unseen(self.target, self.source, self.part, {goal: name for name, goal in self.truth.items()})


@dataclass(frozen=True, slots=True)
class Score:
    """How many pairs were sure, how many of them right, and how many there are."""

    sure: int
    right: int
    possible: int

    def __add__(self, other: Score) -> Score:
        return Score(self.sure + other.sure, self.right + other.right, self.possible + other.possible)

    @property
    def precision(self) -> float:
        return self.right / self.sure if self.sure else 1.0

    @property
    def coverage(self) -> float:
        return self.right / self.possible

    def __str__(self) -> str:
        counts = f"sure {self.sure:4} right {self.right:4} of {self.possible:4}"
        return f"{counts}  precision {self.precision:.3f} coverage {self.coverage:.3f}"


@cache
def tables() -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Dtype and shape by name, by layout."""
    found: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for title, tensors in json.loads((FOLDER / "tables.json").read_text(encoding="utf-8")).items():
        found[title] = {}
        for name, text in tensors.items():
            dtype, _, shape = text.rpartition(" ")
            found[title][name] = dtype or "float32", tuple(int(n) for n in shape.split("x") if n)
    return found


def renamed(name: str, rules: list[list[str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@cache
def pairs() -> tuple[Unseen, ...]:
    """The pairs with their truth: renames one after the other, or the same order in both."""
    found = []
    for entry in json.loads((FOLDER / "pairs.json").read_text(encoding="utf-8")):
        here, there, rules = tables()[entry["source"]], tables()[entry["target"]], entry["truth"]
        if rules == "order":
            truth = dict(zip(here, there, strict=True))
        else:
            truth = {name: goal for name in here if (goal := renamed(name, rules)) in there}
        found.append(Unseen(entry["source"], entry["target"], entry["part"], truth))
    return tuple(found)


def shuffled(title: str, draw: random.Random) -> StateSpec:
    entries = tables()[title]
    return StateSpec(
        {name: spec(entries[name][0], *entries[name][1]) for name in draw.sample(list(entries), len(entries))}
    )


def scored(pair: Unseen) -> Score:
    draw = random.Random(pair.title)
    sure = suggest_pairs(shuffled(pair.source, draw), shuffled(pair.target, draw)).standing("sure")
    return Score(len(sure), sum(pair.truth.get(found.source) == found.target for found in sure), len(pair.truth))


def measured() -> dict[str, Score]:
    """The score of every pair, both ways, and of the parts and all together."""
    found: dict[str, Score] = {}
    totals = {title: Score(0, 0, 0) for title in TOTALS}
    for pair in pairs():
        for one in (pair, pair.backwards()):
            found[one.title] = scored(one)
            for title in (f"part {pair.part}", "all"):
                totals[title] += found[one.title]
    return found | totals


def report(scores: Mapping[str, Score]) -> str:
    return "\n".join(f"{title:50} {score}" for title, score in scores.items())


def test_what_is_sure_between_unseen_nets_is_right_and_much_is() -> None:
    scores = measured()
    sys.stdout.write(report(scores))  # `pytest -rP` shows it
    for title in TOTALS:
        assert scores[title].precision >= LEAST_PRECISION, report(scores)
        assert scores[title].coverage >= LEAST_COVERAGE, report(scores)


@pytest.mark.parametrize("mutant", ["constant", "no-margin", "any-name"])
def test_the_measure_catches_an_engine_that_is_too_sure(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if mutant == "constant":
        monkeypatch.setattr(engine, "confidence", lambda margin: 0.95)
    elif mutant == "any-name":
        monkeypatch.setattr(scores_of_pairs, "doubtful_names", lambda *trees: set())
    else:
        real = engine.assign

        def without_margins(scores: Any, within: float) -> tuple[list[int], list[float], list[list[int]]]:
            chosen, margins, options = real(scores, within)
            return chosen, [100.0] * len(margins), [option[:1] for option in options]

        monkeypatch.setattr(engine, "assign", without_margins)
    scores = measured()
    assert min(scores[title].precision for title in TOTALS) < LEAST_PRECISION, report(scores)


def hidden_layers_of_sac() -> Score:
    """Stable-Baselines3's SAC has two hidden layers on states, one on images: `latent_pi.2` is not `latent_pi.0`."""
    (pair,) = (pair for pair in pairs() if pair.title == "sb3_sac_mlp > sb3_sac_cnn")
    return scored(pair) + scored(pair.backwards())


def test_what_is_sure_between_nets_of_different_depth_is_right() -> None:
    score = hidden_layers_of_sac()
    assert score.right == score.sure > 0, score


def test_numbers_of_stacks_of_different_depth_would_mislead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "depths_agree", lambda *sides: True)
    assert hidden_layers_of_sac().precision < LEAST_PRECISION


def test_the_truth_is_one_to_one_and_of_one_shape_but_where_nets_differ_in_width() -> None:
    differing = {}
    for pair in pairs():
        here, there = tables()[pair.source], tables()[pair.target]
        assert len(set(pair.truth.values())) == len(pair.truth) > 0
        count = sum(here[name][1] != there[goal][1] for name, goal in pair.truth.items())
        if count:
            differing[pair.title] = count
    assert differing == {
        "timm_vit_wide > torchvision_vit": 55,
        "cleanrl_ppo > sb3_ppo": 1,
        "lerobot_tdmpc > original_tdmpc2": 4,
        "sb3_sac_mlp > sb3_sac_cnn": 5,
        "timm_convnext > torchvision_convnext": 9,
        "original_iql > d3rlpy_iql": 1,
    }
