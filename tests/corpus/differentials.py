"""Files that can be read in two ways: two formats at once, two spellings, and values that torch reads as others."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from corpus.case import LIMIT, MALFORMED, MARK, OK, UNSAFE, Case, hostile, live
from corpus.legacy import old_storage, parts_of_stream, stream, tar, tar_members
from corpus.opcodes import (
    Raw,
    beside_a_tensor,
    build,
    call,
    named,
    newobj,
    no_hooks,
    pickled,
    storage,
    tensor,
    text,
    value,
)
from corpus.rawzip import PICKLE, Member, archive, torch_members, zipped
from corpus.safetensors_cases import safetensors

EITHER = (MALFORMED, UNSAFE)
PAYLOAD = call("os.mkdir", MARK)
FLOATS = struct.pack("<2f", 1.5, -2.0)


def _tar_around(first: bytes, rest: bytes) -> bytes:
    """A tar whose first member's name is the start of a pickle that swallows the tar; ``rest`` is behind it."""
    inner = tar(tar_members("storages0", PAYLOAD))
    first += b"\x80\x03B" + struct.pack("<I", 512 + len(inner) - len(first) - 7)
    return _tar_block(first) + inner + rest


def _tar_block(first: bytes, size: int = 0) -> bytes:
    block = bytearray(first.ljust(512, b"\0"))
    block[100:148] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"%011o\0" % 0
    block[148:157] = b" " * 8 + b"0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _tar_and_safetensors() -> bytes:
    """The tar header is a stretch of one long tensor name."""
    inner = tar(tar_members("storages0", PAYLOAD))
    length = 600
    pad = -(8 + length) % 512
    block = bytearray(struct.pack("<Q", length) + b'{"' + b"n" * 90 + b"00000644" + b"00000000" * 2)
    block += b"%012o" % (8 + length - 512 + pad) + b"0" * 12 + b" " * 8 + b"0" + b"x" * 172 + b"0" * 16 + b"x" * 167
    block[148:156] = b"%08o" % sum(block)
    end = b'":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (pad + len(inner), pad + len(inner))
    return bytes(block) + end.ljust(8 + length - 512) + bytes(pad) + inner


