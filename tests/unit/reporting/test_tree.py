"""The tree accounts for every tensor exactly once, its subtotals add up, and thousands of layers stay readable."""

from __future__ import annotations

import re
import time
from itertools import product
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightkit.reporting.tree import MOST_LINES, Line, numbered, tree_lines, walk

LAW = settings(deadline=None, max_examples=300, database=None)
SEGMENTS = st.sampled_from(("encoder", "layers", "0", "1", "2", "10", "007", "qf0", "qf1", "weight", "größe", "", "²"))
NAMES = st.lists(
    st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join).filter(bool), min_size=1, max_size=30, unique=True
)
SHAPES = st.sampled_from(([], [0], [2], [2, 3]))


def row(name: str, shape: list[int], *, alias_of: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "dtype": "float32",
        "shape": shape,
        "nbytes": 4 * prod(shape),
        "group": name.split(".")[0],
        "alias_of": alias_of,
        **more,
    }


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of any names, some of them second names of earlier ones."""
    rows: list[dict[str, Any]] = []
    for name in draw(NAMES):
        firsts = [r for r in rows if r["alias_of"] is None]
        if firsts and draw(st.integers(0, 3)) == 0:
            first = draw(st.sampled_from(firsts))
            rows.append(row(name, first["shape"], alias_of=first["name"]))
        else:
            rows.append(row(name, draw(SHAPES)))
    return rows


def options(segment: str) -> list[str]:
    """The segments that one folded segment stands for."""
    found = re.fullmatch(r"([^{}]*)\{([^{}]*)\}", segment)
    if found is None:
        return [segment]
    listed = []
    for piece in re.split(r",\s?", found[2]):
        run = re.fullmatch(r"(\d+)\.\.(\d+)", piece)
        listed += [str(n) for n in range(int(run[1]), int(run[2]) + 1)] if run else [piece]
    return [found[1] + one for one in listed]


def split(label: str) -> list[str]:
    """A label's segments; the dots of a run ``{0..11}`` are none between segments."""
    return [s.replace("\0", "..") for s in re.sub(r"(?<=\d)\.\.(?=\d+[,}])", "\0", label).split(".")]


def tensor_names(lines: list[Line], rows: list[dict[str, Any]]) -> list[str]:
    """Every name that the lines stand for; below a module that is another one as a whole, those of the rows."""
    found: list[str] = []
    path: list[str] = []
    for (depth, label, _, dtype, _, _, note), after in zip(lines, [*lines[1:], None], strict=True):
        if depth == 0:
            continue
        path[depth - 1 :] = [label]
        segments = [segment for part in path for segment in split(part)]
        stands = [".".join(names) for names in product(*map(options, segments))]
        if dtype:
            found += stands
        elif note.startswith("= "):
            found += [r["name"] for r in rows for module in stands if r["name"].startswith(f"{module}.")]
        else:
            assert after is not None
            assert after[0] == depth + 1
    return found


@LAW
@given(tables())
def test_the_tree_names_every_tensor_exactly_once(rows: list[dict[str, Any]]) -> None:
    lines = walk(rows, title="all", most=10**9)
    assert sorted(tensor_names(lines, rows)) == sorted(r["name"] for r in rows)


@LAW
@given(tables(), st.sampled_from((1, 5, 10**9)), st.booleans())
def test_subtotals_add_up_to_the_whole(rows: list[dict[str, Any]], most: int, first_is_buffer: bool) -> None:
    buffers = frozenset(r["name"] for r in rows[: int(first_is_buffer)])
    lines = walk(rows, title="all", buffers=buffers, most=most)
    unique = [r for r in rows if r["alias_of"] is None and r["name"] not in buffers]
    assert lines[0][2] == len(rows)
    assert lines[0][5] == sum(prod(r["shape"]) for r in unique)
    for index, line in enumerate(lines):
        below = []
        for other in lines[index + 1 :]:
            if other[0] <= line[0]:
                break
            if other[0] == line[0] + 1:
                below.append(other)
        if below:
            assert line[2] == sum(other[2] for other in below)
            assert line[5] == sum(other[5] for other in below)


