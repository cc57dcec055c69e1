"""A strict zip reader. What it accepts has exactly one reading.

No prefix, no comment, no encryption, no second disk, no gap and no overlap between entries, no hidden or duplicate
entry; every local header and every data descriptor says what the directory says. Source: PKWARE APPNOTE 6.3.10,
sections 4.3 and 4.5.
"""

from __future__ import annotations

import struct
import zlib

from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats._source import Source
from weightkit.formats.base import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightkit.formats._source import PRead

    # What the directory says about one entry, a plain tuple for speed: offset, raw_name, flags, method, crc, stored
    # and size, and last the raw bytes that its local header must repeat.
    _Central = tuple[int, bytes, int, int, int, int, int, bytes]

STORED, DEFLATED = 0, 8
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR, _DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
U16, U32 = 0xFFFF, 0xFFFFFFFF
_HAS_DESCRIPTOR, UTF8, _DEFLATE_HINTS = 0x0008, 0x0800, 0x0006
_REFUSED_FLAGS = ~(_HAS_DESCRIPTOR | UTF8 | _DEFLATE_HINTS)
# zip64 sizes, torch's alignment padding ("FB"), unix times and owners; anything else could change the reading.
_EXTRAS = {0x0001, 0x4246, 0x5455, 0x7875}
_MOST_RATIO = 1040  # deflate cannot do better than 1032 to 1
_CHUNK = 1 << 20
_CENTRAL_HEAD = struct.Struct("<4xHHHHIIIIHHHHHII")
_LOCAL_BYTES, _DESCRIPTOR_BYTES = 30, (16, 24)
_FRONT = 24  # what may stand between an entry's data and the next local header
_SPARE = 128  # what a local header's name and padding seldom exceed together
_WINDOW = 1 << 16
_NOT_YET = bytes(12)
_PADDING = struct.Struct("<HH").pack


class Entry:
    """One file of an archive: where its bytes lie, how many, and what they must add up to."""

    __slots__ = ("crc", "data_offset", "method", "name", "size", "stored")

    def __init__(self, name: str, data_offset: int, stored: int, size: int, method: int, crc: int) -> None:
        self.name = name
        self.data_offset = data_offset
        self.stored = stored
        self.size = size
        self.method = method
        self.crc = crc


class Archive:
    """An archive whose directory has been checked; entries are read on demand."""

    __slots__ = ("checksummed", "entries", "source")

    def __init__(self, source: Source, entries: Mapping[str, Entry]) -> None:
        self.source = source
        self.entries = entries
        self.checksummed = any(entry.crc for entry in entries.values())  # torch can be told to write them all as 0

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
        with self.source.opened() as pread:
            for offset in range(0, entry.size, _CHUNK):
                crc = zlib.crc32(pread(entry.data_offset + offset, min(_CHUNK, entry.size - offset)), crc)
            self._check(entry, crc)
        return self.source.read(entry.data_offset + start, length)

    def front(self, entry: Entry, length: int) -> bytes:
        """Up to ``length`` bytes from the start of ``entry``, without a look at the rest or the checksum."""
        length = min(length, entry.size)
        if entry.method == STORED:
            return bytes(self.source.read(entry.data_offset, length))
        stored = self.source.read(entry.data_offset, min(entry.stored, 2 * length + 1024))
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, length)
        except zlib.error as error:
            raise CorruptFile(f"{self.at(entry)}: cannot be inflated: {error}") from None

    def inner(self, entry: Entry, limits: Limits) -> Source:
        """The bytes of ``entry`` as a source of their own: in place where they are stored, else in memory."""
        shown = self.at(entry)
        if entry.method == STORED:
            return self.source.part(entry.data_offset, entry.size, shown=shown)
        self.check_inflated(entry, limits)
        return Source.holding(bytes(self.read(entry)), path=self.source.path, shown=shown)

    def check_inflated(self, entry: Entry, limits: Limits) -> None:
        """Raise LimitExceeded where ``entry`` would take much more memory than it takes in the file."""
        if entry.method == DEFLATED and entry.size > limits.inflated_bytes:
            found = f"{entry.stored} bytes that inflate to {entry.size}"
            raise limits.exceeded("inflated_bytes", where=self.at(entry), found=found)

    def at(self, entry: Entry) -> str:
        """The archive and the entry, for messages."""
        return f"{self.source.shown}: entry {printable(entry.name)!r}"

    def _check(self, entry: Entry, crc: int) -> None:
        if self.checksummed and crc != entry.crc:
            raise CorruptFile(f"{self.at(entry)}: checksum {crc:08x}, expected {entry.crc:08x}")

    def _inflate(self, entry: Entry, stored: bytearray) -> bytearray:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            plain = inflater.decompress(stored, entry.size + 1)
        except zlib.error as error:
            raise CorruptFile(f"{self.at(entry)}: cannot be inflated: {error}") from None
        if len(plain) != entry.size or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
            raise CorruptFile(f"{self.at(entry)}: inflates to something else than the {entry.size} bytes announced")
        return bytearray(plain)


