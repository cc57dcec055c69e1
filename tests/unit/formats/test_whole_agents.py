"""Whole agents, pickled as objects: every tensor under the name that its own code would give it, nothing imported."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy
from torch_reference import bits, check_reads_as_torch, save
from weightkit.cli.main import main
from weightkit.core.checkpoint import Checkpoint
from weightkit.formats import open_checkpoint
from whole_agents import DEFAULT, SMALL, expected_of, importable, parameters_of, save_drqv2

LAYOUTS = [(protocol, legacy) for legacy in (False, True) for protocol in (2, 3, 4, 5)]


def check_values(found: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    """Names and bits."""
    assert set(found.state) == set(expected)
    for name, tensor in expected.items():
        array = found.read(name)
        assert array.shape == tuple(tensor.shape), name
        assert array.tobytes() == bits(tensor), name


@pytest.mark.parametrize(("protocol", "legacy"), LAYOUTS)
def test_a_drqv2_snapshot_lists_its_nets_and_optimizers(
    protocol: int, legacy: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "snapshot.pt"
    agent = save_drqv2(path, SMALL, protocol=protocol, legacy=legacy)
    found = open_checkpoint(path)
    assert (found.root, found.verdict) == ("agent", "opaque")
    assert found.format == ("torch_legacy" if legacy else "torch_zip")
    check_values(found, expected_of(agent))
    assert found.state.aliases == {}  # the target is a copy of the critic, the optimizers' parameters are no tensors
    assert [finding.code for finding in found.findings] == ["WK104"]
    assert (found.metadata["_global_step"], found.metadata["_global_episode"]) == (1000, 4)
    assert not {"drqv2", "utils"} & set(sys.modules)
    assert main_exit(["inspect", str(path)]) == 0
    assert "opaque" in capsys.readouterr().out


def main_exit(words: list[str]) -> object:
    """The exit code of the command line."""
    try:
        main(words)
    except SystemExit as end:
        return end.code or 0
    return 0


def test_the_names_and_counts_are_those_of_the_default_agent(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pt"
    agent = save_drqv2(path, DEFAULT)
    found = open_checkpoint(path)
    counts = dict.fromkeys(agent.nets, 0)
    for name, spec in found.state.items():
        if name.split(".")[0] in counts:
            counts[name.split(".")[0]] += prod(spec.shape)
    assert counts == {"encoder": 30_368, "actor": 3_074_274, "critic": 4_190_424, "critic_target": 4_190_424}
    assert counts == {name: parameters_of(net) for name, net in agent.nets.items()}
    shapes = {name: list(spec.shape) for name, spec in found.state.items()}
    assert shapes["encoder.convnet.0.weight"] == [32, 9, 3, 3]
    assert shapes["actor.trunk.0.weight"] == shapes["critic_target.trunk.0.weight"] == [50, 39200]
    assert shapes["actor.policy.4.weight"] == [12, 1024]
    assert shapes["critic.Q2.0.weight"] == [1024, 62]
    moments = "encoder_opt.state.encoder.convnet.0.weight"
    assert shapes[f"{moments}.exp_avg"] == shapes[f"{moments}.exp_avg_sq"] == [32, 9, 3, 3]
    assert shapes[f"{moments}.step"] == []
    for name in ("encoder.convnet.6.bias", "critic.trunk.1.weight", f"{moments}.exp_avg", "critic_target.Q1.4.weight"):
        assert found.read(name).tobytes() == bits(expected_of(agent)[name])


def test_the_target_is_not_taken_for_the_critic(tmp_path: Path) -> None:
    """Right after the copy both hold the same values; they are two tensors all the same."""
    path = tmp_path / "snapshot.pt"
    with importable() as modules:
        agent = modules["drqv2"].DrQV2Agent(*SMALL)
        save({"agent": agent}, path)
    found = open_checkpoint(path)
    name = "trunk.0.weight"
    assert found.read(f"critic.{name}").tobytes() == found.read(f"critic_target.{name}").tobytes()
    assert found.state.canonical(f"critic_target.{name}") == f"critic_target.{name}"


def test_an_encoder_that_two_nets_share_has_two_names_and_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.pt"
    with importable() as modules:
        agent = modules["drqv2"].DrQV2Agent(*SMALL)
        agent.critic.encoder = agent.encoder
        agent.actor.first = nn.Parameter(agent.encoder.convnet[0].weight.detach())  # another Parameter on its storage
        save({"agent": agent}, path)
        check_reads_as_torch_by_nets(path, agent)
    found = open_checkpoint(path)
    name = "convnet.0.weight"
    assert found.state.aliases[f"critic.encoder.{name}"] == f"encoder.{name}"
    assert found.state.aliases["actor.first"] == f"encoder.{name}"


def check_reads_as_torch_by_nets(path: Path, agent: Any) -> None:
    """Each net of the agent against what torch.load makes of it."""
    loaded = torch.load(path, weights_only=False)["agent"]
    found = open_checkpoint(path)
    for name, net in loaded.nets.items():
        for key, tensor in net.state_dict().items():
            assert found.read(f"{name}.{key}").tobytes() == bits(tensor)
    assert set(loaded.nets) == set(agent.nets)


def test_reading_in_a_fresh_process_imports_no_torch_and_none_of_the_agents_modules(tmp_path: Path) -> None:
    """A module of that name lies in the working directory, where an import would find it."""
    path = tmp_path / "snapshot.pt"
    save_drqv2(path, SMALL)
    for name in ("drqv2", "utils"):
        (tmp_path / f"{name}.py").write_text(f"open('{name} ran', 'w')\n", encoding="utf-8")
    code = (
        "import sys; sys.path.insert(0, '.'); from weightkit.formats import open_checkpoint\n"
        "found = open_checkpoint('snapshot.pt'); [found.read(name) for name in found.state]\n"
        "print(sorted({'drqv2', 'utils', 'torch', 'pickle', 'zipfile'} & set(sys.modules)), len(found.state))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    imported, _, count = ran.stdout.strip().rpartition(" ")
    assert (json.loads(imported.replace("'", '"')), int(count)) == (numpys_own(), len(open_checkpoint(path).state))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["drqv2.py", "snapshot.pt", "utils.py"]


def numpys_own() -> list[str]:
    """What numpy and ml_dtypes import by themselves."""
    code = "import sys, numpy, ml_dtypes; print(*sorted({'pickle', 'zipfile'} & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_robobase_snapshot_of_state_dicts_is_read(legacy: bool, tmp_path: Path) -> None:
    policy = drqv2_policy(SMALL_DRQV2, 1)
    state = robobase_state(policy)
    cfg = cfg_of(drqv2_config(SMALL_DRQV2))
    path = save_robobase(tmp_path / "a.pt", state, cfg=cfg)
    if legacy:
        save(torch.load(path, weights_only=True), path, legacy=True)
    found = check_reads_as_torch(path)
    assert (found.root, found.verdict, found.metadata["cfg"]) == ("agent", "data", cfg)
    assert set(found.state.aliases) == {name for name in state if name.startswith("actor.actor_model.")}


OMEGACONF = """
class Holder:
    def __init__(self, **state):
        self.__dict__.update(state)

