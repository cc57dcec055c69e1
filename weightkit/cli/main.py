"""``weightkit VERB ...``: the group, as click commands."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from weightkit.cli.output import EXIT_INTERRUPTED, failure_report, guarded, leave, report_json
from weightkit.core.text import printable
from weightkit.errors import UsageError

__all__ = ["VERBS", "cli", "main", "run_command"]

VERBS: dict[str, str] = {
    "inspect": "what a checkpoint holds, without executing anything in it",
    "diff": "are the tensors of two checkpoints the same?",
    "convert": "a checkpoint's weights under another project's names, every tensor accounted for",
    "verify-outputs": "do two policies do the same on the same observations?",
    "suggest": "draft a mapping to a layout, or to what another file holds",
    "lint": "is a mapping sound by itself?",
    "verify-sync": "does an actor get every tensor that its action reads?",
    "monitor": "how a running learner and its actors stand",
    "manifest": "write the sync manifest of a policy",
    "layouts": "list the layouts that convert knows",
    "formats": "list the file formats that are read and written",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that --help stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = import_module(f"weightkit.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="weightkit")
def cli() -> None:
    """Move robot-policy weights between projects, and prove that nothing on the acting path was lost."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    run_command(cli, "weightkit", arguments)
    if arguments is None:
        leave()


def run_command(command: click.Command, program: str, arguments: list[str] | None = None) -> None:
    """Run a click command; every error becomes one clear line and the exit code of contract and docs."""

    def run() -> None:
        try:
            command.main(args=arguments, prog_name=program, standalone_mode=False)
        except click.exceptions.Abort:
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except click.ClickException as error:
            words = sys.argv[1:] if arguments is None else arguments
            if "--json" in words:
                verb = next((word for word in words if word in VERBS), program)
                usage = UsageError(error.format_message(), hint=f"see {program} --help")
                click.echo(report_json(failure_report(verb, usage)))
            else:
                context = getattr(error, "ctx", None)
                if context is not None:
                    click.echo(context.get_usage(), err=True)
                click.echo(f"Error: {printable(error.format_message(), longest=2000)}", err=True)
            sys.exit(error.exit_code)

    guarded(run)


if __name__ == "__main__":
    main()