def open_archive(source: Source, limits: Limits) -> Archive:
    """The archive in ``source``. Raises CorruptFile for whatever could be read in two ways."""
    with source.opened() as pread:
        start, size, count = _end_records(source, pread)
        if count > limits.entries:
            raise limits.exceeded("entries", where=source.shown, found=f"{count} files in the archive")
        if size > limits.header_bytes:
            raise limits.exceeded("header_bytes", where=source.shown, found=f"an archive directory of {size} bytes")
        if count * 46 > size:
            raise CorruptFile(f"{source.shown}: {count} entries announced in a directory of {size} bytes")
        found = _central_headers(source, pread(start, size), count)
        found.sort()
        entries = _entries(source, pread, found, start, limits)
    return Archive(source, entries)


def _end_records(source: Source, pread: PRead) -> tuple[int, int, int]:
    """Where the directory starts, its size and its number of entries."""
    shown = source.shown
    tail = pread(max(source.size - 98, 0), min(98, source.size))
    end = tail[-22:]
    if len(end) < 22 or end[:4] != END:
        raise CorruptFile(
            f"{shown}: the file does not end with a zip end record: it was cut short, or something was appended",
            hint="copy or download it again and compare the sizes",
        )
    disk, start_disk, here, count, size, start, comment = struct.unpack("<HHHHIIH", end[4:])
    if comment or disk not in (0, U16) or start_disk not in (0, U16) or here != count:
        raise CorruptFile(f"{shown}: the zip end record has a comment or speaks of several disks")
    limit = source.size - 22
    if len(tail) == 98 and tail[56:60] == LOCATOR:
        first_disk, position, disks = struct.unpack("<IQI", tail[60:76])
        if first_disk or disks != 1 or position != source.size - 98 or tail[:4] != END64:
            raise CorruptFile(f"{shown}: the zip64 end record is not where its locator says")
        length, _, _, disk64, start64, here64, count64, size64, position64 = struct.unpack("<QHHIIQQQQ", tail[4:56])
        agree = count in (count64, U16) and size in (size64, U32) and start in (position64, U32)
        if length != 44 or disk64 or start64 or here64 != count64 or not agree:
            raise CorruptFile(f"{shown}: the zip64 end record contradicts the zip end record")
        count, size, start = count64, size64, position64
        limit = source.size - 98
    elif U16 in (disk, start_disk) or U32 in (size, start):
        raise CorruptFile(f"{shown}: the zip end record points to a zip64 end record that is not there")
    if start + size != limit:
        raise CorruptFile(
            f"{shown}: the archive's directory should end at {limit}, it ends at {start + size}: "
            "the file was cut short, or something stands before or after the archive"
        )
    return start, size, count


