"""The text of a convert Report."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report, Severity
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, fold, table


def convert_text(report: Report) -> str:
    """Answer first: what became of every tensor, by group, and where the file is."""
    facts: dict[str, Any] = dict(report.facts)
    if not report.ok:
        lines = [f"REFUSED  {printable(facts['path'])} -> {facts['target_layout']}: nothing was written", ""]
        return "\n".join([*lines, *findings_text(report), "", printable(facts["message"])])
    verb = "planned, nothing was written" if facts["out"] is None else f"written: {facts['out']}"
    layout = facts["source_layout"] or "unknown layout"
    lines = [
        f"{printable(facts['path'])} ({layout}) -> {facts['target_layout']}, {printable(verb)}",
        "every tensor accounted for:",
        "  {} source names = {} used + {} second names + {} dropped".format(
            facts["source_tensors"], len(facts["rows"]), len(facts["second_names"]), len(facts["dropped"])
        ),
        "  {} target tensors = {} made + {} left out".format(
            facts["target_tensors"], len(facts["rows"]), len(facts["left_out"])
        ),
        "",
    ]
    rows: list[list[object]] = [["group", "tensors", "adapted", "left out", "parameters"]]
    for name, group in facts["groups"].items():
        rows.append([name, group["tensors"], group["adapted"], group["left_out"], f"{group['parameters']:,}"])
    lines += table(rows, right=(1, 2, 3, 4))
    if facts["not_carried"]:
        beside = printable(", ".join(facts["not_carried"]))
        lines += ["", f"not carried over: {beside} (beside the tensors in the source)"]
    lines += _reasons("dropped", facts["dropped"])
    lines += _reasons("second name", {name: f"{item['why']}" for name, item in facts["second_names"].items()})
    notes = findings_text(report, least=Severity.INFO)
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _reasons(word: str, reasons: dict[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    lines = []
    for why, names in by_reason.items():
        lines += ["", f"{word}: {len(names)} ({printable(why)})", *(f"  {printable(text)}" for text in fold(names))]
    return lines
