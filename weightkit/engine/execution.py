"""A plan applied: step by step, each array freed at its last use and checked against what the plan promised."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING

from weightkit.core.dtype import dtype_named
from weightkit.core.plan import Plan, Step
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.digest import tensor_digest
from weightkit.engine.forecast import LOOKED_AT
from weightkit.errors import CorruptFile, PlanError
from weightkit.shape_ops import op_of

if TYPE_CHECKING:
    import numpy as np

    Read = Callable[[str], np.ndarray]
    Look = Callable[[str, np.ndarray], None]

_ONE_FOR_SEVERAL = "the target has one tensor where the source has several that differ: it cannot hold this policy"
_OTHER_SOURCE = "convert the file that the plan was made for, or make a new plan: --plan-only"


class Execution:
    """One application of a plan.

    ``source_digests`` and ``digests`` fill while `arrays` is taken: those of every tensor that was read for a step, and
    of every tensor that was made; ``changes`` has the statistics of those that ops made, and what a cast cost them.
    ``progress`` is told the bytes that are made, and all, after each step. ``look`` is shown every array once, under
    the first of its target names, before it is given out; what it takes beside the array comes on top of the forecast.
    """

    def __init__(
        self,
        plan: Plan,
        read: Read,
        progress: Callable[[int, int], None] | None = None,
        look: Look | None = None,
    ) -> None:
        self.plan = plan
        self.source_digests: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.changes: dict[str, dict[str, object]] = {}
        self._read = read
        self._progress = progress
        self._look = look
        self._of_tie: dict[str, str] = {}
        self._repeats: dict[str, list[str]] = {}
        for name, of in plan.repeated.items():
            self._repeats.setdefault(of, []).append(name)

    def arrays(self, names: Container[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Target name and array in the plan's order, of all or of ``names``; whoever takes one lets go of it before the
        next.

        Raises CorruptFile where an array is not what the plan was made for, PlanError where a value does not fit, where
        tensors that should be equal are not, and where the source is not the one that a saved plan was made for.
        """
        self._check_unused()
        total = sum(spec.nbytes for step in self.plan.steps for spec in step.target_specs)
        done = 0
        for step in self.plan.steps:
            if names is not None and not any(target in names for target in step.targets):
                continue
            results: list[np.ndarray | None] = list(self._apply(step))
            for place, name in enumerate(step.targets):
                array, results[place] = results[place], None
                assert array is not None
                done += array.nbytes
                if self._look is not None:
                    self._look(name, array)
                for each in (name, *self._repeats.get(name, ())):
                    if names is None or each in names:
                        self._compare_tie(each, self.digests[name])
                        yield each, array
                del array
            if self._progress is not None:
                self._progress(done, total)

    def _apply(self, step: Step) -> tuple[np.ndarray, ...]:
        from weightkit.engine.statistics import cast_error, statistics

        errors: list[dict[str, float]] = []
        arrays: tuple[np.ndarray, ...] = tuple(map(self._source, step.sources, step.source_specs))
        for call in step.ops:
            try:
                results = op_of(call).apply(arrays)
            except ValueError as reason:
                hint = _ONE_FOR_SEVERAL if call.name == "same" else ""
                raise _refused("WK205", step.targets[0], f"{call}: {reason}", hint) from None
            if call.name == "cast":
                errors += map(cast_error, arrays, results)
            arrays = results
            del results
        for place, (name, array) in enumerate(zip(step.targets, arrays, strict=True)):
            _check(name, array, step.target_specs[place])
            if step.ops:
                self.digests[name] = tensor_digest(array)
                self.changes[name] = {"statistics": statistics(array, LOOKED_AT)}
                if errors:  # the worst of what the step is made of
                    self.changes[name]["cast_error"] = {key: max(each[key] for each in errors) for key in errors[0]}
            else:
                self.digests[name] = self.source_digests[step.sources[place]]
        return arrays

    def _source(self, name: str, expected: TensorSpec) -> np.ndarray:
        array = self._read(name)
        _check(name, array, expected)
        digest = self.source_digests[name] = tensor_digest(array)
        if self.plan.digests.get(name, digest) != digest:
            raise _refused("WK215", name, "its values are not those that the plan was made for", _OTHER_SOURCE)
        return array

    def _compare_tie(self, name: str, digest: str) -> None:
        """What the target ties together must be equal, since it is written once."""
        self.digests[name] = digest
        leader = self.plan.target.canonical(name)
        if self._of_tie.setdefault(leader, digest) != digest:
            raise _refused(
                "WK211", name, f"the target has it as the same tensor as {leader!r}, but their values differ"
            )

    def _check_unused(self) -> None:
        """What no step reads: second names must be what they stand for, all must be what a saved plan knows."""
        check_second_names(self.plan, self._read)
        for name in (*self.plan.dropped, *self.plan.second_names):
            if name in self.plan.digests:
                self._source(name, self.plan.source[name])


def check_second_names(plan: Plan, read: Read) -> None:
    """Compare tensors that a layout lists twice and the file stores twice. Raises PlanError where they differ."""
    findings = []
    for name, second in plan.second_names.items():
        if second.checked and tensor_digest(read(name)) != tensor_digest(read(second.of)):
            message = f"the layout lists it as the same tensor as {second.of!r}, but their values differ"
            hint = f"say which one counts: --drop {name!r} or --drop {second.of!r}"
            findings.append(Finding("WK211", Severity.ERROR, name, message, hint))
    if findings:
        raise PlanError(
            f"{len(findings)} tensors differ from the tensor they stand for",
            report=Report("plan", tuple(findings), exit_code=1),
        )


def check_source(plan: Plan, source: StateSpec) -> None:
    """Raise PlanError, with every tensor that differs, where ``source`` is not what the plan was made for."""
    findings = []
    for name, expected in plan.source.tensors.items():
        found = source.tensors.get(name)
        if found != expected:
            message = f"the plan was made for {expected}, the source has {found or 'no such tensor'}"
            findings.append(Finding("WK215", Severity.ERROR, name, message, _OTHER_SOURCE))
    for name in (name for name in source if name not in plan.source):
        findings.append(Finding("WK215", Severity.ERROR, name, "the plan knows no such source tensor", _OTHER_SOURCE))
    if findings:
        raise PlanError(
            f"{len(findings)} tensors are not what the plan was made for",
            report=Report("plan", tuple(findings), exit_code=1),
            hint=_OTHER_SOURCE,
        )


def _check(name: str, array: np.ndarray, expected: TensorSpec) -> None:
    if array.shape != expected.shape or array.dtype.name != expected.dtype.name:
        found = TensorSpec(dtype_named(array.dtype.name), array.shape)
        raise CorruptFile(f"{name}: the plan was made for {expected}, the bytes give {found}")


def _refused(code: str, subject: str, message: str, hint: str = "") -> PlanError:
    finding = Finding(code, Severity.ERROR, subject, message, hint)
    return PlanError(f"{subject}: {message}", report=Report("plan", (finding,), exit_code=1), hint=hint)
