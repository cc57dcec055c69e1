"""numpy's files by hand: headers that say what they like."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from corpus.rawzip import Member, zipped


def npy_header(text: bytes, version: int = 1, length: int | None = None) -> bytes:
    """Magic, version, length and the text as it is."""
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + text


def npy(descr: Any, shape: Any, content: bytes, *, fortran: Any = False, version: int = 1) -> bytes:
    """One .npy around ``content``."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode()
    return npy_header(text + b" " * (-(len(text) + 11) % 64) + b"\n", version) + content


def npz(arrays: Mapping[str, bytes], method: int = 0) -> bytes:
    """An archive of .npy files."""
    return zipped(Member(f"{name}.npy", content, method) for name, content in arrays.items())
