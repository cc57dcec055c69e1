"""``weightkit inspect``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.main import emit


@click.command("inspect", short_help="what a checkpoint holds")
@click.argument("path", type=click.Path())
@click.option("--flat", is_flag=True, help="One line a tensor instead of folded names.")
@options.as_json
def command(path: str, flat: bool, as_json: bool) -> None:
    """Say what the checkpoint at PATH is and list every tensor, without executing anything in it."""
    from weightkit.reporting.inspect import inspect_text
    from weightkit.verbs.inspect import inspect

    emit("inspect", as_json, lambda: inspect(path), lambda report: inspect_text(report, flat=flat))
