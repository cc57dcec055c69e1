"""``python -m weightkit_runners.templates``: write a configuration to start from."""

from __future__ import annotations

from pathlib import Path

import click

from weightkit.cli.main import run_command
from weightkit_runners.templates import TEMPLATES, write_template


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", type=click.Choice(list(TEMPLATES)), default="hilserl_drqv2")
@click.option("-o", "--out", type=click.Path(), help="Where to write it.  [default: outputs/NAME/train_config.json]")
@click.option("--pretrained", metavar="FILE", help="Pretrained weights to start from.")
@click.option("--keep", is_flag=True, help="Leave an existing file as it is.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def command(name: str, out: str | None, pretrained: str | None, keep: bool, force: bool) -> None:
    """Write the configuration NAME as a train_config.json."""
    path = Path(out) if out else Path("outputs") / name / "train_config.json"
    if keep and path.exists():
        click.echo(f"kept: {path}")
        return
    click.echo(f"written: {write_template(name, path, pretrained=pretrained, force=force)}")


if __name__ == "__main__":
    run_command(command, "python -m weightkit_runners.templates")
