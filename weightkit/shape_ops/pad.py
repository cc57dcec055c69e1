"""New entries of zeros, at the end of an axis or of a factor of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightkit.core.axes import FRAMES, FactoredAxis, block_size, parse_blocks
from weightkit.core.plan import OpClass, Param
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import EachTensor, ShapeOp, Specs, check_meaning, resized
from weightkit.shape_ops.bits import count_nonzero_bits
from weightkit.shape_ops.factors import (
    differing_axes,
    factor_change,
    factor_pairs,
    forms_of,
    innermost_of_frames,
    kept_places,
    other_places,
    stacked_frames,
)
from weightkit.shape_ops.literals import Literals, check_axis, check_extent, check_zero, extent

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Pad(EachTensor):
    """One factor of ``axis`` grows; the new entries are zeros, the last ones in each instance of that factor.

    ``pad(axis=1, before="n=18", after="n=21")`` is ``(o, 18) -> (o, 21)`` with the zeros last. With
    ``before="T=3,D=6", after="T=3,D=7"`` it is ``(o, (3 6)) -> (o, (3 7))``: one zero behind each of the three frames.
    """

    axis: int
    before: str
    after: str
    name: ClassVar[str] = "pad"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = (
        "an axis of inputs: the same on every input, the new ones get zero weights; an axis of outputs: the old ones "
        "are the same and the new ones zero, which a normalisation over them (LayerNorm) does see"
    )
    complement: ClassVar[str] = "new entries, all zero"

    def __post_init__(self) -> None:
        _check(self.name, self.axis, self.before, self.after)

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, text_size(self.before))
        check_zero(self.name, spec)
        return resized(spec, self.axis, text_size(self.after))

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        shape = list(array.shape)
        shape[self.axis] = text_size(self.after)
        result = np.zeros(shape, array.dtype)
        result[(slice(None),) * self.axis + (_kept(self),)] = array
        return result

    def inverse(self) -> ShapeOp:
        return Unpad(self.axis, self.before, self.after)


@dataclass(frozen=True, slots=True)
class Unpad(EachTensor):
    """Takes back what `Pad` of the same parameters added, where it is still zero: ``(o, (3 7)) -> (o, (3 6))``."""

    axis: int
    before: str
    after: str
    name: ClassVar[str] = "unpad"
    op_class: ClassVar[OpClass] = "INJ"
    preserves: ClassVar[str] = "the same on every input: what is taken away was zero"
    complement: ClassVar[str] = "entries that are checked to be zero"

    def __post_init__(self) -> None:
        _check(self.name, self.axis, self.before, self.after)

    def infer_one(self, spec: TensorSpec) -> TensorSpec:
        check_extent(self.name, spec, self.axis, text_size(self.after))
        check_zero(self.name, spec)
        return resized(spec, self.axis, text_size(self.before))

    def apply_one(self, array: np.ndarray) -> np.ndarray:
        import numpy as np

        kept = _kept(self)
        taken = np.take(array, other_places(kept, array.shape[self.axis]), axis=self.axis)
        bad = count_nonzero_bits(taken)
        if bad:
            raise ValueError(f"{bad} of the {taken.size} values that would be taken away are not zero")
        return np.take(array, kept, axis=self.axis)

    def inverse(self) -> ShapeOp:
        return Pad(self.axis, self.before, self.after)


def text_size(text: str) -> int:
    """The entries on an axis written as ``text``."""
    return sum(map(block_size, parse_blocks(text)))


def _check(name: str, axis: int, before: str, after: str) -> None:
    check_axis(name, axis)
    factor_change(name, before, after)


def _kept(op: Pad | Unpad) -> np.ndarray:
    return kept_places(factor_change(op.name, op.before, op.after))


# ---- what a rule says


def pad_of(specs: Specs, wanted: Specs | None, **params: Param) -> ShapeOp:
    """``pad(axis, size)``, or ``pad(axis, size, factors, factor)``: ``factor`` of ``factors`` grows to ``size``."""
    del wanted
    return Pad(*factor_params("pad", specs, params))


def factor_params(name: str, specs: Specs, params: dict[str, Param]) -> tuple[int, str, str]:
    """``(axis, before, after)`` of an op on one factor, as a rule writes it: the axis itself is called n."""
    given = Literals(name, params, ("axis", "size", "factors", "factor"))
    axis, size = given.integer("axis"), given.integer("size")
    have = extent(name, specs, axis)
    if ("factors" in given) != ("factor" in given):
        raise ValueError(
            f"{name}: factors and factor go together: what the axis is, and which of it gets {size} entries"
        )
    if have < 1 or not 1 <= size < 10**9:
        raise ValueError(f"{name}: from {have} to {size} entries, both must be 1 to {10**9 - 1}")
    before = FactoredAxis(axis, parse_blocks(given.text("factors") if "factors" in given else f"n={have}"))
    after = before.resized(given.text("factor") if "factor" in given else "n", size)
    return axis, before.text, after.text


# ---- what a user names


def pad(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], choice: str) -> tuple[ShapeOp, ...]:
    """``pad:end``, ``pad:block`` (the innermost factor of the stacked frames), or ``pad:FACTOR``."""
    if choice == "end":
        return _pad_ends(source, target, axes)
    factor = innermost_of_frames(axes) if choice == "block" else choice
    if not factor:
        raise ValueError("choose pad:end, pad:block or pad:FACTOR")
    if factor == FRAMES:
        raise ValueError("zeros behind the frames would take the place of the newest; choose inflate:newest")
    ops = []
    for before, after in factor_pairs(source, target, axes, factor):
        if before.size > after.size:
            raise ValueError(f"axis {after.axis} goes from {before.text} to {after.text}: pad only grows")
        ops.append(Pad(after.axis, before.text, after.text))
    return tuple(ops)


def _pad_ends(source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis]) -> tuple[ShapeOp, ...]:
    check_meaning(target, axes)
    ops = []
    for axis in differing_axes(source, target):
        have, want = source.shape[axis], target.shape[axis]
        if have > want:
            raise ValueError(f"axis {axis} goes from {have} to {want}: pad only grows")
        if have < 1:
            raise ValueError(f"axis {axis} goes from {have} to {want}: there is nothing to pad")
        stacked = stacked_frames(axes, axis)
        if stacked is not None:
            each, frames = stacked
            raise ValueError(
                f"axis {axis} stacks {frames} frames ({each.text}), and {want - have} zeros at its end would mix them; "
                f"choose inflate:newest, pad:block{forms_of(each, 'pad')}"
            )
        ops.append(Pad(axis, f"n={have}", f"n={want}"))
    return tuple(ops)
