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
_NUMBER = r"(?:0|[1-9][0-9]{0,17})"


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a template: literal text where ``var`` is empty, else a variable."""

    text: str
    var: str = ""
    kind: VariableKind = "name"
    scale: int = 1
    offset: int = 0
    lookup: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. ``lists`` are the named lists that ``{v@list}`` looks up."""

    text: str
    segments: tuple[Segment, ...]

    @property
    def variables(self) -> dict[str, VariableKind]:
        """Variable name -> kind."""
        return {s.var: s.kind for s in self.segments if s.var}

    def match(self, name: str, lists: Lists) -> dict[str, int | str] | None:
        """The variables with which this template gives ``name``, or None. ``fill(match(name)) == name``."""
        found = _pattern(self).fullmatch(name)
        if found is None:
            return None
        bound: dict[str, int | str] = {}
        for index, segment in enumerate(self.segments):
            if not segment.var:
                continue
            text = found.group(f"g{index}")
            value: int | str = text
            if segment.lookup:
                entries = list(lists.get(segment.lookup, ()))
                if text not in entries:
                    return None
                value = entries.index(text)
            elif segment.kind == "int":
                value, remainder = divmod(int(text) - segment.offset, segment.scale)
                if remainder or value < 0:
                    return None
            if bound.setdefault(segment.var, value) != value:
                return None
        return bound

    def fill(self, bound: Bindings, lists: Lists) -> str | None:
        """The name that the variables give; None where a looked-up list is too short for the number."""
        parts = []
        for segment in self.segments:
            if not segment.var:
                parts.append(segment.text)
            elif segment.lookup:
                entries = lists.get(segment.lookup, ())
                number = bound[segment.var]
                assert isinstance(number, int)
                if number >= len(entries):
                    return None
                parts.append(entries[number])
            elif segment.kind == "int":
                number = bound[segment.var]
                assert isinstance(number, int)
                parts.append(str(segment.scale * number + segment.offset))
            else:
                parts.append(str(bound[segment.var]))
        return ".".join(parts)


@lru_cache(maxsize=4096)
def _pattern(template: Template) -> re.Pattern[str]:
    parts = []
    for index, segment in enumerate(template.segments):
        if not segment.var:
            parts.append(re.escape(segment.text))
        elif segment.kind == "int" and not segment.lookup:
            parts.append(f"(?P<g{index}>{_NUMBER})")
        else:
            parts.append(f"(?P<g{index}>.*)" if segment.kind == "path" else rf"(?P<g{index}>[^.]+)")
    return re.compile(r"\.".join(parts), re.DOTALL)


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


def same_variables(source: Template, target: Template) -> bool:
    """Whether both templates bind the same variables to the same kinds, so that the renaming is injective."""
    return source.variables == target.variables
