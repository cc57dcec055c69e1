"""``weightkit formats``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.output import emit


@click.command("formats", short_help="list the formats")
@options.as_json
def command(as_json: bool) -> None:
    """List the formats that weightkit knows."""
    from weightkit.reporting.listing import formats_text
    from weightkit.verbs.listing import list_formats

    emit("formats", as_json, list_formats, formats_text)
