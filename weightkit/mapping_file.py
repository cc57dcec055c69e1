"""A mapping as a TOML file; schemas/json/mapping.v1.schema.json is for editors, docs/mapping.md for people."""

from __future__ import annotations

import reprlib
import stat
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from weightkit.core.axes import parse_blocks
from weightkit.core.names import Template, parse_template
from weightkit.core.rule import AxisNote, Companions, Fate, Mapping, Rule, RuleOp, Spelling
from weightkit.core.text import printable
from weightkit.errors import FormatError, RuleError

T = TypeVar("T")
_TOP = ("name", "version", "source_layout", "target_layout", "source_names", "target_names")
_TABLES = ("rule", "alias", "companions", "axes", "lists")
_RULE = ("id", "source", "sources", "target", "targets", "ops", "fate", "why", "overrides", "value")
_MOST_BYTES = 64 << 20
_LONGEST_LINE = 20_000  # a dotted key takes time that grows with its square
_MOST = 1 << 53


def read_mapping(path: Path) -> Mapping:
    """The mapping in a TOML file. Raises FormatError where it cannot be read, RuleError that names file and address."""
    shown = printable(str(path))
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(f"{shown}: cannot be read: it is no regular file but a folder, a device or a pipe")
        if found.st_size > _MOST_BYTES:
            raise FormatError(f"{shown}: {found.st_size} bytes, a mapping has at most {_MOST_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{shown}: not UTF-8: {error.reason} at byte {error.start}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise FormatError(f"{shown}: cannot be read: {why}", hint="check the path") from None
    return parse_mapping(text, origin=shown)


def parse_mapping(text: str, *, origin: str) -> Mapping:
    """The mapping written as ``text``. Raises RuleError that names ``origin`` and the address of what is wrong."""
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    if max(map(len, text.splitlines()), default=0) > _LONGEST_LINE:
        raise RuleError(f"{origin}: a line of more than {_LONGEST_LINE} characters, which no mapping needs")
    try:
        document = tomllib.loads(text)
    except (ValueError, OverflowError, RecursionError) as error:
        raise RuleError(f"{origin}: not TOML: {error}") from None
    try:
        return _mapping(document)
    except RuleError as error:
        raise RuleError(f"{origin}: {error.message}", hint=error.hint) from None


def _mapping(document: dict[str, Any]) -> Mapping:
    _known(document, (*_TOP, *_TABLES), "$")
    return Mapping(
        name=_text(document, "name", "$"),
        version=_whole(document.get("version"), "$.version"),
        source_layout=_text(document, "source_layout", "$"),
        target_layout=_text(document, "target_layout", "$"),
        rules=_each(document, "rule", _rule),
        spellings=_each(document, "alias", _spelling),
        companions=_each(document, "companions", _companions),
        axes=_each(document, "axes", _axis),
        source_names=_templates(document.get("source_names", []), "$.source_names"),
        target_names=_templates(document.get("target_names", []), "$.target_names"),
        lists=_lists(document.get("lists", {})),
    )


def _lists(found: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(found, dict):
        raise _wrong("$.lists", "a table of lists of names", found)
    lists = {name: _texts(entries, f"$.lists.{name}") for name, entries in found.items()}
    for name, entries in lists.items():
        plain = all(entry and not any(sign in entry for sign in ".{}") for entry in entries)
        if not entries or len(set(entries)) < len(entries) or not plain:
            raise _wrong(f"$.lists.{name}", "segments of names, each once", list(entries))
    return lists


def _rule(item: dict[str, Any], at: str) -> Rule:
    _known(item, _RULE, at)
    fate = item.get("fate", "map")
    if not isinstance(fate, str) or fate not in {each.value for each in Fate}:
        raise _wrong(f"{at}.fate", f"one of {', '.join(each.value for each in Fate)}", fate)
    ops = item.get("ops", [])
    if not isinstance(ops, list):
        raise _wrong(f"{at}.ops", "a list of tables such as {op = 'transpose'}", ops)
    value = item.get("value", 0.0)
    if not _is_number(value) or ("value" in item and fate != "init"):
        raise _wrong(f"{at}.value", "a number, for fate = 'init' only", value)
    return Rule(
        id=_text(item, "id", at),
        sources=_side(item, "source", at),
        targets=_side(item, "target", at),
        ops=tuple(_op(op, f"{at}.ops[{number}]") for number, op in enumerate(ops)),
        fate=Fate(fate),
        why=_text(item, "why", at, default=""),
        overrides=_texts(item.get("overrides", []), f"{at}.overrides"),
        value=float(value),
    )


def _side(item: dict[str, Any], word: str, at: str) -> tuple[Template, ...]:
    if word in item and f"{word}s" in item:
        raise _wrong(f"{at}.{word}", f"either {word} or {word}s", item[word])
    if word in item:
        return _templates([item[word]], f"{at}.{word}")
    return _templates(item.get(f"{word}s", []), f"{at}.{word}s")


def _op(item: object, at: str) -> RuleOp:
    if not isinstance(item, dict):
        raise _wrong(at, "a table such as {op = 'transpose'}", item)
    params = {key: value for key, value in item.items() if key not in ("op", "over")}
    for key, value in params.items():
        numbers = isinstance(value, list) and all(type(each) is int and _is_number(each) for each in value)
        if not (numbers or isinstance(value, str) or _is_number(value)):
            raise _wrong(f"{at}.{key}", "a number, a text or a list of whole numbers", value)
    return RuleOp(_text(item, "op", at), params, _text(item, "over", at) if "over" in item else "")


def _spelling(item: dict[str, Any], at: str) -> Spelling:
    _known(item, ("name", "of", "why"), at)
    name, of = (_templates([_text(item, key, at)], f"{at}.{key}")[0] for key in ("name", "of"))
    return Spelling(name, of, _text(item, "why", at))


def _companions(item: dict[str, Any], at: str) -> Companions:
    _known(item, ("prefix", "suffixes", "scalars"), at)
    suffixes = _texts(item.get("suffixes"), f"{at}.suffixes")
    return Companions(_text(item, "prefix", at), suffixes, _texts(item.get("scalars", []), f"{at}.scalars"))


def _axis(item: dict[str, Any], at: str) -> AxisNote:
    _known(item, ("pattern", "axis", "factors"), at)
    factors = _text(item, "factors", at)
    try:
        parse_blocks(factors)
    except ValueError as error:
        raise RuleError(f"{at}.factors: {error}") from None
    axis = _whole(item.get("axis"), f"{at}.axis")
    return AxisNote(_text(item, "pattern", at), axis, factors)


def _each(document: dict[str, Any], key: str, read: Callable[[dict[str, Any], str], T]) -> tuple[T, ...]:
    tables = document.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise _wrong(f"$.{key}", f"an array of tables, written [[{key}]]", tables)
    found = []
    for number, table in enumerate(tables):
        at = f"$.{key}[{number}]"
        try:
            found.append(read(table, at))
        except RuleError as error:
            message = error.message if error.message.startswith("$") else f"{at}: {error.message}"
            raise RuleError(message, hint=error.hint) from None
    return tuple(found)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -_MOST < value < _MOST  # type: ignore[operator]


def _known(table: dict[str, Any], keys: Sequence[str], at: str) -> None:
    for key in table:
        if key not in keys:
            close = get_close_matches(key, keys, n=1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise RuleError(f"{at}: unknown key {printable(key)!r}", hint=f"{meant}known: {', '.join(keys)}")


def _templates(value: object, at: str) -> tuple[Template, ...]:
    found = []
    for text in _texts(value, at):
        try:
            found.append(parse_template(text))
        except ValueError as error:
            raise RuleError(f"{at}: {error}") from None
    return tuple(found)


def _texts(value: object, at: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        raise _wrong(at, "a list of texts", value)
    return tuple(value)


def _text(table: dict[str, Any], key: str, at: str, *, default: str | None = None) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or (not value and default is None):
        raise _wrong(f"{at}.{key}", "a text", value)
    return value


def _whole(value: object, at: str) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise _wrong(at, "a whole number", value)
    return value


def _wrong(at: str, expected: str, found: object) -> RuleError:
    try:
        what = "nothing" if found is None else printable(reprlib.repr(found))
    except ValueError:
        what = "a number of very many digits"
    return RuleError(f"{at}: expected {expected}, found {what}")
