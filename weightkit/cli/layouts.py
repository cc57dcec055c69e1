"""``weightkit layouts``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.output import emit


@click.command("layouts", short_help="list the layouts")
@options.as_json
def command(as_json: bool) -> None:
    """List the layouts that weightkit knows."""
    from weightkit.reporting.listing import layouts_text
    from weightkit.verbs.listing import list_layouts

    emit("layouts", as_json, list_layouts, layouts_text)
