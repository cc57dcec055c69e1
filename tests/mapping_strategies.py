"""Random mappings with the tensors they speak of, and a second, slower opinion on what must come out.

The oracle here shares nothing with the engine: templates are read with regular expressions, every rule is tried on
every name, and tensors are joined and parted with numpy by what the variables say, not by the order of a list.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping as Names
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from hypothesis import strategies as st

from weightkit.core.names import parse_template
from weightkit.core.plan import ConversionTarget
from weightkit.core.rule import Choices, Fate, Mapping, Rule, RuleOp, Spelling
from weightkit.core.tensor import StateSpec, spec

Array = Any
Lists = dict[str, tuple[str, ...]]
LOSSY = frozenset({"slice"})
INJ = frozenset({"copy", "same", "pad"})
JOINS = frozenset({"stack", "concat", "same"})
PARTS = frozenset({"unstack", "split", "copy"})


class Refused(Exception):
    """The oracle's answer where one of the two partitions does not hold."""


# ---- the case


@dataclass(frozen=True)
class Line:
    """One rule as a mapping file has it."""

    id: str
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    ops: tuple[dict[str, Any], ...] = ()
    fate: str = "map"
    overrides: tuple[str, ...] = ()
    value: float = 0.0

    def rule(self) -> Rule:
        ops = tuple(
            RuleOp(op["op"], {k: v for k, v in op.items() if k not in ("op", "over")}, op.get("over", ""))
            for op in self.ops
        )
        return Rule(
            self.id,
            tuple(map(parse_template, self.sources)),
            tuple(map(parse_template, self.targets)),
            ops,
            Fate(self.fate),
            "" if self.fate == "map" else "said so",
            self.overrides,
            self.value,
        )


@dataclass(frozen=True)
class Case:
    """Tensors, rules between names, and the target's specs where somebody says what they are."""

    arrays: dict[str, Array]
    lines: tuple[Line, ...]
    goals: dict[str, tuple[str, tuple[int, ...]]] | None = None
    ties: dict[str, str] = field(default_factory=dict)
    goal_ties: dict[str, str] = field(default_factory=dict)
    spellings: tuple[tuple[str, str], ...] = ()
    lists: Lists = field(default_factory=dict)
    allow_lossy: bool = False
    drop: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def mapping(self) -> Mapping:
        spellings = (Spelling(parse_template(name), parse_template(of), "both") for name, of in self.spellings)
        rules = tuple(line.rule() for line in self.lines)
        return Mapping("random", 1, "here", "there", rules, spellings=tuple(spellings))

    @property
    def source(self) -> StateSpec:
        return StateSpec({name: spec(a.dtype.name, *a.shape) for name, a in self.arrays.items()}, self.ties)

    @property
    def target(self) -> ConversionTarget | None:
        if self.goals is None:
            return None
        state = StateSpec({name: spec(dtype, *shape) for name, (dtype, shape) in self.goals.items()}, self.goal_ties)
        return ConversionTarget("there", state, self.lists)

    @property
    def choices(self) -> Choices:
        return Choices(
            drop=tuple(name for name in self.drop if name in self.arrays),
            allow_missing=self.missing,
            allow_lossy=self.allow_lossy,
        )


def tensor(name: str, dtype: str, *shape: int) -> Array:
    """Values that depend on the name, with the numbers that are not equal to themselves or hide their sign."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    made = (rng.standard_normal(shape) * 4).astype(dtype)
    if made.dtype.kind == "f" and made.size:
        flat = made.reshape(-1)
        flat[rng.integers(0, made.size)] = rng.choice(np.array([np.nan, -0.0, np.inf, 1.0]))
    return made


# ---- the oracle: templates


def _variables(text: str) -> list[tuple[str, str, int, int, str]]:
    """For each segment ``(literal, variable, scale, offset, kind)``; kind is int, name, path or the list's name."""
    found = []
    for piece in text.split("."):
        if not piece.startswith("{"):
            found.append((piece, "", 1, 0, ""))
            continue
        inner = piece[1:-1]
        if "@" in inner:
            var, _, listed = inner.partition("@")
            found.append(("", var, 1, 0, f"@{listed}"))
        elif ":" in inner:
            var, _, kind = inner.partition(":")
            found.append(("", var, 1, 0, kind))
        else:
            parts = re.fullmatch(r"(\w+?)(?:\*(\d+))?(?:\+(\d+))?", inner)
            assert parts is not None
            found.append(("", parts[1], int(parts[2] or 1), int(parts[3] or 0), "int"))
    return found


