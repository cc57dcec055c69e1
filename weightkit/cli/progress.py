"""A bar for long work, on stderr: bytes, rate and what remains."""

from __future__ import annotations

import os
import sys
from typing import Any

_LONG_BYTES = 200_000_000
_LONG_ON_A_TERMINAL = 20_000_000
"""Fewer bytes are done before a bar could be read."""


class ProgressBar:
    """Told the bytes that are done, and all; shows itself where the work is long, at a terminal somewhat earlier."""

    def __init__(self, word: str, path: str) -> None:
        self._least = _LONG_ON_A_TERMINAL if sys.stderr.isatty() else _LONG_BYTES
        self._word = word
        self._path = path
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __call__(self, done: int, everything: int) -> None:
        if everything < self._least:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            from weightkit.core.text import printable

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            name = escape(printable(os.path.basename(self._path), longest=60))
            self._task = self._bar.add_task(f"{self._word} {name}", total=everything)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
