"""``.npz``: numpy's archives, without object arrays. Element types that numpy lacks lie in them as raw bytes.

Source: numpy/lib/_format_impl.py (the .npy format, versions 1.0 to 3.0).
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, BinaryIO

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.dtype import DTYPES
from weightkit.core.jsonio import parse_json
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError, UnsafeContent, WriteError
from weightkit.formats._arrays import column_major, dense_array, packed_bytes
from weightkit.formats._pickle_vm import name_payloads, unpickle
from weightkit.formats._source import Source
from weightkit.formats._zip import STORED, Archive, Entry, open_archive
from weightkit.formats._zip_writer import ZipWriter
from weightkit.formats.base import Format, Limits, announced, ending_of

if TYPE_CHECKING:
    import numpy as np

MEMBER = "__weightkit__.json"
_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 1 << 16
_MOST_DIMENSIONS = 64
_DESCRIPTIONS = {
    "f8": "float64", "f4": "float32", "f2": "float16", "c8": "complex64", "c16": "complex128", "i8": "int64",
    "i4": "int32", "i2": "int16", "i1": "int8", "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8",
    "b1": "bool",
}  # fmt: skip
_ITEM = re.compile(
    r"""\s*(?:
    (['"])descr\1\s*:\s*(?P<descr>'[^'\\]*'|"[^"\\]*"|\[.*\])
    |(['"])fortran_order\3\s*:\s*(?P<fortran_order>True|False)
    |(['"])shape\5\s*:\s*(?P<shape>\([0-9L,\s]*\))
    )\s*(?:,|(?=\}))""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_CODES = {name: code for code, name in _DESCRIPTIONS.items()}


@dataclass(frozen=True, slots=True)
class _Array:
    entry: Entry
    start: int
    spec: TensorSpec
    swapped: bool
    fortran: bool


def detect(path: str, head: bytes) -> bool:
    """A zip archive whose first file is a .npy, or ours; or the ending."""
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return False
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return name.endswith(b".npy") or name == MEMBER.encode() or ending_of(path) == ".npz"


def open_npz(path: str, limits: Limits) -> Checkpoint:
    """The arrays in an .npz. Raises UnsafeContent for an object array: it is a pickle."""
    archive = open_archive(Source.at(path), limits)
    shown = archive.source.shown
    if len(archive.entries) > limits.tensors:
        raise limits.exceeded("tensors", where=shown, found=f"{len(archive.entries)} arrays")
    longest = max(map(len, archive.entries), default=0)
    if longest > limits.path_length:
        raise limits.exceeded("path_length", where=shown, found=f"a name of {longest} characters")
    extras = _extras(archive, limits)
    kinds, aliases, metadata = (_object(shown, extras, key) for key in ("dtypes", "aliases", "metadata"))
    arrays: dict[str, _Array] = {}
    for entry in archive.entries.values():
        if entry.name == MEMBER:
            continue
        if not entry.name.endswith(".npy"):
            raise CorruptFile(f"{shown}: {printable(entry.name)!r} is no .npy, which is all that an .npz holds")
        name = entry.name.removesuffix(".npy")
        if f"{entry.name}.npy" in archive.entries:
            raise CorruptFile(f"{shown}: {printable(entry.name)!r} and that with another .npy: which is meant is open")
        arrays[name] = _array(archive, entry, kinds.get(name), limits)
    specs = {name: array.spec for name, array in arrays.items()}
    seconds: dict[str, str] = {}
    for alias, first in aliases.items():
        if not isinstance(first, str) or first not in arrays or alias in arrays:
            raise CorruptFile(f"{shown}: {printable(alias)!r} is said to be a second name of no array here")
        seconds[alias] = first
        specs[alias] = specs[first]

    def read(name: str) -> np.ndarray:
        return _read_array(archive, arrays[seconds.get(name, name)], name)

    state = StateSpec(specs, seconds)
    return Checkpoint(path=path, format=FORMAT.name, root="", state=state, metadata=metadata, read=read)


def _extras(archive: Archive, limits: Limits) -> dict[str, object]:
    entry = archive.entries.get(MEMBER)
    if entry is None:
        return {}
    shown = f"{archive.source.shown}: {MEMBER}"
    if entry.size > limits.json_bytes:
        raise limits.exceeded("json_bytes", where=shown, found=f"{entry.size} bytes of JSON")
    try:
        found = parse_json(bytes(archive.read(entry)), origin=shown)
    except ValueError as error:
        raise CorruptFile(printable(str(error))) from None
    if not isinstance(found, dict):
        raise CorruptFile(f"{shown}: expected a JSON object")
    return found


def _object(shown: str, extras: Mapping[str, object], key: str) -> dict[str, object]:
    found = extras.get(key, {})
    if not isinstance(found, dict):
        raise CorruptFile(f"{shown}: {key} in {MEMBER} is no object")
    return found


def _payloads(archive: Archive, entry: Entry, start: int, shown: str, limits: Limits) -> str:
    """What the pickle of an object array would call, for a message; "" where nothing is found in it."""
    if entry.size > (limits.header_bytes if entry.method == STORED else limits.inflated_bytes):
        return ""
    try:
        found = name_payloads(unpickle(bytes(archive.read(entry)[start:]), where=shown, limits=limits).remarks)
    except UnsafeContent as error:
        return f": {error.message}"
    except FormatError:  # damaged, or too costly to look through; it is refused all the same
        return ""
    return f": {found}" if found else ""


def _array(archive: Archive, entry: Entry, kind: object, limits: Limits) -> _Array:
    shown = f"{archive.source.shown}: {printable(entry.name)!r}"
    raw, start = _header(archive, entry, shown)
    header = _literal(raw, shown)
    descr, fortran, shape = header["descr"], header["fortran_order"] == "True", _shape(header["shape"], shown)
    if "O" in descr:
        payloads = _payloads(archive, entry, start, shown, limits)
        raise UnsafeContent(
            f"{shown}: an array of Python objects, which is a pickle and may execute code when it is loaded{payloads}",
            hint="do not load it with allow_pickle=True; save it again as numbers",
        )
    if not descr.startswith(("'", '"')):
        raise CorruptFile(f"{shown}: a structured element type, expected a plain one")
    descr = descr[1:-1]
    order, code = descr[:1], descr[1:]
    if kind is not None:
        if not isinstance(kind, str) or kind not in DTYPES or descr != f"|V{DTYPES[kind].itemsize}":
            raise CorruptFile(
                f"{shown}: {MEMBER} calls its elements {printable(repr(kind))}, which do not fit {printable(descr)}"
            )
        dtype = DTYPES[kind]
    elif code in _DESCRIPTIONS and order in ("<", ">", "|", "="):
        dtype = DTYPES[_DESCRIPTIONS[code]]
    else:
        raise CorruptFile(f"{shown}: elements of type {printable(descr)!r} are not read")
    spec = TensorSpec(dtype, shape)
    if prod(shape) * dtype.itemsize != entry.size - start:
        raise CorruptFile(f"{shown}: {spec} needs {spec.nbytes} bytes, {entry.size - start} follow its header")
    swapped = (order == ">" and sys.byteorder == "little") or (order != ">" and sys.byteorder == "big")
    return _Array(entry, start, spec, swapped, fortran)


def _header(archive: Archive, entry: Entry, shown: str) -> tuple[bytes, int]:
    """The text of a .npy header and where the elements start."""
    front = archive.front(entry, 12)
    if len(front) < 12 or front[:6] != _MAGIC or front[6] not in (1, 2, 3) or front[7]:
        raise CorruptFile(f"{shown}: no .npy header of version 1.0, 2.0 or 3.0")
    width = 2 if front[6] == 1 else 4
    length = int.from_bytes(front[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MOST_HEADER or start > entry.size:
        raise CorruptFile(f"{shown}: a header of {length} bytes in a file of {entry.size}")
    return archive.front(entry, start)[8 + width :], start


def _literal(raw: bytes, shown: str) -> dict[str, str]:
    """The three values of the header as they are written; it is a Python literal, and nothing here evaluates one."""
    header: dict[str, str] = {}
    text = raw.decode("latin-1").strip(" \n")
    position = 1
    while found := _ITEM.match(text, position):
        ((key, value),) = [item for item in found.groupdict().items() if item[1] is not None]
        if key in header:
            break
        header[key] = value
        position = found.end()
    if not text.startswith("{") or text[position:].strip(" ") != "}" or len(header) != 3:
        raise CorruptFile(
            f"{shown}: the .npy header should have descr, fortran_order and shape once each, and nothing else"
        )
    return header


def _shape(text: str, shown: str) -> tuple[int, ...]:
    sizes = [part.strip().removesuffix("L") for part in text[1:-1].split(",")]
    if sizes and not sizes[-1]:
        sizes.pop()
    elif len(sizes) == 1:  # "(3)" is a number in brackets
        sizes = ["no tuple"]
    if len(sizes) > _MOST_DIMENSIONS or not all(
        size.isdecimal() and len(size) < 19 and (size == "0" or size[0] != "0") for size in sizes
    ):
        raise CorruptFile(f"{shown}: its shape is no tuple of at most {_MOST_DIMENSIONS} numbers below 10**18")
    return tuple(map(int, sizes))


def _read_array(archive: Archive, array: _Array, name: str) -> np.ndarray:
    where = f"{archive.source.shown}: array {printable(name)!r}"
    content = archive.read(array.entry)
    del content[: array.start]
    strides = column_major(array.spec.shape) if array.fortran else None
    return dense_array(content, array.spec, where=where, strides=strides, swapped=array.swapped)


def write_npz(
    file: BinaryIO, tensors: Iterable[tuple[str, np.ndarray]], *, spec: StateSpec, metadata: Mapping[str, object]
) -> None:
    """One .npy for each tensor, and a JSON member for what .npy cannot say: aliases, metadata, bf16 and fp8."""
    for name in spec:
        if name == MEMBER or f"{name}.npy" in spec:
            other = MEMBER if name == MEMBER else f"{name}.npy"
            raise WriteError(
                f"{printable(name)!r}: numpy could not tell it from {printable(other)!r} in an .npz archive",
                hint="write a .safetensors or a .pt file instead",
            )
    archive = ZipWriter(file)
    kinds = {name: spec[name].dtype.name for name in spec.unique() if spec[name].dtype.name not in _CODES}
    for name, array in announced(tensors, spec):
        archive.add(f"{name}.npy", _npy_header(spec[name]), packed_bytes(array, spec[name], name))
        del array
    extras = {"dtypes": kinds, "aliases": dict(spec.aliases), "metadata": dict(metadata)}
    try:
        archive.add(MEMBER, json.dumps(extras, ensure_ascii=False, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise WriteError(f"the metadata cannot be written as JSON: {error}") from None
    archive.finish()


def _npy_header(spec: TensorSpec) -> bytes:
    code = _CODES.get(spec.dtype.name)
    size = spec.dtype.itemsize
    descr = f"|V{size}" if code is None else f"{'|' if size == 1 else '<'}{code}"
    text = repr({"descr": descr, "fortran_order": False, "shape": spec.shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return _MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text


FORMAT = Format(
    name="npz",
    description="numpy's .npz archives, without object arrays",
    endings=(".npz",),
    detect=detect,
    open=open_npz,
    write=write_npz,
)