def read(text: str, name: str, lists: Lists) -> dict[str, Any] | None:
    """The variables with which the template gives ``name``: found by trying, checked by `write`."""
    patterns = {"int": r"(0|[1-9]\d*)", "name": r"([^.]+)", "path": r"(.*)"}
    segments = _variables(text)
    pattern = r"\.".join(patterns.get(kind, r"([^.]+)") if var else re.escape(lit) for lit, var, _, _, kind in segments)
    found = re.fullmatch(pattern, name, re.ASCII | re.DOTALL)
    if found is None:
        return None
    bound: dict[str, Any] = {}
    for (_, var, scale, offset, kind), said in zip([s for s in segments if s[1]], found.groups(), strict=True):
        value: Any = said
        if kind == "int":
            value = (int(said) - offset) // scale
            if value < 0:
                return None
        elif kind.startswith("@"):
            entries = lists.get(kind[1:], ())
            if said not in entries:
                return None
            value = entries.index(said)
        if bound.setdefault(var, value) != value:
            return None
    return bound if write(text, bound, lists) == name else None


def write(text: str, bound: Names[str, Any], lists: Lists) -> str | None:
    """The name that the variables give, None where a list is too short."""
    parts = []
    for literal, var, scale, offset, kind in _variables(text):
        if not var:
            parts.append(literal)
        elif kind == "int":
            parts.append(str(scale * bound[var] + offset))
        elif kind.startswith("@"):
            entries = lists.get(kind[1:], ())
            if bound[var] >= len(entries):
                return None
            parts.append(entries[bound[var]])
        else:
            parts.append(bound[var])
    return ".".join(parts)


# ---- the oracle: plans


@dataclass
class Verdict:
    """What must come out: values by target name, and how each name of both sides is accounted for."""

    values: dict[str, Array]
    made_of: dict[tuple[str, ...], tuple[str, ...]]
    dropped: set[str]
    left_out: set[str]
    seconds: dict[str, str]
    lossy: set[str]
    classes: set[str]


Key = frozenset[tuple[str, int]]


