"""Rules and two specs give a plan in which every source name and every target name is accounted for exactly once."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from weightkit.core.axes import FactoredAxis, parse_axis
from weightkit.core.plan import ConversionTarget, OpCall, Plan, Step
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import AxisNote, Choices, Companions, Fate, Mapping, Rule
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.engine.joining import Group, Member, resolve
from weightkit.engine.matching import Globs, Match, Matcher, first_glob, is_glob, nearest
from weightkit.engine.reconciling import Reconciler
from weightkit.engine.wrappers import are_plain, unwrapped
from weightkit.errors import PlanError, UnmatchedPattern
from weightkit.shape_ops import as_call
from weightkit.shape_ops.fill import Fill

_SAME_OR_DROP = "give the target the source's configuration (--config_path, --set), or leave it out: --drop PATTERN"


class _Claim(NamedTuple):
    """What one step would do, before the targets' specs are looked at."""

    rule: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    ops: tuple[OpCall, ...] = ()
    specs: tuple[TensorSpec, ...] | None = None
    adaptable: bool = True


def make_plan(source: StateSpec, target: ConversionTarget, mapping: Mapping, choices: Choices | None = None) -> Plan:
    """What happens to every tensor of ``source`` so that ``target`` comes out whole.

    Raises PlanError with all findings (nothing is skipped, nothing guessed), UsageError for a pattern that matches
    nothing.
    """
    with _uncollected():
        return _Planner(source, target, mapping, choices or Choices()).plan(target.state)


