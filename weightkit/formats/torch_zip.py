"""``.pt``, ``.pth``, ``.ckpt``, ``.bin``: the zip archives of torch.save, read and written without torch.

TorchScript archives are of the same make and are read here too: their tensors are listed, their code is left alone.
"""

from __future__ import annotations

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.tensor import StateSpec
from weightkit.formats._source import Source
from weightkit.formats._torch_archive import open_torch_archive
from weightkit.formats.base import Format, Limits, announced, ending_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import BinaryIO

    import numpy as np

_ENDINGS = (".pt", ".pth", ".ckpt")


def detect(path: str, head: bytes) -> bool:
    """A zip archive with one folder inside, as torch lays it out, or by its ending."""
    if not head.startswith(b"PK\x03\x04"):
        return False
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    ending = ending_of(path)
    if name.endswith(b".npy") or name == b"data" or ending in (".npz", ".zip"):
        return False
    return b"/" in name or ending in (*_ENDINGS, ".bin")


def open_torch_zip(path: str, limits: Limits) -> Checkpoint:
    """The checkpoint in a torch archive."""
    return open_torch_archive(Source.at(path), limits, name=FORMAT.name)


def write_torch_zip(
    file: BinaryIO, tensors: Iterable[tuple[str, np.ndarray]], *, spec: StateSpec, metadata: Mapping[str, object]
) -> None:
    """``{"state_dict": OrderedDict, "weightkit": metadata}``, as torch.load(weights_only=True) accepts it."""
    from weightkit.formats._arrays import packed_bytes
    from weightkit.formats._torch_emit import emit_state
    from weightkit.formats._zip_writer import ZipWriter

    keys = {name: str(index) for index, name in enumerate(spec.unique())}
    archive = ZipWriter(file)
    archive.add("archive/byteorder", b"little")
    for name, array in announced(tensors, spec):
        archive.add(f"archive/data/{keys[name]}", packed_bytes(array, spec[name], name))
        del array
    archive.add("archive/version", b"3\n")
    archive.add("archive/data.pkl", emit_state(spec, metadata, keys))
    archive.finish()


FORMAT = Format(
    name="torch_zip",
    description="torch.save and TorchScript archives, read without executing or compiling anything",
    endings=_ENDINGS,
    detect=detect,
    open=open_torch_zip,
    write=write_torch_zip,
)
