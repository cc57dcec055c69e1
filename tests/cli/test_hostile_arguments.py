"""The command line against names and files of an adversary: nothing raw on a terminal, nothing called equal unread."""

from __future__ import annotations

import json
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from corpus.opcodes import Raw, named, persistent, pickled, tensor
from corpus.rawzip import archive
from weightkit.cli.main import VERBS

ESCAPES = "X\x1b[31m\u202e\r\n\x9b2J\u2066\u200b"
GOOD = archive(pickled({"w": tensor()}))
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.pt"
    path.write_bytes(GOOD)
    return path


def unfit(text: str) -> list[str]:
    """The characters that would not simply stand on a terminal."""
    kinds = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return sorted({hex(ord(char)) for char in text if char != "\n" and unicodedata.category(char) in kinds})


WORDS = {
    "second-file": ["inspect", "GOOD", ESCAPES],
    "option": ["inspect", "GOOD", f"--{ESCAPES}"],
    "short-option": ["inspect", "GOOD", f"-{ESCAPES}"],
    "option-value": ["inspect", "GOOD", f"--json={ESCAPES}"],
    "limit": ["inspect", "GOOD", "--limit", ESCAPES],
    "limit-value": ["inspect", "GOOD", "--limit", f"tensors={ESCAPES}"],
    "max-bytes": ["inspect", "GOOD", "--max-bytes", ESCAPES],
    "fail-on": ["inspect", "GOOD", "--fail-on", ESCAPES],
    "missing-file": ["inspect", ESCAPES],
    "verb": [ESCAPES, "GOOD"],
    "verb-like-another": [f"inspect{ESCAPES}"],
    "third-file": ["diff", "GOOD", "GOOD", ESCAPES],
    "missing-files": ["diff", ESCAPES, ESCAPES],
    "convert-extra": ["convert", "GOOD", "-o", "x.pt", ESCAPES],
    "convert-to": ["convert", "GOOD", "--to", ESCAPES],
    "convert-adapt": ["convert", "GOOD", "--adapt", ESCAPES],
    "convert-drop": ["convert", "GOOD", "--drop", ESCAPES, "--plan-only"],
    "convert-set": ["convert", "GOOD", "--set", ESCAPES, "--to", "drqv2"],
    "convert-ending": ["convert", "GOOD", "-o", f"x.{ESCAPES}"],
}


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("name", WORDS)
def test_a_usage_error_moves_no_cursor(name: str, more: list[str], call: Call, good: Path) -> None:
    words = [str(good) if word == "GOOD" else word for word in WORDS[name]]
    code, out, err = call(*words, *more)
    assert code not in (0, 70)
    assert out or err
    assert not unfit(out + err), unfit(out + err)


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_shows_an_extra_argument_raw(verb: str, call: Call) -> None:
    code, out, err = call(verb, *[ESCAPES] * 6)
    assert code not in (0, 70)
    assert not unfit(out + err), unfit(out + err)


def test_a_file_with_such_a_name_is_read_and_named_printably(call: Call, tmp_path: Path) -> None:
    path = tmp_path / f"a{ESCAPES.replace('/', '')}.pt"
    path.write_bytes(GOOD)
    for words in (["inspect", path], ["inspect", path, "--stats"], ["diff", path, path], ["inspect", path, "--json"]):
        code, out, err = call(*words)
        assert code == 0
        assert not unfit(out + err)
    code, out, err = call("inspect", path, path)
    assert code == 2
    assert not unfit(out + err)


LAST = (*range(0x7F, 0x8A), 0x28, 0x30, 0x42, 0x4E, 0x58, 0x63, 0x7D, 0x95, 0x96, 0xFF)


@pytest.mark.parametrize("second", [0x01, 0x02, 0x30, 0x7D])
@pytest.mark.parametrize("last", LAST)
def test_an_honest_safetensors_header_of_any_length_opens(last: int, second: int, call: Call, tmp_path: Path) -> None:
    """Its length begins the file and may look like the start of a pickle."""
    header = b'{"__metadata__":{"format":"pt"},"layer.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    length = last | second << 8
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + bytes(8))
    code, out, err = call("inspect", path, "--json")
    document = json.loads(out)
    assert (code, err) == (0, ""), out
    assert [row["name"] for row in document["tensors"]] == ["layer.weight"]


def saved(path: Path, made: torch.Tensor) -> Path:
    torch.save({"w": made}, path)
    return path


SPARSE = torch.tensor([1.0, 0, 3.0])
OTHERS: dict[str, Callable[[], torch.Tensor]] = {
    "other-values": lambda: torch.tensor([5.0, 0, 7.0]).to_sparse(),
    "dense": lambda: SPARSE,
    "csr": lambda: SPARSE.reshape(1, 3).to_sparse_csr(),
}


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_was_not_compared_is_not_called_equal(name: str, more: list[str], call: Call, tmp_path: Path) -> None:
    one = saved(tmp_path / "one.pt", SPARSE.to_sparse())
    code, out, err = call("diff", one, saved(tmp_path / "other.pt", OTHERS[name]()), "--values", *more)
    assert code != 0, out + err
    if more:
        assert json.loads(out)["equal"] is not True
    else:
        assert not out.startswith("EQUAL")


@pytest.mark.parametrize("word", ["nan", "inf", "zero", "constant"])
def test_what_was_not_looked_at_does_not_pass(word: str, call: Call, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", torch.tensor([0.0, float("nan")]).to_sparse())
    assert call("inspect", path, "--fail-on", word)[0] != 0


def test_a_number_that_is_nan_in_one_part_is_compared_in_the_other(call: Call, tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{n}.pt", torch.tensor([complex(float("nan"), n)])) for n in (1, 2)]
    assert call("diff", *paths, "--values")[0] == 1


def test_the_source_of_a_module_is_no_storage(call: Call, tmp_path: Path) -> None:
    """torch before 1.6 kept the source of a module beside it, in an id that is no storage's."""
    from corpus.legacy import old_storage, stream

    module = persistent(("module", named("torch.nn.modules.linear.Linear"), "x.py", "class Linear: pass\n"))
    path = tmp_path / "old.pt"
    path.write_bytes(stream({"objects": pickled({"w": tensor(old_storage()), "m": Raw(module)})}))
    _, out, _ = call("inspect", path, "--json")
    assert [found for found in json.loads(out)["findings"] if found["code"] == "WK116"] == []
