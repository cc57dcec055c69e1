"""``weightkit verify-sync``."""

from __future__ import annotations

import click

from weightkit.cli import options
from weightkit.cli.output import emit


@click.command("verify-sync", short_help="does an actor get every tensor that its action reads?")
@options.arch
@options.policy
@options.config_path
@options.set_values
@click.option("--probes", metavar="FILE.npz", type=click.Path(), help="Observations to trace act() on.")
@click.option("--manifest", metavar="M.json", type=click.Path(), help="What the learner sends.")
@click.option("--payload", metavar="DUMP", type=click.Path(), help="A saved push: a dict of state_dicts.")
@options.as_json
def command(
    arch: str | None,
    policy: str | None,
    config_path: str | None,
    set_values: tuple[str, ...],
    probes: str | None,
    manifest: str | None,
    payload: str | None,
    as_json: bool,
) -> None:
    """Compare what act() reads with what a learner sends. Exit 0 only where every tensor has a sender."""
    from weightkit.reporting.sync import verify_sync_text
    from weightkit.verbs.configure import parse_settings
    from weightkit.verbs.verify_sync import verify_sync

    if policy is not None:
        click.echo(f"--policy {policy}: runs your own code", err=True)
    emit(
        "verify-sync",
        as_json,
        lambda: verify_sync(
            arch=arch,
            policy=policy,
            config_path=config_path,
            settings=parse_settings(set_values),
            probes=probes,
            manifest=manifest,
            payload=payload,
        ),
        verify_sync_text,
    )
