"""The text of a suggest Report."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report, Severity
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, fold, table

_MOST_ROWS = 40
_MOST_FOLDED = 3


def suggest_text(report: Report, *, out: str | None = None) -> str:
    """Answer first: how many tensors are paired and how surely; then the pairs, worst first; then what is left."""
    facts: dict[str, Any] = dict(report.facts)
    lines = [_answer(facts)]
    lines.append(f"  source  {printable(facts['source']['path'])}")
    lines.append(f"  target  {printable(facts['target']['layout'] or facts['target']['path'])}")
    if out is not None:
        lines.append(f"  draft   {printable(out)}: decide what stands in comments before `weightkit convert --map`")
    pairs = sorted(facts["pairs"], key=lambda pair: pair["confidence"])
    rows = [*facts["ambiguous"], *pairs]
    if rows:
        shown = [_row(pair) for pair in rows[:_MOST_ROWS]]
        lines += ["", *table([("confidence", "source", "target", "evidence"), *shown], right=(0,))]
        if len(rows) > _MOST_ROWS:
            lines.append(f"... and {len(rows) - _MOST_ROWS:,} more, surer ones; --json lists all")
    for words, names in (
        ("without a target", facts["unmatched_source"]),
        ("without a source", facts["unmatched_target"]),
    ):
        if names:
            lines += ["", f"{words}: {len(names):,}", *(f"  {printable(text, longest=4000)}" for text in fold(names))]
    told = {"WK201", "WK202"}
    rest = tuple(finding for finding in report.findings if finding.code not in told)
    notes = findings_text(Report(report.verb, rest), least=Severity.INFO)
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _answer(facts: dict[str, Any]) -> str:
    counts, tensors = facts["counts"], facts["target"]["tensors"]
    said = [f"SUGGESTED {counts['sure']:,} of {tensors:,} tensor{'' if tensors == 1 else 's'} (>= 0.9)"]
    said += [f"{counts[key]:,} {words}" for key, words in (("unsure", "less sure"), ("ambiguous", "ambiguous"))]
    said.append(f"{counts['unmatched_source'] + counts['unmatched_target']:,} without a partner")
    return ", ".join(said)


def _row(pair: dict[str, Any]) -> tuple[str, str, str, str]:
    if pair["standing"] != "ambiguous":
        target = pair["target"]
    else:
        target = " | ".join(pair["candidates"][:_MOST_FOLDED])
        target += " | ..." if len(pair["candidates"]) > _MOST_FOLDED else ""
    certainty = "ambiguous" if pair["standing"] == "ambiguous" else f"{pair['confidence']:.3f}"
    return (certainty, pair["source"], target, "; ".join(pair["evidence"]))
