"""Every output that ``weightkit convert`` refuses: exit code 6, one clear line, nothing touched and nothing left."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy

Prepare = Callable[[Path], object]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    config = drqv2_config(SMALL_DRQV2)
    state = robobase_state(drqv2_policy(SMALL_DRQV2, 1))
    return save_robobase(tmp_path_factory.mktemp("snapshot") / "best.pt", state, cfg=cfg_of(config)).read_bytes()


@pytest.fixture
def place(tmp_path: Path, snapshot: bytes) -> Path:
    """A working folder with a snapshot in it."""
    path = tmp_path / "work"
    path.mkdir()
    (path / "source.pt").write_bytes(snapshot)
    return path


def convert(place: Path, out: str, *more: str, source: str = "source.pt") -> subprocess.CompletedProcess[str]:
    arguments = ["convert", source, "--to", "drqv2", "--no-check", "-o", out, *more]
    command = [sys.executable, "-m", "weightkit.cli.main", *arguments]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60)


def look(place: Path) -> dict[str, object]:
    """All there is to see of a folder: names, kinds, modes, inodes, contents."""
    seen: dict[str, object] = {}
    for path in sorted(place.rglob("*")):
        found = path.lstat()
        regular = stat.S_ISREG(found.st_mode)
        seen[str(path.relative_to(place))] = (found.st_mode, found.st_ino, path.read_bytes() if regular else None)
    return seen


def link(target: str, name: str) -> Prepare:
    return lambda place: (place / name).symlink_to(target)


def folder_with(name: str, *files: str) -> Prepare:
    def prepare(place: Path) -> None:
        (place / name).mkdir()
        for file in files:
            (place / name / file).write_text("theirs")

    return prepare


def socket_at(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("a.pt")  # in the working folder: a socket's path may not be long


def device_at(place: Path) -> None:
    try:
        os.mknod(place / "a.pt", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make a device")


def hard_link(place: Path) -> None:
    os.link(place / "source.pt", place / "same.pt")


def taken(name: str) -> Prepare:
    return lambda place: (place / name).write_text("theirs")


def nothing(place: Path) -> None:
    pass


CASES: dict[str, tuple[Prepare, str, str, str]] = {
    "a file without --force": (taken("a.pt"), "a.pt", "", "exists already"),
    "a file with a slash behind it, without --force": (taken("a.pt"), "a.pt/", "", "named like a file"),
    "a link": (link("/dev/null", "a.pt"), "a.pt", "--force", "is a symbolic link"),
    "a link to the input": (link("source.pt", "a.pt"), "a.pt", "--force", "is being read"),
    "a dangling link": (link("nowhere.pt", "a.pt"), "a.pt", "", "is a symbolic link"),
    "a dangling link with --force": (link("nowhere.pt", "a.pt"), "a.pt", "--force", "is a symbolic link"),
    "a link to a folder": (link(".", "policy"), "policy", "--force", "holds what is being read"),
    "a link to nothing as a folder": (link("nowhere", "policy"), "policy", "--force", "is a symbolic link"),
    "a folder as a file": (folder_with("a.pt"), "a.pt", "--force", "is a folder"),
    "a file as a folder": (taken("policy"), "policy", "--force", "is a file"),
    "a foreign folder": (folder_with("policy", "notes"), "policy", "--force", "did not write"),
    "a foreign folder with a slash": (folder_with("policy", "notes"), "policy/", "--force", "did not write"),
    "a foreign config.json": (folder_with("policy", "config.json"), "policy", "--force", "did not write"),
    "an empty folder": (folder_with("policy"), "policy", "", "did not write"),
    "/dev/null": (nothing, "/dev/null", "--force", "is a device"),
    "/dev/full": (nothing, "/dev/full", "--force", "is a device"),
    "a device": (device_at, "a.pt", "--force", "is a device"),
    "a pipe": (lambda place: os.mkfifo(place / "a.pt"), "a.pt", "--force", "is a pipe"),
    "a socket": (socket_at, "a.pt", "--force", "is a socket"),
    "the input": (nothing, "source.pt", "--force", "is being read"),
    "the input by a detour": (folder_with("sub"), "sub/../source.pt", "--force", "is being read"),
    "the input in a linked folder": (link(".", "alias"), "alias/source.pt", "--force", "is being read"),
    "the input's other name": (hard_link, "same.pt", "--force", "is what is being read"),
    "the folder of the input": (nothing, "../work", "--force", "is being read"),
    "a name that is too long": (nothing, "a" * 300 + ".pt", "", "too long"),
    "a folder's name that is too long": (nothing, "a" * 300, "", "too long"),
    "no such folder": (nothing, "missing/a.pt", "", "the folder missing does not exist"),
    "a new folder in no folder": (nothing, "missing/policy", "", "the folder missing does not exist"),
    "a file as the folder": (taken("file"), "file/a.pt", "", "Not a directory"),
    "/": (nothing, "/", "--force", "is being read"),
    "..": (nothing, "..", "--force", "is being read"),
}


CIRCLE = link("a.pt", "a.pt"), "a.pt", "--force", "symbolic link"


def test_a_link_in_a_circle_is_refused(place: Path) -> None:
    prepare, out, more, why = CIRCLE
    prepare(place)
    done = convert(place, out, *more.split())
    assert done.returncode == 6
    assert why in done.stderr


@pytest.mark.parametrize("case", CASES)
def test_the_refusal_is_one_clear_line_and_nothing_changes(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    prepare, out, more, why = CASES[case]
    prepare(place)
    before = look(place)
    done = convert(place, out, *more.split())
    assert (done.returncode, done.stdout) == (6, "")
    message, hint = done.stderr.splitlines()
    assert message.startswith(f"error: {out.rstrip('/')[:100]}")
    assert why in message
    assert hint.startswith("hint: ")
    assert look(place) == before


def test_the_refusals_are_refusals_of_the_output_only(place: Path) -> None:
    """The same call with outputs that are free succeeds, also through a linked folder and with a slash behind it."""
    (place / "inner").mkdir()
    (place / "alias").symlink_to("inner")
    for out in ("alias/a.pt", "policy/"):
        done = convert(place, out)
        assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(place)) == ["alias", "inner", "policy", "source.pt"]
    assert os.listdir(place / "inner") == ["a.pt"]
    before = look(place)
    done = convert(place, "policy")
    assert (done.returncode, look(place)) == (6, before)
    assert "exists already" in done.stderr
    (place / "inside").symlink_to("policy")
    done = convert(place, "inside/a.pt", source="policy")
    assert done.returncode == 6
    assert "is being read" in done.stderr


def test_a_folder_that_cannot_be_written_to(place: Path) -> None:
    (place / "locked").mkdir(mode=0o555)
    if os.access(place / "locked", os.W_OK):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(place / "locked")], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("root may write everywhere, and nothing can be mounted here")
    try:
        for out in ("locked/a.pt", "locked/policy"):
            done = convert(place, out)
            assert (done.returncode, done.stdout) == (6, "")
            message, hint = done.stderr.splitlines()
            assert message.startswith(f"error: {out}: cannot be written: ")
            assert hint == "hint: choose a folder that you may write to"
            assert os.listdir(place / "locked") == []
    finally:
        subprocess.run(["umount", str(place / "locked")], capture_output=True)


def test_modes_follow_the_umask_and_the_old_output(place: Path) -> None:
    for out in ("a.pt", "policy"):
        before = os.umask(0o027)
        try:
            assert convert(place, out).returncode == 0
        finally:
            os.umask(before)
        assert (place / out).stat().st_mode & 0o777 == (0o750 if out == "policy" else 0o640)
        (place / out).chmod(0o700)
        assert convert(place, out, "--force").returncode == 0
        assert (place / out).stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(place)) == ["a.pt", "policy", "source.pt"]
