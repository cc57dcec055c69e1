"""``weightkit monitor``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING

import click

from weightkit.cli import options
from weightkit.cli.output import emit
from weightkit.errors import TransportError, Unauthenticated, UsageError

if TYPE_CHECKING:
    from weightkit.core.report import Report
    from weightkit.transports.base import Access

_LEAST_S, _LONGEST_S = 0.1, 3600.0


@click.command("monitor", short_help="how a running learner and its actors stand")
@click.argument("address", metavar="HOST:PORT")
@click.option("--every", type=float, default=1.0, metavar="S", help="Look again every S seconds, 1 where not given.")
@click.option("--once", is_flag=True, help="Print one table and end, as without a terminal.")
@options.access
@options.as_json
def command(address: str, every: float, once: bool, access: Access, as_json: bool) -> None:
    """Show a running learner and its actors, again and again until Ctrl-C. It only looks.

    The learner may go and come back meanwhile. Exit 1 where it cannot be reached at first. --json prints one Report.
    """
    from weightkit.verbs.live import monitor

    if once or as_json or not sys.stdout.isatty():
        emit("monitor", as_json, lambda: monitor(_checked(address, every), access=access), _text)
    else:
        _follow(_checked(address, every), every, access)


def _checked(address: str, every: float) -> str:
    if not _LEAST_S <= every <= _LONGEST_S:
        raise UsageError(f"--every {every:g}: expected seconds from {_LEAST_S:g} to {_LONGEST_S:g}")
    return address


def _text(report: Report) -> str:
    from weightkit.reporting.monitor import monitor_text
    from weightkit.reporting.text import encodable

    return encodable(monitor_text(report), sys.stdout.encoding)


def _follow(address: str, every_s: float, access: Access) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from weightkit.reporting.text import encodable
    from weightkit.transports import connect
    from weightkit.verbs.live import standing

    connection = connect(address, access=access)
    try:
        shown = tables(lambda: standing(address, connection.status()))
        first = next(shown)
        console = Console(highlight=False)

        def drawn(text: str) -> Text:
            return Text(encodable(text, console.encoding), no_wrap=True, overflow="crop")

        with Live(drawn(first), console=console, auto_refresh=False) as live:
            while True:
                sleep(every_s)
                live.update(drawn(next(shown)), refresh=True)
    finally:
        connection.close()


def tables(look: Callable[[], Report], *, clock: Callable[[], float] = monotonic) -> Iterator[str]:
    """One table after the other, without end. While ``look`` gets no answer the last one stays, and says so.

    Raises TransportError where there is no answer at first, and later where the learner refuses to give one.
    """
    from weightkit.reporting.monitor import monitor_text

    report, trouble, answered_at = look(), "", clock()
    while True:
        yield monitor_text(report, trouble=trouble)
        try:
            report, trouble, answered_at = look(), "", clock()
        except Unauthenticated:
            raise
        except TransportError as error:
            trouble = f"for {clock() - answered_at:.0f} s, this is from before: {error.message}"
