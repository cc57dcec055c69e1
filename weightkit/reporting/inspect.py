"""The text of an inspect Report."""

from __future__ import annotations

from typing import Any

from weightkit.core.report import Report, Severity
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, fold, size, table

_VERDICT = {
    "data": "data: plain tensors and values",
    "opaque": "opaque: holds objects of classes that are unknown here, read as data",
    "unsafe": "UNSAFE: another loader would execute something in this file",
    None: "data: this format cannot hold code",
}


def inspect_text(report: Report, *, flat: bool = False, tensors: bool = True) -> str:
    """Answer first: what the file is, how sure and why; then verdict, groups, tensors (unless left out), findings."""
    facts: dict[str, Any] = dict(report.facts)
    listed = facts["tensors"]
    aliases = sum(1 for t in listed if t["alias_of"])
    parameters = sum(group["parameters"] for group in facts["groups"].values())
    architecture = facts["architecture"]
    path = printable(facts["path"])
    if architecture is None:
        lines = [f"{path}: {facts['format']} file of no architecture that is known here"]
    else:
        lines = [f"{path}: {architecture['title']} ({architecture['confidence']}), layout {architecture['layout']}"]
        lines += [f"  because  {printable(item)}" for item in architecture["evidence"]]
    root = f", below {facts['root']!r}" if facts["root"] else ""
    lines += [
        f"verdict  {_VERDICT[facts['verdict']]}",
        f"tensors  {len(listed)} names{root}, {aliases} of them aliases; {parameters:,} values",
    ]
    if facts["metadata"]:
        lines.append(f"beside   {printable(', '.join(facts['metadata']))}")
    rows: list[list[object]] = [["group", "tensors", "aliases", "values", "bytes"]]
    for name, group in facts["groups"].items():
        rows.append([name, group["tensors"], group["aliases"], f"{group['parameters']:,}", size(group["nbytes"])])
    lines += ["", *table(rows, right=(1, 2, 3, 4)), *(["", *_tensor_lines(listed, flat)] if tensors else [])]
    notes = findings_text(report, least=Severity.INFO)
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _tensor_lines(tensors: list[dict[str, Any]], flat: bool) -> list[str]:
    if flat:
        rows: list[list[object]] = [["tensor", "dtype", "shape", "alias of"]]
        rows += [[t["name"], t["dtype"], t["shape"], t["alias_of"] or ""] for t in tensors]
        return table(rows)
    kinds: dict[tuple[object, ...], list[str]] = {}
    for t in tensors:
        kinds.setdefault((t["group"], t["dtype"], tuple(t["shape"]), t["alias_of"] is not None), []).append(t["name"])
    rows = [["tensors", "dtype", "shape", ""]]
    for (_, dtype, shape, alias), names in kinds.items():
        assert isinstance(shape, tuple)
        rows += [[folded, dtype, list(shape), "alias" if alias else ""] for folded in fold(names)]
    return table(rows)
