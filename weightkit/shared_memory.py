"""Memory that processes of one machine map together: written by a learner, read by its actors.

An anonymous file (memfd) has no name in any folder, so nothing is left behind however its processes end. Readers open
it through ``/proc/PID/fd``, and believe that it is the one that was meant only by its unguessable name. It is sealed:
it can neither shrink under a reader, nor be mapped for writing by anybody but its maker. Linux only; where it cannot be
had, ``create`` and ``attach`` raise OSError, and bytes travel instead.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_ADD_SEALS, _GET_SEALS = 1033, 1034  # fcntl.F_ADD_SEALS of Python 3.9 and later, on Linux only
_SEAL_SEAL, _SEAL_SHRINK, _SEAL_GROW, _SEAL_FUTURE_WRITE = 1, 2, 4, 16


@dataclass(frozen=True, slots=True)
class SharedRef:
    """Where shared memory is found: descriptor ``descriptor`` of process ``pid``, called ``name``, ``nbytes`` long."""

    pid: int
    descriptor: int
    name: str
    nbytes: int


class SharedBuffer:
    """``nbytes`` of memory, ``array`` ``(nbytes,)`` uint8, that other processes may map by ``ref`` to read it.

    Raises OSError where this machine has no such memory.
    """

    def __init__(self, nbytes: int) -> None:
        import fcntl

        import numpy as np

        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOSYS, "this system has no anonymous files")
        name = f"weightkit-{secrets.token_hex(16)}"
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._closed = weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, max(nbytes, 1))
        self.array: np.ndarray = np.frombuffer(mmap.mmap(descriptor, max(nbytes, 1)), np.uint8)[:nbytes]
        seals = _SEAL_SHRINK | _SEAL_GROW
        try:
            fcntl.fcntl(descriptor, _ADD_SEALS, seals | _SEAL_FUTURE_WRITE | _SEAL_SEAL)
        except OSError:  # a kernel before 5.1
            fcntl.fcntl(descriptor, _ADD_SEALS, seals | _SEAL_SEAL)
        self.ref = SharedRef(os.getpid(), descriptor, name, nbytes)

    def close(self) -> None:
        """Let nobody map it any more. Mappings that exist, this one too, stay until they are dropped."""
        self._closed()


def attach(ref: SharedRef) -> np.ndarray:
    """The memory that ``ref`` names, ``(nbytes,)`` uint8, to be read only. It stays as long as the array does.

    Raises OSError where it is not of this machine, not this user's to open, or not what ``ref`` says.
    """
    import fcntl

    import numpy as np

    path = f"/proc/{ref.pid:d}/fd/{ref.descriptor:d}"
    if os.readlink(path) != f"/memfd:{ref.name} (deleted)":  # looked at before it is opened: it may be anything
        raise OSError(errno.ENOENT, "another machine's, or gone", path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size != max(ref.nbytes, 1):
            raise OSError(errno.EINVAL, f"not of {ref.nbytes} bytes", path)
        if not fcntl.fcntl(descriptor, _GET_SEALS) & _SEAL_SHRINK:
            raise OSError(errno.EPERM, "it may shrink while it is read", path)
        mapped = mmap.mmap(descriptor, max(ref.nbytes, 1), access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return np.frombuffer(mapped, np.uint8)[: ref.nbytes]
