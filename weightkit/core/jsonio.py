"""JSON in one canonical form, so that equal documents have equal digests, and a strict reader."""

from __future__ import annotations

import json

MAX_DEPTH = 64


def canonical_json(document: object) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces, no NaN: equal documents give equal bytes.

    A lone surrogate, which only a hostile file has, is written as an escape is: what comes out is always valid UTF-8.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


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
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"{origin}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{origin}: not JSON: {error}") from None
