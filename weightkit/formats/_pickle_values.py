"""Pickle records as plain values: None, numbers, text, lists and dicts with text keys. Nothing is executed."""

from __future__ import annotations

import struct

from weightkit.formats._pickle_records import BigInt, Call, Dict, Persistent, Prefix, Ref, Set
from weightkit.formats._pickle_tables import MAPPINGS, SEQUENCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from weightkit.formats._pickle_records import Pair

_PATHS = ("pathlib.",)
_MOST_ELEMENTS = 4096
_MOST_WRAPPERS = 8
_NEW = ("NEWOBJ", "NEWOBJ_EX")
_MADE_IN_NEW = ("builtins.tuple", "builtins.frozenset", "torch.Size")
_MOST_KEY_PARTS, _MOST_KEY_TEXT = 16, 256
# numpy's letter and width -> struct's letter
_LETTERS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I",
            "u2": "H", "u1": "B", "b1": "?"}  # fmt: skip


def key_text(key: object, depth: int = 0) -> str | None:
    """A dict key as part of a dotted name; None where it has no plain text."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return str(key)
    if isinstance(key, tuple):
        if len(key) > _MOST_KEY_PARTS or depth > 1:
            return None
        parts = [part for part in (key_text(part, depth + 1) for part in key) if part is not None]
        short = sum(map(len, parts)) <= _MOST_KEY_TEXT
        return "/".join(parts) if short and len(parts) == len(key) else None
    if isinstance(key, Ref):
        return key.path
    return None


def pairs_of(node: object, depth: int = 0) -> list[Pair] | None:
    """The pairs of a dict, whatever spelling the pickle used; None where ``node`` is no dict."""
    if isinstance(node, Dict):
        return node.pairs
    if isinstance(node, Prefix):
        return [(item[0], item[1]) for item in node.items() if isinstance(item, tuple)] if node.is_dict else None
    if not isinstance(node, Call) or depth > _MOST_WRAPPERS:
        return None
    arguments = node.arguments if isinstance(node.arguments, tuple) else ()
    if node.path not in MAPPINGS:
        return None
    if node.path == "collections.defaultdict":
        arguments = arguments[1:]
    given: list[Pair] = []
    if arguments and node.how not in _NEW:  # a dict's __new__ leaves its arguments alone
        given = pairs_of(arguments[0], depth + 1) or []
        if not given and node.path != "collections.Counter":  # which counts the items of anything else
            for item in items_of(arguments[0], depth + 1) or ():
                if isinstance(item, (list, tuple)) and len(item) == 2:
                    given.append((item[0], item[1]))
    return [*given, *node.pairs]


def items_of(node: object, depth: int = 0) -> list[object] | tuple[object, ...] | None:
    """The items of a list, tuple or set; None where ``node`` is neither."""
    if isinstance(node, (list, tuple)):
        return node
    if isinstance(node, Set):
        return node.members
    if isinstance(node, Prefix):
        return None if node.is_dict else node.items()
    if not isinstance(node, Call) or depth > _MOST_WRAPPERS:
        return None
    arguments = node.arguments if isinstance(node.arguments, tuple) else ()
    if node.path not in SEQUENCES:
        return None
    given: list[object] | tuple[object, ...] = ()
    made_with_them = node.how not in _NEW or node.path in _MADE_IN_NEW
    if arguments and made_with_them:
        given = items_of(arguments[0], depth + 1) or ()
    items = [*given, *node.appended]
    most = arguments[1] if node.path == "collections.deque" and len(arguments) > 1 and made_with_them else None
    return items[max(len(items) - most, 0) :] if type(most) is int and most >= 0 else items


def state_of(call: Call) -> list[tuple[object, object]]:
    """The attributes that BUILD gives to an object: its dict, and its slots where it has some.

    A state of another kind, for a class that sets it itself, stands under "state".
    """
    found: list[tuple[object, object]] = []
    for state in call.states:
        parts = [pairs_of(part) for part in (state if isinstance(state, tuple) and len(state) == 2 else (state,))]
        is_slots = isinstance(state, tuple) and len(state) == 2 and (state[0] is None or state[1] is None)
        if all(part is not None for part in parts) or is_slots:
            for part in parts:
                found.extend(part or ())
        elif state is not None:
            found.append(("state", state))
    return found


def bytes_of(node: object) -> bytes | None:
    """Bytes, also in the spelling of protocol 2, which writes them as encoded text."""
    if isinstance(node, bytes):
        return node
    if isinstance(node, Call):
        arguments = node.arguments if isinstance(node.arguments, tuple) else ()
        if node.path == "_codecs.encode" and len(arguments) == 2:
            text, encoding = arguments
            if not isinstance(text, str) or not isinstance(encoding, str):
                return None
            try:
                return text.encode("utf-8" if encoding in ("utf-8", "utf8") else "latin-1")
            except UnicodeEncodeError:
                return None
        if node.path in ("builtins.bytes", "builtins.bytearray"):
            return bytes_of(arguments[0]) if arguments and not isinstance(arguments[0], Call) else b""
    return None


def leaf_value(node: object) -> object:
    """The inert value of what is neither a dict nor a list: a number, text, or a short description."""
    if node is None or isinstance(node, (bool, int, float, str)):
        return node
    if isinstance(node, bytes):
        return f"<{len(node)} bytes>"
    if isinstance(node, BigInt):
        return "<a number too long to show>"
    if isinstance(node, Ref):
        return node.path
    if isinstance(node, Persistent):
        return "<a storage>"
    if isinstance(node, Call):
        return _call_value(node)
    return "<unknown>"


def _call_value(call: Call) -> object:
    arguments = call.arguments if isinstance(call.arguments, tuple) else ()
    raw = bytes_of(call)
    if raw is not None:
        return f"<{len(raw)} bytes>"
    path = call.path
    if path in ("torch.device", "torch.serialization._get_layout"):
        return ":".join(str(part) for part in arguments if isinstance(part, (str, int)))
    if path.startswith(_PATHS):
        return "/".join(part for part in arguments if isinstance(part, str)).replace("//", "/")
    if path in ("builtins.complex", "builtins.slice", "builtins.range", "builtins.xrange"):
        return [part for part in arguments if part is None or isinstance(part, (int, float))]
    if path in ("datetime.datetime", "datetime.date"):
        return _moment(bytes_of(arguments[0]) if arguments else None)
    if path == "numpy.core.multiarray.scalar" and len(arguments) == 2:
        values = _numbers(arguments[0], bytes_of(arguments[1]), 1)
        return values[0] if values else "<a numpy scalar>"
    if path == "numpy.core.multiarray._reconstruct":
        return _numpy_array(call.states[0] if call.states else None)
    if path == "numpy.core.numeric._frombuffer" and len(arguments) >= 4:
        content, dtype, shape, order = arguments[:4]
        return _numpy_array((1, shape, dtype, order != "C" if isinstance(order, str) else True, content))
    return f"<{path or 'a computed object'}>"


def _moment(raw: bytes | None) -> str:
    if raw is None or len(raw) not in (4, 10):
        return "<a moment>"
    day = f"{raw[0] * 256 + raw[1]:04}-{raw[2] & 0x7F:02}-{raw[3]:02}"
    return day if len(raw) == 4 else f"{day}T{raw[4]:02}:{raw[5]:02}:{raw[6]:02}.{int.from_bytes(raw[7:], 'big'):06}"


def _numbers(dtype: object, raw: bytes | None, count: int) -> list[object]:
    """``count`` numbers of a simple numpy dtype; [] where it is not simple or the bytes do not fit."""
    if (
        not isinstance(dtype, Call)
        or dtype.path != "numpy.dtype"
        or raw is None
        or not isinstance(dtype.arguments, tuple)
    ):
        return []
    name = dtype.arguments[0] if dtype.arguments else None
    letter = _LETTERS.get(name) if isinstance(name, str) else None
    if letter is None or struct.calcsize(f"={count}{letter}") != len(raw):
        return []
    state = dtype.states[0] if dtype.states else ()
    order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
    return list(struct.unpack(f"{'>' if order == '>' else '<'}{count}{letter}", raw))


def _numpy_array(state: object) -> object:
    """Nested lists of a small array; ``state`` is what numpy's ``__setstate__`` takes."""
    if not isinstance(state, tuple) or len(state) != 5:
        return "<a numpy array>"
    _, shape, dtype, fortran, content = state
    sizes = [size for size in shape if type(size) is int and size >= 0] if isinstance(shape, tuple) else []
    count = 1
    for size in sizes:
        count = min(count * size, _MOST_ELEMENTS + 1)
    values = _numbers(dtype, bytes_of(content), count) if count <= _MOST_ELEMENTS and len(sizes) <= 8 else []
    if not values or fortran is True or not isinstance(shape, tuple) or len(sizes) != len(shape):
        return f"<a numpy array {sizes}>"
    for size in reversed(sizes[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values if sizes else values[0]
