"""The contract of an op."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from weightkit.core.axes import FRAMES, FactoredAxis
from weightkit.core.dtype import dtype_named
from weightkit.core.plan import OpCall, OpClass, Param
from weightkit.core.tensor import TensorSpec

if TYPE_CHECKING:
    import numpy as np

Specs = tuple[TensorSpec, ...]
Arrays = tuple[Any, ...]
"""Arrays of numpy; the name of their type would import it."""


class ShapeOp(Protocol):
    """One way to turn tensors into tensors, all parameters literal, honest about what it keeps.

    Most ops take any number of tensors and treat each alike. One that joins takes them in runs, as many as it joins,
    and gives one for each run; one that parts gives a run for each.

    ``infer(specs(x)) == specs(apply(x))`` always. Results are C-contiguous; an input is never changed.
    """

    @property
    def name(self) -> str:
        """The op's name in plans."""

    @property
    def op_class(self) -> OpClass:
        """BIJ: a two-sided inverse. INJ: nothing is lost, ``inverse`` is a left inverse. LOSSY: there is none."""

    @property
    def preserves(self) -> str:
        """On which inputs the net computes the same as before, in words."""

    @property
    def complement(self) -> str:
        """What the result lacks or has too much, in words.

        BIJ: "". INJ: what ``inverse`` checks before it takes it away. LOSSY: what is lost.
        """

    @property
    def params(self) -> Mapping[str, Param]:
        """The literal parameters, JSON values: ``type(self)(**params)`` is this op."""

    def infer(self, specs: Specs) -> Specs:
        """The specs of the results. Raises ValueError where the op does not fit."""

    def apply(self, arrays: Arrays) -> Arrays:
        """The results. Raises ValueError where a value does not fit."""

    def inverse(self) -> ShapeOp | None:
        """The op that undoes this one bit for bit, None where there is none."""

    def scratch(self, specs: Specs) -> int:
        """Bytes of arrays that ``apply`` holds at most, beside what it takes and what it gives.

        Below 0 where what it gives are views of what it takes, which need no memory of their own.
        """


class FieldsAreParams:
    """Base of all ops, which are frozen dataclasses: what stands in a plan are their fields, in order."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def params(self) -> Mapping[str, Param]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def scratch(self, specs: Specs) -> int:
        del specs
        return 0


class EachTensor(FieldsAreParams, ABC):
    """Base of the ops that treat every tensor alike: ``infer_one`` and ``apply_one`` say how."""

    __slots__ = ()

    @abstractmethod
    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        """The spec of the result for one tensor. Raises ValueError where the op does not fit."""

    @abstractmethod
    def apply_one(self, array: np.ndarray) -> np.ndarray:
        """The result for one tensor. Raises ValueError where a value does not fit."""

    def infer(self, specs: Specs) -> Specs:
        return tuple(map(self.infer_one, specs))

    def apply(self, arrays: Arrays) -> Arrays:
        self.infer(specs_of(arrays))
        return tuple(map(self.apply_one, arrays))


class AdapterKind(Protocol):
    """Finds the ops that an adapter of this kind means for one tensor."""

    def __call__(
        self, source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str
    ) -> tuple[ShapeOp, ...]:
        """The ops from ``source`` to ``target``, whose ``axes`` are factored as said.

        Raises ValueError, in words for the user, where it does not fit.
        """


class OpKind(Protocol):
    """Makes an op of a rule literal."""

    def __call__(self, specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
        """The op for tensors of ``specs``; ``wanted`` are the rule's targets, None where nobody says what they are.

        ``params`` are those of the rule, without ``over``. Raises ValueError, in words for the user: an unknown or
        missing parameter, one of the wrong type, a size that cannot be known.
        """


def as_call(op: ShapeOp) -> OpCall:
    """The op as it stands in a plan."""
    return OpCall(op.name, dict(op.params), op.op_class, op.preserves)


def specs_of(arrays: Arrays) -> Specs:
    """What arrays of numpy are, so that an op can refuse the wrong ones in the words of ``infer``."""
    return tuple(TensorSpec(dtype_named(array.dtype.name), array.shape) for array in arrays)


def runs_of(items: Sequence[Any], count: int, name: str) -> list[tuple[Any, ...]]:
    """``items`` in runs of ``count``. Raises ValueError where they do not come out even."""
    if count < 1 or not items or len(items) % count:
        raise ValueError(f"{name} joins {count} tensors at a time, it got {len(items)}")
    return [tuple(items[start : start + count]) for start in range(0, len(items), count)]


def resized(spec: TensorSpec, axis: int, size: int) -> TensorSpec:
    """``spec`` with another size of ``axis``."""
    return TensorSpec(spec.dtype, (*spec.shape[:axis], size, *spec.shape[axis + 1 :]))


def check_meaning(target: TensorSpec, axes: Sequence[FactoredAxis]) -> None:
    """Raise ValueError where ``axes`` speak of another tensor than ``target``."""
    for each in axes:
        if each.axis >= len(target.shape) or target.shape[each.axis] != each.size:
            raise ValueError(f"axis {each.axis} should be {each.text}, {each.size} entries, but the target is {target}")


def frame_blocks(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis]) -> tuple[int, int, int]:
    """``(axis, frames of the source, frames of the target)`` for two shapes that differ in stacked frames only.

    Raises ValueError where no axis of the target stacks frames or the shapes differ elsewhere.
    """
    check_meaning(target, axes)
    stacked = [each for each in axes if len(each.blocks) == 1 and each.blocks[0][0].name == FRAMES]
    if not stacked:
        raise ValueError("none of its axes stacks frames")
    if len(source.shape) != len(target.shape):
        raise ValueError(f"the ranks differ: {len(source.shape)} and {len(target.shape)}")
    differing = [i for i, (a, b) in enumerate(zip(source.shape, target.shape, strict=True)) if a != b]
    elsewhere = [i for i in differing if i not in {each.axis for each in stacked}]
    if elsewhere:
        raise ValueError(f"axis {elsewhere[0]} differs too, and it does not stack frames")
    if len(differing) != 1:
        raise ValueError(f"{len(differing)} axes differ, expected one that stacks frames")
    (axis,) = differing
    frames = next(each for each in stacked if each.axis == axis).blocks[0][0].size
    per_frame = target.shape[axis] // frames
    have, remainder = divmod(source.shape[axis], per_frame)
    if remainder or have < 1:
        raise ValueError(
            f"axis {axis} of the source, {source.shape[axis]}, is no whole number of frames of {per_frame}"
        )
    return axis, have, frames
