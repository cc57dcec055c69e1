"""The text of a verify-sync Report about a running learner."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, table

WIDTH = 80
_MOST_NAME = 20


def verify_live_text(report: Report) -> str:
    """PASS or FAIL first, of which learner and version, then actors with their groups, then what is wrong."""
    facts: dict[str, Any] = dict(report.facts)
    lines = [*_head(report, facts), f"      {_version(facts)}"]
    if facts["actors"]:
        lines += ["", *_actors(facts["actors"])]
    if facts["scramble"] and any(actor["scrambled"] for actor in facts["actors"]):
        lines += ["", *_scrambled(facts["actors"])]
    if facts["pinned"]:
        pinned = ", ".join(short(name) for name in facts["pinned"])
        lines += ["", f"pinned, compared only when an actor connects: {pinned}"]
    notes = findings_text(report, width=WIDTH)
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _head(report: Report, facts: dict[str, Any]) -> list[str]:
    word = "PASS" if report.ok else "FAIL"
    connected, holding = facts["connected"], facts["holding"]
    which = f"{holding} of {connected} connected actor{'' if connected == 1 else 's'}"
    one = 1 in (holding, connected)
    if not connected:
        sentence = "no actor is connected"
    elif facts["scramble"]:
        sentence = f"{which} {'was' if one else 'were'} scrambled and got every tensor back"
    else:
        sentence = f"{which} {'holds' if one else 'hold'} exactly what was published"
    head = f"{word}  {printable(facts['live'])}: {sentence}"
    return [head] if len(head) <= WIDTH else [f"{word}  {sentence}", f"      {printable(facts['live'])}"]


def _version(facts: dict[str, Any]) -> str:
    run = f"run {printable(facts['run_id'])[:8]}"
    if not facts["newest"]:
        return f"{run}: nothing has been published yet"
    return f"{run}, version {facts['newest']} (learner step {facts['learner_step']}), published {ago(facts['age_s'])}"


def _actors(actors: list[dict[str, Any]]) -> list[str]:
    rows: list[list[object]] = [["actor", "version", "lag", "group", "tensors equal"]]
    for actor in actors:
        who = [short(actor["actor"]), actor["version"] or "-", actor["lag"]]
        if actor["unanswered"]:
            rows.append([*who, "-", "no answer" if actor["connected"] else "not connected"])
        for group in actor["groups"]:
            rows.append([*who, short(group["name"]), f"{group['equal']} of {group['tensors']}"])
            who = ["", "", ""]
    return table(rows, right=(1, 2))


def _scrambled(actors: list[dict[str, Any]]) -> list[str]:
    rows: list[list[object]] = [["actor", "scrambled", "restored", "golden probe"]]
    for actor in actors:
        if actor["scrambled"]:
            probe = "same action" if actor["probe_ok"] else "not compared"
            rows.append([short(actor["actor"]), actor["scrambled"], actor["restored"], probe])
    return table(rows, right=(1, 2))


def short(name: str, longest: int = _MOST_NAME) -> str:
    """A name from a peer, fit for a terminal and for a column."""
    name = printable(name)
    return name if len(name) <= longest else f"{name[: longest - 3]}..."


def ago(seconds: float | None) -> str:
    """How long it is since: ``0.8 s ago``, ``12 min ago``."""
    if seconds is None:
        return "at an unknown time"
    for limit, unit, of in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / of:.{int(seconds < 10)}f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"
