"""Payloads in every kind of file that a loader unpickles: bare pickles, old torch files, numpy's, SB3's, polyglots."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from corpus.case import MALFORMED, MARK, SHELL, UNSAFE, Case, live
from corpus.legacy import PARTS, parts_of_stream, run_first, stream, tar, tar_members
from corpus.live_opcodes import forms
from corpus.npy import npy, npz
from corpus.opcodes import Raw, beside_a_tensor, call, inst, newobj, obj, pickled, stacked, value
from corpus.rawzip import Member, archive, torch_members, zipped

PAYLOAD = call("os.mkdir", MARK)
EITHER = (MALFORMED, UNSAFE)


def _beside_a_list(payload: Raw, protocol: int = 2) -> bytes:
    """What a bare pickle can hold: no storage, since nobody answers persistent ids."""
    return pickled({"w": [1.5, -2.0], "p": payload}, protocol)


def _bare() -> Iterator[Case]:
    content = _beside_a_list(PAYLOAD)
    for ending in (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".th", ".model", "", ".PT", ".dat"):
        yield live(f"bare{ending or '-without-an-ending'}", f"model{ending}", content, "os.mkdir")
    for name, payload, protocol, path in forms():
        yield live(f"bare-{name}", "model.pt", _beside_a_list(payload, protocol), path)
    yield live("bare-text", "model.pkl", b"cos\nmkdir\n(S'" + MARK.encode() + b"'\ntR.", "os.mkdir")
    yield live("bare-text-inst", "model.pkl", b"(S'" + MARK.encode() + b"'\nios\nmkdir\n.", "os.mkdir")
    yield live(
        "bare-text-in-a-dict", "model.bin", b"(dp0\nS'a'\nF1.5\nscos\nmkdir\n(V" + MARK.encode() + b"\ntR.", "os.mkdir"
    )
    yield live("bare-text-list", "model.pt", b"(lp0\nI1\nacos\nmkdir\n(V" + MARK.encode() + b"\ntRa.", "os.mkdir")
    yield live("bare-behind-numbers", "model.pt", b"I1\n0" + PAYLOAD + b".", "os.mkdir")
    yield live("bare-behind-a-text", "model.pt", b"S'RIFF'\n0" + PAYLOAD + b".", "os.mkdir")
    yield live(
        "bare-begins-with-a-frame",
        "model.pt",
        b"\x95" + struct.pack("<Q", len(PAYLOAD) + 1) + PAYLOAD + b".",
        "os.mkdir",
    )
    yield live("bare-begins-with-a-mark", "model.pt", b"((((" + PAYLOAD + b".", "os.mkdir")
    yield live("bare-begins-with-bytes", "model.pt", value(b"\x93NUMPY") + b"0" + PAYLOAD + b".", "os.mkdir")
    yield live("bare-without-proto", "model.bin", PAYLOAD + b".", "os.mkdir")
    yield live("bare-cut", "model.bin", content[:-2], "os.mkdir")
    yield live("bare-with-garbage", "model.pt", content + b"\xff" * 100, "os.mkdir")
    yield live("bare-with-a-zip-behind", "model.pt", content + archive(pickled({})), "os.mkdir")
    yield live("bare-with-a-good-pickle-behind", "model.pt", pickled(PAYLOAD) + pickled({}), "os.mkdir")
    yield live("bare-with-many-good-pickles-behind", "model.pt", pickled(PAYLOAD) + pickled(1) * 5000, "os.mkdir")
    yield live(
        "bare-object-of-ctypes",
        "model.pkl",
        pickled(call("ctypes.CDLL", None))[:-1] + b"0" + PAYLOAD + b".",
        "os.mkdir",
    )
    yield live("bare-long", "model.pt", b"\x80\x02" + b"K\x010" * 200_000 + PAYLOAD + b".", "os.mkdir")
    yield live("bare-numpy", "model.npy", content, "os.mkdir", loader="numpy")
    yield live("bare-numpy-npz", "model.npz", pickled(PAYLOAD), "os.mkdir", loader="numpy")


def _legacy() -> Iterator[Case]:
    whole = parts_of_stream()
    shapes: list[tuple[str, Raw, str]] = [
        ("reduce", PAYLOAD, "os.mkdir"),
        ("inst", inst("os.system", SHELL), "os.system"),
        ("obj", obj("os.system", SHELL), "os.system"),
        ("newobj", newobj("numpy.memmap", MARK, "uint8", "w+", 0, (1,)), "numpy.memmap"),
        ("extension", Raw(b"\x82\xe1" + value((MARK,)) + b"R"), "extension"),
        ("stacked", call(stacked("os.mkdir"), MARK), "os.mkdir"),
    ]
    for part in PARTS:
        for name, payload, path in shapes:
            content = stream({part: run_first(payload, whole[part])})
            yield live(f"legacy-{part}-{name}", "model.pt", content, path)
    yield live("legacy-only-magic", "model.pt", whole["magic"] + pickled(PAYLOAD), "os.mkdir")
    yield live("legacy-wrong-magic", "model.pt", pickled(1)[:-1] + b"0" + PAYLOAD + b".", "os.mkdir")
    yield live(
        "legacy-cut-after-the-payload", "model.pth", stream({"objects": pickled({"p": PAYLOAD})})[:-30], "os.mkdir"
    )
    yield live("legacy-payload-in-keys-list", "model.pt", stream({"keys": pickled(["0", PAYLOAD])}), "os.mkdir")
    yield live("legacy-no-storages", "model.bin", stream({"objects": pickled({"p": PAYLOAD})}, b""), "os.mkdir")
    yield live(
        "legacy-big-endian",
        "model.pt",
        stream({"system": run_first(PAYLOAD, pickled({"little_endian": False}))}),
        "os.mkdir",
    )
    in_text = {
        "magic": b"L119547037146038801333356L\n.",
        "version": b"I1001\n.",
        "objects": b"cos\nmkdir\n(V" + MARK.encode() + b"\ntR.",
    }
    yield live("legacy-text-protocol", "model.pt", stream(in_text), "os.mkdir")
    for place in ("pickle", "storages0", "storages1", "storages2", "tensors0", "tensors1"):
        yield live(
            f"tar-{place}",
            "model.tar" if place == "pickle" else "model.pt",
            tar(tar_members(place, PAYLOAD)),
            "os.mkdir",
            exits=EITHER,
        )
    yield live("tar-only-storages", "model.pth", tar({"storages": pickled(PAYLOAD)}), "os.mkdir", exits=EITHER)
    yield live(
        "tar-behind-another-member",
        "model.pth",
        tar({"readme": b"x" * 3000, **tar_members("pickle", PAYLOAD)}),
        "os.mkdir",
        exits=EITHER,
    )


def _numpy() -> Iterator[Case]:
    held = npy("|O", (1,), pickled([PAYLOAD]))
    plain = npy("<f4", (2,), bytes(8))
    rest: dict[str, Any] = {"loader": "numpy"}
    yield live("npz-object", "a.npz", npz({"w": plain, "o": held}), "os.mkdir", **rest)
    yield live("npz-object-first", "a.npz", npz({"o": held, "w": plain}), "os.mkdir", **rest)
    yield live("npz-object-deflated", "a.npz", npz({"w": plain, "o": held}, method=8), "os.mkdir", **rest)
    yield live("npz-object-under-another-ending", "a.pt", npz({"w": plain, "o": held}), "os.mkdir", **rest)
    yield live(
        "npz-object-without-npy",
        "a.npz",
        zipped([Member("w.npy", plain), Member("o", held)]),
        "os.mkdir",
        exits=EITHER,
        **rest,
    )
    yield live("npz-object-of-width", "a.npz", npz({"o": npy("O8", (1,), pickled([PAYLOAD]))}), "os.mkdir", **rest)
    yield live(
        "npz-object-version-2", "a.npz", npz({"o": npy("|O", (1,), pickled([PAYLOAD]), version=2)}), "os.mkdir", **rest
    )
    yield live(
        "npz-object-version-3", "a.npz", npz({"o": npy("|O", (1,), pickled([PAYLOAD]), version=3)}), "os.mkdir", **rest
    )
    yield live("npz-object-scalar", "a.npz", npz({"o": npy("|O", (), pickled(PAYLOAD))}), "os.mkdir", **rest)
    yield live("npz-object-empty", "a.npz", npz({"o": npy("|O", (0,), pickled(PAYLOAD))}), "os.mkdir", **rest)
    yield live(
        "npz-object-field",
        "a.npz",
        npz({"o": npy([("a", "|O"), ("b", "<i4")], (1,), pickled([PAYLOAD]))}),
        "os.mkdir",
        exits=EITHER,
        **rest,
    )
    yield live(
        "npz-object-subfield",
        "a.npz",
        npz({"o": npy([("a", [("b", "|O")])], (1,), pickled([PAYLOAD]))}),
        "os.mkdir",
        exits=EITHER,
        **rest,
    )
    yield live(
        "npz-object-inst", "a.npz", npz({"o": npy("|O", (1,), pickled(inst("os.system", SHELL)))}), "os.system", **rest
    )
    yield live("npz-object-cut", "a.npz", npz({"o": npy("|O", (1,), pickled([PAYLOAD])[:-1])}), "os.mkdir", **rest)
    yield live("npz-bare-pickle-in-npy", "a.npy", pickled(PAYLOAD), "os.mkdir", **rest)
    yield live("npy-object", "a.npy", held, "os.mkdir", exits=EITHER, **rest)
    yield live("npy-object-under-another-ending", "a.bin", held, "os.mkdir", exits=EITHER, **rest)


def _sb3() -> Iterator[Case]:
    data = {
        "policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": base64.b64encode(pickled(PAYLOAD)).decode()}
    }
    good = archive(pickled({"w": Raw(b"N")}), {})
    evil = archive(beside_a_tensor(PAYLOAD))
    clean = {"data": b"{}", "policy.pth": good, "policy.optimizer.pth": good, "pytorch_variables.pth": good}
    version = {"_stable_baselines3_version": b"2.3.0", "system_info.txt": b"x"}
    for name, changed in (
        ("data", {"data": json.dumps(data).encode()}),
        ("policy", {"policy.pth": evil}),
        ("optimizer", {"policy.optimizer.pth": evil}),
        ("variables", {"pytorch_variables.pth": evil}),
        ("bare-policy", {"policy.pth": _beside_a_list(PAYLOAD)}),
        ("legacy-policy", {"policy.pth": stream({"objects": pickled({"p": PAYLOAD})})}),
    ):
        members = [Member(key, held) for key, held in {**clean, **changed, **version}.items()]
        yield live(f"sb3-{name}", "model.zip", zipped(members), "os.mkdir", exits=EITHER, loader="sb3")


def _polyglots() -> Iterator[Case]:
    for ending in (".pt", ".bin", ".pkl"):
        yield live(
            f"polyglot-safetensors-and-pickle{ending}",
            f"model{ending}",
            safetensors_and_pickle(PAYLOAD),
            "os.mkdir",
            exits=EITHER,
        )
    yield live(
        "polyglot-pickle-and-zip", "model.pt", pickled(PAYLOAD) + archive(pickled({"a": 1})), "os.mkdir", exits=EITHER
    )
    shifted = zipped(torch_members(pickled({"a": 1})), prefix=pickled(PAYLOAD))
    yield live("polyglot-pickle-before-a-zip", "model.pt", shifted, "os.mkdir", exits=EITHER)
    yield live(
        "polyglot-tar-and-zip",
        "model.pt",
        tar(tar_members("pickle", PAYLOAD)) + archive(pickled({})),
        "os.mkdir",
        exits=EITHER,
    )


def safetensors_and_pickle(payload: Raw) -> bytes:
    """A valid .safetensors file whose bytes are a pickle too: BINBYTES jumps into a text of its metadata, short
    strings of printable lengths go on from there, and the last one ends behind the header."""
    skip, length = 0x30, 0x42 + 256 * 0x30  # "B", the low byte of the header's length, is BINBYTES
    front = b'{"__metadata__":{"a":"'
    front += b" " * (5 + skip - 8 - len(front))  # BINBYTES starts at byte 5 and ends here
    tail = b'"},"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}'
    body_length = 200
    end = tail % (body_length, body_length)
    middle = b""
    left = length - len(front) - len(end)
    while left - len(middle) > 2 * 131:
        middle += b"0U~" + b"x" * 126
    last = left - len(middle)
    middle += b"0" + b"N0" * ((last - 60) // 2)
    jump = left - len(middle) - 2 + len(end) + 1
    middle += b"U" + bytes([jump]) + b"y" * (left - len(middle) - 2)
    header = front + middle + end
    assert len(header) == length
    assert 0x20 <= jump < 0x7F
    assert jump != ord('"')
    body = b"y" + payload + b"."
    return b"B" + bytes([skip]) + bytes(6) + header + body.ljust(body_length, b"\0")


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (_bare, _legacy, _numpy, _sb3, _polyglots):
        yield from part()
