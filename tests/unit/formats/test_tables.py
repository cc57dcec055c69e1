"""The tables of what a pickle may name are honest: what they list is what they say, and honest objects are not unsafe.

The names are looked up in the installed standard library, torch and numpy, as an unpickler would.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import fractions
import importlib
import io
import pathlib
import pickle
import pkgutil
import random
import sys
import types
import typing
import uuid
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from weightkit.formats import _pickle_policy as policy
from weightkit.formats import _pickle_tables as tables
from weightkit.formats import open_checkpoint
from weightkit.formats._pickle_records import Ref

INSTALLED = sys.stdlib_module_names | {"torch", "numpy"}
# Functions that the tables list: each of them is meant to be called, and is looked at call by call.
FUNCTIONS = tables.REBUILDS | tables.ARGUMENT_CHECKED | tables.VALUES | tables.IDENTITIES
# Their modules run demonstrations, need other machines, or warn that they are old.
LEFT_OUT = ("torch.nn.quantizable", "torch.distributed", "torch.testing")


def listed() -> list[str]:
    """Every name of the tables that is data or ordinary."""
    found = tables.CALLABLE | tables.ARGUMENT_CHECKED | tables.PLAIN_TYPES | tables.TENSOR_TYPES | tables.ORDINARY
    names = {*found, *tables.SINGLETONS, *(f"torch.{name}" for name in tables.TORCH_CONSTANTS)}
    return sorted(name for name in names if name.partition(".")[0] in INSTALLED)


def resolved(path: str) -> Any:
    """What an unpickler would find, NotImplemented where this version has no such name."""
    module, _, name = path.rpartition(".")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return NotImplemented


@pytest.mark.parametrize("path", listed())
def test_a_listed_name_is_no_module_and_no_function_but_those_meant(path: str) -> None:
    found = resolved(path)
    assert not isinstance(found, types.ModuleType)
    if isinstance(found, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        assert path in FUNCTIONS or path.startswith("torch.nn.functional.")


def test_most_listed_names_are_there() -> None:
    """So that the test above looks at something."""
    there = [path for path in listed() if resolved(path) is not NotImplemented]
    assert len(there) > 0.75 * len(listed()), sorted(set(listed()) - set(there))


@cache
def ordinary_modules() -> tuple[str, ...]:
    """Every installed module of which the classes are ordinary."""
    found: dict[str, None] = {}
    for prefix in tables.ORDINARY_MODULES:
        root = importlib.import_module(prefix.rstrip("."))
        found[root.__name__] = None
        for each in pkgutil.walk_packages(getattr(root, "__path__", []), prefix, onerror=lambda name: None):
            if not each.name.startswith(LEFT_OUT):
                found[each.name] = None
    return tuple(found)


def public(module: str) -> dict[str, Any]:
    """What the module has, where it can be imported here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(vars(importlib.import_module(module)))
    except Exception:
        return {}


def is_class(thing: Any) -> bool:
    """A class, an alias or special form that stands for one, or a number, text or tuple: nothing to call or change."""
    aliases = ("typing", "typing_extensions", "types", "enum", "collections.abc", "datetime")
    if isinstance(thing, (types.ModuleType, types.FunctionType)):
        return False
    return isinstance(thing, (type, bool, int, float, str, tuple)) or type(thing).__module__ in aliases


def test_the_ordinary_modules_are_there() -> None:
    assert len(ordinary_modules()) > 100
    assert sum(map(bool, map(public, ordinary_modules()))) > 0.9 * len(ordinary_modules())


@pytest.mark.parametrize("module", ordinary_modules())
def test_below_an_ordinary_prefix_only_classes_can_be_named(module: str) -> None:
    named = {f"{module}.{name}": held for name, held in public(module).items() if passes(f"{module}.{name}")}
    wrong = {path: type(held).__name__ for path, held in named.items() if not is_class(held)}
    assert not wrong.keys() - tables.ORDINARY - FUNCTIONS, wrong


def passes(path: str) -> bool:
    """Whether naming it is let through, as data or as ordinary."""
    module, _, name = path.rpartition(".")
    found = policy.judge_ref(Ref(module, name, 0))
    return found is None or found.level != "unsafe"


ACTING = (
    "os",
    "posix",
    "subprocess",
    "importlib",
    "sys",
    "pickle",
    "shutil",
    "builtins",
    "torch.hub",
    "typing",
    "types",
)


