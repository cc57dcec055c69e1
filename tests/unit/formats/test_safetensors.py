"""The safetensors reader is stricter than the reference; each test is named after the lie in the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from weightkit.core.tensor import StateSpec, spec
from weightkit.errors import CorruptFile, LimitExceeded, WriteError
from weightkit.formats import Limits, open_checkpoint, writer_for

MISALIGNED = (
    '{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},'
    '"c":{"dtype":"U8","shape":[3],"data_offsets":[5,8]}}'
)
GOOD = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


def save(folder: Path, header: str, content: bytes = bytes(8), length: int | None = None) -> Path:
    path = folder / "a.safetensors"
    raw = header.encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + content)
    return path


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    found = open_checkpoint(save(tmp_path, GOOD + "  "))
    assert found.read("a").tolist() == [0, 0]
    assert found.verdict is None


@pytest.mark.parametrize(
    "header",
    [
        " " + GOOD,
        GOOD[:-1] + ',"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"__metadata__":{"k":"1","k":"2"},' + GOOD[1:],
        '{"__metadata__":{"k":1},' + GOOD[1:],
        '{"__metadata__":[],' + GOOD[1:],
        GOOD.replace('"dtype"', '"more":1,"dtype"'),
        '{"a":["F32",[2],[0,8]]}',
        GOOD.replace("F32", "F99"),
        GOOD.replace("F32", "F64"),
        GOOD.replace("[2]", "[3]"),
        GOOD.replace("[2]", "[-2]"),
        GOOD.replace("[2]", "[2.0]"),
        GOOD.replace("[2]", "[true]"),
        GOOD.replace("[2]", "2"),
        GOOD.replace("[0,8]", "[8,16]"),
        GOOD.replace("[0,8]", "[8,0]"),
        GOOD.replace("[0,8]", "[0,8,9]"),
        GOOD.replace("[2]", "[1]").replace("[0,8]", "[0,4]"),
        GOOD.replace("[2]", "[1]").replace("[0,8]", "[4,8]"),
        GOOD[:-1] + ',"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
        MISALIGNED,
        GOOD.replace("[2]", f"[{2**40},{2**40}]"),
        GOOD.replace("[2]", "[" + "9" * 5000 + "]"),
        "[" * 100_000,
        GOOD[:-1],
        "[]",
        '{"a":NaN}',
        GOOD + "\0",
        '{"__metadata__":{"weightkit.aliases":"{\\"b\\":\\"c\\"}"},' + GOOD[1:],
        '{"__metadata__":{"weightkit.json":"[\\"x\\"]","x":"{"},' + GOOD[1:],
    ],
)
def test_a_header_that_lies_is_refused(header: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        open_checkpoint(save(tmp_path, header))


@pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 64) - 1])
def test_a_header_length_that_lies_is_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        open_checkpoint(save(tmp_path, GOOD, length=length))


def test_a_header_over_the_cap_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="json_bytes"):
        open_checkpoint(save(tmp_path, GOOD), Limits(json_bytes=10))


def test_truncation_anywhere_is_corrupt(tmp_path: Path) -> None:
    whole = save(tmp_path, GOOD).read_bytes()
    path = tmp_path / "b.safetensors"
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptFile):
            open_checkpoint(path)


def test_second_names_as_the_reference_records_them_are_aliases(tmp_path: Path) -> None:
    found = open_checkpoint(save(tmp_path, '{"__metadata__":{"b":"a","format":"pt"},' + GOOD[1:]))
    assert found.state.aliases == {"b": "a"}
    assert found.metadata == {"format": "pt"}
    assert found.read("b").tolist() == [0, 0]


def test_a_text_in_the_metadata_that_is_a_tensors_name_comes_back_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state = StateSpec({"a": spec("float32", 1)})
    with path.open("wb") as file:
        writer_for(path)(file, [("a", np.zeros(1, np.float32))], spec=state, metadata={"best": "a"})
    found = open_checkpoint(path)
    assert (found.metadata, found.state.aliases) == ({"best": "a"}, {})


@pytest.mark.parametrize(
    ("name", "dtype", "arrays", "metadata"),
    [
        ("a", "complex128", [("a", np.zeros(2, np.complex128))], {}),
        ("__metadata__", "float32", [("__metadata__", np.zeros(2, np.float32))], {}),
        ("a", "float32", [], {}),
        ("a", "float32", [("b", np.zeros(2, np.float32))], {}),
        ("a", "float32", [("a", np.zeros(2, np.float32))] * 2, {}),
        ("a", "float32", [("a", np.zeros(3, np.float32))], {}),
        ("a", "float32", [("a", np.zeros(2, np.float64))], {}),
        ("a", "float32", [("a", np.zeros(2, np.float32))], {"x": object()}),
        ("a", "float32", [("a", np.zeros(2, np.float32))], {"x": float("nan")}),
        ("\ud800", "float32", [("\ud800", np.zeros(2, np.float32))], {}),
    ],
)
def test_what_cannot_be_written_is_refused(
    name: str, dtype: str, arrays: list[tuple[str, np.ndarray]], metadata: dict[str, object], tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file, pytest.raises(WriteError):
        writer_for(path)(file, arrays, spec=StateSpec({name: spec(dtype, 2)}), metadata=metadata)


def test_a_folder_that_weightkit_wrote_opens_with_its_config(tmp_path: Path) -> None:
    save(tmp_path, GOOD).rename(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"weightkit_format": 1, "type": "drqv2"}))
    found = open_checkpoint(tmp_path)
    assert (found.format, list(found.state)) == ("weightkit_dir", ["a"])
    assert found.metadata == {"config": {"weightkit_format": 1, "type": "drqv2"}}
    (tmp_path / "config.json").write_text(json.dumps({"weightkit_format": 2}))
    with pytest.raises(CorruptFile, match="expected 1"):
        open_checkpoint(tmp_path)
