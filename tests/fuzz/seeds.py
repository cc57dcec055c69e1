"""Small good files of every format, the same on every machine: what the fuzzers start from."""

from __future__ import annotations

import base64
import collections
import io
import json
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from corpus.legacy import stream
from corpus.opcodes import beside_a_tensor, call, pickled, tensor
from corpus.rawzip import Member, archive, torch_members, zipped
from legacy_streams import Stored, vector, write_stream

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Sample:
    """One file, or with ``members`` a folder of files; ``opened`` is the file in the folder that is opened, if any."""

    name: str
    format: str
    filename: str
    content: bytes = field(default=b"", repr=False)
    members: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    opened: str = ""

    def write(self, folder: Path) -> Path:
        """The file or folder in ``folder``; what is to be opened."""
        path = folder / self.filename
        if not self.members:
            path.write_bytes(self.content)
            return path
        path.mkdir(exist_ok=True)
        for name, content in self.members.items():
            if "/" in name:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path / self.opened if self.opened else path


class Net(nn.Module):
    """A small module with everything that a module can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("kept", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("transient", torch.zeros(1), persistent=False)
        self.tied = self.head.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Uses it."""
        out: torch.Tensor = self.head(self.body(x)) * self.scale
        return out


class Agent:
    """An object that holds a net and its optimizer, as projects pickle their whole agent."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.actor = Net()
        self.critic_target = nn.Linear(2, 1)
        self.actor_opt = torch.optim.Adam(self.actor.head.parameters(), lr=1e-4)
        self.actor(torch.ones(2, 2)).sum().backward()
        self.actor_opt.step()
        self.actor_opt.zero_grad(set_to_none=True)
        for parameter in self.actor.parameters():
            parameter.grad = None
        self.device = torch.device("cpu")
        self.steps = {"done": 3, "best": np.float64(1.5)}


def torch_saved(made: Any, *, zipped: bool = True, protocol: int = 2) -> bytes:
    """What torch.save writes."""
    file = io.BytesIO()
    torch.save(made, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def rezipped(content: bytes, method: int, *, without: tuple[str, ...] = ()) -> bytes:
    """The members of an archive in a new one, without times and paddings that differ from run to run."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = [
            Member(name, old.read(name), method=method)
            for name in old.namelist()
            if not name.endswith(without or ("\0",))
        ]
    return zipped_members(members)


def zipped_members(members: list[Member]) -> bytes:
    """An honest archive of ``members``."""
    return zipped(members)


def _tensors() -> dict[str, Any]:
    whole = torch.arange(6.0)
    return {
        "weight": whole.view(2, 3),
        "view": whole[2:],
        "again": whole.view(2, 3),
        "half": torch.tensor([1.5, 2.5], dtype=torch.float16),
        "brain": torch.tensor([1.0], dtype=torch.bfloat16),
        "count": torch.tensor(3),
        "mask": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }


def _odd() -> dict[str, Any]:
    return {
        "sparse": torch.eye(2).to_sparse(),
        "csr": _csr(),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "negative": torch._neg_view(torch.tensor([1.0])),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "expanded": torch.ones(1).expand(3),
        "meta": torch.empty(2, device="meta"),
        "unsigned": torch.tensor([1, 2], dtype=torch.uint16),
    }


def _csr() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(2).to_sparse_csr()


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)


def _training() -> dict[str, Any]:
    agent = Agent()
    return {
        "epoch": 1,
        "state_dict": agent.actor.state_dict(),
        "optimizer": agent.actor_opt.state_dict(),
        "hyper_parameters": {"lr": 1e-3, "sizes": (2, 3), "names": ["a", None, True, 1 << 70, b"raw", 1j]},
        "statistics": {"mean": np.arange(3.0), "count": np.int64(3)},
    }


def _of_torch() -> Iterator[Sample]:
    plain = torch_saved({"state_dict": _tensors(), "step": 3})
    yield Sample("torch-stored", "torch_zip", "model.pt", plain)
    yield Sample("torch-deflated", "torch_zip", "model.pth", rezipped(plain, 8))
    yield Sample("torch-protocol-4", "torch_zip", "model.ckpt", torch_saved(_tensors(), protocol=4))
    yield Sample("torch-odd-tensors", "torch_zip", "model.pt", torch_saved(_odd(), protocol=3))
    yield Sample("torch-training", "torch_zip", "model.pt", rezipped(torch_saved(_training()), 0))
    yield Sample("torch-module", "torch_zip", "policy.pt", rezipped(torch_saved(Net()), 0))
    yield Sample("torch-agent", "torch_zip", "snapshot.pt", rezipped(torch_saved({"agent": Agent(), "_step": 1}), 8))
    yield Sample("torch-list", "torch_zip", "list.bin", torch_saved([torch.ones(2), {"x": torch.zeros(1)}]))
    big = torch_members(pickled({"w": tensor()}), {"byteorder": b"big", "data/0": bytes(8)})
    yield Sample("torch-big-endian", "torch_zip", "model.pt", zipped(big))
    for protocol in (0, 1, 2, 5):
        by_hand = archive(pickled({"model": {"w": tensor()}, "v": [1, (2.5, None)]}, protocol))
        yield Sample(f"torch-by-hand-{protocol}", "torch_zip", "model.pt", by_hand)
    yield Sample("torch-payload", "torch_zip", "model.pt", archive(beside_a_tensor(call("os.system", "true"))))


