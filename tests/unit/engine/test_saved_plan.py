"""A plan from a file is believed in nothing: each damage is refused with the address where it is."""

from __future__ import annotations

import copy
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locations import ROOT
from weightkit.core.jsonio import canonical_json
from weightkit.core.names import parse_template
from weightkit.core.plan import ConversionTarget, Plan, SecondName
from weightkit.core.rule import Choices, Fate, Mapping, Rule, RuleOp
from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.planning import assert_total, make_plan
from weightkit.engine.saved_plan import read_plan
from weightkit.errors import CorruptFile
from weightkit.shape_ops import op_of

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/json/plan.v1.schema.json").read_text(encoding="utf-8"))
)
Edit = Callable[[dict[str, Any]], object]


def example() -> Plan:
    """A plan that has everything: joined, parted and cast tensors, ties, initial values, what is left out."""
    state = StateSpec(
        {
            "q.w": spec("float32", 4, 2),
            "k.w": spec("float32", 1, 2),
            "kv": spec("float32", 6, 2),
            "half": spec("float16", 3),
            "turned": spec("float32", 2, 3),
            "old": spec("int64"),
            "plain": spec("uint8", 0),
            "first": spec("float32", 2),
            "second": spec("float32", 2),
        },
        {"second": "first"},
    )
    target = StateSpec(
        {
            "qk.w": spec("float32", 5, 2),
            "k2": spec("float32", 2, 2),
            "v2": spec("float32", 4, 2),
            "half": spec("float32", 3),
            "turned": spec("float32", 3, 2),
            "plain": spec("uint8", 0),
            "fresh": spec("float32", 2),
            "missing": spec("float32", 2),
            "first": spec("float32", 2),
            "again": spec("float32", 2),
        },
        {"again": "first"},
    )

    def rule(id: str, sources: str, targets: str, *ops: RuleOp, **more: Any) -> Rule:
        return Rule(
            id, tuple(map(parse_template, sources.split())), tuple(map(parse_template, targets.split())), ops, **more
        )

    rules = (
        rule("merge", "q.{p:name} k.{p:name}", "qk.{p:name}", RuleOp("concat", {"axis": 0})),
        rule("part", "kv", "k2 v2", RuleOp("split", {"axis": 0})),
        rule("cast", "half", "half", RuleOp("cast", {"to": "float32"})),
        rule("turn", "turned", "turned", RuleOp("transpose")),
        rule("plain", "plain", "plain"),
        rule("first", "first", "first"),
        rule("drop", "old", "", fate=Fate.DROP, why="counted by nobody"),
        rule("drop-second", "second", "", fate=Fate.DROP, why="it stands for first"),
        rule("init", "", "fresh", fate=Fate.INIT, why="new", value=0.5),
    )
    plan = make_plan(
        state,
        ConversionTarget("there", target),
        Mapping("m", 1, "here", "there", rules),
        Choices(allow_missing=("missing",)),
    )
    dropped = {name: why for name, why in plan.dropped.items() if name != "second"}
    seconds = {"second": SecondName("first", "shares its storage", checked=False)}
    return replace(plan, dropped=dropped, second_names=seconds, digests=dict.fromkeys(state, "0" * 32), config={"a": 1})


PLAN = example()
DOCUMENT: dict[str, Any] = json.loads(canonical_json(PLAN.to_dict()))


def damaged(edit: Edit) -> str:
    document = copy.deepcopy(DOCUMENT)
    edit(document)
    return json.dumps(document)


def refusal(text: str | bytes) -> str:
    """The message with which a text is refused; reading it neither takes long nor much memory."""
    tracemalloc.start()
    before = time.process_time()
    try:
        with pytest.raises(CorruptFile) as refused:
            read_plan(text, origin="kept.json")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - before < 5
    assert "kept.json" in refused.value.message
    assert refused.value.hint
    assert len(refused.value.message) < 2000
    return refused.value.message


def test_the_example_is_read_back_and_fits_the_schema() -> None:
    SCHEMA.validate(DOCUMENT)
    assert read_plan(canonical_json(DOCUMENT), origin="kept.json") == PLAN