def judge(case: Case) -> Verdict:
    """Both partitions, by brute force. Raises Refused."""
    kept = {name: array for name, array in case.arrays.items() if name not in case.drop}
    dropped = set(case.drop) & case.arrays.keys()
    seconds: dict[str, str] = {}
    groups: dict[tuple[str, tuple[tuple[str, Any], ...]], dict[Key, list[str]]] = {}
    lines = {line.id: line for line in case.lines}
    for name, array in kept.items():
        seen = name
        for text, of_text in case.spellings:
            bound = read(text, name, case.lists)
            of = write(of_text, bound, case.lists) if bound is not None else None
            if of is not None and of in kept:
                if kept[of].shape != array.shape or kept[of].dtype != array.dtype:
                    raise Refused(f"{name} is not {of}")
                seconds[name] = of
            elif of is not None:
                seen = of
        if name in seconds:
            continue
        hits = [
            (line, place, bound)
            for line in case.lines
            for place, text in enumerate(line.sources)
            if (bound := read(text, seen, case.lists)) is not None
        ]
        beaten = {other for line, _, _ in hits for other in line.overrides}
        hits = [hit for hit in hits if hit[0].id not in beaten]
        if len(hits) != 1:
            raise Refused(f"{len(hits)} rules take {name}")
        line, place, bound = hits[0]
        if line.fate == "drop":
            dropped.add(name)
            continue
        overs = {op["over"] for op in line.ops if op.get("over")} & bound.keys()
        rest = tuple(sorted((k, v) for k, v in bound.items() if k not in overs))
        key = frozenset({("", place), *((over, bound[over]) for over in overs)})
        groups.setdefault((line.id, rest), {}).setdefault(key, []).append(name)
    values: dict[str, Array] = {}
    made_of: dict[tuple[str, ...], tuple[str, ...]] = {}
    claims: Counter[str] = Counter()
    lossy: set[str] = set()
    classes = {"BIJ"}
    for (line_id, rest), members in groups.items():
        made = _made(lines[line_id], dict(rest), members, kept, case)
        claims.update(list(made))
        values |= made
        made_of[tuple(sorted(name for names in members.values() for name in names))] = tuple(sorted(made))
        words = {op["op"] for op in lines[line_id].ops}
        classes |= {"LOSSY"} if words & LOSSY else {"INJ"} if words & INJ else set()
        if words & LOSSY:
            lossy |= set(made)
    if any(count > 1 for count in claims.values()):
        raise Refused("two sources for one target")
    if lossy and not case.allow_lossy:
        raise Refused("lossy")
    left_out: set[str] = set()
    inits = [line for line in case.lines if line.fate == "init"]
    if case.goals is None:
        if inits:
            raise Refused("nobody says what the initialised tensors look like")
    else:
        if values.keys() - case.goals.keys():
            raise Refused("no place in the target")
        for name, (dtype, shape) in case.goals.items():
            by = [line for line in inits if any(read(text, name, case.lists) is not None for text in line.targets)]
            if len(by) + claims[name] > 1:
                raise Refused(f"{name} is made twice")
            if by:
                values[name] = np.full(shape, by[0].value, np.dtype(dtype))
                made_of[("init", name)] = (name,)
                classes.add("INJ")
        _repeat(case, values, claims)
        for name, (dtype, shape) in case.goals.items():
            if name not in values:
                if name not in case.missing:
                    raise Refused(f"nothing makes {name}")
                left_out.add(name)
            elif (values[name].dtype.name, values[name].shape) != (dtype, shape):
                raise Refused(f"{name} has another shape")
    return Verdict(values, made_of, dropped, left_out, seconds, lossy, classes)


def _repeat(case: Case, values: dict[str, Array], claims: Counter[str]) -> None:
    """What the target ties to a tensor that a source gives need not be given a second time."""
    for group in {case.goal_ties.get(name, name) for name in case.goal_ties}:
        tied = [group, *(name for name, of in case.goal_ties.items() if of == group)]
        given = [name for name in tied if claims[name]]
        for name in tied:
            if name not in values and given:
                values[name] = values[given[0]]


def _made(
    line: Line, rest: dict[str, Any], members: dict[Key, list[str]], kept: dict[str, Array], case: Case
) -> dict[str, Array]:
    """The targets of one group: each array lives under what tells it from the others, its place and its numbers."""
    if any(len(names) > 1 for names in members.values()):
        raise Refused("two tensors for one place")
    extents = {dim: {number for key in members for d, number in key if d == dim} for dim in dict(next(iter(members)))}
    extents[""] = set(range(len(line.sources)))
    for numbers in extents.values():
        if numbers != set(range(len(numbers))):
            raise Refused("a number is missing")
    whole = {frozenset(zip(extents, numbers, strict=True)) for numbers in product(*extents.values())}
    if whole != set(members):
        raise Refused("a member is missing")
    state: dict[Key, Array] = {key: kept[names[0]] for key, names in members.items()}
    if len(line.sources) == 1:
        state = {key - {("", 0)}: array for key, array in state.items()}
    for number, op in enumerate(line.ops):
        wanted = None
        if op["op"] == "split" and "sizes" not in op:
            names = [write(text, rest, case.lists) for text in line.targets]
            if number != len(line.ops) - 1 or case.goals is None or any(name not in case.goals for name in names):
                raise Refused("nobody says how large the parts are")
            wanted = [case.goals[str(name)][1] for name in names]
        try:
            state = _apply(op, state, len(line.targets), wanted)
        except (ValueError, IndexError, TypeError) as error:
            raise Refused(str(error)) from None
    made: dict[str, Array] = {}
    for key, array in state.items():
        bound = {**rest, **dict(key)}
        place = bound.pop("", 0)
        if place >= len(line.targets):
            raise Refused("more parts than targets")
        name = write(line.targets[place], bound, case.lists)
        if name is None or name in made:
            raise Refused("a list is too short, or two parts get one name")
        made[name] = array
    expected = len(line.targets) if len(line.targets) > 1 else 1
    if len({dict(key).get("", 0) for key in state}) != expected:
        raise Refused("fewer parts than targets")
    return made


