"""A mapping file is read as it is meant, or refused with the file's name and the address of what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locations import ROOT
from weightkit.core.rule import Fate, Mapping
from weightkit.errors import FormatError, RuleError, WeightkitError
from weightkit.mapping_file import parse_mapping, read_mapping

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "schemas/json/mapping.v1.schema.json").read_text(encoding="utf-8"))
)
TOP = 'name = "m"\nversion = 1\nsource_layout = "here"\ntarget_layout = "there"\n'
PLAIN = '[[rule]]\nid = "r"\nsource = "a.{x:name}"\ntarget = "b.{x:name}"\n'


def rule(text: str) -> str:
    return f'{TOP}[[rule]]\nid = "r"\n{text}\n'


def axes(factors: str, axis: int = 0) -> str:
    return f'{TOP}[[axes]]\npattern = "*"\naxis = {axis}\nfactors = "{factors}"\n'


def with_op(text: str) -> str:
    return rule(f'source = "a"\ntarget = "b"\nops = [{text}]')


GOOD: dict[str, str] = {
    "nothing but a name": TOP,
    "a rename": TOP + PLAIN,
    "names for lint": 'source_names = ["a.{x:name}"]\ntarget_names = []\n' + TOP + PLAIN,
    "several sources": rule('sources = ["a.{e}.g", "a.{e}.u"]\ntarget = "b"\n'
                            'ops = [{op = "concat", axis = 0}, {op = "stack", axis = 0, over = "e"}]'),
    "several targets": rule('source = "a"\ntargets = ["b", "c"]\nops = [{op = "split", axis = 0, sizes = [4, 1]}]'),
    "texts and numbers of ops": with_op('{op = "axis_view", axis = 1, before = "H=2,W=3", order = "W,H"}'),
    "every way to write a variable": rule('source = "a.{i*3+1}.{v@cameras}.{p:name}.{n:int}.{rest:path}"\n'
                                          'target = "b.{v}.{i}.{n*2}.{p:name}.{rest:path}"'),
    "a drop": rule('source = "a"\nfate = "drop"\nwhy = "old"'),
    "initial values": rule('target = "a"\nfate = "init"\nwhy = "new"\nvalue = 1'),
    "initial values that are no whole number": rule('target = "a"\nfate = "init"\nwhy = "new"\nvalue = -0.5'),
    "a rule that says that it maps": rule('source = "a"\ntarget = "b"\nfate = "map"\nwhy = "so"'),
    "an override": TOP + PLAIN + '[[rule]]\nid = "all"\nsource = "{rest:path}"\ntarget = "{rest:path}"\n'
    '[[rule]]\nid = "one"\nsource = "q"\ntarget = "q"\noverrides = ["all", "r"]\n',
    "an alias": TOP + '[[alias]]\nname = "x.{rest:path}"\nof = "y.{rest:path}"\nwhy = "twice"\n',
    "companions": TOP + '[[companions]]\nprefix = "opt.state"\nsuffixes = ["exp_avg"]\nscalars = ["step"]\n',
    "companions without scalars": TOP + '[[companions]]\nprefix = "opt"\nsuffixes = []\n',
    "axes": TOP + '[[axes]]\npattern = "*.weight"\naxis = 1\nfactors = "vis=50|T=3,D=18|act=6"\n',
}  # fmt: skip

# text, what the message names; whether the schema says so too (it knows no templates, and no rule but the one it reads)
BAD: dict[str, tuple[str, str, bool]] = {
    "not TOML": ("name = ", "not TOML", False),
    "a key twice": (TOP + 'name = "n"\n', "not TOML", False),
    "no name": (TOP.replace('name = "m"\n', ""), "$.name", True),
    "an empty name": (TOP.replace('"m"', '""'), "$.name", True),
    "a name that is a number": (TOP.replace('"m"', "1"), "$.name", True),
    "a name that is a date": (TOP.replace('"m"', "1979-05-27"), "$.name", True),
    "no version": (TOP.replace("version = 1\n", ""), "$.version", True),
    "a negative version": (TOP.replace("= 1\n", "= -1\n"), "$.version", True),
    "a version that is true": (TOP.replace("= 1\n", "= true\n"), "$.version", True),
    "a version that is text": (TOP.replace("= 1\n", '= "1"\n'), "$.version", True),
    "no source layout": (TOP.replace("source_layout", "source_name"), "$", True),
    "an unknown key": (TOP + "surprise = 1\n", "'surprise'", True),
    "rules that are no tables": (TOP + "rule = 1\n", "$.rule", True),
    "one table of rules": (TOP + '[rule]\nid = "r"\n', "$.rule", True),
    "a rule without id": (TOP + '[[rule]]\nsource = "a"\ntarget = "b"\n', "$.rule[0].id", True),
    "an empty id": (TOP + '[[rule]]\nid = ""\nsource = "a"\ntarget = "b"\n', "$.rule[0].id", True),
    "an unknown key of a rule": (rule('source = "a"\ntarget = "b"\nsurprise = 1'), "$.rule[0]", True),
    "both source and sources": (rule('source = "a"\nsources = ["a"]\ntarget = "b"'), "$.rule[0].source", True),
    "both target and targets": (rule('source = "a"\ntarget = "a"\ntargets = ["b"]'), "$.rule[0].target", True),
    "no source": (rule('target = "b"'), "$.rule[0]", True),
    "no target": (rule('source = "a"'), "$.rule[0]", True),
    "sources that are none": (rule('sources = []\ntarget = "b"'), "$.rule[0]", True),
    "targets that are none": (rule('source = "a"\ntargets = []'), "$.rule[0]", True),
    "a source that is a list": (rule('source = ["a"]\ntarget = "b"'), "$.rule[0].source", True),
    "sources that are one text": (rule('sources = "a"\ntarget = "b"'), "$.rule[0].sources", True),
    "an empty source": (rule('source = ""\ntarget = "b"'), "$.rule[0].source", True),
    "an unknown fate": (rule('source = "a"\ntarget = "b"\nfate = "guess"'), "$.rule[0].fate", True),
    "a fate that is a list": (rule('source = "a"\ntarget = "b"\nfate = ["map"]'), "$.rule[0].fate", True),
    "a drop without why": (rule('source = "a"\nfate = "drop"'), "$.rule[0]", True),
    "a drop with a blank why": (rule('source = "a"\nfate = "drop"\nwhy = "  "'), "$.rule[0]", True),
    "a drop with target": (rule('source = "a"\ntarget = "b"\nfate = "drop"\nwhy = "w"'), "$.rule[0]", True),
    "a drop with ops": (rule('source = "a"\nfate = "drop"\nwhy = "w"\nops = [{op = "transpose"}]'), "$.rule[0]", True),
    "a drop without source": (rule('fate = "drop"\nwhy = "w"'), "$.rule[0]", True),
    "a drop with a value": (rule('source = "a"\nfate = "drop"\nwhy = "w"\nvalue = 1'), "$.rule[0].value", True),
    "an init without why": (rule('target = "a"\nfate = "init"'), "$.rule[0]", True),
    "an init with source": (rule('source = "b"\ntarget = "a"\nfate = "init"\nwhy = "w"'), "$.rule[0]", True),
    "an init without target": (rule('fate = "init"\nwhy = "w"'), "$.rule[0]", True),
    "an init of true": (rule('target = "a"\nfate = "init"\nwhy = "w"\nvalue = true'), "$.rule[0].value", True),
    "an init of NaN": (rule('target = "a"\nfate = "init"\nwhy = "w"\nvalue = nan'), "$.rule[0].value", False),
    "an init of infinity": (rule('target = "a"\nfate = "init"\nwhy = "w"\nvalue = -inf'), "$.rule[0].value", False),
    "an init of too much": (
        rule(f'target = "a"\nfate = "init"\nwhy = "w"\nvalue = 1{"0" * 400}'), "$.rule[0].value", False),
    "a value of a map": (rule('source = "a"\ntarget = "b"\nvalue = 1'), "$.rule[0].value", True),
    "ops that are a table": (rule('source = "a"\ntarget = "b"\nops = {op = "transpose"}'), "$.rule[0].ops", True),
    "ops that are texts": (rule('source = "a"\ntarget = "b"\nops = ["transpose"]'), "$.rule[0].ops[0]", True),
    "an op without name": (with_op("{axis = 0}"), "$.rule[0].ops[0].op", True),
    "an op with a list of texts": (with_op('{op = "x", sizes = ["a"]}'), "$.rule[0].ops[0].sizes", True),
    "an op with a list of lists": (with_op('{op = "x", sizes = [[1]]}'), "$.rule[0].ops[0].sizes", True),
    "an op with true": (with_op('{op = "x", axis = true}'), "$.rule[0].ops[0].axis", True),
    "an op with infinity": (with_op('{op = "x", axis = inf}'), "$.rule[0].ops[0].axis", False),
    "an op over a number": (with_op('{op = "x", over = 1}'), "$.rule[0].ops[0].over", True),
    "an op over nothing": (with_op('{op = "x", over = ""}'), "$.rule[0].ops[0].over", True),
    "an op over what is on both sides": (
        rule('source = "a.{e}"\ntarget = "b.{e}"\nops = [{op = "stack", axis = 0, over = "e"}]'), "$.rule[0]", False),
    "an op over a text": (
        rule('source = "a.{e:name}"\ntarget = "b"\nops = [{op = "stack", axis = 0, over = "e"}]'), "$.rule[0]", False),
    "lists that are no table": (TOP + "lists = 1\n", "$.lists", True),
    "a list that is a text": (TOP + '[lists]\nq = "Q1"\n', "$.lists.q", True),
    "a list of nothing": (TOP + "[lists]\nq = []\n", "$.lists.q", True),
    "a list of numbers": (TOP + "[lists]\nq = [1]\n", "$.lists.q", True),
    "a list with an entry twice": (TOP + '[lists]\nq = ["a", "a"]\n', "$.lists.q", True),
    "a list with an entry of two segments": (TOP + '[lists]\nq = ["a.b"]\n', "$.lists.q", True),
    "a list with a variable": (TOP + '[lists]\nq = ["{v}"]\n', "$.lists.q", True),
    "a variable that is lost": (rule('source = "a.{x:name}"\ntarget = "b"'), "$.rule[0]", False),
    "a variable that is half a segment": (rule('source = "a{x}"\ntarget = "b"'), "$.rule[0].source", False),
    "an open brace": (rule('source = "a.{x"\ntarget = "b"'), "$.rule[0].source", False),
    "a rest that is not last": (rule('source = "{x:path}.a"\ntarget = "b"'), "$.rule[0].source", False),
    "an empty segment": (rule('source = "a..b"\ntarget = "b"'), "$.rule[0].source", False),
    "sources of different variables": (
        rule('sources = ["a.{x:name}", "b"]\ntarget = "c.{x:name}"\nops = [{op = "concat", axis = 0}]'),
        "$.rule[0]", False),
    "an id twice": (TOP + PLAIN + PLAIN, "'r'", False),
    "an override of nobody": (rule('source = "a"\ntarget = "b"\noverrides = ["nobody"]'), "'nobody'", False),
    "an override of itself": (rule('source = "a"\ntarget = "b"\noverrides = ["r"]'), "'r'", False),
    "overrides that are one text": (rule('source = "a"\ntarget = "b"\noverrides = "r"'), "$.rule[0].overrides", True),
    "an alias without why": (TOP + '[[alias]]\nname = "x"\nof = "y"\n', "$.alias[0].why", True),
    "an alias of other variables": (TOP + '[[alias]]\nname = "x"\nof = "{y}"\nwhy = "w"\n', "$.alias[0]", False),
    "an unknown key of an alias": (TOP + '[[alias]]\nname = "x"\nof = "y"\nwhy = "w"\nid = "i"\n', "$.alias[0]", True),
    "companions without prefix": (TOP + '[[companions]]\nsuffixes = ["a"]\n', "$.companions[0].prefix", True),
    "companions without suffixes": (TOP + '[[companions]]\nprefix = "a"\n', "$.companions[0].suffixes", True),
    "an empty suffix": (TOP + '[[companions]]\nprefix = "a"\nsuffixes = [""]\n', "$.companions[0].suffixes", True),
    "axes that do not say their size": (axes("T,C=3"), "$.axes[0].factors", True),
    "axes with a factor of none": (axes("T=0"), "$.axes[0].factors", True),
    "axes with a factor that is no word": (axes("1T=3"), "$.axes[0].factors", True),
    "axes with a factor that is huge": (axes("T=1234567890"), "$.axes[0].factors", True),
    "a negative axis": (axes("T=3", -1), "$.axes[0].axis", True),
    "a template of the source's names": ('source_names = ["a.{"]\n' + TOP, "$.source_names", False),
    "a number of more digits than a text can have": (TOP.replace("= 1\n", f"= 1{'0' * 5000}\n"), "", False),
    "a large number in another base": (TOP.replace('"m"', f"0x{'f' * 5000}"), "", False),
    "a version that is large in another base": (TOP.replace("= 1\n", f"= 0x{'f' * 5000}\n"), "", False),
    "lists that nest very deep": (TOP.replace('"m"', "[" * 20_000 + "]" * 20_000), "", False),
    "tables that nest very deep": (TOP.replace("name =", f"name.{'a.' * 3000}a ="), "", False),
    "tables of a rule that nest very deep": (rule(f"source.{'a.' * 3000}a = 1"), "", False),
}  # fmt: skip


def loaded(text: str) -> Any:
    return tomllib.loads(text)


@pytest.mark.parametrize("what", GOOD)
def test_a_good_mapping_is_read_and_fits_its_schema(what: str) -> None:
    text = GOOD[what]
    SCHEMA.validate(loaded(text))
    mapping = parse_mapping(text, origin="m.toml")
    assert isinstance(mapping, Mapping)
    assert len(mapping.digest) == 64
    assert len(mapping.rules) == text.count("[[rule]]")


@pytest.mark.parametrize("what", BAD)
def test_a_bad_mapping_is_refused_with_the_file_and_the_address(what: str, tmp_path: Path) -> None:
    text, address, _ = BAD[what]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((RuleError, FormatError)) as refused:
        read_mapping(path)
    assert "mine.toml" in refused.value.message
    assert address in refused.value.message
    assert len(refused.value.message) < 2500


@pytest.mark.parametrize("what", [what for what, (_, _, schema) in BAD.items() if schema])
def test_the_schema_refuses_what_the_parser_refuses(what: str) -> None:
    assert not SCHEMA.is_valid(loaded(BAD[what][0]))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (TOP + "sourc_names = []\n", "source_names"),
        (rule('source = "a"\ntraget = "b"'), "target"),
        (rule('source = "a"\ntarget = "b"\noverides = []'), "overrides"),
        (TOP + '[[alias]]\nnam = "x"\n', "name"),
        (TOP + '[[companions]]\nprefix = "x"\nsufixes = []\n', "suffixes"),
        (TOP + '[[axes]]\npatern = "x"\n', "pattern"),
    ],
)
def test_a_key_that_is_misspelled_is_answered_with_the_one_that_was_meant(text: str, meant: str) -> None:
    with pytest.raises(RuleError) as refused:
        parse_mapping(text, origin="m.toml")
    assert f"did you mean {meant!r}" in refused.value.hint


def test_all_that_a_rule_says_is_read() -> None:
    text = TOP + PLAIN + (
        '[[rule]]\nid = "fresh"\ntargets = ["c", "d"]\nfate = "init"\nwhy = "new"\nvalue = 2\n'
        '[[rule]]\nid = "gone"\nsource = "e"\nfate = "drop"\nwhy = "old"\noverrides = ["r"]\n'
        '[[rule]]\nid = "join"\nsources = ["f.{e}", "g.{e}"]\ntarget = "h"\n'
        'ops = [{op = "concat", axis = 1}, {op = "stack", axis = 0, over = "e"}]\n'
    )  # fmt: skip
    plain, fresh, gone, join = parse_mapping(text, origin="m.toml").rules
    assert (plain.fate, plain.is_plain, plain.ops, plain.overrides) == (Fate.MAP, True, (), ())
    assert (fresh.fate, fresh.value, [t.text for t in fresh.targets], fresh.why) == (Fate.INIT, 2.0, ["c", "d"], "new")
    assert (gone.fate, gone.overrides, gone.why) == (Fate.DROP, ("r",), "old")
    assert [(op.name, dict(op.params), op.over) for op in join.ops] == [
        ("concat", {"axis": 1}, ""),
        ("stack", {"axis": 0}, "e"),
    ]


# ---- files


def test_a_file_that_is_not_utf8_is_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(TOP.encode() + b"# \xff\n")
    with pytest.raises(FormatError, match=r"mine\.toml.*UTF-8") as refused:
        read_mapping(path)
    assert str(len(TOP) + 2) in refused.value.message


@pytest.mark.parametrize("name", ["nobody.toml", ".", "nobody/mine.toml", "x" * 300])
def test_a_file_that_is_not_there_or_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_mapping(tmp_path / name)


def test_a_file_that_is_far_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FormatError, match=r"mine\.toml"):
        read_mapping(path)


def test_a_file_with_windows_line_ends_and_one_with_a_mark_in_front(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes((TOP + PLAIN).replace("\n", "\r\n").encode())
    assert read_mapping(path) == parse_mapping(TOP + PLAIN, origin="m.toml")
    path.write_bytes(b"\xef\xbb\xbf" + TOP.encode())
    with pytest.raises(RuleError, match=r"mine\.toml"):
        read_mapping(path)


@pytest.mark.timeout(60)
def test_a_large_mapping_is_read() -> None:
    text = TOP + "".join(
        f'[[rule]]\nid = "{number}"\nsource = "a{number}.{{x:name}}"\ntarget = "b{number}.{{x:name}}"\n'
        for number in range(2000)
    )
    assert len(parse_mapping(text, origin="m.toml").rules) == 2000


# ---- schema and parser


VALUES = st.one_of(
    st.sampled_from(("a", "b.{x:name}", "drop", "init", "map", "T=3,C=2", "", "why", "e")),
    st.integers(-1, 2),
    st.booleans(),
    st.lists(st.sampled_from(("a", "b")), max_size=2),
    st.lists(st.integers(0, 2), max_size=2),
)


def written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    return f"[{', '.join(map(written, value))}]" if isinstance(value, list) else str(value)


@settings(deadline=None, max_examples=300, database=None)
@given(
    st.dictionaries(
        st.sampled_from(("id", "source", "sources", "target", "targets", "fate", "why", "overrides", "value", "idd")),
        VALUES,
        max_size=5,
    )
)
def test_what_the_schema_refuses_of_a_rule_the_parser_refuses_too(found: dict[str, Any]) -> None:
    text = TOP + "[[rule]]\n" + "".join(f"{key} = {written(value)}\n" for key, value in found.items())
    valid = SCHEMA.is_valid(loaded(text))
    beyond_the_schema = ("binds", "override", "two rules are called", "segment")
    try:
        parse_mapping(text, origin="m.toml")
    except WeightkitError as error:
        accepted, message = False, error.message
    else:
        accepted, message = True, ""
    assert accepted == valid or (valid and any(word in message for word in beyond_the_schema)), message
