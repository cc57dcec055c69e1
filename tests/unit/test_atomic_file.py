"""Whole or nothing: whatever goes wrong, the old file stands and nothing else is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from weightkit import atomic_file
from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.digest import sha256_file
from weightkit.errors import FormatError, WriteError


def content(raw: bytes) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(raw)

    return write


def raising(error: BaseException) -> Callable[[BinaryIO], None]:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        raise error

    return write


@pytest.fixture(params=["nameless", "named"], autouse=True)
def draft_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


def test_the_file_stands_whole_and_its_digest_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert write_atomically(path, content(b"new")) == sha256_file(path)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_parts_may_be_written_in_any_order(tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"head")
        file.seek(10)
        file.write(b"tail")
        file.seek(4)
        file.write(b"mid")
        assert file.tell() == 7

    digest = write_atomically(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"headmid\0\0\0tail"
    assert digest == sha256_file(tmp_path / "a")


def test_an_empty_file_can_be_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", lambda file: None)
    assert (tmp_path / "a").read_bytes() == b""


def test_an_existing_file_needs_force_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with pytest.raises(WriteError, match="exists"):
        write_atomically(path, content(b"new"))
    assert path.read_bytes() == b"old"
    write_atomically(path, content(b"new"), force=True)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)
    assert os.listdir(tmp_path) == ["a"]


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", content(b""))
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), WriteError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (FormatError("the source is corrupt"), FormatError),
        (ValueError("x"), ValueError),
    ],
)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    error: BaseException, seen: type[BaseException], old: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(seen):
        write_atomically(path, raising(error), force=True)
    assert os.listdir(tmp_path) == ([] if old is None else ["a"])
    assert old is None or path.read_bytes() == old


def test_bytes_that_arrive_changed_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.write
    monkeypatch.setattr(atomic_file.os, "write", lambda descriptor, raw: original(descriptor, bytes(len(raw))))
    with pytest.raises(WriteError, match="read back"):
        write_atomically(tmp_path / "a", content(b"new"))
    assert os.listdir(tmp_path) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(WriteError, match="exists"):
        write_atomically(path, lambda file: path.write_bytes(b"theirs") and None)
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_links_folders_pipes_and_inputs_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"source")
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    os.link(source, tmp_path / "same")
    for name in ("link", "dangling", "folder", "pipe", "source", "same", "missing/a", "a\0"):
        with pytest.raises(WriteError):
            write_atomically(tmp_path / name, content(b"new"), force=True, inputs=[source])
    assert source.read_bytes() == b"source"


def fill(raw: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text(raw)

    return write


def test_a_folder_stands_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_directory_atomically(path, fill("1"), is_ours=lambda _: True)
    with pytest.raises(WriteError, match="exists"):
        write_directory_atomically(path, fill("2"), is_ours=lambda _: True)
    write_directory_atomically(path, fill("2"), force=True, is_ours=lambda _: True)
    assert (path / "inner" / "a").read_text() == "2"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_is_exchanged_where_the_system_cannot_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_file.ctypes, "CDLL", lambda *_, **__: object())
    path = tmp_path / "out"
    for raw in ("1", "2"):
        write_directory_atomically(path, fill(raw), force=True, is_ours=lambda _: True)
    assert (path / "inner" / "a").read_text() == "2"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_is_not_ours_is_refused_even_with_force(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "theirs").write_text("x")
    with pytest.raises(WriteError, match="did not write"):
        write_directory_atomically(path, fill("1"), force=True, is_ours=lambda _: False)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(WriteError):
        write_directory_atomically(tmp_path / "link", fill("1"), force=True, is_ours=lambda _: True)
    assert os.listdir(path) == ["theirs"]


@pytest.mark.parametrize(
    ("error", "seen"), [(OSError(errno.ENOSPC, "full"), WriteError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_folder_that_cannot_be_filled_leaves_nothing(
    error: BaseException, seen: type[BaseException], tmp_path: Path
) -> None:
    def fail(folder: Path) -> None:
        (folder / "a").write_text("half")
        raise error

    with pytest.raises(seen):
        write_directory_atomically(tmp_path / "out", fail, is_ours=lambda _: True)
    assert os.listdir(tmp_path) == []