class AnyNode(Holder):
    pass

class DictConfig(Holder):
    pass

class ListConfig(Holder):
    pass

class Metadata(Holder):
    pass
"""


def test_an_omegaconf_configuration_is_plain_values(tmp_path: Path) -> None:
    """RoboBase pickles its configuration as nodes: containers with ``_content``, leaves with ``_val``."""
    source = tmp_path / "stand_in.py"
    source.write_text(OMEGACONF, encoding="utf-8")
    names = dict.fromkeys(("omegaconf", "omegaconf.dictconfig", "omegaconf.listconfig", "omegaconf.nodes"), source)
    path = tmp_path / "a.pt"
    already = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "omegaconf"}
    try:
        with importable(names) as modules:

            def node(value: Any) -> Any:
                meta = modules["omegaconf"].Metadata(ref_type=Any, key=None, optional=True)
                if isinstance(value, dict):
                    content = {key: node(inner) for key, inner in value.items()}
                    return modules["omegaconf.dictconfig"].DictConfig(_metadata=meta, _content=content, _parent=None)
                if isinstance(value, list):
                    content_list = [node(inner) for inner in value]
                    return modules["omegaconf.listconfig"].ListConfig(_metadata=meta, _content=content_list)
                return modules["omegaconf.nodes"].AnyNode(_metadata=meta, _val=value)

            cfg = {"frame_stack": 3, "shape": [84, 84], "method": {"lr": 1e-4, "schedule": "${env.s}", "none": None}}
            save({"_main_loop_iterations": 7, "cfg": node(cfg), "agent": {"w": torch.ones(2)}}, path)
    finally:
        sys.modules.update(already)
    found = open_checkpoint(path)
    assert (found.root, list(found.state), found.verdict) == ("agent", ["w"], "opaque")
    assert found.metadata["cfg"] == cfg
    assert not [name for name in sys.modules if name.startswith("omegaconf") and name not in already]


# ---- wrappers that change names


class Net(nn.Module):
    """What gets wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.mark.parametrize("legacy", [False, True])
