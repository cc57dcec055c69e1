"""One file of weights inside another checkpoint: safetensors or either layout of torch, told by its first bytes."""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import CorruptFile
from weightkit.formats._pickle_findings import refuse_payload
from weightkit.formats._safetensors_file import read_safetensors
from weightkit.formats._source import Source
from weightkit.formats._tar import is_tar
from weightkit.formats._torch_archive import open_torch_archive
from weightkit.formats._torch_legacy_stream import is_torch_legacy, open_torch_stream
from weightkit.formats.base import HEAD_BYTES, Limits


def open_weights(source: Source, limits: Limits, *, name: str) -> Checkpoint:
    """The checkpoint in ``source``, for the format called ``name``. Raises FormatError.

    Its verdict is None where ``source`` is a safetensors file.
    """
    head = bytes(source.read(0, min(HEAD_BYTES, source.size)))
    if not is_tar(head) and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= source.size:
        refuse_payload(source, limits)  # torch.load would take it for a pickle
        return read_safetensors(source, limits, name=name)
    return open_torch_weights(source, limits, name=name)


def open_torch_weights(source: Source, limits: Limits, *, name: str) -> Checkpoint:
    """The checkpoint in ``source``, in either layout of torch, for the format called ``name``. Raises FormatError."""
    head = bytes(source.read(0, min(HEAD_BYTES, source.size)))
    if is_tar(head):
        raise CorruptFile(f"{source.shown}: a tar archive, which torch would read as its oldest layout")
    if head.startswith(b"PK"):
        return open_torch_archive(source, limits, name=name)
    if is_torch_legacy(head):
        return open_torch_stream(source, limits, name=name)
    refuse_payload(source, limits)
    raise CorruptFile(
        f"{source.shown}: no weights that are read here; its first bytes are {head[:8].hex(' ') or 'missing'}",
        hint="it was cut short, or it is no file of tensors: copy the checkpoint again",
    )
