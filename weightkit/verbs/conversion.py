"""A conversion that is planned and proven complete, and has moved nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from weightkit.architectures import (
    is_layout,
)
from weightkit.architectures.base import Architecture, Inputs
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.routes import groups_by_name
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.plan import Plan
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.engine.execution import Execution
from weightkit.errors import (
    NotDenseError,
)

AS_IT_IS = "as it is"
"""The target layout of a conversion that keeps every name."""

Progress = Callable[[int, int], None]
Look = Callable[[str, Any], None]
"""Is shown the name and the array of every tensor that is made."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """The source, what it was recognised as, and the plan.

    ``architecture`` and its ``config`` are those of the target where they are known. ``keeps_metadata``: whether what
    stands beside the tensors goes along, which it does only where the names stay the source's own. ``options`` are
    settings of the target layout, ``beside`` is what goes along with a known policy into any layout, ``acting`` are the
    target's names that choosing an action reads, ``inputs`` what its net looks at.
    """

    source: Checkpoint
    plan: Plan
    findings: tuple[Finding, ...]
    recognition: Recognition | None = None
    architecture: Architecture | None = None
    config: Any = None
    source_layout: str | None = None
    keeps_metadata: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, object] = field(default_factory=dict)
    acting: frozenset[str] = frozenset()
    inputs: Inputs | None = None

    def execution(self, progress: Progress | None = None, look: Look | None = None) -> Execution:
        """One application of the plan to the source."""
        return Execution(self.plan, self.source.read, progress, look)

    def arrays(self) -> Iterable[tuple[str, Any]]:
        """Target names and arrays, one at a time; raises as `Execution.arrays`."""
        return self.execution().arrays()

    def grouping(self) -> Callable[[str], str]:
        """What gives the group of a tensor that comes out."""
        layout, target = written_layout(self.plan), self.plan.target
        if self.architecture is None:
            return lambda name: name.split(".", 1)[0]
        if self.config is None or not is_layout(layout):
            return self.architecture.group_of
        group_of = groups_by_name(self.architecture, layout, self.config)
        return lambda name: group_of(target.canonical(name) if name in target else name)


def written_layout(plan: Plan) -> str:
    """The layout of what a plan writes: of names that stay as they are, that of the policy that is known."""
    if plan.target_layout == AS_IT_IS and plan.config is not None:
        return str(plan.config["type"])
    return plan.target_layout


def planned(
    checkpoint: Checkpoint,
    plan: Plan,
    findings: tuple[Finding, ...],
    recognition: Recognition | None,
    architecture: Architecture | None = None,
    config: Any = None,
    *,
    layout: str | None = None,
    keeps_metadata: bool = False,
) -> Conversion:
    if config is not None:
        plan = replace(plan, config=config.to_dict())
    refuse_not_dense(checkpoint, plan)
    layout = layout or (recognition.layout if recognition else None)
    return Conversion(checkpoint, plan, findings, recognition, architecture, config, layout, keeps_metadata)


def notes_on(plan: Plan) -> list[Finding]:
    """What a reader of the report must know although the plan holds."""
    notes = []
    for step in plan.steps:
        for op in step.ops:
            if op.op_class == "BIJ" and not step.adapters:
                continue
            code, severity = ("WK208", Severity.WARNING) if op.op_class == "LOSSY" else ("WK207", Severity.INFO)
            before, after = (
                " and ".join(map(str, specs)) or "nothing" for specs in (step.source_specs, step.target_specs)
            )
            notes.append(Finding(code, severity, step.targets[0], f"{before} -> {after} by {op.name}: {op.preserves}"))
    for name, how in plan.left_out.items():
        notes.append(Finding("WK209", Severity.WARNING, name, f"not in the output, as asked: {how}"))
    return notes


def refuse_not_dense(checkpoint: Checkpoint, plan: Plan) -> None:
    """Raise NotDenseError where the plan uses tensors that are only listed."""
    if not checkpoint.not_dense:
        return
    used = [name for step in plan.steps for name in step.sources if name in checkpoint.not_dense]
    if used:
        named = "; ".join(printable(f"{name}: {checkpoint.not_dense[name].why}") for name in used[:8])
        more = f" and {len(used) - 8} more" if len(used) > 8 else ""
        raise NotDenseError(
            f"{printable(checkpoint.path)}: {len(used)} tensors cannot be read as dense arrays: {named}{more}",
            hint="leave them out with --drop NAME, or save them again as dense tensors with torch",
        )
