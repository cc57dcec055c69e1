"""What a convert Report and its plan say about every tensor, worst first: what the page is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from weightkit.core.plan import Plan, Step
from weightkit.core.report import Report
from weightkit.core.tensor import TensorSpec
from weightkit.core.text import printable
from weightkit.reporting.page.states import RANK, STATE, STATES, State, Weight

if TYPE_CHECKING:
    from weightkit.engine.statistics import Histogram

Specs = tuple["TensorSpec | None", ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: a target tensor with what it is made of, or a source tensor that becomes none (``target`` None).

    ``how`` says in words what is done, ``why`` has the reason or the error. ``digest`` is the target's.
    """

    state: State
    group: str
    sources: tuple[str, ...] = ()
    target: str | None = None
    source_specs: Specs = ()
    target_spec: TensorSpec | None = None
    how: str = ""
    why: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    histogram: Histogram | None = None

    @property
    def name(self) -> str:
        """The target's name, where there is none the source's."""
        return self.target if self.target is not None else self.sources[0]

    @property
    def numel(self) -> int:
        """The elements of the target, where there is none of the source."""
        specs = (self.target_spec,) if self.target is not None else self.source_specs
        return sum(spec.numel for spec in specs if spec is not None)


@dataclass(slots=True)
class Card:
    """One group of target tensors: counts, and how many of its tensors are in which state."""

    name: str
    tensors: int = 0
    adapted: int = 0
    left_out: int = 0
    refused: int = 0
    parameters: int = 0
    states: dict[str, int] = field(default_factory=dict)

    @property
    def worst(self) -> State:
        """The state of its worst tensor."""
        return next(state for state in STATES if state.key in self.states)


@dataclass(frozen=True, slots=True)
class Account:
    """Every source name and every target name of a conversion, worst first, and the groups of the target."""

    report: Report
    plan: Plan | None
    entries: tuple[Entry, ...]
    cards: tuple[Card, ...]

    def count(self, *keys: str) -> int:
        """How many entries are in one of these states."""
        return sum(entry.state.key in keys for entry in self.entries)

    @property
    def used(self) -> int:
        """The source names that become something."""
        return sum(len(step.sources) for step in self.plan.steps) if self.plan is not None else 0


def make_account(
    report: Report,
    plan: Plan | None,
    group_of: Callable[[str], str],
    histograms: Mapping[str, Histogram] | None = None,
) -> Account:
    """Judge every tensor of ``plan``, which is as far as it came where the report is a refusal; None for no plan."""
    if plan is None:
        return Account(report, None, (), ())
    errors: dict[str, list[str]] = {}
    for finding in report.errors():
        errors.setdefault(finding.subject, []).append(f"{finding.code}: {finding.message}")
    entries = _Judge(report, plan, group_of, errors, histograms or {}).entries()
    order = {entry.name: place for place, entry in enumerate(entries)}
    entries.sort(key=lambda entry: (RANK[entry.state.key], order[entry.name]))
    return Account(report, plan, tuple(entries), tuple(_cards(entries, plan, group_of)))


def _cards(entries: Sequence[Entry], plan: Plan, group_of: Callable[[str], str]) -> list[Card]:
    cards: dict[str, Card] = {}
    for name in plan.target:
        cards.setdefault(group_of(name), Card(group_of(name)))
    for entry in entries:
        if entry.target is None or entry.group not in cards:
            continue
        card = cards[entry.group]
        key = entry.state.key
        card.states[key] = card.states.get(key, 0) + 1
        card.left_out += key == "left_out"
        card.refused += key == "refused"
        if key not in ("left_out", "refused"):
            card.tensors += 1
            card.adapted += bool(entry.row.get("ops"))
            card.parameters += entry.numel if key != "repeated" else 0
    return [card for card in cards.values() if card.states]


