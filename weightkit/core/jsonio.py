"""JSON in one canonical form, so that equal documents have equal digests, and a strict reader."""

from __future__ import annotations

import json
import re

MAX_DEPTH = 64
_WIDTH = 160
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def canonical_json(document: object) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces, no NaN: equal documents give equal bytes.

    A lone surrogate, which only a hostile file has, is written as an escape is: what comes out is always valid UTF-8.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def readable_json(document: object) -> bytes:
    """JSON for people and line by line comparison, in the order given: what is short stands on one line."""
    return (_lines(document, "") + "\n").encode("ascii")


def _lines(value: object, margin: str) -> str:
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    if len(text) + len(margin) <= _WIDTH or not value or not isinstance(value, (dict, list)):
        return text
    inner = f"{margin} "
    if isinstance(value, dict):
        items = [f"{inner}{json.dumps(str(key))}: {_lines(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    return "[\n" + ",\n".join(f"{inner}{_lines(item, inner)}" for item in value) + f"\n{margin}]"


def parse_json(text: str | bytes, *, origin: str) -> object:
    """The document in ``text``. Raises ValueError, naming ``origin``, for duplicate keys and non-JSON."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in items:
            if key in found:
                raise ValueError(f"{origin}: key {key!r} stands twice in one object")
            found[key] = value
        return found

    def constant(word: str) -> object:
        raise ValueError(f"{origin}: {word} is not JSON")

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")  # json would guess UTF-16 and UTF-32 too
        if _is_too_deep(text):
            raise ValueError(f"{origin}: lists and objects nested more than {MAX_DEPTH} deep")
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{origin}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{origin}: not JSON: {error}") from None


def _is_too_deep(text: str) -> bool:
    """Whether brackets nest too deep, whatever depth the caller itself stands at.

    Innermost pairs are taken away, level by level, without a look at strings; only where that leaves much, because it
    is deep or because strings hold brackets, are they looked at one by one.
    """
    brackets = text.encode("utf-8", "replace").translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if len(brackets) <= MAX_DEPTH:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    depth = 0
    for found in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False
