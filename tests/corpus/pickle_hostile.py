"""Pickles without a payload that are malformed, that lie about lengths, or that cost far more than they weigh."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from corpus.case import LIMIT, MALFORMED, OK, UNSAFE, Case, hostile
from corpus.legacy import MAGIC, parts_of_stream, stream
from corpus.opcodes import Raw, beside_a_tensor, call, integer, named, newobj, persistent, pickled, tensor, text, value
from corpus.rawzip import archive

HARMLESS = (OK, MALFORMED, LIMIT)
ESCAPES = "\x1b[31m\x1b]0;x\x07\x9b2J\u202e\u2066\u200b\r\n\t\x00\x7f\u2028"


def malformed() -> Iterator[tuple[str, bytes]]:
    """Streams that no unpickler accepts."""
    yield "empty", b""
    yield "only-proto", b"\x80\x02"
    yield "proto-without-number", b"\x80"
    yield "no-stop", b"\x80\x02}"
    yield "stop-on-empty-stack", b"\x80\x02."
    yield "stop-above-a-mark", b"\x80\x02(."
    yield "unknown-opcode", b"\x80\x02\xff."
    yield "opcode-zero", b"\x80\x02\x00."
    yield "unknown-protocol", b"\x80\x06N."
    yield "unknown-protocol-255", b"\x80\xffN."
    yield "memo-never-stored", b"\x80\x02h\x05."
    yield "long-memo-never-stored", b"\x80\x02j\xff\xff\xff\xff."
    yield "text-memo-never-stored", b"g99\n."
    yield "negative-memo-index", b"Ng-1\n."
    yield "huge-memo-index", b"Np99999999999999999999\n."
    yield "memo-index-is-text", b"Npabc\n."
    yield "put-on-empty-stack", b"\x80\x02q\x00N."
    yield "get-without-line", b"Ng1"
    yield "append-to-a-number", b"\x80\x02K\x01K\x02a."
    yield "appends-to-a-dict", b"\x80\x02}(K\x01e."
    yield "setitem-on-a-list", b"\x80\x02]K\x01K\x02s."
    yield "odd-setitems", b"\x80\x02}(K\x01u."
    yield "odd-dict", b"\x80\x02(K\x01d."
    yield "additems-to-a-list", b"\x80\x04](K\x01\x90."
    yield "build-on-a-number", b"\x80\x02K\x01}b."
    yield "build-on-empty-stack", b"\x80\x02}b."
    yield "reduce-on-empty-stack", b"\x80\x02R."
    yield "newobj-on-empty-stack", b"\x80\x02\x81."
    yield "newobj-ex-on-empty-stack", b"\x80\x04\x92."
    yield "obj-without-a-class", b"\x80\x02(o."
    yield "obj-without-a-mark", b"\x80\x02o."
    yield "inst-without-a-mark", b"ios\nsystem\n."
    yield "tuple-without-a-mark", b"\x80\x02Nt."
    yield "tuple3-of-two", b"\x80\x02NN\x87."
    yield "pop-mark-without-a-mark", b"\x80\x02N1."
    yield "pop-on-empty-stack", b"\x80\x020N."
    yield "dup-on-empty-stack", b"\x80\x022."
    yield "stack-global-of-numbers", b"\x80\x04K\x01K\x02\x93."
    yield "stack-global-of-one", b"\x80\x04X\x01\x00\x00\x00a\x93."
    yield "global-without-name", b"\x80\x02cos\n."
    yield "global-without-line", b"\x80\x02cos"
    yield "global-not-utf-8", b"\x80\x02c\xff\xfe\nx\n."
    yield "binpersid-on-empty-stack", b"\x80\x02Q."
    yield "persid-not-ascii", b"P\xff\n."
    yield "out-of-band-buffer", b"\x80\x05\x97."
    yield "readonly-buffer", b"\x80\x05\x98."
    yield "frame-too-long", b"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00N."
    yield "frame-of-2-to-the-63", b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + b"N."
    yield "frame-in-a-frame", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x95\x02\x00\x00\x00\x00\x00\x00\x00N."
    yield "frame-splits-an-opcode", b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00a."
    yield "frame-without-length", b"\x80\x04\x95\x01"
    yield "bad-integer", b"Iabc\n."
    yield "empty-integer", b"I\n."
    yield "bad-long", b"L12xL\n."
    yield "bad-float", b"Fabc\n."
    yield "empty-float", b"F\n."
    yield "cut-binfloat", b"\x80\x02G\x00\x00"
    yield "string-without-quotes", b"Sabc\n."
    yield "string-with-one-quote", b"S'abc\n."
    yield "string-with-bad-escape", b"S'\\x4'\n."
    yield "unicode-with-bad-escape", b"V\\u12\n."
    yield "text-not-utf-8", b"\x80\x02X\x02\x00\x00\x00\xff\xfe."
    yield "negative-binstring", b"\x80\x02T\xff\xff\xff\xffa."
    yield "negative-long4", b"\x80\x02\x8b\xff\xff\xff\xff."
    yield "cut-binint", b"\x80\x02J\x01"


def lengths() -> Iterator[tuple[str, bytes]]:
    """Lengths far beyond the file: nothing may be reserved for them."""
    for name, code in (("binunicode", b"X"), ("binbytes", b"B"), ("binstring", b"T"), ("long4", b"\x8b")):
        yield f"{name}-of-2-gb", b"\x80\x04" + code + struct.pack("<I", 0x7FFFFFFF) + b"abc."
    for name, code in (("binunicode8", b"\x8d"), ("binbytes8", b"\x8e"), ("bytearray8", b"\x96")):
        for exponent in (40, 63):
            yield f"{name}-of-2-to-the-{exponent}", b"\x80\x05" + code + struct.pack("<Q", 1 << exponent) + b"abc."
        yield f"{name}-of-all-ones", b"\x80\x05" + code + b"\xff" * 8 + b"abc."


def bombs() -> Iterator[tuple[str, Callable[[], bytes], tuple[int, ...]]]:
    """Small files that ask for much time, memory or depth."""
    many = 400_000
    yield "nested-lists", lambda: b"\x80\x02" + b"]" * many + b"a" * (many - 1) + b".", HARMLESS
    yield "nested-tuples", lambda: b"\x80\x02N" + b"\x85" * many + b".", HARMLESS
    yield "nested-marks", lambda: b"\x80\x02" + b"(" * many + b"t" * many + b".", HARMLESS
    yield "nested-dicts", lambda: b"\x80\x02" + b"}K\x00" * many + b"N" + b"s" * many + b".", HARMLESS
    yield "nested-sets", lambda: b"\x80\x04" + b"(" * many + b"\x91" * many + b".", HARMLESS
    yield "nested-persistent-ids", lambda: b"\x80\x02N" + b"Q" * many + b".", HARMLESS
    yield (
        "nested-calls",
        lambda: (
            b"\x80\x02)"
            + b"".join([named("collections.OrderedDict") * 1 + b")R\x85" for _ in range(1)])
            + b"0N"
            + (b"q\x000" + named("collections.OrderedDict") + b"h\x00\x85R") * 60_000
            + b"."
        ),
        HARMLESS,
    )
    yield "nested-tuple-as-key", lambda: b"\x80\x02}N" + b"\x85" * many + b"Ns.", HARMLESS
    yield (
        "nested-states",
        lambda: b"\x80\x02N" + (b"q\x000" + newobj("m.C") + b"}K\x00h\x00sb") * 60_000 + b".",
        HARMLESS,
    )
    yield "pop-mark-storm", lambda: b"\x80\x02N" + b"(1" * 2_000_000 + b".", HARMLESS
    yield "marks-without-end", lambda: b"\x80\x02" + b"(" * 3_000_000 + b".", HARMLESS
    yield "none-pop-storm", lambda: b"\x80\x02N" + b"N0" * 2_000_000 + b".", HARMLESS
    yield "proto-storm", lambda: b"\x80\x02" * 1_000_000 + b"N.", HARMLESS
    yield "dup-doubling", lambda: b"\x80\x02N" + b"2\x86" * 400 + b".", HARMLESS
    yield "dup-doubling-lists", lambda: b"\x80\x02]" + b"q\x000]h\x00ah\x00a" * 200 + b".", HARMLESS
    yield "billion-laughs", lambda: _laughs(b"](", b"e"), HARMLESS
    yield "billion-laughs-tuples", lambda: _laughs(b"(", b"t"), HARMLESS
    yield "billion-laughs-keys", lambda: b"\x80\x02}" + _laughs(b"(", b"t")[2:-1] + b"Ns.", HARMLESS
    yield "billion-laughs-sets", lambda: b"\x80\x04" + _laughs(b"(", b"\x91")[2:], HARMLESS
    yield "billion-laughs-dicts", lambda: _dict_laughs(), HARMLESS
    yield "billion-laughs-texts", lambda: _text_laughs(), HARMLESS
    yield "memo-storm", lambda: b"\x80\x04N" + b"\x94" * 2_000_000 + b".", HARMLESS
    yield (
        "sparse-memo",
        lambda: b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", n << 12) for n in range(200_000)) + b".",
        HARMLESS,
    )
    yield "decimal-of-a-million-digits", lambda: b"L" + b"9" * 1_000_000 + b"L\n.", HARMLESS
    yield "integer-of-a-million-digits", lambda: b"I" + b"9" * 1_000_000 + b"\n.", HARMLESS
    yield (
        "long4-of-a-million-bytes",
        lambda: b"\x80\x02\x8b" + struct.pack("<I", 1_000_000) + b"\x7f" * 1_000_000 + b".",
        HARMLESS,
    )
    yield "float-of-a-million-digits", lambda: b"F" + b"9" * 1_000_000 + b"\n.", HARMLESS
    yield "float-infinity", lambda: b"Finf\n.", HARMLESS
    yield "float-nan-key", lambda: b"}(Fnan\nNFnan\nNu.", HARMLESS
    yield "colliding-keys", lambda: _keys(lambda n: n * ((1 << 61) - 1)), HARMLESS
    yield (
        "colliding-texts",
        lambda: b"\x80\x02}(" + b"".join(text(f"k{n}") + b"N" for n in range(100_000)) + b"u.",
        HARMLESS,
    )
    yield "one-key-100000-times", lambda: _keys(lambda n: 1), HARMLESS
    yield "set-of-colliding-members", lambda: b"\x80\x04\x8f(" + _numbers(50_000) + b"\x90.", HARMLESS
    yield "long-module-name", lambda: beside_a_tensor(Raw(b"c" + b"m" * 100_000 + b"\nC\n")), HARMLESS
    yield "long-global-name", lambda: beside_a_tensor(Raw(b"cm\n" + b"C" * 100_000 + b"\n")), HARMLESS
    yield (
        "long-dotted-name",
        lambda: beside_a_tensor(Raw(b"cm\n" + b"a." * 50_000 + b"b\n"), 4),
        (MALFORMED, UNSAFE, LIMIT),
    )
    yield (
        "many-names",
        lambda: beside_a_tensor(Raw(b"".join(b"cm%d\nC\n0" % n for n in range(100_000)) + b"N")),
        HARMLESS,
    )
    yield (
        "many-calls",
        lambda: beside_a_tensor(Raw((named("collections.OrderedDict") + b")R0") * 50_000 + b"N")),
        HARMLESS,
    )
    yield "range-of-2-to-the-62", lambda: beside_a_tensor(call("builtins.range", 0, 1 << 62)), HARMLESS
    yield (
        "bytearray-of-2-to-the-40",
        lambda: beside_a_tensor(call("builtins.bytearray", 1 << 40)),
        (OK, MALFORMED, UNSAFE, LIMIT),
    )
    yield (
        "list-of-a-range",
        lambda: beside_a_tensor(call("builtins.list", call("builtins.range", 0, 1 << 40))),
        (OK, MALFORMED, UNSAFE, LIMIT),
    )
    yield "size-of-many", lambda: beside_a_tensor(call("torch.Size", [1] * 100_000)), HARMLESS
    yield "holds-itself", lambda: b"\x80\x02]q\x00h\x00a.", HARMLESS
    yield "dict-holds-itself", lambda: b"\x80\x02}q\x00K\x01h\x00s.", HARMLESS
    yield "state-holds-its-object", lambda: b"\x80\x02" + newobj("m.C") + b"q\x00}K\x00h\x00sb.", HARMLESS
    yield "tuple-holds-itself", lambda: b"\x80\x02]q\x00h\x00\x85a.", HARMLESS
    yield (
        "call-argument-is-itself",
        lambda: b"\x80\x02]q\x00" + named("collections.OrderedDict") + b"h\x00\x85Ra.",
        HARMLESS,
    )
    yield "deep-path-to-a-tensor", lambda: pickled(_deep(150)), HARMLESS
    yield "deep-path-of-long-names", lambda: pickled(_deep(100, "n" * 100)), HARMLESS


def _laughs(opening: bytes, closing: bytes) -> bytes:
    body = b"".join(opening + b"h%c" % n * 10 + closing + b"q%c" % (n + 1) for n in range(40))
    return b"\x80\x02" + text("ha") + b"q\x00" + body + b"."


def _dict_laughs() -> bytes:
    level = b"".join(b"}(" + b"".join(b"K%ch%c" % (k, n) for k in range(10)) + b"uq%c" % (n + 1) for n in range(40))
    return b"\x80\x02]q\x00" + level + b"."


def _text_laughs() -> bytes:
    return b"\x80\x02" + text("x" * 1_000_000) + b"q\x00](" + b"h\x00" * 5000 + b"e."


def _deep(levels: int, name: str = "n") -> Raw:
    held = tensor()
    for _ in range(levels):
        held = value({name: held})
    return held


def _keys(number: Callable[[int], int]) -> bytes:
    return b"\x80\x02}(" + b"".join(integer(number(n)) + b"N" for n in range(1, 100_000)) + b"u."


def _numbers(count: int) -> bytes:
    return b"".join(integer(n * ((1 << 61) - 1)) for n in range(1, count))


def escapes() -> Iterator[tuple[str, bytes]]:
    """Names and values that would move a terminal's cursor."""
    yield "tensor-name", pickled({ESCAPES: tensor(), "b" + ESCAPES: tensor()})
    yield "metadata-key", pickled({"w": tensor(), ESCAPES: 1})
    yield "metadata-value", pickled({"w": tensor(), "v": ESCAPES})
    yield "metadata-surrogate", pickled({"w": tensor(), "v": "\ud800\udfff", "\udc80": 1})
    yield "tensor-name-surrogate", pickled({"w\ud800": tensor()})
    yield "tensor-name-empty", pickled({"": tensor()})
    yield "tensor-name-of-newlines", pickled({"\n\n\n": tensor(), "\r": tensor()})
    yield "tensor-name-like-a-path", pickled({"../../etc/passwd": tensor(), "/abs": tensor(), "a\\b": tensor()})
    yield "tensor-name-with-markup", pickled({"[red]x[/red]": tensor(), "[/]": tensor(), "[link=http://x]": tensor()})
    yield "tensor-name-of-wildcards", pickled({"a.*": tensor(), "a.{b,c}": tensor(), "**": tensor(), "a.b": tensor()})
    yield "tensor-name-of-combining", pickled({"e\u0301": tensor(), "\u00e9": tensor()})
    yield "class-name", beside_a_tensor(Raw(text("m" + ESCAPES) + text("C" + ESCAPES) + b"\x93"), 4)
    yield "class-name-global", beside_a_tensor(Raw("cm\x1b[2J\u202e\nC\x9b\n".encode()))
    yield "class-name-surrogate", beside_a_tensor(Raw(text("m\ud800") + text("C\udfff") + b"\x93"), 4)
    yield "called-name", beside_a_tensor(Raw("cm\x1b[2J\u202e\nC\x9b\n)R".encode()))
    yield "storage-key", pickled({"w": tensor(persistent(("storage", named("torch.FloatStorage"), ESCAPES, "cpu", 2)))})
    yield "storage-kind", pickled({"w": tensor(persistent(("storage", named("torch.\x1b[2JStorage"), "0", "cpu", 2)))})
    yield (
        "storage-location",
        pickled({"w": tensor(persistent(("storage", named("torch.FloatStorage"), "0", ESCAPES, 2)))}),
    )
    yield "dtype-name", beside_a_tensor(named("torch.\x1b[2J"))
    yield "cfg-of-escapes", pickled({"w": tensor(), "cfg": {ESCAPES: [ESCAPES, {ESCAPES: ESCAPES}]}})
    yield "bytes-of-escapes", pickled({"w": tensor(), b"\x1b[2J": b"\x1b[2J"})


