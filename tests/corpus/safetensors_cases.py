"""Malformed .safetensors files, one for each sentence of the format's description."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from corpus.case import LIMIT, MALFORMED, OK, Case, hostile

FLOATS = struct.pack("<2f", 1.5, -2.0)
RECORD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
ESCAPES = "\x1b[31m\x07\u202e\u2066\u009b\n\x00"


def safetensors(header: Any, body: bytes = FLOATS, length: int | None = None) -> bytes:
    """The file around a header: a document, a text, or bytes as they are."""
    raw = (
        header
        if isinstance(header, bytes)
        else header.encode()
        if isinstance(header, str)
        else json.dumps(header).encode()
    )
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def _with(**changed: Any) -> dict[str, Any]:
    return {"w": {**RECORD, **changed}}


def headers() -> Iterator[tuple[str, bytes]]:
    """What stands where the header should be."""
    good = json.dumps({"w": RECORD})
    record = json.dumps(RECORD)
    for number in (0, 1, 2, 10_000, 1 << 31, 1 << 32, 1 << 62, 1 << 63, (1 << 64) - 1):
        yield f"length-{number:#x}", safetensors(good, length=number)
    yield "length-one-short", safetensors(good, length=len(good) - 1)
    yield "length-one-long", safetensors(good, length=len(good) + 1)
    yield "only-a-length", struct.pack("<Q", 0)
    yield "cut-length", b"\x05\x00"
    yield "empty-header", safetensors("")
    yield "leading-space", safetensors(" " + good)
    yield "leading-newline", safetensors("\n" + good)
    yield "byte-order-mark", safetensors(b"\xef\xbb\xbf" + good.encode())
    yield "utf-16", safetensors(good.encode("utf-16"))
    yield "not-utf-8", safetensors(b'{"\xff":' + json.dumps(RECORD).encode() + b"}")
    yield "overlong-utf-8", safetensors(b'{"\xc0\xaf":' + json.dumps(RECORD).encode() + b"}")
    yield "encoded-surrogate", safetensors(b'{"\xed\xa0\x80":' + json.dumps(RECORD).encode() + b"}")
    yield "list", safetensors([{"w": RECORD}])
    yield "text", safetensors('"w"')
    yield "number", safetensors("1")
    yield "null", safetensors("null")
    yield "two-documents", safetensors(good + good)
    yield "nul-behind", safetensors(good + "\0")
    yield "trailing-comma", safetensors(good[:-1] + ",}")
    yield "single-quotes", safetensors(good.replace('"', "'"))
    yield "comment", safetensors(good[:-1] + "/* x */}")
    yield "control-character", safetensors(b'{"\x01":' + json.dumps(RECORD).encode() + b"}")
    yield "name-twice", safetensors(f'{{"w":{record},"w":{record}}}')
    yield "name-twice-escaped", safetensors(f'{{"w":{record},"\\u0077":{record}}}')
    yield "field-twice", safetensors('{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}')
    yield "metadata-twice", safetensors(f'{{"__metadata__":{{}},"__metadata__":{{}},"w":{record}}}')
    yield "metadata-key-twice", safetensors(f'{{"__metadata__":{{"a":"1","a":"2"}},"w":{record}}}')
    yield "infinity", safetensors('{"w":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}}')
    yield "not-a-number", safetensors('{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}')


def records() -> Iterator[tuple[str, Any]]:
    """What stands where a tensor's record should be."""
    for name, odd in (("none", None), ("list", ["F32", [2], [0, 8]]), ("text", "F32"), ("number", 2), ("empty", {}),
                      ("true", True)):  # fmt: skip
        yield f"record-is-{name}", {"w": odd}
    for field in RECORD:
        yield f"without-{field}", {"w": {key: held for key, held in RECORD.items() if key != field}}
    yield "unknown-field", _with(extra=1)
    yield "field-in-another-case", {"w": {"DType": "F32", "shape": [2], "data_offsets": [0, 8]}}
    for code in ("f32", "F33", "", None, 4, ["F32"], "F32 ", "float32", "O", "F4", "F6_E2M3", ESCAPES, "F" * 100_000):
        yield f"dtype-{str(code)[:12].encode().hex() if code == ESCAPES else str(code)[:12]}", _with(dtype=code)
    for name, shape in (
        ("none", None),
        ("number", 2),
        ("text", "2"),
        ("dict", {"0": 2}),
        ("float", [2.0]),
        ("text-in", ["2"]),
        ("true", [True, 2]),
        ("null-in", [None]),
        ("negative", [-2]),
        ("two-negatives", [-1, -2]),
        ("list-in", [[2]]),
        ("other", [3]),
        ("huge", [1 << 62]),
        ("2-to-the-63", [1 << 63]),
        ("2-to-the-64", [1 << 64]),
        ("2-to-the-1000", [1 << 1000]),
        ("overflow", [1 << 32, 1 << 32, 4]),
        ("overflow-to-8", [1 << 63, 1 << 63]),
        ("exponent", [2e0]),
        ("rank-65", [1] * 64 + [2]),
        ("rank-100000", [1] * 100_000 + [2]),
    ):
        yield f"shape-{name}", _with(shape=shape)
    for name, offsets in (
        ("none", None),
        ("one", [8]),
        ("three", [0, 8, 16]),
        ("text", ["0", "8"]),
        ("float", [0.0, 8.0]),
        ("negative", [-8, 0]),
        ("backwards", [8, 0]),
        ("outside", [0, 16]),
        ("far", [1 << 62, (1 << 62) + 8]),
        ("2-to-the-64", [0, 1 << 64]),
        ("true", [False, 8]),
        ("hole-before", [8, 16]),
        ("dict", {"0": 0, "1": 8}),
        ("short", [0, 4]),
        ("empty", [0, 0]),
    ):
        yield f"offsets-{name}", _with(data_offsets=offsets)
    for name, metadata in (
        ("list", ["a"]),
        ("text", "a"),
        ("none", None),
        ("number-in", {"a": 1}),
        ("dict-in", {"a": {}}),
        ("null-in", {"a": None}),
        ("true-in", {"a": True}),
    ):
        yield f"metadata-{name}", {"__metadata__": metadata, "w": RECORD}
    yield "metadata-is-a-tensor", {"__metadata__": RECORD, "w": RECORD}
    yield "second-names-of-nothing", {"__metadata__": {"weightkit.aliases": '{"v":"x"}'}, "w": RECORD}
    yield "second-names-malformed", {"__metadata__": {"weightkit.aliases": "{"}, "w": RECORD}
    yield "second-names-a-list", {"__metadata__": {"weightkit.aliases": "[]"}, "w": RECORD}
    yield "json-keys-malformed", {"__metadata__": {"weightkit.json": '["a"]', "a": "{"}, "w": RECORD}


