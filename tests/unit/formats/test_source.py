"""A file that changes between its opening and a later read is refused, also where size and modification time stayed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from weightkit.errors import CorruptFile
from weightkit.formats import open_checkpoint
from weightkit.formats._source import Source

CHANGED = "the file changed while it was being read"
OLD, NEW = np.array([1.5, -2.0], "<f4"), np.array([8.0, 9.0], "<f4")

WRITERS: dict[str, Callable[[Path], object]] = {
    "a.safetensors": lambda path: save_file({"w": OLD}, path),
    "a.npz": lambda path: np.savez(path, w=OLD),
    "a.pt": lambda path: torch.save({"w": torch.tensor(OLD)}, path),
    "legacy.pt": lambda path: torch.save({"w": torch.tensor(OLD)}, path, _use_new_zipfile_serialization=False),
}


def rewrite(path: Path) -> None:
    """NEW for OLD in place; the size and the modification time are those of before.

    The time of an inode's last change moves with each write and is nothing that a program can set. Not every system
    counts it in nanoseconds: the write is repeated until it has moved.
    """
    before = os.stat(path)
    at = path.read_bytes().index(OLD.tobytes())
    while os.stat(path).st_ctime_ns == before.st_ctime_ns:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(NEW.tobytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.stat(path)
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("name", WRITERS)
def test_a_tensor_of_a_file_that_was_rewritten_is_not_given(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    found = open_checkpoint(path)
    assert found.read("w").tolist() == OLD.tolist()
    rewrite(path)
    with pytest.raises(CorruptFile, match=CHANGED):
        found.read("w")


def test_every_way_to_read_a_source_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"head" + OLD.tobytes())
    source = Source.at(path)
    part = source.part(4, OLD.nbytes, shown="the numbers")
    assert part.read(0, OLD.nbytes) == OLD.tobytes()
    rewrite(path)
    for changed in (source, part):
        with pytest.raises(CorruptFile, match=CHANGED):
            changed.read(0, 1)
        with pytest.raises(CorruptFile, match=CHANGED), changed.opened():
            pass
    assert Source.at(path).read(4, NEW.nbytes) == NEW.tobytes()


def test_another_file_of_the_same_size_and_times_in_its_place_is_seen(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(OLD.tobytes())
    other.write_bytes(NEW.tobytes())
    source = Source.at(path)
    found = os.stat(path)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace(other, path)
    with pytest.raises(CorruptFile, match=CHANGED):
        source.read(0, NEW.nbytes)
