"""``weightkit convert``."""

from __future__ import annotations

from typing import Any

import click

from weightkit.cli import options
from weightkit.cli.output import emit
from weightkit.cli.progress import ProgressBar
from weightkit.core.report import Report


@click.command("convert", short_help="weights under another project's names")
@click.argument("source", metavar="SRC", type=click.Path())
@click.option("--to", metavar="LAYOUT", help="The layout to convert to; `weightkit layouts` lists them.")
@click.option("--from", "from_", metavar="LAYOUT", help="The source's layout, where it is not recognised.")
@click.option("--map", metavar="M.toml", type=click.Path(), help="A mapping of your own: docs/mapping.md.")
@click.option("--like", metavar="FILE", type=click.Path(), help="Into the names, shapes and dtypes that FILE has.")
@click.option("--policy", metavar="PKG.MOD:FACTORY", help="Into the names of a net that your own code builds.")
@options.config_path
@options.set_values
@options.adapt
@options.drop
@options.allow_missing
@click.option("--allow-lossy", is_flag=True, help="Allow steps that lose information.")
@click.option("--no-check", is_flag=True, help="Do not compare the outputs of both policies before writing.")
@click.option("--plan-only", is_flag=True, help="Show the plan; with -o PLAN.json save it. Converts nothing.")
@click.option("--plan", metavar="PLAN.json", type=click.Path(), help="Do what a saved plan says.")
@click.option("--invert", metavar="PLAN.json", type=click.Path(), help="Undo what a saved plan did: SRC is its output.")
@click.option(
    "-o", "--out", metavar="OUT", type=click.Path(), help="A .safetensors, .pt or .npz file, or a new folder."
)
@click.option("--report", metavar="PAGE.html", type=click.Path(), help="Write a page that shows every tensor.")
@options.force
@options.limits
@options.as_json
def command(
    source: str,
    config_path: str | None,
    set_values: tuple[str, ...],
    plan_only: bool,
    no_check: bool,
    out: str | None,
    force: bool,
    limit: tuple[str, ...],
    max_bytes: str | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """Convert the checkpoint SRC, every tensor accounted for, written whole or not at all."""
    from weightkit.errors import PlanError
    from weightkit.reporting.convert import convert_text
    from weightkit.verbs.convert import convert, refusal_report, save_plan

    def make() -> Report:
        options_given: dict[str, Any] = {
            "config": config_path,
            "set": set_values,
            "limits": options.parse_limits(limit, max_bytes),
        }
        do, word = (save_plan, "reading") if plan_only else (convert, "converting")
        if not plan_only:
            options_given["check"] = not no_check
        try:
            with ProgressBar(word, source) as progress:
                return do(source, out=out, force=force, progress=progress, **wanted, **options_given)
        except PlanError as error:
            goal = next(filter(None, map(wanted.get, ("to", "like", "policy", "map", "plan", "invert"))), "a copy")
            return refusal_report(error, source, goal)

    emit("convert", as_json, make, convert_text)
