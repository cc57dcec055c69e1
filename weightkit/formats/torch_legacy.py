"""``.pt`` from before torch 1.6. Read, not written."""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint
from weightkit.formats._source import Source
from weightkit.formats._torch_legacy_stream import is_torch_legacy, open_torch_stream
from weightkit.formats.base import Format, Limits


def detect(_: str, head: bytes) -> bool:
    """torch's magic number as the first pickle."""
    return is_torch_legacy(head)


def open_torch_legacy(path: str, limits: Limits) -> Checkpoint:
    """The checkpoint in a stream of torch's old layout. Raises FormatError."""
    return open_torch_stream(Source.at(path), limits, name=FORMAT.name)


FORMAT = Format(
    name="torch_legacy",
    description="torch.save's layout from before torch 1.6, read without executing anything",
    endings=(".pt", ".pth"),
    detect=detect,
    open=open_torch_legacy,
)
