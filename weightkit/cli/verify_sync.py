"""``weightkit verify-sync``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from weightkit.cli import options
from weightkit.cli.output import emit
from weightkit.core.text import printable
from weightkit.errors import UsageError

if TYPE_CHECKING:
    from weightkit.core.report import Report
    from weightkit.transports.base import Access, ActorStatus


@click.command("verify-sync", short_help="does an actor get every tensor that its action reads?")
@options.arch
@options.policy
@options.config_path
@options.set_values
@click.option("--probes", metavar="FILE.npz", type=click.Path(), help="Observations to trace act() on.")
@click.option("--manifest", metavar="M.json", type=click.Path(), help="What the learner sends.")
@click.option("--payload", metavar="DUMP", type=click.Path(), help="A saved push: a dict of state_dicts.")
@click.option("--live", metavar="HOST:PORT", help="Ask the actors of a running learner what they hold.")
@click.option("--scramble", is_flag=True, help="With --live: overwrite their weights with noise before, to come again.")
@click.option("--yes", is_flag=True, help="With --scramble: do not ask before.")
@click.option("--force", is_flag=True, help="With --scramble: also actors that are not declared simulated.")
@options.access
@options.as_json
def command(
    arch: str | None,
    policy: str | None,
    config_path: str | None,
    set_values: tuple[str, ...],
    probes: str | None,
    manifest: str | None,
    payload: str | None,
    live: str | None,
    scramble: bool,
    yes: bool,
    force: bool,
    access: Access,
    as_json: bool,
) -> None:
    """Compare what act() reads with what a learner sends. Exit 0 only where every tensor has a sender.

    With --live: compare what each actor of a running learner holds with what was published. Exit 0 only where every
    connected actor holds exactly the version that it says.
    """
    from weightkit.reporting.sync import verify_sync_text
    from weightkit.verbs.configure import parse_settings
    from weightkit.verbs.verify_sync import verify_sync

    offline = {
        "--arch": arch,
        "--policy": policy,
        "--config_path": config_path,
        "--set": set_values,
        "--probes": probes,
        "--manifest": manifest,
        "--payload": payload,
    }
    online = {
        "--scramble": scramble,
        "--yes": yes,
        "--force": force,
        "--tls": access.tls,
        "--token-file": access.token,
        "--insecure": access.insecure,
    }
    if live is not None:
        given = [option for option, value in offline.items() if value]
        emit("verify-sync", as_json, lambda: _live(live, given, scramble, yes, force, access), _live_text)
        return
    if policy is not None:
        click.echo(f"--policy {policy}: runs your own code", err=True)

    def make() -> Report:
        _refuse([option for option, value in online.items() if value], "only with --live HOST:PORT")
        return verify_sync(
            arch=arch,
            policy=policy,
            config_path=config_path,
            settings=parse_settings(set_values),
            probes=probes,
            manifest=manifest,
            payload=payload,
        )

    emit("verify-sync", as_json, make, verify_sync_text)


def _refuse(given: Sequence[str], why: str) -> None:
    if given:
        raise UsageError(f"{', '.join(given)}: {why}")


# ---- a running learner


def _live(address: str, given: Sequence[str], scramble: bool, yes: bool, force: bool, access: Access) -> Report:
    from weightkit.verbs.live import verify_live

    _refuse(given, "not with --live, which asks the learner itself")
    if not scramble:
        _refuse([option for option, value in (("--yes", yes), ("--force", force)) if value], "only with --scramble")
    if scramble and not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("--scramble stops actors, and there is no terminal to ask at", hint="say --yes")
    return verify_live(
        address,
        access=access,
        scramble=scramble,
        force=force,
        agree=None if yes else _agree,
        say=_say if sys.stderr.isatty() else None,
    )


def _agree(actors: Sequence[ActorStatus]) -> bool:
    """Whether the person at the terminal wants it."""
    click.echo("the weights of these actors are going to be overwritten with noise:", err=True)
    for actor in actors:
        kind = "simulated" if actor.simulated else "NOT declared simulated: something real may move"
        click.echo(f"  {printable(actor.actor_id, longest=60)}  ({kind})", err=True)
    click.echo("each stops acting until its weights have been sent again and verified", err=True)
    return click.confirm("go on?", err=True)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _live_text(report: Report) -> str:
    from weightkit.reporting.live import verify_live_text
    from weightkit.reporting.text import encodable

    return encodable(verify_live_text(report), sys.stdout.encoding)