# ---- every field in turn


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The address of every value in the document."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


PLACES = list(places(DOCUMENT))
FIELDS = [path for path in PLACES if isinstance(path[-1], str) and path[:1] != ("config",)] + [("config",)]
OPTIONAL = [path for path in FIELDS if path[-1] == "digest" or path == ("target", "aliases", "again")]
"""Without a tie that it has, a plan is another one, and no worse: the repeated name is then a copy."""


@pytest.mark.parametrize(
    "path", [path for path in FIELDS if path not in OPTIONAL], ids=lambda path: ".".join(map(str, path))
)
def test_a_plan_without_one_of_its_fields_is_refused(path: tuple[Any, ...]) -> None:
    refusal(damaged(lambda document: at(document, path[:-1]).pop(path[-1])))


def kind(value: object) -> str:
    return type(value).__name__


WRONG: tuple[Any, ...] = (None, True, 7, -1, 1.5, "odd", [], [[]], {}, {"x": 1}, [None], 10**30)


@pytest.mark.parametrize(
    "path", [path for path in PLACES if path[0] != "config"], ids=lambda path: ".".join(map(str, path))
)
def test_a_field_of_another_type_is_refused(path: tuple[Any, ...]) -> None:
    was = at(DOCUMENT, path)
    for wrong in WRONG:
        both_numbers = {kind(was), kind(wrong)} <= {"int", "float"}
        if kind(wrong) == kind(was) or (both_numbers and path[-1] == "value"):
            continue
        if wrong == [] and was == []:
            continue

        def edit(document: Any, wrong: Any = wrong) -> None:
            at(document, path[:-1])[path[-1]] = wrong

        refusal(damaged(edit))


OBJECTS = [(), *(path for path in PLACES if isinstance(at(DOCUMENT, path), dict) and path[0] != "config")]


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: ".".join(map(str, path)) or "top")
def test_a_field_that_no_plan_has_is_refused(path: tuple[Any, ...]) -> None:
    refusal(damaged(lambda document: at(document, path).update({"surprise": "x"})))


# ---- lies


def step(document: dict[str, Any], rule: str) -> Any:
    return next(found for found in document["steps"] if found["rule"] == rule)


def _set(rule: str, **fields: Any) -> Edit:
    return lambda document: step(document, rule).update(fields)


def _op(rule: str, **fields: Any) -> Edit:
    return lambda document: step(document, rule)["ops"][0].update(fields)


def _params(rule: str, **params: Any) -> Edit:
    return lambda document: step(document, rule)["ops"][0]["params"].update(params)


