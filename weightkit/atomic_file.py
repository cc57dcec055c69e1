"""Whole-or-nothing files and folders: whoever reads sees the old one or the new one, never a mixture.

A file is written without a name where the system can do that (O_TMPFILE), so that even a kill leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from weightkit.core.text import printable
from weightkit.errors import WriteError

_CHUNK = 1 << 20
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_atomically(
    path: Path, write: Callable[[BinaryIO], None], *, force: bool = False, inputs: Sequence[Path] = ()
) -> str:
    """Write the file at ``path`` whole or not at all; gives the sha256 of what now stands there.

    ``write`` gets an empty seekable file. An existing file is replaced with ``force`` only, and keeps its mode.
    Raises WriteError for a target that is a link, a folder, a device or one of ``inputs``, and where writing fails.
    """
    shown = printable(str(path))
    mode = _check_target(path, force=force, inputs=inputs)
    try:
        with _draft(path) as draft:
            recorder = _Recorder(draft.descriptor)
            write(cast(BinaryIO, recorder))
            os.fsync(draft.descriptor)
            digest = recorder.verify(shown)
            if mode is not None:
                os.fchmod(draft.descriptor, mode)
            draft.publish(replace=force)
        _sync_folder(path.parent)
    except FileExistsError:
        raise _exists(shown) from None
    except OSError as error:
        raise _failed(shown, error) from None
    return digest


def write_directory_atomically(
    path: Path, fill: Callable[[Path], None], *, force: bool = False, is_ours: Callable[[Path], bool]
) -> None:
    """Put a new folder at ``path``, filled by ``fill``, whole or not at all.

    An existing folder is replaced with ``force`` only, and only where ``is_ours`` says that weightkit wrote it.
    Raises WriteError.
    """
    shown = printable(str(path))
    found = _lstat(path)
    if found is not None:
        if not stat.S_ISDIR(found.st_mode):
            raise WriteError(f"{shown}: is no folder", hint="choose another name for the output")
        if not is_ours(path):
            raise WriteError(f"{shown}: a folder that weightkit did not write is never replaced", hint="choose another")
        if not force:
            raise _exists(shown)
    _check_parent(path)
    draft = path.with_name(_draft_name(path))
    try:
        try:
            draft.mkdir()
            fill(draft)
            _sync_tree(draft)
            if found is None:
                draft.rename(path)
            else:
                _exchange(draft, path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise _failed(shown, error) from None


def _check_target(path: Path, *, force: bool, inputs: Sequence[Path]) -> int | None:
    """The mode that the new file must have, None for the system's default. Raises WriteError."""
    shown = printable(str(path))
    found = _lstat(path)
    _check_parent(path)
    if found is None:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise WriteError(f"{shown}: is a symbolic link, which is not written through", hint="name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise WriteError(f"{shown}: is no regular file", hint="choose another name for the output")
    for origin in inputs:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(origin), found):
                raise WriteError(f"{shown}: is what is being read", hint="choose another name for the output")
    if not force:
        raise _exists(shown)
    return stat.S_IMODE(found.st_mode) & 0o777


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WriteError(f"{printable(str(path))}: cannot be written: {printable(str(error))}") from None


def _check_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise WriteError(
            f"{printable(str(path))}: the folder {printable(str(path.parent))} does not exist", hint="create it first"
        )


def _exists(shown: str) -> WriteError:
    return WriteError(f"{shown}: exists already", hint="replace it with --force, or choose another name")


def _failed(shown: str, error: OSError) -> WriteError:
    return WriteError(f"{shown}: cannot be written: {error.strerror or error}; nothing was left behind")


def _draft_name(path: Path) -> str:
    return f".{path.name[:200]}.{secrets.token_hex(8)}.tmp"