def plan_from_rules(source: StateSpec, mapping: Mapping, choices: Choices | None = None) -> Plan:
    """The same where nobody says what the target should look like: it is what the rules give. Raises as `make_plan`."""
    target = ConversionTarget(mapping.target_layout, StateSpec({}))
    with _uncollected():
        return _Planner(source, target, mapping, choices or Choices()).plan(None)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the cyclic garbage collector: planning makes many objects and no cycles, and each collection would look
    at all of them, which makes time grow faster than the number of names."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class _Planner:
    """One planning: what was decided so far, and what was found wrong."""

    def __init__(self, source: StateSpec, target: ConversionTarget, mapping: Mapping, choices: Choices) -> None:
        self.source = source
        self.target = target
        self.mapping = mapping
        self.choices = choices
        self.matcher = Matcher(mapping, target.lists)
        self.findings: list[Finding] = []
        self.drops = Globs(choices.drop)
        self.missing = Globs(choices.allow_missing)
        self.reconciler = Reconciler(choices, self.findings)
        self.dropped: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.repeated: dict[str, str] = {}
        self.claims: dict[str, _Claim] = {}
        self.further: dict[str, list[_Claim]] = {}
        self.has_wrappers = not are_plain(source)
        self.groups: dict[object, Group] = {}
        self.goals: StateSpec | None = None
        self.wrapped_goals: dict[str, str] = {}

    def plan(self, goals: StateSpec | None) -> Plan:
        self.goals = goals
        if goals is not None and not are_plain(goals):
            self.wrapped_goals = {
                plain: name for name in goals if (plain := unwrapped(name)) != name and plain not in goals
            }
        for name in self.source if self.choices.drop else ():
            globs = self.drops.all(name)
            if globs:
                self.dropped[name] = f"--drop {globs[0]!r}"
        kept = (
            self.source.only(name for name in self.source if name not in self.dropped) if self.dropped else self.source
        )
        second, ambiguous = self.matcher.second_names(kept)
        for name in ambiguous:
            message = "the mapping's aliases make it a second name of two others"
            self._error("WK210", name, message, "make the aliases narrower")
        for name, other in second.items():
            if other.checked and self.source[name] != self.source[other.of]:
                message = f"it should be the same tensor as {other.of!r}, but "
                message += f"{self.source[name]} is not {self.source[other.of]}"
                self._error("WK211", name, message, "say which one counts: --drop the other")
        for name in kept:
            if name not in second:
                self._match(name, kept)
        for group in self.groups.values():
            self._join(group)
        steps = self._steps_for(goals) if goals is not None else self._steps_as_claimed()
        self._check_patterns(goals)
        made = goals if goals is not None else _as_made(steps)
        plan = Plan(
            self.mapping.name,
            self.mapping.digest,
            self.target.layout,
            self.source,
            made,
            tuple(steps),
            second,
            self.dropped,
            self.left_out,
            self.repeated,
        )
        self._refuse(plan)
        assert_total(plan)
        return plan

    def _refuse(self, plan: Plan) -> None:
        errors = [finding for finding in self.findings if finding.severity is Severity.ERROR]
        if errors:
            whole = f"{len(plan.source)} source and {len(plan.target)} target tensors"
            of = f"{len(errors)} of {whole} are not accounted for"
            raise PlanError(of, report=Report("plan", tuple(self.findings), exit_code=1), attempt=plan)

    def _error(self, code: str, subject: str, message: str, hint: str) -> None:
        self.findings.append(Finding(code, Severity.ERROR, subject, message, hint))

    # Which rule takes which name

    def _match(self, name: str, kept: StateSpec) -> None:
        """Find the rule that takes ``name``: as it is, by its first spelling, or without what wrappers added."""
        seen = self.matcher.first_spelling(name, kept)
        hits = self.matcher.matches(seen)
        if self.has_wrappers and not self._has_place(hits):
            plain = unwrapped(seen)
            others = self.matcher.matches(self.matcher.first_spelling(plain, kept)) if plain != seen else []
            if others and (not hits or self._has_place(others)):
                hits = others
        if not hits:
            self._match_companion(name)
            return
        for companions, parameter, _ in self.matcher.travels_with(name) if self.mapping.companions else ():
            rules = {hit.rule.id for hit in self.matcher.matches(parameter)}
            if rules != {hit.rule.id for hit in hits}:
                message = f"rule {hits[0].rule.id!r} takes it, and it travels with {parameter!r} (companions below "
                message += f"{companions.prefix!r})"
                self._error("WK210", name, message, "make the rule narrower, so that it does not match companions")
                return
        self._take(name, hits, None, "")

    def _has_place(self, hits: list[Match]) -> bool:
        """Whether the rules give the name a place in the target, or drop it, or join it, or disagree about it."""
        if not hits:
            return False
        rule, _, bound = hits[0]
        filler = self.matcher.fillers.get(rule.id)
        if len(hits) > 1 or rule.fate is Fate.DROP or filler is None or self.goals is None:
            return True
        goal = filler.fill(bound)
        return goal in self.goals or goal in self.wrapped_goals

    def _take(self, name: str, hits: list[Match], companions: Companions | None, suffix: str) -> None:
        """Do with ``name`` as its rule says; as a companion, as the rule says of its parameter."""
        if len(hits) > 1:
            ids = " and ".join(repr(hit.rule.id) for hit in hits)
            hint = "add overrides = [...] to the rule that should win"
            self._error("WK210", name, f"rules {ids} both match", hint)
            return
        rule, place, bound = hits[0]
        if rule.fate is Fate.DROP:
            self.dropped[name] = rule.why
            return
        is_scalar = companions is not None and suffix in companions.scalars
        filler = self.matcher.fillers.get(rule.id)
        if filler is not None:
            goal = filler.fill(bound)
            if goal is None:
                message = "this source tensor belongs to a camera that the target does not have"
                self._error("WK201", name, message, _SAME_OR_DROP)
                return
            if companions is not None:
                goal = companions.name_of(goal, suffix)
            if not rule.ops or is_scalar:
                self._claim(_Claim(rule.id, (name,), (goal,)))
                return
        elif is_scalar:
            message = f"it belongs to a parameter that rule {rule.id!r} joins with others or parts"
            self._error("WK201", name, message, "leave it out on purpose: --drop PATTERN")
            return
        overs = tuple(op.over for op in rule.ops if op.over and op.over in rule.sources[0].variables)
        rest = tuple(sorted((key, value) for key, value in bound.items() if key not in overs))
        key = (rule.id, rest, companions and companions.prefix, suffix)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(rule, dict(rest), companions, suffix)
        group.members.append(Member(name, place, bound))

    def _match_companion(self, name: str) -> None:
        """An optimizer's moments go where their parameter goes."""
        found = self.matcher.travels_with(name)
        if len(found) > 1:
            prefixes = " and ".join(repr(companions.prefix) for companions, _, _ in found)
            self._error("WK210", name, f"companions below {prefixes} both match", "make the prefixes tell them apart")
            return
        if found:
            companions, parameter, suffix = found[0]
            hits = self.matcher.matches(parameter) or self.matcher.matches(unwrapped(parameter))
            self._take(name, hits, companions, suffix)
            return
        message = f"no rule of mapping {self.mapping.name!r} knows this source tensor"
        self._error("WK201", name, message, "leave it out on purpose: --drop PATTERN")

    def _claim(self, claim: _Claim) -> None:
        """Note which target tensors the sources would become, each of which the target must have."""
        goals = self.goals
        if goals is not None and not goals.tensors.keys() >= set(claim.targets):
            targets = tuple(self.wrapped_goals.get(goal, goal) for goal in claim.targets)
            claim = claim._replace(targets=targets)
            strangers = [goal for goal in targets if goal not in goals]
            if strangers:
                becomes = "" if strangers == list(claim.sources) else f": it would become {strangers[0]!r}"
                message = f"this source tensor has no place in the target (rule {claim.rule!r}){becomes}"
                for name in claim.sources:
                    self._error("WK201", name, message, _SAME_OR_DROP)
                return
        for goal in claim.targets:
            if self.claims.setdefault(goal, claim) is not claim:
                self.further.setdefault(goal, []).append(claim)

    def _join(self, group: Group) -> None:
        """The claim of a rule that takes or gives several tensors, or has ops."""
        try:
            joined = resolve(group, self.source, self._goal_spec, self.matcher.lists)
        except ValueError as reason:
            subject = group.members[0].name if len(group.members) == 1 else self._subject(group)
            code = getattr(reason, "code", "WK205")
            self._error(code, subject, f"rule {group.rule.id!r}: {reason}", getattr(reason, "hint", ""))
            return
        ops = tuple(as_call(op) for op in joined.ops)
        self.reconciler.check_lossy(joined.targets[0], ops)
        alone = len(joined.targets) == 1
        self._claim(_Claim(group.rule.id, joined.sources, joined.targets, ops, joined.specs, alone))

    def _subject(self, group: Group) -> str:
        """The name that stands for a group in a finding: its target where there is one, else its first source."""
        target = group.rule.targets[0]
        if all(variable in group.rest for variable in target.variables):
            return target.fill(group.rest, self.matcher.lists) or group.members[0].name
        return group.members[0].name

    def _goal_spec(self, name: str) -> TensorSpec | None:
        if self.goals is None:
            return None
        found = self.goals.tensors.get(name)
        return found if found is not None else self.goals.tensors.get(self.wrapped_goals.get(name, name))

    # What every target tensor is made of

    def _steps_for(self, goals: StateSpec) -> list[Step]:
        steps: list[Step] = []
        initial = self._initial(goals)
        taken: set[int] = set()
        for goal, wanted in goals.tensors.items():
            claim = self.claims.get(goal)
            rule = initial.get(goal) if initial else None
            if claim is None and rule is None:
                first = self._tied(goal, goals, initial)
                if first is None:
                    self._leave_out(goal)
                else:
                    self.repeated[goal] = first
            elif claim is None:
                assert rule is not None
                steps.append(_initialise(rule, goal, wanted))
            elif goal in self.further or rule is not None:
                self._collision(goal, rule)
            elif len(claim.targets) == 1:
                steps.append(self._step(claim, (wanted,)))
            elif id(claim) not in taken:
                taken.add(id(claim))
                if not any(other in self.further for other in claim.targets):  # else that is said there
                    steps.append(self._step(claim, tuple(goals[name] for name in claim.targets)))
        return steps

    def _tied(self, goal: str, goals: StateSpec, initial: dict[str, Rule]) -> str | None:
        """The name that the target ties to ``goal`` and that something becomes, None where there is none."""
        if not goals.aliases:
            return None
        leader = goals.canonical(goal)
        names = (leader, *(name for name, of in goals.aliases.items() if of == leader))
        return next((name for name in names if name in self.claims or name in initial), None)

    def _steps_as_claimed(self) -> list[Step]:
        steps: list[Step] = []
        taken: set[int] = set()
        for goal, claim in self.claims.items():
            if goal in self.further:
                self._collision(goal, None)
            elif id(claim) not in taken:
                taken.add(id(claim))
                steps.append(self._step(claim, claim.specs or (self.source[claim.sources[0]],)))
        for rule in self.mapping.rules:
            if rule.fate is Fate.INIT:
                message = "what it initialises has a shape only where the target is known"
                self._error(
                    "WK202", rule.targets[0].text, f"rule {rule.id!r}: {message}", "give --like FILE or --to LAYOUT"
                )
        return steps

    def _step(self, claim: _Claim, wanted: tuple[TensorSpec, ...]) -> Step:
        tensors = self.source.tensors
        specs = tuple([tensors[name] for name in claim.sources])
        made = claim.specs if claim.specs is not None else specs
        if made == wanted and not self.reconciler.always:
            return Step(claim.sources, claim.targets, claim.rule, specs, wanted, claim.ops)
        if claim.adaptable:
            goal = claim.targets[0]
            more, adapters = self.reconciler.ops(made[0], goal, wanted[0], self._axes(goal))
            return Step(claim.sources, claim.targets, claim.rule, specs, wanted, (*claim.ops, *more), adapters)
        for goal, gives, wants in zip(claim.targets, made, wanted, strict=True):
            if gives != wants:
                message = f"rule {claim.rule!r} gives {gives}, the target wants {wants}"
                self._error("WK204", goal, message, "a rule that parts a tensor has no adapters: correct its sizes")
        return Step(claim.sources, claim.targets, claim.rule, specs, wanted, claim.ops)

    def _axes(self, goal: str) -> Sequence[FactoredAxis]:
        return self.target.axes.get(goal) or axes_of(goal, self.mapping.axes)

    def _collision(self, goal: str, rule: Rule | None) -> None:
        claimed = [self.claims[goal], *self.further.get(goal, ())]
        names = ", ".join(name for claim in claimed for name in claim.sources)
        count = sum(len(claim.sources) for claim in claimed)
        by = f", and rule {rule.id!r} would initialise it" if rule is not None else ""
        self._error("WK203", goal, f"claimed by {count} sources: {names}{by}", "drop all but one")

    def _initial(self, goals: StateSpec) -> dict[str, Rule]:
        """Target names that a rule gives initial values; of two such rules for one name the second is an error."""
        found: dict[str, Rule] = {}
        rules = [rule for rule in self.mapping.rules if rule.fate is Fate.INIT]
        for goal in goals if rules else ():
            for rule in rules:
                if any(template.match(goal, self.matcher.lists) is not None for template in rule.targets):
                    first = found.setdefault(goal, rule)
                    if first is not rule:
                        self._error("WK210", goal, f"rules {first.id!r} and {rule.id!r} both initialise it", "drop one")
        return found

    def _leave_out(self, goal: str) -> None:
        globs = self.missing.all(goal) if self.missing.patterns else []
        if not globs:
            hint = "give the target the source's configuration, or go without it: --allow-missing PATTERN"
            self._error("WK202", goal, "no source tensor gives this target tensor", hint)
        elif goal in self.target.acting and is_glob(globs[0]):
            message = f"choosing an action reads it, and --allow-missing {globs[0]!r} does not name it by itself"
            self._error("WK202", goal, message, f"if you mean it: --allow-missing {goal!r}")
        else:
            self.left_out[goal] = f"--allow-missing {globs[0]!r}"

    def _check_patterns(self, goals: StateSpec | None) -> None:
        """Refuse patterns that match nothing: a typing error must not look like a decision."""
        targets = list(goals) if goals is not None else list(self.claims)
        for option, patterns, names in (
            ("--drop", self.choices.drop, list(self.source)),
            ("--adapt", tuple(adapter.pattern for adapter in self.choices.adapt), targets),
            ("--allow-missing", self.choices.allow_missing, targets),
        ):
            for pattern in patterns:
                if not any(first_glob(name, (pattern,)) for name in names):
                    side = "source" if option == "--drop" else "target"
                    raise UnmatchedPattern(
                        f"{option} {pattern!r} matches no {side} tensor{nearest(pattern, names)}",
                        hint=f"{option} takes a glob over whole {side} names, such as {next(iter(names), '')!r}",
                    )


