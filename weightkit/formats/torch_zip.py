"""``.pt``, ``.pth``, ``.ckpt``: the zip archives that torch.save writes, read and written without torch.

Source: torch/serialization.py, caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from weightkit.core.checkpoint import Checkpoint, Verdict
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import StateSpec
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, UnsafeContent
from weightkit.formats._arrays import dense_array, packed_bytes
from weightkit.formats._pickle_policy import Remark
from weightkit.formats._pickle_vm import Unpickled, name_payloads, unpickle
from weightkit.formats._torch_emit import emit_state
from weightkit.formats._torch_tensors import StridedTensor
from weightkit.formats._torch_walk import find_aliases, find_root, walk
from weightkit.formats._zip import Archive, Entry, ZipWriter, open_archive
from weightkit.formats.base import METADATA_KEY, Format, Limits, announced

if TYPE_CHECKING:
    import numpy as np

_ENDINGS = (".pt", ".pth", ".ckpt")
_NOT_PICKLED = ("byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id")
_MOST_FINDINGS = 50
_DO_NOT_LOAD = "do not load this file with anything that unpickles it"


def detect(path: Path, head: bytes) -> bool:
    """A zip archive with one folder inside, as torch lays it out, or by its ending."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(b".npy") or path.suffix.lower() == ".npz":
        return False
    return b"/" in name or path.suffix.lower() in (*_ENDINGS, ".bin")


def open_torch_zip(path: Path, limits: Limits) -> Checkpoint:
    """The checkpoint in a torch archive: names, specs and metadata; nothing in it is imported or called."""
    archive = open_archive(path, limits)
    shown = archive.source.shown
    prefix = _prefix(archive)
    pickled = _unpickle(archive, f"{prefix}data.pkl", limits)
    remarks = list(pickled.remarks)
    findings = _others(archive, prefix, limits, remarks)
    findings += _leftovers(archive, f"{prefix}data.pkl", pickled, limits, remarks)
    try:
        walked = walk(pickled.value, where=shown, limits=limits)
        root = find_root(pickled.value, [*walked.tensors, *(path for path, _ in walked.unsupported)])
        tensors = _named(shown, walked.tensors, root)
        records = _storage_records(archive, prefix, tensors)
    except CorruptFile as error:
        payloads = name_payloads(remarks)
        if payloads:  # what is wrong with a tensor must not hide what another loader would run
            raise UnsafeContent(f"{shown}: {payloads}; besides: {error.message}", hint=_DO_NOT_LOAD) from None
        raise
    findings += _judgements(shown, remarks)
    for segments, why in walked.unsupported[:_MOST_FINDINGS]:
        name = printable(".".join(segments[1:] if root else segments))
        findings.append(Finding("WK104", Severity.WARNING, name, f"{name}: this tensor is left out: {why}"))
    state = StateSpec({name: tensor.spec for name, tensor in tensors.items()}, find_aliases(tensors))
    return Checkpoint(
        path=str(path),
        format=FORMAT.name,
        root=root,
        state=state,
        metadata=_own_metadata_on_top(walked.metadata),
        read=_reader(archive, prefix, tensors, records, limits),
        verdict=_verdict(remarks),
        findings=tuple(findings),
    )


def _own_metadata_on_top(metadata: Mapping[str, object]) -> Mapping[str, object]:
    """What weightkit's writer put under one key, where the other formats have it."""
    own = metadata.get(METADATA_KEY)
    return {**metadata, **own} if isinstance(own, dict) and set(metadata) == {METADATA_KEY} else metadata


def _named(shown: str, paths: Mapping[tuple[str, ...], StridedTensor], root: str) -> dict[str, StridedTensor]:
    """Tensors by their dotted name below ``root``."""
    tensors: dict[str, StridedTensor] = {}
    for path, tensor in paths.items():
        name = ".".join(path[1:] if root else path)
        if name in tensors:
            raise CorruptFile(f"{shown}: two tensors would both be called {printable(name)!r}")
        tensors[name] = tensor
    return tensors


