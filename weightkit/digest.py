"""The two digests: sha256 for documents, xxh3-128 for tensors."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import xxhash

from weightkit.core.jsonio import canonical_json

if TYPE_CHECKING:
    import numpy as np


def sha256_bytes(content: bytes | bytearray | memoryview) -> str:
    """The sha256 of ``content`` in hex."""
    return hashlib.sha256(content).hexdigest()


def tensor_digest(
    content: np.ndarray | bytes | bytearray | memoryview, *, dtype: str = "", shape: Sequence[int] | None = None
) -> str:
    """xxh3-128, in hex, over element type, shape and the packed little-endian bytes of a tensor.

    An array says its own element type and shape; a raw buffer needs ``dtype`` (torch's name) and ``shape``. Equal
    tensors have equal digests whichever way they are given; two NaN with different bits differ.
    """
    if isinstance(content, (bytes, bytearray, memoryview)):
        if not dtype or shape is None:
            raise ValueError("a raw buffer has no element type and no shape: give dtype and shape")
        return _digest(dtype, shape, content)
    import numpy as np

    dense = np.asarray(content, order="C")
    little = dense.astype(dense.dtype.newbyteorder("<")) if dense.dtype.byteorder == ">" else dense
    return _digest(dtype or dense.dtype.name, content.shape, little.reshape(-1).view(np.uint8).data)


def file_digest(path: str | os.PathLike[str]) -> str:
    """xxh3-128, in hex, over the bytes of a file."""
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def root_digest(digests: Mapping[str, str]) -> str:
    """The sha256 over all names with their digests, in whatever order they come."""
    return sha256_bytes(canonical_json(dict(digests)))


def tensor_hasher(dtype: str, shape: Sequence[int]) -> xxhash.xxh3_128:
    """What gives `tensor_digest` once the tensor's bytes have gone through its ``update``, piece by piece."""
    return xxhash.xxh3_128(f"{dtype}{[int(size) for size in shape]}\n".encode())


def _digest(dtype: str, shape: Sequence[int], content: bytes | bytearray | memoryview) -> str:
    digest = tensor_hasher(dtype, shape)
    digest.update(content)
    return digest.hexdigest()
