"""Typed name templates: how one project's tensor names turn into another's.

A template is made of whole dotted segments. A segment is literal text or one variable in braces:

    {v}, {v:int}     a whole number in decimal, no leading zero
    {i*3}, {i*3+1}   a whole number i, written as 3*i or 3*i+1 (layer indices with gaps)
    {v@cameras}      a whole number v, written as the v-th entry of the list called "cameras"
    {p:name}         one segment of any text
    {rest:path}      one or more segments, in the last place only

It matches whole names only. Two templates that bind the same variables are injective by construction: the variables
are read back from either name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

VariableKind = Literal["int", "name", "path"]
Lists = Mapping[str, Sequence[str]]
Bindings = Mapping[str, "int | str"]

_VARIABLE = re.compile(
    r"\{(?P<var>[a-z_]\w*)(?:"
    r":(?P<kind>int|name|path)|"
    r"@(?P<list>[a-z_]\w*)|"
    r"(?:\*(?P<scale>[1-9]\d*))?(?:\+(?P<offset>\d+))?)\}"
)
_KINDS: dict[str, VariableKind] = {"int": "int", "name": "name", "path": "path"}
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a template: literal text where ``var`` is empty, else a variable."""

    text: str
    var: str = ""
    kind: VariableKind = "name"
    scale: int = 1
    offset: int = 0
    lookup: str = ""

    def read(self, text: str, lists: Lists) -> int | str | None:
        """The variable's value where it is written as ``text``, None where it cannot be."""
        if self.lookup:
            entries = lists.get(self.lookup, ())
            return entries.index(text) if text in entries else None
        if self.kind != "int":
            return text if text or self.kind == "path" else None
        number = whole_number(text)
        if number is None:
            return None
        value, remainder = divmod(number - self.offset, self.scale)
        return None if remainder or value < 0 else value

    def write(self, value: int | str, lists: Lists) -> str | None:
        """The text of the segment for a value of its variable; None where a looked-up list is too short."""
        if self.lookup:
            entries = lists.get(self.lookup, ())
            assert isinstance(value, int)
            return entries[value] if value < len(entries) else None
        if self.kind == "int":
            assert isinstance(value, int)
            return str(self.scale * value + self.offset)
        return str(value)


def whole_number(text: str) -> int | None:
    """The number that ``text`` is in decimal without leading zeros, None where it is none."""
    if not text.isdigit() or not text.isascii() or len(text) > _MOST_DIGITS or (text[0] == "0" and len(text) > 1):
        return None
    return int(text)


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. ``lists`` are the named lists that ``{v@list}`` looks up."""

    text: str
    segments: tuple[Segment, ...]

    @property
    def variables(self) -> dict[str, VariableKind]:
        """Variable name -> kind."""
        return {s.var: s.kind for s in self.segments if s.var}

    @property
    def takes_rest(self) -> bool:
        """Whether the last segment stands for one or more."""
        return self.segments[-1].kind == "path"

    def match(self, name: str, lists: Lists) -> dict[str, int | str] | None:
        """The variables with which this template gives ``name``, or None. ``fill(match(name)) == name``."""
        return self.bind(name.split("."), lists)

    def bind(self, pieces: Sequence[str], lists: Lists) -> dict[str, int | str] | None:
        """`match` for a name that is split at its dots already."""
        segments = self.segments
        if self.takes_rest:
            if len(pieces) < len(segments):
                return None
            last = len(segments) - 1
            pieces = [*pieces[:last], ".".join(pieces[last:])]
        elif len(pieces) != len(segments):
            return None
        bound: dict[str, int | str] = {}
        for segment, piece in zip(segments, pieces):  # noqa: B905 - as many, by the lines above
            if not segment.var:
                if segment.text != piece:
                    return None
                continue
            value = segment.read(piece, lists)
            if value is None or bound.setdefault(segment.var, value) != value:
                return None
        return bound

    def fill(self, bound: Bindings, lists: Lists) -> str | None:
        """The name that the variables give; None where a looked-up list is too short for the number."""
        parts = []
        for segment in self.segments:
            part = segment.write(bound[segment.var], lists) if segment.var else segment.text
            if part is None:
                return None
            parts.append(part)
        return ".".join(parts)


@lru_cache(maxsize=4096)
def parse_template(text: str) -> Template:
    """The template written as ``text``. Raises ValueError that shows the segment that is no literal and no variable."""
    segments: list[Segment] = []
    kinds: dict[str, VariableKind] = {}
    pieces = text.split(".")
    for position, piece in enumerate(pieces):
        found = _VARIABLE.fullmatch(piece)
        if found is None:
            if not piece or "{" in piece or "}" in piece:
                raise ValueError(
                    f"template {text!r}: segment {piece!r} is neither literal text nor one variable such as "
                    "{v}, {i*3}, {v@cameras}, {p:name} or {rest:path}"
                )
            segments.append(Segment(piece))
            continue
        var, kind = found["var"], _KINDS[found["kind"] or "int"]
        if kind == "path" and position != len(pieces) - 1:
            raise ValueError(f"template {text!r}: {piece!r} takes the rest of a name, so it must stand last")
        if kinds.setdefault(var, kind) != kind:
            raise ValueError(
                f"template {text!r}: variable {var!r} is a {kinds[var]} in one place and a {kind} in another"
            )
        segments.append(
            Segment(piece, var, kind, int(found["scale"] or 1), int(found["offset"] or 0), found["list"] or "")
        )
    return Template(text, tuple(segments))
