"""How to tell a tar archive. None is read here: torch tries one before it unpickles, whatever else the file is."""

from __future__ import annotations


def is_tar(head: bytes) -> bool:
    """Whether the first block is a tar header: its checksum holds. Its magic is not looked at by those who read it."""
    if len(head) < 512 or head.startswith(b"PK"):
        return False
    field = head[148:156]
    try:
        said = int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        said = int.from_bytes(field[1:], "big") if field[0] in (0x80, 0xFF) else -1
    rest = head[:148] + head[156:512]
    unsigned = 256 + sum(rest)
    signed = unsigned - 256 * sum(byte > 127 for byte in rest)
    return said in (unsigned, signed) and any(head[:512])
