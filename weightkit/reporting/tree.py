"""The tensors of a file as a tree of modules: numbered siblings of equal structure folded, subtotals exact.

Modules of equal structure are one object here, however often they occur, so that thousands of layers cost little.
"""

from __future__ import annotations

from itertools import islice

from weightkit.reporting.text import braced, printables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

MOST_LINES = 400
"""A longer tree loses its deepest levels; every line still counts all that lies below it."""
_MOST_SIBLINGS = 40
"""Of more siblings than this the first are shown, where the tree would be too long."""
_DEEPEST = 60
"""Names of more segments than any net's are one leaf each."""
_DIGITS = "0123456789"

Tie = tuple[str, int, str]
"""How a second name is made from a first one: see ``_tie``."""
Kind = tuple[str, tuple[int, ...], str, "Tie | None"]
"""dtype, shape, what it is where it is no dense parameter, and what it is tied to."""
Structure = tuple[tuple[str, int], ...]
"""What lies below one module: ``.leaf`` with the number of its kind, ``child`` with the number of its structure."""
Total = tuple[int, int, int]
"""Names, parameters, values that are no parameters; a tied tensor is counted once."""
Line = tuple[int, str, int, str, str, int, str]
"""depth, label, tensors, dtype, shape, parameters, note."""


class Entry:
    """One line of the tree, and what lies below it: ``times`` modules of one structure."""

    __slots__ = ("children", "dtype", "label", "names", "note", "parameters", "path", "shape", "structure", "times")

    def __init__(
        self, label: str, total: Total, note: str = "", *, structure: int = -1, times: int = 1, path: list[str]
    ) -> None:
        self.label = label
        self.names, self.parameters, values = total
        self.note = note or (_values(values) if values and not total[1] else "")
        self.dtype = self.shape = ""
        self.structure = structure
        self.times = times
        self.path = path
        self.children: list[Entry] = []


class Forest:
    """The distinct structures of a file, and their totals."""

    def __init__(self) -> None:
        self.kinds: dict[Kind, int] = {}
        self.structures: dict[Structure, int] = {}
        self.by_kind: list[Kind] = []
        self.by_structure: list[Structure] = []
        self.totals: list[Total] = []
        self.ties: list[tuple[str, int] | None] = []

    def intern(self, module: dict[str, Any]) -> int:
        """The number of the structure below a module, given as nested dicts."""
        found: Structure = tuple(
            [(key, below if below.__class__ is int else self.intern(below)) for key, below in module.items()]
        )
        return self.structures.setdefault(found, len(self.structures))

    def finish(self) -> None:
        """Totals and ties of every structure; what lies below one has a lower number than it."""
        self.by_kind, self.by_structure = list(self.kinds), list(self.structures)
        for structure in self.by_structure:
            names = parameters = values = 0
            ties: set[tuple[str, int] | None] = set()
            for key, number in structure:
                if key[:1] == ".":
                    _, shape, what, tie = self.by_kind[number]
                    ties.add(None if tie is None or tie[1] < 0 else tie[:2])
                    names += 1
                    if tie is None:
                        if what.endswith("buffer"):
                            values += _product(shape)
                        else:
                            parameters += _product(shape)
                else:
                    below = self.totals[number]
                    names, parameters, values = names + below[0], parameters + below[1], values + below[2]
                    ties.add(self.ties[number])
            self.totals.append((names, parameters, values))
            self.ties.append(ties.pop() if len(ties) == 1 else None)


