"""The formats that weightkit reads and writes: one visible table, each module imported when it is first needed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.text import printable
from weightkit.errors import FormatError, UnknownFormat, UsageError
from weightkit.formats._source import unreadable
from weightkit.formats.base import HEAD_BYTES, Format, Limits, Write

# name -> module; each module has a FORMAT. The order is the order in which they are asked.
FORMATS: dict[str, str] = {
    "torch_zip": "weightkit.formats.torch_zip",
    "weightkit_dir": "weightkit.formats.weightkit_dir",
    "safetensors": "weightkit.formats.safetensors",
    "npz": "weightkit.formats.npz",
}
_DEFAULTS = Limits()

__all__ = ["FORMATS", "Format", "Limits", "Write", "detect", "format_named", "open_checkpoint", "writer_for"]


def format_named(name: str) -> Format:
    """The format called ``name``. Raises UsageError with the known names."""
    if name not in FORMATS:
        raise UsageError(f"there is no format {printable(name)!r}", hint=f"known: {', '.join(FORMATS)}")
    found = import_module(FORMATS[name]).FORMAT
    assert isinstance(found, Format)
    return found


def detect(path: str | os.PathLike[str]) -> Format:
    """The format of what is at ``path``, by its first bytes. Raises FormatError, UnknownFormat."""
    path = Path(path)
    head = _head(path)
    for candidate in _all():
        if candidate.detect(path, head):
            return candidate
    raise _unknown(path, head)


def open_checkpoint(path: str | os.PathLike[str], limits: Limits = _DEFAULTS) -> Checkpoint:
    """The checkpoint at ``path``; reads specs only. Raises FormatError."""
    return detect(path).open(Path(path), limits)


def writer_for(path: str | os.PathLike[str]) -> Write:
    """What writes a file with this ending. Raises UsageError."""
    ending = Path(path).suffix.lower()
    writers = [candidate for candidate in _all() if candidate.write is not None]
    for candidate in writers:
        if candidate.write is not None and ending in candidate.endings:
            return candidate.write
    known = ", ".join(ending for candidate in writers for ending in candidate.endings)
    raise UsageError(
        f"{printable(str(path))}: nothing is written to a file with this ending", hint=f"use one of {known}"
    )


def _all() -> Iterator[Format]:
    return (format_named(name) for name in FORMATS)


def _head(path: Path) -> bytes:
    """The first bytes of the file, none for a directory."""
    shown = printable(str(path))
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return b""
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{shown}: expected a file or a folder, found a device or a pipe")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise FormatError(f"{shown}: no file can have this name") from None
    if not head:
        raise UnknownFormat(f"{shown}: the file is empty", hint="write or copy it again")
    return head


def _unknown(path: Path, head: bytes) -> UnknownFormat:
    shown = printable(str(path))
    if not head:
        return UnknownFormat(
            f"{shown}: a folder, but no checkpoint: no config.json with weightkit_format lies in it",
            hint="name the checkpoint file inside it",
        )
    if head.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"):
        return UnknownFormat(
            f"{shown}: a torch checkpoint in the layout from before torch 1.6, which is not read",
            hint="save it again with a current torch: torch.save(torch.load(FILE, weights_only=True), NEW)",
        )
    if head[0] == 0x80:
        kind = "a bare pickle, which is no checkpoint and may execute code when it is unpickled"
    elif all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        kind = "text, expected a checkpoint"
    else:
        kind = f"no format recognises it; its first bytes are {head[:8].hex(' ')}"
    return UnknownFormat(f"{shown}: {kind}", hint=f"known formats: {', '.join(FORMATS)}")
