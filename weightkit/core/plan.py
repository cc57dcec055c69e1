"""The consequence of rules on two specs: what happens to every tensor, before a byte is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

from weightkit.core.axes import FactoredAxis
from weightkit.core.jsonio import canonical_json
from weightkit.core.tensor import StateSpec, TensorSpec

OpClass = Literal["BIJ", "INJ", "LOSSY"]
OP_CLASSES: tuple[OpClass, ...] = ("BIJ", "INJ", "LOSSY")
Param = Union[int, float, str, "tuple[int, ...]"]
SCHEMA = "weightkit.plan.v1"


def worst(classes: tuple[OpClass, ...]) -> OpClass:
    """The class of a chain: that of its worst op. BIJ can be undone, INJ has a left inverse, LOSSY has none."""
    return max(classes, key=OP_CLASSES.index, default="BIJ")


@dataclass(frozen=True, slots=True)
class OpCall:
    """One op with its literal parameters. ``preserves`` says on which inputs the net's function stays the same."""

    name: str
    params: Mapping[str, Param]
    op_class: OpClass
    preserves: str

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={_shown(v)}' for k, v in self.params.items())})"

    def to_dict(self) -> dict[str, object]:
        """The call as JSON values."""
        params = {name: list(value) if isinstance(value, tuple) else value for name, value in self.params.items()}
        return {"op": self.name, "params": params, "class": self.op_class, "preserves": self.preserves}


def _shown(value: Param) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, slots=True)
class Step:
    """How ``targets`` come about: from ``sources``, in this order, by ``ops``; no sources means initial values.

    ``adapters`` are those of the ops that the user asked for, as typed.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    rule: str
    source_specs: tuple[TensorSpec, ...]
    target_specs: tuple[TensorSpec, ...]
    ops: tuple[OpCall, ...] = ()
    adapters: tuple[str, ...] = ()

    @property
    def op_class(self) -> OpClass:
        """The class of the worst op."""
        return worst(tuple(op.op_class for op in self.ops))


@dataclass(frozen=True, slots=True)
class SecondName:
    """A source name that stands for the tensor ``of``; ``checked`` where it is stored twice: the bytes are compared."""

    of: str
    why: str
    checked: bool


@dataclass(frozen=True, slots=True)
class ConversionTarget:
    """What a conversion must produce.

    ``lists`` are the named lists that templates look up, ``axes`` says what the entries of factored axes mean,
    ``acting`` are the names that choosing an action reads.
    """

    layout: str
    state: StateSpec
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    axes: Mapping[str, tuple[FactoredAxis, ...]] = field(default_factory=dict)
    acting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """Every source name and every target name, each accounted for exactly once.

    Source names = the steps' sources + ``dropped`` + ``second_names``; target names = the steps' targets +
    ``repeated`` (a name -> the target that holds the same) + ``left_out`` (not in the output, as the user asked). Where
    both names of a tie of the target (``target.aliases``) are made by steps, they are compared before one is written.

    ``digests`` holds the digest of every source tensor where the plan was made to be kept.
    """

    mapping: str
    mapping_digest: str
    target_layout: str
    source: StateSpec
    target: StateSpec
    steps: tuple[Step, ...]
    second_names: Mapping[str, SecondName]
    dropped: Mapping[str, str]
    left_out: Mapping[str, str]
    repeated: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] | None = None

    @property
    def op_class(self) -> OpClass:
        """The class of the worst step."""
        return worst(tuple({step.op_class for step in self.steps}))

    @property
    def strictness(self) -> str:
        """The strictest promise that this plan keeps.

        "exact": one to one, bit for bit, nothing dropped. "total": every name accounted for, nothing lost.
        "lossy": a step loses information. "partial": a target tensor is left out.
        """
        if self.left_out:
            return "partial"
        if self.op_class == "LOSSY":
            return "lossy"
        plain = self.op_class == "BIJ" and not self.dropped and all(step.sources for step in self.steps)
        return "exact" if plain else "total"

    def to_dict(self) -> dict[str, object]:
        """The plan as JSON values: all that is needed to review, compare and replay it."""
        return {
            "schema": SCHEMA,
            "mapping": self.mapping,
            "mapping_digest": self.mapping_digest,
            "target_layout": self.target_layout,
            "config": None if self.config is None else dict(self.config),
            "class": self.op_class,
            "strictness": self.strictness,
            "source": _state(self.source, self.digests),
            "target": _state(self.target, {}),
            "steps": [
                {
                    "sources": list(step.sources),
                    "targets": list(step.targets),
                    "rule": step.rule,
                    "ops": [op.to_dict() for op in step.ops],
                    "adapters": list(step.adapters),
                }
                for step in self.steps
            ],
            "second_names": {
                name: {"of": second.of, "why": second.why, "checked": second.checked}
                for name, second in self.second_names.items()
            },
            "dropped": dict(self.dropped),
            "left_out": dict(self.left_out),
            "repeated": dict(self.repeated),
        }

    @property
    def produced(self) -> StateSpec:
        """What the output holds: the target without what is left out."""
        return self.target.only(name for name in self.target if name not in self.left_out)

    @property
    def digest(self) -> str:
        """sha256 of the plan's canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()


def _state(state: StateSpec, digests: Mapping[str, str]) -> dict[str, object]:
    tensors: dict[str, dict[str, object]] = {}
    for name, spec in state.tensors.items():
        tensors[name] = {"dtype": spec.dtype.name, "shape": list(spec.shape)}
        if name in digests:
            tensors[name]["digest"] = digests[name]
    return {"tensors": tensors, "aliases": dict(state.aliases)}