LIES: dict[str, tuple[Edit, str]] = {
    "another schema": (lambda d: d.update(schema="weightkit.plan.v9"), "$.schema"),
    "a class that is too good": (lambda d: d.update({"class": "BIJ"}), "$.class"),
    "a strictness that is too good": (lambda d: d.update(strictness="exact"), "$.strictness"),
    "a step's class that is too good": (_op("cast", **{"class": "BIJ"}), "ops[0]"),
    "a step's class that is none": (_op("cast", **{"class": "FINE"}), "ops[0]"),
    "an unknown op": (_op("turn", op="transmogrify"), "ops[0]"),
    "a source that is not there": (_set("turn", sources=["nobody"]), "sources"),
    "a target that is not there": (_set("turn", targets=["nobody"]), "targets"),
    "a step without targets": (_set("turn", targets=[]), "targets"),
    "a step without sources": (_set("turn", sources=[]), "$.steps"),
    "another order of parts": (_set("part", targets=["v2", "k2"]), "$.steps"),
    "another order of sources": (_set("merge", sources=["k.w", "q.w"]), "ops[0]"),
    "a source twice": (_set("merge", sources=["q.w", "k.w", "k.w"]), "ops[0]"),
    "a target of another shape": (lambda d: d["target"]["tensors"]["turned"].update(shape=[2, 3]), "$.steps"),
    "a source of another shape": (lambda d: d["source"]["tensors"]["turned"].update(shape=[2, 3, 1]), "ops[0]"),
    "a source of another type": (lambda d: d["source"]["tensors"]["plain"].update(dtype="int8"), "$.steps"),
    "a type that is none": (lambda d: d["source"]["tensors"]["plain"].update(dtype="float33"), "dtype"),
    "a negative size": (lambda d: d["source"]["tensors"]["plain"].update(shape=[-1]), "shape"),
    "a huge size": (lambda d: d["source"]["tensors"]["plain"].update(shape=[1 << 64]), "shape"),
    "a size that is true": (lambda d: d["source"]["tensors"]["plain"].update(shape=[True]), "shape"),
    "a digest that is none": (lambda d: d["source"]["tensors"]["plain"].update(digest="zz"), "digest"),
    "a step twice": (lambda d: d["steps"].append(d["steps"][0]), ""),
    "a step gone": (lambda d: d["steps"].pop(), ""),
    "a name dropped that is used": (lambda d: d["dropped"].update(turned="why not"), ""),
    "a name dropped that is not there": (lambda d: d["dropped"].update(nobody="why not"), ""),
    "a name dropped without a reason": (lambda d: d["dropped"].update(old=""), "$.dropped"),
    "a name left out that is made": (lambda d: d["left_out"].update(turned="why not"), ""),
    "a name left out without a reason": (lambda d: d["left_out"].update(missing=""), "$.left_out"),
    "a second name of nobody": (lambda d: d["second_names"]["second"].update(of="nobody"), "$.second_names"),
    "a second name of another shape": (lambda d: d["second_names"]["second"].update(of="half"), "$.second_names"),
    "a second name of itself": (lambda d: d["second_names"]["second"].update(of="second"), "$.second_names"),
    "a second name that is compared with nothing": (
        lambda d: d["source"].update(aliases={}),
        "$.second_names",
    ),
    "a repeated name of nobody": (lambda d: d["repeated"].update(again="nobody"), "$.repeated"),
    "a repeated name of itself": (lambda d: d["repeated"].update(again="again"), "$.repeated"),
    "an alias of nobody": (lambda d: d["target"]["aliases"].update(first="nobody"), "aliases"),
    "an alias of an alias": (lambda d: d["target"]["aliases"].update(first="again"), "aliases"),
    "an alias of another shape": (lambda d: d["target"]["aliases"].update({"qk.w": "first"}), "aliases"),
    "an alias of itself": (lambda d: d["source"]["aliases"].update(first="first"), "aliases"),
    "a negative axis": (_params("part", axis=-1), "ops[0]"),
    "an axis that is not there": (_params("part", axis=2), "ops[0]"),
    "an axis that is true": (_params("part", axis=True), "ops[0]"),
    "an axis as text": (_params("part", axis="0"), "ops[0]"),
    "a huge axis": (_params("part", axis=10**40), "ops[0]"),
    "sizes of something else": (_params("part", sizes=[1, 1]), "ops[0]"),
    "sizes that are negative": (_params("part", sizes=[-2, 8]), "ops[0]"),
    "sizes that are huge": (_params("part", sizes=[1 << 62, 1 << 62]), "ops[0]"),
    "sizes of lists": (_params("part", sizes=[[2], [4]]), "ops[0]"),
    "sizes with true": (_params("part", sizes=[True, 5]), "ops[0]"),
    "sizes as a number": (_params("part", sizes=6), "ops[0]"),
    "sizes as floats": (_params("part", sizes=[2.0, 4.0]), "ops[0]"),
    "very many sizes": (_params("part", sizes=[0] * 300_000), "ops[0]"),
    "a parameter too many": (_params("part", count=2), "ops[0]"),
    "axes that are no permutation": (_params("turn", axes=[0, 0]), "ops[0]"),
    "axes of another rank": (_params("turn", axes=[0, 1, 2]), "ops[0]"),
    "very many axes": (_params("turn", axes=list(range(200_000))), "ops[0]"),
    "a type to cast from that is none": (_params("cast", before="NaN"), "ops[0]"),
    "a value that is text": (_params("init", value="NaN"), "ops[0]"),
    "a value that is a list": (_params("init", value=[0.5]), "ops[0]"),
    "an initial shape that is huge": (_params("init", shape=[1 << 40, 1 << 20]), "$.steps"),
    "another initial shape": (_params("init", shape=[3]), "$.steps"),
    "a copy too many": (_op("turn", op="copy", params={"count": 1 << 60}), "ops[0]"),
    "no copy": (_op("turn", op="copy", params={"count": 0}), "ops[0]"),
    "an axis of many parts": (_op("turn", op="unstack", params={"axis": 0, "count": 1 << 62}), "ops[0]"),
    "factors that are huge": (
        _op("turn", op="axis_view", params={"axis": 0, "before": "A=999999999,B=999999999", "order": "B,A"}),
        "ops[0]",
    ),
    "factors that are long": (
        _op("turn", op="axis_view", params={"axis": 0, "before": "A=1," * 100_000, "order": "A"}),
        "ops[0]",
    ),
    "padding without end": (
        _op("turn", op="pad", params={"axis": 0, "before": "n=2", "after": "n=999999999"}),
        "",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_where_it_stands(lie: str) -> None:
    edit, address = LIES[lie]
    assert address in refusal(damaged(edit))


def test_two_second_names_that_stand_for_each_other_are_refused() -> None:
    def edit(document: dict[str, Any]) -> None:
        document["steps"].remove(step(document, "first"))
        document["second_names"]["first"] = {"of": "second", "why": "w", "checked": False}
        document["repeated"] = {}
        document["left_out"] |= {"first": "x", "again": "x"}

    refusal(damaged(edit))


def test_numbers_that_are_not_json_are_refused() -> None:
    text = json.dumps(DOCUMENT)
    for word in ("NaN", "Infinity", "1e999", "-1e999", "1" + "0" * 5000):
        refusal(text.replace('"config": {"a": 1}', f'"config": {{"a": {word}}}'))
        refusal(text.replace('"value": 0.5', f'"value": {word}'))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"schema": "weightkit.plan.v1"}',
        b'{"schema": "weightkit.plan.v1", "schema": "weightkit.plan.v1"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"weightkit.plan.v1"',
        "\ufeff{}".encode(),
        b'{"schema": "weightkit.plan.v1", "source": {"tensors": {"\\ud800": {"dtype": 1}}}}',
    ],
)
def test_what_is_no_plan_at_all_is_refused(text: bytes) -> None:
    refusal(text)


