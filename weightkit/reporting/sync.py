"""The text of verify-sync and manifest Reports."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, size, table

_WIDTH = 80


def verify_sync_text(report: Report) -> str:
    """PASS or FAIL first, against what, then the groups, then what is wrong."""
    facts: dict[str, Any] = dict(report.facts)
    groups = facts["groups"]
    read = [g for g in groups if g["read"]]
    covered = [g for g in read if g["offered"]]
    word = "PASS" if report.ok else "FAIL"
    if facts["pushed"]:
        tensors, there = (sum(g["read"] for g in some) for some in (read, covered))
        sentence = f"act() reads {_counted(tensors, 'tensor')}; the push holds {there} of them"
    else:
        sentence = f"the actor reads {_counted(len(read), 'group')}; the learner sends {len(covered)}"
    against = printable(facts["against"])
    head = [f"{word}  {against}: {sentence}"]
    if len(head[0]) > _WIDTH:
        head = [f"{word}  {sentence}", f"      {against}"]
    return "\n".join([*head, "", *groups_table(groups), *_notes(report)])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def manifest_text(report: Report) -> str:
    """Where the manifest is, its groups, its id."""
    facts: dict[str, Any] = dict(report.facts)
    head = f"written: {printable(facts['out'])}" if report.ok else "REFUSED  nothing was written"
    lines = [head, f"manifest_id {facts['manifest_id']}", f"a push is {size(facts['payload_bytes'])}", ""]
    return "\n".join([*lines, *groups_table(facts["groups"]), *_notes(report)])


def groups_table(groups: list[dict[str, Any]]) -> list[str]:
    """Group, how many of its tensors act() reads, how many are offered, transfer, bytes a push."""
    rows: list[list[object]] = [["group", "read by act()", "offered", "transfer", "a push"]]
    for g in groups:
        read = f"{g['read']} of {g['tensors']}"
        rows.append([g["name"] or "(nobody)", read, g["offered"], g["transfer"] or "-", size(g["bytes"])])
    return table(rows, right=(1, 2, 4))


def _notes(report: Report) -> list[str]:
    notes = findings_text(report, width=_WIDTH)
    return ["", *notes] if notes else []