@pytest.mark.parametrize("root", ACTING)
def test_of_a_module_that_does_things_no_function_passes(root: str) -> None:
    names = {f"{root}.{name}" for name, held in public(root).items() if isinstance(held, types.BuiltinFunctionType)}
    names |= {f"{root}.{name}" for name, held in public(root).items() if isinstance(held, types.FunctionType)}
    assert sorted(path for path in names if passes(path)) == []


class Plain:
    """A class of a project's own, as a configuration is kept."""

    def __init__(self) -> None:
        self._content = {"lr": 1e-4, "layers": [256, 256]}
        self._metadata = argparse.Namespace(name="x")


def _modules() -> dict[str, Any]:
    modules: list[Any] = [
        nn.Linear(2, 3), nn.Bilinear(2, 3, 4), nn.Conv1d(1, 2, 1), nn.Conv2d(1, 2, 3, padding="same"),
        nn.Conv3d(1, 2, 1),
        nn.ConvTranspose2d(1, 2, 1), nn.BatchNorm2d(2), nn.SyncBatchNorm(2), nn.InstanceNorm1d(2), nn.GroupNorm(1, 2),
        nn.LayerNorm(2), nn.RMSNorm(2), nn.LocalResponseNorm(2), nn.GRU(2, 3), nn.LSTM(2, 3, 2), nn.RNN(2, 3),
        nn.GRUCell(2, 3), nn.LSTMCell(2, 3), nn.Embedding(3, 2), nn.EmbeddingBag(3, 2), nn.MultiheadAttention(4, 2),
        nn.TransformerEncoderLayer(4, 2), nn.TransformerDecoderLayer(4, 2), nn.Transformer(4, 2, 1, 1, 8),
        nn.Sequential(nn.ReLU(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(), nn.PReLU(), nn.Softmax(-1)),
        nn.ModuleList([nn.Mish()]), nn.ModuleDict({"a": nn.Hardswish()}), nn.ParameterList([torch.ones(2)]),
        nn.ParameterDict({"a": torch.ones(2)}), nn.Dropout(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Unflatten(1, (1, 2)), nn.Upsample(scale_factor=2), nn.PixelShuffle(2), nn.ZeroPad2d(1),
        nn.ReflectionPad2d(1),
        nn.MSELoss(), nn.CrossEntropyLoss(), nn.SmoothL1Loss(), nn.AdaptiveLogSoftmaxWithLoss(4, 5, [2]), nn.Identity(),
        nn.CTCLoss(), nn.KLDivLoss(), nn.CosineSimilarity(), nn.Fold((2, 2), 1), nn.Unfold(1), nn.Threshold(1.0, 1.0),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).state_dict(), nn.utils.spectral_norm(nn.Linear(2, 2)),
        nn.Parameter(torch.ones(2)), nn.Buffer(torch.ones(2)), nn.DataParallel(nn.Linear(2, 2)),
        torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)).state_dict(),
    ]  # fmt: skip
    return {f"{type(module).__name__}-{index}": module for index, module in enumerate(modules)}


def _optimizers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind in (optim.Adam, optim.AdamW, optim.SGD, optim.RMSprop, optim.Adagrad, optim.NAdam, optim.RAdam,
                 optim.Adamax, optim.Adadelta, optim.ASGD, optim.Rprop):  # fmt: skip
        net = nn.Linear(2, 3)
        made: Any = kind(net.parameters(), lr=1e-3)
        net(torch.ones(1, 2)).sum().backward()
        made.step()
        found[kind.__name__] = made
        found[f"{kind.__name__}-state"] = made.state_dict()
    adam = found["Adam"]
    for name, schedule in {
        "step": optim.lr_scheduler.StepLR(adam, 1), "cosine": optim.lr_scheduler.CosineAnnealingLR(adam, 2),
        "exponential": optim.lr_scheduler.ExponentialLR(adam, 0.9), "linear": optim.lr_scheduler.LinearLR(adam),
        "plateau": optim.lr_scheduler.ReduceLROnPlateau(adam), "one": optim.lr_scheduler.OneCycleLR(adam, 1e-2, 10),
        "milestones": optim.lr_scheduler.MultiStepLR(adam, [1, 2]),
    }.items():  # fmt: skip
        found[f"schedule-{name}"] = schedule.state_dict()
        found[f"schedule-{name}-whole"] = schedule
    return found


