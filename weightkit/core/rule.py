"""What is intended: rules between the names of two layouts, and adapters for shapes. Data, no callables."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

from weightkit.core.jsonio import canonical_json
from weightkit.core.names import Template, parse_template, same_variables
from weightkit.errors import RuleError


class Fate(str, Enum):
    """What a rule does with the tensors it matches."""

    MAP = "map"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a mapping: names that match ``source`` become ``target``, or are dropped with the reason ``why``.

    ``overrides`` lists the ids of rules that this one may beat on a name that both match; nothing else decides.
    """

    id: str
    source: Template
    target: Template | None = None
    fate: Fate = Fate.MAP
    why: str = ""
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.fate is Fate.DROP:
            if not self.why:
                raise RuleError(f"rule {self.id!r} drops tensors without a reason", hint="add why = '...'")
            if self.target is not None:
                raise RuleError(f"rule {self.id!r} drops tensors and names a target")
            return
        if self.target is None:
            raise RuleError(f"rule {self.id!r} maps tensors to nothing", hint="add target = '...'")
        if not same_variables(self.source, self.target):
            raise RuleError(
                f"rule {self.id!r}: {self.source.text!r} binds {self.source.variables}, "
                f"{self.target.text!r} binds {self.target.variables}: two tensors could get one name",
                hint="use the same variables on both sides",
            )


@dataclass(frozen=True, slots=True)
class Spelling:
    """A second name by which a layout lists the same tensor: ``name`` stands for ``of``."""

    name: Template
    of: Template
    why: str

    def __post_init__(self) -> None:
        if not same_variables(self.name, self.of):
            raise RuleError(f"alias {self.name.text!r} of {self.of.text!r}: both must bind the same variables")


@dataclass(frozen=True, slots=True)
class Mapping:
    """A named set of rules from one layout to another."""

    name: str
    version: int
    source_layout: str
    target_layout: str
    rules: tuple[Rule, ...]
    spellings: tuple[Spelling, ...] = ()

    def __post_init__(self) -> None:
        ids = [rule.id for rule in self.rules]
        for rule in self.rules:
            if ids.count(rule.id) > 1:
                raise RuleError(f"mapping {self.name!r}: two rules are called {rule.id!r}")
            for other in rule.overrides:
                if other not in ids:
                    raise RuleError(f"mapping {self.name!r}: rule {rule.id!r} overrides {other!r}, which is not there")

    def to_dict(self) -> dict[str, object]:
        """The mapping as JSON values; rules in the order of their ids, since their order does not matter."""
        return {
            "schema": "weightkit.mapping.v1",
            "name": self.name,
            "version": self.version,
            "source_layout": self.source_layout,
            "target_layout": self.target_layout,
            "rules": [
                {
                    "id": rule.id,
                    "source": rule.source.text,
                    "target": rule.target.text if rule.target else None,
                    "fate": rule.fate.value,
                    "why": rule.why,
                    "overrides": sorted(rule.overrides),
                }
                for rule in sorted(self.rules, key=lambda r: r.id)
            ],
            "aliases": sorted(
                ({"name": s.name.text, "of": s.of.text, "why": s.why} for s in self.spellings),
                key=lambda item: item["name"],
            ),
        }

    @property
    def digest(self) -> str:
        """sha256 of the mapping's canonical JSON: the same for any order of the rules."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()


def identity_mapping(layout: str) -> Mapping:
    """The mapping that keeps every name."""
    everything = parse_template("{rest:path}")
    return Mapping(f"{layout}-as-it-is", 1, layout, layout, (Rule("same-name", everything, everything),))


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


@dataclass(frozen=True, slots=True)
class StackedAxis:
    """An axis that holds ``frames`` blocks of equal size, one per stacked frame, oldest first, newest last."""

    axis: int
    frames: int
