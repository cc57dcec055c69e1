"""A suggestion as the text of a draft mapping file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from weightkit.core.tensor import StateSpec
from weightkit.core.text import printable
from weightkit.engine.generalisation import Generalised, generalise
from weightkit.engine.suggestion import Suggested, Suggestion

_MOST_CANDIDATES = 6
_NO_ID = re.compile(r"[^a-z0-9]+")


def draft_mapping(
    suggestion: Suggestion, source: StateSpec, target: StateSpec, *, name: str, layouts: tuple[str, str]
) -> str:
    """The TOML text: a rule for what is sure; the rest as comments, so that no plan passes until somebody decides.

    ``layouts``: the names of the source's and the target's.
    """
    sure = {pair.source: pair for pair in suggestion.standing("sure")}
    rules, unwritable = generalise({name: pair.target for name, pair in sure.items()}, source)
    lines = [
        *_comment(f"A draft by `weightkit suggest`: {len(sure)} of {len(target.unique())} tensors have a rule."),
        "# Nothing applies it by itself: check it, decide what stands in comments, then `weightkit convert --map`.",
        f"name = {_quoted(name)}",
        "version = 1",
        f"source_layout = {_quoted(layouts[0])}",
        f"target_layout = {_quoted(layouts[1])}",
    ]
    taken: set[str] = set()
    for rule in rules:
        lines += ["", *_rule_lines(rule, [sure[name] for name in rule.pairs], taken)]
    lines += _second_names(source, [pair.source for pair in suggestion.pairs], list(suggestion.left_sources))
    lines += _open_pairs(suggestion)
    for a, b in unwritable.items():
        lines += ["", *_comment(f"NO TEMPLATE {a} -> {b}: braces or empty segments cannot be written in a rule")]
    for words, names in (
        ("UNMATCHED SOURCE", suggestion.left_sources),
        ("UNMATCHED TARGET", suggestion.left_targets),
    ):
        if names:
            lines.append("")
        for one in names:
            side = source if names is suggestion.left_sources else target
            lines += _comment(f"{words} {one} : {side[one]}")
    for alias, of in target.aliases.items():
        lines += _comment(f"SECOND NAME IN THE TARGET {alias} : the same tensor as {of}")
    return "\n".join(lines) + "\n"


def _rule_lines(rule: Generalised, pairs: Sequence[Suggested], taken: set[str]) -> list[str]:
    worst = min(pairs, key=lambda pair: pair.confidence)
    tensors = f"{len(pairs)} tensor{'' if len(pairs) == 1 else 's'}"
    lines = _comment(f"confidence {worst.confidence:.3f}, {tensors}: {'; '.join(worst.evidence)}")
    for pair in pairs:
        if pair.adapters:
            choices = " or ".join(f"--adapt {pair.target}={way}" for way in pair.adapters)
            lines += _comment(f"needs {choices}")
    return [*lines, *_table("rule", _id(rule, taken), rule.source.text, rule.target.text)]


def _table(kind: str, identity: str, source: str, target: str) -> list[str]:
    return [f"[[{kind}]]", f"id = {_quoted(identity)}", f"source = {_quoted(source)}", f"target = {_quoted(target)}"]


def _id(rule: Generalised, taken: set[str]) -> str:
    """A readable id that no other rule has: the literal words of the target."""
    words = [segment.text for segment in rule.target.segments if not segment.var]
    text = _NO_ID.sub("-", "-".join(words).lower()).strip("-")[:60] or "all"
    identity, number = text, 2
    while identity in taken:
        identity, number = f"{text}-{number}", number + 1
    taken.add(identity)
    return identity


def _second_names(source: StateSpec, paired: Iterable[str], left: list[str]) -> list[str]:
    """``[[alias]]`` tables for the names of the source that stand for a tensor spelled otherwise in the rules."""
    spelled = {source.canonical(name): name for name in (*paired, *left)}
    pairs = {
        name: spelled[source.canonical(name)]
        for name in source
        if source.canonical(name) in spelled and spelled[source.canonical(name)] != name
    }
    lines: list[str] = []
    rules, unwritable = generalise(pairs, source)
    for rule in rules:
        lines += [
            "",
            "[[alias]]",
            f"name = {_quoted(rule.source.text)}",
            f"of = {_quoted(rule.target.text)}",
            'why = "the source stores one tensor under both names"',
        ]
    for name, of in unwritable.items():
        lines += _comment(f"SECOND NAME {name} : the same tensor as {of}")
    return lines


def _open_pairs(suggestion: Suggestion) -> list[str]:
    lines: list[str] = []
    for pair in suggestion.standing("unsure"):
        said = "; ".join(pair.evidence)
        lines += ["", *_comment(f"UNSURE {pair.confidence:.3f} {pair.source} : {pair.target} ({said})")]
    ambiguous = suggestion.standing("ambiguous")
    if ambiguous:
        lines.append("")
    for pair in ambiguous:
        shown = " | ".join(pair.candidates[:_MOST_CANDIDATES])
        more = len(pair.candidates) - _MOST_CANDIDATES
        shown += f" | and {more} more" if more > 0 else ""
        lines += _comment(f"AMBIGUOUS {pair.source} : {shown} ({'; '.join(pair.evidence)})")
    return lines


def _comment(text: str) -> list[str]:
    return [f"# {printable(text, longest=4000)}"]


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset, but for the code points that stand outside of the BMP."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
