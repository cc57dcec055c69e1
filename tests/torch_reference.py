"""The reference of our reader: what torch.load makes of a file, and files as torch writes them on other machines."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import NotDenseError
from weightkit.formats import open_checkpoint

ROOTS = ("agent", "state_dict", "model_state_dict", "model", "policy")
# What torch 2.13 can save and numpy (with ml_dtypes) can hold; the second row is new since torch's old layout.
OLD_DTYPES = (
    "float64", "float32", "float16", "bfloat16", "complex64", "complex128", "int64", "int32", "int16", "int8", "uint8",
    "bool",
)  # fmt: skip
NEW_DTYPES = (
    "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "uint16", "uint32",
    "uint64",
)  # fmt: skip
LISTED_DTYPES = ("complex32", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2")
Path_ = tuple[str, ...]


def random_tensor(dtype: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random bits, all of them valid elements."""
    element: torch.dtype = getattr(torch, dtype)
    numel = int(np.prod(shape))
    high = 2 if dtype == "bool" else 256
    raw = torch.randint(0, high, (numel * element.itemsize,), generator=torch.Generator().manual_seed(seed))
    return raw.to(torch.uint8).view(element).reshape(shape)


def bits(tensor: torch.Tensor) -> bytes:
    """The packed bytes of a tensor, lazy conjugation and negation carried out."""
    dense = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(dense.reshape(-1).view(torch.uint8).numpy().tobytes()) if dense.numel() else b""


def key_text(key: object) -> str:
    """A dict key as a part of a dotted name."""
    return "/".join(key_text(part) for part in key) if isinstance(key, tuple) else str(key)


def tensors_in(value: object, path: Path_ = ()) -> dict[Path_, torch.Tensor]:
    """Path -> tensor, the obvious way; an nn.Module by its ``state_dict()``."""
    if isinstance(value, torch.Tensor):
        return {path or ("tensor",): value}
    if isinstance(value, nn.Module):
        return {(*path, *name.split(".")): tensor for name, tensor in value.state_dict(keep_vars=True).items()}
    found: dict[Path_, torch.Tensor] = {}
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            found.update(tensors_in(inner, (*path, key_text(key))))
    return found


def root_of(value: object, paths: Mapping[Path_, object]) -> str:
    """The well-known key under which all tensors lie, "" where there is none."""
    firsts = {path[0] for path in paths}
    if not isinstance(value, dict) or len(firsts) != 1 or any(len(path) == 1 for path in paths):
        return ""
    (first,) = firsts
    return first if first in ROOTS else ""


def named_tensors(value: object) -> tuple[str, dict[str, torch.Tensor]]:
    """The root and the tensors by their names below it, in order."""
    paths = tensors_in(value)
    root = root_of(value, paths)
    return root, {".".join(path[1:] if root else path): tensor for path, tensor in paths.items()}


def is_listed_only(tensor: torch.Tensor) -> bool:
    """Whether the reader lists the tensor and gives no array of it."""
    name = str(tensor.dtype).removeprefix("torch.")
    return tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or name in LISTED_DTYPES


def identity(tensor: torch.Tensor) -> object:
    """Equal for two names of one tensor. An empty tensor has no place in its storage."""
    offset = tensor.storage_offset() if tensor.numel() else -1
    place = (tensor.untyped_storage()._cdata, offset)
    return *place, tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def expected_aliases(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Second name -> first name, from the storages that torch.load made."""
    firsts: dict[object, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        if is_listed_only(tensor):
            continue
        first = firsts.setdefault(identity(tensor), name)
        if first != name:
            aliases[name] = first
    return aliases


def without_empty_storages(aliases: Mapping[str, str], tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """torch.load makes a new storage for each tensor on an empty one, so nothing is known about these."""
    return {alias: first for alias, first in aliases.items() if tensors[alias].untyped_storage().nbytes()}


def check_equal(found: Checkpoint, root: str, expected: Mapping[str, torch.Tensor]) -> None:
    """Raises AssertionError unless every name, spec, alias and bit of ``found`` is what torch says."""
    assert found.root == root
    assert list(found.state) == list(expected)
    listed = {name for name, tensor in expected.items() if is_listed_only(tensor)}
    assert set(found.not_dense) == listed
    for name, tensor in expected.items():
        assert found.state[name].shape == tuple(tensor.shape), name
        assert found.state[name].dtype.name == str(tensor.dtype).removeprefix("torch."), name
        if name in listed:
            check_listed(found, name)
            continue
        array = found.read(name)
        assert (array.shape, array.dtype.name) == (tuple(tensor.shape), found.state[name].dtype.name), name
        assert array.flags.c_contiguous, name
        assert array.flags.writeable, name
        assert array.dtype.isnative, name
        assert array.tobytes() == bits(tensor), name
    ours = without_empty_storages(found.state.aliases, expected)
    assert ours == without_empty_storages(expected_aliases(expected), expected)


def check_listed(found: Checkpoint, name: str) -> None:
    """A tensor that is listed only says so when it is read."""
    try:
        found.read(name)
    except NotDenseError:
        return
    raise AssertionError(f"{name} was read, and torch has no dense array of it")


def check_reads_as_torch(path: Path) -> Checkpoint:
    """What our reader makes of the file, after comparing it with torch.load."""
    loaded = torch.load(path, weights_only=False, map_location="cpu")
    found = open_checkpoint(path)
    check_equal(found, *named_tensors(loaded))
    return found


# ---- files as torch writes them, on this machine and on others


def save(value: object, path: Path, *, protocol: int = 2, legacy: bool = False) -> Path:
    """torch.save in one of its two layouts."""
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    return path


def rezip(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The members of a torch archive in a new one, each as ``change(name, content)`` gives it."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
    path.write_bytes(content.getvalue())
    return path


def deflate(path: Path) -> Path:
    """The archive with every member compressed."""
    return rezip(path, lambda name, content: content, zipfile.ZIP_DEFLATED)


@contextmanager
def saved_on(location: str) -> Iterator[None]:
    """Within the block torch.save takes every storage for one that lies at ``location``, such as "cuda:0"."""
    original = torch.serialization.location_tag
    torch.serialization.location_tag = lambda storage: location
    try:
        yield
    finally:
        torch.serialization.location_tag = original


def make_big_endian(path: Path) -> Path:
    """The archive that a big-endian machine would have written: other bytes, same values."""
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
    recorder = _StorageTypes(io.BytesIO(pickled))
    recorder.load()

    def change(name: str, content: bytes) -> bytes:
        if name == "byteorder":
            return b"big"
        if not name.startswith("data/"):
            return content
        dtype = recorder.dtypes[name.removeprefix("data/")]
        part = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        return np.frombuffer(content, f"u{part}").byteswap().tobytes()

    assert sys.byteorder == "little"
    return rezip(path, change)


class _StorageTypes(pickle.Unpickler):
    """Reads our own data.pkl for the element type of every storage, building no tensor."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.dtypes: dict[str, torch.dtype] = {}

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, _ = pid
        self.dtypes.setdefault(key, torch.storage._storage_type_to_dtype_map().get(kind.__name__, torch.uint8))
        return key

    def find_class(self, module: str, name: str) -> Any:
        if name == "_rebuild_tensor_v3":
            return self._with_own_type
        if name == "_rebuild_from_type_v2":
            return lambda function, kind, arguments, state: function(*arguments)
        if name.startswith("_rebuild"):
            return lambda *arguments: None
        return super().find_class(module, name)

    def _with_own_type(self, *arguments: Any) -> None:
        self.dtypes[arguments[0]] = arguments[6]
