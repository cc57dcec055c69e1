"""LeRobot's checkpoint folders, built here as LeRobot lays them out, and a real one where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from locations import SHARED
from unit.formats.pickles import archive, dict_with
from weightkit.cli.main import main
from weightkit.core.report import Severity
from weightkit.errors import CorruptFile, FormatError, LimitExceeded, UnsafeContent
from weightkit.formats import Limits, detect, open_checkpoint

REAL = SHARED / "real" / "lerobot044_sac_shared"
PAYLOAD = b"cos\nsystem\n(X\x04\x00\x00\x00truetR"
CONFIG = {"type": "sac", "input_features": {"observation.state": {"shape": [2]}}, "output_features": {}}
POLICY = {
    "actor.encoder.weight": torch.arange(6.0).reshape(2, 3),
    "actor.mean_layer.bias": torch.ones(2),
    "log_alpha": torch.zeros(1),
}
SHARED_NAMES = {
    "encoder_critic.weight": "actor.encoder.weight",
    "critic_ensemble.encoder.weight": "actor.encoder.weight",
}
STATISTICS = {"observation.state.mean": torch.ones(2), "observation.state.std": torch.full((2,), 2.0)}
PRE, POST = "policy_preprocessor", "policy_postprocessor"


def put(path: Path, document: object) -> None:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=4))


def tensors(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, path, metadata=metadata)


def policy(folder: Path, **config: object) -> Path:
    """``pretrained_model/`` as save_pretrained writes it, with both processors."""
    put(folder / "config.json", {**CONFIG, **config})
    put(folder / "train_config.json", {"seed": 3})
    tensors(folder / "model.safetensors", POLICY, {"format": "pt", **SHARED_NAMES})
    for name, step, place in ((PRE, "normalizer_processor", 1), (POST, "unnormalizer_processor", 0)):
        state_file = f"{name}_step_{place}_{step}.safetensors"
        with_state = {"registry_name": step, "config": {"eps": 1e-8}, "state_file": state_file}
        steps: list[dict[str, object]] = [{"registry_name": "device_processor", "config": {}}]
        steps.insert(place, with_state)
        put(folder / f"{name}.json", {"name": name, "steps": steps})
        tensors(folder / state_file, STATISTICS)
    return folder


def checkpoint(folder: Path, **config: object) -> Path:
    """``000100/`` as save_checkpoint writes it."""
    policy(folder / "pretrained_model", **config)
    state = folder / "training_state"
    put(state / "training_step.json", {"step": 100})
    tensors(state / "rng_state.safetensors", {"py_rng_state": torch.arange(3)})
    for name in ("actor", "critic"):
        tensors(
            state / name / "optimizer_state.safetensors",
            {"state/0/exp_avg": torch.ones(2), "state/0/step": torch.ones(())},
        )
        put(state / name / "optimizer_param_groups.json", [{"lr": 3e-4, "params": [0]}])
    return folder


def refused(path: Path, said: str) -> FormatError:
    """The error of opening ``path``, which must match ``said``."""
    with pytest.raises(FormatError, match=said) as error:
        open_checkpoint(path)
    return error.value


def rewrite(path: Path, **changed: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_a_policy_folder_is_its_tensors_second_names_and_statistics(tmp_path: Path) -> None:
    found = open_checkpoint(policy(tmp_path))
    assert (found.format, found.verdict, found.root, found.findings) == ("lerobot_dir", None, "", ())
    assert found.state.aliases == SHARED_NAMES
    statistics = [f"{PRE}.normalizer_processor.{name}" for name in STATISTICS]
    statistics += [f"{POST}.unnormalizer_processor.{name}" for name in STATISTICS]
    assert set(found.state) == {*POLICY, *SHARED_NAMES, *statistics}
    for name, value in POLICY.items():
        np.testing.assert_array_equal(found.read(name), value.numpy())
    np.testing.assert_array_equal(found.read("encoder_critic.weight"), POLICY["actor.encoder.weight"].numpy())
    np.testing.assert_array_equal(found.read(statistics[1]), [2, 2])
    assert found.metadata["config"] == CONFIG
    assert found.metadata["train_config"] == {"seed": 3}
    processor: Any = found.metadata[PRE]
    assert [step["registry_name"] for step in processor["steps"]] == ["device_processor", "normalizer_processor"]


def test_a_checkpoint_folder_adds_the_training_state(tmp_path: Path) -> None:
    found = open_checkpoint(checkpoint(tmp_path / "000100"))
    expected = {f"training_state.{name}.state.0.{key}" for name in ("actor", "critic") for key in ("exp_avg", "step")}
    listed = {name for name in found.state if name.startswith("training_state.")}
    assert listed == {*expected, "training_state.rng_state.py_rng_state"}
    assert set(POLICY) < set(found.state)
    assert found.metadata["training_step"] == {"step": 100}
    state: Any = found.metadata["training_state"]
    assert state["actor"] == {"param_groups": [{"lr": 3e-4, "params": [0]}]}
    assert found.findings == ()


def test_a_single_optimizer_lies_in_the_training_state_itself(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    tensors(tmp_path / "training_state" / "optimizer_state.safetensors", {"state/a.weight/exp_avg": torch.ones(1)})
    put(tmp_path / "training_state" / "scheduler_state.json", {"last_epoch": 4})
    found = open_checkpoint(tmp_path)
    assert "training_state.state.a.weight.exp_avg" in found.state
    state: Any = found.metadata["training_state"]
    assert state["scheduler_state"] == {"last_epoch": 4}


@pytest.mark.parametrize("inside", ["", "pretrained_model"])
def test_the_algorithm_of_later_versions_is_read_from_either_place(inside: str, tmp_path: Path) -> None:
    checkpoint(tmp_path, type="gaussian_actor")
    folder = tmp_path / inside / "algorithm"
    put(folder / "config.json", {"type": "sac", "discount": 0.99})
    tensors(folder / "model.safetensors", {"critic_ensemble.critics.0.weight": torch.full((2,), 5.0)})
    found = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(found.read("critic_ensemble.critics.0.weight"), [5, 5])
    assert found.metadata["algorithm"] == {"type": "sac", "discount": 0.99}
    assert found.metadata["config"] == {**CONFIG, "type": "gaussian_actor"}
    alone = open_checkpoint(tmp_path / "pretrained_model")
    assert ("critic_ensemble.critics.0.weight" in alone.state) == bool(inside)
    other = tmp_path / ("" if inside else "pretrained_model") / "algorithm"
    tensors(other / "model.safetensors", {"x": torch.ones(1)})
    refused(tmp_path, "two folders hold an algorithm")


@pytest.mark.parametrize("name", ["log_alpha", "encoder_critic.weight"])
def test_a_name_in_policy_and_algorithm_is_refused_with_both_files(name: str, tmp_path: Path) -> None:
    checkpoint(tmp_path)
    tensors(tmp_path / "algorithm" / "model.safetensors", {name: torch.ones(1)})
    error = refused(tmp_path, f"both be called '{name}'")
    assert isinstance(error, CorruptFile)
    assert "pretrained_model/model.safetensors" in error.message
    assert "algorithm/model.safetensors" in error.message


def test_a_run_says_which_checkpoints_it_holds_and_what_to_type(tmp_path: Path) -> None:
    for step in ("000100", "000200"):
        checkpoint(tmp_path / "checkpoints" / step)
    os.symlink("000200", tmp_path / "checkpoints" / "last")
    for path in (tmp_path, tmp_path / "checkpoints"):
        error = refused(path, "a run of LeRobot with 3 checkpoints.*000100, 000200, last")
        assert error.hint == f"name one of them: {tmp_path / 'checkpoints' / 'last'}"
    found = open_checkpoint(tmp_path / "checkpoints" / "last")
    assert found.path == str(tmp_path / "checkpoints" / "last")
    assert found.metadata["training_step"] == {"step": 100}


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b", "..", "", "a\0b", 7, ["x"]])
def test_a_state_file_that_lies_elsewhere_is_refused(name: object, tmp_path: Path) -> None:
    policy(tmp_path / "p")
    tensors(tmp_path / "model.safetensors", STATISTICS)
    put(tmp_path / "p" / f"{PRE}.json", {"name": PRE, "steps": [{"registry_name": "n", "state_file": name}]})
    refused(tmp_path / "p", f"{PRE}.json: refers to the file .*plain name")


def test_a_state_file_that_is_missing_or_used_twice_is_refused(tmp_path: Path) -> None:
    policy(tmp_path)
    step = {"registry_name": "n", "state_file": "gone.safetensors"}
    put(tmp_path / f"{PRE}.json", {"steps": [step]})
    refused(tmp_path, rf"gone\.safetensors: there is no such file; .*{PRE}\.json refers to it")
    tensors(tmp_path / "gone.safetensors", STATISTICS)
    put(tmp_path / f"{PRE}.json", {"steps": [step, step]})
    refused(tmp_path, "two steps keep their state")


def test_steps_are_named_by_registry_class_or_place_and_never_alike(tmp_path: Path) -> None:
    policy(tmp_path)
    for letter in "abcd":
        tensors(tmp_path / f"{letter}.safetensors", {"x": torch.ones(1)})
    steps = [
        {"registry_name": "n", "state_file": "a.safetensors"},
        {"registry_name": "n", "state_file": "b.safetensors"},
        {"class": "my.project.Step", "state_file": "c.safetensors"},
        {"state_file": "d.safetensors"},
    ]
    put(tmp_path / f"{PRE}.json", {"steps": steps})
    names = {name for name in open_checkpoint(tmp_path).state if name.startswith(PRE)}
    assert names == {f"{PRE}.n.x", f"{PRE}.n_1.x", f"{PRE}.Step.x", f"{PRE}.step_3.x"}


def test_statistics_that_no_step_names_are_a_finding(tmp_path: Path) -> None:
    policy(tmp_path)
    tensors(tmp_path / f"{PRE}_step_9_old.safetensors", STATISTICS)
    (finding,) = open_checkpoint(tmp_path).findings
    assert (finding.code, finding.severity) == ("WK106", Severity.WARNING)
    assert "step_9_old" in finding.message


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "train_config.json",
        f"{PRE}.json",
        f"{PRE}_step_1_normalizer_processor.safetensors",
    ],
)
def test_a_link_inside_a_policy_is_not_followed(name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "000100") / "pretrained_model"
    (folder / name).rename(tmp_path / "outside")
    os.symlink(tmp_path / "outside", folder / name)
    refused(tmp_path / "000100", "symbolic link")


@pytest.mark.parametrize("name", ["pretrained_model", "training_state", "training_state/actor", "algorithm"])
def test_a_folder_that_is_a_link_is_not_followed(name: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "000100")
    tensors(folder / "algorithm" / "model.safetensors", {"x": torch.ones(1)})
    (folder / name).rename(tmp_path / "outside")
    os.symlink(tmp_path / "outside", folder / name)
    assert "symbolic link" in refused(folder, "symbolic link").message


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", '{"type": "sac", "type": "x", "input_features": {}, "output_features": {}}', "stands twice"),
        ("train_config.json", "[]", "expected a JSON object"),
        ("train_config.json", "{", "not JSON"),
        (f"{PRE}.json", '{"steps": {}}', "expected a list of objects at steps"),
        (f"{PRE}.json", '{"steps": [1]}', "expected a list of objects at steps"),
        (f"{PRE}.json", "\x00{}", "not JSON"),
        ("../training_state/training_step.json", "7", "expected a JSON object"),
    ],
)
def test_json_that_is_malformed_is_refused(name: str, text: str, said: str, tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "pretrained_model" / name).write_text(text)
    refused(tmp_path, said)


def test_huge_json_and_too_many_tensors_together_cost_a_limit(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "pretrained_model" / "train_config.json").write_text('{"a": "' + "x" * 5000 + '"}')
    for limits, said in ((Limits(json_bytes=4000), "json_bytes=4000"), (Limits(tensors=10), "tensors=10")):
        with pytest.raises(LimitExceeded, match=said):
            open_checkpoint(tmp_path, limits)


def test_a_folder_without_its_weights_says_so(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "pretrained_model" / "model.safetensors").unlink()
    refused(tmp_path, r"pretrained_model/model\.safetensors: there is no such file")
    refused(tmp_path / "pretrained_model", "no such file")


def test_the_pickle_in_the_training_state_is_judged_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(tmp_path)
    path = tmp_path / "training_state" / "training_state.pt"
    torch.save({"step": 100, "interaction_step": 7}, path)
    found = open_checkpoint(tmp_path)
    assert (found.verdict, found.findings) == ("data", ())
    state: Any = found.metadata["training_state"]
    assert state["training_state.pt"] == {"step": 100, "interaction_step": 7}
    path.write_bytes(archive(dict_with(PAYLOAD)))
    found = open_checkpoint(tmp_path)
    assert found.verdict == "unsafe"
    assert "training_state.training_state.w" in found.state
    assert all("training_state.pt" in finding.message for finding in found.findings if finding.code == "WK103")
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(tmp_path)])
    assert end.value.code == 4
    assert "training_state.pt" in "".join(capsys.readouterr())
    path.write_bytes(b"\x80\x02" + PAYLOAD + b".")
    with pytest.raises(UnsafeContent, match=r"os\.system"):
        open_checkpoint(tmp_path)


def test_unknown_files_in_the_training_state_are_a_finding(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "training_state" / "notes.bin").write_bytes(b"x")
    (finding,) = open_checkpoint(tmp_path).findings
    assert finding.code == "WK106"
    assert "notes.bin" in finding.message


def test_another_projects_folder_is_not_taken_for_lerobots(tmp_path: Path) -> None:
    tensors(tmp_path / "model.safetensors", POLICY)
    put(tmp_path / "config.json", {"model_type": "bert", "type": "x"})
    assert detect(tmp_path).name == "sharded_dir"
    rewrite(tmp_path / "config.json", **CONFIG)
    assert detect(tmp_path).name == "lerobot_dir"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real LeRobot checkpoint stands beside this checkout")
def test_a_real_checkpoint_has_the_names_and_values_of_its_files() -> None:
    folder = REAL / "pretrained_model"
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        keys, metadata = set(file.keys()), file.metadata() or {}
    aliases = {name: first for name, first in metadata.items() if first in keys}
    statistics = {
        f"{name}.{step}.{key}"
        for name, step, place in ((PRE, "normalizer_processor", 3), (POST, "unnormalizer_processor", 0))
        for key in safetensors.torch.load_file(folder / f"{name}_step_{place}_{step}.safetensors")
    }
    found = open_checkpoint(folder)
    assert set(found.state) == keys | aliases.keys() | statistics
    assert found.state.aliases == aliases
    assert found.metadata["config"] == json.loads((folder / "config.json").read_text())
    for name, value in safetensors.torch.load_file(folder / "model.safetensors").items():
        np.testing.assert_array_equal(found.read(name), value.numpy())


@pytest.mark.skipif(not REAL.is_dir(), reason="no real LeRobot checkpoint stands beside this checkout")
def test_a_real_training_state_is_listed_whole() -> None:
    found = open_checkpoint(REAL)
    for name in ("actor", "critic", "temperature"):
        reference = safetensors.torch.load_file(REAL / "training_state" / name / "optimizer_state.safetensors")
        for key, value in reference.items():
            np.testing.assert_array_equal(found.read(f"training_state.{name}.{key.replace('/', '.')}"), value.numpy())
    assert found.metadata["training_step"] == {"step": 6}
    assert (found.verdict, found.findings) == (None, ())
