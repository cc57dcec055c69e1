"""Files that honest programs write, which must be read whole: every element type, every container, every age."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import pathlib
import random
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from corpus.case import OK, UNSAFE, Case, hostile
from corpus.legacy import stream
from corpus.npy import npy, npz
from corpus.opcodes import named, pickled, storage, tensor
from corpus.rawzip import Member, archive, torch_members, zipped

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64, torch.complex128, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
)  # fmt: skip
Tensors = Mapping[str, Any]


class Settings:
    """An object with attributes, as projects pickle their configuration."""

    def __init__(self) -> None:
        self.lr = 1e-4
        self.layers = [256, 256]
        self.nested = argparse.Namespace(name="x", path=pathlib.PurePosixPath("/a"))


class Ordered(collections.OrderedDict):  # type: ignore[type-arg]
    """A class of a project's own below OrderedDict."""


class Net(torch.nn.Module):
    """A small module with everything that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.BatchNorm1d(4))
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))


def _random(shape: tuple[int, ...] = (3, 5), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.Generator().manual_seed(7)
    count = int(np.prod(shape)) * dtype.itemsize
    raw = torch.randint(0, 2 if dtype is torch.bool else 64, (count,), generator=made, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def flat(found: Any, path: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Every tensor in dicts and lists by its dotted path."""
    if isinstance(found, torch.Tensor):
        return {".".join(path): found}
    items: Any = ()
    if isinstance(found, Mapping):
        items = found.items()
    elif isinstance(found, (list, tuple)):
        items = enumerate(found)
    tensors: dict[str, torch.Tensor] = {}
    for key, held in items:
        tensors.update(flat(held, (*path, str(key))))
    return tensors


def _modules() -> Iterator[tuple[str, Any, Callable[[Any], Tensors]]]:
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    net.layers(torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).sum().backward()
    optimizer.step()
    yield "module", net, lambda found: dict(found.state_dict())
    yield "module-below-a-key", {"model": net}, lambda found: dict(found["model"].state_dict())
    yield "state-dict", net.state_dict(), flat
    yield (
        "state-dict-below-a-root",
        {"state_dict": net.state_dict(), "epoch": 3},
        lambda found: flat(found["state_dict"]),
    )
    yield "optimizer", {"model": net.state_dict(), "optimizer": optimizer.state_dict()}, flat
    yield "lightning", {
        "epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.2.0", "state_dict": net.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": None}},
        "lr_schedulers": [{"last_epoch": 1}], "hparams_name": "kwargs", "hyper_parameters": {"lr": 1e-3},
    }, lambda found: flat(found["state_dict"])  # fmt: skip
    shared = torch.arange(6.0)
    yield "views", {"a": shared, "b": shared[2:], "c": shared.view(2, 3).t(), "d": shared[::2]}, flat
    yield "same-tensor-twice", {"a": shared, "b": shared}, flat
    yield "expanded", {"e": torch.tensor([1.0, 2.0]).unsqueeze(0).expand(3, 2)}, flat
    yield "zero-dimensional", {"s": torch.tensor(1.5), "i": torch.tensor(3)}, flat
    yield "empty", {"a": torch.empty(0), "b": torch.empty(0, 3), "c": torch.empty(2, 0, 4)}, flat
    yield "not-contiguous", {"a": _random((4, 6)).t(), "b": _random((2, 3, 4)).permute(2, 0, 1)}, flat
    yield "channels-last", {"a": _random((1, 3, 4, 4)).to(memory_format=torch.channels_last)}, flat
    yield "conjugate", {"a": _random((4,), torch.complex64).conj()}, flat
    yield "negative-view", {"a": torch._neg_view(_random((4,)))}, flat
    yield (
        "parameters",
        {"a": torch.nn.Parameter(_random()), "b": torch.nn.Parameter(_random(), requires_grad=False)},
        flat,
    )
    yield "buffer", {"a": torch.nn.Buffer(_random())}, flat
    marked = torch.nn.Parameter(_random())
    marked.note = "x"  # type: ignore[attr-defined]
    yield "parameter-with-attributes", {"a": marked}, flat
    yield "tensor-alone", _random(), lambda found: {"tensor": found}
    yield "list", [_random(), {"x": _random()}], flat
    yield "tuple", (_random(), [_random((2,))]), flat
    yield "number-keys", {0: _random(), 1: {2: _random((2,))}}, flat
    yield "rank-8", {"a": _random((1, 2, 1, 2, 1, 2, 1, 2))}, flat
    yield "many", {f"layer{n}.weight": _random((2, 2)) for n in range(2000)}, flat
    yield "unicode-names", {"größe.重み.🤖": _random()}, flat


def _beside() -> Iterator[tuple[str, Any]]:
    """Values that stand beside a tensor."""
    yield "plain", [1, -1, 1 << 70, 2.5, float("inf"), None, True, "text", b"\xff\x00", 1j, range(3), slice(1, 2)]
    yield "containers", [{1, 2}, frozenset([3]), (4,), collections.OrderedDict(a=1), collections.Counter("aab")]
    yield "defaultdict", collections.defaultdict(list, a=[1])
    yield "deque", {"recent": collections.defaultdict(dict, b={"c": 1})}
    yield "numpy-scalars", [np.float64(1.5), np.float32(2), np.int64(3), np.bool_(True)]
    yield "numpy-arrays", [np.arange(6).reshape(2, 3), np.zeros((0,)), np.asfortranarray(np.ones((2, 3)))]
    yield "numpy-dtypes", [np.dtype("float32"), np.dtype(">i4")]
    yield "torch-values", [torch.float32, torch.device("cpu"), torch.Size([1, 2]), torch.strided]
    yield "paths", [pathlib.PurePosixPath("/a/b"), pathlib.Path("x")]
    yield "moments", [datetime.datetime(2026, 1, 2, 3, 4), datetime.date(2026, 1, 2), datetime.timedelta(1)]
    yield "random-state", {"python": random.Random(1).getstate(), "numpy": np.random.RandomState(1).get_state()}
    yield "settings", Settings()
    yield "namespace", argparse.Namespace(a=1, b=argparse.Namespace(c=2))
    yield "long-text", "x" * 100_000
    yield "deep", [[[[[[[[[[1]]]]]]]]]]


