"""The text of an inspect Report."""

from __future__ import annotations

from weightkit.core.report import Report, Severity
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, fold, size, table
from weightkit.reporting.tree import tree_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERDICT = {
    "data": "data: plain tensors and values",
    "opaque": "opaque: holds objects of classes that are unknown here, read as data",
    "unsafe": "UNSAFE: another loader would execute something in this file",
    None: "data: this format cannot hold code",
}
_MOST_GROUPS = 20
_MOST_BESIDE = 12
_MOST_ROWS = 400


def inspect_text(report: Report, *, flat: bool = False, tensors: bool = True, ascii_only: bool = False) -> str:
    """Answer first: what the file is, how sure and why; then verdict, groups, tensors (unless left out), findings.

    ``flat``: one line a tensor, nothing folded.
    """
    facts: dict[str, Any] = dict(report.facts)
    listed = facts["tensors"]
    lines = [*_head(facts), "", *_groups(facts["groups"])]
    if facts["normalisation"]:
        lines += ["", *_normalisation(facts["normalisation"])]
    if tensors:
        lines += ["", *(_flat(facts) if flat else _tree(facts, ascii_only))]
    if "looked_at" in facts:
        lines += ["", *_statistics(listed, flat)]
    notes = findings_text(report, least=Severity.INFO)
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _head(facts: dict[str, Any]) -> list[str]:
    path, listed, architecture = printable(facts["path"]), facts["tensors"], facts["architecture"]
    if architecture is None:
        lines = [f"{path}: {facts['format']} file of no architecture that is known here"]
    else:
        lines = [f"{path}: {architecture['title']} ({architecture['confidence']}), layout {architecture['layout']}"]
        lines += [f"  because  {printable(item)}" for item in architecture["evidence"]]
    groups = facts["groups"].values()
    aliases = sum(group["aliases"] for group in groups)
    parameters = sum(group["parameters"] for group in groups)
    buffers = sum(group["buffers"] for group in groups)
    root = f", below {printable(facts['root'])!r}" if facts["root"] else ""
    beside = f" and {buffers:,} values in buffers" if buffers else ""
    lines += [
        f"verdict  {_VERDICT[facts['verdict']]}",
        f"tensors  {len(listed):,} names{root}, {aliases:,} of them aliases; {parameters:,} parameters{beside}",
    ]
    if facts["buffers"] and architecture is not None:
        shown = fold(name for name in facts["buffers"][:_MOST_ROWS])
        lines.append(f"buffers  {_some(shown, '  ')}")
    if "looked_at" in facts:
        lines.append(_numbers_line(listed, facts["looked_at"]))
    if facts["metadata"]:
        lines.append(f"beside   {_some(facts['metadata'], ', ')}")
    return lines


def _some(words: list[str], joint: str) -> str:
    shown = joint.join(printable(word) for word in words[:_MOST_BESIDE])
    return shown if len(words) <= _MOST_BESIDE else f"{shown}{joint}... and {len(words) - _MOST_BESIDE:,} more"


def _groups(groups: dict[str, dict[str, int]]) -> list[str]:
    keys = ["tensors", "aliases", "parameters", "buffers"]
    if not any(group["buffers"] for group in groups.values()):
        keys.remove("buffers")
    shown = dict(groups)
    if len(groups) > _MOST_GROUPS + 1:
        rest = list(groups)[_MOST_GROUPS:]
        shown = {name: groups[name] for name in list(groups)[:_MOST_GROUPS]}
        total = {key: sum(groups[name][key] for name in rest) for key in (*keys, "nbytes")}
        shown[f"... and {len(rest):,} more groups"] = total
    rows: list[list[object]] = [["group", *keys, "bytes"]]
    for name, group in shown.items():
        rows.append([name, *(f"{group[key]:,}" for key in keys), size(group["nbytes"])])
    return table(rows, right=range(1, len(rows[0])))


def _tree(facts: dict[str, Any], ascii_only: bool) -> list[str]:
    architecture = facts["architecture"]
    title = architecture["title"] if architecture else facts["root"] or "all tensors"
    return tree_lines(facts["tensors"], title=title, buffers=frozenset(facts["buffers"]), ascii_only=ascii_only)


