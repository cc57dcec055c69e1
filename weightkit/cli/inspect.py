"""``weightkit inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from weightkit.cli import options
from weightkit.cli.inspect_text import shown
from weightkit.cli.output import emit
from weightkit.cli.progress import ProgressBar

if TYPE_CHECKING:
    from weightkit.core.report import Report


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
        with ProgressBar("reading", path) as progress:
            return inspect(path, stats=stats, fail_on=words, limits=limits, progress=progress)

    emit("inspect", as_json, make, lambda report: shown(report, flat=flat))
