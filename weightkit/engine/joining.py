"""Rules that take or give several tensors: which belong together, in which order, with which literal sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from weightkit.core.names import Lists
from weightkit.core.plan import Param
from weightkit.core.rule import Companions, Rule, RuleOp
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.engine.matching import Bound
from weightkit.shape_ops import JOINS, OP_KINDS, PARTS, ShapeOp

GoalSpec = Callable[[str], "TensorSpec | None"]


class IncompleteGroup(ValueError):
    """Tensors that belong together are not all there."""

    code = "WK214"
    hint = "give the source its missing tensors, or leave the others out: --drop PATTERN"


class Member(NamedTuple):
    """A source tensor of a group, the place of its template among the rule's sources, and its variables."""

    name: str
    place: int
    bound: Bound


@dataclass(slots=True)
class Group:
    """The source tensors of one step: those of ``rule`` that agree in all variables (``rest``) but those joined over.

    With ``companions`` they are not the parameters that the rule speaks of but what travels with them.
    """

    rule: Rule
    rest: Bound
    companions: Companions | None = None
    suffix: str = ""
    members: list[Member] = field(default_factory=list)

    def named(self, parameter: str) -> str:
        """The name of this group's kind of tensor for ``parameter``."""
        return parameter if self.companions is None else self.companions.name_of(parameter, self.suffix)


