"""What is wrong with a mapping by itself, before any checkpoint is seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from weightkit.core.names import Template
from weightkit.core.report import Finding, Severity
from weightkit.core.rule import Fate, Mapping, Rule
from weightkit.engine.overlap import Witness, covers, find_overlap, spelled_out
from weightkit.engine.wrappers import ANYWHERE
from weightkit.shape_ops import JOINS, OP_KINDS, PARTS

_OVERRIDE = "add overrides = [...] to the rule that should win, or make one of them narrower"


def lint(mapping: Mapping) -> tuple[Finding, ...]:
    """Every fault of ``mapping``, each with a name that shows it.

    Two rules for one name (WK210), two that could make one target (WK203), rules that no name can reach (WK216), names
    of the target that no rule makes (WK217), ops that do not fit their rule (WK218).
    """
    found: list[Finding] = []
    rules = {rule.id: rule for rule in mapping.rules}
    for (first, one), (second, other), witness in _overlaps(_sources(mapping)):
        if first == second:
            found.append(
                _finding("WK210", witness, first, f"its sources {one.text!r} and {other.text!r} both match", "")
            )
        elif first not in rules[second].overrides and second not in rules[first].overrides:
            found.append(
                _finding("WK210", witness, witness.name, f"rules {first!r} and {second!r} both match", _OVERRIDE)
            )
    for (first, _), (second, _), witness in _overlaps(_targets(mapping)):
        if first != second and not _same_source(rules[first], rules[second], witness.name):
            message = f"rules {first!r} and {second!r} could both make it"
            hint = "give them targets that cannot be the same name; two tensors never become one"
            fault = _finding("WK203", witness, witness.name, message, hint)
            if _one_beats_the_other(rules[first], rules[second]):  # often both mean one tensor; a plan tells
                fault = fault.replace(severity=Severity.WARNING)
            found.append(fault)
    found += _dead(mapping)
    found += _unreached(mapping)
    for rule in mapping.rules:
        found += _misfits(rule)
    return tuple(found)


def _sources(mapping: Mapping) -> list[tuple[str, Template]]:
    return [
        (rule.id, each)
        for rule in mapping.rules
        for template in rule.sources
        for each in spelled_out(template, mapping.lists)
    ]


def _targets(mapping: Mapping) -> list[tuple[str, Template]]:
    return [
        (rule.id, each)
        for rule in mapping.rules
        for template in rule.targets
        for each in spelled_out(template, mapping.lists)
    ]


def _overlaps(
    items: list[tuple[str, Template]],
) -> Iterator[tuple[tuple[str, Template], tuple[str, Template], Witness]]:
    """Every two templates that match one name, with the name."""
    literal: dict[str, list[int]] = defaultdict(list)
    open_ended: list[int] = []
    for number, (_, template) in enumerate(items):
        first = template.segments[0]
        others = open_ended if first.var else literal[first.text]
        others.append(number)
    for group in literal.values():
        for place, number in enumerate(group):
            for other in (*group[:place], *open_ended):
                witness = find_overlap(items[other][1], items[number][1])
                if witness is not None:
                    yield items[other], items[number], witness
    for place, number in enumerate(open_ended):
        for other in open_ended[:place]:
            witness = find_overlap(items[other][1], items[number][1])
            if witness is not None:
                yield items[other], items[number], witness


def _same_source(one: Rule, other: Rule, target: str) -> bool:
    """Whether the one would make ``target`` only of a name that the other takes from it, by overriding it."""
    for winner, loser in ((one, other), (other, one)):
        if loser.id in winner.overrides and len(loser.sources) == len(loser.targets) == 1:
            bound = loser.targets[0].match(target, {})
            name = loser.sources[0].fill(bound, {}) if bound is not None else None
            if name is not None and any(source.match(name, {}) is not None for source in winner.sources):
                return True
    return False


def _one_beats_the_other(one: Rule, other: Rule) -> bool:
    """Whether one overrides the other where both match."""
    return one.id in other.overrides or other.id in one.overrides


def _dead(mapping: Mapping) -> Iterator[Finding]:
    by_id = {rule.id: rule for rule in mapping.rules}
    for rule in mapping.rules:
        for loser_id in rule.overrides:
            loser = by_id[loser_id]
            if all(any(covers(winner, source) for winner in rule.sources) for source in loser.sources):
                message = f"rule {rule.id!r} overrides it on every name that it matches"
                yield Finding("WK216", Severity.ERROR, loser_id, message, "delete it, or make the other narrower")
        if mapping.source_names and rule.sources:
            for source in rule.sources:
                if not _meets(source, mapping.source_names):
                    message = f"source {source.text!r} matches none of the mapping's source_names"
                    yield Finding("WK216", Severity.ERROR, rule.id, message, "correct the template, or source_names")


def _unreached(mapping: Mapping) -> Iterator[Finding]:
    makes = [template for rule in mapping.rules for template in rule.targets]
    for wanted in mapping.target_names:
        if not _meets(wanted, makes):
            message = "no rule makes this name of the target"
            yield Finding("WK217", Severity.ERROR, wanted.text, message, "add a rule, fate 'init' if it starts afresh")
    if mapping.target_names:
        for rule in mapping.rules:
            for target in rule.targets:
                if not _meets(target, mapping.target_names):
                    message = f"target {target.text!r} is none of the mapping's target_names"
                    yield Finding("WK217", Severity.ERROR, rule.id, message, "correct the template, or target_names")
    takes = [template for rule in mapping.rules for template in rule.sources]
    for spelling in mapping.spellings:
        if not _meets(spelling.of, takes) and not _meets(_without_wrappers(spelling.of), takes):
            message = f"it stands for {spelling.of.text!r}, which no rule takes"
            yield Finding("WK217", Severity.ERROR, spelling.name.text, message, "add the rule, or drop the alias")


def _without_wrappers(template: Template) -> Template:
    """The template as planning sees its names where no rule takes them as they are."""
    kept = tuple(segment for segment in template.segments if segment.var or segment.text not in ANYWHERE)
    return Template(template.text, kept or template.segments)


def _meets(template: Template, others: Iterable[Template]) -> bool:
    return any(find_overlap(template, other) is not None for other in others)


def _misfits(rule: Rule) -> Iterator[Finding]:
    def wrong(message: str, hint: str = "") -> Finding:
        return Finding("WK218", Severity.ERROR, rule.id, message, hint)

    if rule.fate is not Fate.MAP:
        return
    for op in rule.ops:
        if op.name not in OP_KINDS:
            yield wrong(f"there is no op {op.name!r}", f"known: {', '.join(OP_KINDS)}")
        elif op.over and op.over in rule.sources[0].variables and op.name not in JOINS:
            yield wrong(
                f"op {op.name!r} joins nothing, so it cannot go over {op.over!r}", f"joins: {', '.join(sorted(JOINS))}"
            )
        elif op.over and op.over in rule.targets[0].variables and op.name not in PARTS:
            yield wrong(
                f"op {op.name!r} parts nothing, so it cannot go over {op.over!r}", f"parts: {', '.join(sorted(PARTS))}"
            )
    plain = [op for op in rule.ops if not op.over]
    for kinds, what in ((JOINS, "join the sources"), (PARTS, "part into the targets")):
        if sum(op.name in kinds for op in plain) > 1:
            yield wrong(f"two of its ops {what}", "one does that; others go over a variable")
    joins = any(op.name in JOINS for op in plain)
    parts = any(op.name in PARTS for op in plain)
    if len(rule.sources) > 1 and len(rule.targets) == 1 and not joins:
        yield wrong(f"{len(rule.sources)} sources and no op joins them", "add {op = 'concat', axis = 0} or 'stack'")
    if len(rule.targets) > 1 and len(rule.sources) == 1 and not parts:
        yield wrong(
            f"{len(rule.targets)} targets and no op parts the source", "add {op = 'split', axis = 0}, or 'copy'"
        )
    if joins and len(rule.sources) == 1:
        yield wrong("an op joins, but there is one source and no variable that it goes over", "add over = 'VARIABLE'")
    if parts and len(rule.targets) == 1:
        yield wrong("an op parts, but there is one target and no variable that it goes over", "add over = 'VARIABLE'")


def _finding(code: str, witness: Witness, subject: str, message: str, hint: str) -> Finding:
    """An error; only a warning where the name needs an entry of a list to be called so."""
    if witness.by_chance:
        return Finding(
            code, Severity.WARNING, subject, f"{message}, where a list has the entry {witness.by_chance!r}", hint
        )
    shown = "" if subject == witness.name else f" {witness.name!r}"
    return Finding(code, Severity.ERROR, subject, f"{message}{shown}", hint)
