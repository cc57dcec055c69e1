"""A writer is killed at every step: the target is the old one or the new one, and the next write removes the rest."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import safetensors
import torch

from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy
from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.formats import open_checkpoint

DRAFT = re.compile(r"\.weightkit-[0-9a-f]{16}\.tmp")
WRITER = Path(__file__).with_name("dying_writer.py")
SMALL = {**SMALL_DRQV2, "cameras": ["front"], "hidden_dims": [3]}
SLOW = pytest.mark.slow


def source(path: Path, seed: int) -> Path:
    """A RoboBase snapshot of a very small policy."""
    config = drqv2_config(SMALL)
    return save_robobase(path, robobase_state(drqv2_policy(SMALL, seed)), cfg=cfg_of(config))


def digest(path: Path) -> str:
    """One digest of a file, or of all names and bytes in a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    whole = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        whole.update(f"{file.relative_to(path)}\0".encode())
        whole.update(file.read_bytes() if file.is_file() else b"")
    return whole.hexdigest()


def assert_whole(path: Path) -> None:
    """Our strict reader and the format's own one read every tensor, and read the same."""
    ours = open_checkpoint(path)
    arrays = {name: numpy.asarray(ours.read(name)) for name in ours.state}
    assert arrays
    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix == ".pt":
        theirs = {n: t.numpy() for n, t in torch.load(file, weights_only=True)["state_dict"].items()}
    elif file.suffix == ".npz":
        with numpy.load(file) as archive:
            theirs = {name: archive[name] for name in arrays}
    else:
        with safetensors.safe_open(file, "numpy") as opened:
            theirs = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert arrays.keys() == theirs.keys()
    assert all(numpy.array_equal(arrays[name], theirs[name]) for name in arrays)
    if path.is_dir():
        assert sorted(os.listdir(path)) == ["config.json", "model.safetensors", "plan.json", "report.json"]


