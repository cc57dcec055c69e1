"""What the fuzzers found, each as small as it could be made: one line says what it was."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from corpus.legacy import stream
from corpus.npy import npy_header
from corpus.opcodes import Raw, call, named, persistent, pickled, storage, tensor
from corpus.rawzip import Member, archive, zipped
from fuzz.seeds import Sample

_NESTED = Raw(b"N" + b"\x85" * 3000)


@dataclass(frozen=True)
class Kept:
    """One finding: ``what`` happened, and how the file must end now."""

    name: str
    what: str
    filename: str
    content: Callable[[], bytes]
    ends: tuple[str, ...] = ("CorruptFile 3",)

    def sample(self) -> Sample:
        """The file."""
        return Sample(self.name, "", self.filename, self.content())


def _padded(length: int) -> bytes:
    """A good safetensors file whose header has this length."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    return struct.pack("<Q", length) + header + bytes(4)


def _with_control() -> bytes:
    key = persistent(("storage", named("torch.Flo\x00Storage"), "0", "cpu", 2, None))
    return stream({"objects": pickled({"w": tensor(key)})})


def _meta() -> Raw:
    return call("torch._utils._rebuild_meta_tensor_no_storage", named("torch.float32"), (2,), (1,), False)


def _of_parts_elsewhere() -> bytes:
    indices = tensor(storage(named("torch.LongStorage"), "5"), shape=(1, 2), strides=(2, 1))
    layout = call("torch.serialization._get_layout", "torch.sparse_coo")
    sparse = call("torch._utils._rebuild_sparse_tensor", layout, (indices, tensor(), call("torch.Size", (3,)), True))
    return archive(pickled({"w": tensor(), "s": sparse}))


def _called_by_a_control() -> bytes:
    kinds = b'{"dtypes": {"w": "bfloat16"}}'
    header = npy_header(b"{'descr': '\x1b[2J', 'fortran_order': False, 'shape': (2,)}\n")
    return zipped([Member("__weightkit__.json", kinds), Member("w.npy", header + bytes(4))])


KEPT = (
    Kept(
        "address-in-a-message",
        "the message of a wrong protocol held the address of an object: two openings, two messages",
        "model.pt",
        lambda: stream({"version": b"\x80\x02}."}),
    ),
    Kept(
        "address-of-a-key",
        "so did that of a storage key that is a dict",
        "model.pt",
        lambda: stream({"keys": b"\x80\x02](}e."}),
    ),
    Kept(
        "nested-protocol",
        "a protocol version of 3000 tuples in each other ended in RecursionError",
        "model.pt",
        lambda: stream({"version": pickled(_NESTED)}),
    ),
    Kept(
        "nested-key",
        "so did such a storage key",
        "model.pt",
        lambda: stream({"keys": pickled([_NESTED])}),
    ),
    Kept(
        "control-in-a-storage-type",
        "a NUL in the name of a storage's type reached the message",
        "model.pt",
        _with_control,
        ("CorruptFile 3", "UnsafeContent 4"),
    ),
    *(
        Kept(
            f"good-header-of-{length}",
            "a good safetensors file whose length reads as an extension opcode of pickle was refused as unsafe",
            "model.safetensors",
            lambda length=length: _padded(length),  # type: ignore[misc]
            ("opened without verdict 0",),
        )
        for length in (130, 131, 132, 386, 643, 900, 0x8228, 0x8328, 0x8428, 0x8288, 0x18228, 0x18328, 0x18428, 0x28388)
    ),
    Kept(
        "signalling-nan",
        "comparing a file that holds a signalling NaN with itself printed a warning of numpy's",
        "model.pt",
        lambda: archive(pickled({"w": tensor()}), {"data/0": struct.pack("<2I", 0x7F800001, 0)}),
        ("opened data 0",),
    ),
    Kept(
        "control-in-a-description",
        "an escape in the element type of a .npy reached the message",
        "model.npz",
        _called_by_a_control,
    ),
    Kept(
        "long-byte-order",
        "an entry byteorder of more than 16 bytes was taken for little-endian, whatever it said",
        "model.pt",
        lambda: archive(pickled({"w": tensor()}), {"byteorder": b"big".ljust(20), "data/0": bytes(8)}),
    ),
    Kept(
        "parts-that-are-not-there",
        "a sparse tensor was listed with its bytes, and the entries of its parts were not in the archive",
        "model.pt",
        _of_parts_elsewhere,
    ),
    Kept(
        "nested-encoding",
        "bytes as encoded text whose encoding was 3000 tuples in each other ended in RecursionError",
        "model.pt",
        lambda: archive(pickled({"w": tensor(), "v": call("_codecs.encode", "x", _NESTED)})),
        ("opened data 0", "opened opaque 0", "opened unsafe 4", "CorruptFile 3"),
    ),
    Kept(
        "control-in-the-name-of-a-listed-tensor",
        "a tensor that is listed only was reported twice, once under its name with the control character in it",
        "model.pt",
        lambda: archive(pickled({"m\x01": _meta()})),
        ("opened data 0",),
    ),
    Kept(
        "control-in-a-wrapper",
        "the prefix that a wrapper left in the names became a subject with the control character in it",
        "model.pt",
        lambda: archive(pickled({"a\x01": {"_orig_mod": {"w": tensor()}}})),
        ("opened data 0",),
    ),
    Kept(
        "conjugated-reals",
        "reading a real tensor that is said to be conjugated lazily ended in ValueError",
        "model.pt",
        lambda: archive(pickled({"w": tensor(metadata=({"conj": True},))})),
        ("opened data 0", "CorruptFile 3"),
    ),
    Kept(
        "negated-bools",
        "reading bools that are said to be negated lazily ended in TypeError",
        "model.pt",
        lambda: archive(
            pickled({"w": tensor(storage(named("torch.BoolStorage"), numel=8), metadata=({"neg": True},))})
        ),
        ("opened data 0", "CorruptFile 3"),
    ),
)
