"""The text of the lists of layouts and formats."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report
from weightkit.reporting.text import table


def layouts_text(report: Report) -> str:
    """One line a layout."""
    facts: dict[str, Any] = dict(report.facts)
    rows: list[list[object]] = [["layout", "architecture", "convert --from", "convert --to"]]
    rows += [[r["name"], r["architecture"], _mark(r["read"]), _mark(r["written"])] for r in facts["layouts"]]
    return "\n".join(table(rows))


def formats_text(report: Report) -> str:
    """One line a format."""
    facts: dict[str, Any] = dict(report.facts)
    rows: list[list[object]] = [["format", "endings", "read", "written", ""]]
    for r in facts["formats"]:
        rows.append([r["name"], " ".join(r["endings"]) or "-", "yes", _mark(r["written"]), r["description"]])
    return "\n".join(table(rows))


def _mark(value: bool) -> str:
    return "yes" if value else "no"
