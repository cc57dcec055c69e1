"""What is intended: rules between the names of two layouts, and adapters for shapes. Data, no callables."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping as NameMap
from dataclasses import dataclass, field
from enum import Enum

from weightkit.core.jsonio import canonical_json
from weightkit.core.names import Template, VariableKind, parse_template
from weightkit.errors import RuleError


class Fate(str, Enum):
    """What a rule does: its source tensors become its targets, are dropped, or its targets get initial values."""

    MAP = "map"
    DROP = "drop"
    INIT = "init"


@dataclass(frozen=True, slots=True)
class RuleOp:
    """One op of a rule, as it is written: sizes that the tensors say may be missing.

    ``over`` names the variable along which tensors are joined or parted: the experts of a stack, the critics of an
    ensemble. It stands in the templates of one side only.
    """

    name: str
    params: NameMap[str, object] = field(default_factory=dict)
    over: str = ""

    def to_dict(self) -> dict[str, object]:
        """The op as JSON values."""
        return {"op": self.name, **self.params, **({"over": self.over} if self.over else {})}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a mapping: tensors whose names match ``sources`` become ``targets`` by ``ops``.

    With several sources or targets, or an op ``over`` a variable, one step takes or gives several tensors; all of them
    must be there. ``fate`` drop has no targets, ``init`` no sources: its targets are filled with ``value``. Both need a
    ``why``. ``overrides`` lists the ids of rules that this one may beat where both match; nothing else decides.
    """

    id: str
    sources: tuple[Template, ...] = ()
    targets: tuple[Template, ...] = ()
    ops: tuple[RuleOp, ...] = ()
    fate: Fate = Fate.MAP
    why: str = ""
    overrides: tuple[str, ...] = ()
    value: float = 0.0

    def __post_init__(self) -> None:
        if self.fate is Fate.MAP:
            self._check_map()
            return
        word, needed, unwanted = (
            ("drops", self.sources, self.targets)
            if self.fate is Fate.DROP
            else ("initialises", self.targets, self.sources)
        )
        if not self.why.strip():
            raise RuleError(f"rule {self.id!r} {word} tensors without a reason", hint="add why = '...'")
        side = ("source", "target") if self.fate is Fate.DROP else ("target", "source")
        if not needed:
            raise RuleError(f"rule {self.id!r} {word} tensors and has no {side[0]}")
        if unwanted or self.ops:
            raise RuleError(f"rule {self.id!r} {word} tensors: it can have neither a {side[1]} nor ops")

    def _check_map(self) -> None:
        if not self.sources:
            raise RuleError(f"rule {self.id!r} has no source", hint="add source = '...'")
        if not self.targets:
            raise RuleError(f"rule {self.id!r} maps tensors to nothing", hint="add target = '...'")
        overs = [op.over for op in self.ops if op.over]
        for side in (self.sources, self.targets):
            for template in side[1:]:
                if template.variables != side[0].variables:
                    raise RuleError(
                        f"rule {self.id!r}: {side[0].text!r} binds {_shown(side[0].variables)}, {template.text!r} "
                        f"binds {_shown(template.variables)}: the tensors of one step must bind the same variables"
                    )
        sources, targets = self.sources[0].variables, self.targets[0].variables
        for over in overs:
            if overs.count(over) > 1 or (over in sources) == (over in targets):
                raise RuleError(
                    f"rule {self.id!r} has an op over {over!r}, which must stand on one side of the rule, in one op"
                )
            if (sources if over in sources else targets)[over] != "int":
                raise RuleError(f"rule {self.id!r}: {over!r} is no number, so it has no order to join or part along")
        if _without(sources, overs) != _without(targets, overs):
            raise RuleError(
                f"rule {self.id!r}: {self.sources[0].text!r} binds {_shown(sources)}, "
                f"{self.targets[0].text!r} binds {_shown(targets)}: two tensors could get one name",
                hint="use the same variables on both sides, or join them: an op with over = 'VARIABLE'",
            )

    @property
    def is_plain(self) -> bool:
        """Whether each tensor that it maps becomes one tensor."""
        return len(self.sources) == len(self.targets) == 1 and not any(op.over for op in self.ops)

    def to_dict(self) -> dict[str, object]:
        """The rule as JSON values."""
        return {
            "id": self.id,
            "sources": [template.text for template in self.sources],
            "targets": [template.text for template in self.targets],
            "ops": [op.to_dict() for op in self.ops],
            "fate": self.fate.value,
            "why": self.why,
            "overrides": sorted(self.overrides),
            **({"value": self.value} if self.fate is Fate.INIT else {}),
        }


def _without(variables: NameMap[str, VariableKind], names: list[str]) -> dict[str, VariableKind]:
    return {name: kind for name, kind in variables.items() if name not in names}


def _shown(variables: NameMap[str, VariableKind]) -> str:
    return ", ".join(f"{name}:{kind}" for name, kind in variables.items()) or "nothing"


