"""Pickles by hand: Python values and calls as opcodes, so that a test can say what no honest writer would."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any


class Raw(bytes):
    """Opcodes that leave one object on the stack."""


def text(value: str) -> Raw:
    """BINUNICODE."""
    raw = value.encode("utf-8", "surrogatepass")
    return Raw(b"X" + struct.pack("<I", len(raw)) + raw)


def integer(value: int) -> Raw:
    """The shortest binary spelling of a number."""
    if 0 <= value < 256:
        return Raw(b"K" + bytes([value]))
    if -(1 << 31) <= value < 1 << 31:
        return Raw(b"J" + struct.pack("<i", value))
    size = value.bit_length() // 8 + 1
    if size < 256:
        return Raw(b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True))
    return Raw(b"\x8b" + struct.pack("<i", size) + value.to_bytes(size, "little", signed=True))


def value(item: Any) -> Raw:
    """Any plain value; ``Raw`` stands for itself."""
    if isinstance(item, Raw):
        return item
    if item is None or isinstance(item, bool):
        return Raw({None: b"N", True: b"\x88", False: b"\x89"}[item])
    if isinstance(item, int):
        return integer(item)
    if isinstance(item, float):
        return Raw(b"G" + struct.pack(">d", item))
    if isinstance(item, str):
        return text(item)
    if isinstance(item, bytes):
        return Raw(b"B" + struct.pack("<I", len(item)) + item)
    if isinstance(item, tuple):
        return Raw(b"(" + b"".join(map(value, item)) + b"t")
    if isinstance(item, list):
        return Raw(b"](" + b"".join(map(value, item)) + b"e")
    if isinstance(item, dict):
        return Raw(b"}(" + b"".join(value(key) + value(held) for key, held in item.items()) + b"u")
    raise TypeError(type(item))


def split(path: str) -> tuple[str, str]:
    """``module`` and ``name`` of ``module.name``; a colon separates them where the name itself is dotted."""
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    return module, name


def named(path: str) -> Raw:
    """GLOBAL."""
    module, name = split(path)
    return Raw(f"c{module}\n{name}\n".encode())


def stacked(path: str) -> Raw:
    """STACK_GLOBAL."""
    module, name = split(path)
    return Raw(text(module) + text(name) + b"\x93")


def target(what: str | Raw) -> Raw:
    """A callable: by name, or computed."""
    return what if isinstance(what, Raw) else named(what)


def call(what: str | Raw, *arguments: Any) -> Raw:
    """REDUCE."""
    return Raw(target(what) + value(arguments) + b"R")


def inst(path: str, *arguments: Any) -> Raw:
    """INST."""
    module, name = split(path)
    return Raw(b"(" + b"".join(map(value, arguments)) + f"i{module}\n{name}\n".encode())


def obj(what: str | Raw, *arguments: Any) -> Raw:
    """OBJ."""
    return Raw(b"(" + target(what) + b"".join(map(value, arguments)) + b"o")


def newobj(what: str | Raw, *arguments: Any) -> Raw:
    """NEWOBJ."""
    return Raw(target(what) + value(arguments) + b"\x81")


def newobj_ex(what: str | Raw, *arguments: Any, **keywords: Any) -> Raw:
    """NEWOBJ_EX."""
    return Raw(target(what) + value(arguments) + value(keywords) + b"\x92")


def build(thing: Raw, state: Any) -> Raw:
    """BUILD."""
    return Raw(thing + value(state) + b"b")


def persistent(key: Any) -> Raw:
    """BINPERSID."""
    return Raw(value(key) + b"Q")


def storage(kind: Any = None, key: Any = "0", location: Any = "cpu", numel: Any = 2) -> Raw:
    """The persistent id of a storage, of two floats unless told otherwise."""
    return persistent(("storage", named("torch.FloatStorage") if kind is None else kind, key, location, numel))


def no_hooks() -> Raw:
    """An empty OrderedDict, as every tensor has it for its hooks."""
    return call("collections.OrderedDict")


def tensor(
    held: Raw | None = None,
    offset: Any = 0,
    shape: Any = (2,),
    strides: Any = (1,),
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Iterable[Any] = (),
) -> Raw:
    """``_rebuild_tensor_v2`` with these arguments."""
    held = storage() if held is None else held
    hooks = no_hooks() if hooks is None else hooks
    return call("torch._utils._rebuild_tensor_v2", held, offset, shape, strides, requires_grad, hooks, *metadata)


def pickled(content: Any, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return (b"\x80" + bytes([protocol]) if protocol else b"") + value(content) + b"."


def beside_a_tensor(payload: Any, protocol: int = 2) -> bytes:
    """``{"w": tensor, "p": payload}``."""
    return pickled({"w": tensor(), "p": payload}, protocol)
