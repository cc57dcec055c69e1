"""Bytes that are read in pieces: a file that must not change between two of them, a part of one, or bytes in memory."""

from __future__ import annotations

import os
import stat

from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    PRead = Callable[[int, int], bytes]

_PIECE = 1 << 30


def unreadable(path: str | os.PathLike[str], error: OSError) -> FormatError:
    """The error for a file that the system does not let us read."""
    shown = printable(str(path))
    if isinstance(error, FileNotFoundError):
        return FormatError(f"{shown}: there is no such file", hint="check the path; names are case-sensitive")
    return FormatError(f"{shown}: cannot be read: {error.strerror or error}")


class Source:
    """A regular file by path, or a part of it. No descriptor stays open; later openings must find the same file."""

    __slots__ = ("_held", "_identity", "_start", "path", "shown", "size")

    def __init__(
        self, path: str, shown: str, size: int, *, start: int = 0, identity: object = None, held: bytes | None = None
    ) -> None:
        self.path = path
        self.shown = shown
        self.size = size
        self._start = start
        self._identity = identity
        self._held = held

    @classmethod
    def at(cls, path: str | os.PathLike[str], *, follow: bool = True) -> Source:
        """The file at ``path``. Raises FormatError if it is missing or no regular file.

        With ``follow`` off a symbolic link is refused: a file that another file names must lie where it says.
        """
        shown = printable(str(path))
        try:
            found = os.stat(path, follow_symlinks=follow)
        except OSError as error:
            raise unreadable(path, error) from None
        except ValueError:
            raise FormatError(f"{shown}: no file can have this name") from None
        if stat.S_ISLNK(found.st_mode):
            raise FormatError(
                f"{shown}: a symbolic link, which is not followed here", hint="copy the file itself there"
            )
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{shown}: expected a regular file, found something else (a device, a pipe, a folder)")
        return cls(os.fspath(path), shown, found.st_size, identity=_identity(found))

    @classmethod
    def holding(cls, content: bytes, *, path: str, shown: str) -> Source:
        """Bytes in memory that came out of the file at ``path``."""
        return cls(path, shown, len(content), held=content)

    def part(self, offset: int, length: int, *, shown: str) -> Source:
        """``length`` bytes at ``offset`` as a source of their own."""
        self._check_range(offset, length)
        start = self._start + offset
        return Source(self.path, shown, length, start=start, identity=self._identity, held=self._held)

    def opened(self) -> AbstractContextManager[PRead]:
        """A function ``pread(offset, length) -> bytes``. Raises CorruptFile if the file changed in the meantime."""
        return _Opened(self)

    def pread(self, descriptor: int) -> PRead:
        """What ``opened`` gives; ``descriptor`` is the file's, -1 where the bytes are in memory."""
        held, start = self._held, self._start
        if held is not None:
            return lambda offset, length: held[start + offset : start + offset + length]

        def pread(offset: int, length: int) -> bytes:
            found = os.pread(descriptor, length, start + offset)
            if len(found) != length:
                rest = bytearray(length - len(found))
                self._fill(descriptor, start + offset + len(found), rest)
                found += rest
            return found

        return pread

    def descriptor(self) -> int:
        """The file, opened, -1 where the bytes are in memory. Raises CorruptFile if it is another one by now."""
        if self._held is not None:
            return -1
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise unreadable(self.path, error) from None
        if _identity(os.fstat(descriptor)) != self._identity:
            os.close(descriptor)
            raise CorruptFile(
                f"{self.shown}: the file changed while it was being read",
                hint="copy it somewhere where nothing writes to it, and read the copy",
            )
        return descriptor

    def _fill(self, descriptor: int, offset: int, buffer: bytearray) -> None:
        """Fill ``buffer`` from ``offset`` of the file on. Raises CorruptFile where the file ends before it is full."""
        view = memoryview(buffer)
        filled = 0
        while filled < len(buffer):
            try:
                got = os.preadv(descriptor, [view[filled : filled + _PIECE]], offset + filled)
            except OSError as error:
                raise unreadable(self.path, error) from None
            if got <= 0:
                raise CorruptFile(
                    f"{self.shown}: wanted {len(buffer)} bytes at {offset}, the file ends after {filled} of them"
                )
            filled += got

    def read(self, offset: int, length: int) -> bytearray:
        """``length`` bytes at ``offset``, compared with the size before anything is allocated."""
        self._check_range(offset, length)
        start = self._start + offset
        if self._held is not None:
            return bytearray(self._held[start : start + length])
        buffer = bytearray(length)
        descriptor = self.descriptor()
        try:
            self._fill(descriptor, start, buffer)
        finally:
            os.close(descriptor)
        return buffer

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptFile(f"{self.shown}: bytes {offset} to {offset + length} of a file of {self.size}")


class _Opened:
    """A source with its file open, as long as the block lasts."""

    __slots__ = ("descriptor", "source")

    def __init__(self, source: Source) -> None:
        self.source = source

    def __enter__(self) -> PRead:
        self.descriptor = self.source.descriptor()
        return self.source.pread(self.descriptor)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        if isinstance(error, OSError):
            raise unreadable(self.source.path, error) from None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
