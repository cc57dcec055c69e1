"""What could make one shape of another, by the names of adapters, and what shapes cannot decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from weightkit.core.tensor import TensorSpec

TRANSPOSE = "transpose"
PERMUTE = "permute"


def choices_between(here: TensorSpec, there: TensorSpec) -> tuple[str, ...]:
    """The adapters that lead from one spec to the other, () where none is needed. ValueError where none does."""
    cast = () if here.dtype == there.dtype else (f"cast:{there.dtype.name}",)
    if here.shape == there.shape:
        return cast
    ways = _reshaping(here.shape, there.shape)
    if not ways or here.dtype.kind != there.dtype.kind:
        raise ValueError(f"nothing leads from {here} to {there}")
    return (*ways, *cast)


def adaptable(here: TensorSpec, there: TensorSpec) -> bool:
    """Whether some adapter leads from one spec to the other."""
    return here.dtype.kind == there.dtype.kind and (
        here.shape == there.shape or bool(_reshaping(here.shape, there.shape))
    )


def _reshaping(here: tuple[int, ...], there: tuple[int, ...]) -> tuple[str, ...]:
    if [n for n in here if n != 1] == [n for n in there if n != 1]:
        return ("reshape",)
    if len(here) != len(there) or 0 in here or 0 in there:
        return ()
    if len(here) == 2 and here == there[::-1]:
        return (TRANSPOSE,)
    if len(here) == 4 and there in ((here[3], here[2], here[0], here[1]), (here[2], here[3], here[1], here[0])):
        return (PERMUTE,)
    differing = [axis for axis in range(len(here)) if here[axis] != there[axis]]
    if len(differing) != 1:
        return ()
    axis = differing[0]
    small, large = here[axis], there[axis]
    if axis == 0 or len(here) == 1:
        return ("pad:end",) if small < large else ("slice",)
    if small < large:
        inflate = ("inflate:newest", "inflate:mean") if large % small == 0 else ()
        return inflate if len(here) > 2 and inflate else (*inflate, "pad:end", "pad:block")
    return (*(("take:newest", "sum_blocks") if small % large == 0 else ()), "slice")


def undecided_layouts(
    adapters: Iterable[tuple[tuple[str, ...], TensorSpec]],
) -> tuple[bool, frozenset[int]]:
    """Whether anything is transposed, and the output sizes of the convolutions whose axes are permuted.

    Then a square matrix may be transposed too, and what reads such a convolution's flattened output may have its
    columns in another order: shapes say neither.
    """
    transposed = False
    channels = set()
    for ways, target in adapters:
        transposed |= TRANSPOSE in ways
        if PERMUTE in ways:
            channels.add(target.shape[0])
    return transposed, frozenset(channels)


def layout_doubt(spec: TensorSpec, transposed: bool, channels: frozenset[int]) -> str:
    """What the shape of a pair leaves open, as a sentence; "" where nothing."""
    if len(spec.shape) != 2:
        return ""
    rows, columns = spec.shape
    if transposed and rows == columns > 1:
        return "square, and others are transposed: as it is or transposed, the shape cannot say"
    if any(columns % size == 0 and columns > size for size in channels):
        return "reads a convolution whose axes are permuted: HWC or CHW order, the shape cannot say"
    return ""