def _apply(op: dict[str, Any], state: dict[Key, Array], targets: int, wanted: list[tuple[int, ...]] | None) -> Any:
    word, axis, over = op["op"], op.get("axis", 0), op.get("over", "")
    if word in JOINS:
        runs: dict[Key, dict[int, Array]] = {}
        for key, array in state.items():
            runs.setdefault(frozenset(k for k in key if k[0] != over), {})[dict(key)[over]] = array
        joined = {}
        for key, run in runs.items():
            parts = [run[number] for number in sorted(run)]
            if len({part.dtype for part in parts}) > 1:
                raise ValueError("dtypes differ")
            if word == "stack":
                joined[key] = np.stack(parts, axis=axis)
            elif word == "concat":
                joined[key] = np.concatenate(parts, axis=axis)
            else:
                raise ValueError(word)
        return joined
    if word in PARTS:
        parted: dict[Key, Array] = {}
        for key, array in state.items():
            pieces: list[Array]
            if word == "unstack":
                pieces = [np.take(array, number, axis=axis) for number in range(array.shape[axis])]
            elif word == "copy":
                pieces = [array] * op.get("count", targets)
            else:
                sizes = op.get("sizes") or [shape[axis] for shape in wanted or ()]
                if sum(sizes) != array.shape[axis] or min(sizes) < 0:
                    raise ValueError("sizes")
                pieces = np.split(array, np.cumsum(sizes)[:-1], axis=axis)
            for number, piece in enumerate(pieces):
                parted[key | {(over, number)}] = piece
        return parted
    return {key: _one(op, array) for key, array in state.items()}


def _one(op: dict[str, Any], array: Array) -> Array:
    if op["op"] == "transpose":
        if array.ndim != 2:
            raise ValueError("no matrix")
        return array.T
    if op["op"] == "permute":
        return np.transpose(array, op["axes"])
    if op["op"] == "pad":
        if op["size"] <= array.shape[op["axis"]]:
            raise ValueError("does not grow")
        after = [(0, 0)] * array.ndim
        after[op["axis"]] = (0, op["size"] - array.shape[op["axis"]])
        return np.pad(array, after)
    if op["op"] == "slice":
        if not op["start"] <= op["stop"] <= array.shape[op["axis"]]:
            raise ValueError("outside")
        return np.take(array, range(op["start"], op["stop"]), axis=op["axis"])
    raise ValueError(f"no op {op['op']}")


