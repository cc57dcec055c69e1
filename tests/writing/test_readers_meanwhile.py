"""Readers that look again and again while another process replaces what they read: always the old or the new one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import weightkit as wk
from weightkit.errors import FormatError
from weightkit.formats import open_checkpoint, weightkit_dir

WRITER = """
import json, os, sys
from pathlib import Path
import numpy
from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.core.tensor import StateSpec, spec
from weightkit.formats import writer_for

path, kind = Path(sys.argv[1]), sys.argv[2]
if kind == "named":
    del os.O_TMPFILE
STATE = StateSpec({name: spec("float32", 5000) for name in ("a", "b", "c")})
WEIGHTS = "model.safetensors"

def weights(number):
    arrays = [(name, numpy.full(5000, number, "float32")) for name in STATE]
    return lambda file: writer_for(WEIGHTS)(file, arrays, spec=STATE, metadata={})

def fill(folder, number):
    write_atomically(folder / WEIGHTS, weights(number))
    text = json.dumps({"weightkit_format": 1, "number": number}).encode()
    write_atomically(folder / "config.json", lambda file: file.write(text) and None)

def put(number):
    if kind == "folder":
        write_directory_atomically(path, lambda folder: fill(folder, number), force=True, is_ours=lambda _: True)
    else:
        write_atomically(path, weights(number), force=True)

put(0)
print("ready", flush=True)
for number in range(1, int(sys.argv[3])):
    put(number)
"""


@contextmanager
def replacing(path: Path, kind: str, times: int) -> Iterator[subprocess.Popen[str]]:
    """A process that replaces ``path`` with higher and higher numbers; it must end well."""
    command = [sys.executable, "-c", WRITER, str(path), kind, str(times)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            yield writer
            assert writer.wait(timeout=60) == 0
        finally:
            writer.kill()


def numbers_in(checkpoint: wk.Checkpoint) -> set[float]:
    return {float(value) for name in checkpoint.state for value in set(checkpoint.read(name).tolist())}


@pytest.mark.parametrize("kind", ["nameless", "named"])
def test_readers_of_a_file_see_one_version(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    raw: dict[bytes, None] = {}
    seen: set[float] = set()
    with replacing(path, kind, 300) as writer:
        while writer.poll() is None:
            raw[path.read_bytes()] = None
            with contextlib.suppress(FormatError):  # replaced between two of our reads, which is told and not mixed
                numbers = numbers_in(open_checkpoint(path))
                assert len(numbers) == 1
                seen |= numbers
    for number, bytes_ in enumerate(raw):
        copy = tmp_path / f"{number}.safetensors"
        copy.write_bytes(bytes_)
        assert len(numbers_in(open_checkpoint(copy))) == 1
        copy.unlink()
    assert len(raw) > 5
    assert len(seen) > 1
    assert os.listdir(tmp_path) == ["a.safetensors"]


def read_in(folder: int, name: str) -> bytes:
    with open(name, "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=folder)) as file:
        return file.read()


def test_readers_of_a_folder_see_one_version(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    seen: set[float] = set()
    with replacing(path, "folder", 200) as writer:
        while writer.poll() is None:
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)  # never absent, not for a moment
            try:
                config, weights = read_in(folder, "config.json"), read_in(folder, "model.safetensors")
            except FileNotFoundError:  # the old one, while it is being removed
                continue
            finally:
                os.close(folder)
            copy = tmp_path / "copy.safetensors"
            copy.write_bytes(weights)
            assert numbers_in(open_checkpoint(copy)) == {json.loads(config)["number"]}
            copy.unlink()
            seen.add(json.loads(config)["number"])
    assert len(seen) > 1
    assert os.listdir(tmp_path) == ["policy"]


def test_a_folder_that_is_replaced_between_two_files_is_not_read_as_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(("policy", "other")):
        with replacing(tmp_path / name, "folder", 1):
            pass
        (tmp_path / name / "config.json").write_text(json.dumps({"weightkit_format": 1, "number": number}))
    read_safetensors = weightkit_dir.read_safetensors

    def replace() -> None:
        (tmp_path / "policy").rename(tmp_path / "old")
        (tmp_path / "other").rename(tmp_path / "policy")

    def replaced_before(*arguments: Any, **named: Any) -> Any:
        other = threading.Thread(target=replace)  # the reading thread may not rename anything
        other.start()
        other.join()
        return read_safetensors(*arguments, **named)

    monkeypatch.setattr(weightkit_dir, "read_safetensors", replaced_before)
    with pytest.raises(FormatError):
        open_checkpoint(tmp_path / "policy")
