"""No room, a limit on file sizes, any step that fails: the old output or the new one, a clear error, nothing left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import weightkit as wk
from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy
from weightkit.atomic_file import write_atomically
from weightkit.errors import WeightkitError, WriteError

SMALL = {**SMALL_DRQV2, "cameras": ["front"], "hidden_dims": [3]}
STEPS = (
    "open",
    "mkdir",
    "write",
    "fsync",
    "fchmod",
    "link",
    "replace",
    "unlink",
    "rmdir",
    "scandir",
    "chmod",
    "preadv",
)
LIMITED = """
import resource, sys
from weightkit.cli.main import main
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main(sys.argv[2:])
"""
OUTS = ("a.pt", "a.safetensors", "a.npz", "policy")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two snapshots of very small policies."""
    folder = tmp_path_factory.mktemp("sources")
    cfg = cfg_of(drqv2_config(SMALL))
    return {
        name: save_robobase(folder / f"{name}.pt", robobase_state(drqv2_policy(SMALL, seed)), cfg=cfg)
        for seed, name in enumerate(("old", "new"))
    }


def content(path: Path) -> dict[str, bytes]:
    """Names and bytes of a file or a folder; empty where there is none."""
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    return {"": path.read_bytes()} if path.exists() else {}


def states(sources: dict[str, Path], folder: Path, out: str, replaced: bool) -> tuple[dict[str, bytes], ...]:
    """What stands at ``out`` before and after a conversion that succeeds; leaves ``out`` as it is before."""
    wk.convert(sources["new"], to="drqv2", out=folder / out)
    after = content(folder / out)
    if not replaced:
        for path in [*(folder / out).glob("*"), folder / out]:
            path.rmdir() if path.is_dir() else path.unlink()
        return {}, after
    wk.convert(sources["old"], to="drqv2", out=folder / out, force=True)
    return content(folder / out), after


def raised_by(source: Path, out: Path) -> WeightkitError | None:
    """What a conversion with ``force`` raises."""
    try:
        wk.convert(source, to="drqv2", out=out, force=True)
    except WeightkitError as error:
        return error
    return None


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("out", OUTS)
def test_a_limit_on_file_sizes_is_told_and_leaves_nothing(
    out: str, replaced: bool, sources: dict[str, Path], tmp_path: Path
) -> None:
    old, new = states(sources, tmp_path, out, replaced)
    listed = os.listdir(tmp_path)
    largest = max(map(len, new.values()))
    arguments = ["convert", str(sources["new"]), "--to", "drqv2", "--force", "-o", str(tmp_path / out)]
    if out != "policy":  # a folder holds the report, and in it what the check found
        arguments.append("--no-check")
    for limit in (0, largest // 2, largest - 1):
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(limit), *arguments],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (6, "")
        message, hint = done.stderr.splitlines()
        assert message.startswith(f"error: {tmp_path / out}")
        assert message.endswith(": cannot be written: File too large; nothing was left behind")
        assert "ulimit -f" in hint
        assert (content(tmp_path / out), os.listdir(tmp_path)) == (old, listed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("out", OUTS)
def test_a_full_disk_is_told_and_leaves_nothing(
    out: str,
    replaced: bool,
    nameless: bool,
    sources: dict[str, Path],
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    old, new = states(sources, small_disk, out, replaced)
    page = os.statvfs(small_disk).f_bsize
    free = os.statvfs(small_disk).f_bavail
    failed = 0
    for pages in range(free):
        (small_disk / "filler").write_bytes(bytes((free - pages) * page))
        listed = os.listdir(small_disk)
        error = raised_by(sources["new"], small_disk / out)
        if error is None:
            break
        failed += 1
        assert isinstance(error, WriteError)
        assert error.message.startswith(f"{small_disk / out}")
        assert error.message.endswith(": cannot be written: No space left on device; nothing was left behind")
        assert "free some space" in error.hint
        assert (content(small_disk / out), os.listdir(small_disk)) == (old, listed)
    assert failed >= 1
    assert content(small_disk / out) == new


class Faulty:
    """Lets the ``at``-th step fail with ENOSPC, once; counts the steps."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps: list[str] = []

    def before(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            self.steps.append(name)
            if len(self.steps) == self.at + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **named)

        return step


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("out", ["a.safetensors", "policy"])
@pytest.mark.slow
def test_whichever_step_fails_the_output_is_old_or_new(
    out: str, replaced: bool, nameless: bool, sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nameless:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    (tmp_path / "before").mkdir()
    monkeypatch.chdir(tmp_path / "before")
    old, new = states(sources, Path(), out, replaced)
    outcomes = set()
    for at in range(1000):
        folder = shutil.copytree(tmp_path / "before", tmp_path / "disk")
        monkeypatch.chdir(folder)
        faulty = Faulty(at)
        with monkeypatch.context() as patched:
            for name in STEPS:
                patched.setattr(os, name, faulty.before(name, getattr(os, name)))
            error = raised_by(sources["new"], Path(out))
        found = content(folder / out)
        if at >= len(faulty.steps):
            assert (error, found) == (None, new)
            break
        step = faulty.steps[at]
        told_nothing_left = error is not None and "nothing was left behind" in error.message
        assert found == (new if error is None else old) or (found == new and not told_nothing_left), (step, at)
        if set(os.listdir(folder)) - {out}:  # what could not be removed because the removal itself failed
            assert error is None
            assert step in {"unlink", "rmdir", "scandir", "chmod", "open"}
            write_atomically(folder / "next", lambda file: None)
            assert set(os.listdir(folder)) == {out, "next"}
        outcomes.add((step, error is None))
        shutil.rmtree(folder)
    assert {("write", False), ("fsync", False), ("preadv", False)} <= outcomes
    assert (("link", False) in outcomes) == nameless
