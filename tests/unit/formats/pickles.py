"""Builders of small pickles and torch archives by hand, so that tests can say things no honest writer would."""

from __future__ import annotations

import io
import struct
from pathlib import Path

from weightkit.formats._zip_writer import ZipWriter

TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)


def text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def dict_with(payload: bytes, *, tensor: bytes = TENSOR) -> bytes:
    """``{"w": tensor, "p": payload}`` in protocol 2."""
    return b"\x80\x02}(" + text("w") + tensor + text("p") + payload + b"u."


def tensor(
    shape: bytes = b"K\x02\x85", strides: bytes = b"K\x01\x85", offset: bytes = b"K\x00", numel: bytes = b"K\x02"
) -> bytes:
    """A ``_rebuild_tensor_v2`` call with the given numbers, on the storage "0"."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
        + numel + b"tQ" + offset + shape + strides + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def archive(pickled: bytes, *, records: dict[str, bytes] | None = None, prefix: str = "archive/") -> bytes:
    """A torch archive around a pickle; record ``data/0`` holds two floats unless told otherwise."""
    file = io.BytesIO()
    writer = ZipWriter(file)
    writer.add(f"{prefix}data.pkl", pickled)
    for name, content in ({"data/0": bytes(8)} if records is None else records).items():
        writer.add(f"{prefix}{name}", content)
    writer.add(f"{prefix}version", b"3\n")
    writer.finish()
    return file.getvalue()


def save(folder: Path, pickled: bytes, **rest: object) -> Path:
    """The archive around ``pickled`` as a file."""
    path = folder / "a.pt"
    path.write_bytes(archive(pickled, **rest))  # type: ignore[arg-type]
    return path
