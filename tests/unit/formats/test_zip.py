"""The strict zip reader: everything that could be read in two ways is refused."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from weightkit.errors import CorruptFile, LimitExceeded, WriteError
from weightkit.formats import _zip, _zip_writer
from weightkit.formats._source import Source
from weightkit.formats._zip import open_archive
from weightkit.formats._zip_writer import ZipWriter
from weightkit.formats.base import Limits


def archive(**entries: bytes) -> bytearray:
    file = io.BytesIO()
    writer = ZipWriter(file)
    for name, content in entries.items():
        writer.add(name, content)
    writer.finish()
    return bytearray(file.getvalue())


def opened(folder: Path, raw: bytes | bytearray, limits: Limits | None = None) -> _zip.Archive:
    path = folder / "a.zip"
    path.write_bytes(raw)
    return open_archive(Source.at(path), limits or Limits())


def patch(raw: bytearray, signature: bytes, offset: int, layout: str, value: int, last: bool = False) -> bytearray:
    at = (raw.rindex if last else raw.index)(signature) + offset
    struct.pack_into(layout, raw, at, value)
    return raw


def test_what_is_written_reads_back_and_is_aligned(tmp_path: Path) -> None:
    found = opened(tmp_path, archive(a=b"one", b=b"", c=bytes(1000)))
    assert {name: bytes(found.read(entry)) for name, entry in found.entries.items()} == {
        "a": b"one",
        "b": b"",
        "c": bytes(1000),
    }
    assert all(entry.data_offset % 64 == 0 for entry in found.entries.values())
    with zipfile.ZipFile(tmp_path / "a.zip") as reference:
        assert reference.testzip() is None
        assert reference.namelist() == ["a", "b", "c"]


def test_files_of_the_zipfile_module_are_read(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "b.zip", "w", method) as writer:
            writer.writestr("a/ä", b"x" * 5000)
            with writer.open("wide", "w", force_zip64=True) as entry:
                entry.write(b"123")
        found = open_archive(Source.at(tmp_path / "b.zip"), Limits())
        assert {name: bytes(found.read(entry)) for name, entry in found.entries.items()} == {
            "a/ä": b"x" * 5000,
            "wide": b"123",
        }
        assert bytes(found.read_part(found.entries["wide"], 1, 2)) == b"23"


def test_more_entries_than_a_short_count_can_hold_are_written_as_zip64(tmp_path: Path) -> None:
    file = io.BytesIO()
    writer = ZipWriter(file)
    for index in range(0x10001):
        writer.add(f"{index}", b"")
    writer.finish()
    assert len(opened(tmp_path, file.getvalue()).entries) == 0x10001
    with zipfile.ZipFile(tmp_path / "a.zip") as reference:
        assert len(reference.namelist()) == 0x10001


def test_large_files_are_written_as_zip64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_zip_writer, "U32", 0xFFF)  # as if sizes had 12 bits
        file = io.BytesIO()
        writer = ZipWriter(file)
        patched.setattr(
            ZipWriter, "_write", lambda self, content: file.write(content) and setattr(self, "_position", file.tell())
        )
        writer.add("large", bytes(5000))
        writer.add("far", b"abc")
        writer.finish()
    raw = bytearray(file.getvalue())
    raw = bytearray(bytes(raw).replace(b"\xff\x0f\x00\x00", b"\xff\xff\xff\xff"))
    found = opened(tmp_path, raw)
    assert {name: len(found.read(entry)) for name, entry in found.entries.items()} == {"large": 5000, "far": 3}


@pytest.mark.parametrize(
    "lie",
    [
        lambda raw: b"x" + raw,
        lambda raw: raw + b"x",
        lambda raw: raw[:-30],
        lambda raw: patch(raw, b"PK\x05\x06", 20, "<H", 1) + b"c",
        lambda raw: patch(raw, b"PK\x05\x06", 8, "<H", 1),
        lambda raw: patch(patch(raw, b"PK\x05\x06", 8, "<H", 1), b"PK\x05\x06", 10, "<H", 1),
        lambda raw: patch(patch(raw, b"PK\x05\x06", 8, "<H", 9), b"PK\x05\x06", 10, "<H", 9),
        lambda raw: patch(raw, b"PK\x05\x06", 16, "<I", 5),
        lambda raw: patch(raw, b"PK\x05\x06", 4, "<H", 1),
        lambda raw: patch(raw, b"PK\x05\x06", 16, "<I", 0xFFFFFFFF),
        lambda raw: patch(patch(raw, b"PK\x01\x02", 8, "<H", 1), b"PK\x03\x04", 6, "<H", 1),
        lambda raw: patch(patch(raw, b"PK\x01\x02", 10, "<H", 12), b"PK\x03\x04", 8, "<H", 12),
        lambda raw: patch(raw, b"PK\x01\x02", 10, "<H", 8),
        lambda raw: patch(raw, b"PK\x01\x02", 16, "<I", 7),
        lambda raw: patch(raw, b"PK\x01\x02", 24, "<I", 2),
        lambda raw: patch(raw, b"PK\x01\x02", 42, "<I", 5),
        lambda raw: patch(raw, b"PK\x01\x02", 42, "<I", 0, last=True),
        lambda raw: patch(raw, b"PK\x01\x02", 46, "<B", ord("b")),
        lambda raw: patch(patch(raw, b"PK\x01\x02", 46, "<B", ord("b")), b"PK\x03\x04", 30, "<B", ord("b")),
        lambda raw: patch(patch(raw, b"PK\x01\x02", 46, "<B", 0), b"PK\x03\x04", 30, "<B", 0),
        lambda raw: patch(patch(raw, b"PK\x01\x02", 46, "<B", 0xFF), b"PK\x03\x04", 30, "<B", 0xFF),
        lambda raw: patch(raw, b"PK\x03\x04", 18, "<I", 2),
        lambda raw: patch(raw, b"PK\x03\x04", 26, "<H", 500),
        lambda raw: patch(raw, b"PK\x03\x04", 28, "<H", 0),
        lambda raw: patch(raw, b"FB", 0, "<H", 0x7075),
        lambda raw: patch(raw, b"PK\x03\x04", 0, "<H", 0),
    ],
    ids=range(26),
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(lie: Callable[[bytearray], bytes], tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        opened(tmp_path, lie(archive(a=b"one", b=b"two")))


def with_zip64(raw: bytearray) -> bytearray:
    """The same archive with a zip64 end record and its locator before the zip end record."""
    count, size, start = struct.unpack("<HII", raw[-12:-2])
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    return raw[:-22] + end64 + struct.pack("<4sIQI", b"PK\x06\x07", 0, len(raw) - 22, 1) + raw[-22:]


@pytest.mark.parametrize("fields", [(4,), (6,), (4, 6)], ids=["this-disk", "directory-disk", "both"])
def test_a_disk_number_that_stands_in_a_zip64_end_record_needs_one(fields: tuple[int, ...], tmp_path: Path) -> None:
    raw = archive(a=b"one", b=b"two")
    for field in fields:
        patch(raw, b"PK\x05\x06", field, "<H", 0xFFFF)
    with pytest.raises(CorruptFile, match="zip64 end record that is not there"):
        opened(tmp_path, raw)
    found = opened(tmp_path, with_zip64(raw))
    assert {name: bytes(found.read(entry)) for name, entry in found.entries.items()} == {"a": b"one", "b": b"two"}


@pytest.mark.parametrize("field", [4, 6], ids=["this-disk", "directory-disk"])
def test_a_zip64_end_record_does_not_excuse_a_second_disk(field: int, tmp_path: Path) -> None:
    raw = patch(archive(a=b"one"), b"PK\x05\x06", field, "<H", 1)
    with pytest.raises(CorruptFile, match="several disks"):
        opened(tmp_path, with_zip64(raw))


def test_a_changed_byte_of_an_entry_is_seen(tmp_path: Path) -> None:
    raw = archive(a=b"one")
    raw[raw.index(b"one")] ^= 1
    found = opened(tmp_path, raw)
    with pytest.raises(CorruptFile, match="checksum"):
        found.read(found.entries["a"])


def test_an_entry_that_inflates_to_more_than_announced_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("a", bytes(100_000))
    raw = bytearray((tmp_path / "b.zip").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        patch(raw, signature, offset, "<I", 50)
    found = opened(tmp_path, raw)
    with pytest.raises(CorruptFile, match="inflates to something else"):
        found.read(found.entries["a"])
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        patch(raw, signature, offset, "<I", 1 << 31)
    with pytest.raises(CorruptFile, match="cannot do"):
        opened(tmp_path, raw)


def test_limits_are_named(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="entries=1"):
        opened(tmp_path, archive(a=b"", b=b""), Limits(entries=1))
    with pytest.raises(LimitExceeded, match="header_bytes"):
        opened(tmp_path, archive(a=b"", b=b""), Limits(header_bytes=10))


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "x" * 70_000])
def test_names_that_a_zip_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(WriteError):
        ZipWriter(io.BytesIO()).add(name, b"")
