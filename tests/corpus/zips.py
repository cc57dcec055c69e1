"""Zip archives that can be read in two ways, that lie, or that grow: with a payload where torch still loads them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from corpus.case import LIMIT, MALFORMED, MARK, OK, UNSAFE, Case, hostile, live
from corpus.npy import npy, npy_header
from corpus.opcodes import call, pickled, tensor
from corpus.rawzip import PICKLE, Member, archive, torch_members, zipped

GOOD = pickled({"w": tensor()})
EVIL = pickled({"w": tensor(), "p": call("os.mkdir", MARK)})
EITHER = (MALFORMED, UNSAFE)
FLOATS = struct.pack("<2f", 1.5, -2.0)
ESCAPES = "\x1b[2J\u202e\x9b\r\n"


def with_payload() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """Archives that torch loads, and what may be answered."""
    rest = torch_members(EVIL)[1:]
    clean = torch_members(GOOD)
    pickle = Member(PICKLE, EVIL)
    yield "deflated", zipped([Member(PICKLE, EVIL, 8), *rest]), (UNSAFE,)
    yield "all-deflated", zipped([Member(m.name, m.content, 8) for m in torch_members(EVIL)]), (UNSAFE,)
    yield "pickle-last", zipped([*rest, pickle]), (UNSAFE,)
    yield (
        "other-folder",
        zipped([Member("x/data.pkl", EVIL), Member("x/data/0", FLOATS), Member("x/version", b"3")]),
        (UNSAFE,),
    )
    yield "prefix-of-a-zip", zipped(torch_members(EVIL), prefix=zipped(clean)), EITHER
    yield "junk-before-the-directory", zipped(torch_members(EVIL), before_directory=b"junk" * 10), EITHER
    yield "gap-between-entries", zipped([Member(PICKLE, EVIL, gap=b"\0" * 64), *rest]), EITHER
    yield "comment", zipped(torch_members(EVIL), comment=b"a comment"), EITHER
    yield "entry-comment", zipped([Member(PICKLE, EVIL, comment=b"x"), *rest]), EITHER
    yield "twice-good-first", zipped([Member(PICKLE, GOOD), pickle, *rest]), EITHER
    yield "hidden-good-one", zipped([Member(PICKLE, GOOD, skip_central=True), pickle, *rest]), EITHER
    yield "local-name-differs", zipped([Member(PICKLE, EVIL, local={"name": b"archive/data.txt"}), *rest]), EITHER
    yield "local-sizes-differ", zipped([Member(PICKLE, EVIL, local={"size": 1, "stored": 1}), *rest]), EITHER
    yield "local-crc-differs", zipped([Member(PICKLE, EVIL, local={"crc": 1}), *rest]), EITHER
    yield "local-method-differs", zipped([Member(PICKLE, EVIL, local={"method": 8}), *rest]), EITHER
    yield "local-flags-differ", zipped([Member(PICKLE, EVIL, local={"flags": 1}), *rest]), EITHER
    yield "local-sizes-zero", zipped([Member(PICKLE, EVIL, local={"size": 0, "stored": 0, "crc": 0}), *rest]), EITHER
    yield (
        "descriptor-lies",
        zipped(
            [
                Member(
                    PICKLE,
                    EVIL,
                    flags=8,
                    local={"size": 0, "stored": 0, "crc": 0},
                    descriptor=b"PK\x07\x08" + bytes(12),
                ),
                *rest,
            ]
        ),
        EITHER,
    )
    yield (
        "descriptor-missing",
        zipped([Member(PICKLE, EVIL, flags=8, local={"size": 0, "stored": 0, "crc": 0}), *rest]),
        EITHER,
    )
    yield "other-case", zipped([Member("archive/DATA.PKL", EVIL), *rest]), EITHER
    yield "folder-like-the-pickle", zipped([pickle, *rest, Member("archive/data.pkl/", b"")]), EITHER
    yield (
        "unknown-extra-field",
        zipped([Member(PICKLE, EVIL, central_extra=struct.pack("<HH", 0x9999, 4) + b"abcd"), *rest]),
        EITHER,
    )
    unicode_path = b"\x01" + struct.pack("<I", 0) + b"archive/other"
    yield (
        "unicode-path-field",
        zipped(
            [Member(PICKLE, EVIL, central_extra=struct.pack("<HH", 0x7075, len(unicode_path)) + unicode_path), *rest]
        ),
        EITHER,
    )
    yield "malformed-extra-field", zipped([Member(PICKLE, EVIL, local_extra=b"\xff\xff\xff"), *rest]), EITHER
    yield "second-disk", zipped([Member(PICKLE, EVIL, central={"disk": 1}), *rest]), EITHER
    yield "moment-differs", zipped([Member(PICKLE, EVIL, local={"moment": 0}), *rest]), EITHER
    yield "traversal-beside", zipped([pickle, *rest, Member("archive/../../x", b"x")]), EITHER
    yield "escape-names-beside", zipped([pickle, *rest, Member("archive/" + ESCAPES, b"x")]), EITHER
    yield (
        "tensor-record-missing-behind",
        zipped(
            [Member(PICKLE, pickled({"p": call("os.mkdir", MARK), "w": tensor()})), Member("archive/version", b"3")]
        ),
        (UNSAFE,),
    )
    yield "byte-order-unknown-behind", zipped([pickle, *rest, Member("archive/extra/byteorder", b"x")]), (UNSAFE,)
    yield "wrong-ending-safetensors-free", zipped(torch_members(EVIL)), (UNSAFE,)


def without_payload() -> Iterator[tuple[str, Callable[[], bytes] | bytes, tuple[int, ...]]]:
    """Archives that must be refused, or do no harm."""
    rest = torch_members(GOOD)[1:]
    pickle = Member(PICKLE, GOOD)
    no = (MALFORMED,)
    yield from _loaded_by_others()
    yield "encrypted", zipped([Member(PICKLE, GOOD, flags=1), *rest]), no
    yield "strong-encryption", zipped([Member(PICKLE, GOOD, flags=0x41), *rest]), no
    yield "masked-headers", zipped([Member(PICKLE, GOOD, flags=0x2000), *rest]), no
    yield "method-12", zipped([Member(PICKLE, GOOD, 12), *rest]), no
    yield "method-99", zipped([Member(PICKLE, GOOD, 99), *rest]), no
    yield "hidden-evil", zipped([Member("archive/data.pk1", EVIL, skip_central=True), pickle, *rest]), no
    yield "pickle-in-a-gap", zipped([Member(PICKLE, GOOD, gap=EVIL), *rest]), no
    yield "overlap", zipped([pickle, Member("archive/data/0", FLOATS, central={"offset": 0})]), no
    yield "same-bytes-twice", zipped([pickle, *rest, Member("archive/data/1", b"", central={"offset": 0})]), no
    yield "offset-outside", zipped([Member(PICKLE, GOOD, central={"offset": 1 << 30}), *rest]), no
    yield "size-outside", zipped([Member(PICKLE, GOOD, central={"size": 1 << 30, "stored": 1 << 30}), *rest]), no
    yield "crc-wrong", zipped([Member(PICKLE, GOOD, local={"crc": 1}, central={"crc": 1}), *rest]), no
    yield (
        "record-crc-wrong",
        zipped([pickle, Member("archive/data/0", FLOATS, local={"crc": 1}, central={"crc": 1})]),
        (OK, MALFORMED),
    )
    yield "stored-sizes-differ", zipped([Member(PICKLE, GOOD, local={"size": 9}, central={"size": 9}), *rest]), no
    for field, number in (("disk", 1), ("start_disk", 1), ("here", 9), ("count", 9), ("count", 0xFFFF), ("size", 1),
                          ("size", 0xFFFFFFFF), ("start", 0), ("start", 0xFFFFFFFF), ("comment", 5)):  # fmt: skip
        yield f"end-record-{field}-{number}", zipped([pickle, *rest], end={field: number}), no
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 0, 1)
    yield "zip64-locator-to-nothing", zipped([pickle, *rest], zip64=locator, end={"start": 0xFFFFFFFF}), no
    yield "zip64-locator-outside", zipped([pickle, *rest], zip64=b"PK\x06\x07" + struct.pack("<IQI", 0, 1 << 60, 1)), no
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1 << 50, 1 << 50, 1 << 50, 0)
    yield (
        "zip64-of-2-to-the-50-entries",
        zipped([pickle, *rest], zip64=end64 + locator, end={"count": 0xFFFF, "here": 0xFFFF}),
        (MALFORMED, LIMIT),
    )
    yield (
        "zip64-extra-too-short",
        zipped([Member(PICKLE, GOOD, central={"size": 0xFFFFFFFF}, central_extra=struct.pack("<HHI", 1, 4, 0)), *rest]),
        no,
    )
    yield (
        "zip64-extra-huge",
        zipped(
            [
                Member(
                    PICKLE,
                    GOOD,
                    central={"size": 0xFFFFFFFF, "stored": 0xFFFFFFFF},
                    central_extra=struct.pack("<HHQQ", 1, 16, 1 << 62, 1 << 62),
                ),
                *rest,
            ]
        ),
        no,
    )
    yield "appended", archive(GOOD) + b"x", no
    yield "prefix", b"x" + archive(GOOD), no
    yield "shifted-prefix", zipped([pickle, *rest], prefix=b"#!/bin/sh\n", shift=False), no
    yield "end-record-alone", b"PK\x05\x06" + bytes(18), no
    yield "local-header-alone", b"PK\x03\x04" + bytes(26), no
    yield "no-pickle", zipped(rest), no
    yield "empty-folder-names", zipped([pickle, *rest, Member("archive/", b"")]), (OK, MALFORMED)
    yield "pickle-without-folder", zipped([Member("data.pkl", GOOD), Member("data/0", FLOATS)]), (OK, MALFORMED)
    yield "empty-name", zipped([pickle, *rest, Member("", b"x")]), no
    yield "name-with-nul", zipped([pickle, *rest, Member("archive/a\0b", b"x")]), no
    yield "name-not-utf-8", zipped([pickle, *rest, Member(b"archive/\xff\xfe", b"x", flags=0x800)]), no
    yield "name-not-ascii", zipped([pickle, *rest, Member(b"archive/\xe9", b"x")]), (OK, MALFORMED)
    yield (
        "name-of-60000-bytes",
        zipped([pickle, *rest, Member("archive/" + "n" * 60_000, b"x")]),
        (OK, MALFORMED, LIMIT),
    )
    yield "name-of-escapes", zipped([pickle, *rest, Member("archive/" + ESCAPES, b"x")]), (OK, MALFORMED)
    yield "name-traversal", zipped([pickle, *rest, Member("../../../tmp/x", b"x")]), (OK, MALFORMED)
    yield "name-absolute", zipped([pickle, *rest, Member("/tmp/x", b"x")]), (OK, MALFORMED)
    yield "name-of-a-drive", zipped([pickle, *rest, Member("C:\\x", b"x")]), (OK, MALFORMED)
    yield "symbolic-link", zipped([pickle, *rest, Member("archive/link", b"/etc/passwd")]), (OK, MALFORMED)
    yield "bomb-pickle", lambda: zipped([Member(PICKLE, bytes(600 << 20), 8), *rest]), (MALFORMED, LIMIT)
    yield (
        "bomb-pickle-of-none",
        lambda: zipped([Member(PICKLE, b"\x80\x02" + b"N0" * (8 << 20) + b"N.", 8), *rest]),
        (OK, MALFORMED, LIMIT),
    )
    yield "bomb-record", lambda: zipped([pickle, Member("archive/data/0", bytes(64 << 20), 8)]), no
    yield (
        "bomb-lies-small",
        zipped([Member(PICKLE, bytes(1 << 20), 8, local={"size": 10}, central={"size": 10}), *rest]),
        no,
    )
    yield (
        "bomb-lies-big",
        zipped([Member(PICKLE, GOOD, 8, local={"size": 3 << 30}, central={"size": 3 << 30}), *rest]),
        (MALFORMED, LIMIT),
    )
    yield "deflate-cut", zipped([Member(PICKLE, GOOD, 8, stored=Member(PICKLE, GOOD, 8).packed()[:-4]), *rest]), no
    yield "deflate-garbage", zipped([Member(PICKLE, GOOD, 8, stored=b"\xff" * 40), *rest]), no
    yield (
        "deflate-with-more-behind",
        zipped([Member(PICKLE, GOOD, 8, stored=Member(PICKLE, GOOD, 8).packed() + b"more"), *rest]),
        no,
    )
    yield (
        "many-entries",
        lambda: zipped([pickle, *rest, *(Member(f"archive/x{n}", b"") for n in range(60_000))]),
        (OK, MALFORMED, LIMIT),
    )
    yield (
        "torchscript",
        zipped([pickle, *rest, Member("archive/constants.pkl", b"\x80\x02)."), Member("archive/code/x.py", b"x")]),
        (OK, MALFORMED, UNSAFE),
    )
    yield (
        "other-pickle-calls",
        zipped([pickle, *rest, Member("archive/extra.pkl", pickled(call("os.getpid")))]),
        (UNSAFE,),
    )
    yield (
        "other-pickle-without-ending-calls",
        zipped([pickle, *rest, Member("archive/extra/hook", pickled(call("os.getpid")))]),
        (OK, UNSAFE),
    )
    yield "second-pickle-behind", zipped(torch_members(GOOD + pickled(call("os.getpid")))), (UNSAFE,)
    yield "second-harmless-pickle-behind", zipped(torch_members(GOOD + pickled(1))), (UNSAFE,)
    yield (
        "pickle-behind-garbage-behind",
        zipped(torch_members(GOOD + b"\xff\xff" + pickled(call("os.getpid")))),
        (OK, UNSAFE, MALFORMED),
    )
    yield "byte-order-unknown", zipped(torch_members(GOOD, {"data/0": FLOATS, "byteorder": b"middle"})), no
    yield "byte-order-of-escapes", zipped(torch_members(GOOD, {"data/0": FLOATS, "byteorder": b"\x1b[2J"})), no
    yield (
        "byte-order-huge",
        zipped(torch_members(GOOD, {"data/0": FLOATS, "byteorder": b"little" * 1000})),
        (OK, MALFORMED),
    )
    yield "record-missing", zipped(torch_members(GOOD, {})), no
    yield "record-too-short", zipped(torch_members(GOOD, {"data/0": bytes(7)})), no
    yield "record-too-long", zipped(torch_members(GOOD, {"data/0": bytes(9)})), no
    yield "record-is-a-folder", zipped(torch_members(GOOD, {"data/0/": b""})), no
    yield (
        "npz-inside",
        zipped([Member("archive/data.pkl", npy("<f4", (2,), FLOATS)), Member("w.npy", npy_header(b"{}"))]),
        no,
    )


def _loaded_by_others() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """With a payload that today's torch does not reach, and another loader may."""
    evil, *others = torch_members(EVIL)
    clean = torch_members(GOOD)
    yield "suffix-of-a-zip", archive(GOOD) + zipped(torch_members(EVIL), prefix=b""), EITHER
    yield "comment-with-an-end-record", zipped(torch_members(EVIL), comment=archive(GOOD)[-22:]), EITHER
    yield "twice-evil-first", zipped([evil, Member(PICKLE, GOOD), *others]), EITHER
    yield (
        "two-folders",
        zipped([evil, *others, *(Member(m.name.replace("archive", "b"), m.content) for m in clean)]),
        EITHER,
    )
    yield "absolute-beside", zipped([evil, *others, Member("/etc/x", b"x")]), EITHER
    yield "stranger-beside", zipped([evil, *others, Member("README.txt", b"x")]), (UNSAFE,)
    yield (
        "record-of-another-size",
        zipped([evil, Member("archive/data/0", b"x"), Member("archive/version", b"3")]),
        (UNSAFE,),
    )
    yield (
        "crc-of-the-record-wrong",
        zipped([evil, Member("archive/data/0", FLOATS, local={"crc": 1}, central={"crc": 1})]),
        EITHER,
    )
    yield "no-version", zipped([evil, others[0]]), EITHER


def cases() -> Iterator[Case]:
    """All of them."""
    for name, content, exits in with_payload():
        yield live(f"zip-live-{name}", "model.pt", content, "os.mkdir", exits=exits)
    for ending in (".bin", ".zip", ".pkl", "", ".npz", ".tar"):
        yield live(f"zip-live-ending{ending}", f"model{ending}", archive(EVIL), "os.mkdir", exits=EITHER)
    for name, made, exits in without_payload():
        yield hostile(f"zip-{name}", "model.pt", made, *exits)