def renaming(id: str, source: Template, target: Template, *, overrides: tuple[str, ...] = ()) -> Rule:
    """The rule that gives tensors another name and leaves them as they are."""
    return Rule(id, (source,), (target,), overrides=overrides)


@dataclass(frozen=True, slots=True)
class Spelling:
    """A second name by which a layout lists the same tensor: ``name`` stands for ``of``."""

    name: Template
    of: Template
    why: str

    def __post_init__(self) -> None:
        if self.name.variables != self.of.variables:
            raise RuleError(f"alias {self.name.text!r} of {self.of.text!r}: both must bind the same variables")


@dataclass(frozen=True, slots=True)
class Companions:
    """Tensors that travel with a parameter: ``PREFIX.<its name>.SUFFIX`` goes where the parameter goes, by its ops.

    An optimizer's moments are such; a suffix in ``scalars`` (a step count) takes the name and not the ops.
    """

    prefix: str
    suffixes: tuple[str, ...]
    scalars: tuple[str, ...] = ()

    def parameter_of(self, name: str) -> tuple[str, str] | None:
        """``(parameter, suffix)`` where ``name`` is a companion's, else None."""
        if not name.startswith(f"{self.prefix}."):
            return None
        parameter, _, suffix = name[len(self.prefix) + 1 :].rpartition(".")
        return (parameter, suffix) if parameter and suffix in (*self.suffixes, *self.scalars) else None

    def name_of(self, parameter: str, suffix: str) -> str:
        """The companion of ``parameter``."""
        return f"{self.prefix}.{parameter}.{suffix}"

    def to_dict(self) -> dict[str, object]:
        """The companions as JSON values."""
        return {"prefix": self.prefix, "suffixes": list(self.suffixes), "scalars": list(self.scalars)}


@dataclass(frozen=True, slots=True)
class AxisNote:
    """What the entries of an axis mean, for all target names that match a glob: notation of `core.axes`."""

    pattern: str
    axis: int
    factors: str

    def to_dict(self) -> dict[str, object]:
        """The note as JSON values."""
        return {"pattern": self.pattern, "axis": self.axis, "factors": self.factors}


@dataclass(frozen=True, slots=True)
class Mapping:
    """A named set of rules from one layout to another.

    ``lists`` are lists that templates look up, beside those of the target. ``source_names`` and ``target_names`` may
    list what the layouts have, for `lint`; planning does not need them.
    """

    name: str
    version: int
    source_layout: str
    target_layout: str
    rules: tuple[Rule, ...]
    spellings: tuple[Spelling, ...] = ()
    companions: tuple[Companions, ...] = ()
    axes: tuple[AxisNote, ...] = ()
    source_names: tuple[Template, ...] = ()
    target_names: tuple[Template, ...] = ()
    lists: NameMap[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = Counter(rule.id for rule in self.rules)
        for rule in self.rules:
            if ids[rule.id] > 1:
                raise RuleError(f"mapping {self.name!r}: two rules are called {rule.id!r}")
            for other in rule.overrides:
                if other not in ids or other == rule.id:
                    raise RuleError(f"mapping {self.name!r}: rule {rule.id!r} overrides {other!r}, which is not there")

    def to_dict(self) -> dict[str, object]:
        """The mapping as JSON values; rules in the order of their ids, since their order does not matter."""
        aliases = ({"name": each.name.text, "of": each.of.text, "why": each.why} for each in self.spellings)
        return {
            "schema": "weightkit.mapping.v1",
            "name": self.name,
            "version": self.version,
            "source_layout": self.source_layout,
            "target_layout": self.target_layout,
            "rules": [rule.to_dict() for rule in sorted(self.rules, key=lambda rule: rule.id)],
            "aliases": sorted(aliases, key=canonical_json),
            "companions": sorted((each.to_dict() for each in self.companions), key=canonical_json),
            "axes": [note.to_dict() for note in self.axes],
            **({"lists": {name: list(entries) for name, entries in self.lists.items()}} if self.lists else {}),
        }

    @property
    def digest(self) -> str:
        """sha256 of the mapping's canonical JSON: the same for any order of the rules."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()


def identity_mapping(layout: str) -> Mapping:
    """The mapping that keeps every name."""
    everything = parse_template("{rest:path}")
    return Mapping(f"{layout}-as-it-is", 1, layout, layout, (renaming("same-name", everything, everything),))


@dataclass(frozen=True, slots=True)
class Adapter:
    """A way to reconcile shapes that the user asked for: target names matching the glob ``pattern`` use ``kind``.

    ``kind`` is the adapter's name ("inflate"), ``choice`` what follows the colon ("newest").
    """

    pattern: str
    kind: str
    choice: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.choice}" if self.choice else self.kind


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user decided about a conversion, as globs over whole names (``*`` crosses dots).

    ``drop`` matches source names, ``adapt`` and ``allow_missing`` target names.
    """

    adapt: tuple[Adapter, ...] = ()
    drop: tuple[str, ...] = ()
    allow_missing: tuple[str, ...] = ()
    allow_lossy: bool = False