def same_bits(one: Array, other: Array) -> bool:
    """NaN equals NaN, and minus zero is not zero."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes())


# ---- strategies

DTYPES = ("float32", "float32", "float16", "int64", "bool")
PARAMETERS = ("weight", "bias")


@st.composite
def _block(draw: st.DrawFn, here: str, there: str, known: bool, words: tuple[str, ...]) -> tuple[Any, ...]:
    """``(source tensors, rules, further target specs)`` of one part of a net, under a prefix of its own."""
    word = draw(st.sampled_from(words))
    dtype = draw(st.sampled_from(DTYPES))
    n, m = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = draw(st.integers(2, 3))
    goals: dict[str, tuple[str, tuple[int, ...]]] = {}
    arrays: dict[str, Array] = {}

    def put(name: str, *shape: int) -> None:
        arrays[name] = tensor(name, dtype, *shape)

    def line(sources: list[str], targets: list[str], *ops: dict[str, Any], **more: Any) -> Line:
        before = tuple(f"{here}.{text}" for text in sources)
        after = tuple(f"{there}.{text}" for text in targets)
        return Line(f"{word}-{here}", before, after, ops, **more)

    if word == "index":
        a, b, c, d = (
            draw(st.integers(1, 3)),
            draw(st.integers(0, 2)),
            draw(st.integers(1, 3)),
            draw(st.integers(0, 2)),
        )
        for number in draw(st.sets(st.integers(0, 12), min_size=1, max_size=3)):
            for parameter in PARAMETERS:
                put(f"{here}.{a * number + b}.{parameter}", n)
        return arrays, (line([f"{{i*{a}+{b}}}.{{p:name}}"], [f"{{p:name}}.{{i*{c}+{d}}}"]),), goals
    if word == "path":
        for name in draw(st.sets(st.sampled_from(("a", "a.b", "b.0.c", "weight")), min_size=1)):
            put(f"{here}.{name}", *draw(st.sampled_from(((), (0, 2), (n,), (n, m)))))
        return arrays, (line(["{rest:path}"], ["net.{rest:path}"]),), goals
    if word == "list":
        for number in range(size):
            put(f"{here}.{number}.w", n)
        return arrays, (line(["{v}.w"], ["{v@cameras}.w"]),), goals
    if word == "drop":
        put(f"{here}.old.w", n)
        return arrays, (Line(f"drop-{here}", (f"{here}.{{rest:path}}",), fate="drop"),), goals
    if word == "init":
        goals[f"{there}.0.fresh"] = (dtype, (n, m))
        return arrays, (Line(f"init-{here}", (), (f"{there}.{{i}}.fresh",), fate="init", value=1.0),), goals
    if word in ("stack", "concat"):
        for number, parameter in product(range(size), PARAMETERS[: draw(st.integers(1, 2))]):
            put(f"{here}.{number}.{parameter}", n, m)
        return (
            arrays,
            (line(["{e}.{p:name}"], ["{p:name}"], {"op": word, "axis": draw(st.integers(0, 1)), "over": "e"}),),
            goals,
        )
    if word == "unstack":
        put(f"{here}.w", size, n)
        return arrays, (line(["{p:name}"], ["{e*2}.{p:name}"], {"op": "unstack", "axis": 0, "over": "e"}),), goals
    if word == "copy":
        put(f"{here}.w", n)
        if draw(st.booleans()):
            return arrays, (line(["w"], ["{e}.w"], {"op": "copy", "count": size, "over": "e"}),), goals
        return arrays, (line(["w"], ["x", "y"], {"op": "copy"}),), goals
    sizes = draw(st.permutations((4, 1, 2)))
    if word == "merge":
        for letter, rows in zip("qkv", sizes, strict=True):
            put(f"{here}.{letter}.w", rows, m)
        return (
            arrays,
            (line([f"{letter}.{{p:name}}" for letter in "qkv"], ["{p:name}.qkv"], {"op": "concat", "axis": 0}),),
            goals,
        )
    if word == "part":
        put(f"{here}.qkv.w", sum(sizes), m)
        said = {} if known and draw(st.booleans()) else {"sizes": list(sizes)}
        ops = ({"op": "split", "axis": 0, **said},)
        return arrays, (line(["qkv.{p:name}"], [f"{letter}.{{p:name}}" for letter in "qkv"], *ops),), goals
    if word == "nested":
        for letter, number in product(("gate", "up"), range(size)):
            put(f"{here}.{number}.{letter}", n, m)
        joins: list[dict[str, Any]] = [{"op": "concat", "axis": 0}, {"op": "stack", "axis": 0, "over": "e"}]
        ordered: list[Any] = draw(st.permutations(joins))
        return arrays, (line(["{e}.gate", "{e}.up"], ["gate_up"], *ordered),), goals
    if word == "turn":
        put(f"{here}.w", n, m, 2)
        put(f"{here}.v", m, n, 2)
        axes = draw(st.permutations((0, 1, 2)))
        return arrays, (line(["{p:name}"], ["turned.{p:name}"], {"op": "permute", "axes": list(axes)}),), goals
    put(f"{here}.w", n, m)
    ways: dict[str, dict[str, Any]] = {
        "transpose": {"op": "transpose"},
        "pad": {"op": "pad", "axis": 0, "size": n + draw(st.integers(1, 2))},
        "slice": {"op": "slice", "axis": 1, "start": 0, "stop": draw(st.integers(0, m))},
    }
    return arrays, (line(["w"], ["w"], ways[word]),), goals


BIJECTIVE = ("index", "path", "stack", "concat", "unstack", "merge", "part", "nested", "turn", "transpose")
INJECTIVE = (*BIJECTIVE, "copy", "pad")
ALL = (*INJECTIVE, "drop", "slice")


@st.composite
def cases(draw: st.DrawFn, words: tuple[str, ...] = ALL, known: bool | None = None) -> Case:
    """A case in which both partitions hold."""
    if known is None:
        known = draw(st.booleans())
    arrays: dict[str, Array] = {}
    lines: list[Line] = []
    goals: dict[str, tuple[str, tuple[int, ...]]] = {}
    words = (*words, "list", "init") if known else words
    for number in range(draw(st.integers(1, 4))):
        here, there = f"s{number}", f"t{number}"
        found, rules, further = draw(_block(here, there, known, words))
        arrays |= found
        lines += rules
        goals |= further
    order = draw(st.permutations(list(arrays)))
    arrays = {name: arrays[name] for name in order}
    lists: Lists = {"cameras": ("front", "wrist", "side")}
    case = Case(arrays, tuple(draw(st.permutations(lines))), lists=lists, allow_lossy=True)
    if not known:
        return replace(case, lists={})
    first = replace(case, lines=tuple(_with_sizes(line, arrays) for line in case.lines if line.fate != "init"))
    goals |= {name: (value.dtype.name, value.shape) for name, value in judge(first).values.items()}
    return replace(case, goals={name: goals[name] for name in draw(st.permutations(list(goals)))})


def _with_sizes(line: Line, arrays: dict[str, Array]) -> Line:
    """The same line with any sizes that fit, for the first look at what the target could be."""
    if not any(op["op"] == "split" and "sizes" not in op for op in line.ops):
        return line
    prefix = line.sources[0].split(".")[0]
    whole = next(array.shape[0] for name, array in arrays.items() if name.startswith(f"{prefix}."))
    return replace(line, ops=({**line.ops[0], "sizes": [1, 1, whole - 2]},))


@st.composite
def damaged_cases(draw: st.DrawFn) -> Case:
    """A case with something taken out, put in, doubled, swapped or chained: it may hold or not."""
    case = draw(cases())
    for _ in range(draw(st.integers(0, 2)) if case.arrays else 0):
        case = draw(st.sampled_from(DAMAGES))(draw, case)
    return replace(case, allow_lossy=draw(st.booleans()))


def _gone(draw: st.DrawFn, case: Case) -> Case:
    if len(case.arrays) < 2:
        return case
    name = draw(st.sampled_from(list(case.arrays)))
    ties = {a: b for a, b in case.ties.items() if name not in (a, b)}
    return replace(case, arrays={n: a for n, a in case.arrays.items() if n != name}, ties=ties)


def _stranger(draw: st.DrawFn, case: Case) -> Case:
    name = draw(st.sampled_from(list(case.arrays)))
    new = draw(st.sampled_from((f"{name}.x", f"x.{name}", name.replace("0", "00"), name.replace(".0.", ".3."), "t0.w")))
    return replace(case, arrays={**case.arrays, new: tensor(new, "float32", *case.arrays[name].shape)})


def _reshaped(draw: st.DrawFn, case: Case) -> Case:
    name = draw(st.sampled_from(list(case.arrays)))
    shape = draw(st.sampled_from(((), (2,), (3, 1), (1, 2, 2))))
    dtype = draw(st.sampled_from(DTYPES))
    ties = {a: b for a, b in case.ties.items() if name not in (a, b)}
    return replace(case, arrays={**case.arrays, name: tensor(name, dtype, *shape)}, ties=ties)


def _without_rule(draw: st.DrawFn, case: Case) -> Case:
    if not case.lines:
        return case
    gone = draw(st.sampled_from(case.lines))
    return replace(case, lines=tuple(line for line in case.lines if line is not gone))


def _rule_twice(draw: st.DrawFn, case: Case) -> Case:
    if not case.lines:
        return case
    line = draw(st.sampled_from(case.lines))
    beats = (line.id,) if draw(st.booleans()) and line.fate != "init" else ()
    new = replace(line, id=f"{line.id}-again-{len(case.lines)}", overrides=beats)
    return replace(case, lines=(*case.lines, new))


def _more_targets(draw: st.DrawFn, case: Case) -> Case:
    """A rule that names a target more than its ops give."""
    lines = [line for line in case.lines if line.fate == "map"]
    if not lines:
        return case
    line = draw(st.sampled_from(lines))
    more = replace(line, targets=(*line.targets, f"more.{line.targets[0]}"))
    return replace(case, lines=tuple(more if each is line else each for each in case.lines))


def _catch_all(draw: st.DrawFn, case: Case) -> Case:
    beats = tuple(line.id for line in case.lines if line.sources) if draw(st.booleans()) else ()
    form = draw(
        st.sampled_from((("{rest:path}", "{rest:path}"), ("{a:name}.w", "{a:name}.w"), ("s0.{rest:path}", "q")))
    )
    line = Line(f"catch-all-{len(case.lines)}", form[:1], form[1:], overrides=beats)
    if form[1] == "q":
        line = replace(line, targets=("q.{rest:path}",))
    return replace(case, lines=(*case.lines, line))


def _moved(draw: st.DrawFn, case: Case) -> Case:
    """Plain rules among themselves: a swap, a chain, two into one, one into two, and both as they are."""
    if "a" in case.arrays:
        return case
    arrays = {name: tensor(name, "float32", 2) for name in "ab"}
    first, second = draw(st.sampled_from((("ab", "ba"), ("ab", "bc"), ("ac", "bc"), ("ab", "ac"), ("aa", "bb"))))
    lines = (Line("move-1", (first[0],), (first[1],)), Line("move-2", (second[0],), (second[1],)))
    goals = case.goals
    if goals is not None:
        goals = {**goals, **dict.fromkeys((first[1], second[1]), ("float32", (2,)))}
    return replace(case, arrays={**case.arrays, **arrays}, lines=(*case.lines, *lines), goals=goals)


def _other_goals(draw: st.DrawFn, case: Case) -> Case:
    if not case.goals:
        return case
    name = draw(st.sampled_from(list(case.goals)))
    goals = dict(case.goals)
    how = draw(st.sampled_from(("gone", "gone", "shape", "dtype", "new")))
    if how == "gone" and name not in {*case.goal_ties, *case.goal_ties.values()}:
        del goals[name]
    elif how == "new":
        goals["t9.more"] = ("float32", (1,))
    elif name not in {*case.goal_ties, *case.goal_ties.values()}:
        dtype, shape = goals[name]
        goals[name] = ("int32", shape) if how == "dtype" else (dtype, (*shape, 1))
    missing = draw(st.sampled_from(((), ("t9.more",))))
    return replace(case, goals=goals, missing=missing if "t9.more" in goals else ())


def _tie_goals(draw: st.DrawFn, case: Case) -> Case:
    if not case.goals:
        return case
    name = draw(st.sampled_from(list(case.goals)))
    if name in case.goal_ties or f"{name}.tied" in case.goals:
        return case
    return replace(
        case,
        goals={**case.goals, f"{name}.tied": case.goals[name]},
        goal_ties={**case.goal_ties, f"{name}.tied": name},
    )


def _tie_source(draw: st.DrawFn, case: Case) -> Case:
    one, other = draw(st.sampled_from(list(case.arrays))), draw(st.sampled_from(list(case.arrays)))
    taken = {*case.ties, *case.ties.values()}
    if one == other or taken & {one, other} or case.arrays[one].shape != case.arrays[other].shape:
        return case
    return replace(case, arrays={**case.arrays, other: case.arrays[one]}, ties={**case.ties, other: one})


def _spelled_twice(draw: st.DrawFn, case: Case) -> Case:
    name = draw(st.sampled_from(list(case.arrays)))
    if case.spellings or name in {*case.ties, *case.ties.values()}:
        return case
    arrays = {**case.arrays, f"twin.{name}": case.arrays[name]}
    if draw(st.booleans()):
        del arrays[name]
    return replace(case, arrays=arrays, spellings=(("twin.{rest:path}", "{rest:path}"),))


def _user_drops(draw: st.DrawFn, case: Case) -> Case:
    return replace(case, drop=(draw(st.sampled_from(list(case.arrays))),))


DAMAGES = (
    *(_moved,) * 4,
    _gone,
    _stranger,
    _reshaped,
    _without_rule,
    _rule_twice,
    _more_targets,
    _catch_all,
    _other_goals,
    _tie_goals,
    _tie_source,
    _spelled_twice,
    _user_drops,
)
