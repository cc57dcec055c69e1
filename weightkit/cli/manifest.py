"""``weightkit manifest``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.output import emit


@click.command("manifest", short_help="write the sync manifest of a policy")
@options.arch
@options.policy
@options.config_path
@options.set_values
@click.option("-o", "--out", metavar="M.json", type=click.Path(), required=True, help="Where to write it.")
@options.force
@options.as_json
def command(
    arch: str | None,
    policy: str | None,
    config_path: str | None,
    set_values: tuple[str, ...],
    out: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write which tensors travel, are pinned or stay, proven to cover what act() reads."""
    from weightkit.reporting.sync import manifest_text
    from weightkit.verbs.configure import parse_settings
    from weightkit.verbs.manifest import write_manifest

    if policy is not None:
        click.echo(f"--policy {policy}: runs your own code", err=True)
    emit(
        "manifest",
        as_json,
        lambda: write_manifest(
            out,
            arch=arch,
            policy=policy,
            config_path=config_path,
            settings=parse_settings(set_values),
            force=force,
        ),
        manifest_text,
    )