def test_a_forgotten_leaf_would_be_noticed() -> None:
    rows = [row("a.0.w", [2]), row("a.1.w", [2]), row("b", [3])]
    lines = walk(rows, title="all")
    assert sorted(tensor_names(lines[:-1], rows)) != sorted(r["name"] for r in rows)


def test_a_tree_as_it_is_printed() -> None:
    rows = [
        row("encoder.front.0.weight", [8, 9, 3, 3]),
        row("encoder.front.0.bias", [8]),
        *(row(f"encoder.front.{i}.{k}", s) for i in (2, 4, 6) for k, s in (("weight", [8, 8, 3, 3]), ("bias", [8]))),
        row("net.norm.running_mean", [8]),
        *(row(f"net.layers.{i}.{k}", [8]) for i in range(12) for k in ("weight", "bias")),
        row("copy.front.0.weight", [8, 9, 3, 3], alias_of="encoder.front.0.weight"),
        row("copy.front.0.bias", [8], alias_of="encoder.front.0.bias"),
        row("head.weight", [4], alias_of="net.layers.3.weight"),
        row("head.scale", [4], kind="sparse_coo"),
        row("log_alpha", []),
    ]
    assert tree_lines(rows, title="all tensors", buffers=frozenset({"net.norm.running_mean"})) == [
        "                                       tensors  dtype    shape         parameters",
        "all tensors                                 38                              2,605",
        "├── log_alpha                                1  float32  []                     1",
        "├── encoder.front                            8                              2,408",
        "│   ├── 0                                    2                                656",
        "│   │   ├── weight                           1  float32  [8, 9, 3, 3]         648",
        "│   │   └── bias                             1  float32  [8]                    8",
        "│   └── {2,4,6}                              6                              1,752",
        "│       ├── weight                           3  float32  [8, 8, 3, 3]       1,728",
        "│       └── bias                             3  float32  [8]                   24",
        "├── net                                     25                                192",
        "│   ├── norm.running_mean                    1  float32  [8]                       buffer, 8 values",
        "│   └── layers.{0..11}.{weight, bias}       24  float32  [8]                  192",
        "├── copy                                     2                                     = encoder",
        "└── head                                     2                                  4",
        "    ├── weight                               1  float32  [4]                       = net.layers.3.weight",
        "    └── scale                                1  float32  [4]                    4  sparse_coo",
    ]


def test_a_module_that_is_another_one_is_one_line_and_counts_once() -> None:
    rows = [row("a.x.0.w", [2]), row("a.x.1.w", [2])]
    rows += [row(r["name"].replace("a.", "b.", 1), [2], alias_of=r["name"]) for r in rows]
    rows += [row("c.own", [1]), row("c.x.0.w", [2], alias_of="a.x.0.w"), row("t", [2], alias_of="a.x.0.w")]
    shown = [(line[1], line[2], line[5], line[6]) for line in walk(rows, title="all")]
    assert shown == [
        ("all", 7, 5, ""),
        ("t", 1, 0, "= a.x.0.w"),
        ("a.x.{0,1}.w", 2, 4, ""),
        ("b", 2, 0, "= a"),
        ("c", 2, 1, ""),
        ("own", 1, 1, ""),
        ("x", 1, 0, "= a.x"),
    ]


