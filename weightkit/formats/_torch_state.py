"""From a pickle's value and the storages beside it to a Checkpoint: names, specs, aliases, lazy arrays."""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint, NotDense
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, NotDenseError
from weightkit.formats._arrays import column_major, dense_array
from weightkit.formats._numpy_records import HeldArray
from weightkit.formats._pickle_findings import judgements, payloads_first, verdict_on
from weightkit.formats._pickle_records import Ref
from weightkit.formats._torch_tensors import ListedTensor, StridedTensor
from weightkit.formats._torch_walk import find_aliases, find_root, walk
from weightkit.formats.base import METADATA_KEY, Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol, TypeGuard

    import numpy as np

    from weightkit.formats._pickle_policy import Remark
    from weightkit.formats._pickle_vm import Unpickled
    from weightkit.formats._torch_tensors import Storage, Tensor
else:
    Protocol = object


class Storages(Protocol):
    """Where the bytes of the storages lie. ``swapped``: in the order that this machine does not use."""

    swapped: bool

    def check(self, storage: Storage) -> str:
        """What is wrong with what ``storage`` claims, "" where its bytes are there and as many as it says."""

    def read(self, storage: Storage, start: int, length: int) -> bytearray:
        """``length`` bytes of ``storage`` from ``start`` on. Raises CorruptFile."""


def checkpoint_of(
    pickled: Unpickled,
    storages: Storages,
    *,
    path: str,
    shown: str,
    format: str,
    remarks: Sequence[Remark],
    findings: Sequence[Finding],
    limits: Limits,
    arrays: bool = False,
) -> Checkpoint:
    """The checkpoint that a pickle is; with ``arrays`` its numpy arrays are tensors too.

    Raises CorruptFile, UnsafeContent, LimitExceeded.
    """
    try:
        _check_kinds(shown, pickled)
        walked = walk(pickled.value, written=pickled.executed, arrays=arrays, where=shown, limits=limits)
        root = find_root(pickled.value, walked.tensors)
        tensors = _named(shown, walked.tensors, root)
        _check_storages(shown, storages, tensors)
    except CorruptFile as error:
        raise payloads_first(shown, remarks, error) from None
    specs: dict[str, TensorSpec] = {}
    known: dict[tuple[str, tuple[int, ...]], TensorSpec] = {}
    not_dense: dict[str, NotDense] = {}
    for name, tensor in tensors.items():
        identity = (tensor.dtype.name, tensor.shape)
        spec = known.get(identity)
        if spec is None:
            spec = tensor.spec
            if spec.numel:  # the hashes of empty shapes could be made to collide
                known[identity] = spec
        specs[name] = spec
        if type(tensor) is ListedTensor:
            not_dense[name] = tensor.not_dense
    lost = _unlisted(pickled, tensors)
    listed = [
        Finding("WK109", Severity.WARNING, name, f"listed and not read: {found.why}")
        for name, found in not_dense.items()
    ]

    def read(name: str) -> np.ndarray:
        return _read(tensors[name], storages, f"{shown}: tensor {printable(name)!r}", limits)

    return Checkpoint(
        path=path,
        format=format,
        root=root,
        state=StateSpec(specs, find_aliases(tensors)),
        metadata=_own_metadata_on_top(walked.metadata),
        read=read,
        verdict=verdict_on(remarks),
        findings=(*findings, *judgements(shown, remarks), *listed, *lost),
        not_dense=not_dense,
    )


def _are_all_different(pickled: Unpickled) -> bool:
    """Whether each reference is to a storage of its own, as a whole: by far the commonest, and nothing to compare."""
    try:
        keys = [
            each.key[2]  # type: ignore[index]
            for each in pickled.persistents
            if len(each.key) == 5 and type(each.key[3]) is str and type(each.key[4]) is int  # type: ignore[arg-type, index]
        ]
    except (TypeError, IndexError):
        return False
    whole = len(keys) == len(pickled.persistents) and all(type(key) is str for key in keys)
    return whole and len(set(keys)) == len(keys)


def _check_kinds(shown: str, pickled: Unpickled) -> None:
    """Raise CorruptFile where a storage is referred to in two ways: torch would take the first for both."""
    if _are_all_different(pickled):
        return
    claims: dict[str, tuple[object, ...]] = {}
    views: dict[str, tuple[object, ...]] = {}
    for each in pickled.persistents:
        key = each.key
        if not isinstance(key, tuple) or len(key) < 5 or not isinstance(key[2], str) or not isinstance(key[1], Ref):
            continue
        if not isinstance(key[3], str) or type(key[4]) is not int:
            raise CorruptFile(f"{shown}: the storage {printable(key[2])!r} has no place or no size")
        claim = (key[1].path, key[3], key[4])
        if claims.setdefault(key[2], claim) != claim:
            raise CorruptFile(
                f"{shown}: the storage {printable(key[2])!r} is referred to with two types, places or sizes"
            )
        view = key[5] if len(key) == 6 else None
        if isinstance(view, tuple) and len(view) == 3 and isinstance(view[0], str):
            part = (key[2], claim, view[1], view[2])
            if views.setdefault(view[0], part) != part:
                raise CorruptFile(f"{shown}: the view {printable(view[0])!r} of a storage means two different parts")
    both = views.keys() & claims.keys()
    if both:
        raise CorruptFile(
            f"{shown}: {printable(min(both))!r} is a storage and a view of one, which is read in two ways"
        )


