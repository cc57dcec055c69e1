"""The zip archives of torch.save and torch.jit.save as Checkpoints, from any source of bytes, without torch.

Source: torch/serialization.py, caffe2/serialize/inline_container.cc.
"""

from __future__ import annotations

import sys

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats._pickle_findings import leftovers
from weightkit.formats._pickle_policy import Remark
from weightkit.formats._pickle_vm import Unpickled, unpickle
from weightkit.formats._source import Source
from weightkit.formats._torch_state import checkpoint_of
from weightkit.formats._torch_tensors import Storage
from weightkit.formats._zip import Archive, open_archive
from weightkit.formats.base import Limits

_NOT_PICKLED = ("byteorder", "version", ".format_version", ".storage_alignment", ".data/serialization_id")
_PICKLES = (".pkl", ".pickle")
_PARTS = ("data/", "code/", "constants/", "extra/", "traced_inputs/")


def open_torch_archive(source: Source, limits: Limits, *, name: str) -> Checkpoint:
    """The checkpoint in a torch archive, for the format called ``name``: names, specs and metadata.

    Nothing in it is imported, called or compiled. Raises FormatError.
    """
    archive = open_archive(source, limits)
    prefix = _prefix(archive)
    _refuse_other_spellings(archive, prefix)
    content = _content(archive, f"{prefix}data.pkl", limits)
    pickled = _unpickle(archive, f"{prefix}data.pkl", content, limits)
    findings, remarks = _rest(archive, f"{prefix}data.pkl", content, pickled, limits)
    others, more = _others(archive, prefix, limits)
    return checkpoint_of(
        pickled,
        _Records(archive, prefix),
        path=source.path,
        shown=source.shown,
        format=name,
        remarks=[*pickled.remarks, *remarks, *more],
        findings=[*findings, *others],
        limits=limits,
    )


def _prefix(archive: Archive) -> str:
    found = [name for name in archive.entries if name.endswith("data.pkl") and name[-9:-8] in ("", "/")]
    tops = [name for name in found if name.count("/") <= 1]
    if len(tops) != 1:
        raise CorruptFile(
            f"{archive.source.shown}: a zip archive with {len(tops)} data.pkl, expected exactly one: "
            "it is no checkpoint of torch, or it could be read in several ways"
        )
    return tops[0].removesuffix("data.pkl")


def _refuse_other_spellings(archive: Archive, prefix: str) -> None:
    """torch looks its entries up without regard to case: what it could mistake for another one is refused."""
    spellings: dict[str, str] = {}
    for name in archive.entries:
        first = spellings.setdefault(name.lower(), name)
        if first != name:
            raise CorruptFile(
                f"{archive.source.shown}: entries {printable(first)!r} and {printable(name)!r} differ in case only: "
                "torch takes one for the other"
            )
    for name in (f"{prefix}{own}" for own in ("data.pkl", "constants.pkl", *_NOT_PICKLED)):
        found = spellings.get(name.lower(), name)
        if found != name:
            raise CorruptFile(f"{archive.source.shown}: entry {printable(found)!r} should be spelled {name!r}")


def _content(archive: Archive, name: str, limits: Limits) -> bytes:
    entry = archive.entries[name]
    if entry.size > limits.header_bytes:
        where = f"{archive.source.shown}: {name}"
        raise limits.exceeded("header_bytes", where=where, found=f"a pickle of {entry.size} bytes")
    archive.check_inflated(entry, limits)
    return bytes(archive.read(entry))


def _unpickle(archive: Archive, name: str, content: bytes, limits: Limits) -> Unpickled:
    return unpickle(content, where=f"{archive.source.shown}: {printable(name)}", limits=limits)


def _rest(
    archive: Archive, name: str, content: bytes, pickled: Unpickled, limits: Limits
) -> tuple[list[Finding], list[Remark]]:
    shown = printable(name)
    where = f"{archive.source.shown}: {shown}"
    return leftovers(content, pickled, where=where, name=shown, limits=limits)


def _others(archive: Archive, prefix: str, limits: Limits) -> tuple[list[Finding], list[Remark]]:
    """What else lies in the archive. Other pickles are judged too: a loader may pick them up."""
    findings: list[Finding] = []
    remarks: list[Remark] = []
    strangers: list[str] = []
    records = f"{prefix}data/"
    compiled = 0
    for name in archive.entries:
        if name.startswith(records) and not name.lower().endswith(_PICKLES):
            continue
        inner = name.removeprefix(prefix)
        if inner == "data.pkl" or name.endswith("/"):
            continue
        if name.lower().endswith(_PICKLES):
            content = _content(archive, name, limits)
            other = _unpickle(archive, name, content, limits)
            remarks.extend(other.remarks)
            more_findings, more_remarks = _rest(archive, name, content, other, limits)
            findings += more_findings
            remarks += more_remarks
        elif name.startswith(f"{prefix}code/"):
            compiled += name.endswith(".py")
            if name.endswith(".py") and b"__setstate__" in _content(archive, name, limits):
                message = f"the TorchScript in {printable(name)} sets states itself: torch.load would run it"
                remarks.append(Remark("unsafe", 0, printable(name), message))
        elif not name.startswith(prefix) or not (inner in _NOT_PICKLED or inner.startswith(_PARTS)):
            strangers.append(name)
    if compiled:
        message = f"{compiled} files of TorchScript code, which torch.jit.load would compile; they were left alone"
        findings.append(Finding("WK115", Severity.WARNING, printable(f"{prefix}code/"), message))
    if strangers:
        listed = ", ".join(printable(name, longest=60) for name in strangers[:5])
        message = f"{len(strangers)} files in the archive belong to no tensor: {listed}"
        findings.append(Finding("WK106", Severity.WARNING, "", message))
    return findings, remarks


class _Records:
    """The storages of an archive: one entry each."""

    def __init__(self, archive: Archive, prefix: str) -> None:
        self.archive = archive
        self.records = f"{prefix}data/"
        order = archive.entries.get(f"{prefix}byteorder")
        said = b"little" if order is None else bytes(archive.front(order, 17))
        if said not in (b"little", b"big"):
            raise CorruptFile(f"{archive.source.shown}: its byte order is {printable(said.decode('latin-1'))!r}")
        self.swapped = said.decode() != sys.byteorder

    def check(self, storage: Storage) -> str:
        entry = self.archive.entries.get(self.records + storage.key)
        if entry is None:
            return f"its bytes, data/{printable(storage.key)}, are not in the archive"
        if storage.size_bytes != storage.record_bytes or storage.start:
            return "its storage is a part of another one, which this kind of file does not have"
        if entry.size != storage.size_bytes:
            claim = f"its storage claims {storage.size_bytes} bytes"
            return f"{claim}, data/{printable(storage.key)} in the archive has {entry.size}"
        return ""

    def read(self, storage: Storage, start: int, length: int) -> bytearray:
        return self.archive.read_part(self.archive.entries[self.records + storage.key], start, length)
