"""The safetensors container: an 8-byte length, a JSON header, the elements. Stricter than the reference reader.

Refused here, accepted there: white space before the header, a name or metadata key that stands twice, unknown fields,
list records, elements that are not aligned to their size.
Source: https://github.com/huggingface/safetensors, "Format" in its README.
"""

from __future__ import annotations

import json
import struct

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.dtype import DTYPES
from weightkit.core.jsonio import parse_json
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, WriteError
from weightkit.formats._arrays import dense_array, packed_bytes
from weightkit.formats._source import Source
from weightkit.formats.base import Limits, announced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import BinaryIO

    import numpy as np

_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "C64": "complex64", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64",
    "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_NAMES = {name: code for code, name in _CODES.items()}
_METADATA = "__metadata__"
_FIELDS = frozenset(("dtype", "shape", "data_offsets"))
# What weightkit adds to __metadata__: second names, and which values are JSON rather than text.
ALIASES_KEY = "weightkit.aliases"
JSON_KEY = "weightkit.json"
_MOST_DIMENSIONS = 64


def read_safetensors(source: Source, limits: Limits, *, name: str) -> Checkpoint:
    """The checkpoint in ``source``, its header checked, for the format called ``name``. Raises FormatError."""
    if source.size < 10:
        raise CorruptFile(f"{source.shown}: {source.size} bytes, expected a length of 8 bytes and a header")
    length = int.from_bytes(source.read(0, 8), "little")
    if length > source.size - 8:
        raise CorruptFile(
            f"{source.shown}: the header should have {length} bytes, the file has {source.size - 8} after the length: "
            "it is no safetensors file, or it was cut short"
        )
    if length > limits.json_bytes:
        raise limits.exceeded("json_bytes", where=source.shown, found=f"a header of {length} bytes")
    raw = bytes(source.read(8, length))
    if not raw.startswith(b"{"):
        raise CorruptFile(f"{source.shown}: the header starts with {raw[:1]!r}, expected '{{'")
    try:
        header = parse_json(raw.rstrip(b" "), origin="header")
        if b"\\ud" in raw or b"\\uD" in raw:  # an escape that may be a lone surrogate, which is no text
            json.dumps(header, ensure_ascii=False).encode("utf-8")
    except ValueError as error:
        raise CorruptFile(f"{source.shown}: {printable(str(error))}") from None
    if not isinstance(header, dict):
        raise CorruptFile(f"{source.shown}: the header is no JSON object")
    texts = _metadata(source, header.pop(_METADATA, {}))
    if len(header) > limits.tensors:
        raise limits.exceeded("tensors", where=source.shown, found=f"{len(header)} tensors")
    data_start = 8 + length
    longest = max(map(len, header), default=0)
    if longest > limits.path_length:
        raise limits.exceeded("path_length", where=source.shown, found=f"a name of {longest} characters")
    placed = _records(source, header)
    _check_tiling(source, placed, source.size - data_start)
    specs = {key: spec for key, (spec, _, _) in placed.items()}
    metadata, aliases = _interpret(source, texts, specs)
    specs.update({alias: specs[first] for alias, first in aliases.items()})
    state = StateSpec(specs, aliases)

    def read(tensor: str) -> np.ndarray:
        spec, begin, end = placed[aliases.get(tensor, tensor)]
        where = f"{source.shown}: tensor {printable(tensor)!r}"
        return dense_array(source.read(data_start + begin, end - begin), spec, where=where)

    return Checkpoint(path=source.path, format=name, root="", state=state, metadata=metadata, read=read)


def _metadata(source: Source, found: object) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise CorruptFile(f"{source.shown}: {_METADATA} is no object of texts")
    return found


def _records(source: Source, header: Mapping[str, object]) -> dict[str, tuple[TensorSpec, int, int]]:
    """Each tensor's spec, and where its elements begin and end."""
    placed: dict[str, tuple[TensorSpec, int, int]] = {}
    known: dict[tuple[object, ...], TensorSpec] = {}
    for name, record in header.items():
        if type(record) is not dict or record.keys() != _FIELDS:
            raise _refused(source, name, "expected exactly the fields dtype, shape and data_offsets")
        code, shape, offsets = record["dtype"], record["shape"], record["data_offsets"]
        if type(code) is not str or code not in _CODES:
            raise _refused(source, name, f"unknown element type {printable(repr(code))}")
        if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or len(shape) > _MOST_DIMENSIONS:
            raise _refused(source, name, "its shape or data_offsets are no lists of numbers")
        begin, end = offsets
        identity = (code, end - begin, *shape)
        bounded = end > begin or len(shape) == 1  # of other empty shapes a file can have many of one hash
        spec = known.get(identity) if bounded else None
        if spec is None:
            spec = TensorSpec(DTYPES[_CODES[code]], tuple(shape))
            if spec.nbytes != end - begin:
                given = f"its data_offsets {begin} to {end} give {end - begin}"
                raise _refused(source, name, f"{spec} needs {spec.nbytes} bytes, {given}")
            if bounded:
                known[identity] = spec
        if begin % spec.dtype.itemsize:
            width = spec.dtype.itemsize
            raise _refused(source, name, f"its elements of {width} bytes start at {begin}, which is not aligned")
        placed[name] = spec, begin, end
    return placed


def _refused(source: Source, name: str, problem: str) -> CorruptFile:
    return CorruptFile(f"{source.shown}: tensor {printable(name)!r}: {problem}")


