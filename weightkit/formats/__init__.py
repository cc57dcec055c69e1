"""The formats that weightkit reads and writes: one visible table, each module imported when it is first needed."""

from __future__ import annotations

import os
import stat

from weightkit.core.text import printable
from weightkit.errors import FormatError, UnknownFormat, UsageError
from weightkit.formats._source import unreadable
from weightkit.formats._tar import is_tar
from weightkit.formats._tripwire import armed
from weightkit.formats.base import HEAD_BYTES, PICKLE_STARTS, Format, Limits, Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightkit.core.checkpoint import Checkpoint

# name -> (what it looks like from outside, module); each module has a FORMAT. The order is that of asking.
FORMATS: dict[str, tuple[str, str]] = {
    "torch_zip": ("zip", "weightkit.formats.torch_zip"),
    "sb3_zip": ("zip", "weightkit.formats.sb3_zip"),
    "npz": ("zip", "weightkit.formats.npz"),
    "safetensors": ("other", "weightkit.formats.safetensors"),
    "torch_legacy": ("pickle", "weightkit.formats.torch_legacy"),
    "bare_pickle": ("pickle", "weightkit.formats.bare_pickle"),
    "sharded_index": ("json", "weightkit.formats.sharded_index"),
    "weightkit_dir": ("folder", "weightkit.formats.weightkit_dir"),
    "lerobot_dir": ("folder", "weightkit.formats.lerobot_dir"),
    "sharded_dir": ("folder", "weightkit.formats.sharded_dir"),
}
_DEFAULTS = Limits()

__all__ = ["FORMATS", "Format", "Limits", "Write", "detect", "format_named", "open_checkpoint", "writer_for"]


def format_named(name: str) -> Format:
    """The format called ``name``. Raises UsageError with the known names."""
    if name not in FORMATS:
        raise UsageError(f"there is no format {printable(name)!r}", hint=f"known: {', '.join(FORMATS)}")
    found = __import__(FORMATS[name][1], fromlist=["FORMAT"]).FORMAT
    assert isinstance(found, Format)
    return found


def detect(path: str | os.PathLike[str]) -> Format:
    """The format of what is at ``path``, by its first bytes. Raises FormatError, UnknownFormat."""
    path = os.fspath(path)
    return _detect(path, _head(path))


def _detect(path: str, head: bytes) -> Format:
    if is_tar(head):  # torch tries this before it unpickles, and a tar's first name can be anything
        raise _unknown(path, head)
    for candidate in _looking_like(_look(path, head)):
        if candidate.detect(path, head):
            return candidate
    raise _unknown(path, head)


def open_checkpoint(path: str | os.PathLike[str], limits: Limits = _DEFAULTS) -> Checkpoint:
    """The checkpoint at ``path``; reads specs only. Raises FormatError.

    While it is parsed this thread can read files and do nothing else: no import, no call, no write (TripwireError).
    """
    path = os.fspath(path)
    head = _head(path)
    try:
        found = _detect(path, head)
    except UnknownFormat:
        _refuse_payload(path, head, limits)
        raise
    if not found.judges:
        _refuse_payload(path, head, limits)
    with armed():
        return found.open(path, limits)


def _refuse_payload(path: str, head: bytes, limits: Limits) -> None:
    """Raise UnsafeContent where the file is a pickle with a payload too, whatever else it looks like."""
    if head and head[0] in PICKLE_STARTS:
        from weightkit.formats.bare_pickle import refuse_pickled_payload

        with armed():
            refuse_pickled_payload(path, limits)


def writer_for(path: str | os.PathLike[str]) -> Write:
    """What writes a file with this ending. Raises UsageError."""
    shown = printable(os.fspath(path))
    ending = os.path.splitext(path)[1].lower()
    writers = [candidate for candidate in map(format_named, FORMATS) if candidate.write is not None]
    for candidate in writers:
        if candidate.write is not None and ending in candidate.endings:
            return candidate.write
    known = ", ".join(ending for candidate in writers for ending in candidate.endings)
    raise UsageError(f"{shown}: nothing is written to a file with this ending", hint=f"use one of {known}")


def _looking_like(look: str) -> Iterator[Format]:
    return (format_named(name) for name, (outside, _) in FORMATS.items() if outside in (look, "other"))


def _look(path: str, head: bytes) -> str:
    """What it looks like from outside; a file that looks like nothing in particular is "other"."""
    if not head:
        return "folder"
    if head.startswith(b"PK"):
        return "zip"
    if head[0] == 0x80 or head.startswith(b"L119547037146038801333356L\n."):
        return "pickle"
    if path.endswith((".pkl", ".pickle")) and head[0] in PICKLE_STARTS:  # of protocol 0 or 1
        return "pickle"
    return "json" if head.lstrip().startswith(b"{") else "other"


def _head(path: str) -> bytes:
    """The first bytes of the file, none for a directory."""
    shown = printable(path)
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return b""
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{shown}: expected a file or a folder, found a device or a pipe")
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            head = os.pread(descriptor, HEAD_BYTES, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise FormatError(f"{shown}: no file can have this name") from None
    if not head:
        raise UnknownFormat(f"{shown}: the file is empty", hint="write or copy it again")
    return head


def _unknown(path: str, head: bytes) -> UnknownFormat:
    shown = printable(path)
    if not head:
        return UnknownFormat(
            f"{shown}: a folder, but no checkpoint: neither weightkit's or LeRobot's config.json beside "
            "model.safetensors nor the index of a sharded checkpoint lies in it",
            hint="name the checkpoint file inside it",
        )
    if is_tar(head):
        return UnknownFormat(
            f"{shown}: a tar archive; torch wrote checkpoints so before 0.1.10, and they are not read",
            hint="if you trust it, save it again with the torch of its time, or a current one: "
            "torch.save(torch.load(FILE), NEW)",
        )
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        kind = "text, expected a checkpoint"
    else:
        kind = f"no format recognises it; its first bytes are {head[:8].hex(' ')}"
    return UnknownFormat(f"{shown}: {kind}", hint=f"known formats: {', '.join(FORMATS)}")