def test_data_parallel_keeps_its_prefix(legacy: bool, tmp_path: Path) -> None:
    wrapped = nn.DataParallel(Net())
    found = check_reads_as_torch(save({"net": wrapped, "state": wrapped.state_dict(), "n": 1}, tmp_path / "a.pt"))
    assert "net.module.body.0.weight" in found.state
    assert found.state.aliases["state.module.body.0.weight"] == "net.module.body.0.weight"


def test_an_averaged_copy_is_a_net_of_its_own(tmp_path: Path) -> None:
    net = Net()
    averaged = torch.optim.swa_utils.AveragedModel(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    averaged.update_parameters(net)
    by_hand = copy.deepcopy(net)
    found = check_reads_as_torch(save({"net": net, "ema": averaged, "copy": by_hand}, tmp_path / "a.pt"))
    assert found.state["ema.n_averaged"].shape == ()
    assert {"net.body.0.weight", "ema.module.body.0.weight", "copy.body.0.weight"} <= set(found.state)
    assert found.state.aliases == {}


class OptimizedModule(nn.Module):
    """As torch.compile wraps a module: the original is a submodule called ``_orig_mod``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._modules["_orig_mod"] = module


def test_compiled_modules_keep_the_name_of_the_original(tmp_path: Path) -> None:
    wrapped = OptimizedModule(Net())
    names = set(wrapped.state_dict())
    assert "_orig_mod.body.0.weight" in names
    assert set(check_reads_as_torch(save({"model": wrapped.state_dict()}, tmp_path / "a.pt")).state) == names
    assert set(check_reads_as_torch(save(wrapped, tmp_path / "b.pt")).state) == names


@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "AdamW", "Adagrad"])
def test_the_state_of_other_optimizers_has_the_names_of_its_parameters(kind: str, tmp_path: Path) -> None:
    net = Net()
    options = {"momentum": 0.9} if kind in ("SGD", "RMSprop") else {}
    body = list(net.body[0].parameters()), list(net.body[1].parameters())
    optimizer = getattr(torch.optim, kind)([{"params": body[0]}, {"params": body[1], "lr": 0.5}], lr=0.1, **options)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    path = save({"net": net, "optimizer": optimizer, "by_number": optimizer.state_dict()}, tmp_path / "a.pt")
    found = open_checkpoint(path)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    for number, (parameter, state) in enumerate(optimizer.state.items()):
        for key, tensor in state.items():
            if isinstance(tensor, torch.Tensor):
                name = f"optimizer.state.net.{names[id(parameter)]}.{key}"
                assert found.read(name).tobytes() == bits(tensor)
                assert found.state.canonical(f"by_number.state.{number}.{key}") == found.state.canonical(name)
    groups = found.metadata["optimizer"]["param_groups"]  # type: ignore[index]
    assert [group["params"] for group in groups] == [
        ["net.body.0.weight", "net.body.0.bias"],
        ["net.body.1.weight", "net.body.1.bias"],
    ]


class OwnState:
    """An object that decides itself what its state is."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __getstate__(self) -> Any:
        return self.state

    def __setstate__(self, state: Any) -> None:
        self.state = state


@pytest.mark.parametrize(
    "make",
    [
        lambda tensor: OwnState(tensor),
        lambda tensor: OwnState([tensor, 3]),
        lambda tensor: OwnState((tensor, tensor + 1, 3)),
        lambda tensor: OwnState((tensor, 3)),
        lambda tensor: OwnState({"inside": {"w": tensor}}),
        lambda tensor: tensor.untyped_storage(),
    ],
    ids=["a tensor", "a list", "a tuple", "a pair", "a dict", "a storage"],
)
def test_no_tensor_of_an_object_is_lost_without_a_word(make: Any, tmp_path: Path) -> None:
    """Where there is no name for it, a finding says that something is there."""
    path = save({"model": {"w": torch.zeros(1)}, "held": make(torch.ones(2))}, tmp_path / "a.pt")
    found = open_checkpoint(path)
    listed = [name for name in found.state if name.startswith("held")]
    said = [finding for finding in found.findings if finding.code not in ("WK104", "WK107")]
    assert listed or said
