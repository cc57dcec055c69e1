"""The text of a comparison of two policies' outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weightkit.core.report import Report
from weightkit.reporting.text import findings_text, table


def outputs_text(report: Report) -> str:
    """The verdict, a line for each output and control, and what was noted."""
    facts: dict[str, Any] = dict(report.facts)
    if "verdict" not in facts:
        return "\n".join(findings_text(report))
    word = {"equal": "EQUAL", "different": "DIFFERENT", "blind": "BLIND"}[facts["verdict"]]
    lines = [f"{word}  {facts['path_a']} against {facts['path_b']}: {facts['why']}", ""]
    kinds: Mapping[str, Mapping[str, object]] = facts["kinds"]
    outputs = list(next(iter(kinds.values()), {}))
    rows: list[list[object]] = [["largest |difference|", *outputs]]
    rows += [[f"{kind} observations", *(_number(found.get(o)) for o in outputs)] for kind, found in kinds.items()]
    rows.append(["allowed", *(_number(facts["limits"].get(output)) for output in outputs)])
    for control, found in facts["controls"].items():
        what = {"fresh": "control: fresh weights", "permuted": "control: a permuted layer"}[control]
        rows.append([what, *(_number(found.get(output)) for output in outputs)])
    lines += table(rows)
    lines += ["", *(f"note: {note}" for note in facts["notes"])] if facts["notes"] else []
    if report.findings:
        lines += ["", *findings_text(report)]
    return "\n".join(lines)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)
