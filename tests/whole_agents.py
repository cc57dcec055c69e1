"""Snapshots that hold whole objects of modules which cannot be imported any more when they are read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from torch_reference import save

HERE = Path(__file__).parent
STAND_INS = {"drqv2": HERE / "drqv2_agent.py", "utils": HERE / "drqv2_timer.py"}
# channels, actions, width of the encoder, features, hidden units
SMALL = (2, 2, 1, 3, 4)
DEFAULT = (9, 12, 32, 50, 1024)


@contextmanager
def importable(files: dict[str, Path] = STAND_INS) -> Iterator[dict[str, ModuleType]]:
    """Within the block these modules can be imported under these names, afterwards they cannot."""
    loaded: dict[str, ModuleType] = {}
    try:
        for name, path in files.items():
            assert name not in sys.modules
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec is not None
            assert spec.loader is not None
            loaded[name] = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[name])
        yield loaded
    finally:
        for name in loaded:
            sys.modules.pop(name, None)


def save_drqv2(
    path: Path, sizes: tuple[int, ...] = SMALL, *, protocol: int = 2, legacy: bool = False, seed: int = 0
) -> Any:
    """drqv2's ``snapshot.pt`` after one step of its optimizers; returns the agent."""
    torch.manual_seed(seed)
    with importable() as modules:
        agent = modules["drqv2"].DrQV2Agent(*sizes)
        agent.step()
        snapshot = {
            "agent": agent,
            "timer": modules["utils"].Timer(),
            "_global_step": 1000,
            "_global_episode": 4,
        }
        save(snapshot, path, protocol=protocol, legacy=legacy)
    return agent


def expected_of(agent: Any) -> dict[str, torch.Tensor]:
    """Name below ``agent`` -> tensor: the nets by their state_dict(), the optimizers by their parameters."""
    expected: dict[str, torch.Tensor] = {}
    for name, net in agent.nets.items():
        expected |= {f"{name}.{key}": tensor for key, tensor in net.state_dict().items()}
    for name, optimizer in agent.optimizers.items():
        keys = {id(parameter): key for key, parameter in agent.nets[name].named_parameters()}
        for parameter, state in optimizer.state.items():
            for kind, tensor in state.items():
                expected[f"{name}_opt.state.{name}.{keys[id(parameter)]}.{kind}"] = tensor
    return expected


def parameters_of(net: nn.Module) -> int:
    """How many numbers a net has."""
    return sum(parameter.numel() for parameter in net.parameters())