def _safetensors_and_pickle(length: int, front: bytes, payload: bytes) -> bytes:
    """A valid .safetensors file with one long name: after ``front`` opcodes of printable bytes, until behind it."""
    body = b"y" + payload + b"."
    end = b'":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (len(body), len(body))
    left = length - len(front) - len(end)
    middle = (b"0U~" + b"x" * 126) * ((left - 300) // 129)
    used = 13 + (left - len(middle) - 13) % 2
    middle += b"0" + b"N0" * ((left - len(middle) - used) // 2) + b"U" + bytes([used - 3 + len(end) + 1])
    middle += b"y" * (left - len(middle))
    return struct.pack("<Q", length) + front + middle + end + body


# The length of the header is PROTO 2 and BINFLOAT, or BINBYTES: what they swallow ends inside the name.
FROM_0X80 = (0x80 | 2 << 8 | 0x47 << 16, b'{"_')
FROM_B = (0x42 | 0x30 << 8, b'{"'.ljust(0x30 - 3))
BEHIND = b"0B" + struct.pack("<I", 17 << 20) + bytes(17 << 20) + b"0" + PAYLOAD  # more than a look at the beginning


def _two_spellings() -> Iterator[tuple[str, bytes, bool]]:
    """torch looks an entry up without regard to case, and takes the last: name, content, whether the payload runs."""
    good, evil = pickled({"w": tensor()}), beside_a_tensor(PAYLOAD)
    rest = [Member("archive/data/0", FLOATS), Member("archive/version", b"3\n")]
    for name in ("archive/DATA.PKL", "archive/Data.pkl", "archive/data.pkL"):
        both = [Member(PICKLE, good), Member(name, evil)]
        yield name[8:], zipped([*both, *rest]), True
        yield f"{name[8:]}-first", zipped([*reversed(both), *rest]), False


def _polyglots() -> Iterator[Case]:
    first, objects = parts_of_stream(), stream()[sum(map(len, list(parts_of_stream().values())[:3])) :]
    bare = _tar_around(b"", b"0}.")
    legacy = _tar_around(first["magic"] + first["version"], b"0}." + objects)
    made = {
        "tar-and-pickle": bare,
        "tar-and-stream": legacy,
        "tar-and-safetensors": _tar_and_safetensors(),
        "safetensors-from-0x80": lambda: _safetensors_and_pickle(*FROM_0X80, PAYLOAD),
        "safetensors-from-0x80-behind": lambda: _safetensors_and_pickle(*FROM_0X80, BEHIND),
        "safetensors-from-b": _safetensors_and_pickle(*FROM_B, PAYLOAD),
        "safetensors-from-b-behind": lambda: _safetensors_and_pickle(*FROM_B, BEHIND),
    }
    for name, content in made.items():
        for ending in (".pt", ".bin"):
            if name.endswith("behind"):  # more than a limit lets anybody look at
                yield hostile(f"attack-{name}{ending}", f"model{ending}", content, *EITHER, LIMIT)
            else:
                yield live(f"attack-{name}{ending}", f"model{ending}", content, "os.mkdir", exits=EITHER)
    config = b'{"type":"act","input_features":{},"output_features":{}}'
    shards = "pytorch_model.bin.index.json"
    for name, content in made.items():
        if name.endswith("behind"):
            continue
        held = content if isinstance(content, bytes) else content()
        policy = {"config.json": config, "model.safetensors": safetensors({}, b"")}
        folder = {
            "lerobot": {
                **{f"pretrained_model/{key}": part for key, part in policy.items()},
                "training_state/training_state.pt": held,
            },
            "shard": {shards: b'{"weight_map":{"w":"pytorch_model.bin"}}', "pytorch_model.bin": held},
            "single": {"config.json": b"{}", "pytorch_model.bin": held},
        }
        for kind, members in folder.items():
            yield hostile(f"attack-{name}-{kind}", "folder", b"", *EITHER, members=members)


def _floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


TWO = {"data/0": _floats(1, 2), "data/1": _floats(77, 88)}
OTHER = tensor(storage(key="1"))
INTS = named("torch.IntStorage")
REBUILD = named("torch._utils._rebuild_tensor_v2")


def _changed() -> Iterator[tuple[str, bytes]]:
    """Pickles whose tensors or containers are changed after they were made."""
    given = (storage(key="1"), 0, (2,), (1,))
    yield "state-of-a-tensor", pickled({"w": build(tensor(), given)})
    yield "state-of-five", pickled({"w": build(tensor(), (OTHER, None, None, False, no_hooks()))})
    yield "item-of-a-tensor", pickled({"w": Raw(tensor() + value(()) + OTHER + b"s")})
    yield "number-in-a-tensor", pickled({"w": Raw(tensor() + value(0) + value(9.5) + b"s")})
    yield "items-of-a-tensor", pickled({"w": Raw(tensor() + b"(" + value(0) + value(9.5) + b"u")})
    stated = call("torch._utils._rebuild_parameter_with_state", tensor(), True, no_hooks(), {"data": OTHER})
    yield "state-of-a-parameter", pickled({"w": stated})
    parts = (storage(), 0, (2,), (1,), False, no_hooks())
    for key, held in (("data", OTHER), ("requires_grad", True), ("grad", OTHER), ("_x", 1)):
        made = call("torch._tensor._rebuild_from_type_v2", REBUILD, named("torch.Tensor"), parts, {key: held})
        yield f"{key}-by-type", pickled({"w": made})
    late = b"(" + storage() + value(0) + value([]) + b"q\x05" + value([]) + b"q\x06" + value(False) + no_hooks()
    yield "shape-later", (
        b"\x80\x02}" + text("w") + REBUILD + late + b"tRs" + b"h\x05K\x02a0h\x06K\x01a0."
    )  # fmt: skip
    for path in ("tuple", "list", "set", "frozenset"):
        tail = b"q\x06h\x05" + (tensor() if path in ("tuple", "list") else value(1)) + b"a0."
        yield f"{path}-of-a-list-later", b"\x80\x02]q\x050" + named(f"builtins.{path}") + b"h\x05\x85R" + tail
    for path in ("collections.OrderedDict", "builtins.dict", "collections.Counter"):
        made = named(path) + b"h\x05\x85Rh\x05" + text("w") + tensor() + b"s0."
        yield f"{path}-of-a-dict-later", b"\x80\x02}q\x050" + Raw(made[:-2] + b"0.")


def _containers() -> Iterator[tuple[str, bytes]]:
    """Containers that are made of more, or of less, than what their arguments look like."""
    mapping, made = {"w": tensor()}, "collections.OrderedDict"
    yield "new-ordered", pickled(newobj(made, mapping))
    for path, held in (("dict", mapping), ("list", [tensor()]), ("set", [1]), ("tuple", [tensor()])):
        yield f"new-{path}", pickled({"x": newobj(f"builtins.{path}", held)})
    yield "new-deque", pickled({"x": newobj("collections.deque", [tensor()])})
    yield "ordered-of-ordered", pickled(call(made, call(made, [("w", tensor())])))
    yield "dict-of-ordered", pickled(call("builtins.dict", call(made, [("w", tensor())])))
    yield "list-of-deque", pickled({"x": call("builtins.list", call("collections.deque", [tensor()]))})
    yield "longest-deque", pickled({"x": call("collections.deque", [tensor(), OTHER], 1)})
    yield "tagged", pickled({"x": call("torch.jit._pickle.restore_type_tag", mapping, "Dict")})
    yield "tensor-list", pickled(call("torch.jit._pickle.build_tensorlist", [tensor()]))
    yield "counted-pairs", pickled(call("collections.Counter", [("w", tensor())]))
    yield "true-and-1", pickled(Raw(b"}(K\x01" + tensor() + b"\x88" + OTHER + b"u"))
    for number, zero in ((1, 1.0), (0, -0.0), (0, 0.0)):
        pairs = value(number) + tensor() + value(zero) + OTHER
        yield f"{number}-and-{zero}", pickled(Raw(b"}(" + pairs + b"u"))
    yield "false-and-0", pickled(Raw(b"}(K\x00" + tensor() + b"\x89" + OTHER + b"u"))


def _tensors() -> Iterator[tuple[str, bytes]]:
    """Arguments that torch takes for something else."""
    made = "torch._utils._rebuild_device_tensor_from_cpu_tensor"
    yield "cpu-dtype", pickled({"w": call(made, tensor(), named("torch.int64"), "cpu", False)})
    yield "first-type", pickled({"a": tensor(), "b": tensor(storage(INTS))})
    for key in ("neg", "conj"):
        for flag in (1, 2.0, "x", True, False, 0, None):
            yield f"{key}-is-{flag}", pickled({"w": tensor(metadata=[{key: flag}])})
    twice = Raw(b"}(" + text("neg") + b"\x88" + text("neg") + b"\x89u")
    yield "negated-twice", pickled({"w": tensor(metadata=[twice])})
    yield "meta-location", pickled({"w": tensor(storage(location="meta"))})
    yield "memo-again", b"\x80\x02" + tensor() + b"q\x010" + OTHER + b"q\x010}" + text("w") + b"h\x01s."


def archives() -> Iterator[tuple[str, bytes]]:
    """Archives of torch."""
    for part in (_changed, _containers, _tensors):
        for name, content in part():
            yield name, archive(content, TWO)
    keys = pickled({"a": tensor(storage(key="A")), "b": tensor(storage(key="a"))})
    yield "records-by-case", archive(keys, {"data/A": _floats(1, 2), "data/a": _floats(77, 88)})
    one = pickled({"a": tensor(storage(key="k"))})
    for names in (("k", "K"), ("K", "k")):
        records = {f"data/{name}": _floats(number, 2) for number, name in enumerate(names)}
        yield f"record-{names[0]}-first", archive(one, records)
    order = [*torch_members(pickled({"w": tensor()}), TWO), Member("archive/ByteOrder", b"big")]
    yield "byte-order-by-case", zipped(order)
    ten = {"data/0": _floats(*range(10))}
    for number in (b"010", b"08", b"0x10", b"0X2", b"0b10", b"0o10", b" 2", b"2 ", b"+2", b"1_0", b"00", b"01", b"02"):
        for name, opcode in (("int", b"I" + number), ("long", b"L" + number), ("longer", b"L" + number + b"L")):
            shaped = tensor(storage(numel=10), shape=Raw(b"(" + opcode + b"\nt"))
            yield f"{name}-{number.decode()}", archive(pickled({"w": shaped}), ten)
            keyed = Raw(b"}(" + opcode + b"\n" + tensor(storage(numel=10)) + b"u")
            yield f"{name}-{number.decode()}-as-a-key", archive(pickled(keyed), ten)
    for number in (b"1_0.5", b"0x1p3", b"1e3", b" 1.5", b"inf", b"1.5 ", b"010.5", b"nan", b"1e400"):
        keyed = Raw(b"}(F" + number + b"\n" + tensor() + b"u")
        yield f"float-{number.decode()}", archive(pickled(keyed))


def streams() -> Iterator[tuple[str, bytes]]:
    """Streams of torch's old layout whose storages and views contradict each other."""
    four = struct.pack("<q4f", 4, 1, 2, 3, 4)

    def viewed(view: Any, kind: str = "torch.FloatStorage") -> Raw:
        return tensor(old_storage(kind=kind, numel=4, view=view))

    ints = tensor(old_storage(kind="torch.IntStorage"))
    yield "type", stream({"objects": pickled({"a": tensor(old_storage()), "b": ints})})
    for name, views in (
        ("view", {"a": viewed(("v", 0, 2)), "b": viewed(("v", 2, 2))}),
        ("view-size", {"a": viewed(("v", 0, 2)), "b": viewed(("v", 0, 4))}),
        ("view-root", {"a": viewed(("0", 2, 2))}),
        ("view-type", {"a": viewed(("v", 0, 2)), "b": viewed(("v", 0, 2), "torch.IntStorage")}),
        ("two-views", {"a": viewed(("v", 0, 2)), "b": viewed(("u", 2, 2))}),
        ("view-twice", {"a": viewed(("v", 2, 2)), "b": viewed(("v", 2, 2))}),
    ):
        yield name, stream({"objects": pickled(views)}, four)
    swapped = {"system": pickled({"little_endian": False}), "objects": pickled({"w": tensor(old_storage())})}
    yield "system", stream(swapped)
    yield "int-010", stream({"objects": pickled({"w": tensor(old_storage(numel=Raw(b"I02\n")))})})


def cases() -> Iterator[Case]:
    """All of them."""
    for name, content, runs in _two_spellings():
        yield (
            live(f"attack-spelled-{name}", "model.pt", content, "os.mkdir", exits=EITHER)
            if runs
            else hostile(f"attack-spelled-{name}", "model.pt", content, *EITHER)
        )
    yield from _polyglots()
    for kind, found in (("archive", archives()), ("stream", streams())):
        for name, content in found:
            yield hostile(f"differs-{kind}-{name}", "model.pt", content, OK, *EITHER)