@dataclass(slots=True)
class _Draft:
    """An open file that has no place yet: without any name, or with a temporary one."""

    path: Path
    descriptor: int
    temporary: Path | None

    def publish(self, *, replace: bool) -> None:
        """Give it its name. Raises FileExistsError where something has that name and ``replace`` is off."""
        if not replace:
            self._link(self.path)
            return
        if self.temporary is None:
            name = self.path.with_name(_draft_name(self.path))
            self._link(name)
            self.temporary = name
        os.replace(self.temporary, self.path)
        self.temporary = None

    def _link(self, target: Path) -> None:
        if self.temporary is not None:
            os.link(self.temporary, target)
            return
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:  # naming both folders makes Python use linkat, which alone can follow the descriptor
            os.link(
                f"/proc/self/fd/{self.descriptor}",
                target.name,
                src_dir_fd=folder,
                dst_dir_fd=folder,
                follow_symlinks=True,
            )
        finally:
            os.close(folder)


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[_Draft]:
    draft = _open_draft(path)
    try:
        yield draft
    finally:
        os.close(draft.descriptor)
        if draft.temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft.temporary)


def _open_draft(path: Path) -> _Draft:
    nameless = getattr(os, "O_TMPFILE", 0)
    if nameless and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not every file system can; then a name beside the target does
            return _Draft(path, os.open(path.parent, nameless | os.O_RDWR | os.O_CLOEXEC, 0o666), None)
    temporary = path.with_name(_draft_name(path))
    return _Draft(path, os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), temporary)


@dataclass(slots=True)
class _Run:
    """Bytes written one after the other, with their digest."""

    start: int
    end: int
    digest: hashlib._Hash = field(repr=False)


class _Recorder(io.RawIOBase):
    """A seekable file that remembers the digest of what was written, run by run, to compare it with what arrived."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._position = 0
        self._runs: list[_Run] = []

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = os.lseek(self._descriptor, offset, whence)
        return self._position

    def write(self, content: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(content).cast("B")
        written = 0
        while written < len(view):
            written += os.write(self._descriptor, view[written : written + (1 << 30)])
        run = self._runs[-1] if self._runs else None
        if run is None or run.end != self._position:
            run = _Run(self._position, self._position, hashlib.sha256())
            self._runs.append(run)
        run.digest.update(view)
        self._position += written
        run.end = self._position
        return written

    def verify(self, shown: str) -> str:
        """The sha256 of the file, after every run was read back and compared. Raises WriteError."""
        whole = hashlib.sha256()
        size = os.fstat(self._descriptor).st_size
        position = 0
        for run in [*sorted(self._runs, key=lambda run: run.start), _Run(size, size, hashlib.sha256())]:
            if run.start < position:
                raise WriteError(f"{shown}: the format wrote byte {run.start} twice")
            while position < run.start:  # a hole that was skipped over; it holds zeros
                position += self._digest(position, min(_CHUNK, run.start - position), whole)
            arrived = hashlib.sha256()
            while position < run.end:
                position += self._digest(position, min(_CHUNK, run.end - position), whole, arrived)
            if arrived.digest() != run.digest.digest():
                raise WriteError(
                    f"{shown}: what was read back differs from what was written; the disk is not to be trusted"
                )
        return whole.hexdigest()

    def _digest(self, position: int, length: int, *digests: hashlib._Hash) -> int:
        chunk = os.pread(self._descriptor, length, position)
        if not chunk:
            raise OSError("the file is shorter than what was written")
        for digest in digests:
            digest.update(chunk)
        return len(chunk)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for name, _, files in os.walk(folder, topdown=False):
        for file in files:
            descriptor = os.open(os.path.join(name, file), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(name))


def _exchange(draft: Path, target: Path) -> None:
    """Swap two folders, in one step where the system can; otherwise the old one stands aside for a moment."""
    with contextlib.suppress(OSError, AttributeError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        if rename(_AT_FDCWD, os.fsencode(draft), _AT_FDCWD, os.fsencode(target), _RENAME_EXCHANGE) == 0:
            return
    aside = target.with_name(_draft_name(target))
    target.rename(aside)
    try:
        draft.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