def cases() -> Iterator[Case]:
    """Inside an archive, and the malformed ones also bare and in the old stream."""
    for name, content in malformed():
        yield hostile(f"malformed-{name}", "model.pt", archive(content), MALFORMED, UNSAFE)
        if content:
            yield hostile(f"malformed-bare-{name}", "model.pkl", content, MALFORMED, UNSAFE)
    for name, content in lengths():
        yield hostile(f"length-{name}", "model.pt", archive(content), MALFORMED, LIMIT)
        yield hostile(f"length-bare-{name}", "model.bin", content, MALFORMED, LIMIT)
        yield hostile(f"length-legacy-{name}", "model.pth", stream({"objects": content}), MALFORMED, LIMIT)
    for name, make, exits in bombs():
        yield hostile(f"bomb-{name}", "model.pt", lambda make=make: archive(make()), *exits)  # type: ignore[misc]
        yield hostile(f"bomb-bare-{name}", "model.pkl", lambda make=make: make(), *exits, UNSAFE)  # type: ignore[misc]
    for name, content in escapes():
        yield hostile(f"escape-{name}", "model.pt", archive(content), OK, MALFORMED, UNSAFE)
    for part in ("magic", "version", "system", "objects", "keys"):
        whole = parts_of_stream()
        yield hostile(f"legacy-{part}-cut", "model.pt", stream({part: whole[part][:-1]}), MALFORMED)
        yield hostile(f"legacy-{part}-malformed", "model.pt", stream({part: b"\x80\x02\xff."}), MALFORMED)
        yield hostile(f"legacy-{part}-missing", "model.pt", stream({part: b""}), MALFORMED, UNSAFE)
    yield hostile("legacy-other-version", "model.pt", stream({"version": pickled(1000)}), MALFORMED)
    yield hostile("legacy-other-magic", "model.pt", stream({"magic": pickled(integer(MAGIC + 1))}), *HARMLESS, UNSAFE)
    yield hostile("legacy-keys-not-a-list", "model.pt", stream({"keys": pickled({"0": 1})}), MALFORMED)
    yield hostile("legacy-keys-unknown", "model.pt", stream({"keys": pickled(["1"])}), MALFORMED)
    yield hostile("legacy-keys-twice", "model.pt", stream({"keys": pickled(["0", "0"])}), MALFORMED)
    yield hostile("legacy-keys-empty", "model.pt", stream({"keys": pickled([])}), MALFORMED)
    yield hostile("legacy-keys-too-many", "model.pt", stream({"keys": pickled(["0"] * 100_000)}), *(MALFORMED, LIMIT))
    for numel in (-1, 0, 1, 3, 1 << 40, (1 << 63) - 1):
        content = stream(storages=struct.pack("<q", numel) + bytes(8))
        yield hostile(f"legacy-storage-of-{numel}", "model.pt", content, MALFORMED)
    yield hostile("legacy-storage-cut", "model.pt", stream()[:-1], MALFORMED)
    yield hostile("legacy-trailing-bytes", "model.pt", stream() + b"x", OK, MALFORMED)
    yield hostile("legacy-trailing-pickle", "model.pt", stream() + pickled(call("os.getpid")), MALFORMED, UNSAFE)
