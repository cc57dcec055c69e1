"""``.safetensors``: one file of tensors with a JSON header, read strictly and written aligned."""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint
from weightkit.formats._safetensors_file import read_safetensors, write_safetensors
from weightkit.formats._source import Source
from weightkit.formats.base import Format, Limits, ending_of


def detect(path: str, head: bytes) -> bool:
    """A length and then a JSON object, or the ending."""
    if not head or head.startswith(b"PK\x03\x04"):
        return False
    plausible = len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40
    return plausible or ending_of(path) == ".safetensors"


def open_safetensors(path: str, limits: Limits) -> Checkpoint:
    """The checkpoint in a .safetensors file."""
    return read_safetensors(Source.at(path), limits, name=FORMAT.name)


FORMAT = Format(
    name="safetensors",
    description="one .safetensors file, stricter than the reference reader",
    endings=(".safetensors",),
    detect=detect,
    open=open_safetensors,
    write=write_safetensors,
    judges=False,
)
