"""A plain zip writer: stored entries, the same input gives the same bytes. What it writes, ``_zip`` reads."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from weightkit.core.text import printable
from weightkit.errors import WriteError
from weightkit.formats._zip import CENTRAL, END, END64, LOCAL, LOCATOR, STORED, U16, U32, UTF8


class ZipWriter:
    """Writes stored entries one after the other, each aligned to 64 bytes as torch does; the same input gives the
    same bytes. Call ``finish`` at the end."""

    ALIGNMENT = 64
    _MOMENT = 0x00210000  # 1980-01-01 00:00, the first moment that zip knows

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self._directory: list[bytes] = []

    def add(self, name: str, *parts: bytes | bytearray | memoryview) -> None:
        """Add one entry, its ``parts`` one after the other."""
        try:
            raw_name = name.encode()
        except UnicodeEncodeError:
            raise WriteError(f"{printable(name)!r} cannot be a name in an archive: it is not valid Unicode") from None
        if not 0 < len(raw_name) <= U16 or b"\0" in raw_name:
            raise WriteError(f"{printable(name)!r} cannot be a name in an archive: it is empty, too long or has a NUL")
        size = sum(memoryview(part).nbytes for part in parts)
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        wide = size >= U32
        far = self._position >= U32
        local_sizes = struct.pack("<HHQQ", 1, 16, size, size) if wide else b""
        fixed = self._position + 30 + len(raw_name) + len(local_sizes) + 4
        padding = -fixed % self.ALIGNMENT
        extra = local_sizes + struct.pack("<HH", 0x4246, padding) + b"Z" * padding
        needed = 45 if wide or far else 20
        short = U32 if wide else size
        common = struct.pack("<HHHIIII", needed, UTF8, STORED, self._MOMENT, crc, short, short)
        self._write(LOCAL + common + struct.pack("<HH", len(raw_name), len(extra)) + raw_name + extra)
        offset = fixed - 34 - len(raw_name) - len(local_sizes)
        for part in parts:
            self._write(part)
        numbers = ([size, size] if wide else []) + ([offset] if far else [])
        central_extra = struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
        self._directory.append(
            CENTRAL
            + struct.pack("<H", needed)
            + common
            + struct.pack("<HHHHHII", len(raw_name), len(central_extra), 0, 0, 0, 0, U32 if far else offset)
            + raw_name
            + central_extra
        )

    def finish(self) -> None:
        """Write the directory and the end records."""
        start = self._position
        for header in self._directory:
            self._write(header)
        size, count = self._position - start, len(self._directory)
        if start >= U32 or size >= U32 or count >= U16:
            end64 = self._position
            self._write(END64 + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start))
            self._write(LOCATOR + struct.pack("<IQI", 0, end64, 1))
        numbers = (min(count, U16), min(count, U16), min(size, U32), min(start, U32))
        self._write(END + struct.pack("<HHHHIIH", 0, 0, *numbers, 0))

    def _write(self, content: bytes | bytearray | memoryview) -> None:
        self._file.write(content)
        self._position += memoryview(content).nbytes
