"""``weightkit lint``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.output import emit
from weightkit.core.report import Report


@click.command("lint", short_help="is a mapping sound by itself?")
@click.argument("mapping", metavar="M.toml", type=click.Path())
@options.as_json
def command(mapping: str, as_json: bool) -> None:
    """Look for faults in the mapping M.toml; no checkpoint is needed. Exit 0 where there is none, 1 where there is."""
    from weightkit.reporting.lint import lint_text
    from weightkit.verbs.lint import lint

    def make() -> Report:
        return lint(mapping)

    emit("lint", as_json, make, lint_text)
