"""Options that several verbs share."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import click

from weightkit.cli.output import emit
from weightkit.core.text import printable
from weightkit.errors import UsageError, WeightkitError

if TYPE_CHECKING:
    from weightkit.core.report import Report
    from weightkit.formats import Limits

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON Report, on failure too.")
config_path = click.option(
    "--config_path", "--config", type=click.Path(), metavar="F", help="A HIL-SERL style train_config.json."
)
set_values = click.option("--set", "set_values", multiple=True, metavar="K=V", help="Set a configuration key.")
adapt = click.option(
    "--adapt",
    multiple=True,
    metavar="PATTERN=ADAPTER",
    help="Reconcile target tensors that match, e.g. '*=inflate:newest'.",
)
drop = click.option("--drop", multiple=True, metavar="PATTERN", help="Leave out source tensors that match.")
allow_missing = click.option(
    "--allow-missing", multiple=True, metavar="PATTERN", help="Let target tensors that match go without a source."
)
force = click.option("--force", is_flag=True, help="Replace an existing output.")
arch = click.option("--arch", metavar="NAME", help="The architecture, where no configuration names it.")
policy = click.option(
    "--policy", metavar="PKG.MOD:FACTORY", help="Your own policy: factory() -> (policy, act, probes). Runs your code."
)


def limits(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options ``--limit`` and ``--max-bytes``: parameters ``limit`` and ``max_bytes``, for ``parse_limits``."""
    command = click.option(
        "--max-bytes", metavar="N", help="The same as --limit expanded_bytes=N, with k, M or G for thousands and so on."
    )(command)
    return click.option(
        "--limit", multiple=True, metavar="NAME=VALUE", help="Raise or lower a limit of the reader, e.g. wall_s=600."
    )(command)


def access(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options ``--tls``, ``--token-file`` and ``--insecure``: one parameter ``access``, an ``Access``."""

    @functools.wraps(command)
    def with_access(*args: Any, tls: str | None, token_file: str | None, insecure: bool, **options: Any) -> Any:
        from weightkit.transports import access_of

        try:
            given = access_of(tls, token_file, insecure)
        except WeightkitError as error:
            if not options.get("as_json"):
                raise
            _report_failure(error)
        return command(*args, access=given, **options)

    wrapped: Callable[..., Any] = click.option(
        "--insecure", is_flag=True, help="Plain text beyond this machine, on a network that you trust."
    )(with_access)
    wrapped = click.option(
        "--token-file", metavar="F", type=click.Path(), help="A file with the secret that every call carries."
    )(wrapped)
    return click.option(
        "--tls", metavar="DIR", type=click.Path(), help="Certificates, from weightkit-learner --make-certs DIR."
    )(wrapped)


def _report_failure(error: WeightkitError) -> NoReturn:
    """Print the one Report of a command that has not come to make its own, and exit."""

    def fail() -> Report:
        raise error

    verb = click.get_current_context().info_name or "weightkit"
    emit(verb.removeprefix("weightkit-"), True, fail, str)
    raise AssertionError("a Report of a failure ends the process")


def parse_limits(limit: Iterable[str], max_bytes: str | None) -> Limits | None:
    """The reader's limits with what was asked, None where nothing was. Raises UsageError."""
    asked = [(item, *item.partition("=")) for item in limit]
    if max_bytes is not None:
        asked.append((f"--max-bytes {max_bytes}", "expanded_bytes", "=", max_bytes))
    if not asked:
        return None
    from weightkit.formats import Limits

    defaults = Limits().as_dict()
    chosen: dict[str, Any] = {}
    for item, name, equals, text in asked:
        if name not in defaults:
            known = ", ".join(f"{key}={value}" for key, value in defaults.items())
            raise UsageError(
                f"--limit {printable(item)}: there is no limit {printable(name)!r}", hint=f"known: {known}"
            )
        found = _NUMBER.fullmatch(text) if equals else None
        value = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not 0 < value < _MOST:
            raise UsageError(f"--limit {printable(item)}: expected {name}=NUMBER, above 0, with k, M or G behind it")
        chosen[name] = value if isinstance(defaults[name], float) else int(value)
    return Limits().replace(**chosen)


_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kMG]?)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_MOST = 1e18
