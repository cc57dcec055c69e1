"""Configurations to start from, as JSON files beside this module."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

from weightkit.atomic_file import write_atomically
from weightkit.errors import UsageError

TEMPLATES: dict[str, str] = {
    "hilserl_drqv2": "the devlogs' DrQ-v2 configuration: one camera at 84x84, three frames",
    "demo_arm": "the demo arm at 48x48, starting from fixtures/best_snapshot.pt",
    "demo_arm_sac": "SAC from scratch on the demo arm at 64x64",
}


def read_template(name: str) -> dict[str, Any]:
    """The template called ``name`` as JSON values. Raises UsageError that lists those there are."""
    if name not in TEMPLATES:
        raise UsageError(f"there is no template {name!r}", hint=f"known: {', '.join(TEMPLATES)}")
    document: dict[str, Any] = json.loads(files(__package__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return document


def write_template(name: str, out: str | Path, *, pretrained: str | None = None, force: bool = False) -> Path:
    """Write a template to ``out``, with the path of pretrained weights filled in where one is given.

    The JSON Schema that it names is written beside it, for editors.
    """
    from weightkit_runners.config_schema import SCHEMA_FILE, train_config_schema

    document = {"$schema": f"./{SCHEMA_FILE}", **read_template(name)}
    if pretrained is not None:
        document["policy"]["pretrained_path"] = pretrained
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)

    _write_json(path, document, force=force)
    _write_json(path.parent / SCHEMA_FILE, train_config_schema(), force=True)
    return path


def _write_json(path: Path, document: Any, *, force: bool) -> None:
    def write(file: BinaryIO) -> None:
        file.write(json.dumps(document, indent=2).encode() + b"\n")

    write_atomically(path, write, force=force)