@dataclass(frozen=True, slots=True)
class _Judge:
    report: Report
    plan: Plan
    group_of: Callable[[str], str]
    errors: Mapping[str, Sequence[str]]
    histograms: Mapping[str, Histogram]

    def entries(self) -> list[Entry]:
        """In the order of the plan: targets, then sources that become none."""
        plan = self.plan
        listed: Any = self.report.facts.get("rows", ())
        rows: dict[str, Mapping[str, Any]] = {row["target"]: row for row in listed}
        found = {entry.name: entry for step in plan.steps for entry in self._made(step, rows)}
        for name, why in plan.left_out.items():
            found[name] = self._target("left_out", name, why)
        for name, of in plan.repeated.items():
            how = f"the same as {of}"
            found[name] = self._target("repeated", name, "", how, self.histograms.get(of))
        targets = [found.get(name) or self._target("refused", name, self._error(name)) for name in plan.target]
        used = {name for entry in targets for name in entry.sources}
        return [*targets, *(self._source(name) for name in plan.source if name not in used)]

    def _made(self, step: Step, rows: Mapping[str, Mapping[str, Any]]) -> list[Entry]:
        made = []
        for target, spec in zip(step.targets, step.target_specs, strict=True):
            row = rows.get(target) or _row(step)
            values = self.histograms.get(target)
            wrong = [text for name in (target, *step.sources) for text in self.errors.get(_shown(name), ())]
            key = "refused" if wrong else _state(step, target, values)
            how = " then ".join(step.adapters) if step.adapters else ", ".join(op.name for op in step.ops)
            why = " ".join(dict.fromkeys(wrong)) or " ".join(op.preserves for op in step.ops if op.op_class != "BIJ")
            made.append(
                Entry(
                    STATE[key], self.group_of(target), step.sources, target, step.source_specs, spec, how, why, row,
                    values,
                )
            )  # fmt: skip
        return made

    def _target(self, key: str, name: str, why: str, how: str = "", values: Histogram | None = None) -> Entry:
        spec = self.plan.target[name]
        return Entry(STATE[key], self.group_of(name), (), name, (), spec, how, why, {}, values)

    def _source(self, name: str) -> Entry:
        plan, spec = self.plan, (self.plan.source[name],)
        key, how, why = "refused", "", self._error(name)
        if name in plan.second_names:
            second = plan.second_names[name]
            if not self.errors.get(_shown(name)):
                key, how, why = "second_name", f"the same as {second.of}", second.why
        elif name in plan.dropped:
            key, why = "dropped", plan.dropped[name]
        return Entry(STATE[key], self.group_of(name), (name,), None, spec, None, how, why)

    def _error(self, name: str) -> str:
        return " ".join(self.errors.get(_shown(name), ("another error keeps it from its place",)))


def _shown(name: str) -> str:
    """A name as a finding's subject has it."""
    return printable(name, longest=len(name))


def _state(step: Step, target: str, values: Histogram | None) -> str:
    if step.op_class == "LOSSY":
        return "lossy"
    if not step.sources:
        return "initialised"
    if step.adapters or step.op_class != "BIJ":
        return "adapted"
    if values is not None and (values.nan or values.inf):
        return "not_finite"
    if step.ops:
        return "rearranged"
    return "kept" if step.sources == (target,) else "renamed"


def _row(step: Step) -> dict[str, Any]:
    """What a Report's row has of a step, where the report has no rows because the plan did not hold."""
    return {"ops": [str(op) for op in step.ops], "class": step.op_class, "rule": step.rule}


def weight_of(account: Account) -> Weight:
    """The weight of the worst that happened; that of a function check that fails counts too."""
    check: Any = account.report.facts.get("function_check") or {}
    if not account.report.ok or check.get("verdict") == "different":
        return Weight.LOST
    worst = min((e.state.weight for e in account.entries if e.target is not None), default=Weight.KEPT)
    return Weight.CHANGED if worst is Weight.KEPT and check.get("verdict") == "blind" else worst
