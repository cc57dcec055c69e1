"""A state_dict as the protocol-2 pickle that torch reads, written opcode by opcode without torch."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.errors import WriteError
from weightkit.formats.base import METADATA_KEY

_STORAGE_CLASSES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage", "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}  # fmt: skip
_DEEPEST = 64
_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def emit_state(spec: StateSpec, metadata: Mapping[str, object], storage_keys: Mapping[str, str]) -> bytes:
    """``{"state_dict": OrderedDict(name -> tensor), "weightkit": metadata}``; aliases name the same storage."""
    out = bytearray(b"\x80\x02}(")
    _text(out, "state_dict")
    out += _ORDERED_DICT
    if spec:
        out += b"("
        for name, tensor in spec.items():
            _text(out, name)
            _tensor(out, tensor, storage_keys[spec.canonical(name)])
        out += b"u"
    _text(out, METADATA_KEY)
    _value(out, dict(metadata), METADATA_KEY, 0)
    out += b"u."
    return bytes(out)


def _text(out: bytearray, text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    out += b"X" + struct.pack("<I", len(raw)) + raw


def _number(out: bytearray, number: int) -> None:
    if 0 <= number < 256:
        out += b"K" + bytes((number,))
    elif -(1 << 31) <= number < 1 << 31:
        out += b"J" + struct.pack("<i", number)
    else:
        length = number.bit_length() // 8 + 1
        if length > 255:
            raise WriteError("a number in the metadata is too long to be written")
        out += b"\x8a" + bytes((length,)) + number.to_bytes(length, "little", signed=True)


def _numbers(out: bytearray, numbers: tuple[int, ...]) -> None:
    out += b"("
    for number in numbers:
        _number(out, number)
    out += b"t"


def _tensor(out: bytearray, tensor: TensorSpec, key: str) -> None:
    """One ``_rebuild_tensor_v2`` call; element types without a storage class of their own need ``_v3``."""
    storage_class = _STORAGE_CLASSES.get(tensor.dtype.name)
    version = b"2" if storage_class else b"3"
    out += b"ctorch._utils\n_rebuild_tensor_v" + version + b"\n(("
    _text(out, "storage")
    out += b"ctorch\n" + storage_class.encode() + b"\n" if storage_class else b"ctorch.storage\nUntypedStorage\n"
    _text(out, key)
    _text(out, "cpu")
    _number(out, tensor.numel if storage_class else tensor.nbytes)
    out += b"tQK\x00"
    _numbers(out, tensor.shape)
    _numbers(out, _packed_strides(tensor.shape))
    out += b"\x89" + _ORDERED_DICT
    if not storage_class:
        out += b"ctorch\n" + tensor.dtype.name.encode() + b"\n"
    out += b"tR"


def _packed_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _value(out: bytearray, value: object, where: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise WriteError(f"{printable(where)}: metadata nested more than {_DEEPEST} deep")
    if value is None:
        out += b"N"
    elif isinstance(value, bool):
        out += b"\x88" if value else b"\x89"
    elif isinstance(value, int):
        _number(out, value)
    elif isinstance(value, float):
        out += b"G" + struct.pack(">d", value)
    elif isinstance(value, str):
        _text(out, value)
    elif isinstance(value, (list, tuple)):
        out += b"]("
        for index, item in enumerate(value):
            _value(out, item, f"{where}.{index}", depth + 1)
        out += b"e"
    elif isinstance(value, Mapping):
        out += b"}("
        for key, item in value.items():
            if not isinstance(key, str):
                raise WriteError(f"{printable(where)}: the key {printable(repr(key))} is no text")
            _text(out, key)
            _value(out, item, f"{where}.{key}", depth + 1)
        out += b"u"
    else:
        raise WriteError(f"{printable(where)}: a {type(value).__name__} cannot be stored as metadata")
