"""Whole-or-nothing files and folders: whoever reads sees the old one or the new one, never a mixture.

A file is written without a name where the system can do that (O_TMPFILE), so that even a kill leaves nothing behind.
What needs a name before it is in place, a folder above all, is a draft beside the target with the name
``.weightkit-<16 hex digits>.tmp``. Its writer holds a lock (flock) on it for as long as it lives. A kill can leave a
draft; the next write into the same folder removes those that nobody holds. Where the file system knows no locks they
stay, because nobody can tell that their writer is dead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import xxhash

from weightkit.core.text import printable
from weightkit.errors import WriteError

_CHUNK = 1 << 20
_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_DRAFT_NAME = re.compile(r"\.weightkit-[0-9a-f]{16}\.tmp")
_KINDS = {
    stat.S_IFLNK: "a symbolic link, which is not written through",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_HINTS = {
    errno.ENOSPC: "free some space there, or choose another place",
    errno.EDQUOT: "free some space there, or choose another place",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose another place",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of the path is no folder; check it",
}


def write_atomically(
    path: Path, write: Callable[[BinaryIO], None], *, force: bool = False, inputs: Sequence[Path] = ()
) -> None:
    """Write the file at ``path`` whole or not at all.

    ``write`` gets an empty seekable file. An existing file is replaced with ``force`` only, and keeps its mode.
    Raises WriteError for a target that is a link, a folder, a device or one of ``inputs``, and where writing fails.
    """
    shown = printable(str(path))
    mode = _check_target(path, force=force, inputs=inputs)
    try:
        _remove_dead_drafts(path.parent)
        with _draft(path) as draft:
            recorder = _Recorder(draft.descriptor)
            write(cast(BinaryIO, recorder))
            if mode is not None:
                os.fchmod(draft.descriptor, mode)
            os.fsync(draft.descriptor)
            recorder.verify(shown)
            try:
                draft.publish(replace=force)
            except FileExistsError:
                raise _exists(shown) from None
    except OSError as error:
        raise _failed(shown, error) from None
    _sync_parent(path)


def check_writable(path: Path, *, force: bool = False, inputs: Sequence[Path] = ()) -> None:
    """Raise WriteError where `write_atomically` would refuse ``path`` now, or cannot begin; nothing is written."""
    _check_target(path, force=force, inputs=inputs)
    try:
        with _draft(path):
            pass
    except OSError as error:
        raise _failed(printable(str(path)), error) from None


def write_directory_atomically(
    path: Path, fill: Callable[[Path], None], *, force: bool = False, is_ours: Callable[[Path], bool]
) -> None:
    """Put a new folder at ``path``, filled by ``fill``, whole or not at all.

    An existing folder is replaced with ``force`` only, only where ``is_ours`` says that weightkit wrote it, and only
    where the file system can swap two folders in one step; it keeps its mode. Raises WriteError.
    """
    shown = printable(str(path))
    found = _lstat(path)
    _check_place(path)
    if found is not None:
        if not stat.S_ISDIR(found.st_mode):
            raise _taken(shown, found)
        try:
            ours = is_ours(path)
        except OSError as error:
            raise _failed(shown, error) from None
        if not ours:
            raise WriteError(f"{shown}: a folder that weightkit did not write is never replaced", hint="choose another")
        if not force:
            raise _exists(shown)
    try:
        _remove_dead_drafts(path.parent)
        draft, descriptor = _create(path.parent, _make_folder)
        try:
            try:
                fill(draft)
            except WriteError as error:  # it names the draft, which nobody knows
                message = error.message.replace(printable(str(draft)), shown)
                raise WriteError(message, hint=error.hint) from None
            if found is not None:
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
            _sync_tree(draft)
            _publish_folder(draft, path, found)
        finally:
            if _is_at(draft, os.fstat(descriptor)) or (found is not None and _is_at(draft, found)):
                _remove_folder(draft)
            os.close(descriptor)
    except OSError as error:
        raise _failed(shown, error) from None
    _sync_parent(path)


def _check_target(path: Path, *, force: bool, inputs: Sequence[Path]) -> int | None:
    """The mode that the new file must have, None for the system's default. Raises WriteError."""
    shown = printable(str(path))
    found = _lstat(path)
    _check_place(path)
    if found is None:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise _taken(shown, found)
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
    except OSError as error:
        raise _failed(printable(str(path)), error) from None
    except ValueError:
        raise WriteError(f"{printable(str(path))}: no file can have this name", hint="choose another name") from None


def _check_place(path: Path) -> None:
    if path.name in ("", ".."):
        raise WriteError(f"{printable(str(path))}: is a folder by its place, not by its name", hint="give it its name")
    if not path.parent.is_dir():
        raise WriteError(
            f"{printable(str(path))}: the folder {printable(str(path.parent))} does not exist", hint="create it first"
        )


def _taken(shown: str, found: os.stat_result) -> WriteError:
    kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a device")
    return WriteError(f"{shown}: is {kind}", hint="choose another name for the output")


def _exists(shown: str) -> WriteError:
    return WriteError(f"{shown}: exists already", hint="replace it with --force, or choose another name")


def _failed(shown: str, error: OSError) -> WriteError:
    hint = _HINTS.get(error.errno or 0, "choose another place for the output")
    return WriteError(f"{shown}: cannot be written: {error.strerror or error}; nothing was left behind", hint=hint)