def test_a_chain_of_very_many_tensors_does_not_take_long_to_refuse() -> None:
    many = [
        {"op": "copy", "params": {"count": 65536}, "class": "INJ", "preserves": ""},
        {"op": "copy", "params": {"count": 65536}, "class": "INJ", "preserves": ""},
    ]
    refusal(damaged(_set("turn", ops=many)))


# ---- anything


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(("", "first", "float32", "BIJ", "copy", "split", "\ud800", "0" * 32, "T=3,C=2|n=1")),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """The example with one to three values replaced, moved, doubled or taken out."""
    document = copy.deepcopy(DOCUMENT)
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(document))
        if not known:
            break
        path = draw(st.sampled_from(known))
        parent, key = at(document, path[:-1]), path[-1]
        how = draw(st.sampled_from(("replace", "replace", "delete", "swap", "double", "nudge")))
        if how == "replace":
            parent[key] = draw(VALUES)
        elif how == "delete":
            del parent[key]
        elif how == "swap":
            other = draw(st.sampled_from(known))
            parent[key] = copy.deepcopy(at(document, other))
        elif how == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif how == "nudge" and type(parent[key]) is int:
            parent[key] += draw(st.sampled_from((-1, 1)))
    return json.dumps(document)


@settings(deadline=None, max_examples=500, database=None)
@given(mutations())
def test_a_changed_plan_is_refused_or_still_a_plan(text: str) -> None:
    try:
        plan = read_plan(text, origin="kept.json")
    except CorruptFile:
        refusal(text)
        return
    assert_total(plan)
    SCHEMA.validate(json.loads(text))
    for found in plan.steps:
        specs = found.source_specs
        for call in found.ops:
            specs = op_of(call).infer(specs)
        assert specs == found.target_specs
    assert read_plan(canonical_json(plan.to_dict()), origin="kept.json").digest == plan.digest
