"""Streams of torch's old layout written by hand: views of storages, other machines, other versions of torch."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@dataclass(frozen=True)
class Stored:
    """A storage, or with ``view`` = (offset, size) a part of it that is a storage of its own."""

    key: str
    numel: int
    view: tuple[int, int] | None = None
    kind: Any = torch.FloatStorage
    location: str = "cpu"

    @property
    def persistent_id(self) -> tuple[object, ...]:
        """What torch writes for it."""
        view = None if self.view is None else (f"{self.key}:{self.view[0]}", *self.view)
        return "storage", self.kind, self.key, self.location, self.numel, view


@dataclass(frozen=True)
class Laid:
    """A tensor on a storage."""

    storage: Stored
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def __reduce__(self) -> tuple[object, ...]:
        arguments = (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


def vector(storage: Stored, size: int, offset: int = 0) -> Laid:
    """``size`` elements of the storage, one after the other."""
    return Laid(storage, (size,), (1,), offset)


class _Pickler(pickle.Pickler):
    def persistent_id(self, found: object) -> object:
        return found.persistent_id if isinstance(found, Stored) else None


def write_stream(
    path: Path,
    value: object,
    storages: Mapping[str, np.ndarray],
    *,
    protocol: int = 2,
    system: Mapping[str, object] = SYSTEM,
    behind: bytes = b"",
) -> Path:
    """The stream of ``value``; the storages lie behind it, as torch sorts them."""
    stream = io.BytesIO()
    for part in (MAGIC, 1001, dict(system)):
        pickle.dump(part, stream, protocol)
    _Pickler(stream, protocol).dump(value)
    pickle.dump(sorted(storages), stream, protocol)
    for key in sorted(storages):
        elements = storages[key]
        stream.write(len(elements).to_bytes(8, "little") + elements.tobytes())
    path.write_bytes(stream.getvalue() + behind)
    return path
