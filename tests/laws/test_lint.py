"""What lint says of two templates is what trying every short name says; each fault of a mapping is found."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from locations import ROOT
from mapping_strategies import Line, read, write
from weightkit.core.names import parse_template
from weightkit.core.report import Severity
from weightkit.core.rule import Mapping, Spelling
from weightkit.engine import overlap
from weightkit.engine.lint import lint
from weightkit.engine.overlap import covers, find_overlap
from weightkit.mapping_file import parse_mapping

LAW = settings(deadline=None, max_examples=250, database=None)
ALPHABET = ("0", "1", "2", "3", "6", "x", "y")
LONGEST = 3
NAMES = tuple(".".join(pieces) for length in range(1, LONGEST + 1) for pieces in product(ALPHABET, repeat=length))
FEW_NAMES = tuple(name for name in NAMES if not set(name) & set("36y"))
ENTRIES = tuple({"l": entries} for length in (0, 1, 2) for entries in permutations(("0", "1", "x"), length))
"""Every short list that a looked-up variable could mean."""

SEGMENTS = ("x", "y", "0", "2", "{i}", "{j}", "{i*2}", "{i*2+1}", "{i*3}", "{j+2}", "{p:name}", "{q:name}")
LOOKUPS = ("{i@l}", "{j@l}")


def templates(*segments: str) -> st.SearchStrategy[str]:
    """Template texts of at most three segments, the last of which may take the rest."""
    heads = st.lists(st.sampled_from(segments), max_size=LONGEST - 1)
    tails = st.sampled_from((*segments, "{rest:path}"))
    return st.builds(lambda head, tail: ".".join((*head, tail)), heads, tails)


def matched(text: str, lists: dict[str, tuple[str, ...]]) -> set[str]:
    return {name for name in (FEW_NAMES if "@" in text else NAMES) if read(text, name, lists) is not None}


def check_overlap(one: str, other: str) -> None:
    looks_up = "@" in one + other
    shared = {name for lists in _lists(one, other) for name in matched(one, lists) & matched(other, lists)}
    for first, second in ((one, other), (other, one)):
        witness = find_overlap(parse_template(first), parse_template(second))
        if witness is None:
            assert not shared, sorted(shared)[:3]
            continue
        assert looks_up or not witness.by_chance
        assert any(
            read(one, witness.name, lists) is not None and read(other, witness.name, lists) is not None
            for lists in _lists_with(witness.name.split(".") if looks_up else [])
        ), witness


def _lists(*texts: str) -> tuple[dict[str, tuple[str, ...]], ...]:
    return ENTRIES if any("@" in text for text in texts) else ({},)


def _lists_with(pieces: list[str]) -> Iterator[dict[str, tuple[str, ...]]]:
    """Every list in which up to two of the pieces stand somewhere among the first entries."""
    yield {}
    for (one, here), (other, there) in product(product(dict.fromkeys(pieces), range(10)), repeat=2):
        if (one == other) == (here == there):
            entries = [f"another {number}" for number in range(10)]
            entries[here], entries[there] = one, other
            yield {"l": tuple(entries)}


@settings(LAW, max_examples=500)
@given(templates(*SEGMENTS), templates(*SEGMENTS))
def test_two_templates_overlap_exactly_where_some_name_fits_both(one: str, other: str) -> None:
    check_overlap(one, other)


@settings(LAW, max_examples=150)
@given(templates(*SEGMENTS, *LOOKUPS, *LOOKUPS), templates(*SEGMENTS, *LOOKUPS))
def test_templates_that_look_up_lists_overlap_exactly_where_some_list_makes_them(one: str, other: str) -> None:
    check_overlap(one, other)


@LAW
@given(templates(*SEGMENTS, *LOOKUPS))
def test_a_template_reads_and_writes_the_names_that_a_regular_expression_does(text: str) -> None:
    template = parse_template(text)
    for lists in _lists(text):
        for name in NAMES[:: 3 if "@" in text else 1]:
            bound = read(text, name, lists)
            assert template.match(name, lists) == bound
            if bound is not None:
                assert template.fill(bound, lists) == write(text, bound, lists) == name


def check_covers(general: str, narrow: str) -> None:
    if covers(parse_template(general), parse_template(narrow)):
        for lists in _lists(general, narrow):
            assert matched(narrow, lists) <= matched(general, lists)


@settings(LAW, max_examples=600)
@given(templates(*SEGMENTS, *LOOKUPS), templates(*SEGMENTS, *LOOKUPS))
def test_a_template_that_covers_another_matches_all_that_it_matches(general: str, narrow: str) -> None:
    check_covers(general, narrow)


@pytest.mark.parametrize(
    ("general", "narrow"),
    [
        ("{rest:path}", "a.{i}.w"),
        ("{p:name}.{i}", "a.{i*2}"),
        ("{i}.w", "{j*6+3}.w"),
        ("{i*3}.w", "{j*6+3}.w"),
        ("a.{rest:path}", "a.{p:name}.{rest:path}"),
    ],
)
def test_a_template_that_plainly_covers_another_is_seen_to(general: str, narrow: str) -> None:
    assert covers(parse_template(general), parse_template(narrow))
    check_covers(general, narrow)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("segment", ["{i*100000+1}", "{i*999983+5}", "{j*99999999+7}"])
def test_large_scales_are_not_tried_one_number_after_the_other(segment: str) -> None:
    witness = find_overlap(parse_template("a.{i*100000}"), parse_template(f"a.{segment}"))
    if segment == "{i*100000+1}":
        assert witness is None
    else:
        assert witness is not None
        assert all(read(f"a.{text}", witness.name, {}) is not None for text in ("{i*100000}", segment))


# ---- mutants


def only_the_first_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_NUMBERS", 0)
    monkeypatch.setattr(overlap, "_TRIES", 0)


def a_shifted_index_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    original = overlap._covers
    monkeypatch.setattr(
        overlap, "_covers", lambda general, narrow: general.kind == narrow.kind or original(general, narrow)
    )


QUICK = settings(LAW, phases=[Phase.generate], report_multiple_bugs=False)


@pytest.mark.parametrize("mutant", [only_the_first_name_is_tried, a_shifted_index_is_covered])
def test_a_mutant_does_not_survive(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check = check_covers if mutant is a_shifted_index_is_covered else check_overlap
    law = QUICK(given(templates(*SEGMENTS), templates(*SEGMENTS))(check))
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        law()


# ---- faults of mappings


def mapping(*lines: Line, **more: Any) -> Mapping:
    return Mapping("m", 1, "here", "there", tuple(line.rule() for line in lines), **more)


def names(*texts: str) -> Any:
    return tuple(map(parse_template, texts))


A = Line("a", ("a.{x:name}",), ("A.{x:name}",))
STACK = {"op": "stack", "axis": 0, "over": "i"}
FAULTS: dict[str, tuple[Mapping, str, str]] = {
    "two rules for one name": (mapping(A, Line("b", ("{p:name}.w",), ("B.{p:name}",))), "WK210", "a.w"),
    "one rule twice for one name": (
        mapping(Line("a", ("a.{x:name}", "{x:name}.w"), ("b.{x:name}",), ({"op": "concat", "axis": 0},))),
        "WK210",
        "a",
    ),
    "two rules for one target": (mapping(A, Line("b", ("b.{x:name}",), ("A.{x:name}",))), "WK203", "A."),
    "two rules for one target, one of which overrides the other elsewhere": (
        mapping(A, Line("b", ("b.{x:name}",), ("A.{x:name}",), overrides=("a",))),
        "WK203",
        "A.",
    ),
    "an initialised target that a rule makes": (
        mapping(A, Line("i", (), ("A.w",), fate="init")),
        "WK203",
        "A.w",
    ),
    "a rule that is always overridden": (
        mapping(A, Line("b", ("{rest:path}",), ("B.{rest:path}",), overrides=("a",))),
        "WK216",
        "a",
    ),
    "a rule for no name of the source": (mapping(A, source_names=names("b.{x:name}")), "WK216", "a"),
    "a target that nobody makes": (mapping(A, target_names=names("A.{x:name}", "B.w")), "WK217", "B.w"),
    "a rule for no name of the target": (mapping(A, target_names=names("B.{x:name}")), "WK217", "a"),
    "an alias of what no rule takes": (
        mapping(A, spellings=(Spelling(parse_template("old.{x:name}"), parse_template("nobody.{x:name}"), "why"),)),
        "WK217",
        "old.{x:name}",
    ),
    "several sources and no join": (mapping(Line("a", ("a.q", "a.k"), ("a.qk",))), "WK218", "a"),
    "several targets and no part": (mapping(Line("a", ("a.qk",), ("a.q", "a.k"))), "WK218", "a"),
    "an unknown op": (mapping(Line("a", ("a",), ("b",), ({"op": "transmogrify"},))), "WK218", "a"),
    "a join of one": (mapping(Line("a", ("a",), ("b",), ({"op": "concat", "axis": 0},))), "WK218", "a"),
    "a part into one": (mapping(Line("a", ("a",), ("b",), ({"op": "copy"},))), "WK218", "a"),
    "a join over what is parted": (mapping(Line("a", ("a",), ("b.{i}",), (STACK,))), "WK218", "a"),
    "a part over what is joined": (
        mapping(Line("a", ("a.{i}",), ("b",), ({"op": "unstack", "axis": 0, "over": "i"},))),
        "WK218",
        "a",
    ),
    "two plain parts": (
        mapping(
            Line(
                "a",
                ("a",),
                ("b", "c", "d", "e"),
                ({"op": "split", "axis": 0, "sizes": [2, 2]}, {"op": "split", "axis": 0, "sizes": [1, 1]}),
            )
        ),
        "WK218",
        "a",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_mapping_is_found_and_named(fault: str) -> None:
    faulty, code, subject = FAULTS[fault]
    found = lint(faulty)
    assert [f for f in found if f.code == code and f.subject.startswith(subject)], found


def test_an_overlap_that_needs_a_list_to_name_its_entry_so_is_a_warning() -> None:
    found = lint(mapping(Line("a", ("e.{v@cameras}.w",), ("A.{v}.w",)), Line("b", ("e.front.w",), ("B.w",))))
    assert [(finding.code, finding.severity) for finding in found] == [("WK210", Severity.WARNING)]
    assert "front" in found[0].message


def test_an_override_settles_an_overlap() -> None:
    settled = mapping(
        Line("all", ("{rest:path}",), ("{rest:path}",)),
        Line("one", ("a.w",), ("a.w",), ({"op": "transpose"},), overrides=("all",)),
    )
    assert lint(settled) == ()


@pytest.mark.parametrize(
    "clean",
    [
        mapping(A, Line("b", ("b.{i}.q", "b.{i}.k"), ("B.{i}",), ({"op": "concat", "axis": 0},))),
        mapping(Line("s", ("e.{i}.{p:name}",), ("E.{p:name}",), (STACK,)), Line("d", ("x",), fate="drop")),
        mapping(
            Line("n", ("e.{i}.gate", "e.{i}.up"), ("E",), ({"op": "concat", "axis": 0}, STACK)),
            Line("i", (), ("fresh.{i}",), fate="init"),
        ),
        mapping(A, source_names=names("a.w", "a.b"), target_names=names("A.{x:name}")),
    ],
)
def test_a_clean_mapping_has_no_findings(clean: Mapping) -> None:
    assert lint(clean) == ()


def test_every_mapping_that_is_shipped_is_clean() -> None:
    shipped = sorted((ROOT / "weightkit" / "architectures").rglob("*.toml"))
    assert shipped
    for path in shipped:
        text = path.read_text(encoding="utf-8")
        assert lint(parse_mapping(text, origin=path.name)) == ()
