"""The text of verify-sync and manifest Reports."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, size, table


def verify_sync_text(report: Report) -> str:
    """PASS or FAIL first, against what, then the groups, then what is wrong."""
    facts: dict[str, Any] = dict(report.facts)
    groups = facts["groups"]
    read = [g for g in groups if g["read"]]
    covered = [g for g in read if g["offered"]]
    word = "PASS" if report.ok else "FAIL"
    against = printable(facts["against"])
    sentence = f"the actor reads {len(read)} groups; the learner sends {len(covered)} of them"
    return "\n".join([f"{word}  {against}: {sentence}", "", *groups_table(groups), *_notes(report)])


def manifest_text(report: Report) -> str:
    """Where the manifest is, its groups, its id."""
    facts: dict[str, Any] = dict(report.facts)
    head = f"written: {printable(facts['out'])}" if report.ok else "REFUSED  nothing was written"
    lines = [head, f"manifest_id {facts['manifest_id']}", f"a push is {size(facts['payload_bytes'])}", ""]
    return "\n".join([*lines, *groups_table(facts["groups"]), *_notes(report)])


def groups_table(groups: list[dict[str, Any]]) -> list[str]:
    """Group, tensors read by act(), offered, transfer, bytes a push."""
    rows: list[list[object]] = [["group", "tensors", "read by act()", "offered", "transfer", "bytes a push"]]
    for g in groups:
        rows.append(
            [g["name"] or "(nobody)", g["tensors"], g["read"], g["offered"], g["transfer"] or "-", size(g["bytes"])]
        )
    return table(rows, right=(1, 2, 3, 5))


def _notes(report: Report) -> list[str]:
    notes = findings_text(report)
    return ["", *notes] if notes else []