def tree_lines(
    tensors: Iterable[Mapping[str, Any]],
    *,
    title: str,
    buffers: frozenset[str] = frozenset(),
    ascii_only: bool = False,
    most: int = MOST_LINES,
) -> list[str]:
    """The rows of an inspect Report as an aligned tree below ``title``, not much more than ``most`` lines.

    A line's numbers are totals over everything that it stands for: ``{3,6,9}`` over three modules. A tied tensor
    counts where it has its first name; its other names say ``= first.name``. Numbers of ``buffers`` are values, not
    parameters.
    """
    lines = walk(tensors, title=title, buffers=buffers, most=most)
    labels = printables([line[1] for line in lines])
    marks = _branches([line[0] for line in lines], ascii_only)
    columns = [
        ["", *(mark + label for mark, label in zip(marks, labels, strict=True))],
        ["tensors", *(f"{line[2]:,}" for line in lines)],
        ["dtype", *(line[3] for line in lines)],
        ["shape", *(line[4] for line in lines)],
        ["parameters", *(f"{line[5]:,}" if line[5] or not line[6] else "" for line in lines)],
        ["", *printables([line[6] for line in lines])],
    ]
    wide = [max(map(len, column)) for column in columns]
    return [
        f"{a:{wide[0]}}  {b:>{wide[1]}}  {c:{wide[2]}}  {d:{wide[3]}}  {e:>{wide[4]}}  {f}".rstrip()
        for a, b, c, d, e, f in zip(*columns, strict=True)
    ]


def walk(
    tensors: Iterable[Mapping[str, Any]],
    *,
    title: str,
    buffers: frozenset[str] = frozenset(),
    most: int = MOST_LINES,
) -> list[Line]:
    """The lines of the tree from the top; their folded labels name every tensor once, where nothing is left out."""
    forest = Forest()
    root = Entry(title, (0, 0, 0), path=[])
    root.children = _top(_modules(tensors, buffers, forest.kinds), forest, most)
    root.names = sum(entry.names for entry in root.children)
    root.parameters = sum(entry.parameters for entry in root.children)
    level, total = [root], 1
    while level:
        if level != [root]:
            for entry in level:
                entry.children = _below(entry, forest, most)
        if total + sum(len(entry.children) for entry in level) > most:
            for entry in level:
                _shorten(entry)
        if total + sum(len(entry.children) for entry in level) > most and level != [root]:
            for entry in level:
                if entry.children:
                    entry.children, entry.note = [], entry.note or "..."
            break
        level = [child for entry in level for child in entry.children]
        total += len(level)
    lines: list[Line] = []
    waiting = [(0, root)]
    while waiting:
        depth, entry = waiting.pop()
        lines.append((depth, entry.label, entry.names, entry.dtype, entry.shape, entry.parameters, entry.note))
        waiting += [(depth + 1, child) for child in reversed(entry.children)]
    return lines


def _modules(
    tensors: Iterable[Mapping[str, Any]], buffers: frozenset[str], kinds: dict[Kind, int]
) -> dict[str, dict[str, Any]]:
    """Group -> its modules as nested dicts: ``child`` -> dict, ``.leaf`` -> number of its kind."""
    groups: dict[str, dict[str, Any]] = {}
    for row in tensors:
        name = row["name"]
        alias_of = row["alias_of"]
        what = "buffer" if name in buffers else ""
        if "kind" in row:
            what = f"{row['kind']}, {what}".removesuffix(", ")
        kind: Kind = (row["dtype"], tuple(row["shape"]), what, None if alias_of is None else _tie(name, alias_of))
        group = row["group"]
        module = groups.get(group)
        if module is None:
            module = groups[group] = {}
        segments = name.split(".")
        if len(segments) > _DEEPEST:
            segments = [name]
        last = segments.pop()
        for segment in segments:
            below = module.get(segment)
            if below is None:
                below = module[segment] = {}
            module = below
        module["." + last] = kinds.setdefault(kind, len(kinds))
    return groups


def _tie(name: str, alias_of: str) -> Tie:
    """How a name and the first name of its tensor belong together: ``(head, depth, "")`` where ``name`` is its own
    first ``depth`` segments followed by what follows ``head`` in the other; else ``("", -1, other)``.
    """
    mine, other = name.split("."), alias_of.split(".")
    same = 0
    if len(mine) <= _DEEPEST:
        while same < min(len(mine), len(other)) and mine[-1 - same] == other[-1 - same]:
            same += 1
    if not same:
        return "", -1, alias_of
    return ".".join(other[: len(other) - same]), len(mine) - same, ""


