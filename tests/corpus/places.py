"""File names that would move a cursor, and folders whose files point elsewhere or hide a payload."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from corpus.case import MALFORMED, MARK, OK, UNSAFE, Case, hostile, live
from corpus.opcodes import beside_a_tensor, call, pickled, tensor
from corpus.rawzip import archive
from corpus.safetensors_cases import RECORD, safetensors

EVIL = archive(beside_a_tensor(call("os.mkdir", MARK)))
GOOD = archive(pickled({"w": tensor()}))
SHARD = safetensors({"w": RECORD})
FREE = (OK, MALFORMED, UNSAFE)
NAMES = {
    "escape": "a\x1b[31m\x07.pt",
    "newline": "a\n[31merror: all is well\r.pt",
    "bidi": "a\u202egnp.pt",
    "c1": "a\x9b2J.pt",
    "invisible": "a\u200b\u2066\ufeff.pt",
    "not-utf-8": os.fsdecode(b"a\xff\xfe.pt"),
    "markup": "[red]a[bold].pt",
    "spaces": " a .pt ",
    "long": "n" * 240 + ".pt",
}


def _folders() -> Iterator[tuple[str, dict[str, bytes], tuple[int, ...]]]:
    index = "model.safetensors.index.json"

    def mapped(shard: str, *, name: str = "w", **rest: object) -> bytes:
        return json.dumps({"metadata": {"total_size": 8}, "weight_map": {name: shard}, **rest}).encode()

    def sharded(document: bytes, shard: bytes = SHARD) -> dict[str, bytes]:
        return {index: document, "model-00001-of-00001.safetensors": shard}

    only = "model-00001-of-00001.safetensors"
    no = (MALFORMED,)
    for kind, target in (
        ("traversal", "../file.safetensors"),
        ("absolute", "/etc/passwd"),
        ("missing", "model-00002.safetensors"),
        ("itself", index),
        ("folder", "."),
        ("empty", ""),
        ("nul", "a\0b"),
        ("escape", "\x1b[2J\u202e.safetensors"),
        ("backslash", "..\\x.safetensors"),
        ("device", "/dev/zero"),
    ):
        yield f"shard-{kind}", sharded(mapped(target)), no
    yield "shard-without-the-name", sharded(mapped(only, name="v")), no
    yield "shard-name-of-escapes", sharded(mapped(only, name="\x1b[2J")), no
    yield "shard-cut", sharded(mapped(only), SHARD[:-1]), no
    yield "shard-is-a-pickle", sharded(mapped(only), EVIL), (MALFORMED, UNSAFE)
    yield "index-list", sharded(b"[]"), no
    yield "index-map-list", sharded(b'{"weight_map": []}'), no
    yield "index-map-numbers", sharded(b'{"weight_map": {"w": 1}}'), no
    yield "index-key-twice", sharded(b'{"weight_map": {"w": "%s", "w": "%s"}}' % (only.encode(), only.encode())), no
    yield "index-deep", sharded(b'{"weight_map":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), no
    yield "index-not-utf-8", sharded(b'{"weight_map": {"\xff": "x"}}'), no
    yield "index-empty", sharded(b""), no
    yield "bin-index", {"pytorch_model.bin.index.json": mapped("a.bin"), "a.bin": EVIL}, (MALFORMED, UNSAFE)
    yield "bin-alone", {"pytorch_model.bin": EVIL, "config.json": b"{}"}, (MALFORMED, UNSAFE)
    yield "lerobot-with-a-pickle", {"config.json": b'{"type": "sac"}', "model.safetensors": SHARD, "o.pt": EVIL}, FREE
    yield "lerobot-config-deep", {"config.json": b"[" * 100_000, "model.safetensors": SHARD}, FREE
    yield "lerobot-config-of-escapes", {"config.json": b'{"type": "\\u001b[2J"}', "model.safetensors": SHARD}, FREE
    for kind, config in (
        ("list", b"[]"),
        ("cut", b'{"weightkit_format":'),
        ("deep", b"[" * 100_000),
        ("bytes", b"\xff"),
    ):
        yield f"own-config-{kind}", {"config.json": config, "model.safetensors": SHARD}, FREE
    own = b'{"weightkit_format": 1}'
    yield "own-without-weights", {"config.json": own}, no
    yield "own-of-a-later-version", {"config.json": b'{"weightkit_format": 99}', "model.safetensors": SHARD}, FREE
    yield "own-weights-are-a-pickle", {"config.json": own, "model.safetensors": EVIL}, (MALFORMED, UNSAFE)
    yield "nothing-known", {"readme": b"x"}, no


def cases() -> Iterator[Case]:
    """All of them."""
    for name, filename in NAMES.items():
        yield live(f"name-{name}-live", filename, EVIL, "os.mkdir")
        yield hostile(f"name-{name}-good", filename, GOOD, OK, MALFORMED)
        yield hostile(f"name-{name}-cut", filename, GOOD[:50], MALFORMED)
    for name, members, exits in _folders():
        yield Case(f"folder-{name}", "folder", b"", "hostile", exits=exits, members=members)
