"""One flat buffer for all tensors of a push, each at the offset that the manifest gives it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from weightkit.core.group import Transfer
from weightkit.core.manifest import ALIGNMENT, SyncManifest

if TYPE_CHECKING:
    from torch import Tensor


class Arena:
    """The payload of one push: the SEND tensors of ``manifest``, densely in C order, zeros between them."""

    def __init__(self, manifest: SyncManifest, buffer: np.ndarray | None = None) -> None:
        """In ``buffer``, ``(payload_bytes,)`` uint8 at a multiple of 64 bytes, or in memory of its own."""
        self.manifest = manifest
        self.names = manifest.names(Transfer.SEND)
        if buffer is None:
            room = np.zeros(manifest.payload_bytes + ALIGNMENT, np.uint8)
            start = -room.ctypes.data % ALIGNMENT
            buffer = room[start : start + manifest.payload_bytes]
        if len(buffer) != manifest.payload_bytes:
            raise ValueError(f"a payload of {manifest.payload_bytes} bytes, in a buffer of {len(buffer)}")
        self.buffer = buffer
        self._pinned: object = None

    @property
    def nbytes(self) -> int:
        """Size of the payload in bytes."""
        return len(self.buffer)

    def pack(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the tensors in, from whatever device they are on. Each must have the manifest's dtype and shape.

        From a GPU all copies are under way at once, into pinned memory, and waited for once.
        """
        import torch

        devices = {tensors[name].device for name in self.names if tensors[name].is_cuda}
        if devices:
            self._pin()
        for name in self.names:
            copy_tensor(tensors[name], self.tensor(name), non_blocking=True)
        for device in devices:
            torch.cuda.synchronize(device)

    def _pin(self) -> None:
        """Tell CUDA that these pages stay where they are: without it every copy goes through a buffer of CUDA's."""
        import torch

        if self._pinned is None and self.nbytes:
            where = self.buffer.ctypes.data
            runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
            if int(runtime.cudaHostRegister(where, self.nbytes, 0)) == 0:
                self._pinned = weakref.finalize(self, runtime.cudaHostUnregister, where)

    def tensor(self, name: str) -> Tensor:
        """The tensor called ``name``, a view of the buffer; a copy where the buffer may not be written."""
        import torch

        spec = self.manifest.by_name[name].spec
        dtype: torch.dtype = getattr(torch, spec.dtype.name)
        if not spec.nbytes:
            return torch.empty(spec.shape, dtype=dtype)
        raw = self.bytes_of(name)
        return torch.from_numpy(raw if raw.flags.writeable else raw.copy()).view(dtype).reshape(spec.shape)

    def unpack(self, name: str, target: Tensor) -> None:
        """Copy the tensor called ``name`` over ``target``, which has its dtype and shape."""
        if is_dense(target):
            if target.numel():
                np.copyto(_raw(target.detach()), self.bytes_of(name))
            return
        copy_tensor(self.tensor(name), target)

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


def is_dense(tensor: Tensor) -> bool:
    """Whether its elements lie in C order without gaps, on the CPU."""
    return tensor.device.type == "cpu" and tensor.is_contiguous()


def copy_tensor(source: Tensor, target: Tensor, *, non_blocking: bool = False) -> None:
    """Copy one tensor's elements over another of its dtype and shape; what ``expand`` repeats there is written once.

    Between dense tensors on the CPU as one memcpy: torch would wake its thread pool, which costs more than the copy
    where the cores are busy acting or learning. ``non_blocking``: from a GPU, do not wait until it is there.
    """
    import torch

    source, target = source.detach(), target.detach()
    if is_dense(source) and is_dense(target) and (source.dtype, source.shape) == (target.dtype, target.shape):
        if source.numel():
            np.copyto(_raw(target), _raw(source))
        return
    for dimension, (size, stride) in enumerate(zip(target.shape, target.stride(), strict=True)):
        if stride == 0 and size > 1:
            source, target = source.narrow(dimension, 0, 1), target.narrow(dimension, 0, 1)
    with torch.no_grad():
        target.copy_(source, non_blocking=non_blocking)


def _raw(tensor: Tensor) -> np.ndarray:
    import torch

    raw: np.ndarray = tensor.reshape(-1).view(torch.uint8).numpy()
    return raw
