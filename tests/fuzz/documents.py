"""Edits of what has a header of text: JSON, safetensors, .npy. Sizes and offsets are made to agree again, mostly."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable
from functools import lru_cache
from math import prod
from random import Random
from typing import Any

from fuzz.raw_edits import interesting

_WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1, "C64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_OTHER_CODES = ("F4", "F6_E2M3", "f32", "", "F128", "BF16 ", "I4")
_DESCRS = (
    "<f8", "<f4", "<f2", "<c8", "<c16", "<i8", "<i4", "<i2", "|i1", "<u8", "<u4", ">u2", "|u1", "|b1", ">f4", ">c8",
    "=f4", "|O", "O", "|V2", "|V1", "|V16", "<U3", "|S4", "<M8[ns]", "<m8", "<f16", "f4", "<f4'", ">b1", "|f4", "<i1",
    "\x1b[2J",
)  # fmt: skip
_TEXTS = (
    "", "w", "weight", "..", "../x", "a.b", "a/b", "__metadata__", "weightkit.aliases", "weightkit.json", "format",
    "dtype", "shape", "data_offsets", "weight_map", "metadata", "type", "registry_name", "class", "state_file",
    "steps", ":serialized:", ":type:", "model.safetensors", "MODEL-00001-of-00002.safetensors", "config.json",
    "\x1b[2Jx", "\u202ex", "\ud800", "x" * 5000, "größe", "\0", "{}", "[1]", '{"b": "w"}', "NaN", "dtypes", "aliases",
    "bfloat16", "float32", "complex32", "qint8",
)  # fmt: skip
_RAW = "\ue000raw\ue001"  # stands for text that is put into the document as it is
_PLACEHOLDER = re.compile('"\ue000raw\ue001"')
_RAW_VALUES = (
    "NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", "01", "1.0", "9" * 5000, "'x'", "nul", "", "{", "\\",
    '"\\ud800"', '"\\u0000"', "[" * 50 + "]" * 50, "[" * 985 + "]" * 985, "[" * 30000,
    '{"a":' * 970 + "1" + "}" * 970, '{"a": 1, "a": 2}', '"\x1f"', "1e-400", "18446744073709551616",
)  # fmt: skip


def _value(rng: Random) -> Any:
    way = rng.randrange(6)
    if way == 0:
        return interesting(rng) * rng.choice((1, 1, -1))
    if way == 1:
        return rng.choice(_TEXTS)
    if way == 2:
        return rng.choice((None, True, False, 0.5, 1.0, 2.0, -1, [], {}, [0], [[]], [{}], {"a": 1}, {"": None}))
    if way == 3:
        return [
            rng.choice((0, 1, 2, 3, -1, 1 << 63, True, 1.0, "1", None)) for _ in range(rng.choice((1, 2, 3, 5, 70)))
        ]
    if way == 4:
        return {rng.choice(_TEXTS): rng.choice((0, "w", None, [], {})) for _ in range(3)}
    return _RAW


def _containers(document: Any) -> list[Any]:
    found = []
    stack = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            found.append(node)
            stack += node.values()
        elif isinstance(node, list):
            found.append(node)
            stack += node
    return found


def _edit(rng: Random, document: Any) -> Any:
    containers = _containers(document)
    if not containers or rng.random() < 0.02:
        return _value(rng)
    node = rng.choice(containers)
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    way = rng.randrange(8)
    if not keys or way == 0:
        if isinstance(node, dict):
            node[rng.choice(_TEXTS)] = _value(rng)
        else:
            node.append(_value(rng))
        return document
    key = rng.choice(keys)
    if way in (1, 2):
        node[key] = _value(rng)
    elif way == 3:
        del node[key]
    elif way == 4 and isinstance(node, dict):
        node[rng.choice(_TEXTS)] = node.pop(key)
    elif way == 5:
        other = rng.choice(keys)
        node[key], node[other] = node[other], node[key]
    elif way == 6:
        node[key] = rng.choice(([node[key]], {"x": node[key]}, str(node[key])))
    elif isinstance(node[key], int):
        node[key] = interesting(rng, node[key])
    else:
        node[key] = json.loads(json.dumps(node[rng.choice(keys)]))
    return document


def _dumped(rng: Random, document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5, separators=(",", ":") if rng.random() < 0.7 else None)
    if "\\ue000" in text:
        text = text.replace("\\ue000", "\ue000").replace("\\ue001", "\ue001")
    text = _PLACEHOLDER.sub(lambda _: rng.choice(_RAW_VALUES), text)
    if rng.random() < 0.06 and len(text) > 4:
        at = text.find(":", rng.randrange(len(text)))
        start = text.rfind('"', 0, max(text.rfind('"', 0, at), 0)) if at > 0 else -1
        end = text.find(",", at)
        if 0 <= start < end:
            text = f"{text[:end]},{text[start:end]}{text[end:]}"  # a key that stands twice
    if rng.random() < 0.04:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice((" ", "\n", ",", "\ufeff", "//", "\0")) + text[at:]
    return text.encode("utf-8", "surrogatepass")


@lru_cache(maxsize=256)
def _parsed(content: bytes) -> str | None:
    """The document as canonical text; parsed afresh from it for each edit. None where it is no JSON."""
    try:
        text = content.decode("utf-8")
        return json.dumps(json.loads(text))
    except (ValueError, RecursionError):
        return None


def edited_json(rng: Random, content: bytes, edit_inner: Callable[[bytes], bytes]) -> bytes | None:
    """``content`` with values, keys or structure changed; pickles in base64 are edited by ``edit_inner``."""
    found = _parsed(content)
    if found is None:
        return None
    document = json.loads(found)
    inner = [
        node for node in _containers(document) if isinstance(node, dict) and isinstance(node.get(":serialized:"), str)
    ]
    if inner and rng.random() < 0.5:
        node = rng.choice(inner)
        try:
            pickled = base64.b64decode(node[":serialized:"])
        except ValueError:
            pickled = b"N."
        node[":serialized:"] = base64.b64encode(edit_inner(pickled)).decode()
        return _dumped(rng, document)
    for _ in range(rng.choice((1, 1, 2))):
        document = _edit(rng, document)
    return _dumped(rng, document)


def edited_safetensors(rng: Random, content: bytes) -> bytes | None:
    """``content`` with its header changed, its data made to fit again most of the time."""
    length = int.from_bytes(content[:8], "little")
    found = _parsed(content[8 : 8 + length])
    if found is None or not found.startswith("{"):
        return None
    document: Any = json.loads(found)
    data = content[8 + length :]
    for _ in range(rng.choice((1, 1, 2))):
        document = _edit(rng, document) if rng.random() < 0.4 else _edit_tensor(rng, document)
    if rng.random() < 0.6 and isinstance(document, dict):
        data = _tiled(document, data)
    if rng.random() < 0.1:
        data = rng.choice((data + b"\0", data[:-1], data[1:], data * 2))
    header = _dumped(rng, document)
    header += rng.choice((b"", b"", b" " * (-len(header) % 8), b"\0", b"\n", b"  x"))
    size = len(header) if rng.random() < 0.93 else interesting(rng, len(header))
    return struct.pack("<Q", size & ((1 << 64) - 1)) + header + data


def _edit_tensor(rng: Random, document: Any) -> Any:
    tensors = (
        [key for key, value in document.items() if isinstance(value, dict) and "shape" in value]
        if isinstance(document, dict)
        else []
    )
    if not tensors:
        return _edit(rng, document)
    name = rng.choice(tensors)
    record = document[name]
    way = rng.randrange(7)
    if way == 0:
        record["dtype"] = rng.choice((*_WIDTHS, *_WIDTHS, *_OTHER_CODES))
    elif way == 1:
        record["shape"] = [
            rng.choice((0, 1, 2, 3, 4, 1 << 31, 1 << 62)) for _ in range(rng.choice((0, 1, 2, 3, 8, 65)))
        ]
    elif way == 2 and isinstance(record["shape"], list) and record["shape"]:
        at = rng.randrange(len(record["shape"]))
        near = record["shape"][at]
        record["shape"][at] = interesting(rng, near if isinstance(near, int) else 1)
    elif way == 3 and isinstance(record.get("data_offsets"), list) and record["data_offsets"]:
        at = rng.randrange(len(record["data_offsets"]))
        near = record["data_offsets"][at]
        record["data_offsets"][at] = interesting(rng, near if isinstance(near, int) else 1)
    elif way == 4:
        document[rng.choice(_TEXTS)] = document.pop(name)
    elif way == 5:
        document[rng.choice(_TEXTS)] = dict(record)
    else:
        metadata = document.setdefault("__metadata__", {})
        if isinstance(metadata, dict):
            metadata[rng.choice((*_TEXTS, "weightkit.aliases", "weightkit.json"))] = rng.choice(
                (*_TEXTS, name, json.dumps({"t": name}))
            )
    return document


def _tiled(document: dict[str, Any], data: bytes) -> bytes:
    """Offsets that cover the data once, in the header's order; the data that they need."""
    position = 0
    for name, record in document.items():
        if name == "__metadata__" or not isinstance(record, dict) or not isinstance(record.get("shape"), list):
            continue
        sizes = [size if type(size) is int and 0 <= size < 100 else 1 for size in record["shape"]]
        length = prod(sizes) * _WIDTHS.get(str(record.get("dtype")), 1)
        if length > 4096:
            continue
        record["data_offsets"] = [position, position + length]
        position += length
    return (data * (position // max(len(data), 1) + 1) if data else bytes(position))[:position]


_NPY = re.compile(rb"'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\)")


def edited_npy(rng: Random, content: bytes) -> bytes | None:
    """``content`` with something in its header changed, its data made to fit again most of the time."""
    found = _NPY.search(content[:300])
    if not found or len(content) < 12:
        return None
    wide = content[6] != 1
    start = 12 if wide else 10
    end = start + int.from_bytes(content[8:start], "little")
    descr, fortran, shape = (
        found[1].decode("latin-1"),
        found[2].decode(),
        [int(n) for n in found[3].split(b",") if n.strip()],
    )
    data = content[end:]
    shown = ""
    way = rng.randrange(10)
    if way in (0, 1):
        descr = rng.choice(_DESCRS)
    elif way == 2:
        fortran = rng.choice(("True", "False", "1", "None", "true"))
    elif way in (3, 4):
        shape = [
            rng.choice((0, 1, 2, 3, 4, 1 << 31, 1 << 62, 10**17)) for _ in range(rng.choice((0, 1, 2, 3, 8, 33, 65)))
        ]
    elif way == 5 and shape:
        at = rng.randrange(len(shape))
        shape[at] = interesting(rng, shape[at])
    elif way == 6:
        shown = rng.choice(
            (
                "(3)",
                "(3L,)",
                "()",
                "( )",
                "(,)",
                "(1,,2)",
                "(-1,)",
                "(1.0,)",
                "[2, 3]",
                "(٣,)",
                "(True,)",
                "3",
                "(2, 3, )",
            )
        )
    elif way == 7:
        data = rng.choice((data + b"\0", data[:-1], data * 2, b""))
    if way != 7 and rng.random() < 0.7:
        width = int(re.sub(r"\D", "", descr) or 1)
        count = prod(size if size < 100 else 1 for size in shape)
        length = min(count * width, 1 << 14)
        data = (data * (length // max(len(data), 1) + 1) if data else bytes(length))[:length]
    sizes = shown or ("(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")")
    fields = [f"'descr': '{descr}'", f"'fortran_order': {fortran}", f"'shape': {sizes}"]
    if way == 8:
        rng.shuffle(fields)
        fields += rng.choice(([], [fields[0]], ["'x': 1"]))
    text = (
        "{"
        + ", ".join(fields)
        + rng.choice((", }", "}", ",}", ", ", "} "))
        + " " * rng.choice((0, 5, 40))
        + rng.choice(("\n", ""))
    )
    raw = text.encode("utf-8" if rng.random() < 0.5 else "latin-1", "replace")
    version = rng.choice((1, 1, 1, 2, 3, 0, 4)) if way == 9 else content[6]
    length = len(raw) if rng.random() < 0.95 else interesting(rng, len(raw))
    size = struct.pack("<H", length & 0xFFFF) if version == 1 else struct.pack("<I", length & 0xFFFFFFFF)
    return b"\x93NUMPY" + bytes([version, 0]) + size + raw + data
