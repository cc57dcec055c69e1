"""``weightkit suggest``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from weightkit.cli import options
from weightkit.cli.output import emit

if TYPE_CHECKING:
    from weightkit.core.report import Report


@click.command("suggest", short_help="draft a mapping to a layout, or to what another file holds")
@click.argument("source", metavar="SRC", type=click.Path())
@click.option("--to", metavar="LAYOUT", help="The layout to map to; `weightkit layouts` lists them.")
@click.option("--like", metavar="FILE", type=click.Path(), help="A checkpoint with the names to map to.")
@click.option("--no-values", is_flag=True, help="Look at names and shapes only, read no tensor.")
@options.config_path
@options.set_values
@click.option("-o", "--out", metavar="DRAFT.toml", type=click.Path(), help="Write the draft there, not to stdout.")
@options.force
@options.limits
@options.as_json
def command(
    source: str,
    to: str | None,
    like: str | None,
    no_values: bool,
    config_path: str | None,
    set_values: tuple[str, ...],
    out: str | None,
    force: bool,
    limit: tuple[str, ...],
    max_bytes: str | None,
    as_json: bool,
) -> None:
    """Propose which tensor of SRC is which of the target, and draft the mapping. Nothing is applied.

    Without -o the draft goes to stdout and what was found to stderr.
    """
    from weightkit.errors import UsageError
    from weightkit.verbs.suggest import suggest

    def make() -> Report:
        if out is not None and not out.endswith(".toml"):
            raise UsageError(f"{out}: a draft is a .toml file", hint="-o DRAFT.toml")
        report = suggest(
            source,
            to=to,
            like=like,
            config=config_path,
            settings=_settings(set_values),
            limits=options.parse_limits(limit, max_bytes),
            values=not no_values,
        )
        if out is not None:
            _write(str(report.facts["draft"]), Path(out), force, [Path(p) for p in (source, like) if p])
        return report

    emit("suggest", as_json, make, lambda report: _text(report, out))


def _settings(items: tuple[str, ...]) -> dict[str, str]:
    from weightkit.verbs.configure import parse_settings

    return dict(parse_settings(items))


def _write(draft: str, out: Path, force: bool, inputs: list[Path]) -> None:
    from weightkit.atomic_file import write_atomically

    def write(file: BinaryIO) -> None:
        file.write(draft.encode("utf-8"))

    write_atomically(out, write, force=force, inputs=inputs)


def _text(report: Report, out: str | None) -> str:
    from weightkit.reporting.suggest import suggest_text
    from weightkit.reporting.text import encodable

    encoding = getattr(sys.stdout, "encoding", None)
    if out is not None:
        return encodable(suggest_text(report, out=out), encoding)
    sys.stderr.write(encodable(suggest_text(report), getattr(sys.stderr, "encoding", None)) + "\n")
    return encodable(str(report.facts["draft"]).rstrip("\n"), encoding)