def _central_headers(source: Source, directory: bytes, count: int) -> list[_Central]:
    found: list[_Central] = []
    append = found.append
    available = len(directory)
    position = 0
    for _ in range(count):
        if directory[position : position + 4] != CENTRAL or position + 46 > available:
            raise CorruptFile(f"{source.shown}: the archive's directory is malformed at its byte {position}")
        _, _, flags, method, _, crc, stored, size, names, extras, comment, disk, _, _, offset = (
            _CENTRAL_HEAD.unpack_from(directory, position)
        )
        name_end = position + 46 + names
        end = name_end + extras + comment
        if end > available:
            raise CorruptFile(f"{source.shown}: the archive's directory ends inside an entry")
        raw_name = directory[position + 46 : name_end]
        if method != STORED or stored != size or extras or comment or disk or flags & _REFUSED_FLAGS:
            shown = f"{source.shown}: {_shown(raw_name)}"
            _check_central(shown, flags, method, comment, disk)
            if extras:
                extra = _extra_fields(shown, directory[name_end : name_end + extras])
                size, stored, offset = _widened(shown, extra.get(1, b""), size, stored, offset)
            if method == STORED and stored != size:
                raise CorruptFile(f"{shown} is stored plainly, but {stored} bytes are said to become {size}")
            if size > _MOST_RATIO * stored + 64:
                raise CorruptFile(f"{shown} claims that {stored} bytes inflate to {size}, which deflate cannot do")
        append((offset, raw_name, flags, method, crc, stored, size, directory[position + 6 : position + 30]))
        position = end
    if position != available:
        raise CorruptFile(f"{source.shown}: the archive's directory has entries that are not counted")
    return found


def _check_central(shown: str, flags: int, method: int, comment: int, disk: int) -> None:
    if flags & 0x2041:
        raise CorruptFile(f"{shown} is encrypted", hint="decrypt the archive first")
    if flags & _REFUSED_FLAGS or comment or disk:
        raise CorruptFile(f"{shown} has flags {flags:#06x}, a comment or a second disk, which is refused")
    if method not in (STORED, DEFLATED):
        raise CorruptFile(f"{shown} is packed with method {method}; only stored and deflated are read")


def _widened(shown: str, zip64: bytes, size: int, stored: int, offset: int) -> tuple[int, int, int]:
    """Size, stored size and offset, each taken from the zip64 field where the short one says so."""
    if not zip64:
        return size, stored, offset
    values = [value for value in (size, stored, offset) if value == U32]
    if len(zip64) != 8 * len(values):
        raise CorruptFile(f"{shown} has a zip64 field of {len(zip64)} bytes, expected {8 * len(values)}")
    wide = iter(struct.unpack(f"<{len(values)}Q", zip64))
    size = next(wide) if size == U32 else size
    stored = next(wide) if stored == U32 else stored
    offset = next(wide) if offset == U32 else offset
    return size, stored, offset


def _entries(source: Source, pread: PRead, found: list[_Central], directory: int, limits: Limits) -> dict[str, Entry]:
    """The entries by name, after every local header and every gap between two entries was looked at.

    The bytes between an entry's data and the end of the next local header are read at once, neighbours together.
    """
    entries: dict[str, Entry] = {}
    if found and found[0][0] != 0:
        raise CorruptFile(f"{source.shown}: {found[0][0]} bytes stand before the first entry of the archive")
    if not found and directory:
        raise CorruptFile(f"{source.shown}: {directory} bytes before the directory belong to no entry")
    limit = limits.expanded_bytes
    dense = len(found) and directory // len(found) < _WINDOW // 4  # small entries: many in one window
    window, base, window_end = b"", 0, 0
    data_end = 0
    before: _Central | None = None
    described = b""  # the data descriptor that must follow the entry before, where it is a short one
    for central in found:
        offset, raw_name, flags, method, crc, stored, size, fixed = central
        begin = offset - _FRONT if offset > _FRONT else 0
        end = offset + _LOCAL_BYTES + len(raw_name) + _SPARE
        if begin < base or end > window_end:
            base, window_end = begin, min(begin + _WINDOW if dense and begin + _WINDOW > end else end, directory)
            window = pread(base, window_end - base)
        at = offset - base
        if before is not None and not (
            offset - data_end == 16 and described and window.startswith(described, data_end - base)
        ):
            _check_gap(source, before, data_end, offset, window, base)
        name_start = at + _LOCAL_BYTES
        name_end = name_start + len(raw_name)
        extras = int.from_bytes(window[at + 28 : at + 30], "little")
        data_offset = base + name_end + extras
        expected = LOCAL + (fixed[:10] + _NOT_YET + fixed[22:] if flags & _HAS_DESCRIPTOR else fixed)
        plain = window.startswith(expected, at) and window.startswith(raw_name, name_start) and stored != U32
        if not plain or (extras and not window.startswith(_PADDING(0x4246, (extras - 4) & U16), name_end)):
            _check_local(source, pread, central, directory)
        data_end = data_offset + stored
        if data_end > directory:
            raise CorruptFile(f"{source.shown}: {_shown(raw_name)} runs into the archive's directory")
        if method == DEFLATED and size > limit:
            shown = f"{source.shown}: {_shown(raw_name)}"
            raise limits.exceeded("expanded_bytes", where=shown, found=f"inflates to {size} bytes")
        name = _name(source, raw_name, flags)
        if name in entries:
            raise CorruptFile(f"{source.shown}: entry {printable(name)!r} stands twice in the archive")
        entries[name] = Entry(name, data_offset, stored, size, method, crc)
        before = central
        described = _DESCRIPTOR + fixed[10:22] if flags & _HAS_DESCRIPTOR and max(stored, size) < U32 else b""
    if before is not None:
        base = min(data_end, directory)
        _check_gap(source, before, data_end, directory, pread(base, min(_FRONT, directory - base)), base)
    return entries


