"""The page of a conversion: what it says, in which order, how it folds, and that nothing from a file acts on it."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from html_pages import Element, read_page
from page_cases import (
    MIXED,
    MIXED_TARGET,
    PLAIN,
    SOURCE,
    facts_of,
    hostile_page,
    large_page,
    page_of,
    plan_of,
    refused,
    refused_page,
    state,
)
from weightkit.core.report import Finding, Report, Severity
from weightkit.engine.execution import Execution
from weightkit.engine.statistics import histogram
from weightkit.reporting.page import convert_page
from weightkit.reporting.page.account import make_account
from weightkit.reporting.page.drawing import NARROW, WIDE, draw, shortened, thickness
from weightkit.reporting.page.families import family_name, gathered
from weightkit.reporting.page.states import STATES, Weight

MOST_BYTES = 3_000_000


def states_of(page: Element) -> list[str]:
    return [row.attributes["data-s"] for row in page.one("table", id="all").one("tbody").all("tr")]


def row_of(page: Element, name: str) -> Element:
    (found,) = [
        row for row in page.one("table", id="all").one("tbody").all("tr")
        if row.one("td", class_="nm").children[0].text == name
    ]  # fmt: skip
    return found


# ---- what it says


def test_the_verdict_of_a_plain_conversion_counts_its_tensors() -> None:
    assert read_page(page_of(PLAIN)).one("h1").text == "All 2 tensors of net are accounted for, bit for bit. 2 written."


def test_the_verdict_names_the_group_of_a_tensor_that_is_left_out() -> None:
    verdict = read_page(page_of(MIXED)).one("h1")
    assert verdict.text.startswith("Incomplete, as asked: 1 tensor of net is left out (1 of new); the other 6 are")
    assert verdict.attributes["class"] == "lost"


def test_a_plan_says_that_nothing_was_written() -> None:
    page = read_page(page_of(PLAIN, out=None))
    assert page.one("h1").text.endswith("This is a plan: nothing was written.")


@pytest.mark.parametrize(
    ("check", "text", "tone"),
    [
        ("equal", "Every action that was compared is equal.", "kept"),
        ("different", "The outputs differ.", "lost"),
        ("blind", "could not have noticed a lost tensor", "changed"),
        ("not checked", "Outputs were not compared.", "kept"),
    ],
)
def test_the_verdict_says_what_the_function_check_found(check: str, text: str, tone: str) -> None:
    found = {"verdict": check, "why": "w", "domain": "d", "probes": 4, "atol": 1e-5, "outputs": {}, "controls": {}}
    page = read_page(page_of(PLAIN, function_check=found))
    assert text in page.one("h1").text
    assert page.one("h1").attributes["class"] == tone
    assert [section.attributes["aria-labelledby"] for section in page.all("section")].index("check") == 3


def test_without_a_function_check_nothing_is_said_of_one() -> None:
    page = read_page(page_of(PLAIN))
    assert not page.all("h2", id="check")
    assert "equal" not in page.one("h1").text


def test_the_function_check_shows_every_difference_and_whether_a_control_was_seen() -> None:
    check = {
        "verdict": "different", "why": "q_values differ", "domain": "random observations", "probes": 8, "atol": 1e-5,
        "outputs": {"action": 0.0, "q_values": 0.25}, "controls": {"fresh": math.nan, "permuted": 0.0},
    }  # fmt: skip
    page = read_page(page_of(PLAIN, function_check=check))
    rows = {row.one("th").one("code").text: row for row in page.one("table", class_="diffs").one("tbody").all("tr")}
    assert {name: row.attributes["class"] for name, row in rows.items()} == {
        "action": "kept", "q_values": "lost", "fresh": "kept", "permuted": "lost",
    }  # fmt: skip
    assert rows["q_values"].one("td", class_="r").text == "0.25"
    assert "sees too little" in rows["permuted"].text


def test_a_refusal_names_its_groups_and_shows_the_plan_as_far_as_it_came() -> None:
    report, attempt = refused(SOURCE, MIXED_TARGET)
    page = read_page(convert_page(report, plan=attempt))
    assert page.one("h1").text == (
        "Refused: 3 tensors of encoder, new and old are not accounted for. Nothing was written."
    )
    assert states_of(page) == ["refused"] * 3 + ["kept"] * 5
    assert "WK204: the source has float32[4, 3]" in row_of(page, "encoder.w").text
    assert row_of(page, "old").one("p").text.startswith("WK201")
    assert "exit code1" in page.one("dl", class_="route").text.replace(" 1", "1")


def test_an_error_without_a_plan_makes_a_page_with_the_error() -> None:
    finding = Finding("WK102", Severity.ERROR, "a.pt", "the bytes contradict themselves", "copy it again")
    facts = {"path": "a.pt", "out": None, "target_layout": "net", "message": finding.message}
    page = read_page(convert_page(Report("convert", (finding,), facts, 3)))
    assert page.one("h1").text == "Refused: the bytes contradict themselves. Nothing was written."
    assert "copy it again" in page.one("article").text
    assert not page.all("table")


def test_the_cards_have_what_the_report_has_by_group() -> None:
    cards = {
        card.one("h3").one("code").text: {row.one("dt").text: row.one("dd").text for row in card.one("dl").all("div")}
        for card in read_page(page_of(MIXED)).all("li")
        if card.attributes.get("class", "").startswith("card")
    }
    assert cards == {
        "encoder": {"tensors": "2", "parameters": "40", "adapted": "1", "left out": "0"},
        "actor": {"tensors": "2", "parameters": "10", "adapted": "0", "left out": "0"},
        "critic": {"tensors": "2", "parameters": "5", "adapted": "0", "left out": "0"},
        "new": {"tensors": "0", "parameters": "0", "adapted": "0", "left out": "1"},
    }


def test_the_state_of_a_card_is_that_of_its_worst_tensor_in_word_and_sign() -> None:
    page = read_page(page_of(MIXED))
    chips = {
        card.one("h3").one("code").text: (card.one("span").text, card.one("use").attributes["href"])
        for card in page.all("li")
        if card.attributes.get("class", "").startswith("card")
    }
    assert chips["encoder"] == ("adapted", "#s-diamond")
    assert chips["actor"] == ("same name", "#s-tick")
    assert chips["new"] == ("left out", "#s-gap")


def test_rows_stand_worst_first_and_every_name_stands_once() -> None:
    page = read_page(page_of(MIXED))
    assert states_of(page) == ["left_out", "adapted", "dropped", *["kept"] * 5]
    names = [row.one("td", class_="nm").children[0].text for row in page.one("tbody").all("tr")]
    assert sorted(names) == sorted({*SOURCE, *MIXED_TARGET})


def test_the_order_of_states_is_lost_then_changed_then_kept() -> None:
    assert [entry.weight for entry in STATES] == sorted(entry.weight for entry in STATES)


@pytest.mark.parametrize("arrays", [None, {"a.w": np.ones((2, 3))}])
@pytest.mark.parametrize("out", [None, "b.pt"])
def test_every_row_has_a_cell_for_every_column(arrays: Any, out: str | None) -> None:
    rows = {} if out else {"rows": []}
    table = read_page(page_of(PLAIN, arrays=arrays, out=out, **rows)).one("table", id="all")
    heads = [head.text for head in table.one("thead").all("th")]
    assert heads == ["State", "Tensor", "Shape", "How", *["Values"] * bool(arrays), *["Digest"] * bool(out)]
    assert {len(row.all("td")) for row in table.one("tbody").all("tr")} == {len(heads)}


def test_a_row_has_shapes_op_class_digest_and_lineage() -> None:
    row = row_of(read_page(page_of(MIXED)), "encoder.w")
    assert row.one("td", class_="sh").text == "4×3 → 4×9 float32"
    assert row.one("td", class_="how").text == "pad:end can be undone (INJ)"
    place = next(place for place, step in enumerate(MIXED.steps) if step.targets == ("encoder.w",))
    digest = f"{place:032x}"
    assert row.one("td", class_="dg").text == digest[:8]
    assert digest in row.one("details").text
    assert "pad(axis=1" in row.one("details").text


def test_a_dropped_tensor_stands_with_its_reason() -> None:
    assert "--drop 'old'" in row_of(read_page(page_of(MIXED)), "old").text


def test_values_that_are_not_finite_are_counted_and_come_before_those_that_are() -> None:
    arrays = {"a.w": np.zeros((2, 3)), "b.w": np.array([1, math.nan, math.inf, -math.inf])}
    page = read_page(page_of(PLAIN, arrays=arrays))
    assert states_of(page) == ["not_finite", "kept"]
    assert row_of(page, "b.w").one("b", class_="odd").text == "1 NaN, 2 infinite"
    assert page.one("h1").text.endswith("1 holds NaN or infinite values.")
    assert page.one("h1").attributes["class"] == "changed"


def test_findings_of_one_message_are_one_entry_and_errors_come_first() -> None:
    notes = [Finding("WK207", Severity.INFO, f"t{place}", "same", "") for place in range(60)]
    error = Finding("WK204", Severity.ERROR, "x", "bad", "do this")
    report = Report("convert", (*notes, error), facts_of(PLAIN))
    articles = read_page(convert_page(report, plan=PLAIN)).all("article")
    assert [article.one("h3").text for article in articles] == ["error WK204", "note WK207 60 tensors"]
    assert articles[1].text.endswith("and 20 more")
    assert "do this" in articles[0].text


def test_command_plan_digest_and_configuration_are_there() -> None:
    page = read_page(page_of(PLAIN, command="weightkit convert a.pt", config={"type": "net"}))
    section = next(s for s in page.all("section") if s.attributes["aria-labelledby"] == "again")
    assert section.one("pre", class_="command").text == "weightkit convert a.pt"
    assert "d" * 64 in section.text
    assert '"type": "net"' in section.text


# ---- the drawing


def test_the_drawing_has_what_was_lost_at_its_top_then_what_changed() -> None:
    for form in (WIDE, NARROW):
        drawing = draw(make_account(Report("convert", (), facts_of(MIXED)), MIXED, str).entries, form)
        weights = [bundle.state.weight for bundle in drawing.bundles]
        assert weights == sorted(weights)
        assert {*weights} == {*Weight}
        heights = [text.y for text, _ in drawing.headings]
        assert heights == sorted(heights)


def test_a_ribbon_grows_with_the_logarithm_so_that_one_number_is_seen_beside_a_billion() -> None:
    assert thickness(1) >= 2
    assert thickness(10**9) < 40
    assert [thickness(10**n) for n in range(10)] == sorted({thickness(10**n) for n in range(10)})


def test_no_text_of_the_drawing_is_wider_than_its_place() -> None:
    long = {f"group{place}.{'block.' * 40}{place}.weight": (3,) for place in range(12)}
    plan = plan_of(state(**long), state(**long))
    for form in (WIDE, NARROW):
        drawing = draw(make_account(Report("convert", (), facts_of(plan)), plan, str).entries, form)
        for bundle in drawing.bundles:
            for text in bundle.texts:
                assert len(text.text) + (len(text.count) + 2 if text.count else 0) <= form.columns
            assert "…" in bundle.texts[0].text


@pytest.mark.parametrize("name", ["a.b", "x" * 500, "名" * 60, "a\u202eb" * 60])
def test_a_shortened_name_fits_and_is_printable(name: str) -> None:
    text = shortened(name, 30)
    assert sum(2 if char == "名" else 1 for char in text) <= 30
    assert text.isprintable()


def test_a_family_name_says_what_differs() -> None:
    names = [f"critic.qs.{q}.{leaf}" for q in (0, 1) for leaf in ("bias", "weight")]
    assert family_name(names) == "critic.qs.{0,1}.{bias,weight}"
    assert family_name([f"layers.{n}.w" for n in range(50)]) == "layers.{0…49}.w"
    assert family_name(["a.b.c", "a.b"]) == "a.b.*"
    assert family_name(["only"]) == "only"


@pytest.mark.parametrize("most", [1, 3, 40])
def test_gathering_gives_few_families_with_every_tensor_once(most: int) -> None:
    shapes = {f"{letter}.{n}.{leaf}": (2,) for letter in "abcdefgh" for n in range(6) for leaf in ("w", "b")}
    plan = plan_of(state(**shapes), state(**shapes))
    entries = make_account(Report("convert", (), facts_of(plan)), plan, str).entries
    families = gathered(entries, most)
    assert len(families) <= most
    assert sorted(entry.name for family in families for entry in family) == sorted(shapes)


# ---- very many tensors


@pytest.mark.parametrize("count", [2_000, 100_000])
def test_a_page_of_very_many_tensors_stays_small_and_says_what_it_does_not_list(count: int) -> None:
    content = large_page(count)
    assert len(content) < MOST_BYTES
    page = read_page(content)
    listed = len(states_of(page))
    families = page.all("table", class_="fam")
    folded = sum(int(row.all("td")[2].text.replace(",", "")) for row in families[0].one("tbody").all("tr"))
    assert states_of(page)[0] == "dropped"
    assert listed >= 1000
    assert listed + folded == count + 1
    assert len(families[0].one("tbody").all("tr")) <= 200
    assert f"{listed:,} of {count + 1:,} tensors are listed one by one" in page.one("p", class_="note strong").text
    assert all(len(svg.all("g")) <= 80 for svg in page.all("svg") if svg.attributes["class"].startswith("map"))


def test_a_page_of_names_that_have_nothing_in_common_stays_small() -> None:
    shapes = {f"{n * 2654435761 % 2**32:08x}{'z' * 300}{n}": (2,) for n in range(20_000)}
    content = page_of(plan_of(state(**shapes), state(**shapes)))
    assert len(content) < MOST_BYTES
    page = read_page(content)
    assert "more groups are not shown here" in page.text
    assert len(page.one("ul", class_="cards").all("li")) == 24


def test_many_refusals_are_listed_before_anything_else() -> None:
    shapes = {f"layers.{n}.w": (2, 3) for n in range(3000)}
    wanted = {**shapes, **{f"layers.{n}.w": (2, 9) for n in range(0, 3000, 2)}}
    report, attempt = refused(state(**shapes), state(**wanted))
    content = convert_page(report, plan=attempt)
    assert len(content) < MOST_BYTES
    page = read_page(content)
    assert states_of(page)[:1500] == ["refused"] * 1500
    assert "more" in page.one("article").text


# ---- names and reasons are attackers' text


@pytest.fixture(scope="module")
def hostile() -> bytes:
    return hostile_page()


def test_no_name_becomes_an_element_or_an_attribute(hostile: bytes) -> None:
    page = read_page(hostile)
    assert not page.all("img")
    assert len(page.all("script")) == 1
    elements = [page]
    while elements:
        element = elements.pop()
        assert not [name for name in element.attributes if name.startswith("on") or name == "style"]
        elements += element.children


def test_no_control_or_bidi_character_gets_through(hostile: bytes) -> None:
    text = hostile.decode("utf-8")
    assert [char for char in set(text) if not char.isprintable() and char != "\n"] == []
    assert "\\u202egnp.\\x1b[31m" in text
    assert "{{7*7}}" in text


def test_the_script_and_the_style_hold_nothing_of_the_conversion(hostile: bytes) -> None:
    page, other = read_page(hostile), read_page(page_of(PLAIN))
    for tag in ("script", "style"):
        assert page.one(tag).pieces == other.one(tag).pieces


@pytest.mark.parametrize("refusal", [False, True])
def test_the_page_refers_to_nothing_but_its_own_fragments(refusal: bool, hostile: bytes) -> None:
    elements = [read_page(refused_page() if refusal else hostile)]
    identifiers, references = set(), set()
    while elements:
        element = elements.pop()
        assert element.tag not in ("link", "base", "iframe", "object", "embed", "image", "foreignobject", "a")
        for name, value in element.attributes.items():
            assert name not in ("src", "srcset", "action", "formaction", "poster", "data", "background", "ping")
            if name in ("href", "xlink:href"):
                assert re.fullmatch(r"#[\w-]+", value)
                references.add(value[1:])
            if name == "id":
                assert value not in identifiers
                identifiers.add(value)
            if name == "aria-labelledby":
                references |= set(value.split())
        elements += element.children
    assert references <= identifiers
    style = files("weightkit.reporting.page").joinpath("page.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_this_style_and_this_script_and_no_network() -> None:
    import base64
    import hashlib

    page = read_page(page_of(PLAIN))
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256("".join(page.one(tag).pieces).encode()).digest()).decode()
        assert rules.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert rules == {"base-uri": "'none'", "form-action": "'none'"}


# ---- for everybody


def test_equal_conversions_give_equal_bytes() -> None:
    arrays = {"a.w": np.arange(6.0).reshape(2, 3), "b.w": np.ones(4)}
    assert page_of(PLAIN, arrays=arrays) == page_of(PLAIN, arrays=arrays)


def test_headings_come_in_order_and_tables_and_drawings_are_labelled() -> None:
    page = read_page(page_of(MIXED, arrays={"actor.b": np.ones(2)}))
    assert page.one("html").attributes["lang"] == "en"
    levels = [int(tag) for tag in re.findall(r"<h([1-6])", page_of(MIXED).decode())]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for table in page.all("table"):
        heads = table.one("thead").all("th")
        assert heads
        assert all(head.attributes["scope"] == "col" for head in heads)
    for drawing in (svg for svg in page.all("svg") if svg.attributes["class"].startswith("map")):
        assert drawing.attributes["role"] == "img"
        assert drawing.children[0].tag == "title"
        assert drawing.children[1].tag == "desc"
    assert page.one("input").attributes["type"] == "search"
    assert "hidden" in page.one("form").attributes, "without a script there is nothing to search with"


def colours() -> dict[str, dict[str, str]]:
    """The colours of both schemes by their names."""
    style = files("weightkit.reporting.page").joinpath("page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in (light, dark)]
    assert found[0].keys() == found[1].keys()
    return dict(zip(("light", "dark"), found, strict=True))


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2.1 defines it, 1 to 21."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_computed_as_the_guideline_says() -> None:
    assert contrast("#000000", "#ffffff") == 21
    assert round(contrast("#777777", "#ffffff"), 2) == 4.48


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_on_what_it_stands_on(scheme: str) -> None:
    colour = colours()[scheme]
    pairs = [(ink, ground) for ink in ("ink", "muted", "link") for ground in ("page", "panel")]
    for state_ in ("lost", "changed", "kept"):
        pairs += [(state_, ground) for ground in ("page", "panel", f"{state_}-soft")]
        pairs.append(("ink", f"{state_}-soft"))
    poor = {pair: found for pair in pairs if (found := contrast(colour[pair[0]], colour[pair[1]])) < 4.5}
    assert not poor
    graphics = {name: contrast(colour[f"{name}-strong"], colour["page"]) for name in ("lost", "changed", "kept")}
    assert min(graphics.values()) >= 3


def test_no_state_is_told_by_colour_alone() -> None:
    assert len({entry.word for entry in STATES}) == len(STATES)
    page = read_page(page_of(MIXED))
    for row in page.one("table", id="all").one("tbody").all("tr"):
        chip = row.one("td", class_="st")
        assert chip.text
        assert chip.all("use")


# ---- the values of a tensor


def test_a_histogram_counts_every_finite_value_once() -> None:
    array = np.random.default_rng(1).normal(size=(100, 1000)).astype(np.float32)
    found = histogram(array)
    expected, _ = np.histogram(array.astype(np.float64), 24)
    assert list(found.counts) == expected.tolist()
    assert (found.low, found.high) == (float(array.min()), float(array.max()))


@pytest.mark.parametrize(
    ("values", "low", "high", "nan", "inf"),
    [
        ([], 0, 0, 0, 0),
        ([math.nan, math.inf], 0, 0, 1, 1),
        ([5.0, 5.0], 5, 5, 0, 0),
        ([-1e308, 1e308, math.nan], -1e308, 1e308, 1, 0),
        ([0.0, 5e-324], 0, 5e-324, 0, 0),
        ([True, False], 0, 1, 0, 0),
        ([3 + 4j, 0], 0, 5, 0, 0),
        ([2**63 - 1, -(2**63)], -(2.0**63), 2.0**63, 0, 0),
    ],
)
def test_a_histogram_of_odd_values_has_their_bounds(
    values: list[Any], low: float, high: float, nan: int, inf: int
) -> None:
    found = histogram(np.array(values))
    assert (found.low, found.high, found.nan, found.inf) == (low, high, nan, inf)
    assert sum(found.counts) == len(values) - nan - inf


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_histogram_is_the_same_in_chunks(chunk: int) -> None:
    array = np.random.default_rng(2).normal(size=500)
    array[3] = math.nan
    assert histogram(array, chunk=chunk) == histogram(array)


def test_whoever_looks_is_shown_every_array_once_in_the_plans_order() -> None:
    arrays = {name: np.full(found.shape, 1.0, np.float32) for name, found in SOURCE.tensors.items()}
    seen: list[str] = []
    done = list(Execution(MIXED, lambda name: arrays[name], look=lambda name, array: seen.append(name)).arrays())
    assert seen == [name for name, _ in done]


def test_rows_and_cards_are_those_of_the_account() -> None:
    account = make_account(Report("convert", (), facts_of(MIXED)), MIXED, lambda name: name.split(".")[0])
    assert sum(card.tensors + card.left_out for card in account.cards) == len(MIXED.target)
    assert sorted(e.target for e in account.entries if e.target is not None) == sorted(MIXED.target)