def _values() -> dict[str, Any]:
    utc = datetime.timezone.utc
    numbers = np.arange(6.0).reshape(2, 3)
    found = collections.defaultdict(list, a=[1])
    return {
        "generator": torch.Generator().manual_seed(1), "random-state": np.random.RandomState(1),
        "generator-of-numpy": np.random.default_rng(1), "random": random.Random(1),
        "deque": collections.deque([1, 2], 5),
        **{f"bits-{name}": getattr(np.random, name)(1) for name in tables.BIT_GENERATORS},
        "seed": np.random.SeedSequence(1), "defaultdict": found, "counter": collections.Counter("aab"),
        "none-type": type(None), "version": torch.torch_version.TorchVersion("2.6.0"),
        "ellipsis": ..., "types": [int, str],
        "moment": datetime.datetime(2026, 1, 2, tzinfo=utc),
        "zone": datetime.timezone(datetime.timedelta(hours=2), "x"),
        "moments": [datetime.date(2026, 1, 2), datetime.time(1, 2), datetime.timedelta(1)], "complex": 1 + 2j,
        "path": pathlib.Path("a/b"), "paths": [pathlib.PurePosixPath("/a"), pathlib.PureWindowsPath("c:/a")],
        "decimal": decimal.Decimal("1.5"), "fraction": fractions.Fraction(1, 3), "uuid": uuid.UUID(int=1),
        "slices": [slice(1, 2), range(3)], "plain": Plain(), "namespace": argparse.Namespace(a=1, b=[2]),
        "simple": types.SimpleNamespace(a=1), "ordered": collections.OrderedDict(a=torch.ones(2)), "set": {1, 2},
        "frozen": frozenset([1]), "bytes": [b"x", bytearray(b"x")], "file": io.BytesIO(b"x"),
        "device": torch.device("cpu"), "dtype": [torch.float32, torch.bool], "size": torch.Size([1, 2]),
        "layout": [torch.strided, torch.sparse_coo],
        "storage": torch.ones(2).untyped_storage(),
        "sparse": torch.eye(2).to_sparse(), "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "nested": {"a": [torch.ones(2), (torch.zeros(3),)]}, "meta": torch.empty(2, device="meta"),
        "numpy": [numbers, numbers.T, np.asfortranarray(numbers), np.array(1.5), np.zeros((0, 3)), np.array([True])],
        "numpy-scalars": [np.float64(1.5), np.int8(1), np.bool_(True), np.complex64(1j), np.str_("x"), np.bytes_(b"x")],
        "numpy-kinds": [np.dtype("f4"), np.dtype([("a", "i4"), ("b", "f8")]), np.float32, np.int64],
        "numpy-others": [np.array(["ab"]), np.array([b"ab"]), np.array([1, "x"], dtype=object),
                         np.datetime64("2026-01-01")],
        "user": [collections.UserDict(a=1), collections.UserList([1]), collections.ChainMap({"a": 1})],
        "distribution": torch.distributions.Normal(torch.zeros(2), torch.ones(2)), "aliases": typing.Any,
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
    }  # fmt: skip


@cache
def honest() -> dict[str, Any]:
    """Objects as training loops keep them in checkpoints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        return {**_modules(), **_optimizers(), **_values()}


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("name", honest())
def test_an_honest_object_is_not_unsafe(name: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"w": torch.ones(2), "held": honest()[name]}, path, pickle_protocol=protocol)
        torch.load(path, weights_only=False)
    found = open_checkpoint(path)
    assert found.verdict in ("data", "opaque"), [finding.message for finding in found.findings]
    assert "w" in found.state


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", [name for name in honest() if name.startswith("numpy")])
def test_honest_arrays_are_not_unsafe_in_a_bare_pickle(name: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"held": honest()[name]}, protocol))
    assert open_checkpoint(path).verdict in ("data", "opaque")


@pytest.mark.parametrize(
    "module", ["telnetlib", "mailcap", "binhex", "_pyrepl", "imp", "tomllib", "Tix", "annotationlib"]
)
def test_the_verdict_does_not_depend_on_the_python_that_reads(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be loaded by another Python, in which the module is still there, or there already."""
    found = policy.judge_ref(Ref(module, "Anything", 0))
    assert found is not None
    assert found.level == "unsafe"