def _check_gap(source: Source, central: _Central, data_end: int, following: int, window: bytes, base: int) -> None:
    """Between an entry's data and what follows stands its data descriptor, where it has one, and nothing else."""
    _, raw_name, flags, _, crc, stored, size, _ = central
    gap = following - data_end
    if not flags & _HAS_DESCRIPTOR:
        if gap:
            shown = f"{source.shown}: {_shown(raw_name)}"
            raise CorruptFile(
                f"{shown}: its data end at {data_end}, the next thing starts at {following}: "
                "a gap, an overlap or a hidden entry"
            )
        return
    shown = f"{source.shown}: {_shown(raw_name)}"
    if gap not in _DESCRIPTOR_BYTES:
        raise CorruptFile(f"{shown}: {gap} bytes stand where its data descriptor should be")
    said = window[data_end - base : following - base]
    layout = "<III" if gap == 16 else "<IQQ"
    if said[:4] != _DESCRIPTOR or struct.unpack(layout, said[4:]) != (crc, stored, size):
        raise CorruptFile(f"{shown}: its data descriptor contradicts the archive's directory")


def _check_local(source: Source, pread: PRead, central: _Central, directory: int) -> None:
    """Compare a local header with the directory, field by field. Raises CorruptFile."""
    start, raw_name, flags, _, *expected, fixed = central
    shown = f"{source.shown}: {_shown(raw_name)}"
    head = pread(start, min(_LOCAL_BYTES, directory - start))
    if len(head) < _LOCAL_BYTES or head[:4] != LOCAL:
        raise CorruptFile(f"{shown}: there is no local header at byte {start}")
    crc, stored, size, names, extras = struct.unpack("<IIIHH", head[14:30])
    if start + _LOCAL_BYTES + names + extras > directory:
        raise CorruptFile(f"{shown}: the local header runs into what follows")
    rest = pread(start + _LOCAL_BYTES, names + extras)
    zip64 = _extra_fields(shown, rest[names:]).get(1, b"")
    if zip64 and size == U32 and stored == U32 and len(zip64) >= 16:
        size, stored = struct.unpack_from("<QQ", zip64)
    told = [crc, stored, size]
    same = rest[:names] == raw_name and head[6:14] == fixed[2:10]
    if not same or (told != expected and not (flags & _HAS_DESCRIPTOR and told == [0, 0, 0])):
        raise CorruptFile(f"{shown}: the local header contradicts the archive's directory")


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


def _name(source: Source, raw_name: bytes, flags: int) -> str:
    try:
        name = raw_name.decode("utf-8" if flags & UTF8 else "ascii")
    except UnicodeDecodeError:
        raise CorruptFile(f"{source.shown}: {_shown(raw_name)}: the name is not in the announced encoding") from None
    if not name or "\0" in name:
        raise CorruptFile(f"{source.shown}: {_shown(raw_name)}: the name is empty or holds a NUL")
    return name


def _shown(raw_name: bytes) -> str:
    return f"entry {printable(raw_name.decode('utf-8', 'backslashreplace'))!r}"
