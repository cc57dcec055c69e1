"""A zip writer that can lie in every field."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

PICKLE = "archive/data.pkl"


@dataclass(frozen=True)
class Member:
    """One entry. ``local`` and ``central`` replace single fields of one header; ``skip_central`` hides the entry."""

    name: str | bytes
    content: bytes
    method: int = 0
    flags: int = 0
    local: Mapping[str, Any] | None = None
    central: Mapping[str, Any] | None = None
    local_extra: bytes = b""
    central_extra: bytes = b""
    comment: bytes = b""
    descriptor: bytes = b""
    gap: bytes = b""
    skip_central: bool = False
    stored: bytes | None = None

    def fields(self) -> dict[str, Any]:
        """What both headers say when nobody lies."""
        raw = self.name.encode() if isinstance(self.name, str) else self.name
        stored = self.packed()
        return {
            "needed": 20, "flags": self.flags, "method": self.method, "moment": 0x00210000,
            "crc": zlib.crc32(self.content), "stored": len(stored), "size": len(self.content), "name": raw,
        }  # fmt: skip

    def packed(self) -> bytes:
        """The bytes as they lie in the archive."""
        if self.stored is not None:
            return self.stored
        if self.method != 8:
            return self.content
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        return packer.compress(self.content) + packer.flush()


def zipped(
    members: Iterable[Member],
    *,
    prefix: bytes = b"",
    shift: bool = True,
    before_directory: bytes = b"",
    comment: bytes = b"",
    end: Mapping[str, int] | None = None,
    zip64: bytes = b"",
    suffix: bytes = b"",
) -> bytes:
    """The archive. ``shift``: offsets count from the file's start, the prefix included. ``end`` replaces fields."""
    body = bytearray(prefix)
    base = len(prefix) if shift else 0
    directory = bytearray()
    count = 0
    for member in members:
        offset = len(body) - len(prefix) + base
        said = {**member.fields(), **(member.local or {})}
        body += b"PK\x03\x04" + struct.pack(
            "<HHHIIIIHH", said["needed"], said["flags"], said["method"], said["moment"], said["crc"], said["stored"],
            said["size"], len(said["name"]), len(member.local_extra),
        )  # fmt: skip
        body += said["name"] + member.local_extra + member.packed() + member.descriptor + member.gap
        if member.skip_central:
            continue
        said = {"disk": 0, "offset": offset, **member.fields(), **(member.central or {})}
        directory += b"PK\x01\x02" + struct.pack(
            "<HHHHIIIIHHHHHII", 20, said["needed"], said["flags"], said["method"], said["moment"], said["crc"],
            said["stored"], said["size"], len(said["name"]), len(member.central_extra), len(member.comment),
            said["disk"], 0, 0, said["offset"],
        )  # fmt: skip
        directory += said["name"] + member.central_extra + member.comment
        count += 1
    body += before_directory
    told = {
        "disk": 0, "start_disk": 0, "here": count, "count": count, "size": len(directory),
        "start": len(body) - len(prefix) + base, "comment": len(comment), **(end or {}),
    }  # fmt: skip
    body += directory + zip64 + b"PK\x05\x06" + struct.pack("<HHHHIIH", *told.values()) + comment + suffix
    return bytes(body)


def torch_members(pickled: bytes, records: Mapping[str, bytes] | None = None, **rest: Any) -> list[Member]:
    """The entries of a torch archive; the record ``data/0`` holds two floats. ``rest`` goes to the pickle's entry."""
    held = {"data/0": struct.pack("<2f", 1.5, -2.0)} if records is None else records
    return [
        Member(PICKLE, pickled, **rest),
        *(Member(f"archive/{name}", content) for name, content in held.items()),
        Member("archive/version", b"3\n"),
    ]


def archive(pickled: bytes, records: Mapping[str, bytes] | None = None) -> bytes:
    """An honest torch archive around a pickle."""
    return zipped(torch_members(pickled, records))