def test_tied_layers_fold_with_the_layers_that_they_are_tied_to() -> None:
    rows = [row(f"online.l.{i}.w", [2]) for i in range(3)]
    for i in range(3):
        rows += [row(f"t.l.{i}.w", [2], alias_of=f"online.l.{i}.w"), row(f"t.l.{i}.own", [1])]
    shown = [(line[1], line[2], line[6]) for line in walk(rows, title="all")][2:]
    assert shown == [("t.l.{0..2}", 6, ""), ("w", 3, "= online.l.{0..2}.w"), ("own", 3, "")]


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        (["0", "2", "4", "6"], "{0,2,4,6}"),
        (["0", "1"], "{0,1}"),
        ([str(i) for i in range(12)], "{0..11}"),
        (["0", "1", "2", "7"], "{0..2,7}"),
        (["qf0", "qf1"], "qf{0,1}"),
        (["00", "01"], "{00,01}"),
        (["weight", "bias"], "{weight, bias}"),
        (["a1", "b1"], "{a1, b1}"),
        (["x{1}"], "x\\{1\\}"),
        (["x{1", "x{2"], "x\\{{1,2}"),
    ],
)
def test_siblings_fold_so(names: list[str], folded: str) -> None:
    assert numbered(names) == folded


def test_layers_of_another_structure_do_not_fold() -> None:
    rows = [row("a.0.w", [2]), row("a.1.w", [2]), row("a.2.w", [3]), row("a.3.w", [2]), row("a.3.b", [2])]
    assert [line[1] for line in walk(rows, title="all")] == ["all", "a", "{0,1}.w", "2.w", "3.{w, b}"]


def layers(count: int) -> list[dict[str, Any]]:
    kinds = ("q", "k", "v", "o", "up", "down", "gate", "norm_a", "norm_b", "rot")
    return [row(f"model.layers.{i // 10}.{kinds[i % 10]}.weight", [4, 4]) for i in range(count)]


def test_thousands_of_layers_are_a_few_lines() -> None:
    lines = walk(layers(5000), title="all")
    assert len(lines) == 12
    assert lines[0][2] == 5000


@pytest.mark.parametrize("deep", [False, True])
def test_tensors_that_do_not_fold_are_cut_and_still_counted(deep: bool) -> None:
    rows = [row(f"m.{chr(97 + i % 26)}x{i}y.{'a.b.' if deep else ''}w", [i + 1]) for i in range(3000)]
    lines = walk(rows, title="all")
    assert len(lines) <= MOST_LINES
    assert lines[0][2] == 3000
    assert any("more" in line[1] and "--flat" in line[6] for line in lines)
    assert sum(line[2] for line in lines if line[0] == 2) == 3000


def test_many_different_modules_lose_their_deepest_level_and_say_so() -> None:
    rows = [row(f"m.a{i % 20}x.b{i}y.c{j}z.w", [i + 1]) for i in range(400) for j in range(3)]
    lines = walk(rows, title="all")
    assert len(lines) <= MOST_LINES + 20
    assert any(line[6] == "..." for line in lines)
    assert sum(line[2] for line in lines if line[0] == 1) == 1200


def test_a_name_of_thousands_of_segments_is_one_line() -> None:
    name = ".".join("a" * 2000)
    lines = tree_lines([row(name, [1]), row("b.c", [1])], title="all")
    assert max(map(len, lines)) < 600


def test_the_time_grows_with_the_number_of_tensors_only() -> None:
    small, large = layers(2000), layers(40_000)

    def seconds(rows: list[dict[str, Any]]) -> float:
        best = 1e9
        for _ in range(3):
            start = time.perf_counter()
            tree_lines(rows, title="all")
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(large) < 20 * 6 * seconds(small)


@LAW
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
def test_nothing_in_a_name_reaches_the_terminal_raw(names: list[str]) -> None:
    rows = [row(name, [1]) for name in names]
    rows += [row(f"alias.{name}", [1], alias_of=name) for name in names]
    for line in tree_lines(rows, title="all"):
        assert line.isprintable(), ascii(line)


def test_a_terminal_without_line_drawing_gets_ascii() -> None:
    lines = tree_lines(layers(20), title="all", ascii_only=True)
    assert "\n".join(lines).isascii()
    assert lines[2].startswith("`-- model.layers.{0,1}")
