"""The npz reader: no object arrays, no header that is more than a literal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from weightkit.core.tensor import StateSpec, spec
from weightkit.errors import CorruptFile, FormatError, UnsafeContent, WriteError
from weightkit.formats import open_checkpoint
from weightkit.formats._zip_writer import ZipWriter
from weightkit.formats.npz import write_npz


def save(folder: Path, **members: bytes) -> Path:
    file = io.BytesIO()
    writer = ZipWriter(file)
    for name, content in members.items():
        writer.add(name.replace("__npy", ".npy"), content)
    writer.finish()
    path = folder / "a.npz"
    path.write_bytes(file.getvalue())
    return path


def npy(header: str, content: bytes = bytes(8), version: int = 1, encoding: str = "utf-8") -> bytes:
    raw = header.encode(encoding)
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


@pytest.mark.parametrize(
    ("blank", "version", "encoding"),
    [
        ("\x1c", 1, "latin-1"),
        ("\x85", 1, "latin-1"),
        ("\xa0", 1, "latin-1"),
        ("\xa0", 3, "utf-8"),
        ("\u2028", 3, "utf-8"),
        ("\u3000", 3, "utf-8"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize(
    "header",
    [
        "@" + GOOD,
        GOOD + "@",
        GOOD.replace("{", "{@"),
        GOOD.replace("}", "@}"),
        GOOD.replace("':", "'@:"),
        GOOD.replace(": ", ":@"),
        GOOD.replace(", ", ",@"),
        GOOD.replace("(2,)", "(@2,)"),
        GOOD.replace("(2,)", "(2@,)"),
        GOOD.replace("(2,)", "(2,@)"),
    ],
)
def test_a_blank_that_no_literal_has_is_refused(
    header: str, blank: str, version: int, encoding: str, tmp_path: Path
) -> None:
    plain = npy(header.replace("@", " "), version=version)
    assert open_checkpoint(save(tmp_path, a__npy=plain)).read("a").tolist() == [0, 0]
    with pytest.raises(CorruptFile, match=r"the \.npy header should have"):
        open_checkpoint(save(tmp_path, a__npy=npy(header.replace("@", blank), version=version, encoding=encoding)))


def test_an_object_array_is_unsafe(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(UnsafeContent, match="pickle"):
        open_checkpoint(path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"no \.npy"):
        open_checkpoint(save(tmp_path, a__npy=npy(GOOD), evil=b""))


@pytest.mark.parametrize("members", [("w.npy", "w.npy.npy"), ("w.npy.npy", "w.npy")], ids=["short-first", "long-first"])
def test_two_members_that_one_name_could_mean_are_refused(members: tuple[str, ...], tmp_path: Path) -> None:
    """numpy gives the member w.npy for the name "w.npy", the array of that name is another."""
    contents = {"w.npy": np.ones(2, "<f4"), "w.npy.npy": np.full(2, 2, "<f4")}
    path = save(tmp_path, **{name: npy(GOOD, contents[name].tobytes()) for name in members})
    with np.load(path) as reference:
        assert sorted(reference.files) == ["w", "w.npy"]
        assert reference["w.npy"].tolist() == reference["w"].tolist() == [1, 1]
    with pytest.raises(CorruptFile, match=r"'w\.npy' and that with another \.npy"):
        open_checkpoint(path)


def test_a_name_that_ends_like_a_member_keeps_its_ending(tmp_path: Path) -> None:
    contents = {"w.npy.npy": np.ones(2, "<f4"), "v.npy": np.full(2, 2, "<f4"), "v.npy.npy.npy": np.full(2, 3, "<f4")}
    path = save(tmp_path, **{name: npy(GOOD, content.tobytes()) for name, content in contents.items()})
    found = open_checkpoint(path)
    read = {name: found.read(name).tolist() for name in found.state}
    assert read == {"w.npy": [1, 1], "v": [2, 2], "v.npy.npy": [3, 3]}
    with np.load(path) as reference:
        assert {name: reference[name].tolist() for name in reference.files} == read


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


@pytest.mark.parametrize("names", [("w", "w.npy"), ("__weightkit__.json",)])
def test_names_that_numpy_could_not_tell_apart_are_not_written(names: tuple[str, ...], tmp_path: Path) -> None:
    arrays = {name: np.full(2, number, np.float32) for number, name in enumerate(names)}
    state = StateSpec({name: spec("float32", 2) for name in names})
    with (tmp_path / "a.npz").open("wb") as file, pytest.raises(WriteError, match="numpy could not tell"):
        write_npz(file, arrays.items(), spec=state, metadata={})