class Joined(NamedTuple):
    """A step in the making: its ops, literal, and the specs that they give."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    ops: tuple[ShapeOp, ...]
    specs: tuple[TensorSpec, ...]


class _Dimension(NamedTuple):
    """One direction in which the tensors of a group are laid out: a variable, or the places of the templates ("")."""

    over: str
    length: int


def resolve(group: Group, source: StateSpec, goal_spec: GoalSpec, lists: Lists) -> Joined:
    """The step that a group is.

    Raises IncompleteGroup where a place or a number is missing or doubled, ValueError where an op does not fit.
    """
    rule = group.rule
    joins = [op for op in rule.ops if op.name in JOINS]
    for kinds, what in ((JOINS, "join the sources"), (PARTS, "part into the targets")):
        if sum(op.name in kinds and not op.over for op in rule.ops) > 1:
            raise ValueError(f"two of its ops {what}: one does that, others go over a variable")
    laid_out = _source_dimensions(group, joins)
    names = _in_order(group, laid_out, lists)
    specs = tuple(source[name] for name in names)
    counts = {dimension.over: dimension.length for dimension in laid_out}
    ops: list[ShapeOp] = []
    parted: list[_Dimension] = []
    for place, op in enumerate(rule.ops):
        params: dict[str, object] = dict(op.params)
        if op.name in JOINS:
            _check_count(op, params, counts[op.over])
        wanted = None
        if place == len(rule.ops) - 1 and not op.over and not parted:
            goals = [goal_spec(group.named(name)) for name in _filled(rule, group.rest, lists)]
            known = tuple(goal for goal in goals if goal is not None)
            wanted = known if len(known) == len(goals) else None
        if op.name == "copy" and not op.over:
            _check_count(op, params, len(rule.targets))
        literal = _literal(op, specs, wanted, params)
        before, specs = len(specs), literal.infer(specs)
        ops.append(literal)
        if op.name in PARTS:
            parted.append(_Dimension(op.over, len(specs) // before))
    targets = _targets(group, parted, lists)
    if len(targets) != len(specs):
        raise ValueError(f"its ops give {len(specs)} tensors, it has {len(targets)} targets: {', '.join(targets[:8])}")
    return Joined(names, targets, tuple(ops), specs)


def _check_count(op: RuleOp, params: dict[str, object], count: int) -> None:
    """How many tensors ``op`` takes or gives; where the rule says it too, both must agree."""
    said = params.setdefault("count", count)
    if said != count:
        raise IncompleteGroup(f"op {op.name!r} says count = {said}, there are {count}")


def _literal(
    op: RuleOp, specs: tuple[TensorSpec, ...], wanted: tuple[TensorSpec, ...] | None, params: dict[str, object]
) -> ShapeOp:
    if op.name not in OP_KINDS:
        raise ValueError(f"there is no op {op.name!r}; known: {', '.join(OP_KINDS)}")
    values: dict[str, Param] = {}
    for name, value in params.items():
        if name in ("specs", "wanted"):
            raise ValueError(f"op {op.name!r} has no parameter {name!r}")
        values[name] = tuple(value) if isinstance(value, list) else value  # type: ignore[assignment]
    try:
        return OP_KINDS[op.name](specs, wanted, **values)
    except ValueError as reason:
        raise ValueError(f"op {op.name!r}: {reason}") from None


def _source_dimensions(group: Group, joins: list[RuleOp]) -> list[_Dimension]:
    """How the sources are laid out, the outermost first: what is joined first lies innermost."""
    rule = group.rule
    found: list[_Dimension] = []
    for op in joins:
        if op.over:
            numbers = sorted({_number(member.bound[op.over]) for member in group.members})
            if numbers != list(range(len(numbers))):
                missing = sorted(set(range(numbers[-1])) - set(numbers))
                raise IncompleteGroup(
                    f"{op.over} is {', '.join(map(str, numbers))}: {', '.join(map(str, missing[:8]))} is missing"
                )
            found.append(_Dimension(op.over, len(numbers)))
        else:
            found.append(_Dimension("", len(rule.sources)))
    if len(rule.sources) > 1 and not any(not dimension.over for dimension in found):
        found.append(_Dimension("", len(rule.sources)))
    return found[::-1]


def _in_order(group: Group, laid_out: list[_Dimension], lists: Lists) -> tuple[str, ...]:
    at: dict[tuple[int, ...], str] = {}
    for member in group.members:
        key = tuple(_number(member.bound[each.over]) if each.over else member.place for each in laid_out)
        first = at.setdefault(key, member.name)
        if first != member.name:
            raise IncompleteGroup(f"{first!r} and {member.name!r} both stand for one tensor of the group")
    names = []
    for key in product(*(range(dimension.length) for dimension in laid_out)):
        if key not in at:
            raise IncompleteGroup(f"there is no {_wanted_name(group, laid_out, key, lists)!r}")
        names.append(at[key])
    return tuple(names)


def _wanted_name(group: Group, laid_out: list[_Dimension], key: tuple[int, ...], lists: Lists) -> str:
    place, bound = 0, dict(group.rest)
    for dimension, number in zip(laid_out, key, strict=True):
        if dimension.over:
            bound[dimension.over] = number
        else:
            place = number
    template = group.rule.sources[place]
    name = template.fill(bound, lists)
    return template.text if name is None else group.named(name)


def _filled(rule: Rule, bound: Bound, lists: Lists) -> list[str]:
    return [name for template in rule.targets if (name := template.fill(bound, lists)) is not None]


def _targets(group: Group, parted: list[_Dimension], lists: Lists) -> tuple[str, ...]:
    """The names of what the ops give, in their order: what is parted first lies outermost."""
    rule = group.rule
    laid_out = list(parted)
    places = next((each.length for each in laid_out if not each.over), len(rule.targets))
    if places != len(rule.targets):
        raise ValueError(f"its ops part into {places}, it names {len(rule.targets)} targets")
    if len(rule.targets) > 1 and not any(not dimension.over for dimension in laid_out):
        laid_out.insert(0, _Dimension("", len(rule.targets)))
    names = []
    for key in product(*(range(dimension.length) for dimension in laid_out)):
        place, bound = 0, dict(group.rest)
        for dimension, number in zip(laid_out, key, strict=True):
            if dimension.over:
                bound[dimension.over] = number
            else:
                place = number
        name = rule.targets[place].fill(bound, lists)
        if name is None:
            raise ValueError(f"target {rule.targets[place].text!r}: a list of the target is too short for {bound}")
        names.append(group.named(name))
    return tuple(names)


def _number(value: int | str) -> int:
    assert isinstance(value, int)
    return value