@dataclass(slots=True)
class _Draft:
    """An open file that has no place yet: without any name, or with a temporary one."""

    path: Path
    descriptor: int
    temporary: Path | None

    def publish(self, *, replace: bool) -> None:
        """Give it its name. Raises FileExistsError where something has that name and ``replace`` is off."""
        if self.temporary is None:
            try:
                self._link(self.path)
                return
            except FileExistsError:
                if not replace:
                    raise
            name = _new_name(self.path.parent)
            self._link(name)
            self.temporary = name
        if replace:
            os.replace(self.temporary, self.path)
        elif not _rename(self.temporary, self.path, _RENAME_NOREPLACE):
            os.link(self.temporary, self.path)
            return
        self.temporary = None

    def _link(self, target: Path) -> None:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
        if draft.temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft.temporary)
        os.close(draft.descriptor)


def _open_draft(path: Path) -> _Draft:
    nameless = getattr(os, "O_TMPFILE", 0)
    if nameless and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not every file system can; then a name beside the target does
            descriptor = os.open(path.parent, nameless | os.O_RDWR | os.O_CLOEXEC, 0o666)
            _hold(descriptor)
            return _Draft(path, descriptor, None)
    temporary, descriptor = _create(path.parent, _make_file)
    return _Draft(path, descriptor, temporary)


def _new_name(folder: Path) -> Path:
    return folder / f".weightkit-{secrets.token_hex(8)}.tmp"


def _make_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _make_folder(path: Path) -> int:
    path.mkdir()
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        with contextlib.suppress(OSError):
            path.rmdir()
        raise


def _create(folder: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A new draft in ``folder`` with a name, and the descriptor that holds it. Raises OSError."""
    attempts = 8
    while True:  # between making and holding it, another writer may take it for dead and remove it
        attempts -= 1
        path = _new_name(folder)
        try:
            descriptor = make(path)
        except FileNotFoundError:
            if not attempts or not folder.is_dir():
                raise
            continue
        if not attempts or (_hold(descriptor) and _is_at(path, os.fstat(descriptor))):
            return path, descriptor
        os.close(descriptor)


def _hold(descriptor: int) -> bool:
    """Show other writers that this draft's writer lives; False where one of them is removing it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here; then nobody removes drafts here either
        return True
    return True


def _is_at(path: Path, found: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), found)
    except FileNotFoundError:
        return False


def _remove_dead_drafts(folder: Path) -> None:
    """Remove the drafts in ``folder`` whose writers were killed, as far as that can be told and is allowed."""
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            drafts = [Path(entry.path) for entry in entries if _DRAFT_NAME.fullmatch(entry.name)]
        for draft in drafts:
            with contextlib.suppress(OSError):
                _remove_if_dead(draft)


def _remove_if_dead(draft: Path) -> None:
    found = draft.lstat()
    if found.st_uid != os.geteuid() or stat.S_IFMT(found.st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return
    descriptor = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError where its writer lives
        if not _is_at(draft, os.fstat(descriptor)):
            return
        if stat.S_ISREG(found.st_mode):
            draft.unlink()
        else:  # under a new name first: a writer without a working lock then fails, instead of publishing a part
            doomed = _new_name(draft.parent)
            draft.rename(doomed)
            _remove_folder(doomed)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Run:
    """Bytes written one after the other, with their digest."""

    start: int
    end: int
    digest: xxhash.xxh3_128 = field(repr=False)


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
        if not written:
            return 0
        run = self._runs[-1] if self._runs else None
        if run is None or run.end != self._position:
            run = _Run(self._position, self._position, xxhash.xxh3_128())
            self._runs.append(run)
        run.digest.update(view)
        self._position += written
        run.end = self._position
        return written

    def verify(self, shown: str) -> None:
        """Read every run back and compare it. Raises WriteError; what was skipped over is a hole and holds zeros."""
        buffer = memoryview(bytearray(_CHUNK))
        position = 0
        for run in sorted(self._runs, key=lambda run: run.start):
            if run.start < position:
                raise WriteError(f"{shown}: the format wrote byte {run.start} twice")
            position = run.start
            arrived = xxhash.xxh3_128()
            while position < run.end:
                got = os.preadv(self._descriptor, [buffer[: run.end - position]], position)
                if not got:
                    raise OSError("the file is shorter than what was written")
                arrived.update(buffer[:got])
                position += got
            if arrived.digest() != run.digest.digest():
                raise WriteError(
                    f"{shown}: what was read back differs from what was written; the disk is not to be trusted"
                )


def _sync_parent(path: Path) -> None:
    """Make the new name last. Raises WriteError that says so: the file is in place already."""
    try:
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders cannot be synced there
            raise WriteError(
                f"{printable(str(path))}: is in place and whole, but its folder could not be synced, so that a loss of"
                f" power may undo it: {error.strerror or error}"
            ) from None


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for name, _, files in os.walk(folder, topdown=False):
        for file in files:
            descriptor = os.open(os.path.join(name, file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(name))


def _publish_folder(draft: Path, target: Path, found: os.stat_result | None) -> None:
    """Put ``draft`` at ``target``, in the place of the folder ``found`` there. Raises WriteError and OSError."""
    shown = printable(str(target))
    if found is None:
        try:
            if not _rename(draft, target, _RENAME_NOREPLACE):
                draft.rename(target)  # this replaces an empty folder at most
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise _exists(shown) from None
            raise
        return
    if not _rename(draft, target, _RENAME_EXCHANGE):
        raise WriteError(
            f"{shown}: this file system cannot swap two folders in one step; the old one stays",
            hint="remove it first, or choose another name",
        )
    if not _is_at(draft, found):
        _rename(draft, target, _RENAME_EXCHANGE)
        raise WriteError(f"{shown}: was replaced by someone else meanwhile", hint="look at it, then try again")


def _rename(old: Path, new: Path, flags: int) -> bool:
    """renameat2; False where the system or the file system does not know these flags. Raises OSError."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(new))


def _remove_folder(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.chmod(0o700)  # it may have the mode of a folder that its owner made read-only
        shutil.rmtree(path)
