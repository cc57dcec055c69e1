"""Factored axes: what the entries of one axis mean, where its size alone does not say it.

An axis is one or more blocks in a row, and a block is a product of named factors, the slowest first:

    T=3,C=3                 nine channels: three frames of three
    vis=50|T=3,D=18|act=6   110 inputs: 50 features, then three states of 18, then an action of 6
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod

_FACTOR = re.compile(r"(?P<name>[A-Za-z]\w*)=(?P<size>[1-9]\d{0,8})")
FRAMES = "T"
"""The factor that counts stacked frames, oldest first, newest last."""


@dataclass(frozen=True, slots=True)
class Factor:
    """One named extent of a block."""

    name: str
    size: int

    def __str__(self) -> str:
        return f"{self.name}={self.size}"


Block = tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class FactoredAxis:
    """The meaning of the entries along ``axis``: blocks one after the other, each a product of factors."""

    axis: int
    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """Entries on the axis."""
        return sum(block_size(block) for block in self.blocks)

    @property
    def text(self) -> str:
        """The notation that `parse_axis` reads."""
        return axis_text(self.blocks)

    def find(self, name: str) -> tuple[int, int]:
        """``(block, place in it)`` of the one factor called ``name``. Raises ValueError where there is none or two."""
        found = [(b, f) for b, block in enumerate(self.blocks) for f, factor in enumerate(block) if factor.name == name]
        if len(found) != 1:
            known = ", ".join(dict.fromkeys(factor.name for block in self.blocks for factor in block))
            raise ValueError(f"axis {self.axis} ({self.text}) has {len(found)} factors called {name!r}; known: {known}")
        return found[0]

    def resized(self, name: str, size: int) -> FactoredAxis:
        """The same axis with another size of the factor called ``name``."""
        block, place = self.find(name)
        factors = list(self.blocks[block])
        factors[place] = Factor(name, size)
        return FactoredAxis(self.axis, (*self.blocks[:block], tuple(factors), *self.blocks[block + 1 :]))


def block_size(block: Block) -> int:
    """Entries of one block."""
    return prod(factor.size for factor in block)


def axis_text(blocks: tuple[Block, ...]) -> str:
    """Blocks in the notation of this module."""
    return "|".join(",".join(map(str, block)) for block in blocks)


def parse_blocks(text: str) -> tuple[Block, ...]:
    """The blocks written as ``text``. Raises ValueError that shows the part that is no ``NAME=SIZE``."""
    blocks = []
    for block in text.split("|"):
        factors = []
        for part in block.split(","):
            found = _FACTOR.fullmatch(part.strip())
            if found is None:
                raise ValueError(f"axis {text!r}: {part!r} is no NAME=SIZE such as T=3; blocks are parted by |")
            factors.append(Factor(found["name"], int(found["size"])))
        blocks.append(tuple(factors))
    return tuple(blocks)


def parse_axis(axis: int, text: str) -> FactoredAxis:
    """The axis number ``axis`` with the meaning written as ``text``. Raises ValueError."""
    return FactoredAxis(axis, parse_blocks(text))


def stacked_axis(axis: int, *, frames: int, per_frame: int, inner: str = "C") -> FactoredAxis:
    """An axis that holds ``frames`` blocks of ``per_frame`` entries, oldest frame first."""
    return FactoredAxis(axis, ((Factor(FRAMES, frames), Factor(inner, per_frame)),))