def _legacy() -> Iterator[Sample]:
    yield Sample("legacy-state", "torch_legacy", "model.pt", torch_saved({"state_dict": _tensors()}, zipped=False))
    yield Sample("legacy-training", "torch_legacy", "model.pth", torch_saved(_training(), zipped=False))
    yield Sample(
        "legacy-protocol-4", "torch_legacy", "m.pt", torch_saved({"w": torch.ones(2)}, zipped=False, protocol=4)
    )
    yield Sample("legacy-by-hand", "torch_legacy", "model.pt", stream())
    with tempfile.TemporaryDirectory() as folder:
        parts = {"a": vector(Stored("1", 10, (0, 5)), 5), "b": vector(Stored("1", 10, (5, 5)), 4, 1)}
        made = write_stream(Path(folder) / "a.pt", parts, {"1": np.arange(10, dtype=np.float32)})
        yield Sample("legacy-views", "torch_legacy", "model.pt", made.read_bytes())


def _torchscript() -> Iterator[Sample]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()), file)
    without = (".debug_pkl",)  # they hold paths of this machine
    yield Sample("torchscript", "torch_zip", "policy.pt", rezipped(file.getvalue(), 0, without=without))


def _bare() -> Iterator[Sample]:
    held = {
        "mean": np.arange(3.0, dtype=np.float32),
        "count": np.float64(2.5),
        "names": ["a", "größe", b"\0\xff", None, True, -1, 1 << 70, 2.5],
        "nested": ({"x": {1, 2}}, frozenset([3]), collections.OrderedDict(a=1), collections.Counter("aab")),
    }
    for protocol in range(6):
        content = pickle.dumps(held, protocol)
        yield Sample(f"bare-{protocol}", "bare_pickle", "stats.pkl", content)


def _safetensors() -> Iterator[Sample]:
    plain = {name: made.clone() for name, made in _tensors().items()}
    yield Sample("safetensors", "safetensors", "model.safetensors", safetensors.torch.save(plain, {"format": "pt"}))
    one = safetensors.torch.save({"w": torch.ones(2, 2)})
    yield Sample("safetensors-plain", "safetensors", "model.safetensors", one)
    second = {
        "format": "pt",
        "tied": "weight",
        "weightkit.aliases": '{"b": "w"}',
        "weightkit.json": '["n"]',
        "n": "[1]",
    }
    aliased = safetensors.torch.save({"w": torch.ones(2), "weight": torch.zeros(1)}, second)
    yield Sample("safetensors-aliases", "safetensors", "model.safetensors", aliased)


def shards() -> dict[str, bytes]:
    """A checkpoint in two shards with its index, as transformers saves it."""
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    parts = ({"a.weight": torch.ones(2, 2), "a.bias": torch.zeros(2)}, {"b.weight": torch.ones(3, dtype=torch.int64)})
    weight_map = {name: shard for shard, part in zip(names, parts, strict=True) for name in part}
    index = {"metadata": {"total_size": 48}, "weight_map": weight_map}
    members = {shard: safetensors.torch.save(part, {"format": "pt"}) for shard, part in zip(names, parts, strict=True)}
    return {INDEX: json.dumps(index, indent=2).encode(), **members}


def _sharded() -> Iterator[Sample]:
    made = shards()
    yield Sample("sharded-index", "sharded_index", "shards", members=made, opened=INDEX)
    yield Sample("sharded-folder", "sharded_dir", "shards", members={**made, "config.json": b'{"model_type": "x"}'})
    single = {"config.json": b'{"model_type": "x"}', "model.safetensors": safetensors.torch.save({"w": torch.ones(2)})}
    yield Sample("transformers-folder", "sharded_dir", "single", members=single)
    state = {"w": torch.ones(2), "b": torch.zeros(1)}
    of_torch = {
        "pytorch_model.bin.index.json": json.dumps(
            {"weight_map": dict.fromkeys(state, "pytorch_model-1.bin")}
        ).encode(),
        "pytorch_model-1.bin": torch_saved(state),
    }
    yield Sample("sharded-torch", "sharded_dir", "shards", members=of_torch)
    ours = {
        "config.json": b'{"weightkit_format": 1}',
        "model.safetensors": safetensors.torch.save({"w": torch.ones(2)}),
        "plan.json": b"{}",
    }
    yield Sample("weightkit-folder", "weightkit_dir", "ours", members=ours)


