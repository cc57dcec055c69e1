"""Files from before torch 1.6, made by hand: the stream of five pickles with storages behind it, and the tar."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Mapping

from corpus.opcodes import Raw, integer, named, persistent, pickled, tensor

MAGIC = 0x1950A86A20F9469CFC6C
PARTS = ("magic", "version", "system", "objects", "keys")
FLOATS = struct.pack("<2f", 1.5, -2.0)
NOTHING = Raw(b"N")


def old_storage(key: str = "0", kind: str = "torch.FloatStorage", numel: object = 2, view: object = None) -> Raw:
    """The persistent id of a storage in the stream, which has a sixth field."""
    return persistent(("storage", named(kind), key, "cpu", numel, view))


def parts_of_stream(objects: object = None) -> dict[str, bytes]:
    """The five pickles by name; the fourth holds one tensor unless told otherwise."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    return {
        "magic": pickled(integer(MAGIC)),
        "version": pickled(1001),
        "system": pickled(system),
        "objects": pickled({"w": tensor(old_storage())} if objects is None else objects),
        "keys": pickled(["0"]),
    }


def stream(replaced: Mapping[str, bytes] | None = None, storages: bytes = struct.pack("<q", 2) + FLOATS) -> bytes:
    """The whole stream, some pickles replaced."""
    return b"".join({**parts_of_stream(), **(replaced or {})}.values()) + storages


def run_first(payload: Raw, whole: bytes) -> bytes:
    """The pickle ``whole`` with a payload that is called and dropped before anything else."""
    return whole[:2] + payload + b"0" + whole[2:]


def tar(members: Mapping[str, bytes]) -> bytes:
    """A tar archive, the same bytes each time."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def tar_members(payload_in: str = "", payload: Raw = NOTHING) -> dict[str, bytes]:
    """What torch's tar holds: one storage, one tensor, and a pickle that refers to it."""
    storages = [pickled(1), pickled(("7", "cpu", named("torch.FloatStorage"))), pickled([])]
    tensors = [pickled(1), pickled(("8", "7", named("torch.FloatTensor")))]
    whole = pickled({"w": Raw(b"P8\n")})
    if payload_in == "pickle":
        whole = run_first(payload, whole)
    elif payload_in.startswith("storages"):
        index = int(payload_in[-1])
        storages[index] = run_first(payload, storages[index])
    elif payload_in.startswith("tensors"):
        index = int(payload_in[-1])
        tensors[index] = run_first(payload, tensors[index])
    shape = struct.pack("<iiqqq", 1, 0, 2, 1, 0)
    return {
        "storages": storages[0] + storages[1] + struct.pack("<q", 2) + FLOATS + storages[2],
        "tensors": tensors[0] + tensors[1] + shape,
        "pickle": whole,
        "sys_info": pickled({"protocol_version": 1000}),
    }
