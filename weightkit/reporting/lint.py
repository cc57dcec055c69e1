"""The text of a lint Report."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text


def lint_text(report: Report) -> str:
    """Answer first: whether the mapping is sound, then each fault with a name that shows it."""
    facts: dict[str, Any] = dict(report.facts)
    if "rules" not in facts:
        return "\n".join(findings_text(report))
    errors = len(report.errors())
    verdict = "sound" if report.ok else f"{errors} fault{'s' if errors > 1 else ''}"
    head = f"{printable(facts['name'])} version {facts['version']}: {verdict}"
    about = f"{facts['rules']} rules from {printable(facts['source_layout'])} to {printable(facts['target_layout'])}"
    notes = findings_text(report)
    return "\n".join([head, about, *(["", *notes] if notes else [])])