def _lerobot() -> Iterator[Sample]:
    config = {"type": "sac", "input_features": {"observation.state": {"shape": [2]}}, "output_features": {}}
    tied = {"format": "pt", "encoder_critic.weight": "actor.encoder.weight"}
    weights = {"actor.encoder.weight": torch.arange(6.0).reshape(2, 3), "log_alpha": torch.zeros(1)}
    statistics = {"observation.state.mean": torch.ones(2), "observation.state.std": torch.full((2,), 2.0)}
    state_file = "policy_preprocessor_step_1_normalizer_processor.safetensors"
    steps: list[dict[str, Any]] = [
        {"registry_name": "device_processor", "config": {}},
        {"registry_name": "normalizer_processor", "config": {"eps": 1e-8}, "state_file": state_file},
    ]
    policy = {
        "config.json": json.dumps(config).encode(),
        "train_config.json": b'{"seed": 3}',
        "model.safetensors": safetensors.torch.save(weights, tied),
        "policy_preprocessor.json": json.dumps({"name": "policy_preprocessor", "steps": steps}).encode(),
        state_file: safetensors.torch.save(statistics),
    }
    yield Sample("lerobot-policy", "lerobot_dir", "pretrained_model", members=policy)
    moments = safetensors.torch.save({"state/0/exp_avg": torch.ones(2), "state/0/step": torch.ones(())})
    whole = {f"pretrained_model/{name}": content for name, content in policy.items()} | {
        "training_state/training_step.json": b'{"step": 100}',
        "training_state/rng_state.safetensors": safetensors.torch.save({"py_rng_state": torch.arange(3)}),
        "training_state/actor/optimizer_state.safetensors": moments,
        "training_state/actor/optimizer_param_groups.json": b'[{"lr": 0.0003, "params": [0]}]',
        "training_state/training_state.pt": archive(pickled({"step": 1, "w": tensor()})),
        "algorithm/model.safetensors": safetensors.torch.save({"critic.weight": torch.ones(2)}),
        "algorithm/config.json": b"{}",
    }
    yield Sample("lerobot-checkpoint", "lerobot_dir", "000100", members=whole)


def _stable_baselines() -> Iterator[Sample]:
    agent = Agent()
    frequency = (
        b"\x80\x04cstable_baselines3.common.type_aliases\nTrainFreq\nK\x01cstable_baselines3.common.type_aliases\n"
        b"TrainFrequencyUnit\nX\x04\x00\x00\x00step\x85R\x86R."
    )
    data = {
        "policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": _base64(b"\x80\x04cabc\nABCMeta\n.")},
        "train_freq": {":type:": "<class 'x'>", ":serialized:": _base64(frequency)},
        "learning_rate": 0.0003,
        "num_timesteps": 10,
    }
    for method, name in ((0, "sb3-stored"), (8, "sb3-deflated")):
        members = [
            Member("data", json.dumps(data, indent=4).encode(), method=method),
            Member("policy.pth", torch_saved(agent.actor.head.state_dict()), method=method),
            Member("actor.optimizer.pth", torch_saved(agent.actor_opt.state_dict()), method=method),
            Member("pytorch_variables.pth", torch_saved({"log_ent_coef": torch.zeros(1)}), method=method),
            Member("_stable_baselines3_version", b"2.3.0", method=method),
            Member("system_info.txt", b"- OS: Linux\n", method=method),
        ]
        yield Sample(name, "sb3_zip", "sac.zip", zipped(members))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _npz() -> Iterator[Sample]:
    arrays = {
        "a": np.arange(6.0, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "big": np.arange(2, dtype=">i4"),
        "flags": np.array([True, False]),
        "scalar": np.array(1.5),
        "empty": np.zeros((0, 2)),
    }
    file = io.BytesIO()
    np.savez(file, **arrays)
    yield Sample("npz", "npz", "model.npz", rezipped(file.getvalue(), 0))
    yield Sample("npz-deflated", "npz", "model.npz", rezipped(file.getvalue(), 8))
    from weightkit.core.dtype import DTYPES
    from weightkit.core.tensor import StateSpec, TensorSpec
    from weightkit.formats.npz import write_npz

    spec = TensorSpec(DTYPES["bfloat16"], (2,))
    ours = io.BytesIO()
    import ml_dtypes

    array = np.ones(2, ml_dtypes.bfloat16)
    state = StateSpec({"w": spec, "tied": spec}, {"tied": "w"})
    write_npz(ours, [("w", array)], spec=state, metadata={"note": "x"})
    yield Sample("npz-ours", "npz", "model.npz", ours.getvalue())


@cache
def samples() -> tuple[Sample, ...]:
    """All of them, in a fixed order."""
    found: list[Sample] = []
    makers = (_of_torch, _legacy, _torchscript, _bare, _safetensors, _sharded, _lerobot, _stable_baselines, _npz)
    for make in makers:
        found += make()
    return tuple(found)
