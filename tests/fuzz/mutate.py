"""One number -> one mutant, always the same: edits that know what they edit, and archives sealed again afterwards.

Bytes are changed blindly, or as what they are: members of an archive, opcodes of a pickle, values of JSON, the header
of a .npy or safetensors file. What lies inside something is changed there, and the whole is put together again with
right lengths and checksums, so that the change reaches the layers behind them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from random import Random
from struct import error as StructError
from zlib import error as zlib_error

from corpus.rawzip import Member, zipped
from fuzz.documents import edited_json, edited_npy, edited_safetensors
from fuzz.opcode_edits import edited_pickles
from fuzz.raw_edits import edited_bytes, interesting
from fuzz.seeds import Sample, samples

_ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".zip", ".npz", ".pkl", ".safetensors", ".index.json", ".json", "", ".txt")
_NAMES = (
    "data.pkl", "archive/data.pkl", "archive/data/0", "archive/data/1", "archive/version", "archive/byteorder",
    "archive/constants.pkl", "archive/data/x.pkl", "archive/code/x.py", "data", "policy.pth", ".pth", "x.npy", ".npy",
    "__weightkit__.json", "a/", "../x", "/", "x\x1b[2J", "\u202ex", "x" * 300, "système", "_stable_baselines3_version",
)  # fmt: skip
_MEMBER_NAMES = (
    "config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "train_config.json",
    "policy_preprocessor.json", "policy_postprocessor.json", "training_state/training_state.pt",
    "training_state/training_step.json", "training_state/scheduler_state.json", "training_state/x\x1b[2J",
    "algorithm/model.safetensors", "x.safetensors", "diffusion_pytorch_model.safetensors", "y.index.json",
)  # fmt: skip
_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_MOST_BYTES = 1 << 16


def mutant(number: int) -> Sample:
    """The mutant of this 64-bit number."""
    rng = Random(number)
    chosen = rng.choice(samples())
    return mutated(rng, chosen)


def mutated(rng: Random, chosen: Sample) -> Sample:
    """A mutant of ``chosen``."""
    if chosen.members:
        return _folder(rng, chosen)
    content = chosen.content
    for _ in range(_edits(rng)):
        content = edited(rng, content)
    filename = chosen.filename
    if rng.random() < 0.03:
        filename = filename.partition(".")[0] + rng.choice(_ENDINGS)
    return replace(chosen, filename=filename, content=content[:_MOST_BYTES])


def _edits(rng: Random) -> int:
    return rng.choice((1, 1, 1, 1, 2, 2, 3))


def kind_of(content: bytes) -> str:
    """What ``content`` looks like: the way in which it is edited."""
    if content[:2] == b"PK":
        return "zip"
    if content[:1] == b"\x80" or content[:3] == b"L11":
        return "pickle"
    if content[:6] == b"\x93NUMPY":
        return "npy"
    if content[8:9] == b"{":
        return "safetensors"
    if content.lstrip()[:1] in (b"{", b"["):
        return "json"
    if content[:1] in (b"(", b"}") and content[-1:] == b".":
        return "pickle"
    return "raw"


def edited(rng: Random, content: bytes, *, blind: float = 0.2) -> bytes:
    """``content`` after one edit, blind with this probability."""
    if rng.random() >= blind:
        edit = _EDITS.get(kind_of(content))
        try:
            found = edit(rng, content) if edit is not None else None
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, StructError):
            found = None  # what was edited before makes no sense to this edit
        if found is not None:
            return found
    return edited_bytes(rng, content, _other_content)


def _other_content(rng: Random) -> bytes:
    other = rng.choice(samples())
    return rng.choice(list(other.members.values())) if other.members else other.content


def _folder(rng: Random, chosen: Sample) -> Sample:
    members = dict(chosen.members)
    names = list(members)
    for _ in range(_edits(rng)):
        name = rng.choice(names)
        if rng.random() < 0.8:
            if name in members:
                members[name] = edited(rng, members[name])[:_MOST_BYTES]
            continue
        way = rng.randrange(4)
        other = rng.choice(_MEMBER_NAMES)
        if way == 0 and len(members) > 1 and name != chosen.opened:
            members.pop(name, None)
        elif way == 1 and name in members and name != chosen.opened:
            _put(members, other, members.pop(name))
        elif way == 2 and name in members:
            _put(members, other, members[name])
        else:
            _put(members, name, members.get(rng.choice(names), b"{}"))
    return replace(chosen, members=members or dict(chosen.members))


def _put(members: dict[str, bytes], name: str, content: bytes) -> None:
    """Add a file, unless a folder has its name or it would lie below a file."""
    if not any(held.startswith(f"{name}/") or name.startswith(f"{held}/") for held in members):
        members[name] = content


@lru_cache(maxsize=128)
def unzipped(content: bytes) -> tuple[Member, ...] | None:
    """The members of an archive, None where it cannot be taken apart."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return tuple(
                Member(entry.filename, archive.read(entry), method=entry.compress_type) for entry in archive.infolist()
            )
    except (zipfile.BadZipFile, zlib_error, OSError, ValueError, RuntimeError, EOFError, NotImplementedError):
        return None


def _zip(rng: Random, content: bytes) -> bytes | None:
    members = list(unzipped(content) or ())
    if not members:
        return None
    way = rng.random()
    if way < 0.62:
        index = _interesting_member(rng, members)
        members[index] = replace(members[index], content=edited(rng, members[index].content, blind=0.15))
        return _sealed(members)
    if way < 0.82:
        return _sealed(_rearranged(rng, members))
    return _lying(rng, members)


