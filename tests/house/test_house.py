"""The README's map is the disk, and the packaging ships what the code reads."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def readme_map() -> set[str]:
    """The paths of the fenced block under "The map", folders with a slash at their end."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("## The map", 1)[1].split("```", 2)[1]
    paths: set[str] = set()
    parents: list[str] = []
    for line in block.splitlines()[1:]:
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        parents = parents[:depth]
        paths.add("".join(parents) + name)
        if name.endswith("/"):
            parents.append(name)
    return paths


def tracked() -> list[str]:
    """The files that git tracks or would track."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.splitlines() if (ROOT / name).exists()]


def test_the_readmes_map_is_the_disk_down_to_the_packages() -> None:
    mapped = readme_map()
    on_disk: set[str] = set()
    for name in tracked():
        parts = name.split("/")
        if len(parts) == 1:
            continue
        on_disk.add(f"{parts[0]}/")
        if parts[0] == "weightkit" and len(parts) > 2:
            on_disk.add(f"weightkit/{parts[1]}/")
        if parts[0] == "runners" and len(parts) > 2:
            on_disk.add("runners/weightkit_runners/")
        if parts[0] == "runners" and len(parts) > 3:
            on_disk.add(f"runners/weightkit_runners/{parts[2]}/")
        if parts[0] in {"tests", "schemas"} and len(parts) > 2:
            on_disk.add(f"{parts[0]}/{parts[1]}/")
    folders = {path for path in mapped if path.endswith("/")}
    assert folders == on_disk
    missing = [path for path in mapped - folders if not (ROOT / path).is_file()]
    assert missing == []


def test_every_module_of_the_top_level_stands_in_the_map() -> None:
    mapped = readme_map()
    modules = {f"weightkit/{p.name}" for p in (ROOT / "weightkit").glob("*.py")}
    runners = {f"runners/weightkit_runners/{p.name}" for p in (ROOT / "runners" / "weightkit_runners").glob("*.py")}
    assert modules | runners <= mapped


def test_no_folder_is_a_drawer_for_anything() -> None:
    names = {part.removesuffix(".py") for name in tracked() for part in name.split("/")}
    assert names & {"utils", "util", "common", "helpers", "helper", "manager", "misc"} == set()


def test_the_data_files_that_the_code_reads_lie_beside_it() -> None:
    for package, pattern in (
        ("weightkit.architectures.drqv2", "layouts/*.toml"),
        ("weightkit.reporting.page", "page.*"),
        ("weightkit_runners.templates", "*.json"),
        ("weightkit_runners.envs", "*.xml"),
    ):
        folder = Path(importlib.import_module(package).__file__ or "").parent
        assert list(folder.glob(pattern)), f"{package} has no {pattern}"


@pytest.mark.parametrize("program", ["learner", "actor"])
def test_learner_and_actor_are_read_in_one_sitting(program: str) -> None:
    lines = (ROOT / "runners" / "weightkit_runners" / f"{program}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 250