def _prefix(archive: Archive) -> str:
    found = [name for name in archive.entries if name == "data.pkl" or name.endswith("/data.pkl")]
    tops = [name for name in found if name.count("/") <= 1]
    if len(tops) != 1:
        raise CorruptFile(
            f"{archive.source.shown}: a zip archive with {len(tops)} data.pkl, expected exactly one: "
            "it is no checkpoint of torch, or it could be read in several ways"
        )
    return tops[0].removesuffix("data.pkl")


def _unpickle(archive: Archive, name: str, limits: Limits) -> Unpickled:
    return unpickle(_content(archive, name, limits), where=f"{archive.source.shown}: {printable(name)}", limits=limits)


def _content(archive: Archive, name: str, limits: Limits) -> bytes:
    entry = archive.entries[name]
    if entry.size > limits.header_bytes:
        where = f"{archive.source.shown}: {name}"
        raise limits.exceeded("header_bytes", where=where, found=f"a pickle of {entry.size} bytes")
    return bytes(archive.read(entry))


def _others(archive: Archive, prefix: str, limits: Limits, remarks: list[Remark]) -> list[Finding]:
    """Findings about what else lies in the archive. Other pickles are judged too: a loader may pick them up."""
    findings: list[Finding] = []
    strangers = []
    for name in archive.entries:
        inner = name.removeprefix(prefix)
        if inner == "data.pkl" or name.endswith("/"):
            continue
        if name.endswith((".pkl", ".pickle")):
            other = _unpickle(archive, name, limits)
            remarks.extend(other.remarks)
            findings += _leftovers(archive, name, other, limits, remarks)
        elif not name.startswith(prefix) or not (
            inner in _NOT_PICKLED or inner.startswith(("data/", "code/", "constants/", "extra/"))
        ):
            strangers.append(name)
    if strangers:
        listed = ", ".join(printable(name, longest=60) for name in strangers[:5])
        findings.append(
            Finding(
                "WK106", Severity.WARNING, "", f"{len(strangers)} files in the archive belong to no tensor: {listed}"
            )
        )
    return findings


def _leftovers(archive: Archive, name: str, pickled: Unpickled, limits: Limits, remarks: list[Remark]) -> list[Finding]:
    """Findings about what stands behind the pickle's end; a pickle there is a payload, whatever it holds."""
    findings: list[Finding] = []
    content = _content(archive, name, limits)
    shown = printable(name)
    if pickled.leftovers:
        message = f"{shown}: {pickled.leftovers} objects are built and not used"
        findings.append(Finding("WK106", Severity.WARNING, shown, message))
    if pickled.end < len(content):
        rest = len(content) - pickled.end
        message = f"{shown}: {rest} bytes follow the end of the pickle at byte {pickled.end}"
        findings.append(Finding("WK106", Severity.WARNING, shown, message))
        position = pickled.end
        where = f"{archive.source.shown}: {shown}"
        while position < len(content):
            try:
                stacked = unpickle(content, where=where, limits=limits, start=position)
            except UnsafeContent as error:
                remarks.append(Remark("unsafe", position, "a second pickle", error.message))
                break
            except CorruptFile:
                break
            remarks.append(Remark("unsafe", position, "a second pickle", "a second pickle follows the first"))
            remarks.extend(stacked.remarks)
            position = stacked.end
    return findings


def _judgements(shown: str, remarks: list[Remark]) -> list[Finding]:
    findings: list[Finding] = []
    unsafe = [remark for remark in remarks if remark.level == "unsafe"]
    for remark in unsafe[:_MOST_FINDINGS]:
        message = f"{shown}: byte {remark.offset} of the pickle: {printable(remark.message)}"
        findings.append(Finding("WK103", Severity.ERROR, printable(remark.subject), message, _DO_NOT_LOAD))
    if len(unsafe) > _MOST_FINDINGS:
        message = f"{shown}: {len(unsafe) - _MOST_FINDINGS} further payloads"
        findings.append(Finding("WK103", Severity.ERROR, "", message, _DO_NOT_LOAD))
    opaque = list(dict.fromkeys(remark.subject for remark in remarks if remark.level == "opaque"))
    if opaque:
        listed = ", ".join(printable(name, longest=120) for name in opaque[:8])
        more = f" and {len(opaque) - 8} more" if len(opaque) > 8 else ""
        message = f"{shown}: names {len(opaque)} classes that are unknown here, read as data: {listed}{more}"
        findings.append(Finding("WK104", Severity.INFO, printable(opaque[0]), message))
    return findings


