"""What a format is: a name, how it is recognised, how it is opened and, where it can be, written."""

from __future__ import annotations

import os

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.record import Record
from weightkit.core.tensor import StateSpec
from weightkit.core.text import printable
from weightkit.errors import LimitExceeded, WriteError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import BinaryIO, Protocol

    import numpy as np
else:
    Protocol = object

HEAD_BYTES = 512
METADATA_KEY = "weightkit"
# The opcodes that a pickle can start with: such a file is judged as one too, whatever else it may be.
PICKLE_STARTS = b"(NIJKLMFGSTUVXBC)]}cPi\x80\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x95\x96"


class Limits(Record):
    """What reading one file may cost. The defaults are far above real checkpoints of 100,000 tensors."""

    opcodes: int = 20_000_000  # of one pickle
    nodes: int = 5_000_000  # objects seen on the walk through a pickle's object graph
    sharing: int = 16  # times that the walk may see more objects than the pickle writes
    depth: int = 200  # containers inside containers
    marks: int = 100_000  # open marks of a pickle: lists, tuples and dicts that are being built inside each other
    memo: int = 5_000_000  # entries of a pickle's memo
    path_length: int = 4_096  # characters of one tensor's dotted name
    tensors: int = 1_000_000
    names: int = 64 << 20  # characters of all tensors' names together
    entries: int = 2_000_000  # files inside an archive
    header_bytes: int = 512 << 20  # what is parsed before the first tensor: a pickle, a directory of an archive
    json_bytes: int = 64 << 20  # a JSON header
    inflated_bytes: int = 64 << 20  # a deflated pickle or inner archive, which is held in memory whole
    expanded_bytes: int = 4 << 30  # one array that takes more memory than the file has bytes for it
    wall_s: float = 60.0

    def exceeded(self, name: str, *, where: str, found: object) -> LimitExceeded:
        """The error that says which limit was hit, and what raises it."""
        allowed = getattr(self, name)
        return LimitExceeded(
            f"{printable(where)}: {found}, more than the limit {name}={allowed}",
            hint=f"if you trust where the file comes from, raise it: --limit {name}=VALUE",
        )


class Write(Protocol):
    """Write ``tensors`` to ``file``, one array in memory at a time; each may be freed after its turn."""

    def __call__(
        self,
        file: BinaryIO,
        tensors: Iterable[tuple[str, np.ndarray]],
        *,
        spec: StateSpec,
        metadata: Mapping[str, object],
    ) -> None:
        """``tensors`` gives every name of ``spec.unique()`` once; aliases are written as references. ``file`` can seek.

        Values of ``metadata`` may change until the last tensor was taken, not the length of their JSON.

        Raises WriteError for a tensor that is missing, unknown, given twice or not what ``spec`` says.
        """


class Format(Record):
    """One container format.

    ``detect`` is cheap: it sees the path and the first bytes (none for a directory). ``open`` reads specs only and
    raises FormatError. ``write`` is None where weightkit only reads. ``judges`` says that
    opening such a file judges all that could be unpickled in it; where not, it is judged as a pickle beforehand.
    """

    name: str
    description: str
    endings: tuple[str, ...]
    detect: Callable[[str, bytes], bool]
    open: Callable[[str, Limits], Checkpoint]
    write: Write | None = None
    judges: bool = True


def ending_of(path: str) -> str:
    """The ending of a file's name with its dot, in lower case."""
    return os.path.splitext(path)[1].lower()


def announced(tensors: Iterable[tuple[str, np.ndarray]], spec: StateSpec) -> Iterator[tuple[str, np.ndarray]]:
    """``tensors`` without second names; raises WriteError unless each first name of ``spec`` comes exactly once."""
    waiting = dict.fromkeys(spec.unique())
    for name, array in tensors:
        if name in waiting:
            del waiting[name]
            yield name, array
            del array  # before the next one is read: only one is alive
        elif name not in spec.aliases:
            raise WriteError(f"tensor {printable(name)!r} comes twice, or was never announced")
    if waiting:
        first = next(iter(waiting))
        raise WriteError(f"{len(waiting)} tensors were announced and never came, the first is {printable(first)!r}")