def bodies() -> Iterator[tuple[str, bytes]]:
    """Where the elements should lie."""
    two = {"a": RECORD, "b": {**RECORD, "data_offsets": [8, 16]}}
    yield "cut", safetensors({"w": RECORD}, FLOATS[:-1])
    yield "empty-body", safetensors({"w": RECORD}, b"")
    yield "trailing", safetensors({"w": RECORD}, FLOATS + b"x")
    yield "trailing-megabyte", safetensors({"w": RECORD}, FLOATS + bytes(1 << 20))
    yield "trailing-without-tensors", safetensors({}, b"x")
    yield "overlap", safetensors({"a": RECORD, "b": RECORD})
    yield "overlap-partly", safetensors({"a": RECORD, "b": {**RECORD, "data_offsets": [4, 12]}}, bytes(12))
    yield "hole", safetensors({"a": RECORD, "b": {**RECORD, "data_offsets": [12, 20]}}, bytes(20))
    yield "second-cut", safetensors(two, bytes(15))
    inside = {"a": RECORD, "b": {"dtype": "U8", "shape": [0], "data_offsets": [3, 3]}}
    yield "empty-tensor-inside-another", safetensors(inside)


def others() -> Iterator[tuple[str, Callable[[], bytes] | bytes, tuple[int, ...]]]:
    """Bombs, and what may be read or refused but must do no harm."""
    yield "deep-lists", safetensors("[" * 100_000 + "]" * 100_000), (MALFORMED, LIMIT)
    yield "deep-objects", safetensors('{"a":' * 100_000 + "1" + "}" * 100_000), (MALFORMED, LIMIT)
    yield (
        "deep-in-a-shape",
        safetensors('{"w":{"dtype":"F32","data_offsets":[0,8],"shape":' + "[" * 50_000 + "]" * 50_000 + "}}"),
        (MALFORMED, LIMIT),
    )
    yield (
        "deep-in-metadata",
        safetensors('{"__metadata__":{"a":' + "[" * 50_000 + "]" * 50_000 + "}}", b""),
        (MALFORMED, LIMIT),
    )
    yield (
        "integer-of-a-million-digits",
        safetensors('{"w":{"dtype":"F32","shape":[' + "9" * 1_000_000 + '],"data_offsets":[0,8]}}'),
        (MALFORMED, LIMIT),
    )
    yield "header-over-the-cap", lambda: safetensors(b"{" + b" " * (86 << 20) + b"}", b""), (MALFORMED, LIMIT)
    yield "header-of-spaces", lambda: safetensors(b"{}" + b" " * (32 << 20), b""), (OK, MALFORMED, LIMIT)
    yield "many-empty-tensors", lambda: safetensors(
        {f"t{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)}, b""
    ), (OK, MALFORMED, LIMIT)  # fmt: skip
    yield (
        "empty-of-a-huge-shape",
        safetensors(_with(shape=[0, (1 << 63) - 1], data_offsets=[0, 0]), b""),
        (OK, MALFORMED),
    )
    yield (
        "empty-that-overflows",
        safetensors(_with(shape=[1 << 40, 1 << 40, 0], data_offsets=[0, 0]), b""),
        (OK, MALFORMED),
    )
    yield "no-tensors", safetensors({}, b""), (OK, MALFORMED)
    yield "name-empty", safetensors({"": RECORD}), (OK, MALFORMED)
    yield "name-of-a-megabyte", safetensors({"n" * (1 << 20): RECORD}), (OK, MALFORMED, LIMIT)
    yield "name-of-escapes", safetensors({ESCAPES: RECORD}), (OK, MALFORMED)
    yield "name-of-surrogates", safetensors({"\ud800": RECORD}), (OK, MALFORMED)
    yield "name-of-markup", safetensors({"[red]x": RECORD}), (OK,)
    yield "name-like-a-path", safetensors({"../../x": RECORD}), (OK, MALFORMED)
    yield "metadata-of-escapes", safetensors({"__metadata__": {ESCAPES: ESCAPES}, "w": RECORD}), (OK, MALFORMED)
    yield "metadata-of-surrogates", safetensors({"__metadata__": {"a": "\udfff"}, "w": RECORD}), (OK, MALFORMED)
    yield (
        "metadata-like-a-policy",
        safetensors(
            {
                "__metadata__": {
                    "config": '{"' + ESCAPES.encode("unicode_escape").decode().replace("\\x", "\\u00") + '":1}',
                    "lineage": "[]",
                },
                "w": RECORD,
            }
        ),
        (OK, MALFORMED),
    )
    yield (
        "misaligned",
        safetensors(
            {"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "b": {**RECORD, "data_offsets": [1, 9]}},
            bytes(9),
        ),
        (OK, MALFORMED),
    )
    yield (
        "order-of-offsets-reversed",
        safetensors({"b": {**RECORD, "data_offsets": [8, 16]}, "a": RECORD}, bytes(16)),
        (OK,),
    )
    yield (
        "bool-of-2",
        safetensors({"w": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\x02\xff"),
        (OK, MALFORMED),
    )


def cases() -> Iterator[Case]:
    """All of them."""
    for name, content in headers():
        yield hostile(f"safetensors-header-{name}", "model.safetensors", content)
    for name, document in records():
        yield hostile(f"safetensors-{name}", "model.safetensors", safetensors(document))
    for name, content in bodies():
        yield hostile(f"safetensors-body-{name}", "model.safetensors", content)
    for name, made, exits in others():
        yield hostile(f"safetensors-{name}", "model.safetensors", made, *exits)