def axes_of(goal: str, notes: Sequence[AxisNote]) -> tuple[FactoredAxis, ...]:
    """What a mapping says about the axes of the target tensor ``goal``."""
    return tuple(parse_axis(note.axis, note.factors) for note in notes if first_glob(goal, (note.pattern,)))


def _initialise(rule: Rule, goal: str, wanted: TensorSpec) -> Step:
    fill = as_call(Fill(wanted.dtype.name, wanted.shape, rule.value))
    return Step((), (goal,), rule.id, (), (wanted,), (fill,))


def _as_made(steps: Sequence[Step]) -> StateSpec:
    return StateSpec({goal: spec for step in steps for goal, spec in zip(step.targets, step.target_specs, strict=True)})


def assert_total(plan: Plan) -> None:
    """Check both partitions of a plan: every source name and every target name exactly once, no name in two places."""
    used = [name for step in plan.steps for name in step.sources]
    made = [name for step in plan.steps for name in step.targets]
    used += plan.dropped
    used += plan.second_names
    made += plan.left_out
    made += plan.repeated
    for what, names, whole in (("source", used, plan.source), ("target", made, plan.target)):
        found = set(names)
        if len(names) != len(found) or found != whole.tensors.keys():
            odd = sorted(found ^ set(whole)) or sorted({n for n in names if names.count(n) > 1})
            raise AssertionError(f"the plan does not account for each {what} name exactly once: {odd}")
