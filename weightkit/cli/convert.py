"""``weightkit convert``."""

from __future__ import annotations

from typing import Any

import click

from weightkit.cli import options
from weightkit.cli.output import emit
from weightkit.core.report import Report


@click.command("convert", short_help="weights under another project's names")
@click.argument("source", metavar="SRC", type=click.Path())
@click.option("--to", metavar="LAYOUT", help="The layout to convert to; `weightkit layouts` lists them.")
@click.option("--from", "from_", metavar="LAYOUT", help="The source's layout, where it is not recognised.")
@options.config_path
@options.set_values
@options.adapt
@options.drop
@options.allow_missing
@click.option("--allow-lossy", is_flag=True, help="Allow steps that lose information.")
@click.option("--plan-only", is_flag=True, help="Show the plan, write nothing.")
@click.option(
    "-o", "--out", metavar="OUT", type=click.Path(), help="A .safetensors, .pt or .npz file, or a new folder."
)
@options.force
@options.limits
@options.as_json
def command(
    source: str,
    to: str | None,
    from_: str | None,
    config_path: str | None,
    set_values: tuple[str, ...],
    adapt: tuple[str, ...],
    drop: tuple[str, ...],
    allow_missing: tuple[str, ...],
    allow_lossy: bool,
    plan_only: bool,
    out: str | None,
    force: bool,
    limit: tuple[str, ...],
    max_bytes: str | None,
    as_json: bool,
) -> None:
    """Convert the checkpoint SRC, every tensor accounted for, written whole or not at all."""
    from weightkit.errors import PlanError, UsageError
    from weightkit.reporting.convert import convert_text
    from weightkit.verbs.convert import conversion_report, convert, plan_conversion, refusal_report

    def make() -> Report:
        wanted: dict[str, Any] = {
            "to": to,
            "from_": from_,
            "config": config_path,
            "set": set_values,
            "adapt": adapt,
            "drop": drop,
            "allow_missing": allow_missing,
            "allow_lossy": allow_lossy,
            "limits": options.parse_limits(limit, max_bytes),
        }
        try:
            if not plan_only:
                return convert(source, out=out, force=force, **wanted)
            if out is not None:
                raise UsageError("--plan-only writes nothing: leave out -o")
            return conversion_report(plan_conversion(source, **wanted), out=None)
        except PlanError as error:
            return refusal_report(error, source, to)

    emit("convert", as_json, make, convert_text)
