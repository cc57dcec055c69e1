"""The text of a convert Report."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report, Severity
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, fold, table

_MOST_GROUPS = 40
_MOST_VALUES = 12


def convert_text(report: Report) -> str:
    """Answer first: what became of every tensor, by group, and where the file is."""
    facts: dict[str, Any] = dict(report.facts)
    if not report.ok:
        lines = [f"REFUSED  {printable(facts['path'])} -> {printable(facts['target_layout'])}: nothing was written", ""]
        return "\n".join([*lines, *findings_text(report), "", printable(facts["message"])])
    saved = f"plan saved: {facts['plan']}" if facts["plan"] is not None else "nothing was written"
    verb = f"written: {facts['out']}" if facts["out"] is not None else f"planned, {saved}"
    layout = facts["source_layout"] or "unknown layout"
    again = f" + {len(facts['repeated'])} repeated" if facts["repeated"] else ""
    lines = [
        f"{printable(facts['path'])} ({layout}) -> {printable(facts['target_layout'])}, {printable(verb)}",
        "every tensor accounted for:",
        "  {} source names = {} used + {} second names + {} dropped".format(
            facts["source_tensors"], facts["used"], len(facts["second_names"]), len(facts["dropped"])
        ),
        "  {} target tensors = {} made{} + {} left out".format(
            facts["target_tensors"], len(facts["rows"]), again, len(facts["left_out"])
        ),
    ]
    if facts["out"] is None:
        lines.append(f"class {facts['class']} ({facts['strictness']}), {facts['peak_bytes']:,} bytes of arrays at most")
    lines.append("")
    shown = dict(sorted(facts["groups"].items(), key=lambda item: -item[1]["parameters"])[:_MOST_GROUPS])
    hidden = len(facts["groups"]) - len(shown)
    if not hidden:
        shown = facts["groups"]
    rows: list[list[object]] = [["group", "tensors", "adapted", "left out", "parameters"]]
    for name, group in shown.items():
        rows.append([name, group["tensors"], group["adapted"], group["left_out"], f"{group['parameters']:,}"])
    lines += table(rows, right=(1, 2, 3, 4))
    if hidden:
        lines.append(f"and {hidden:,} smaller groups; --json lists all")
    if facts["not_carried"]:
        beside = ", ".join(printable(text) for text in fold(facts["not_carried"])[:_MOST_VALUES])
        more = len(fold(facts["not_carried"])) - _MOST_VALUES
        beside += f" and {more} more" if more > 0 else ""
        lines += ["", f"not carried over: {beside} (beside the tensors in the source)"]
    lines += _reasons("dropped", facts["dropped"])
    lines += _reasons("second name", {name: f"{item['why']}" for name, item in facts["second_names"].items()})
    lines += _outputs(facts.get("function_check"))
    lines += _handed(facts.get("conventions"))
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


def _outputs(check: dict[str, Any] | None) -> list[str]:
    """What the comparison of outputs gave, in a line."""
    if check is None:
        return []
    if check["verdict"] != "equal":
        return ["", f"outputs: {check['why']}"]
    found = ", ".join(f"{output} {difference:.2g}" for output, difference in check["outputs"].items())
    return ["", f"outputs: {check['why']} ({found}); fresh weights and a permuted layer were told apart"]


def _handed(conventions: dict[str, Any] | None) -> list[str]:
    """What the source's project hands to the policy, and the target's where that is another: no tensor says it."""
    if not conventions:
        return []
    sides = list(conventions.values())
    lines = []
    for found in sides[:1] if len(sides) > 1 and _same(sides) else sides:
        lines += ["", f"what code around {found['layout']} hands in and takes out:"]
        lines += [f"  {what:<7} {found[what]}" for what in ("images", "state", "action")]
    return lines


def _same(sides: list[dict[str, Any]]) -> bool:
    return {**sides[0], "layout": ""} == {**sides[1], "layout": ""}
