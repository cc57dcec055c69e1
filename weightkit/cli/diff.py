"""``weightkit diff``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from weightkit.cli import options
from weightkit.cli.output import emit

if TYPE_CHECKING:
    from weightkit.core.report import Report


@click.command("diff", short_help="are the tensors of two checkpoints the same?")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--values", is_flag=True, help="Compare every number too, and find renamed tensors by their content.")
@click.option("--flat", is_flag=True, help="One line a tensor instead of folded names.")
@options.limits
@options.as_json
def command(
    a: str, b: str, values: bool, flat: bool, limit: tuple[str, ...], max_bytes: str | None, as_json: bool
) -> None:
    """Compare the tensors of A and B: names, shapes, dtypes, ties and, with --values, numbers. Or two saved plans.

    Exit 0 where they are equal, 1 where they differ. Another container or order is no difference.
    """
    from weightkit.verbs.diff import diff
    from weightkit.verbs.diff_plans import are_plans, diff_plans

    def make() -> Report:
        if are_plans(a, b):
            return diff_plans(a, b)
        return diff(a, b, values=values, limits=options.parse_limits(limit, max_bytes))

    emit("diff", as_json, make, lambda report: _text(report, flat))


def _text(report: Report, flat: bool) -> str:
    from weightkit.reporting.diff import diff_text, plan_diff_text
    from weightkit.reporting.text import encodable

    text = plan_diff_text(report) if "plans" in report.facts else diff_text(report, flat=flat)
    return encodable(text, getattr(sys.stdout, "encoding", None))
