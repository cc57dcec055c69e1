"""``weightkit VERB ...``: the group, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import click

from weightkit.core.report import Finding, Report, Severity
from weightkit.core.text import printable
from weightkit.errors import UsageError, WeightkitError

VERBS: dict[str, str] = {
    "inspect": "what a checkpoint holds, without executing anything in it",
    "diff": "are the tensors of two checkpoints the same?",
    "convert": "a checkpoint's weights under another project's names, every tensor accounted for",
    "verify-sync": "does an actor get every tensor that its action reads?",
    "manifest": "write the sync manifest of a policy",
    "layouts": "list the layouts that convert knows",
    "formats": "list the file formats that are read and written",
}
EXIT_INTERNAL = 70
EXIT_INTERRUPTED = 130


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
    if arguments is None:  # all is written; the system takes the memory back faster than the interpreter would
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def run_command(command: click.Command, program: str, arguments: list[str] | None = None) -> None:
    """Run a click command; every error becomes one clear line and the exit code of contract and docs."""
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
            click.echo(_json(failure_report(verb, usage)))
        else:
            error.show()
        sys.exit(error.exit_code)
    except WeightkitError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("WEIGHTKIT_TRACEBACK"):
            raise
        click.echo(f"internal error: {type(error).__name__}: {printable(str(error))}", err=True)
        click.echo("hint: this is a fault of weightkit; WEIGHTKIT_TRACEBACK=1 shows where", err=True)
        sys.exit(EXIT_INTERNAL)


def print_error(error: WeightkitError) -> None:
    """The message and the hint on stderr, free of control characters."""
    lines = [f"error: {error.message}"] + ([f"hint: {error.hint}"] if error.hint else [])
    for line in "\n".join(lines).splitlines():
        click.echo(printable(line), err=True)


def emit(verb: str, as_json: bool, make: Callable[[], Report], text: Callable[[Report], str]) -> None:
    """Print the Report that ``make`` gives, as text or JSON, and exit with its code; with JSON also on failure."""
    try:
        report = make()
    except WeightkitError as error:
        if not as_json:
            raise
        report = failure_report(verb, error)
    except Exception as error:
        if not as_json or os.environ.get("WEIGHTKIT_TRACEBACK"):
            raise
        finding = Finding("WK900", Severity.ERROR, verb, f"internal error: {type(error).__name__}: {error}")
        report = Report(verb, (finding,), {}, EXIT_INTERNAL)
    if as_json:
        click.echo(_json(report))
    else:
        click.echo(text(report))
    if report.exit_code:
        sys.exit(report.exit_code)


def _json(report: Report) -> str:
    import json

    return json.dumps(report.to_dict(), indent=1, ensure_ascii=True)


def failure_report(verb: str, error: WeightkitError, facts: Mapping[str, Any] | None = None) -> Report:
    """The Report of a verb that could not do what was asked."""
    finding = Finding(error.code, Severity.ERROR, verb, error.message, error.hint)
    inner = getattr(error, "report", None)
    findings = (*inner.findings, finding) if isinstance(inner, Report) else (finding,)
    return Report(verb, findings, facts or {}, error.exit_code)


if __name__ == "__main__":
    main()
