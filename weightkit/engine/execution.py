"""A plan applied: one array at a time, each checked against what the plan promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from weightkit.core.dtype import dtype_named
from weightkit.core.plan import Plan
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import TensorSpec
from weightkit.errors import CorruptFile, PlanError
from weightkit.shape_ops import op_of

if TYPE_CHECKING:
    import numpy as np

    Read = Callable[[str], np.ndarray]


def check_second_names(plan: Plan, read: Read) -> None:
    """Compare tensors that a layout lists twice and the file stores twice. Raises PlanError where they differ."""
    findings = []
    for name, second in plan.second_names.items():
        if second.checked and read(name).tobytes() != read(second.of).tobytes():
            message = f"the layout lists it as the same tensor as {second.of!r}, but their values differ"
            hint = f"say which one counts: --drop {name!r} or --drop {second.of!r}"
            findings.append(Finding("WK211", Severity.ERROR, name, message, hint))
    if findings:
        raise PlanError(
            f"{len(findings)} tensors differ from the tensor they stand for",
            report=Report("plan", tuple(findings), exit_code=1),
        )


def apply_plan(plan: Plan, read: Read) -> Iterator[tuple[str, np.ndarray]]:
    """Target name and array, step by step in the plan's order; an array can be freed once it was taken.

    Raises CorruptFile where an array is not what the plan was made for, PlanError where a value does not fit.
    """
    for step in plan.steps:
        array = read(step.source)
        _check(step.source, array, step.source_spec)
        for call in step.ops:
            try:
                array = op_of(call).apply(array)
            except ValueError as reason:
                finding = Finding("WK205", Severity.ERROR, step.target, f"{call}: {reason}")
                raise PlanError(
                    f"{step.target}: {call}: {reason}", report=Report("plan", (finding,), exit_code=1)
                ) from None
        _check(step.target, array, step.target_spec)
        yield step.target, array


def _check(name: str, array: np.ndarray, expected: TensorSpec) -> None:
    found = TensorSpec(dtype_named(array.dtype.name), array.shape)
    if found != expected:
        raise CorruptFile(f"{name}: the plan was made for {expected}, the bytes give {found}")
