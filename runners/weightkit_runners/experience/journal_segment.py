"""One file of the journal: records that are verified before they are believed, whatever has happened to the file.

A segment begins with a line that names the format and 16 random bytes. A record is a mark, its length, a check of the
two, the digest of the body, and the body. Check and digest cover the random bytes and the record's place in the file
too, so that neither a payload that looks like a record nor a record that lies elsewhere passes for one.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

FORMAT = b"weightkit-journal-1\n"
SALT_BYTES = 16
START = len(FORMAT) + SALT_BYTES
MAX_BODY_BYTES = 64 << 20
MARK = b"\xf5WKJ"
_PREFIX = struct.Struct("<4sII16s")
_PLACE = struct.Struct("<QI")
_sync = getattr(os, "fdatasync", os.fsync)


@dataclass(frozen=True, slots=True)
class Found:
    """A verified record: its body, and where it begins and ends in the file."""

    start: int
    end: int
    body: bytes


def records(content: bytes) -> Iterator[Found]:
    """The verified records of a whole segment, in order; what lies between them and behind them is none."""
    if not content.startswith(FORMAT) or len(content) < START:
        return
    at = START
    while (at := content.find(MARK, at)) >= 0:
        found = _verified(content, at)
        if found is None:
            at += 1
        else:
            yield found
            at = found.end


def first_record(path: Path) -> Found | None:
    """The record that the segment begins with; None where it cannot be verified. Raises OSError."""
    with path.open("rb") as file:
        content = file.read(START + _PREFIX.size)
        if len(content) == START + _PREFIX.size:
            _, length, _, _ = _PREFIX.unpack_from(content, START)
            if length <= MAX_BODY_BYTES:
                content += file.read(length)
    found = next(records(content), None)
    return found if found is not None and found.start == START else None


def _verified(content: bytes, at: int) -> Found | None:
    body_at = at + _PREFIX.size
    if body_at > len(content):
        return None
    _, length, check, digest = _PREFIX.unpack_from(content, at)
    salt = content[len(FORMAT) : START]
    if length > len(content) - body_at or check != _check(salt, at, length):
        return None
    body = content[body_at : body_at + length]
    return Found(at, body_at + length, body) if digest == _digest(salt, at, body) else None


def _check(salt: bytes, offset: int, length: int) -> int:
    return xxhash.xxh32_intdigest(salt + _PLACE.pack(offset, length))


def _digest(salt: bytes, offset: int, body: bytes) -> bytes:
    digest = xxhash.xxh3_128(salt + _PLACE.pack(offset, len(body)))
    digest.update(body)
    return digest.digest()


class SegmentFile:
    """A segment that is written to, from its beginning. ``size_bytes`` are written, ``durable_bytes`` on the disk.

    ``body``: its first record. With ``sync`` the disk has it, and the file's name, when this returns. Raises OSError,
    and leaves no file then.
    """

    def __init__(self, path: Path, body: bytes, *, sync: bool) -> None:
        self.path = path
        self._head = FORMAT + os.urandom(SALT_BYTES)
        self.size_bytes = 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            self._write(self._head)
            self.append(body)
            if sync:
                self.sync()
                sync_file(path.parent)
        except BaseException:
            self.close()
            path.unlink(missing_ok=True)
            raise
        self.durable_bytes = self.size_bytes

    def append(self, body: bytes) -> None:
        """Write a record. Raises OSError; the file is as it was then."""
        salt = self._head[len(FORMAT) :]
        check, digest = _check(salt, self.size_bytes, len(body)), _digest(salt, self.size_bytes, body)
        self._write(_PREFIX.pack(MARK, len(body), check, digest) + body)

    def sync(self) -> None:
        """Bring what is written to the disk. Raises OSError."""
        _sync(self._fd)

    def take_back(self) -> None:
        """Forget what is not durable."""
        self.size_bytes = self.durable_bytes
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self.size_bytes)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._fd)

    def _write(self, content: bytes) -> None:
        view, at = memoryview(content), self.size_bytes
        try:
            while view:
                written = os.pwrite(self._fd, view, at)
                view, at = view[written:], at + written
        except OSError:
            with contextlib.suppress(OSError):  # what is left is no record, and the next one is written over it
                os.ftruncate(self._fd, self.size_bytes)
            raise
        self.size_bytes = at


def sync_file(path: Path) -> None:
    """Bring a file, or a folder's names, to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        _sync(fd)
    finally:
        os.close(fd)
