"""Edits of bytes that know nothing of what the bytes are, and numbers that readers tend to get wrong."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

_NUMBERS = (
    0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 65, 127, 128, 255, 256, 1023, 32767, 32768, 65535, 65536, (1 << 24) - 1,
    (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
)  # fmt: skip


def interesting(rng: Random, near: int = 0) -> int:
    """A number at some edge, or one beside ``near``."""
    way = rng.random()
    if way < 0.4:
        return abs(near + rng.choice((-8, -2, -1, 1, 2, 4, 8, 16)))
    if way < 0.5:
        return near * rng.choice((2, 3, 1 << 8, 1 << 32))
    return rng.choice(_NUMBERS)


def edited_bytes(rng: Random, content: bytes, other: Callable[[Random], bytes]) -> bytes:
    """``content`` with some bytes flipped, set, inserted, removed, doubled, or taken from ``other``."""
    made = bytearray(content)
    if not made:
        return bytes([rng.randrange(256)])
    at = rng.randrange(len(made))
    way = rng.randrange(12)
    if way == 0:
        made[at] ^= 1 << rng.randrange(8)
    elif way == 1:
        made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x2E, 0x28, rng.randrange(256)))
    elif way == 2:
        for _ in range(rng.randrange(1, 9)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    elif way == 3:
        made[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 8, 30)))
    elif way == 4:
        del made[at : at + rng.choice((1, 1, 2, 4, 8, 64))]
    elif way == 5:
        end = at + rng.choice((1, 2, 4, 16, 100))
        made[end:end] = made[at:end] * rng.choice((1, 1, 2, 50))
    elif way == 6:
        width = rng.choice((1, 2, 4, 8))
        near = int.from_bytes(made[at : at + width], "little")
        order = "little" if rng.random() < 0.9 else "big"
        made[at : at + width] = (interesting(rng, near) & ((1 << 8 * width) - 1)).to_bytes(width, order)  # type: ignore[arg-type]
    elif way == 7:
        length = rng.choice((1, 4, 16, 64))
        made[at : at + length] = bytes(len(made[at : at + length]))
    elif way == 8:
        del made[at:]
    elif way == 9:
        made += rng.choice(
            (b"\0", b"\n", b" ", b"PK\x05\x06" + bytes(18), b"N.", b"cos\nsystem\n(X\x04\0\0\0truetR.", made[at:])
        )
    elif way == 10:
        taken = other(rng)
        start = rng.randrange(len(taken) + 1)
        made[at : at + rng.choice((0, 4, 32))] = taken[start : start + rng.choice((1, 4, 16, 64, 512))]
    else:
        taken = other(rng)
        made[at:] = taken[rng.randrange(len(taken) + 1) :]
    return bytes(made)
