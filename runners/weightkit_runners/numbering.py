"""The name of a run and the numbers of its versions: no number is given twice, however often its learner is killed."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import BinaryIO

from weightkit.atomic_file import write_atomically
from weightkit.errors import ConfigError

FILE = "run.json"
AT_ONCE = 1000


class VersionNumbers:
    """``run_id`` and ``first``, the first number that is free; `reserve` before a number is given.

    ``resume``: of the run in ``folder`` where there is one. Numbers are set aside in thousands, each with one write to
    the disk, so a resumed run leaves a gap. Raises ConfigError for a file that cannot be understood.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._path = folder / FILE
        self.run_id, self._reserved = uuid.uuid4().hex, 0
        if resume and self._path.is_file():
            try:
                saved = json.loads(self._path.read_text(encoding="utf-8"))
                self.run_id, self._reserved = str(saved["run_id"]), int(saved["reserved"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{self._path}: no run can be read from it: {error!r}",
                    hint="remove it: actors then see another run, and take its weights as such",
                ) from None
        self.first = self._reserved + 1

    def reserve(self, number: int) -> None:
        """Make sure that nobody gives ``number`` again. Raises WriteError."""
        if number <= self._reserved:
            return
        reserved = number - 1 + AT_ONCE
        content = json.dumps({"run_id": self.run_id, "reserved": reserved}).encode() + b"\n"

        def write(file: BinaryIO) -> None:
            file.write(content)

        write_atomically(self._path, write, force=True)
        self._reserved = reserved
