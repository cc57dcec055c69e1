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


def test_the_file_stands_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, content(b"new"))
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

    write_atomically(tmp_path / "a", write)
    assert (tmp_path / "a").read_bytes() == b"headmid\0\0\0tail"


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


def no_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_file.ctypes, "CDLL", lambda *_, **__: object())


def test_where_the_system_cannot_swap_folders_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_renameat2(monkeypatch)
    path = tmp_path / "out"
    write_directory_atomically(path, fill("1"), is_ours=lambda _: True)
    with pytest.raises(WriteError, match="cannot swap"):
        write_directory_atomically(path, fill("2"), force=True, is_ours=lambda _: True)
    assert (path / "inner" / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("made", ["file", "folder", "link"])
@pytest.mark.parametrize("renameat2", [True, False])
def test_a_folder_replaces_nothing_that_appears_meanwhile(
    made: str, renameat2: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not renameat2:
        no_renameat2(monkeypatch)
    path = tmp_path / "out"

    def meanwhile(folder: Path) -> None:
        if made == "file":
            path.write_text("theirs")
        elif made == "link":
            path.symlink_to("nowhere")
        else:
            path.mkdir()
            (path / "theirs").write_text("theirs")

    with pytest.raises(WriteError, match="exists"):
        write_directory_atomically(path, meanwhile, is_ours=lambda _: True)
    assert os.listdir(tmp_path) == ["out"]
    assert path.is_symlink() or (path / "theirs" if made == "folder" else path).read_text() == "theirs"


def test_a_folder_that_another_one_took_the_place_of_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_directory_atomically(path, fill("old"), is_ours=lambda _: True)

    def meanwhile(folder: Path) -> None:
        path.rename(tmp_path / "moved")
        path.mkdir()
        (path / "theirs").write_text("theirs")

    with pytest.raises(WriteError, match="meanwhile"):
        write_directory_atomically(path, meanwhile, force=True, is_ours=lambda _: True)
    assert os.listdir(path) == ["theirs"]
    assert sorted(os.listdir(tmp_path)) == ["moved", "out"]


def test_a_replaced_folder_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_directory_atomically(path, fill("1"), is_ours=lambda _: True)
    path.chmod(0o550)
    write_directory_atomically(path, fill("2"), force=True, is_ours=lambda _: True)
    assert ((path / "inner" / "a").read_text(), path.stat().st_mode & 0o777) == ("2", 0o550)
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_is_written_where_the_system_knows_only_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_renameat2(monkeypatch)
    write_atomically(tmp_path / "a", content(b"1"))
    with pytest.raises(WriteError, match="exists"):
        write_atomically(tmp_path / "a", content(b"2"))
    write_atomically(tmp_path / "a", content(b"3"), force=True)
    assert (tmp_path / "a").read_bytes() == b"3"
    assert os.listdir(tmp_path) == ["a"]


def test_a_failing_sync_of_the_folder_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic_file, "_sync_folder", fail)
    with pytest.raises(WriteError, match="in place and whole"):
        write_atomically(tmp_path / "a", content(b"new"))
    assert (tmp_path / "a").read_bytes() == b"new"


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "\u00e9" * 127):
        for force in (False, True):
            write_atomically(tmp_path / name, content(b"new"), force=force)
        (tmp_path / name).unlink()
        for force in (False, True):
            write_directory_atomically(tmp_path / name, fill("1"), force=force, is_ours=lambda _: True)


@pytest.mark.parametrize("name", [".", "..", "a/.."])
def test_a_folder_needs_a_name_of_its_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WriteError, match="not by its name"):
        write_directory_atomically(Path(name), fill("1"), force=True, is_ours=lambda _: True)
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    def locked(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "out").mkdir()
    with pytest.raises(WriteError, match="Permission denied"):
        write_directory_atomically(tmp_path / "out", fill("1"), force=True, is_ours=locked)


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


DEAD = ".weightkit-0123456789abcdef.tmp"


def write_either(kind: str, path: Path) -> None:
    if kind == "file":
        write_atomically(path, content(b"new"))
    else:
        write_directory_atomically(path, fill("new"), is_ours=lambda _: True)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_write_removes_the_drafts_of_the_dead_and_nothing_else(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / DEAD
    folder.mkdir()
    (folder / "half").write_text("half")
    folder.chmod(0o500)
    (tmp_path / DEAD.replace("0", "f")).write_text("half")
    kept = [".weightkit-0123456789abcdef.tmp2", ".weightkit-0123456789ABCDEF.tmp", ".weightkit-1.tmp", ".a.tmp"]
    for name in kept:
        (tmp_path / name).write_text("theirs")
    (tmp_path / DEAD.replace("1", "e")).symlink_to(tmp_path / ".a.tmp")
    write_either(kind, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, DEAD.replace("1", "e"), "out"])
    assert (tmp_path / ".a.tmp").read_text() == "theirs"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_drafts_of_the_living_are_left_alone(kind: str, tmp_path: Path) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"outer")
        write_either(kind, tmp_path / "inner file")

    def fill_slowly(folder: Path) -> None:
        (folder / "a").write_text("outer")
        write_either(kind, tmp_path / "inner folder")
        assert folder.is_dir()

    write_atomically(tmp_path / "outer file", write)
    write_directory_atomically(tmp_path / "outer folder", fill_slowly, is_ours=lambda _: True)
    assert (tmp_path / "outer file").read_bytes() == b"outer"
    assert (tmp_path / "outer folder" / "a").read_text() == "outer"
    assert sorted(os.listdir(tmp_path)) == ["inner file", "inner folder", "outer file", "outer folder"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_draft_that_was_taken_for_dead_before_it_was_held_is_made_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = atomic_file._hold
    left = 2

    def late(descriptor: int) -> bool:
        nonlocal left
        if left:
            left -= 1
            atomic_file._remove_dead_drafts(tmp_path)
        return hold(descriptor)

    monkeypatch.setattr(atomic_file, "_hold", late)
    write_either(kind, tmp_path / "out")
    assert left == 0 or kind == "file"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_without_locks_everything_is_written_and_nothing_is_removed(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic_file.fcntl, "flock", flock)
    (tmp_path / DEAD).mkdir()
    write_either(kind, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == [DEAD, "out"]