def _top(groups: dict[str, dict[str, Any]], forest: Forest, most: int) -> list[Entry]:
    """The lines below the title: groups. A group whose names all start with its own name is that module."""
    runs: list[tuple[str | None, dict[str, Any]]] = []
    for group, module in groups.items():
        if module.keys() <= {group, f".{group}"}:
            if not runs or runs[-1][0] is not None:
                runs.append((None, {}))
            runs[-1][1].update(module)
        else:
            runs.append((group, module))
    numbers = [forest.intern(module) for _, module in runs]
    forest.finish()
    entries: list[Entry] = []
    for (title, _), number in zip(runs, numbers, strict=True):
        entry = Entry(f"{braced([title or ''])}:", forest.totals[number], structure=number, path=[])
        entries += [entry] if title is not None else _below(entry, forest, most)
    return entries


def _below(entry: Entry, forest: Forest, most: int) -> list[Entry]:
    """The lines one level below an entry: leaves of one kind together, numbered modules of one structure together."""
    if entry.structure < 0:
        return []
    leaves: dict[int, list[str]] = {}
    modules: dict[object, list[str]] = {}
    numbers: dict[str, int] = {}
    for key, number in forest.by_structure[entry.structure]:
        if key[:1] == ".":
            leaves.setdefault(number, []).append(key[1:])
        else:
            stem = key.rstrip(_DIGITS)
            modules.setdefault((stem, number) if len(stem) < len(key) else key, []).append(key)
            numbers[key] = number
    everything = len(leaves) + len(modules)
    many = everything > max(most, _MOST_SIBLINGS + 1)
    found = [
        _leaf(names, kind, entry.times, entry.path, forest)
        for kind, names in islice(leaves.items(), _MOST_SIBLINGS if many else None)
    ]
    for same in islice(modules.values(), max(_MOST_SIBLINGS - len(found), 0) if many else None):
        found.append(_module(numbered(same), numbers[same[0]], entry.times * len(same), entry.path, forest))
    if many:
        names, parameters, _ = forest.totals[entry.structure]
        total = names * entry.times, parameters * entry.times
        found.append(_rest(everything - len(found), total, found))
    return found


def _module(label: str, structure: int, times: int, path: list[str], forest: Forest) -> Entry:
    """The line of ``times`` modules of one structure. A chain of modules, one in the other, is one line."""
    path = [*path, label]
    while not (tied := _target(forest.ties[structure], path)):
        below = forest.by_structure[structure]
        keys = [key for key, number in below if key[:1] != "." and number == below[0][1]]
        if len(keys) != len(below) or (len(keys) > 1 and not _same_stem(keys)):
            break
        path.append(numbered(keys))
        label = f"{label}.{path[-1]}"
        structure, times = below[0][1], times * len(keys)
    names, parameters, values = forest.totals[structure]
    total = names * times, parameters * times, values * times
    if tied:
        return Entry(label, (total[0], 0, 0), f"= {tied}", path=path)
    below = forest.by_structure[structure]
    kind = below[0][1]
    if all(key[:1] == "." and number == kind for key, number in below):
        leaf = _leaf([key[1:] for key, _ in below], kind, times, path, forest)
        leaf.label = f"{label}.{leaf.label}"
        return leaf
    return Entry(label, total, structure=structure, times=times, path=path)


def _target(tie: tuple[str, int] | None, path: list[str]) -> str:
    """The module that all of a module is tied to, as a label; "" where there is none."""
    if tie is None or len(path) < tie[1] or not (tie[0] or len(path) > tie[1]):
        return ""
    return ".".join([*map(_segment, tie[0].split(".") if tie[0] else []), *path[tie[1] :]])


