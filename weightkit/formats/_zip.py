"""A strict zip reader and a plain zip writer. What the reader accepts has exactly one reading.

No prefix, no comment, no encryption, no second disk, no gap and no overlap between entries, no hidden or duplicate
entry; every local header says what the central one says. Source: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from weightkit.core.text import printable
from weightkit.errors import CorruptFile, WriteError
from weightkit.formats._source import Source
from weightkit.formats.base import Limits

STORED, DEFLATED = 0, 8
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR, _DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_HAS_DESCRIPTOR, _UTF8, _DEFLATE_HINTS = 0x0008, 0x0800, 0x0006
# zip64 sizes, torch's alignment padding ("FB"), unix times and owners; anything else could change the reading.
_EXTRAS = {0x0001, 0x4246, 0x5455, 0x7875}
_MOST_RATIO = 1040  # deflate cannot do better than 1032 to 1
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: where its bytes lie, how many, and what they must add up to."""

    name: str
    data_offset: int
    stored: int
    size: int
    method: int
    crc: int


@dataclass(frozen=True, slots=True)
class _Central:
    raw_name: bytes
    flags: int
    method: int
    moment: int
    crc: int
    stored: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose directory has been checked; entries are read on demand."""

    source: Source
    entries: Mapping[str, Entry]
    checksummed: bool = True  # torch can be told to write every checksum as 0

    def read(self, entry: Entry) -> bytearray:
        """All bytes of ``entry``, inflated, their checksum verified. Raises CorruptFile."""
        stored = self.source.read(entry.data_offset, entry.stored)
        plain = stored if entry.method == STORED else self._inflate(entry, stored)
        self._check(entry, zlib.crc32(plain))
        return plain

    def read_part(self, entry: Entry, start: int, length: int) -> bytearray:
        """``length`` bytes of ``entry`` from ``start`` on; the checksum of the whole entry is verified first."""
        if start == 0 and length == entry.size:
            return self.read(entry)
        if entry.method != STORED:
            return self.read(entry)[start : start + length]
        crc = 0
        with self.source.opened() as descriptor:
            for offset in range(0, entry.size, _CHUNK):
                chunk = bytearray(min(_CHUNK, entry.size - offset))
                self.source.fill(descriptor, entry.data_offset + offset, chunk)
                crc = zlib.crc32(chunk, crc)
            self._check(entry, crc)
            part = bytearray(length)
            self.source.fill(descriptor, entry.data_offset + start, part)
        return part

    def _check(self, entry: Entry, crc: int) -> None:
        if self.checksummed and crc != entry.crc:
            raise CorruptFile(f"{self._at(entry)}: checksum {crc:08x}, expected {entry.crc:08x}")

    def _inflate(self, entry: Entry, stored: bytearray) -> bytearray:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = inflater.decompress(stored, entry.size + 1)
        except zlib.error as error:
            raise CorruptFile(f"{self._at(entry)}: cannot be inflated: {error}") from None
        if len(plain) != entry.size or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
            raise CorruptFile(f"{self._at(entry)}: inflates to something else than the {entry.size} bytes announced")
        return bytearray(plain)

    def _at(self, entry: Entry) -> str:
        return f"{self.source.shown}: entry {printable(entry.name)!r}"


def open_archive(path: Path, limits: Limits) -> Archive:
    """The archive at ``path``. Raises CorruptFile for whatever could be read in two ways."""
    source = Source.at(path)
    with source.opened() as descriptor:
        start, size, count = _end_records(source, descriptor)
        if count > limits.entries:
            raise limits.exceeded("entries", where=source.shown, found=f"{count} files in the archive")
        if size > limits.header_bytes:
            raise limits.exceeded("header_bytes", where=source.shown, found=f"an archive directory of {size} bytes")
        if count * 46 > size:
            raise CorruptFile(f"{source.shown}: {count} entries announced in a directory of {size} bytes")
        directory = source.check_range(start, size)
        source.fill(descriptor, start, directory)
        found = _central_headers(source, bytes(directory), count)
        found.sort(key=lambda central: central.offset)
        entries: dict[str, Entry] = {}
        position = 0
        for index, central in enumerate(found):
            if central.offset != position:
                raise CorruptFile(
                    f"{source.shown}: {_shown(central)} starts at {central.offset}, expected {position}: "
                    "the archive has a prefix, a gap, a hidden entry or an overlap"
                )
            position = found[index + 1].offset if index + 1 < len(found) else start
            entry = _entry(source, descriptor, central, position, limits)
            if entry.name in entries:
                raise CorruptFile(f"{source.shown}: entry {printable(entry.name)!r} stands twice in the archive")
            entries[entry.name] = entry
        if position != start:
            raise CorruptFile(f"{source.shown}: {start - position} bytes before the directory belong to no entry")
    checksummed = any(entry.crc for entry in entries.values())
    return Archive(source, entries, checksummed)


def _end_records(source: Source, descriptor: int) -> tuple[int, int, int]:
    """Where the directory starts, its size and its number of entries."""
    shown = source.shown
    tail = bytearray(min(98, source.size))
    source.fill(descriptor, source.size - len(tail), tail)
    end = tail[-22:]
    if len(end) < 22 or end[:4] != _END:
        raise CorruptFile(
            f"{shown}: the file does not end with a zip end record: it was cut short, or something was appended",
            hint="copy or download it again and compare the sizes",
        )
    disk, start_disk, here, count, size, start, comment = struct.unpack("<HHHHIIH", end[4:])
    if comment or disk not in (0, _U16) or start_disk not in (0, _U16) or here != count:
        raise CorruptFile(f"{shown}: the zip end record has a comment or speaks of several disks")
    limit = source.size - 22
    if len(tail) == 98 and tail[56:60] == _LOCATOR:
        first_disk, position, disks = struct.unpack("<IQI", tail[60:76])
        if first_disk or disks != 1 or position != source.size - 98 or tail[:4] != _END64:
            raise CorruptFile(f"{shown}: the zip64 end record is not where its locator says")
        length, _, _, disk64, start64, here64, count64, size64, position64 = struct.unpack("<QHHIIQQQQ", tail[4:56])
        agree = count in (count64, _U16) and size in (size64, _U32) and start in (position64, _U32)
        if length != 44 or disk64 or start64 or here64 != count64 or not agree:
            raise CorruptFile(f"{shown}: the zip64 end record contradicts the zip end record")
        count, size, start = count64, size64, position64
        limit = source.size - 98
    elif _U16 in (disk, start_disk) or _U32 in (size, start):
        raise CorruptFile(f"{shown}: the zip end record points to a zip64 end record that is not there")
    if start + size != limit:
        raise CorruptFile(
            f"{shown}: the archive's directory should end at {limit}, it ends at {start + size}: "
            "the file was cut short, or something stands before or after the archive"
        )
    return start, size, count


def _central_headers(source: Source, directory: bytes, count: int) -> list[_Central]:
    found: list[_Central] = []
    position = 0
    for _ in range(count):
        head = directory[position : position + 46]
        if len(head) < 46 or head[:4] != _CENTRAL:
            raise CorruptFile(f"{source.shown}: the archive's directory is malformed at its byte {position}")
        flags, method, moment, crc, stored, size, names, extras, comment, disk, _, _, offset = struct.unpack(
            "<HHIIIIHHHHHII", head[8:]
        )
        name_end = position + 46 + names
        end = name_end + extras + comment
        if end > len(directory):
            raise CorruptFile(f"{source.shown}: the archive's directory ends inside an entry")
        central = _Central(directory[position + 46 : name_end], flags, method, moment, crc, stored, size, offset)
        shown = f"{source.shown}: {_shown(central)}"
        if flags & 0x2041:
            raise CorruptFile(f"{shown} is encrypted", hint="decrypt the archive first")
        if flags & ~(_HAS_DESCRIPTOR | _UTF8 | _DEFLATE_HINTS) or comment or disk not in (0, _U16):
            raise CorruptFile(f"{shown} has flags {flags:#06x}, a comment or a second disk, which is refused")
        if method not in (STORED, DEFLATED):
            raise CorruptFile(f"{shown} is packed with method {method}; only stored and deflated are read")
        zip64 = _extra_fields(shown, directory[name_end : name_end + extras]).get(1, b"")
        if zip64:
            values = [v for v, limit in ((size, _U32), (stored, _U32), (offset, _U32)) if v == limit]
            if len(zip64) != 8 * len(values):
                raise CorruptFile(f"{shown} has a zip64 field of {len(zip64)} bytes, expected {8 * len(values)}")
            wide = iter(struct.unpack(f"<{len(values)}Q", zip64))
            size = next(wide) if size == _U32 else size
            stored = next(wide) if stored == _U32 else stored
            offset = next(wide) if offset == _U32 else offset
        if method == STORED and stored != size:
            raise CorruptFile(f"{shown} is stored plainly, but {stored} bytes are said to become {size}")
        if size > _MOST_RATIO * stored + 64:
            raise CorruptFile(f"{shown} claims that {stored} bytes inflate to {size}, which deflate cannot do")
        found.append(_Central(central.raw_name, flags, method, moment, crc, stored, size, offset))
        position = end
    if position != len(directory):
        raise CorruptFile(f"{source.shown}: the archive's directory has entries that are not counted")
    return found


def _entry(source: Source, descriptor: int, central: _Central, end: int, limits: Limits) -> Entry:
    """The entry, after its local header and what follows its data were compared with the central header."""
    shown = f"{source.shown}: {_shown(central)}"
    start = central.offset
    head = source.check_range(start, min(30 + len(central.raw_name) + 96, max(end - start, 0)))
    source.fill(descriptor, start, head)
    if len(head) < 30 or head[:4] != _LOCAL:
        raise CorruptFile(f"{shown}: there is no local header at byte {start}")
    flags, method, moment, crc, stored, size, names, extras = struct.unpack("<HHIIIIHH", head[6:30])
    header_bytes = 30 + names + extras
    if start + header_bytes > end:
        raise CorruptFile(f"{shown}: the local header runs into what follows")
    if header_bytes > len(head):
        head = source.check_range(start, header_bytes)
        source.fill(descriptor, start, head)
    zip64 = _extra_fields(shown, bytes(head[30 + names : header_bytes])).get(1, b"")
    if zip64 and size == _U32 and stored == _U32 and len(zip64) >= 16:
        size, stored = struct.unpack_from("<QQ", zip64)
    same = bytes(head[30 : 30 + names]) == central.raw_name and (flags, method, moment) == (
        central.flags,
        central.method,
        central.moment,
    )
    told = (crc, stored, size)
    expected = (central.crc, central.stored, central.size)
    if not same or (told != expected and not (flags & _HAS_DESCRIPTOR and told == (0, 0, 0))):
        raise CorruptFile(f"{shown}: the local header contradicts the archive's directory")
    data_end = start + header_bytes + central.stored
    gap = end - data_end
    if flags & _HAS_DESCRIPTOR:
        if gap not in (16, 24):
            raise CorruptFile(f"{shown}: {gap} bytes stand where its data descriptor should be")
        descriptor_bytes = source.check_range(data_end, gap)
        source.fill(descriptor, data_end, descriptor_bytes)
        layout = "<III" if gap == 16 else "<IQQ"
        if descriptor_bytes[:4] != _DESCRIPTOR or struct.unpack(layout, descriptor_bytes[4:]) != expected:
            raise CorruptFile(f"{shown}: its data descriptor contradicts the archive's directory")
    elif gap != 0:
        raise CorruptFile(f"{shown}: its data end at {data_end}, expected {end}: a gap, an overlap or a hidden entry")
    if central.method == DEFLATED and central.size > limits.expanded_bytes:
        raise limits.exceeded("expanded_bytes", where=shown, found=f"inflates to {central.size} bytes")
    return Entry(
        _name(source, central),
        start + header_bytes,
        central.stored,
        central.size,
        central.method,
        central.crc,
    )


def _extra_fields(shown: str, extra: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    position = 0
    while position < len(extra):
        if position + 4 > len(extra):
            raise CorruptFile(f"{shown}: its extra field is malformed")
        kind, length = struct.unpack_from("<HH", extra, position)
        position += 4 + length
        if position > len(extra) or kind in fields or kind not in _EXTRAS:
            raise CorruptFile(f"{shown}: its extra field {kind:#06x} is malformed, doubled or unknown")
        fields[kind] = extra[position - length : position]
    return fields


def _name(source: Source, central: _Central) -> str:
    try:
        name = central.raw_name.decode("utf-8" if central.flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise CorruptFile(f"{source.shown}: {_shown(central)}: the name is not in the announced encoding") from None
    if not name or "\0" in name:
        raise CorruptFile(f"{source.shown}: {_shown(central)}: the name is empty or holds a NUL")
    return name


def _shown(central: _Central) -> str:
    return f"entry {printable(central.raw_name.decode('utf-8', 'backslashreplace'))!r}"


class ZipWriter:
    """Writes stored entries one after the other, each aligned to 64 bytes as torch does; the same input gives the
    same bytes. Call ``finish`` at the end."""

    ALIGNMENT = 64
    _MOMENT = 0x00210000  # 1980-01-01 00:00, the first moment that zip knows

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self._directory: list[bytes] = []

    def add(self, name: str, content: bytes | bytearray | memoryview) -> None:
        """Add one entry."""
        try:
            raw_name = name.encode()
        except UnicodeEncodeError:
            raise WriteError(f"{printable(name)!r} cannot be a name in an archive: it is not valid Unicode") from None
        if not 0 < len(raw_name) <= _U16 or b"\0" in raw_name:
            raise WriteError(f"{printable(name)!r} cannot be a name in an archive: it is empty, too long or has a NUL")
        size = memoryview(content).nbytes
        crc = zlib.crc32(content)
        wide = size >= _U32
        far = self._position >= _U32
        local_sizes = struct.pack("<HHQQ", 1, 16, size, size) if wide else b""
        fixed = self._position + 30 + len(raw_name) + len(local_sizes) + 4
        padding = -fixed % self.ALIGNMENT
        extra = local_sizes + struct.pack("<HH", 0x4246, padding) + b"Z" * padding
        needed = 45 if wide or far else 20
        short = _U32 if wide else size
        common = struct.pack("<HHHIIII", needed, _UTF8, STORED, self._MOMENT, crc, short, short)
        self._write(_LOCAL + common + struct.pack("<HH", len(raw_name), len(extra)) + raw_name + extra)
        offset = fixed - 34 - len(raw_name) - len(local_sizes)
        self._write(content)
        numbers = ([size, size] if wide else []) + ([offset] if far else [])
        central_extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
        self._directory.append(
            _CENTRAL
            + struct.pack("<H", needed)
            + common
            + struct.pack("<HHHHHII", len(raw_name), len(central_extra), 0, 0, 0, 0, _U32 if far else offset)
            + raw_name
            + central_extra
        )

    def finish(self) -> None:
        """Write the directory and the end records."""
        start = self._position
        for header in self._directory:
            self._write(header)
        size, count = self._position - start, len(self._directory)
        if start >= _U32 or size >= _U32 or count >= _U16:
            end64 = self._position
            self._write(_END64 + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start))
            self._write(_LOCATOR + struct.pack("<IQI", 0, end64, 1))
        numbers = (min(count, _U16), min(count, _U16), min(size, _U32), min(start, _U32))
        self._write(_END + struct.pack("<HHHHIIH", 0, 0, *numbers, 0))

    def _write(self, content: bytes | bytearray | memoryview) -> None:
        self._file.write(content)
        self._position += memoryview(content).nbytes
