"""A file that is read in pieces, and that must not change between two of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError

_PIECE = 1 << 30


def unreadable(path: Path | str, error: OSError) -> FormatError:
    """The error for a file that the system does not let us read."""
    shown = printable(str(path))
    if isinstance(error, FileNotFoundError):
        return FormatError(f"{shown}: there is no such file", hint="check the path; names are case-sensitive")
    return FormatError(f"{shown}: cannot be read: {error.strerror or error}")


@dataclass(frozen=True, slots=True)
class Source:
    """A regular file by path. No descriptor stays open; every later opening must find the same file."""

    path: str
    shown: str
    size: int
    identity: tuple[int, int, int, int]

    @classmethod
    def at(cls, path: Path) -> Source:
        """The file at ``path``. Raises FormatError if it is missing or no regular file."""
        shown = printable(str(path))
        try:
            found = os.stat(path)
        except OSError as error:
            raise unreadable(path, error) from None
        except ValueError:
            raise FormatError(f"{shown}: no file can have this name") from None
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{shown}: expected a regular file, found something else (a device, a pipe, a folder)")
        return cls(os.fspath(path), shown, found.st_size, _identity(found))

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor for reading. Raises CorruptFile if the file changed since it was first opened."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise unreadable(self.path, error) from None
        try:
            if _identity(os.fstat(descriptor)) != self.identity:
                raise CorruptFile(
                    f"{self.shown}: the file changed while it was being read",
                    hint="copy it somewhere where nothing writes to it, and read the copy",
                )
            yield descriptor
        finally:
            os.close(descriptor)

    def fill(self, descriptor: int, offset: int, buffer: bytearray) -> None:
        """Fill ``buffer`` from ``offset`` on. Raises CorruptFile where the file ends before it is full."""
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
        """``length`` bytes at ``offset``."""
        buffer = self.check_range(offset, length)
        with self.opened() as descriptor:
            self.fill(descriptor, offset, buffer)
        return buffer

    def check_range(self, offset: int, length: int) -> bytearray:
        """An empty buffer for a range that lies inside the file: compared before anything is allocated."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptFile(f"{self.shown}: bytes {offset} to {offset + length} of a file of {self.size}")
        return bytearray(length)


def _identity(found: os.stat_result) -> tuple[int, int, int, int]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
