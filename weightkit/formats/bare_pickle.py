"""A pickle that is a file of its own: numpy parameters, running statistics, or somebody's payload."""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats._pickle_findings import leftovers, refuse_payload
from weightkit.formats._pickle_vm import unpickle
from weightkit.formats._source import Source
from weightkit.formats._torch_state import checkpoint_of
from weightkit.formats._torch_tensors import Storage
from weightkit.formats.base import Format, Limits, ending_of


def detect(path: str, head: bytes) -> bool:
    """The opcode that begins every pickle since Python 2.3, or the ending."""
    return head[:1] == b"\x80" or ending_of(path) in FORMAT.endings


def open_bare_pickle(path: str, limits: Limits) -> Checkpoint:
    """What the pickle holds; its numpy arrays are its tensors. Raises FormatError."""
    source = Source.at(path)
    content = _content(source, limits)
    pickled = unpickle(content, where=source.shown, limits=limits)
    findings, remarks = leftovers(content, pickled, where=source.shown, name=source.shown, limits=limits)
    return checkpoint_of(
        pickled,
        _NoStorages(),
        path=path,
        shown=source.shown,
        format=FORMAT.name,
        remarks=[*pickled.remarks, *remarks],
        findings=findings,
        limits=limits,
        arrays=True,
    )


def refuse_pickled_payload(path: str, limits: Limits) -> None:
    """Raise UnsafeContent where torch.load, which takes any file for a pickle, would execute something in this one."""
    try:
        source = Source.at(path)
    except FormatError:  # it cannot be read as a file; that has been said already
        return
    refuse_payload(source, limits)


def _content(source: Source, limits: Limits) -> bytes:
    if source.size > limits.header_bytes:
        raise limits.exceeded("header_bytes", where=source.shown, found=f"a pickle of {source.size} bytes")
    return bytes(source.read(0, source.size))


class _NoStorages:
    """A bare pickle has no storages beside it."""

    swapped = False

    def check(self, storage: Storage) -> str:
        return "it refers to a storage outside the pickle, and there is none"

    def read(self, storage: Storage, start: int, length: int) -> bytearray:
        raise CorruptFile("there are no storages beside a bare pickle")


FORMAT = Format(
    name="bare_pickle",
    description="a pickle by itself, read without executing anything",
    endings=(".pkl", ".pickle"),
    detect=detect,
    open=open_bare_pickle,
)
