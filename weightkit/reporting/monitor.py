"""The text of a monitor Report: a learner and its actors as a table of 80 columns."""

from __future__ import annotations

import textwrap
from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.live import WIDTH, ago, short
from weightkit.reporting.text import table

_LEAST_NAME = 8
_HEADING: list[object] = ["actor", "here", "version", "lag", "path", "pause ms", "MB sent", "nacks", "probe", "sim"]


def monitor_text(report: Report, *, trouble: str = "") -> str:
    """The learner, what it counts, a line for each actor. ``trouble``: why the Report is not of now."""
    facts: dict[str, Any] = dict(report.facts)
    actors = facts["actors"]
    here = sum(actor["connected"] for actor in actors)
    lines = [*_wrapped(f"{printable(facts['address'])}  {_version(facts)}")]
    lines += _wrapped(f"actors connected: {here} of {len(actors)}, {_refused(facts['refused'])}; {_counts(facts)}")
    if trouble:
        lines += _wrapped(f"NO ANSWER  {printable(trouble)}")
    return "\n".join([*lines, *(["", *_table(actors)] if actors else [])])


def _version(facts: dict[str, Any]) -> str:
    run = f"run {printable(facts['run_id'])[:8]}"
    if not facts["newest"]:
        return f"{run}, nothing published yet"
    return f"{run}, version {facts['newest']}, learner step {facts['learner_step']}, published {ago(facts['age_s'])}"


def _refused(number: int) -> str:
    return f"{number} publish{'' if number == 1 else 'es'} refused"


def _counts(facts: dict[str, Any]) -> str:
    """What is counted and is not zero."""
    said = [f"{printable(name)} {_number(count)}" for name, count in facts["counts"].items() if count != 0]
    return f"counted: {', '.join(said)}" if said else "nothing turned away"


def _number(count: float | None) -> str:
    if count is None:
        return "?"
    return str(count) if isinstance(count, int) else f"{count:g}"


def _table(actors: list[dict[str, Any]]) -> list[str]:
    rows = [_HEADING, *(_row(actor) for actor in actors)]
    others = sum(2 + max(len(str(row[i])) for row in rows) for i in range(1, len(_HEADING)))
    longest = max(_LEAST_NAME, WIDTH - others)
    return table([[short(str(row[0]), longest), *row[1:]] for row in rows], right=(2, 3, 5, 6, 7))


def _row(actor: dict[str, Any]) -> list[object]:
    acts = bool(actor["version"])
    return [
        actor["actor"],
        "yes" if actor["connected"] else "no",
        actor["version"] if acts else "-",
        actor["lag"],
        {"shared memory": "shared", "": "-"}.get(actor["path"]) or short(actor["path"], 6),
        "-" if actor["apply_ms"] is None or not acts else f"{actor['apply_ms']:.1f}",
        f"{actor['sent_bytes'] / 1e6:.1f}",
        actor["nacks"],
        "yes" if actor["probe_ok"] else "no",
        "yes" if actor["simulated"] else "no",
    ]


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