def _verdict(remarks: list[Remark]) -> Verdict:
    levels = {remark.level for remark in remarks}
    return "unsafe" if "unsafe" in levels else "opaque" if "opaque" in levels else "data"


def _storage_records(archive: Archive, prefix: str, tensors: Mapping[str, StridedTensor]) -> dict[str, Entry]:
    """The archive's entry of every storage, its size compared with what the storage claims."""
    records: dict[str, Entry] = {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        shown = f"{archive.source.shown}: tensor {printable(name)!r}"
        entry = archive.entries.get(f"{prefix}data/{storage.key}")
        if entry is None:
            raise CorruptFile(f"{shown}: its bytes, data/{printable(storage.key)}, are not in the archive")
        if entry.size != storage.size_bytes:
            raise CorruptFile(
                f"{shown}: its storage claims {storage.size_bytes} bytes, "
                f"data/{printable(storage.key)} in the archive has {entry.size}"
            )
        records[storage.key] = entry
    return records


def _reader(
    archive: Archive, prefix: str, tensors: Mapping[str, StridedTensor], records: Mapping[str, Entry], limits: Limits
) -> Callable[[str], np.ndarray]:
    order = archive.entries.get(f"{prefix}byteorder")
    said = bytes(archive.read(order)) if order is not None and order.size <= 16 else b"little"
    if said not in (b"little", b"big"):
        raise CorruptFile(f"{archive.source.shown}: its byte order is {printable(said.decode('latin-1'))!r}")
    swapped = said.decode() != sys.byteorder

    def read(name: str) -> np.ndarray:
        tensor = tensors[name]
        where = f"{archive.source.shown}: tensor {printable(name)!r}"
        spec = tensor.spec
        if spec.nbytes > limits.expanded_bytes and spec.nbytes > tensor.storage.size_bytes:
            raise limits.exceeded(
                "expanded_bytes",
                where=where,
                found=f"{spec.nbytes} bytes made of a storage of {tensor.storage.size_bytes}",
            )
        width = tensor.dtype.itemsize
        length = tensor.extent * width
        entry = records[tensor.storage.key]
        content = archive.read_part(entry, tensor.offset * width, length) if length else bytearray()
        strides = None if tensor.packed else tensor.strides
        array = dense_array(content, spec, where=where, strides=strides, swapped=swapped)
        if tensor.conjugate:
            array.imag *= -1
        if tensor.negative:
            array *= -1
        return array

    return read


def write_torch_zip(
    file: BinaryIO, tensors: Iterable[tuple[str, np.ndarray]], *, spec: StateSpec, metadata: Mapping[str, object]
) -> None:
    """``{"state_dict": OrderedDict, "weightkit": metadata}``, as torch.load(weights_only=True) accepts it."""
    keys = {name: str(index) for index, name in enumerate(spec.unique())}
    archive = ZipWriter(file)
    archive.add("archive/data.pkl", emit_state(spec, metadata, keys))
    archive.add("archive/byteorder", b"little")
    for name, array in announced(tensors, spec):
        archive.add(f"archive/data/{keys[name]}", packed_bytes(array, spec[name], name))
    archive.add("archive/version", b"3\n")
    archive.finish()


FORMAT = Format(
    name="torch_zip",
    description="torch.save archives (.pt, .pth, .ckpt), read without executing anything",
    endings=_ENDINGS,
    detect=detect,
    open=open_torch_zip,
    write=write_torch_zip,
)
