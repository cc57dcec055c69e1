"""Tensors whose numbers lie: about their storage, their shape, their element type."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from corpus.case import LIMIT, MALFORMED, OK, UNSAFE, Case, hostile
from corpus.opcodes import Raw, call, named, newobj, no_hooks, persistent, pickled, storage, tensor, text
from corpus.rawzip import archive

NO = (MALFORMED,)
FLOATS = struct.pack("<2f", 1.5, -2.0)


def _untyped() -> Raw:
    return storage(named("torch.storage.UntypedStorage"), numel=8)


def lies() -> Iterator[tuple[str, Raw, tuple[int, ...]]]:
    """One tensor each, on a storage of two floats."""
    for number in (-1, -(1 << 63), 1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 200, 1 << 600):
        yield f"shape-{number:#x}", tensor(shape=(number,)), NO
        yield f"stride-{number:#x}", tensor(strides=(number,)), NO
        yield f"offset-{number:#x}", tensor(offset=number), NO
        yield f"storage-of-{number:#x}", tensor(storage(numel=number)), NO
    for number in (3, 1 << 20):
        yield f"shape-{number}", tensor(shape=(number,)), NO
        yield f"storage-of-{number}", tensor(storage(numel=number)), NO
    yield "offset-1", tensor(offset=1), NO
    yield "stride-2", tensor(strides=(2,)), NO
    yield "storage-of-1", tensor(storage(numel=1)), NO
    yield "storage-of-0", tensor(storage(numel=0)), NO
    for name, odd in (("none", None), ("text", "2"), ("float", 2.0), ("true", True), ("list", [2]), ("nothing", ())):
        yield f"shape-of-{name}", tensor(shape=(odd,)), NO
        yield f"stride-of-{name}", tensor(strides=(odd,)), NO
        yield f"offset-is-{name}", tensor(offset=odd), NO
        yield f"storage-of-{name}", tensor(storage(numel=odd)), NO
        if name not in ("nothing", "list"):
            yield f"whole-shape-is-{name}", tensor(shape=odd), NO
            yield f"whole-stride-is-{name}", tensor(strides=odd), NO
    yield "shape-overflows", tensor(shape=(1 << 32, 1 << 32), strides=(0, 0)), (OK, MALFORMED, LIMIT)
    yield "shape-overflows-to-zero", tensor(shape=(1 << 32, 1 << 32), strides=(1 << 32, 1)), NO
    yield "strides-overflow", tensor(shape=(2, 2), strides=(1 << 63, 1 << 63)), NO
    yield "expand-to-a-terabyte", tensor(shape=(1 << 40,), strides=(0,)), (OK, MALFORMED, LIMIT)
    yield "expand-to-8-gigabytes", tensor(shape=(1 << 31,), strides=(0,)), (OK, MALFORMED, LIMIT)
    yield "huge-but-empty", tensor(shape=(0, (1 << 63) - 1), strides=(1, 1)), (OK, MALFORMED, LIMIT)
    yield "empty-with-a-far-offset", tensor(shape=(0,), offset=1 << 40), (OK, MALFORMED)
    yield "rank-mismatch", tensor(shape=(2,), strides=(1, 1)), NO
    yield "rank-mismatch-none", tensor(shape=(2,), strides=()), NO
    yield "rank-of-1000", tensor(shape=(1,) * 1000, strides=(1,) * 1000), (OK, MALFORMED, LIMIT)
    yield "rank-of-65", tensor(shape=(1,) * 65, strides=(1,) * 65), (OK, MALFORMED, LIMIT)
    yield "shape-is-a-list", tensor(shape=[2]), (OK, MALFORMED)
    yield "shape-is-a-size", tensor(shape=call("torch.Size", [2])), (OK, MALFORMED)
    yield "no-arguments", call("torch._utils._rebuild_tensor_v2"), NO
    yield "too-many-arguments", tensor(metadata=[{}, 1, 2, 3]), NO
    yield "arguments-are-no-tuple", Raw(named("torch._utils._rebuild_tensor_v2") + b"NR"), (MALFORMED, 4)
    yield "without-a-storage", tensor(Raw(b"N")), NO
    yield "storage-is-a-text", tensor(text("storage")), NO
    yield "storage-is-a-tensor", tensor(tensor()), NO
    yield "storage-is-text-id", tensor(Raw(b"Pstorage\n")), NO
    yield "storage-id-of-4", tensor(persistent(("storage", named("torch.FloatStorage"), "0", "cpu"))), NO
    yield (
        "storage-id-of-6",
        tensor(persistent(("storage", named("torch.FloatStorage"), "0", "cpu", 2, None))),
        (OK, MALFORMED),
    )
    yield "storage-id-not-a-storage", tensor(persistent(("module", named("torch.FloatStorage"), "0", "cpu", 2))), NO
    yield "storage-kind-is-text", tensor(storage("FloatStorage")), NO
    yield "storage-kind-unknown", tensor(storage(named("torch.QuadStorage"))), (OK, MALFORMED, UNSAFE)
    yield "storage-kind-of-elsewhere", tensor(storage(named("os.FloatStorage"))), (OK, MALFORMED, UNSAFE)
    yield "storage-key-is-a-number", tensor(storage(key=0)), NO
    yield "storage-key-traversal", tensor(storage(key="../data.pkl")), NO
    yield "storage-key-absolute", tensor(storage(key="/etc/passwd")), NO
    yield "storage-key-is-empty", tensor(storage(key="")), NO
    yield "storage-key-with-nul", tensor(storage(key="0\0")), NO
    yield "storage-location-is-a-number", tensor(storage(location=0)), NO
    yield "storage-location-unknown", tensor(storage(location="nowhere:99")), (OK, MALFORMED)
    yield "untyped-for-v2", tensor(storage(named("torch.storage.UntypedStorage"), numel=8)), (OK, MALFORMED)
    yield "v3-unknown-dtype", call(
        "torch._utils._rebuild_tensor_v3", _untyped(), 0, (2,), (1,), False,
        no_hooks(), named("torch.float31"),
    ), (OK, MALFORMED, UNSAFE)  # fmt: skip
    yield "v3-dtype-is-text", call(
        "torch._utils._rebuild_tensor_v3", _untyped(), 0, (2,), (1,), False,
        no_hooks(), "float32",
    ), NO  # fmt: skip
    yield "v3-dtype-is-an-alias", call(
        "torch._utils._rebuild_tensor_v3", _untyped(), 0, (2,), (1,), False,
        no_hooks(), named("torch.int"),
    ), (OK, MALFORMED, UNSAFE)  # fmt: skip
    yield "v3-too-wide", call(
        "torch._utils._rebuild_tensor_v3", _untyped(), 0, (2,), (1,), False,
        no_hooks(), named("torch.float64"),
    ), NO  # fmt: skip
    yield "parameter-of-nothing", call("torch._utils._rebuild_parameter"), NO
    yield "parameter-of-a-number", call("torch._utils._rebuild_parameter", 1, True, no_hooks()), NO
    nested = tensor()
    for _ in range(300):
        nested = call("torch._utils._rebuild_parameter", nested, True, no_hooks())
    yield "parameter-in-parameter", nested, (OK, MALFORMED, LIMIT)
    yield "newobj-of-a-tensor", newobj("torch.Tensor"), (OK, MALFORMED, UNSAFE)
    yield (
        "newobj-of-rebuild",
        newobj("torch._utils._rebuild_tensor_v2", storage(), 0, (2,), (1,), False, no_hooks()),
        (OK, MALFORMED, UNSAFE),
    )
    yield "tensor-with-a-state", Raw(tensor() + b"}" + text("x") + b"Nsb"), (OK, MALFORMED)
    yield "tensor-with-items", Raw(tensor() + b"(NNu"), (OK, MALFORMED)
    yield "metadata-is-no-dict", tensor(metadata=["conj"]), (OK, MALFORMED)
    yield "sparse-of-numbers", call("torch._utils._rebuild_sparse_tensor", 1, (2, 3, 4)), (OK, MALFORMED)
    yield (
        "meta-of-2-to-the-60",
        call("torch._utils._rebuild_meta_tensor_no_storage", named("torch.float32"), (1 << 60,), (1,), False),
        (OK, MALFORMED, LIMIT),
    )
    yield "qtensor-of-nothing", call("torch._utils._rebuild_qtensor"), (OK, MALFORMED)


def graphs() -> Iterator[tuple[str, Any, dict[str, bytes], tuple[int, ...]]]:
    """Several tensors that contradict each other."""
    ints = storage(named("torch.LongStorage"), numel=1)
    yield "same-record-other-type", {"a": tensor(), "b": tensor(ints, shape=(1,))}, {"data/0": FLOATS}, (OK, MALFORMED)
    yield "same-record-other-size", {"a": tensor(), "b": tensor(storage(numel=1), shape=(1,))}, {"data/0": FLOATS}, NO
    yield (
        "same-name-twice",
        Raw(b"}(" + text("w") + tensor() + text("w") + tensor() + b"u"),
        {"data/0": FLOATS},
        (OK, MALFORMED),
    )
    yield "same-dotted-name", {"a.b": tensor(), "a": {"b": tensor()}}, {"data/0": FLOATS}, NO
    yield "number-and-text-key", {1: tensor(), "1": tensor()}, {"data/0": FLOATS}, (OK, MALFORMED)
    yield "tensor-as-a-key", Raw(b"}" + tensor() + b"Ns"), {"data/0": FLOATS}, (OK, MALFORMED)
    yield "top-is-a-tensor", tensor(), {"data/0": FLOATS}, (OK,)
    yield "top-is-a-list-of-tensors", [tensor(), [tensor()]], {"data/0": FLOATS}, (OK,)
    yield "no-tensors", {"a": 1}, {}, (OK, MALFORMED)
    yield "top-is-none", Raw(b"N"), {}, (OK, MALFORMED)
    yield "unused-record", {"w": tensor()}, {"data/0": FLOATS, "data/1": bytes(100)}, (OK, MALFORMED)
    yield (
        "many-views-of-one-storage",
        {f"v{n}": tensor(shape=(1 << 20,), strides=(0,)) for n in range(300)},
        {"data/0": FLOATS},
        (OK, LIMIT),
    )


def cases() -> Iterator[Case]:
    """All of them."""
    for name, made, exits in lies():
        yield hostile(f"tensor-{name}", "model.pt", archive(pickled({"w": made})), *exits)
    for name, top, records, exits in graphs():
        yield hostile(f"tensors-{name}", "model.pt", archive(pickled(top), records), *exits)
