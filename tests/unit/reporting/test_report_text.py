"""Folded names stand for exactly the names that went in; tables line up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from folded import expand
from weightkit.core.report import Finding, Report, Severity
from weightkit.reporting.text import findings_text, fold, size, table

LAW = settings(deadline=None, max_examples=300, database=None)
SEGMENTS = st.sampled_from(("encoder", "front", "0", "1", "2", "10", "weight", "bias", "größe", ""))
NAMES = st.lists(st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join), max_size=30)


@LAW
@given(NAMES)
def test_folded_names_expand_to_exactly_the_names_that_went_in(names: list[str]) -> None:
    expanded = [name for folded in fold(names) for name in expand(folded)]
    assert sorted(expanded) == sorted(set(names))


def test_a_name_with_braces_does_not_read_like_two_names() -> None:
    assert fold(["a.{b, c}"]) != fold(["a.b", "a.c"])


def test_a_tower_folds_into_one_line_in_the_order_of_its_names() -> None:
    names = [f"encoder.front.{i}.{p}" for i in (0, 2, 4, 6) for p in ("bias", "weight")]
    assert fold(names) == ["encoder.front.{0,2,4,6}.{bias, weight}"]
    assert fold(["b.x", "a.x"]) == ["{b, a}.x"]


def test_names_that_are_no_full_product_are_not_folded_into_one() -> None:
    assert sorted(name for text in fold(["a.x", "a.y", "b.x"]) for name in expand(text)) == ["a.x", "a.y", "b.x"]
    assert len(fold(["a.x", "a.y", "b.x"])) == 2


@LAW
@given(
    st.integers(1, 4).flatmap(
        lambda width: st.lists(
            st.lists(
                st.text(st.characters(max_codepoint=0x17F), max_size=9) | st.integers(), min_size=width, max_size=width
            ),
            min_size=1,
            max_size=6,
        )
    ),
    st.sets(st.integers(0, 3)),
)
def test_the_columns_of_a_table_line_up(rows: list[list[object]], right: set[int]) -> None:
    from weightkit.core.text import printable

    lines = table(rows, right=right)
    assert len(lines) == len(rows)
    texts = [[printable(str(cell)) for cell in row] for row in rows]
    start = 0
    for column in range(len(rows[0])):
        width = max(len(row[column]) for row in texts)
        for line, row in zip(lines, texts, strict=True):
            cell = row[column]
            padded = cell.rjust(width) if column in right else cell.ljust(width)
            assert line.ljust(start + width)[start : start + width] == padded
        start += width + 2
    assert all(line == line.rstrip() and line.isprintable() for line in lines)


@LAW
@given(st.integers(0, 10**15))
def test_a_size_is_short_and_never_off_by_a_unit(nbytes: int) -> None:
    number, unit = size(nbytes).split(" ")
    scale = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}[unit]
    assert abs(float(number) * scale - nbytes) <= 0.05 * scale + 1
    assert unit == "GB" or float(number) <= 1000


def test_findings_come_errors_first_alike_ones_folded_with_code_and_hint() -> None:
    def finding(severity: Severity, subject: str, message: str) -> Finding:
        return Finding("WK301", severity, subject, message, "do this")

    report = Report(
        "t",
        (
            finding(Severity.INFO, "n", "a note"),
            finding(Severity.ERROR, "encoder.0.bias", "gone"),
            finding(Severity.WARNING, "w", "a warning"),
            finding(Severity.ERROR, "encoder.0.weight", "gone"),
        ),
    )
    lines = findings_text(report)
    assert lines[:3] == ["WK301 error  encoder.0.{bias, weight}", "       gone", "       hint: do this"]
    assert [line.split()[1] for line in lines if line.startswith("WK")] == ["error", "warning", "note"]


def test_many_findings_of_one_kind_all_keep_their_names() -> None:
    names = [f"{chr(97 + i // 26)}{chr(97 + i % 26)}.{i}.tensor_with_a_long_name" for i in range(60)]
    report = Report("t", tuple(Finding("WK301", Severity.ERROR, name, "gone") for name in names))
    shown = findings_text(report)[0].removeprefix("WK301 error  ").split("  ")
    assert sorted(name for folded in shown for name in expand(folded)) == sorted(names)


def test_a_name_from_a_file_cannot_move_the_cursor() -> None:
    report = Report("t", (Finding("WK301", Severity.ERROR, "a\x1b[2J.w", "m\x07", "h\u202e"),))
    assert all(line.isprintable() for line in findings_text(report))
