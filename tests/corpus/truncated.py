"""Good files of every format, cut at and between their structures."""

from __future__ import annotations

import re
from collections.abc import Iterator

from corpus.case import MALFORMED, MARK, UNSAFE, Case, hostile
from corpus.legacy import parts_of_stream, stream, tar, tar_members
from corpus.npy import npy, npz
from corpus.opcodes import beside_a_tensor, call, pickled, tensor
from corpus.rawzip import archive
from corpus.safetensors_cases import RECORD, safetensors

NO = (MALFORMED,)


def _zip_cuts(content: bytes) -> list[int]:
    """Inside and at the end of every header, name and record."""
    marks = [found.start() for found in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", content)]
    return sorted({mark + step for mark in marks for step in (0, 1, 4, 15, 30, 40) if 0 < mark + step < len(content)})


def _cuts() -> Iterator[tuple[str, str, bytes, list[int]]]:
    whole = archive(pickled({"w": tensor()}))
    yield "zip", "model.pt", whole, [*_zip_cuts(whole), len(whole) - 1]
    arrays = npz({"w": npy("<f4", (2,), bytes(8))})
    yield "npz", "model.npz", arrays, [*_zip_cuts(arrays), len(arrays) - 1]
    document = safetensors({"w": RECORD})
    start = 8 + int.from_bytes(document[:8], "little")
    yield "safetensors", "model.safetensors", document, [1, 7, 8, 9, 20, start - 1, start, start + 1, len(document) - 1]
    old = stream()
    ends: list[int] = []
    for part in parts_of_stream().values():
        ends.append((ends[-1] if ends else 0) + len(part))
    inside = [end - 1 for end in ends] + [end + 2 for end in ends] + [len(old) - 8, len(old) - 1]
    yield "legacy", "model.pt", old, sorted({*ends, *inside})
    packed = tar(tar_members())
    yield "tar", "model.tar", packed, [100, 511, 512, 600, 1024, 1536, 2048]


def cases() -> Iterator[Case]:
    """One case for each cut."""
    for name, filename, content, cuts in _cuts():
        for length in cuts:
            yield hostile(f"cut-{name}-at-{length}", filename, content[:length], *NO)
    # The payload stands before the cut, and torch has run it by then.
    evil = beside_a_tensor(call("os.mkdir", MARK))
    for length in (len(evil) - 1, len(evil) - 2, evil.index(b"tR", evil.index(MARK.encode())) + 1, 3, 10, 60):
        yield hostile(f"cut-pickle-at-{length}", "model.pt", archive(evil[:length]), MALFORMED, UNSAFE)
