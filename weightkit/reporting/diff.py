"""The text of a diff Report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from weightkit.core.report import Report
from weightkit.core.text import printable
from weightkit.reporting.text import findings_text, fold, table

_MOST_ROWS = 400


def diff_text(report: Report, *, flat: bool = False) -> str:
    """Answer first: equal or not, and how far that was looked at; then groups, then each kind of difference.

    ``flat``: one line a tensor, nothing folded.
    """
    facts: dict[str, Any] = dict(report.facts)
    a, b = printable(facts["a"]["path"]), printable(facts["b"]["path"])
    lines = [f"{_answer(facts)}", f"  A  {a}  ({_about(facts['a'])})", f"  B  {b}  ({_about(facts['b'])})", ""]
    lines += _groups(facts["groups"])
    lines += _only("only in A", facts["only_a"], flat) + _only("only in B", facts["only_b"], flat)
    lines += _renames(facts["renames"], flat)
    lines += _specs(facts["differences"], flat)
    lines += _values([d for d in facts["differences"] if "values" in d["what"]], flat)
    told = {"WK111", "WK112", "WK113"}
    rest = [finding for finding in report.findings if finding.code not in told]
    notes = findings_text(Report(report.verb, tuple(rest)))
    if facts["equal_not_in_bits"]:
        lines += ["", f"equal in value, not in every bit: {len(facts['equal_not_in_bits']):,}"]
        lines += [f"  {printable(text)}" for text in _shown(facts["equal_not_in_bits"], flat)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def plan_diff_text(report: Report) -> str:
    """Answer first: whether two plans do the same, then each tensor that they treat differently."""
    facts: dict[str, Any] = dict(report.facts)
    count = len(report.findings)
    answer = "EQUAL  both plans do the same" if facts["same"] else f"DIFFERENT  the plans differ in {count} places"
    lines = [
        f"  {side}  {printable(plan['path'])}  ({printable(plan['mapping'])}, {plan['steps']:,} steps)"
        for side, plan in zip("AB", facts["plans"], strict=True)
    ]
    return "\n".join([answer, *lines, *(["", *findings_text(report)] if count else [])])


def _answer(facts: dict[str, Any]) -> str:
    names = f"{facts['common']:,} name{'' if facts['common'] == 1 else 's'}"
    unlooked = len(facts["not_compared"])
    if facts["values_compared"]:
        how = "every value compared" if facts["equal"] else "values compared"
        if unlooked:
            how = f"values compared but for {unlooked:,} tensor{'' if unlooked == 1 else 's'} that cannot be read"
    else:
        how = "values were not compared"
        unsafe = "unsafe" in (facts["a"]["verdict"], facts["b"]["verdict"])
        how += ", a file is unsafe" if unsafe else ": --values compares them"
    if facts["equal"] and facts["values_compared"]:
        return f"EQUAL  {names} in A and B; {how}"
    if facts["equal"]:
        return f"EQUAL  names, shapes and dtypes, {names} in A and B; {how}"
    counts = [
        (len(facts["differences"]), f"of {names} of both differ{'s' if len(facts['differences']) == 1 else ''}"),
        (len(facts["only_a"]), "only in A"),
        (len(facts["only_b"]), "only in B"),
        (sum(1 for rename in facts["renames"] if rename["sure"]), "renamed"),
    ]
    said = ", ".join(f"{count:,} {words}" for count, words in counts if count)
    if not said:
        return f"NOT KNOWN  names, shapes and dtypes, {names} in A and B, are equal; {how}"
    return f"DIFFERENT  {said}; {how}"


def _about(side: dict[str, Any]) -> str:
    root = f", below {printable(side['root'])!r}" if side["root"] else ""
    return f"{side['format']}, {side['tensors']:,} names{root}"


def _groups(groups: dict[str, dict[str, int]]) -> list[str]:
    rows: list[list[object]] = []
    for name, group in list(groups.items())[:_MOST_ROWS]:
        both = group["equal"] + group["differ"]
        said = [f"{group['equal']:,} of {both:,} equal"] if both and not group["differ"] else []
        said += [f"{group['differ']:,} of {both:,} differ"] if group["differ"] else []
        for key, words in (("only_a", "only in A"), ("only_b", "only in B"), ("renamed", "renamed")):
            said += [f"{group[key]:,} {words}"] if group[key] else []
        rows.append([f"{name}:", ", ".join(said)])
    more = len(groups) - len(rows)
    return [*(table(rows) if rows else []), *([f"... and {more:,} more groups"] if more else [])]


def _shown(names: Iterable[str], flat: bool) -> list[str]:
    names = list(names)
    shown = names if flat else fold(names)
    if flat or len(shown) <= _MOST_ROWS:
        return shown
    return [*shown[:_MOST_ROWS], f"... and {len(shown) - _MOST_ROWS:,} more; --flat lists them"]


def _only(title: str, tensors: list[dict[str, Any]], flat: bool) -> list[str]:
    if not tensors:
        return []
    alike: dict[tuple[object, ...], list[str]] = {}
    for t in tensors:
        key: tuple[object, ...] = (t["name"],) if flat else (t["dtype"], tuple(t["shape"]))
        alike.setdefault(key, []).append(t["name"])
    specs = {t["name"]: f"{t['dtype']}{t['shape']}" for t in tensors}
    rows: list[list[object]] = [[f"{title}: {len(tensors):,}", ""]]
    for names in alike.values():
        rows += [[f"  {text}", specs[names[0]]] for text in _shown(names, flat)]
    return ["", *_rows(rows, flat)]


def _renames(renames: list[dict[str, Any]], flat: bool) -> list[str]:
    lines: list[str] = []
    for sure, title in (
        (True, "equal content under another name"),
        (False, "perhaps renamed, by dtype and shape only"),
    ):
        rows: list[list[object]] = [[r["a"], "->", r["b"]] for r in renames if r["sure"] is sure]
        if rows:
            lines += ["", *_rows([[f"{title}: {len(rows):,}", "", ""], *([f"  {a}", m, b] for a, m, b in rows)], flat)]
    return lines


def _specs(differences: list[dict[str, Any]], flat: bool) -> list[str]:
    """Shapes, dtypes and ties that differ, both sides."""
    alike: dict[tuple[object, ...], list[str]] = {}
    sides: dict[str, tuple[str, str]] = {}
    count = 0
    for d in differences:
        if not set(d["what"]) & {"shape", "dtype", "ties"}:
            continue
        count += 1
        texts = []
        for side in (d["a"], d["b"]):
            tied = side.get("tied_to")
            tie = "" if tied is None else " a tensor of its own" if not tied else f" = {', '.join(tied)}"
            texts.append(f"{side['dtype']}{side['shape']}{tie}")
        sides[d["name"]] = (texts[0], texts[1])
        alike.setdefault((d["name"],) if flat or "ties" in d["what"] else sides[d["name"]], []).append(d["name"])
    if not count:
        return []
    rows: list[list[object]] = [[f"shape, dtype or ties differ: {count:,}", "A", "B"]]
    for names in alike.values():
        rows += [[f"  {text}", *sides[names[0]]] for text in _shown(names, flat)]
    return ["", *_rows(rows, flat)]


def _values(differences: list[dict[str, Any]], flat: bool) -> list[str]:
    """Differing values: a folded line stands for several tensors, with the worst of each number."""
    if not differences:
        return []
    alike: dict[object, list[dict[str, Any]]] = {}
    for d in differences:
        alike.setdefault(d["name"] if flat else (d["a"]["dtype"], tuple(d["a"]["shape"])), []).append(d)
    rows: list[list[object]] = [
        [f"values differ: {len(differences):,}", "differing", "max |A - B|", "cosine", "not finite"]
    ]
    for same in alike.values():
        answers = [d["values"] for d in same]
        largest = [answer["max_difference"] for answer in answers if answer["max_difference"] is not None]
        cosines = [answer["cosine"] for answer in answers if answer["cosine"] is not None]
        odd = sum(answer["not_finite"] for answer in answers)
        numbers = [
            f"{sum(x['differing'] for x in answers):,} of {sum(x['numel'] for x in answers):,}",
            f"{max(largest):.3g}" if largest else "-",
            f"{min(cosines):.6f}" if cosines else "-",
            f"{odd:,}" if odd else "",
        ]
        names = _shown([d["name"] for d in same], flat)
        rows.append([f"  {names[0]}", *numbers])
        rows += [[f"  {name}", "''", "''", "''", ""] for name in names[1:]]
    return ["", *_rows(rows, flat, right=(1, 2, 3, 4))]


def _rows(rows: list[list[object]], flat: bool, *, right: Iterable[int] = ()) -> list[str]:
    if flat or len(rows) <= _MOST_ROWS + 1:
        return table(rows, right=right)
    lines = table(rows[: _MOST_ROWS + 1], right=right)
    return [*lines, f"  ... and {len(rows) - len(lines):,} more lines; --flat lists them"]