def _save(made: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(made, file, **options)
    return file.getvalue()


def _load(pick: Callable[[Any], Tensors], path: Path) -> Tensors:
    return pick(torch.load(path, weights_only=False))


def _good(
    name: str, filename: str, content: bytes | Callable[[], bytes], pick: Callable[[Any], Tensors] = flat
) -> Case:
    return Case(name, filename, content, "good", exits=(OK,), expected=partial(_load, pick))


def _deflated(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), old.read(entry), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _of_torch()
    yield from _by_hand()
    yield from _of_other_formats()


def _of_torch() -> Iterator[Case]:
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        yield _good(f"good-{name}", "model.pt", _save({"a": _random((3, 5), dtype), "b": _random((), dtype)}))
    for name, made, pick in _modules():
        whole = _save(made)
        yield _good(f"good-{name}", "model.pt", whole, pick)
        yield _good(f"good-deflated-{name}", "model.pth", _deflated(whole), pick)
        if name not in ("buffer", "negative-view"):
            yield _good(f"good-legacy-{name}", "model.pt", _save(made, _use_new_zipfile_serialization=False), pick)
    everything = dict(_beside())
    for name, value in _beside():
        yield _good(
            f"good-beside-{name}", "model.ckpt", _save({"w": _random(), "v": value}), lambda found: {"w": found["w"]}
        )
    for protocol in (2, 3, 4, 5):
        content = _save({"w": _random(), "v": everything}, pickle_protocol=protocol)
        yield _good(f"good-protocol-{protocol}", "model.pt", content, lambda found: {"w": found["w"]})
        old = _save({"w": _random(), "v": 1}, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
        yield _good(f"good-legacy-protocol-{protocol}", "model.pth", old)
    subclass = _save(Ordered(w=_random()))  # pickled as a call of an unknown class: no reader can know what it does
    yield hostile("subclass-of-ordered-dict", "model.pt", subclass, OK, UNSAFE)


def _by_hand() -> Iterator[Case]:
    floats = struct.pack(">2f", 1.5, -2.0)
    members = torch_members(pickled({"w": tensor()}), {"byteorder": b"big", "data/0": floats})
    yield _good("good-big-endian", "model.pt", zipped(members))
    wide = torch_members(
        pickled({"w": tensor(storage(named("torch.ComplexFloatStorage"), numel=1), shape=(1,))}),
        {"byteorder": b"big", "data/0": floats},
    )
    yield _good("good-big-endian-complex", "model.pt", zipped(wide))
    yield _good("good-no-byte-order", "model.pt", archive(pickled({"w": tensor()})))
    yield _good("good-old-stream-by-hand", "model.pt", stream())
    for protocol in (0, 1, 2, 3, 4, 5):
        yield _good(f"good-by-hand-protocol-{protocol}", "model.pt", archive(pickled({"w": tensor()}, protocol)))


def _arrays(path: Path) -> Tensors:
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def _of_other_formats() -> Iterator[Case]:
    tensors = {
        str(dtype).removeprefix("torch."): _random((2, 3), dtype) for dtype in DTYPES if dtype is not torch.complex128
    }
    tensors |= {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 3)}
    content = safetensors.torch.save(tensors, {"format": "pt", "note": "größe"})
    loaded: Callable[[Path], Tensors] = safetensors.torch.load_file
    yield Case("good-safetensors", "model.safetensors", content, "good", exits=(OK,), expected=loaded)
    yield Case(
        "good-safetensors-plain",
        "model.safetensors",
        safetensors.torch.save({"w": _random()}),
        "good",
        exits=(OK,),
        expected=loaded,
    )
    file = io.BytesIO()
    kinds = ("f8", "f4", "f2", "c8", "c16", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    arrays |= {f"big-{kind}": array.astype(array.dtype.newbyteorder(">")) for kind, array in arrays.items()}
    arrays |= {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 2)),
    }
    np.savez(file, **arrays)
    yield Case("good-npz", "model.npz", file.getvalue(), "good", exits=(OK,), loader="numpy", expected=_arrays)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    yield Case(
        "good-npz-compressed", "model.npz", packed.getvalue(), "good", exits=(OK,), loader="numpy", expected=_arrays
    )
    for version in (1, 2, 3):
        made = npz({"w": npy("<f4", (2,), struct.pack("<2f", 1.5, 2.5), version=version)})
        yield Case(
            f"good-npz-version-{version}", "model.npz", made, "good", exits=(OK,), loader="numpy", expected=_arrays
        )
    whole = zipped([Member("w.npy", npy("<f4", (2,), bytes(8)))])
    yield Case(
        "good-npz-under-another-name", "weights.bin", whole, "good", exits=(OK,), loader="numpy", expected=_arrays
    )
