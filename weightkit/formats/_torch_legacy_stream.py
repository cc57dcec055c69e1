"""The stream that torch wrote before 1.6: five pickles one after the other, then the storages. From any source.

Source: torch/serialization.py, ``_legacy_load``.
"""

from __future__ import annotations

import sys

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats._pickle_findings import payloads_first, stacked
from weightkit.formats._pickle_policy import Remark
from weightkit.formats._pickle_stream import CutShort
from weightkit.formats._pickle_values import items_of, leaf_value
from weightkit.formats._pickle_vm import Unpickled, unpickle
from weightkit.formats._source import Source
from weightkit.formats._torch_state import checkpoint_of
from weightkit.formats._torch_tensors import MalformedError, Storage, decode_storage
from weightkit.formats.base import Limits

MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAGIC_BYTES = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
_MAGIC_TEXT = b"L%dL\n." % MAGIC
_FIRST_PIECE = 1 << 20


def is_torch_legacy(head: bytes) -> bool:
    """Whether the first pickle is torch's magic number."""
    return head.startswith(_MAGIC_TEXT) or (head[:1] == b"\x80" and _MAGIC_BYTES in head[:32])


def open_torch_stream(source: Source, limits: Limits, *, name: str) -> Checkpoint:
    """The checkpoint in a stream of torch's old layout, for the format called ``name``. Raises FormatError."""
    stream = _Stream(source, limits)
    magic = stream.next("magic number")
    protocol = stream.next("protocol version")
    stream.next("system's sizes")
    if magic.value != MAGIC or protocol.value != _PROTOCOL:
        raise stream.failed(f"protocol {printable(str(leaf_value(protocol.value)))}, expected {_PROTOCOL}")
    content = stream.next("object")
    keys = stream.next("storage keys")
    try:
        storages = _Records(source, stream.position, content, keys)
    except MalformedError as error:
        raise stream.failed(str(error)) from None
    findings = []
    if storages.end != source.size:
        message = f"{source.size - storages.end} bytes follow the end of the last storage at byte {storages.end}"
        findings.append(Finding("WK106", Severity.WARNING, "", message))
        rest = bytes(source.read(storages.end, min(source.size - storages.end, _FIRST_PIECE)))
        stream.remarks += stacked(rest, 0, base=storages.end, where=source.shown, limits=limits)
    return checkpoint_of(
        content,
        storages,
        path=source.path,
        shown=source.shown,
        format=name,
        remarks=stream.remarks,
        findings=[*stream.findings, *findings],
        limits=limits,
    )


class _Stream:
    """Pickles one after the other; what was remarked about each of them."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.position = 0
        self.remarks: list[Remark] = []
        self.findings: list[Finding] = []

    def next(self, what: str) -> Unpickled:
        """The next pickle. It is read in growing pieces: nothing says how long it is."""
        where = f"{self.source.shown}: {what}"
        length = _FIRST_PIECE
        while True:
            rest = self.source.size - self.position
            content = bytes(self.source.read(self.position, min(length, rest)))
            try:
                found = unpickle(content, where=where, limits=self.limits)
                break
            except FormatError as error:
                if length >= rest or not _is_cut_short(error):
                    if isinstance(error, CorruptFile):
                        raise payloads_first(self.source.shown, self.remarks, error) from None
                    raise
                if length >= self.limits.header_bytes:
                    raise self.limits.exceeded("header_bytes", where=where, found=f"over {length} bytes") from None
                length *= 8
        if found.leftovers:
            message = f"{what}: {found.leftovers} objects are built and not used"
            self.findings.append(Finding("WK106", Severity.WARNING, what, message))
        self.remarks += [each.moved(self.position) for each in found.remarks]
        self.position += found.end
        return found

    def failed(self, problem: str) -> FormatError:
        """The error for a stream that is not what torch would have written; payloads are named first."""
        shown = self.source.shown
        return payloads_first(shown, self.remarks, CorruptFile(f"{shown}: {problem}"))


def _is_cut_short(error: FormatError) -> bool:
    """Whether more bytes might help; a payload before the cut is reported as such, with the cut as its context."""
    return isinstance(error, CutShort) or isinstance(error.__context__, CutShort)


class _Records:
    """The storages behind the pickles, in the order of the list of keys: a number of elements, then the elements.

    Both are little-endian whatever machine wrote them; the byte order among the system's sizes is not about them.
    """

    swapped = sys.byteorder == "big"

    def __init__(self, source: Source, position: int, content: Unpickled, keys: Unpickled) -> None:
        self.source = source
        self.places: dict[str, tuple[int, int]] = {}
        roots = _storages_of(content)
        for key in items_of(keys.value) or ():
            if not isinstance(key, str) or key not in roots or key in self.places:
                raise MalformedError(
                    f"the storage {printable(str(leaf_value(key)))} is listed, and no tensor or two are on it"
                )
            width = roots[key]
            if position + 8 > source.size:
                raise MalformedError(f"the file ends before the storage {printable(key)!r}: it was cut short")
            count = int.from_bytes(source.read(position, 8), "little")
            if position + 8 + count * width > source.size:
                raise MalformedError(
                    f"the storage {printable(key)!r} should have {count} elements of {width} bytes, "
                    f"{source.size - position - 8} bytes remain: the file was cut short"
                )
            self.places[key] = (position + 8, count * width)
            position += 8 + count * width
        self.end = position

    def check(self, storage: Storage) -> str:
        place = self.places.get(storage.key)
        if place is None:
            return f"its storage {printable(storage.key)!r} is not in the file"
        if place[1] != storage.record_bytes:
            return f"its storage claims {storage.record_bytes} bytes, the file has {place[1]}"
        if storage.start + storage.size_bytes > place[1]:
            return f"its view of the storage {printable(storage.key)!r} reaches beyond it"
        return ""

    def read(self, storage: Storage, start: int, length: int) -> bytearray:
        return self.source.read(self.places[storage.key][0] + storage.start + start, length)


def _storages_of(content: Unpickled) -> dict[str, int]:
    """Bytes per element of every storage that the pickle refers to, by key."""
    found: dict[str, int] = {}
    for persistent in content.persistents:
        if isinstance(persistent.key, tuple) and persistent.key[:1] == ("storage",):
            storage = decode_storage(persistent)
            width = storage.dtype.itemsize if storage.dtype else 1
            if found.setdefault(storage.key, width) != width:
                raise MalformedError(f"the storage {printable(storage.key)!r} has elements of two sizes")
    return found