def _are_counts(found: object) -> bool:
    if type(found) is not list:
        return False
    for item in found:  # noqa: SIM110 - all() with a generator takes twice as long
        if type(item) is not int or not 0 <= item < 1 << 63:
            return False
    return True


def _check_tiling(source: Source, placed: Mapping[str, tuple[TensorSpec, int, int]], available: int) -> None:
    """The tensors cover the rest of the file, each byte once."""
    position = 0
    for begin, end, name in sorted((begin, end, name) for name, (_, begin, end) in placed.items()):
        if begin != position:
            kind = "overlaps what stands before it" if begin < position else "leaves a hole before it"
            raise CorruptFile(
                f"{source.shown}: tensor {printable(name)!r} starts at {begin}, expected {position}: it {kind}"
            )
        position = end
    if position != available:
        raise CorruptFile(
            f"{source.shown}: the tensors need {position} bytes, {available} follow the header: "
            "the file was cut short, or something was appended"
        )


def _interpret(
    source: Source, texts: Mapping[str, str], specs: Mapping[str, TensorSpec]
) -> tuple[dict[str, object], dict[str, str]]:
    """The metadata with weightkit's JSON values decoded, and the second names."""
    ours = _decoded(source, texts, ALIASES_KEY, {})
    encoded = _decoded(source, texts, JSON_KEY, [])
    if not isinstance(ours, dict) or not isinstance(encoded, list):
        raise CorruptFile(f"{source.shown}: {ALIASES_KEY} or {JSON_KEY} in {_METADATA} is malformed")
    aliases: dict[str, str] = {}
    for alias, first in ours.items():
        if not isinstance(first, str) or first not in specs or alias in specs:
            raise CorruptFile(f"{source.shown}: {printable(alias)!r} is said to be a second name of no tensor here")
        aliases[alias] = first
    metadata: dict[str, object] = {}
    for key, text in texts.items():
        if key in (ALIASES_KEY, JSON_KEY):
            continue
        if key in encoded:
            metadata[key] = _decoded(source, texts, key, None)
        elif text in specs and key not in specs:
            aliases.setdefault(key, text)  # how safetensors.torch.save_model records what it left out
        else:
            metadata[key] = text
    return metadata, aliases


def _decoded(source: Source, texts: Mapping[str, str], key: str, default: object) -> object:
    if key not in texts:
        return default
    try:
        return parse_json(texts[key], origin=f"{_METADATA} {printable(key)}")
    except ValueError as error:
        raise CorruptFile(f"{source.shown}: {printable(str(error))}") from None


def write_safetensors(
    file: BinaryIO, tensors: Iterable[tuple[str, np.ndarray]], *, spec: StateSpec, metadata: Mapping[str, object]
) -> None:
    """The header in the spec's order, the elements by falling element size, so that each is aligned without holes.

    The header is written last, since its metadata may change until then, but its size is settled first.
    """
    offsets: dict[str, int] = {}
    position = 0
    for name in sorted(spec.unique(), key=lambda name: -spec[name].dtype.itemsize):
        offsets[name] = position
        position += spec[name].nbytes
    start, length = file.tell(), len(_header(offsets, spec, metadata))
    base = start + 8 + length
    for name, array in announced(tensors, spec):
        if file.tell() != base + offsets[name]:
            file.seek(base + offsets[name])
        file.write(packed_bytes(array, spec[name], name))
        del array
    header = _header(offsets, spec, metadata)
    if len(header) != length:
        raise WriteError("the metadata changed its length while the tensors were written")
    file.seek(start)
    file.write(struct.pack("<Q", length) + header)
    file.seek(base + position)


def _header(offsets: Mapping[str, int], spec: StateSpec, metadata: Mapping[str, object]) -> bytes:
    header: dict[str, object] = {}
    texts = _texts(metadata, spec)
    if texts:
        header[_METADATA] = texts
    for name in spec.unique():
        code = _NAMES.get(spec[name].dtype.name)
        if code is None:
            raise WriteError(
                f"{printable(name)}: safetensors has no element type {spec[name].dtype}",
                hint="write a .pt file instead",
            )
        if name == _METADATA:
            raise WriteError(f"a tensor cannot be called {_METADATA} in a safetensors file")
        header[name] = {
            "dtype": code,
            "shape": list(spec[name].shape),
            "data_offsets": [offsets[name], offsets[name] + spec[name].nbytes],
        }
    try:
        raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise WriteError("a name or a metadata value is not valid Unicode", hint="write a .pt file instead") from None
    return raw + b" " * (-len(raw) % 8)


def _texts(metadata: Mapping[str, object], spec: StateSpec) -> dict[str, str]:
    """Metadata as texts. A text that a reader could take for a second name is written as JSON too."""
    texts: dict[str, str] = {}
    encoded: list[str] = []
    for key, value in metadata.items():
        if key in (ALIASES_KEY, JSON_KEY):
            raise WriteError(f"the metadata key {key!r} is reserved")
        if isinstance(value, str) and value not in spec:
            texts[key] = value
            continue
        try:
            texts[key] = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise WriteError(f"metadata {printable(key)!r} cannot be written as JSON: {error}") from None
        encoded.append(key)
    if encoded:
        texts[JSON_KEY] = json.dumps(encoded, ensure_ascii=False)
    if spec.aliases:
        texts[ALIASES_KEY] = json.dumps(dict(spec.aliases), ensure_ascii=False)
    return texts