def _interesting_member(rng: Random, members: list[Member]) -> int:
    weights = [8 if kind_of(member.content) != "raw" else 2 if len(member.content) > 8 else 1 for member in members]
    return rng.choices(range(len(members)), weights)[0]


def _sealed(members: list[Member], **rest: object) -> bytes:
    return zipped(members, **rest)  # type: ignore[arg-type]


def _rearranged(rng: Random, members: list[Member]) -> list[Member]:
    index = rng.randrange(len(members))
    member = members[index]
    other = rng.choice(members)
    way = rng.randrange(11)
    if way == 0:
        members[index] = replace(member, name=rng.choice(_NAMES))
    elif way == 1:
        del members[index]
    elif way == 2:
        members.append(member)
    elif way == 3:
        rng.shuffle(members)
    elif way == 4:
        members.append(Member(rng.choice(_NAMES), other.content))
    elif way == 5:
        members[index] = replace(member, method=8 - member.method if member.method in (0, 8) else 0)
    elif way == 6:
        members[index] = replace(member, content=member.content + bytes(rng.randrange(1, 40)))
    elif way == 7:
        members[index] = replace(member, content=member.content[: rng.randrange(len(member.content) + 1)])
    elif way == 8:
        members[index] = replace(member, content=other.content)
    elif way == 9:
        top = str(member.name).split("/", 1)[0]
        members = [
            replace(each, name=str(each.name).replace(top, rng.choice(("", "x", "a/b", "data")))) for each in members
        ]
    else:
        name = str(member.name)
        place = rng.randrange(len(name) + 1)
        members[index] = replace(
            member, name=name[:place] + rng.choice(("/", "é", "0", ".", "\x07", " ")) + name[place:]
        )
    return members


def _lying(rng: Random, members: list[Member]) -> bytes:
    """An archive one of whose headers says something else."""
    index = rng.randrange(len(members))
    member = members[index]
    fields = member.fields()
    way = rng.randrange(10)
    if way < 4:
        key = rng.choice([key for key in fields if key != "name"])
        width = 0xFFFF if key in ("needed", "flags", "method") else 0xFFFFFFFF
        said = {key: interesting(rng, int(fields[key])) & width}
        local = said if way in (0, 2) else None
        central = said if way in (1, 2, 3) else None
        if way == 3:
            central = {**said, "offset": interesting(rng, 0) & 0xFFFFFFFF} if rng.random() < 0.5 else said
        members[index] = replace(member, local=local, central=central)
    elif way == 4:
        members[index] = _described(rng, member)
    elif way == 5:
        extra = rng.choice(
            (b"\x01\0\0\0", b"FB\x04\0abcd", b"FB\xff\xff", b"\x01\0\x08\0" + bytes(8), b"UT\x05\0\x01abcd", b"\0")
        )
        members[index] = replace(member, local_extra=extra, central_extra=rng.choice((b"", extra)))
    elif way == 6:
        members[index] = _wide(rng, member)
    elif way == 7:
        members[index] = replace(member, gap=bytes(rng.randrange(1, 30)), skip_central=rng.random() < 0.2)
    elif way == 8:
        members[index] = replace(member, comment=b"x", stored=member.packed() + rng.choice((b"", b"x", bytes(9))))
    else:
        end = {
            rng.choice(("disk", "start_disk", "here", "count", "size", "start", "comment")): interesting(
                rng, len(members)
            )
        }
        limited = {key: value & (0xFFFFFFFF if key in ("size", "start") else 0xFFFF) for key, value in end.items()}
        return _sealed(members, end=limited, prefix=rng.choice((b"", b"", b"MZ")), suffix=rng.choice((b"", b"", b"\0")))
    return _sealed(members)


def _described(rng: Random, member: Member) -> Member:
    """A member with a data descriptor, in either width, with or without its signature, right or wrong."""
    fields = member.fields()
    wide = rng.random() < 0.3
    width = 8 if wide else 4
    numbers = [fields["stored"], fields["size"]]
    if rng.random() < 0.3:
        numbers[rng.randrange(2)] = interesting(rng, numbers[0]) & 0xFFFFFFFF
    said = int(fields["crc"]).to_bytes(4, "little") + b"".join(
        int(number).to_bytes(width, "little") for number in numbers
    )
    signature = rng.choice((b"PK\x07\x08", b"PK\x07\x08", b""))
    zeros = {"crc": 0, "stored": 0, "size": 0} if rng.random() < 0.7 else None
    return replace(member, flags=member.flags | 8, local=zeros, descriptor=signature + said)


def _wide(rng: Random, member: Member) -> Member:
    """A member whose sizes stand in a zip64 field, right or wrong."""
    fields = member.fields()
    numbers = [fields["size"], fields["stored"]]
    if rng.random() < 0.4:
        numbers[rng.randrange(2)] = interesting(rng, numbers[0]) & 0xFFFFFFFFFFFFFFFF
    extra = b"\x01\0\x10\0" + b"".join(int(number).to_bytes(8, "little") for number in numbers)
    said = {"size": 0xFFFFFFFF, "stored": 0xFFFFFFFF}
    return replace(member, local=said, central=said, local_extra=extra, central_extra=extra)


def _pickle(rng: Random, content: bytes) -> bytes | None:
    return edited_pickles(rng, content, _other_content)


def _json(rng: Random, content: bytes) -> bytes | None:
    return edited_json(rng, content, lambda inner: edited(rng, inner, blind=0.1))


_EDITS: dict[str, Callable[[Random, bytes], bytes | None]] = {
    "zip": _zip,
    "pickle": _pickle,
    "json": _json,
    "npy": edited_npy,
    "safetensors": edited_safetensors,
}
