"""One factor of a factored axis that grows or shrinks: where its entries lie, and how large it was."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from weightkit.core.axes import FRAMES, Block, FactoredAxis, block_size, parse_blocks
from weightkit.core.tensor import TensorSpec
from weightkit.shape_ops.base import check_meaning

if TYPE_CHECKING:
    import numpy as np


def factor_change(name: str, small: str, large: str) -> tuple[tuple[Block, ...], int, int, int]:
    """``(blocks of small, block, place in it, its size in large)`` of the one factor that is smaller in ``small``.

    Raises ValueError where the two differ in more, or less, than that.
    """
    less, more = parse_blocks(small), parse_blocks(large)
    if [[factor.name for factor in block] for block in less] != [[factor.name for factor in block] for block in more]:
        raise ValueError(f"{name}: {small!r} and {large!r} must have the same factors, of other sizes")
    changed = [
        (b, f, factor.size, more[b][f].size)
        for b, block in enumerate(less)
        for f, factor in enumerate(block)
        if factor != more[b][f]
    ]
    if len(changed) != 1:
        raise ValueError(f"{name}: {small!r} and {large!r} differ in {len(changed)} factors, expected one")
    block, place, size, larger = changed[0]
    if size > larger:
        raise ValueError(f"{name}: {less[block][place].name} goes from {size} to {larger}, the wrong way")
    return less, block, place, larger


def kept_places(change: tuple[tuple[Block, ...], int, int, int]) -> np.ndarray:
    """Where the entries of the smaller axis lie on the larger one: ``(entries of the smaller,)``, ascending."""
    import numpy as np

    blocks, block, place, larger = change
    sizes = [factor.size for factor in blocks[block]]
    outer, size, inner = prod(sizes[:place]), sizes[place], prod(sizes[place + 1 :])
    start = sum(map(block_size, blocks[:block]))
    grown = start + np.arange(outer)[:, None] * (larger * inner) + np.arange(size * inner)
    stop = start + outer * larger * inner
    behind = np.arange(stop, stop + sum(map(block_size, blocks[block + 1 :])))
    return np.concatenate([np.arange(start), grown.reshape(-1), behind])


def other_places(kept: np.ndarray, size: int) -> np.ndarray:
    """The places of ``size`` that ``kept`` leaves out, ascending."""
    import numpy as np

    left = np.ones(size, bool)
    left[kept] = False
    return np.flatnonzero(left)


def factor_pairs(
    source: TensorSpec, target: TensorSpec, axes: Sequence[FactoredAxis], factor: str
) -> list[tuple[FactoredAxis, FactoredAxis]]:
    """Each axis that differs, as the source and as the target have it: only ``factor`` has another size.

    Raises ValueError where an axis differs that has no such factor, or no whole size of it explains the source.
    """
    check_meaning(target, axes)
    known = {each.axis: each for each in axes}
    pairs = []
    for axis in differing_axes(source, target):
        have, want = source.shape[axis], target.shape[axis]
        if axis not in known:
            raise ValueError(f"axis {axis} differs, {have} and {want}, and nobody says what its entries are")
        after = known[axis]
        block, place = after.find(factor)
        whole, size = block_size(after.blocks[block]), after.blocks[block][place].size
        left, remainder = divmod(have - (after.size - whole), whole // size)
        if remainder or left < 1:
            raise ValueError(
                f"no size of {factor} makes axis {axis} the source's {have} entries: the target has {after.text}, "
                f"{want} entries"
            )
        pairs.append((after.resized(factor, left), after))
    return pairs


def innermost_of_frames(axes: Sequence[FactoredAxis]) -> str:
    """The last factor of the one block that stacks frames. Raises ValueError where there is none or two."""
    blocks = [block for each in axes for block in each.blocks if any(factor.name == FRAMES for factor in block)]
    if len(blocks) != 1:
        raise ValueError(f"{len(blocks)} blocks of its axes stack frames, expected one; name the factor instead")
    name = blocks[0][-1].name
    if name == FRAMES:
        raise ValueError(f"{blocks[0][-1]} counts the frames themselves; see inflate:newest and inflate:mean")
    return name


def differing_axes(source: TensorSpec, target: TensorSpec) -> list[int]:
    """The axes on which two shapes of one rank differ, at least one. Raises ValueError."""
    if len(source.shape) != len(target.shape):
        raise ValueError(f"the source has {len(source.shape)} axes, the target {len(target.shape)}")
    differing = [axis for axis, (a, b) in enumerate(zip(source.shape, target.shape, strict=True)) if a != b]
    if not differing:
        raise ValueError(f"the shapes agree already: {list(source.shape)}")
    return differing


def stacked_frames(axes: Sequence[FactoredAxis], axis: int) -> tuple[FactoredAxis, int] | None:
    """The meaning of ``axis`` and its number of frames where it is known to stack more than one."""
    for each in axes:
        frames = [factor.size for block in each.blocks for factor in block if factor.name == FRAMES]
        if each.axis == axis and max(frames, default=1) > 1:
            return each, max(frames)
    return None


def forms_of(each: FactoredAxis, kind: str) -> str:
    """The forms of the adapter ``kind`` that name a factor of the axis, to be added to a list of others."""
    names = dict.fromkeys(factor.name for block in each.blocks for factor in block if factor.name != FRAMES)
    return "".join(f", {kind}:{name}" for name in names)