def _leaf(names: list[str], kind: int, times: int, path: list[str], forest: Forest) -> Entry:
    """The line of tensors of one kind, side by side in ``times`` modules."""
    dtype, shape, what, tie = forest.by_kind[kind]
    label = numbered(names)
    count = times * len(names)
    number = count * _product(shape) if tie is None else 0
    buffer = what.endswith("buffer")
    notes = [what.replace("buffer", _values(number)) if tie is None else what] if what else []
    if tie is not None:
        head, start, other = tie
        target = [*map(_segment, (head or other).split(".") if head or other else [])]
        notes.append("= " + ".".join([*target, *([*path, label][start:] if start >= 0 else [])]))
    entry = Entry(label, (count, 0 if buffer else number, 0), ", ".join(notes), path=path)
    entry.dtype, entry.shape = dtype, str(list(shape))
    return entry


def _same_stem(keys: list[str]) -> bool:
    stems = {key.rstrip(_DIGITS) for key in keys}
    return len(stems) == 1 and stems.isdisjoint(keys)


def numbered(names: list[str]) -> str:
    """Sibling names as one: ``{0,2,4,6}``, ``{0..11}``, ``qf{0,1}``, ``{weight, bias}``."""
    if len(names) == 1:
        return _segment(names[0])
    stem = names[0].rstrip(_DIGITS)
    tails = [name[len(stem) :] for name in names if name.startswith(stem)]
    if len(tails) < len(names) or not all(tail and tail.isascii() and tail.isdigit() for tail in tails):
        return braced(names)
    shown = f"{_segment(stem)}{{" if stem else "{"
    if not all(len(tail) < 10 and (tail == "0" or tail[0] != "0") for tail in tails):
        return f"{shown}{','.join(tails)}}}"
    runs: list[list[int]] = []
    for number in sorted(map(int, tails)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    pieces = [f"{start}..{end}" for start, end in runs if end - start > 1]
    if len(pieces) < len(runs):
        pieces = []
        for start, end in runs:
            pieces += [f"{start}..{end}"] if end - start > 1 else map(str, range(start, end + 1))
    return f"{shown}{','.join(pieces)}}}"


def _segment(text: str) -> str:
    return braced((text,))


def _values(number: int) -> str:
    return f"buffer, {number:,} value{'' if number == 1 else 's'}"


def _product(shape: tuple[int, ...]) -> int:
    number = 1
    for extent in shape:
        number *= extent
    return number


def _shorten(entry: Entry) -> None:
    """Of very many lines below one, the first stay and one line counts the others."""
    rest = entry.children[_MOST_SIBLINGS:]
    if len(rest) < 2:
        return
    total = sum(child.names for child in entry.children), sum(child.parameters for child in entry.children)
    del entry.children[_MOST_SIBLINGS:]
    entry.children.append(_rest(len(rest), total, entry.children))


def _rest(count: int, total: tuple[int, int], shown: list[Entry]) -> Entry:
    """The line that stands for what is not shown."""
    names = total[0] - sum(entry.names for entry in shown)
    parameters = total[1] - sum(entry.parameters for entry in shown)
    return Entry(f"... and {count:,} more", (names, parameters, 0), "--flat lists them", path=[])


def _branches(depths: list[int], ascii_only: bool) -> list[str]:
    """What is drawn before each label."""
    fork, end, bar = ("|-- ", "`-- ", "|   ") if ascii_only else ("├── ", "└── ", "│   ")
    marks = []
    going_on: list[bool] = []
    for depth in reversed(depths):
        going_on.extend([False] * (depth + 1 - len(going_on)))
        mark = "".join([bar if going_on[above] else "    " for above in range(1, depth)])
        marks.append(mark + (fork if going_on[depth] else end) if depth else "")
        going_on[depth] = True
        del going_on[depth + 1 :]
    return marks[::-1]
