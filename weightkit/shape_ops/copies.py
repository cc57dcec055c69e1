"""One tensor in several places, and the check that it was one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from weightkit.core.plan import OpClass, Param
from weightkit.shape_ops.base import Arrays, FieldsAreParams, ShapeOp, Specs, runs_of, specs_of
from weightkit.shape_ops.bits import count_differing, in_order
from weightkit.shape_ops.literals import MAX_TENSORS, Literals, check_count, only


@dataclass(frozen=True, slots=True)
class Copy(FieldsAreParams):
    """``count`` equal tensors of one: what was tied or shared stands by itself."""

    count: int
    name: ClassVar[str] = "copy"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same until training moves the copies apart"

    def __post_init__(self) -> None:
        check_count(self.name, self.count)

    @property
    def complement(self) -> str:
        return f"{self.count - 1} more tensors, equal to the first bit for bit"

    def infer(self, specs: Specs) -> Specs:
        if len(specs) * self.count > MAX_TENSORS:
            raise ValueError(f"copy would give {len(specs)} x {self.count} tensors, at most {MAX_TENSORS}")
        return tuple(spec for spec in specs for _ in range(self.count))

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        return tuple(copied for array in map(in_order, arrays) for copied in [array] * self.count)

    def scratch(self, specs: Specs) -> int:
        return -self.count * sum(spec.nbytes for spec in specs)

    def inverse(self) -> ShapeOp:
        return Same(self.count)


@dataclass(frozen=True, slots=True)
class Same(FieldsAreParams):
    """One of ``count`` tensors, which must be equal bit for bit: copies become one again."""

    count: int
    name: ClassVar[str] = "same"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same: the tensors were equal"
    complement: ClassVar[str] = "copies, compared bit for bit before all but one are left out"

    def __post_init__(self) -> None:
        check_count(self.name, self.count)

    def infer(self, specs: Specs) -> Specs:
        runs = runs_of(specs, self.count, self.name)
        for run in runs:
            for spec in run:
                if spec != run[0]:
                    raise ValueError(f"same wants equal tensors, found {run[0]} and {spec}")
        return tuple(run[0] for run in runs)

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        runs = runs_of(arrays, self.count, self.name)
        for run in runs:
            for place, other in enumerate(run[1:], 2):
                differing = count_differing(run[0], other)
                if differing:
                    raise ValueError(
                        f"tensor {place} of {self.count} is not the first: {differing} of {other.size} values differ"
                    )
        return tuple(in_order(run[0]) for run in runs)

    def inverse(self) -> ShapeOp:
        return Copy(self.count)


# ---- what a rule says


def copy_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``copy([count])``: as many as one source has targets."""
    given = Literals("copy", params, ("count",))
    if "count" in given:
        return Copy(given.integer("count"))
    if wanted is None or len(only("copy", specs)) != 1:
        raise ValueError("copy: nobody says how many; name the count")
    return Copy(len(wanted))


def same_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``same([count])``: all sources of the rule are one tensor."""
    del wanted
    given = Literals("same", params, ("count",))
    return Same(given.integer("count") if "count" in given else len(specs))
