"""Malformed .npz files: headers that lie, structured types, and what is no array."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from corpus.case import LIMIT, MALFORMED, OK, UNSAFE, Case, hostile
from corpus.npy import npy, npy_header, npz
from corpus.rawzip import Member, zipped

FLOATS = bytes(8)
NO = (MALFORMED,)
ESCAPES = "\x1b[2J\u202e\u009b"


def headers() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """One array each."""
    good = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"
    for descr in (
        "<f5",
        "f",
        "",
        "<f4 ",
        "<q9",
        "<U4",
        "|S4",
        "<M8[s]",
        "<m8",
        "|V4",
        "x",
        "<f16",
        ESCAPES,
        "|b2",
        "(2,)<f4",
    ):
        yield f"descr-{descr.encode('unicode_escape').decode()}", npy(descr, (2,), FLOATS), NO
    yield "descr-none", npy(None, (2,), FLOATS), NO
    yield "descr-fields", npy([("a", "<f4")], (2,), FLOATS), NO
    yield (
        "descr-deep-fields",
        npy_header(b"{'descr': " + b"[" * 2000 + b"]" * 2000 + b", 'fortran_order': False, 'shape': ()}"),
        NO,
    )
    for name, shape in (
        ("none", None),
        ("list", [2]),
        ("number", 2),
        ("negative", (-2,)),
        ("float", (2.0,)),
        ("text", ("2",)),
        ("true", (True, 2)),
        ("other", (3,)),
        ("huge", (1 << 62,)),
        ("2-to-the-64", (1 << 64,)),
        ("overflow", (1 << 32, 1 << 32)),
        ("rank-65", (1,) * 64 + (2,)),
    ):
        yield f"shape-{name}", npy("<f4", shape, FLOATS), NO
    yield "empty-of-a-huge-shape", npy("<f4", (0, 1 << 62), b""), (OK, MALFORMED)
    for odd in (None, 0, 1, "False"):
        yield f"fortran-{odd}", npy("<f4", (2,), FLOATS, fortran=odd), NO
    yield "too-short", npy("<f4", (2,), FLOATS[:-1]), NO
    yield "too-long", npy("<f4", (2,), FLOATS + b"x"), NO
    for version in (0, 4, 255):
        yield f"version-{version}", npy("<f4", (2,), FLOATS, version=version), NO
    yield "no-magic", good + FLOATS, NO
    yield "empty", b"", NO
    yield "only-magic", b"\x93NUMPY", NO
    yield "header-longer-than-the-file", npy_header(good, length=60_000), NO
    yield "header-of-4-gb", npy_header(good, 2, length=0xFFFFFFFF), (MALFORMED, LIMIT)
    yield "header-of-nothing", npy_header(b""), NO
    yield "header-of-garbage", npy_header(b"\xff" * 50), NO
    yield "header-that-calls", npy_header(b"__import__('os').mkdir('ran')\n"), NO
    yield (
        "header-that-calls-inside",
        npy_header(b"{'descr': open('ran', 'w'), 'fortran_order': False, 'shape': ()}"),
        NO,
    )
    yield "header-of-parentheses", npy_header(b"(" * 60_000), NO
    yield "header-of-minus-signs", npy_header(b"-" * 60_000 + b"1"), NO
    yield (
        "header-of-a-long-number",
        npy_header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"9" * 50_000 + b",)}"),
        NO,
    )
    yield "header-with-a-key-more", npy_header(good[:-1] + b"'x': 1}") + FLOATS, NO
    yield "header-without-shape", npy_header(b"{'descr': '<f4', 'fortran_order': False}") + FLOATS, NO
    yield "header-with-a-key-twice", npy_header(good[:-1] + b"'shape': (2,)}") + FLOATS, (OK, MALFORMED)
    yield "header-with-bytes-keys", npy_header(b"{b'descr': '<f4', 'fortran_order': False, 'shape': (2,)}") + FLOATS, NO
    yield "header-with-a-nul", npy_header(good + b"\0") + FLOATS, NO
    yield "header-with-a-set", npy_header(b"{'descr', 'fortran_order', 'shape'}") + FLOATS, NO
    yield "header-with-unhashable-key", npy_header(b"{[]: 1, 'descr': '<f4'}") + FLOATS, NO
    yield "object-of-garbage", npy("|O", (1,), b"\xff" * 10), (MALFORMED, UNSAFE)
    yield "object-of-nothing", npy("|O", (1,), b""), (MALFORMED, UNSAFE)
    yield "object-of-numbers", npy("|O", (2,), b"\x80\x02](K\x01K\x02e."), (MALFORMED, UNSAFE)


def archives() -> Iterator[tuple[str, Callable[[], bytes] | bytes, tuple[int, ...]]]:
    """What lies in the archive."""
    good = npy("<f4", (2,), FLOATS)
    yield "no-array", npz({}), (OK, MALFORMED)
    yield "stranger", zipped([Member("w.npy", good), Member("x.txt", b"x")]), NO
    yield "twice", zipped([Member("w.npy", good), Member("w.npy", good)]), NO
    yield "name-empty", zipped([Member(".npy", good)]), (OK, MALFORMED)
    yield "name-of-escapes", zipped([Member(f"a{ESCAPES}.npy", good, flags=0x800)]), (OK, MALFORMED)
    yield "name-traversal", npz({"../../x": good}), (OK, MALFORMED)
    yield "bomb", lambda: npz({"w": npy("<f4", (1 << 24,), bytes(1 << 26))}, 8), (OK, MALFORMED, LIMIT)
    yield (
        "bomb-of-headers",
        lambda: npz({f"w{n}": npy("<f4", (1 << 20,), bytes(1 << 22)) for n in range(40)}, 8),
        (OK, MALFORMED, LIMIT),
    )
    yield (
        "bomb-that-lies",
        zipped(
            [Member("w.npy", npy("<f4", (1 << 28,), bytes(100)), 8, local={"size": 1 << 30}, central={"size": 1 << 30})]
        ),
        (MALFORMED, LIMIT),
    )
    for name, extras in (("list", []), ("kinds", {"dtypes": {"w": "float99"}}), ("kinds-list", {"dtypes": []}),
                         ("kinds-width", {"dtypes": {"w": "bfloat16"}}), ("second-of-nothing", {"aliases": {"v": "x"}}),
                         ("second-of-itself", {"aliases": {"w": "w"}}), ("second-number", {"aliases": {"v": 1}}),
                         ("metadata-list", {"metadata": []})):  # fmt: skip
        yield (
            f"member-{name}",
            zipped([Member("__weightkit__.json", json.dumps(extras).encode()), Member("w.npy", good)]),
            NO,
        )
    deep = b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield "member-deep", zipped([Member("__weightkit__.json", deep), Member("w.npy", good)]), NO


def cases() -> Iterator[Case]:
    """All of them."""
    for name, content, exits in headers():
        yield hostile(f"npz-{name}", "model.npz", npz({"w": content}), *exits)
    for name, made, exits in archives():
        yield hostile(f"npz-archive-{name}", "model.npz", made, *exits)
