"""Edits of pickles by their opcodes: torch's streams of several pickles are edited as one list of opcodes."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from functools import lru_cache
from random import Random

from fuzz.raw_edits import interesting

_FRAME = 0x95
_COUNTS = b"JKM\x8a"
_GETS = b"gpjrhq"
_LENGTHS = {
    ord("X"): 4, ord("B"): 4, ord("T"): 4, 0x8C: 1, ord("U"): 1, ord("C"): 1, 0x8D: 8, 0x8E: 8, 0x96: 8, 0x8A: 1,
    0x8B: 4, 0x95: 8,
}  # fmt: skip
_PLAIN = tuple(
    opcode.code.encode("latin-1") for opcode in pickletools.opcodes if opcode.arg is None and opcode.code != "."
)
_NAMES = (
    b"torch\nFloatStorage", b"torch\nQInt8Storage", b"torch\nUntypedStorage", b"torch.storage\nUntypedStorage",
    b"torch\nComplexFloatStorage", b"torch\nBoolStorage", b"torch\nBFloat16Storage", b"torch._utils\n_rebuild_tensor",
    b"torch._utils\n_rebuild_tensor_v2", b"torch._utils\n_rebuild_tensor_v3", b"torch._utils\n_rebuild_parameter",
    b"torch._utils\n_rebuild_parameter_with_state", b"torch._utils\n_rebuild_sparse_tensor",
    b"torch._utils\n_rebuild_qtensor", b"torch._utils\n_rebuild_meta_tensor_no_storage",
    b"torch._utils\n_rebuild_nested_tensor", b"torch._utils\n_rebuild_device_tensor_from_numpy",
    b"torch._tensor\n_rebuild_from_type_v2", b"torch\nSize", b"torch\ndevice", b"torch.serialization\n_get_layout",
    b"torch\nfloat32", b"torch\ncomplex32", b"torch\nfloat8_e5m2", b"torch\nbits8", b"collections\nOrderedDict",
    b"collections\ndefaultdict", b"collections\nCounter", b"collections\ndeque", b"builtins\nset",
    b"builtins\nfrozenset", b"builtins\nlist", b"builtins\ndict", b"builtins\ntuple", b"builtins\nbytes",
    b"builtins\nbytearray", b"builtins\ncomplex", b"builtins\nslice", b"builtins\nrange", b"builtins\ngetattr",
    b"__builtin__\nset", b"_codecs\nencode", b"numpy\ndtype", b"numpy\nndarray",
    b"numpy.core.multiarray\n_reconstruct", b"numpy._core.multiarray\nscalar", b"numpy.core.numeric\n_frombuffer",
    b"datetime\ndatetime", b"pathlib\nPosixPath", b"omegaconf.dictconfig\nDictConfig", b"os\nsystem", b"x.y\nUnknown",
    b"__main__\nAgent", b"\n", b"copyreg\n_reconstructor",
)  # fmt: skip
_TEXTS = (
    b"", b"weight", b"storage", b"0", b"1", b"cpu", b"cuda:0", b"state_dict", b"agent", b"_parameters", b"_buffers",
    b"_modules", b"_non_persistent_buffers_set", b"param_groups", b"params", b"state", b"exp_avg", b"module",
    b"weightkit", b"_content", b"_val", b"f4", b"<f4", b"O8", b"conj", b"neg", b"x\x1b[2J", "\u202eevil".encode(),
    b"\xed\xa0\x80", b"\xff\xfe", b"x" * 5000, b".", b"..", b"a.b", b"a/b", b"sparse_coo", b"torch.sparse_coo",
    b"torch.sparse_csr", b"latin1", b"utf-8", b"tensor", b"value", b"<itself>",
)  # fmt: skip
_VALUES = (
    b"N", b"\x88", b"\x89", b"K\0", b"K\x01", b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\xff", b"J\xff\xff\xff\x7f",
    b"J\0\0\0\x80", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"\x8a\x09" + b"\0" * 7 + b"\x80\0", b"\x8a\x00",
    b"\x8a\xff" + b"\x01" * 255, b"G" + struct.pack(">d", float("nan")), b"G" + struct.pack(">d", 1e308), b")", b"]",
    b"}", b"\x8f", b"(t", b"I01\n", b"I00\n", b"I9999999999999999999999\n", b"L-1L\n", b"F1e400\n", b"Fnan\n",
    b"S'x'\n", b"S'\\x00'\n", b"Vx\\u0041\\ud800\n", b"I" + b"9" * 5000 + b"\n", b"C\x02ab",
    b"\x96\x02\0\0\0\0\0\0\0ab", b"B\0\0\0\0", b"P0\n", b"NQ", b"\x82\x01", b"\x83\x01\0", b"\x84\0\0\0\1", b"0",
    b"1", b"2", b"h\0", b"h\x01", b"j\xff\xff\xff\xff", b"g0\n", b"g99999999999999999999\n", b"\x97", b"\x98",
    b"\x95" + b"\xff" * 8, b"\x95\x04\0\0\0\0\0\0\0", b"\x80\x05", b"\x80\xff",
)  # fmt: skip


@lru_cache(maxsize=256)
def pieces_of(content: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """The opcodes with their arguments, over all pickles from the start on, and what stands behind them."""
    pieces: list[bytes] = []
    start = 0
    while start < len(content) and (start == 0 or content[start] == 0x80 or len(pieces) < 8):
        ends: list[int] = []
        whole = True
        try:
            for _, _, position in pickletools.genops(content[start:]):
                ends += [start + position]
        except Exception:  # what follows is no pickle
            whole = False
        if not ends or (not whole and pieces):
            break
        stop = ends[-1] + 1 if whole else ends[-1]
        pieces += [content[one:two] for one, two in zip(ends, [*ends[1:], stop], strict=True) if one < two]
        start = stop
        if not whole:
            break
    return tuple(pieces), content[start:]


def edited_pickles(rng: Random, content: bytes, other: Callable[[Random], bytes]) -> bytes | None:
    """``content`` with one to three of its opcodes changed, None where it has no opcodes."""
    found, tail = pieces_of(content)
    if not found:
        return None
    pieces = list(found)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if pieces:
            _edit(rng, pieces, other)
    if tail and rng.random() < 0.1:
        at = rng.randrange(len(tail))
        tail = tail[:at] + rng.choice((b"", b"\0", b"\xff" * 8, tail)) + tail[at + rng.choice((0, 1, 8)) :]
    if rng.random() < 0.85:
        _refit_frames(pieces)
    return b"".join(pieces) + tail


def _edit(rng: Random, pieces: list[bytes], other: Callable[[Random], bytes]) -> None:
    at = rng.randrange(len(pieces))
    way = rng.randrange(17)
    if way == 0:
        del pieces[at : at + rng.choice((1, 1, 1, 2, 5))]
    elif way == 1:
        pieces.insert(at, pieces[at])
    elif way == 2:
        to = rng.randrange(len(pieces))
        pieces[at], pieces[to] = pieces[to], pieces[at]
    elif way == 3:
        pieces[at] = rng.choice(_PLAIN)
    elif way == 4:
        pieces.insert(at, rng.choice(_PLAIN))
    elif way in (5, 6):
        _renumber(rng, pieces)
    elif way == 7:
        _rename(rng, pieces)
    elif way == 8:
        _retext(rng, pieces)
    elif way == 9:
        _remember(rng, pieces)
    elif way == 10:
        _relength(rng, pieces)
    elif way == 11:
        pieces[at : at + rng.choice((0, 1))] = [rng.choice(_VALUES)]
    elif way == 12:
        length = rng.choice((1, 2, 5, 20))
        to = rng.randrange(len(pieces))
        pieces[to:to] = pieces[at : at + length] * rng.choice((1, 1, 1, 3))
    elif way == 13:
        repeated = rng.choice(
            (b"\x85", b"(", b"]", b"\x85", b"2", b"\x94", b"}", b"N\x86", b")\x81", b"K\0K\0u", b"Nb", pieces[at])
        )
        pieces.insert(at, repeated * rng.choice((2, 3, 10, 100, 250, 1200, 3000)))
    elif way == 14:
        taken = pieces_of(other(rng))[0]
        start = rng.randrange(len(taken) + 1)
        pieces[at : at + rng.choice((0, 1, 10))] = taken[start : start + rng.choice((1, 5, 30, 200))]
    elif way == 15:
        del pieces[at:]
        pieces += rng.choice(((), (b".",), (b"N.", b"\x80\x02", b"N."), (b"0", b".")))
    else:
        name = rng.choice(_NAMES)
        pieces.insert(at, b"c" + name + b"\n" + rng.choice((b"", b")R", b")\x81", b"N\x85R", b"0", b")R}b")))


def _places(pieces: list[bytes], codes: bytes) -> list[int]:
    return [index for index, piece in enumerate(pieces) if piece[0] in codes and len(piece) > 1]


def _renumber(rng: Random, pieces: list[bytes]) -> None:
    places = _places(pieces, _COUNTS + b"I")
    if not places:
        return
    at = rng.choice(places)
    piece = pieces[at]
    width = {ord("J"): 4, ord("K"): 1, ord("M"): 2}.get(piece[0])
    near = int.from_bytes(piece[1:], "little") if width else 0
    value = interesting(rng, near)
    if rng.random() < 0.1:
        value = -value
    spelling = rng.randrange(4)
    if spelling == 0 and width and 0 <= value < 1 << 8 * width:
        pieces[at] = piece[:1] + value.to_bytes(width, "little")
    elif spelling == 1:
        pieces[at] = b"L%dL\n" % value
    elif 0 <= value < 256:
        pieces[at] = b"K" + bytes([value])
    else:
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        pieces[at] = b"\x8a" + bytes([len(raw)]) + raw


def _rename(rng: Random, pieces: list[bytes]) -> None:
    places = _places(pieces, b"c")
    if places:
        pieces[rng.choice(places)] = b"c" + rng.choice(_NAMES) + b"\n"


def _retext(rng: Random, pieces: list[bytes]) -> None:
    places = _places(pieces, b"X\x8cU")
    if not places:
        return
    at = rng.choice(places)
    if rng.random() < 0.3:
        pieces[at] = pieces[rng.choice(places)]
        return
    text = rng.choice(_TEXTS)
    pieces[at] = b"X" + struct.pack("<I", len(text)) + text


def _remember(rng: Random, pieces: list[bytes]) -> None:
    places = _places(pieces, _GETS)
    if not places:
        return
    at = rng.choice(places)
    other = rng.choice(places)
    piece = pieces[at]
    if rng.random() < 0.6:
        argument = pieces[other][1:]
        pieces[at] = piece[:1] + argument if len(argument) == len(piece) - 1 else pieces[other]
    elif piece[0] in b"hq":
        pieces[at] = piece[:1] + bytes([rng.randrange(256)])
    elif piece[0] in b"jr":
        pieces[at] = piece[:1] + struct.pack("<I", interesting(rng, 5) & 0xFFFFFFFF)
    else:
        pieces[at] = piece[:1] + b"%d\n" % interesting(rng, 5)


def _relength(rng: Random, pieces: list[bytes]) -> None:
    places = _places(pieces, bytes(_LENGTHS))
    if not places:
        return
    at = rng.choice(places)
    piece = pieces[at]
    width = _LENGTHS[piece[0]]
    near = int.from_bytes(piece[1 : 1 + width], "little")
    value = interesting(rng, near) & ((1 << 8 * width) - 1)
    pieces[at] = piece[:1] + value.to_bytes(width, "little") + piece[1 + width :]


def _refit_frames(pieces: list[bytes]) -> None:
    """Give the frames the lengths that they now have."""
    places = [index for index, piece in enumerate(pieces) if piece[0] == _FRAME and len(piece) == 9]
    for at in places:
        length = 0
        for piece in pieces[at + 1 :]:
            if piece[0] == _FRAME and len(piece) == 9:
                break
            length += len(piece)
            if piece == b".":
                break
        pieces[at] = bytes([_FRAME]) + length.to_bytes(8, "little")