def kill_everywhere(
    tmp_path: Path, out: str, *, replaced: bool, nameless: bool, **options: str
) -> tuple[list[str], list[list[str]]]:
    """The steps that a writer was killed at, and what each kill left beside the target; checks all that must hold.

    ``options`` are those of the conversion; without any it is one into ``drqv2``.
    """
    options = options or {"to": "drqv2"}
    task = {"source": str(source(tmp_path / "new.pt", 2)), "out": out, "old": None, "nameless": nameless}
    old_digest = None
    if replaced:
        before = source(tmp_path / "old.pt", 1)
        done = subprocess.run(
            [sys.executable, "-m", "weightkit.cli.main", "convert", str(before), "--to", "drqv2", "-o", out],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        task["old"] = str(tmp_path / out)
        old_digest = digest(tmp_path / out)
        assert_whole(tmp_path / out)
    root = tmp_path / "points"
    root.mkdir()
    command = [sys.executable, str(WRITER), str(root), json.dumps({**task, "options": options})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    steps = done.stdout.splitlines()
    points = [root / str(number) for number in range(len(steps) + 1)]
    assert sorted(root.iterdir()) == sorted(points)
    new_digest = digest(points[-1] / out)
    assert_whole(points[-1] / out)
    assert new_digest != old_digest
    beside, seen = [], []
    for point in points:
        found = digest(point / out) if os.path.lexists(point / out) else None
        assert found in (old_digest, new_digest), f"killed at {steps[int(point.name)]} ({point.name})"
        seen.append(found)
        left = sorted(set(os.listdir(point)) - {out})
        assert all(DRAFT.fullmatch(name) for name in left)
        beside.append(left)
        write_atomically(point / "next", lambda file: None)
        assert set(os.listdir(point)) - {out} == {"next"}
        assert (digest(point / out) if os.path.lexists(point / out) else None) == found
    turn = seen.index(new_digest)
    assert turn > 0
    assert seen == [old_digest] * turn + [new_digest] * (len(seen) - turn)  # it changes once
    assert beside[-1] == []
    return steps, beside


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("out", ["a.pt", "a.safetensors", "a.npz"])
@SLOW
def test_a_file_is_old_or_new_wherever_its_writer_is_killed(out: str, replaced: bool, tmp_path: Path) -> None:
    steps, beside = kill_everywhere(tmp_path, out, replaced=replaced, nameless=True)
    assert len(steps) >= 100
    assert {"write", "half a write", "fsync", "link", *(["replace"] if replaced else [])} <= set(steps)
    # without a name nothing is left; only where a file is replaced the new one has a draft's name between two steps
    assert [step for step, left in zip(steps, beside, strict=False) if left] == (["replace"] if replaced else [])


MAPPING = """
name = "mapped"
version = 1
source_layout = "a"
target_layout = "b"
[[rule]]
id = "all"
source = "{rest:path}"
target = "policy.{rest:path}"
[[rule]]
id = "turned"
source = "actor.actor_model.main_mlp.{i}.weight"
target = "policy.main_mlp.{i}.weight"
ops = [{op = "transpose"}]
overrides = ["all"]
"""


def test_a_mapped_file_is_not_there_or_whole_wherever_its_writer_is_killed(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MAPPING, encoding="utf-8")
    mapping = str(tmp_path / "m.toml")
    steps, _ = kill_everywhere(tmp_path, "a.safetensors", replaced=False, nameless=True, map=mapping)
    assert len(steps) >= 50


@pytest.mark.parametrize("replaced", [False, True])
@SLOW
def test_where_a_draft_needs_a_name_the_next_write_removes_it(replaced: bool, tmp_path: Path) -> None:
    steps, beside = kill_everywhere(tmp_path, "a.safetensors", replaced=replaced, nameless=False)
    assert len(steps) >= 100
    assert max(map(len, beside)) == 1
    assert ("replace" if replaced else "renameat2") in steps


@pytest.mark.parametrize("replaced", [False, True])
@SLOW
def test_a_folder_is_old_or_new_wherever_its_writer_is_killed(replaced: bool, tmp_path: Path) -> None:
    steps, beside = kill_everywhere(tmp_path, "policy", replaced=replaced, nameless=True)
    assert len(steps) >= 100
    assert {"mkdir", "half a write", "fsync", "link", "flock", "renameat2"} <= set(steps)
    assert max(map(len, beside)) == 1


FILLING = """
import sys
from pathlib import Path
from weightkit.atomic_file import write_atomically, write_directory_atomically

def wait(place):
    print("filling", flush=True)
    sys.stdin.readline()

def fill(folder):
    (folder / "half").write_text("half")
    wait(folder)

def write(file):
    file.write(b"half")
    wait(file)

kind, path = sys.argv[1], Path(sys.argv[2])
if kind == "named":
    import os
    del os.O_TMPFILE
if kind == "folder":
    write_directory_atomically(path, fill, is_ours=lambda _: True)
else:
    write_atomically(path, write)
"""


@pytest.mark.parametrize("kind", ["named", "folder"])
def test_a_living_writers_draft_stays_and_a_dead_ones_goes(kind: str, tmp_path: Path) -> None:
    def next_writes(number: int) -> None:
        write_atomically(tmp_path / f"file {number}", lambda file: None)
        write_directory_atomically(tmp_path / f"folder {number}", lambda folder: None, is_ours=lambda _: True)

    command = [sys.executable, "-c", FILLING, kind, str(tmp_path / "out")]
    for number, end in enumerate(("kill", "finish")):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            try:
                assert writer.stdout is not None
                assert writer.stdout.readline() == "filling\n"
                next_writes(number)
                assert len([name for name in os.listdir(tmp_path) if DRAFT.fullmatch(name)]) == 1
            finally:
                if end == "kill":
                    writer.kill()
                writer.communicate("\n" if end == "finish" else None, timeout=30)
        assert writer.returncode == (0 if end == "finish" else -signal.SIGKILL)
        assert (tmp_path / "out").exists() == (end == "finish")
    next_writes(2)
    assert sorted(os.listdir(tmp_path)) == [f"{kind} {n}" for kind in ("file", "folder") for n in range(3)] + ["out"]
