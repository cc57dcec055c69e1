"""The npz reader: no object arrays, no header that is more than a literal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from weightkit.errors import CorruptFile, FormatError, UnsafeContent
from weightkit.formats import open_checkpoint
from weightkit.formats._zip_writer import ZipWriter


def save(folder: Path, **members: bytes) -> Path:
    file = io.BytesIO()
    writer = ZipWriter(file)
    for name, content in members.items():
        writer.add(name.replace("__npy", ".npy"), content)
    writer.finish()
    path = folder / "a.npz"
    path.write_bytes(file.getvalue())
    return path


def npy(header: str, content: bytes = bytes(8), version: int = 1) -> bytes:
    raw = header.encode()
    return b"\x93NUMPY" + bytes((version, 0)) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw + content


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_all_header_versions_are_read(version: int, tmp_path: Path) -> None:
    assert open_checkpoint(save(tmp_path, a__npy=npy(GOOD, version=version))).read("a").tolist() == [0, 0]


@pytest.mark.parametrize(
    "header",
    [
        "__import__('os').system('true')",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False}",
        GOOD.replace("(2,)", "[2]"),
        GOOD.replace("(2,)", "(-2,)"),
        GOOD.replace("(2,)", "(3,)"),
        GOOD.replace("(2,)", "(True,)"),
        GOOD.replace("'<f4'", "[('a', '<f4')]"),
        GOOD.replace("<f4", "<U2"),
        GOOD.replace("<f4", "|V4"),
        GOOD.replace("False", "0"),
        "(" * 10_000,
        "[1]",
        "{1: 2, 'descr': 3, 'shape': 4}",
        "\0",
    ],
)
def test_a_header_that_lies_is_refused(header: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        open_checkpoint(save(tmp_path, a__npy=npy(header)))


def test_an_object_array_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(UnsafeContent, match="pickle"):
        open_checkpoint(path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"no \.npy"):
        open_checkpoint(save(tmp_path, a__npy=npy(GOOD), evil=b""))


@pytest.mark.parametrize(
    "extras", [b"[]", b"{", b'{"dtypes":{"a":"bfloat16"}}', b'{"aliases":{"b":"c"}}', b'{"metadata":1}']
)
def test_a_json_member_that_lies_is_refused(extras: bytes, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        open_checkpoint(save(tmp_path, **{"__weightkit__.json": extras, "a.npy": npy(GOOD)}))


def test_truncation_anywhere_gives_format_errors_only(tmp_path: Path) -> None:
    path = save(tmp_path, a__npy=npy(GOOD))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError):
            open_checkpoint(path)
