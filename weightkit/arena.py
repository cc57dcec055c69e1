"""One flat buffer for all tensors of a push, each at the offset that the manifest gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from weightkit.core.group import Transfer
from weightkit.core.manifest import ALIGNMENT, SyncManifest

if TYPE_CHECKING:
    from torch import Tensor


class Arena:
    """The payload of one push: the SEND tensors of ``manifest``, densely in C order, zeros between them."""

    def __init__(self, manifest: SyncManifest) -> None:
        self.manifest = manifest
        self.names = manifest.names(Transfer.SEND)
        room = np.zeros(manifest.payload_bytes + ALIGNMENT, np.uint8)
        start = -room.ctypes.data % ALIGNMENT
        self.buffer = room[start : start + manifest.payload_bytes]

    @property
    def nbytes(self) -> int:
        """Size of the payload in bytes."""
        return len(self.buffer)

    def pack(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors in, from whatever device they are on. Each must have the manifest's dtype and shape."""
        for name in self.names:
            copy_tensor(tensors[name], self.tensor(name))

    def tensor(self, name: str) -> Tensor:
        """The tensor called ``name``, a view of the buffer."""
        import torch

        spec = self.manifest.by_name[name].spec
        dtype: torch.dtype = getattr(torch, spec.dtype.name)
        if not spec.nbytes:
            return torch.empty(spec.shape, dtype=dtype)
        return torch.from_numpy(self.bytes_of(name)).view(dtype).reshape(spec.shape)

    def bytes_of(self, name: str) -> np.ndarray:
        """The bytes of the tensor called ``name``, ``(nbytes,)`` uint8, a view of the buffer."""
        entry = self.manifest.by_name[name]
        assert entry.offset is not None
        return self.buffer[entry.offset : entry.offset + entry.spec.nbytes]

    def write(self, offset: int, chunk: bytes | memoryview) -> None:
        """Put ``chunk`` at ``offset``. Raises ValueError where it does not fit in."""
        if offset < 0 or offset + len(chunk) > len(self.buffer):
            raise ValueError(f"bytes {offset}..{offset + len(chunk)} lie outside a payload of {len(self.buffer)}")
        self.buffer[offset : offset + len(chunk)] = np.frombuffer(chunk, np.uint8)


def copy_tensor(source: Tensor, target: Tensor) -> None:
    """Copy one tensor's elements over another of its dtype and shape; what ``expand`` repeats there is written once.

    Between dense tensors on the CPU as one memcpy: torch would wake its thread pool, which costs more than the copy
    where the cores are busy acting or learning.
    """
    import torch

    source, target = source.detach(), target.detach()
    dense = source.is_contiguous() and target.is_contiguous() and source.dtype == target.dtype
    if dense and source.device.type == target.device.type == "cpu" and source.shape == target.shape:
        if source.numel():
            np.copyto(_raw(target), _raw(source))
        return
    for dimension, (size, stride) in enumerate(zip(target.shape, target.stride(), strict=True)):
        if stride == 0 and size > 1:
            source, target = source.narrow(dimension, 0, 1), target.narrow(dimension, 0, 1)
    with torch.no_grad():
        target.copy_(source)


def _raw(tensor: Tensor) -> np.ndarray:
    import torch

    raw: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return raw
