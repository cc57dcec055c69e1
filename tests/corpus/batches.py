"""All cases at once, through a trusting loader and through weightkit; one process a batch, one child a case."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus.case import MARK, Case

TESTS = Path(__file__).resolve().parents[1]


def _run(module: str, folder: Path, wanted: list[Any]) -> list[Any]:
    """Run the batch program ``module`` on ``wanted``; what it answered."""
    listed, answers = folder / "wanted.json", folder / "answers.json"
    listed.write_text(json.dumps(wanted), encoding="utf-8")
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-m", f"corpus.{module}", str(listed), str(answers)],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: list[Any] = json.loads(answers.read_text(encoding="utf-8"))
    return found


def _prepared(cases: Sequence[Case], folder: Path) -> list[tuple[Path, Path]]:
    """Each case's file, and a working directory of its own with what lies beside it."""
    places = []
    for index, case in enumerate(cases):
        held, working = folder / f"file{index}", folder / f"at{index}"
        held.mkdir()
        working.mkdir()
        for name, content in case.beside.items():
            (working / name).write_bytes(content)
        places.append((case.write(held), working))
    return places


def marked(folder: Path) -> bool:
    """Whether a payload left its mark."""
    return any(name.startswith(MARK) for name in os.listdir(folder))


def trust(cases: Sequence[Case], folder: Path) -> dict[str, dict[str, Any]]:
    """Whether each case's payload ran, and what the loader said."""
    places = _prepared(cases, folder)
    said = _run(
        "trusting", folder, [[str(path), case.loader, str(at)] for case, (path, at) in zip(cases, places, strict=True)]
    )
    return {
        case.name: {"ran": marked(at), "said": answer}
        for case, (_, at), answer in zip(cases, places, said, strict=True)
    }


def read(cases: Sequence[Case], folder: Path) -> dict[str, dict[str, Any]]:
    """What weightkit's commands gave for each case; ``path`` is its file, ``ran`` whether a mark appeared."""
    places = _prepared(cases, folder)
    wanted = [
        [str(path), str(at), case.named[0].replace(":", ".").rpartition(".")[0] if case.named else ""]
        for case, (path, at) in zip(cases, places, strict=True)
    ]
    answers = _run("reading", folder, wanted)
    return {
        case.name: {**answer, "path": path, "ran": marked(at), "left": set(os.listdir(at)) - set(case.beside)}
        for case, (path, at), answer in zip(cases, places, answers, strict=True)
    }
