"""The consequence of rules on two specs: what happens to every tensor, before a byte is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from weightkit.core.jsonio import canonical_json
from weightkit.core.rule import StackedAxis
from weightkit.core.tensor import StateSpec, TensorSpec

OpClass = Literal["BIJ", "INJ", "LOSSY"]
OP_CLASSES: tuple[OpClass, ...] = ("BIJ", "INJ", "LOSSY")


def worst(classes: tuple[OpClass, ...]) -> OpClass:
    """The class of a chain: that of its worst op. BIJ can be undone, INJ has a left inverse, LOSSY has none."""
    return max(classes, key=OP_CLASSES.index, default="BIJ")


@dataclass(frozen=True, slots=True)
class OpCall:
    """One op with its literal parameters. ``preserves`` says on which inputs the net's function stays the same."""

    name: str
    params: Mapping[str, int | str]
    op_class: OpClass
    preserves: str

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.params.items())})"


@dataclass(frozen=True, slots=True)
class Step:
    """How one target tensor comes about."""

    target: str
    source: str
    rule: str
    source_spec: TensorSpec
    target_spec: TensorSpec
    ops: tuple[OpCall, ...] = ()

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

    ``lists`` are the named lists that templates look up, ``stacked`` says which axes stack frames, ``acting`` are the
    names that choosing an action reads.
    """

    layout: str
    state: StateSpec
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    stacked: Mapping[str, StackedAxis] = field(default_factory=dict)
    acting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """Every source name and every target name, each accounted for exactly once.

    Source names = the steps' sources + ``dropped`` + ``second_names``; target names = the steps' targets +
    ``left_out`` (fresh initial values, as the user asked).
    """

    mapping: str
    mapping_digest: str
    target_layout: str
    steps: tuple[Step, ...]
    second_names: Mapping[str, SecondName]
    dropped: Mapping[str, str]
    left_out: Mapping[str, str]

    @property
    def op_class(self) -> OpClass:
        """The class of the worst step."""
        return worst(tuple(step.op_class for step in self.steps))

    def to_dict(self) -> dict[str, object]:
        """The plan as JSON values."""
        return {
            "schema": "weightkit.plan.v1",
            "mapping": self.mapping,
            "mapping_digest": self.mapping_digest,
            "target_layout": self.target_layout,
            "class": self.op_class,
            "steps": [
                {
                    "target": step.target,
                    "source": step.source,
                    "rule": step.rule,
                    "source_dtype": step.source_spec.dtype.name,
                    "source_shape": list(step.source_spec.shape),
                    "target_dtype": step.target_spec.dtype.name,
                    "target_shape": list(step.target_spec.shape),
                    "class": step.op_class,
                    "ops": [{"op": op.name, **op.params, "preserves": op.preserves} for op in step.ops],
                }
                for step in self.steps
            ],
            "second_names": {
                name: {"of": second.of, "why": second.why, "checked": second.checked}
                for name, second in self.second_names.items()
            },
            "dropped": dict(self.dropped),
            "left_out": dict(self.left_out),
        }

    @property
    def digest(self) -> str:
        """sha256 of the plan's canonical JSON."""
        import hashlib

        return hashlib.sha256(canonical_json(self.to_dict())).hexdigest()
