"""What the projects' own loaders make of a mutant: where both read it, names and bytes must be the same.

Where only one reads it, nothing is wrong by itself; the cases are counted by class and looked at.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from fuzz.judge import Judged, Violation
from fuzz.seeds import INDEX, Sample
from torch_reference import is_listed_only, named_tensors
from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import FormatError, NotDenseError

_MOST_BYTES = 1 << 20
Content = Mapping[str, bytes]


def compare(path: Path, sample: Sample, judged: Judged) -> str | None:
    """The class that the mutant falls into, None where there is no reference. Raises Violation where both differ."""
    load = _loader(path, sample)
    if load is None:
        return None
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        try:
            theirs: dict[str, Any] | None = load()
            refusal = ""
        except Exception as error:
            theirs, refusal = None, _class(error)
    ours = judged.checkpoint
    if ours is None:
        return "both refuse" if theirs is None else f"only the reference opens: {in_words(judged.why)}"
    if theirs is not None:
        return _compared(ours, theirs)
    if ours.verdict == "unsafe":
        return "the reference refuses, weightkit calls it unsafe"
    if ours.format not in (sample.format, "sharded_index"):
        return f"the reference refuses, weightkit opens it as {ours.format}"
    return f"only weightkit {_how_far(ours)}: {refusal}"


def _how_far(ours: Checkpoint) -> str:
    """Whether everything that is listed can be read too."""
    for name in ours.state:
        try:
            ours.read(name)
        except NotDenseError:
            continue
        except FormatError:
            return "opens, and does not read"
    return "opens and reads" if len(ours.state) else "opens, without a tensor"


def _class(error: Exception) -> str:
    """The error in a few words, without what differs from file to file."""
    return f"{type(error).__name__}: {in_words(str(error))}"


def in_words(message: str) -> str:
    """The beginning of a message, plain lower-case words of it only."""
    line = message.strip().split("\n")[0]
    for name, known in _KNOWN.items():
        if name in line:
            return known
    return " ".join(word for word in re.findall(r"(?<![^\s(])[A-Za-z]+(?=[\s,.:;)]|$)", line))[:60]


_KNOWN = {
    "Weights only load failed": "weights_only refuses an opcode, a name or a value",
    "parse the version": "the record version is no number",
    'hasRecord("version")': "there is no record version",
    "Unknown endianness": "Unknown endianness",
    "in archive is not in a subdirectory": "the archive has no folder",
    "could be read in two": "could be read in two ways",
}


def _loader(path: Path, sample: Sample) -> Any:
    if sample.format in ("torch_zip", "torch_legacy") and sample.name != "torchscript":
        return lambda: _torch(path)
    if sample.format == "safetensors":
        return lambda: _safetensors(path.read_bytes())
    if sample.format == "npz" and path.suffix == ".npz":
        return lambda: _numpy(path)
    if sample.name == "sharded-index":
        return lambda: _shards(path)
    return None


def _torch(path: Path) -> dict[str, Any]:
    loaded = torch.load(path, weights_only=True, map_location="cpu")
    _, tensors = named_tensors(loaded)
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if is_listed_only(tensor):
            found[name] = (None, tuple(tensor.shape), None)
        elif tensor.numel() * tensor.itemsize > _MOST_BYTES:
            found[name] = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), None)
        else:
            found[name] = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), _bits(tensor))
    return found


def _bits(tensor: torch.Tensor) -> bytes:
    """The packed bytes, bools as 0 and 1 as everywhere in weightkit."""
    dense = tensor.detach().resolve_conj().resolve_neg().reshape(-1).clone(memory_format=torch.contiguous_format)
    raw = bytes(dense.view(torch.uint8).numpy().tobytes()) if dense.numel() else b""
    return _as_bools(raw) if dense.dtype is torch.bool else raw


_CODES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu", "C64": "complex64", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def _safetensors(content: bytes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, about in safetensors.deserialize(content):
        held = bytes(about["data"])
        kind = _CODES.get(about["dtype"], about["dtype"])
        found[name] = (kind, tuple(about["shape"]), _as_bools(held) if kind == "bool" else held)
    return found


def _as_bools(held: bytes) -> bytes:
    return bytes(byte != 0 for byte in held)


def _numpy(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            array = archive[name]
            if not isinstance(array, np.ndarray):
                continue
            native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
            held = native.tobytes()
            found[name] = (native.dtype.name, native.shape, _as_bools(held) if native.dtype.kind == "b" else held)
    return found


def _shards(path: Path) -> dict[str, Any]:
    document = json.loads((path.parent / INDEX).read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for name, shard in document["weight_map"].items():
        content = _safetensors((path.parent / shard).read_bytes())
        found[name] = content[name]
    return found


def _compared(ours: Checkpoint, theirs: Mapping[str, Any]) -> str:
    names = {name for name in ours.state if name not in ours.state.aliases or name in theirs}
    if names != set(theirs):
        extra, missing = sorted(names - set(theirs)), sorted(set(theirs) - names)
        raise Violation(f"names differ from the reference's: only here {extra[:5]}, only there {missing[:5]}")
    for name, (kind, shape, content) in theirs.items():
        spec = ours.state[name]
        if spec.shape != shape or (kind is not None and kind != spec.dtype.name and not kind.startswith("void")):
            raise Violation(f"tensor differs from the reference's: {name!r} is {spec}, there {kind}{list(shape)}")
        if content is None or name in ours.not_dense:
            continue
        try:
            array = ours.read(name)
        except FormatError as error:
            return f"both open, only the reference reads: {_class(error)}"
        if array.tobytes() != content:
            raise Violation(f"bytes differ from the reference's: {name!r} {spec}")
    return "both open, equal"