def _flat(facts: dict[str, Any]) -> list[str]:
    buffers = frozenset(facts["buffers"])
    rows: list[list[object]] = [["tensor", "dtype", "shape", "bytes", ""]]
    for t in facts["tensors"]:
        notes = [t["kind"]] if "kind" in t else []
        notes += ["buffer"] if t["name"] in buffers else []
        notes += [f"= {t['alias_of']}"] if t["alias_of"] is not None else []
        rows.append([t["name"], t["dtype"], t["shape"], f"{t['nbytes']:,}", ", ".join(notes)])
    return table(rows, right=(3,))


def _normalisation(sets: list[dict[str, Any]]) -> list[str]:
    """Feature, its statistics, where they lie; with --stats the numbers where they are few."""
    rows: list[list[object]] = [["normalisation", "statistics", "shape", "tensors"]]
    alike: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for one in sets:
        alike.setdefault((one["feature"], tuple(one["tensors"]), tuple(one["shape"])), []).append(one)
    values: list[str] = []
    for (feature, statistics, shape), same in list(alike.items())[:_MOST_ROWS]:
        assert isinstance(statistics, tuple)
        assert isinstance(shape, tuple)
        names = "  ".join(text for one in same for text in fold(one["tensors"].values()))
        rows.append([feature, " ".join(statistics), list(shape), names])
        for one in same:
            for statistic, numbers in one.get("values", {}).items():
                shown = " ".join("NaN" if x is None else f"{x:.4g}" for x in numbers)
                values.append(f"  {printable(one['tensors'][statistic])}: {shown}")
    lines = table(rows)
    if len(alike) > _MOST_ROWS:
        lines.append(f"... and {len(alike) - _MOST_ROWS:,} more; --json lists them")
    return [*lines, *values]


def _statistics(tensors: list[dict[str, Any]], flat: bool) -> list[str]:
    """What the numbers of each tensor are like; of very many those that hold something odd come first."""
    seen = [t for t in tensors if "stats" in t]
    shown = seen
    if len(seen) > _MOST_ROWS and not flat:
        shown = sorted(seen, key=lambda t: not _oddities(t["stats"]))[:_MOST_ROWS]
    rows: list[list[object]] = [["numbers", "mean", "std", "min", "max", ""]]
    for t in shown:
        stats = t["stats"]
        numbers = ["-" if stats[key] is None else f"{stats[key]:.4g}" for key in ("mean", "std", "min", "max")]
        rows.append([t["name"], *numbers, ", ".join(_oddities(stats))])
    lines = table(rows, right=(1, 2, 3, 4))
    if len(shown) < len(seen):
        lines.append(f"... and {len(seen) - len(shown):,} more tensors; --flat lists them")
    return lines


def _numbers_line(tensors: list[dict[str, Any]], looked_at: dict[str, Any]) -> str:
    """What was found among the numbers of all tensors, and whether it was asked to be absent."""
    seen = [t["stats"] for t in tensors if "stats" in t]
    words = {"nan": "with NaN", "inf": "with Inf", "zero": "all zero", "constant": "constant"}
    odd = {word: sum(bool(stats[word]) for stats in seen) for word in words}
    odd["constant"] = sum(stats["constant"] and not stats["zero"] for stats in seen)
    said = ", ".join(f"{count:,} {words[word]}" for word, count in odd.items() if count)
    line = f"numbers  {len(seen):,} tensors looked at: {said or 'no NaN, no Inf, none all zero or constant'}"
    if looked_at["not_read"]:
        line += f"; {looked_at['not_read']:,} could not be looked at"
    if looked_at["fail_on"]:
        found = any(stats[word] for stats in seen for word in looked_at["fail_on"])
        line += f"; {'FAIL' if found else 'PASS'}: asked for none of {', '.join(looked_at['fail_on'])}"
    return line


def _oddities(stats: dict[str, Any]) -> list[str]:
    odd = [f"{stats[key]:,} {word}" for key, word in (("nan", "NaN"), ("inf", "Inf")) if stats[key]]
    if stats["zero"]:
        odd.append("all zero")
    elif stats["constant"]:
        odd.append("constant")
    if "of" in stats:
        odd.append(f"of the {stats['of']}s")
    return odd
