"""One opened file: what it holds, and how to get at it."""

from __future__ import annotations

from weightkit.core.record import MappingProxyType, Record
from weightkit.core.report import Finding
from weightkit.core.tensor import StateSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    import numpy as np

    Verdict = Literal["data", "opaque", "unsafe"]


class NotDense(Record):
    """Why a tensor is listed but cannot be read as a dense array.

    ``kind`` is "sparse_coo", "sparse_csr" (and its like), "quantized", "nested", "meta" or "numpy_object"; ``nbytes``
    is what the file holds of it; ``why`` is a sentence for people.
    """

    kind: str
    nbytes: int
    why: str


class Checkpoint(Record):
    """One opened checkpoint. Opening it reads specs only; ``read(name)`` reads that tensor's bytes.

    ``root`` is the dotted path below which the tensors' names start ("agent" for RoboBase, "" where none is known).
    ``metadata`` holds everything that is not a tensor: inert values (None, bool, int, float, str, lists, dicts with
    string keys) by dotted path, never live objects. ``verdict`` is None for formats that cannot hold code.
    ``not_dense`` names the tensors of ``state`` that are listed only; for those ``read`` raises NotDenseError.
    ``read`` gives a dense, native-endian, writable array of the spec's shape and dtype; raises KeyError for an unknown
    name, CorruptFile where the bytes contradict the spec.
    """

    path: str
    format: str
    root: str
    state: StateSpec
    metadata: Mapping[str, object]
    read: Callable[[str], np.ndarray]
    verdict: Verdict | None = None
    findings: tuple[Finding, ...] = ()
    not_dense: Mapping[str, NotDense] = MappingProxyType({})
