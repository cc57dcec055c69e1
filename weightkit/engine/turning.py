"""A mapping read backwards, and two mappings joined where they meet.

Every layout has one mapping, into the names of the net. Its renamings turned round lead back; between two layouts a
conversion goes from the one's names to the other's by way of the net's, as one mapping with a rule for each tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Mapping as NameMap

from weightkit.core.names import Lists, Template, parse_template
from weightkit.core.plan import ConversionTarget
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Fate, Mapping, Rule, RuleOp, Spelling
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.engine.matching import Filler, TemplateIndex
from weightkit.errors import PlanError, RuleError

NameOf = Callable[[str], "str | None"]


def same_name(name: str) -> str | None:
    """The name in a layout that is the net's own."""
    return name


def backwards(mapping: Mapping, lists: Lists) -> NameOf:
    """What gives the name in the mapping's source layout of a tensor in its target layout, None where it has none.

    Raises RuleError for a mapping that does more than rename and drop.
    """
    lists = {**lists, **mapping.lists}
    for rule in mapping.rules:
        if rule.fate is Fate.INIT or (rule.fate is Fate.MAP and (rule.ops or not rule.is_plain)):
            raise RuleError(
                f"mapping {mapping.name!r}: rule {rule.id!r} does more than rename, so it leads one way only",
                hint="write a mapping for the way back, and give it with --map",
            )
    rules = [rule for rule in mapping.rules if rule.fate is Fate.MAP]
    fillers = {rule.id: Filler(rule.sources[0], lists) for rule in rules}
    index = TemplateIndex(((rule.targets[0], rule) for rule in rules), lists)

    def name_of(name: str) -> str | None:
        found = {fillers[rule.id].fill(bound) for rule, bound in index.find(name)}
        found.discard(None)
        if len(found) > 1:
            listed = " and ".join(sorted(map(repr, found)))
            raise RuleError(f"mapping {mapping.name!r}: read backwards it gives {name!r} two names, {listed}")
        return next(iter(found), None)

    return name_of


def layout_target(
    native: ConversionTarget, mapping: Mapping, extras: NameMap[str, TensorSpec], layout: str
) -> ConversionTarget:
    """What a conversion of ``native`` into the mapping's source layout must produce.

    Tensors have the specs of the net's; second names are those of the mapping's aliases; ``extras`` are tensors that
    the net does not have. Raises PlanError for a tensor that has no name there.
    """
    name_of = backwards(mapping, native.lists)
    names: dict[str, str] = {}
    nameless: list[Finding] = []
    for name in native.state.unique():
        found = name_of(name)
        if found is None:
            message = f"layout {layout!r} has no such tensor, so the policy cannot be expressed in it"
            nameless.append(Finding("WK202", Severity.ERROR, name, message))
        else:
            names[name] = found
    if nameless:
        message = f"{len(nameless)} tensors of the policy have no place in layout {layout!r}, the first is "
        raise PlanError(f"{message}{nameless[0].subject!r}", report=Report("plan", tuple(nameless), exit_code=1))
    if len(set(names.values())) < len(names):
        raise RuleError(f"mapping {mapping.name!r}: read backwards it gives two tensors one name")
    tensors = {names[name]: native.state[name] for name in names} | dict(extras)
    aliases = _second_names(mapping, {**native.lists, **mapping.lists}, tensors)
    state = StateSpec({**tensors, **{name: tensors[of] for name, of in aliases.items()}}, aliases)
    return ConversionTarget(
        layout,
        state,
        native.lists,
        {names[name]: axes for name, axes in native.axes.items() if name in names},
        frozenset(names[name] for name in native.acting if name in names),
    )


def _second_names(mapping: Mapping, lists: Lists, tensors: NameMap[str, TensorSpec]) -> dict[str, str]:
    index = TemplateIndex(((spelling.of, spelling) for spelling in mapping.spellings), lists)
    aliases: dict[str, str] = {}
    for name in tensors:
        for spelling, bound in index.find(name):
            other = Filler(spelling.name, lists).fill(bound)
            if other is not None and other not in tensors:
                aliases[other] = name
    return aliases


def joined(
    source: Mapping,
    source_native: StateSpec,
    source_name: NameOf,
    target: ConversionTarget,
    target_native: StateSpec,
    target_name: NameOf,
    extras: NameMap[str, str],
) -> Mapping:
    """The mapping from the layout that ``source`` comes from to ``target``, by way of the net's names.

    ``source_name`` and ``target_name`` give a net's tensor its names in the two layouts; ``source_native`` and
    ``target_native`` say which of the net's names are one tensor. Copies that become one tensor must be equal; one
    tensor that becomes several is copied. ``extras``: tensors of the target that start as zeros, and why.
    """
    becomes: dict[tuple[str, ...], list[str]] = {}
    for name in target_native.unique():
        group = [name, *(alias for alias, of in target_native.aliases.items() if of == name)]
        froms = _distinct(source_name(source_native.canonical(n) if n in source_native else n) for n in group)
        tos = _distinct(map(target_name, group))
        if froms and tos:
            goals = becomes.setdefault(froms, [])
            goals += [to for to in tos if to not in goals]
    rules = [rule for rule in source.rules if rule.fate is Fate.DROP]
    taken = {rule.id for rule in rules}
    for froms, goals in becomes.items():
        ops = ([RuleOp("same")] if len(froms) > 1 else []) + ([RuleOp("copy")] if len(goals) > 1 else [])
        rules.append(Rule(_free(goals[0], taken), _literal(froms), _literal(goals), tuple(ops)))
    for name, why in extras.items():
        rules.append(Rule(_free(name, taken), targets=_literal((name,)), fate=Fate.INIT, why=why))
    return Mapping(
        f"{source.source_layout}-to-{target.layout}",
        1,
        source.source_layout,
        target.layout,
        tuple(rules),
        spellings=(*source.spellings, *_ties(source_native, source_name)),
        companions=source.companions,
        lists=source.lists,
    )


def _ties(native: StateSpec, name_of: NameOf) -> list[Spelling]:
    """The names of one tensor of the net that a layout has both."""
    pairs = ((name_of(alias), name_of(of)) for alias, of in native.aliases.items())
    why = "the net uses one tensor in both places"
    return [
        Spelling(parse_template(alias), parse_template(of), why)
        for alias, of in pairs
        if alias is not None and of is not None and alias != of
    ]


def _distinct(names: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _literal(names: Iterable[str]) -> tuple[Template, ...]:
    return tuple(map(parse_template, names))


def _free(name: str, taken: set[str]) -> str:
    """An id for the rule that makes ``name``, which no rule has yet."""
    while name in taken:
        name += "'"
    taken.add(name)
    return name
