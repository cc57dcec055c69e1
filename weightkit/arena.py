"""One flat buffer for all tensors of a push, each at the offset that the manifest gives it."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weightkit.core.group import Transfer
from weightkit.core.manifest import ALIGNMENT, SyncManifest
from weightkit.core.tensor import TensorSpec
from weightkit.digest import tensor_digest, tensor_hasher

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_BYTES = 1 << 18
_SQUARED = {"float32": np.float32, "float64": np.float64}


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

    def pack(self, tensors: Mapping[str, Tensor]) -> Packed:
        """Copy the tensors in, from whatever device they are on. Each must have the manifest's dtype and shape.

        They are hashed on the way, and looked through for NaN and infinity. From a GPU all copies are under way at
        once, into pinned memory, and waited for once.
        """
        import torch

        devices = {tensors[name].device for name in self.names if tensors[name].is_cuda}
        if devices:
            self._pin()
        digests: dict[str, str] = {}
        sound = set()
        for name in self.names:
            source, sums = tensors[name].detach(), list[float]()
            if is_dense(source):
                digests[name] = _copied(_raw(source), self.bytes_of(name), self.manifest.by_name[name].spec, sums)
                sound |= {name} if sums and math.isfinite(sum(sums)) else set()
            else:
                copy_tensor(source, self.tensor(name), non_blocking=True)
        for device in devices:
            torch.cuda.synchronize(device)
        digests |= {name: self.digest(name) for name in self.names if name not in digests}
        spoiled = tuple(name for name in self.names if name not in sound and not is_finite(self.tensor(name)))
        return Packed(digests, spoiled)

    def digest(self, name: str) -> str:
        """The digest of the tensor called ``name``, as it lies in the buffer."""
        spec = self.manifest.by_name[name].spec
        return tensor_digest(self.bytes_of(name).data, dtype=spec.dtype.name, shape=spec.shape)

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

    def unpack(self, name: str, target: Tensor) -> str | None:
        """Copy the tensor called ``name`` over ``target``, which has its dtype and shape.

        Gives the digest of what then lies there, where it was taken on the way: from a dense tensor on the CPU.
        """
        if is_dense(target):
            return _copied(self.bytes_of(name), _raw(target.detach()), self.manifest.by_name[name].spec)
        copy_tensor(self.tensor(name), target)
        return None

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


@dataclass(frozen=True, slots=True)
class Packed:
    """What an arena was filled with: the digest of each tensor, and the names of those that hold NaN or infinity."""

    digests: Mapping[str, str]
    spoiled: tuple[str, ...]


class StreamedDigests:
    """The digests of an arena's tensors, taken while its bytes come, in growing order of their offsets.

    `came` is told of bytes that lie there now; ``done`` has the tensors of which all have come.
    """

    def __init__(self, arena: Arena, names: Collection[str]) -> None:
        self.done: dict[str, str] = {}
        self._arena = arena
        entries = [arena.manifest.by_name[name] for name in arena.names if name in names]
        self._waiting = deque(entry for entry in entries if entry.spec.nbytes)
        self._hasher: Any = None

    def came(self, first: int, end: int) -> None:
        """The bytes from ``first`` to before ``end`` are there, and all before them that were announced."""
        while self._waiting:
            entry = self._waiting[0]
            assert entry.offset is not None
            last = entry.offset + entry.spec.nbytes
            low, high = max(first, entry.offset), min(end, last)
            if low >= high:
                return
            if self._hasher is None:
                self._hasher = tensor_hasher(entry.spec.dtype.name, entry.spec.shape)
            self._hasher.update(self._arena.buffer[low:high].data)
            if high < last:
                return
            self.done[entry.name] = self._hasher.hexdigest()
            self._hasher = None
            self._waiting.popleft()


def _copied(source: np.ndarray, target: np.ndarray, spec: TensorSpec, sums: list[float] | None = None) -> str:
    """Copy ``source`` over ``target``, both ``(nbytes,)`` uint8; the digest of ``target``.

    Block by block, so that each is still in the processor's cache when it is hashed. ``sums`` gets the sum of squares
    of each block of floats, which NaN and infinity make NaN or infinite.
    """
    hasher = tensor_hasher(spec.dtype.name, spec.shape)
    number = _SQUARED.get(spec.dtype.name) if sums is not None else None
    for first in range(0, len(target), BLOCK_BYTES):
        block = target[first : first + BLOCK_BYTES]
        np.copyto(block, source[first : first + BLOCK_BYTES])
        hasher.update(block.data)
        if number is not None and sums is not None:
            numbers = block.view(number)
            with np.errstate(over="ignore", invalid="ignore"):
                sums.append(float(np.dot(numbers, numbers)))
    return hasher.hexdigest()


def is_finite(tensor: Tensor) -> bool:
    """Whether no element of a tensor is NaN or infinite."""
    import torch

    if not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        return True
    if tensor.element_size() == 1:  # float8 knows few operations
        tensor = tensor.to(torch.float32)
    return bool(torch.isfinite(tensor).all())


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
