"""L3: a template gives back the name that it read, and never gives two names to one or one name to two."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import NAME_PARTS, bindings, template_pairs
from weightkit.core import names
from weightkit.core.names import parse_template
from weightkit.core.rule import renaming
from weightkit.errors import RuleError

LAW = settings(deadline=None, max_examples=200, database=None)
Pair = tuple[str, str, dict[str, list[str]], dict[str, str]]
ODD_NUMBERS = ("0", "00", "007", "-1", "+1", " 1", "1_0", "1٣", "٣", "²", "10", "1.0", "", "9" * 5000)


def assert_reads_what_it_writes(text: str, name: str, lists: dict[str, list[str]]) -> bool:
    """``fill(match(name)) == name`` wherever the template matches; says whether it did."""
    template = parse_template(text)
    bound = template.match(name, lists)
    if bound is None:
        return False
    assert template.fill(bound, lists) == name
    return True


@LAW
@given(template_pairs(), st.data())
def test_a_filled_template_is_read_back_as_what_filled_it(pair: Pair, data: st.DataObject) -> None:
    source, target, lists, variables = pair
    bound = data.draw(bindings(variables, len(lists["entries"])))
    for text in (source, target):
        name = parse_template(text).fill(bound, lists)
        assert name is not None
        assert parse_template(text).match(name, lists) == bound
        assert assert_reads_what_it_writes(text, name, lists)


@LAW
@given(template_pairs(), st.data())
def test_whatever_a_template_matches_it_gives_back_letter_by_letter(pair: Pair, data: st.DataObject) -> None:
    source, _, lists, variables = pair
    bound = data.draw(bindings(variables, len(lists["entries"])))
    name = parse_template(source).fill(bound, lists)
    assert name is not None
    segments = name.split(".")
    where = data.draw(st.integers(0, len(segments) - 1))
    segments[where] = data.draw(st.sampled_from(ODD_NUMBERS) | NAME_PARTS)
    assert_reads_what_it_writes(source, ".".join(segments), lists)


@pytest.mark.parametrize("number", ODD_NUMBERS)
@pytest.mark.parametrize("text", ["mlp.{i}.weight", "mlp.{i*3}.weight", "mlp.{i*3+1}.weight", "mlp.{i:int}.weight"])
def test_a_number_that_is_spelled_oddly_is_not_read_as_another_one(text: str, number: str) -> None:
    assert_reads_what_it_writes(text, f"mlp.{number}.weight", {})


@LAW
@given(template_pairs(), st.data())
def test_two_indices_never_get_one_name(pair: Pair, data: st.DataObject) -> None:
    source, target, lists, variables = pair
    one, other = (data.draw(bindings(variables, len(lists["entries"]))) for _ in range(2))
    for text in (source, target):
        template = parse_template(text)
        assert (template.fill(one, lists) == template.fill(other, lists)) == (one == other)


@LAW
@given(template_pairs(), st.data())
def test_a_renaming_can_be_read_backwards(pair: Pair, data: st.DataObject) -> None:
    source, target, lists, variables = (parse_template(pair[0]), parse_template(pair[1]), pair[2], pair[3])
    assert source.variables == target.variables
    bound = data.draw(bindings(variables, len(lists["entries"])))
    before = source.fill(bound, lists)
    after = target.fill(bound, lists)
    assert before is not None
    assert after is not None
    back = target.match(after, lists)
    assert back is not None
    assert source.fill(back, lists) == before


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a.{i}.{j}.w", "b.{i}.w"),
        ("a.{i}.w", "b.w"),
        ("a.w", "b.{i}.w"),
        ("a.{i}.{p:name}", "b.{i}.{q:name}"),
        ("a.{i}", "b.{i:name}"),
        ("a.{rest:path}", "b.{rest:name}"),
    ],
)
def test_a_rule_whose_sides_bind_different_variables_is_refused(source: str, target: str) -> None:
    with pytest.raises(RuleError, match="two tensors could get one name"):
        renaming("r", parse_template(source), parse_template(target))


@pytest.mark.parametrize("text", ["", "a..b", "a.{i", "a.x{i}", "a.{i*0}", "a.{rest:path}.b", "{i}.{i:name}", "a.{I}"])
def test_a_template_that_is_neither_text_nor_variables_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="template"):
        parse_template(text)


def test_a_template_matches_whole_names_only() -> None:
    template = parse_template("fc1.{p:name}")
    assert template.match("fc1.weight", {}) == {"p": "weight"}
    for name in ("fc10.fc1.weight", "fc1.weight.x", "x.fc1.weight", "fc1.", "\nfc1.weight"):
        assert template.match(name, {}) is None


def leading_zeros_are_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "whole_number", lambda text: int(text) if text.isdigit() else None)


def an_index_forgets_its_remainder(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: Any, pieces: Any, lists: Any) -> Any:
        found = original(self, pieces, lists)
        return found if found is not None else original(parse_template("mlp.{i}.weight"), pieces, lists)

    original = names.Template.bind
    monkeypatch.setattr(names.Template, "bind", bind)


def a_variable_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(self: Any, bound: Any, lists: Any) -> Any:
        return original(self, {**bound, **{name: 0 for name, kind in self.variables.items() if kind == "int"}}, lists)

    original = names.Template.fill
    monkeypatch.setattr(names.Template, "fill", fill)


@pytest.mark.parametrize("mutant", [leading_zeros_are_numbers, an_index_forgets_its_remainder, a_variable_is_dropped])
def test_a_mutant_does_not_survive_the_law(mutant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        for number in ("0", "3", "009", "4"):
            assert_reads_what_it_writes("mlp.{i*3}.weight", f"mlp.{number}.weight", {})

    law()
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        law()
