"""``weightkit inspect``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from weightkit.cli import options
from weightkit.cli.inspect_text import shown
from weightkit.cli.output import emit

if TYPE_CHECKING:
    from weightkit.core.report import Report

_LONG_BYTES = 200_000_000
_LONG_ON_A_TERMINAL = 20_000_000
"""Reading fewer bytes is over before a progress bar could be read."""


@click.command("inspect", short_help="what a checkpoint holds")
@click.argument("path", type=click.Path())
@click.option("--stats", is_flag=True, help="Read every tensor: mean, std, min, max, NaN, Inf, zero, constant.")
@click.option("--fail-on", metavar="WORDS", help="Exit 1 where a tensor is so: nan,inf,zero,constant. Implies --stats.")
@click.option("--flat", is_flag=True, help="One line a tensor, nothing folded.")
@options.limits
@options.as_json
def command(
    path: str,
    stats: bool,
    fail_on: str | None,
    flat: bool,
    limit: tuple[str, ...],
    max_bytes: str | None,
    as_json: bool,
) -> None:
    """Say what the checkpoint at PATH is and list every tensor, without executing anything in it."""
    from weightkit.verbs.inspect import inspect

    words = [] if fail_on is None else [word.strip() for word in fail_on.split(",")]

    def make() -> Report:
        limits = options.parse_limits(limit, max_bytes)
        if not stats and not words:
            return inspect(path, limits=limits)
        with _Progress(path) as progress:
            return inspect(path, stats=stats, fail_on=words, limits=limits, progress=progress)

    emit("inspect", as_json, make, lambda report: shown(report, flat=flat))


class _Progress:
    """A bar on stderr for a long file; a person at a terminal gets it earlier."""

    def __init__(self, path: str) -> None:
        terminal = sys.stderr.isatty()
        self._least = _LONG_ON_A_TERMINAL if terminal else _LONG_BYTES
        self._path = path
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, done: int, everything: int) -> None:
        if everything < self._least:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.markup import escape
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            from weightkit.core.text import printable

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            name = escape(printable(os.path.basename(self._path), longest=60))
            self._task = self._bar.add_task(f"reading {name}", total=everything)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
