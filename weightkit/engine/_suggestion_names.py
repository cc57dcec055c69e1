"""Names as a suggestion sees them: without wrappers, as words, with what their last segment says a tensor is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from weightkit.engine.wrappers import ANYWHERE, IN_FRONT

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_DIGITS = re.compile(r"[0-9]+")
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

_ATTENTION = {"q": "query", "query": "query", "k": "key", "key": "key", "v": "value", "value": "value"}
"""What the words mean beside each other; apart from a query and a key, a value is a critic."""

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
    bare = {name: [s for s in name.split(".") if s not in ANYWHERE] or [name] for name in names}
    if names and all(len(segments) > 1 and segments[0] == IN_FRONT for segments in bare.values()):
        bare = {name: segments[1:] for name, segments in bare.items()}
    found = {name: ".".join(segments) for name, segments in bare.items()}
    counts: dict[str, int] = {}
    for text in found.values():
        counts[text] = counts.get(text, 0) + 1
    return {name: text if counts[text] == 1 else name for name, text in found.items()}


def role_of(name: str) -> str:
    """What a tensor is in its module: "weight", "bias"... by its last segment; "" where that is no usual word."""
    return _ROLE_OF.get(name.rpartition(".")[2].lower(), "")


def tokens_of(segment: str, attends: bool = False) -> list[str]:
    """The words of a segment, lower case, plurals and synonyms as one: ``critic_targets`` -> critic, target.

    ``attends``: it stands among the projections of an attention, where ``q`` is a query.
    """
    words = []
    for found in _TOKEN.findall(segment):
        word = found.lower()
        if attends and word in _ATTENTION:
            words.append(_ATTENTION[word])
            continue
        if word not in _CLASS and len(word) > 1 and word.endswith("s") and not word.endswith("ss") and word != "bias":
            word = word[:-1]
        words.append(_CLASS.get(word, word))
    return words


@dataclass(frozen=True, slots=True)
class Wording:
    """All words of a name as `tokens_of` gives them, how many each segment has, and the numbers in order."""

    words: frozenset[str]
    form: tuple[int, ...]
    numbers: tuple[str, ...]


def wording(text: str) -> Wording:
    """The wording of a name."""
    segments = [tokens_of(segment) for segment in text.split(".")]
    words = frozenset(word for segment in segments for word in segment)
    return Wording(words, tuple(len(segment) for segment in segments), tuple(_DIGITS.findall(text)))


def numbered(segment: str) -> tuple[str, int] | None:
    """``(stem, number)`` of ``qf0`` or ``3``; None where a segment does not end in a number."""
    found = _NUMBERED.fullmatch(segment)
    return None if found is None else (found["stem"], int(found["number"]))