def _unlisted(pickled: Unpickled, tensors: Mapping[str, Tensor | HeldArray]) -> list[Finding]:
    """A finding where the pickle refers to storages that no listed tensor lies on: nothing is lost without a word."""
    listed = {tensor.storage.key for tensor in tensors.values() if type(tensor) is StridedTensor}
    if any(type(tensor) is ListedTensor for tensor in tensors.values()):
        return []  # whose parts lie on storages too
    lost = [key[2] for key in (each.key for each in pickled.persistents) if _is_lost_storage(key, listed)]
    if not lost:
        return []
    named = printable(", ".join(dict.fromkeys(lost)), longest=80)
    message = f"{len(set(lost))} storages hold bytes that no listed tensor lies on: {named}"
    return [Finding("WK116", Severity.WARNING, "", message, "they belong to objects whose make-up is unknown here")]


def _is_lost_storage(key: object, listed: set[str]) -> TypeGuard[tuple[str, ...]]:
    if not isinstance(key, tuple) or len(key) < 3 or key[0] != "storage" or not isinstance(key[2], str):
        return False
    return key[2] not in listed


def _own_metadata_on_top(metadata: Mapping[str, object]) -> Mapping[str, object]:
    """What weightkit's writer put under one key, where the other formats have it."""
    own = metadata.get(METADATA_KEY)
    return {**metadata, **own} if isinstance(own, dict) and set(metadata) == {METADATA_KEY} else metadata


def _named(shown: str, paths: Mapping[tuple[str, ...], Tensor | HeldArray], root: str) -> dict[str, Tensor | HeldArray]:
    """Tensors by their dotted name below ``root``."""
    skipped = 1 if root else 0
    tensors = {".".join(path[skipped:]): tensor for path, tensor in paths.items()}
    if len(tensors) != len(paths):
        seen: set[str] = set()
        for path in paths:
            name = ".".join(path[skipped:])
            if name in seen:
                raise CorruptFile(f"{shown}: two tensors would both be called {printable(name)!r}")
            seen.add(name)
    return tensors


def _check_storages(shown: str, storages: Storages, tensors: Mapping[str, Tensor | HeldArray]) -> None:
    claimed: set[tuple[str, int, int, int]] = set()
    for name, tensor in tensors.items():
        for storage in (tensor.storage,) if type(tensor) is StridedTensor else _storages_of(tensor):
            claim = (storage.key, storage.record_bytes, storage.start, storage.size_bytes)
            if claim in claimed:
                continue
            problem = storages.check(storage)
            if problem:
                raise CorruptFile(f"{shown}: tensor {printable(name)!r}: {problem}")
            claimed.add(claim)


def _storages_of(tensor: Tensor | HeldArray) -> tuple[Storage, ...]:
    return tensor.storages if isinstance(tensor, ListedTensor) else ()


def _read(tensor: Tensor | HeldArray, storages: Storages, where: str, limits: Limits) -> np.ndarray:
    if isinstance(tensor, ListedTensor):
        raise NotDenseError(
            f"{where}: cannot be read as a dense array: {tensor.not_dense.why}",
            hint="leave it out (convert: --drop), or save it again as a dense tensor with torch",
        )
    if isinstance(tensor, HeldArray):
        order = column_major(tensor.shape) if tensor.fortran else None
        return dense_array(bytearray(tensor.content), tensor.spec, where=where, strides=order, swapped=tensor.swapped)
    spec, storage = tensor.spec, tensor.storage
    if spec.nbytes > limits.expanded_bytes and spec.nbytes > storage.size_bytes:
        found = f"{spec.nbytes} bytes made of a storage of {storage.size_bytes}"
        raise limits.exceeded("expanded_bytes", where=where, found=found)
    width = tensor.dtype.itemsize
    length = tensor.extent * width
    content = storages.read(storage, tensor.offset * width, length) if length else bytearray()
    strides = None if tensor.packed else tensor.strides
    array = dense_array(content, spec, where=where, strides=strides, swapped=storages.swapped)
    if tensor.conjugate or tensor.negative:
        import numpy as np

        if tensor.conjugate:
            np.negative(array.imag, out=array.imag)
        if tensor.negative:
            np.negative(array, out=array)
    return array
