"""The text of the lists of layouts and formats."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, table


def layouts_text(report: Report) -> str:
    """One line a layout, then the settings that are a layout's own, then what went wrong with a plugin."""
    facts: dict[str, Any] = dict(report.facts)
    rows: list[list[object]] = [["layout", "architecture", "whose names", "from"]]
    rows += [[r["name"], r["architecture"], r["title"], r["from"]] for r in facts["layouts"]]
    every = "each converts to and from every other of its architecture, where both can express the net"
    lines = [*table(rows), "", every]
    for row in facts["layouts"]:
        lines += [printable(f"  --to {row['name']} --set {key}=...: {what}") for key, what in row["options"].items()]
    if report.findings:
        lines += ["", *findings_text(report)]
    return "\n".join(lines)


def formats_text(report: Report) -> str:
    """One line a format."""
    facts: dict[str, Any] = dict(report.facts)
    rows: list[list[object]] = [["format", "endings", "read", "written", ""]]
    for r in facts["formats"]:
        rows.append([r["name"], " ".join(r["endings"]) or "-", "yes", _mark(r["written"]), r["description"]])
    return "\n".join(table(rows))


def _mark(value: bool) -> str:
    return "yes" if value else "no"
