"""LeRobot's SAC folders: recognised, their processors judged and carried, and written as LeRobot reads them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from ast import literal_eval
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from locations import FIXTURES
from sac_configs import PEERS, POSTPROCESSOR, PREPROCESSOR, SMALL, bare, opened, recognised
from weightkit.architectures import recognise
from weightkit.architectures.beside import array_of_json
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.layouts.lerobot_sac import LAYOUT as LEROBOT
from weightkit.architectures.sac.recognise import group_of
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import StateSpec, spec
from weightkit.errors import UsageError
from weightkit.formats import open_checkpoint


def about(found: Recognition, severity: Severity) -> list[str]:
    return [finding.subject for finding in found.findings if finding.severity is severity]


def finding(found: Recognition, subject: str) -> Finding:
    (only,) = (each for each in found.findings if each.subject == subject)
    return only


# ---- recognition


def test_what_bare_tensors_leave_open_is_said() -> None:
    found = recognise(opened(bare(replace(SMALL, cameras=("front",)))), {})
    assert found is not None
    assert found.config is not None
    assert {each.subject for each in found.findings} == {
        "cameras",
        "image_size",
        "std_min",
        "std_max",
        "freeze_vision_encoder",
    }
    assert "39 to 54 by 39 to 54 pixels fit the weights" in finding(found, "image_size").message
    assert all(each.code == "WK108" for each in found.findings)


def test_the_order_of_several_cameras_is_a_warning_and_may_be_said() -> None:
    checkpoint = opened(bare(SMALL))
    found = recognise(checkpoint, {})
    assert found is not None
    assert finding(found, "cameras").severity is Severity.WARNING
    said = recognise(checkpoint, {"cameras": "wrist,front"})
    assert said is not None
    assert said.config is not None
    assert said.config.cameras == ("wrist", "front")
    with pytest.raises(UsageError, match="the file has front, wrist"):
        recognise(checkpoint, {"cameras": "left,right"})


def test_a_size_that_the_weights_exclude_is_refused() -> None:
    found = recognise(opened(bare(SMALL)), {"image_size": "128x128"})
    assert found is not None
    assert found.config is None
    assert "39 to 54 by 39 to 54" in found.findings[-1].message


def document(**changes: Any) -> dict[str, object]:
    folder = LEROBOT.folder(SMALL, bare(SMALL), {}, {})
    config = folder.documents["config.json"]
    assert isinstance(config, dict)
    return {**config, **changes}


def test_a_configuration_that_contradicts_the_tensors_loses_and_that_is_said() -> None:
    found = recognise(opened(bare(SMALL), {"config": document(num_critics=3, latent_dim=7)}), {})
    assert found is not None
    assert found.config == SMALL
    assert about(found, Severity.WARNING) == ["latent_dim", "num_critics"]
    assert "config.json says 3, the tensors are of 2" in finding(found, "num_critics").message


@pytest.mark.parametrize(
    "changes",
    [
        {"critic_network_kwargs": {"final_activation": "CELU"}},
        {"output_features": {}},
        {"input_features": {"observation.state": 3}},
        {"policy_kwargs": []},
    ],
)
def test_a_configuration_of_no_net_that_is_known_is_a_finding(changes: dict[str, object]) -> None:
    found = recognise(opened(bare(SMALL), {"config": document(**changes)}), {})
    assert found is not None
    assert found.config is None
    assert [each.code for each in found.findings] == ["WK107"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("actor.mean_layer.weight", ()),
        ("actor.encoder.spatial_embeddings.observation_images_front.kernel", (4,)),
        ("actor.encoder.state_encoder.0.weight", (5,)),
        ("actor.network.net.0.weight", ()),
        ("critic_ensemble.critics.0.net.net.0.weight", ()),
        ("actor.encoder.image_encoder.image_enc_layers.0.weight", (0, 1)),
    ],
)
def test_tensors_of_other_shapes_are_a_finding_and_no_crash(name: str, shape: tuple[int, ...]) -> None:
    tensors = {**bare(SMALL).tensors, name: spec("float32", *shape)}
    found = recognise(opened(StateSpec(tensors)), {})
    assert found is not None
    assert found.config is None
    assert found.findings[-1].code == "WK107"


def test_every_tensor_of_a_folder_has_a_group_of_the_native_net_or_its_own() -> None:
    groups = {group.name for group in ARCHITECTURE.groups(SMALL)}
    around = {"training_state", "policy_preprocessor", "policy_postprocessor"}
    for name in ("lerobot044_shared", "lerobot044_separate_compiled", "lerobot061_separate"):
        state = open_checkpoint(PEERS / name).state
        found = {group_of(each) for each in state}
        assert found <= groups | around
        assert {"encoder.backbone", "encoder", "actor", "critic", "critic_target", "log_alpha"} <= found
    assert group_of("actor.encoder.image_encoder.image_enc_layers.0.weight") == "encoder.backbone"
    assert group_of("critic_ensemble._orig_mod.encoder.state_encoder.0.bias") == "critic_encoder"
    assert group_of("actor.encoder.image_encoder.image_enc_layers.encoder.stages.0.conv1.weight") == "encoder.backbone"


def test_looking_at_another_projects_file_loads_nothing_of_this_architecture() -> None:
    code = (
        "import sys; from weightkit.architectures.sac.recognise import candidates, group_of\n"
        "from weightkit.core.checkpoint import Checkpoint; from weightkit.core.tensor import StateSpec\n"
        "candidates(Checkpoint('x', 'f', '', StateSpec({}), {}, None)); group_of('encoder.backbone.0.weight')\n"
        "print([m for m in sys.modules if m.startswith('weightkit.') and ('sac' in m or 'engine' in m)],\n"
        "      [m for m in ('torch', 'numpy', 'dataclasses', 'enum', 're') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(FIXTURES.parent)}
    )
    ours = ["architectures.sac", "architectures.sac.recognise", "engine", "engine.wrappers"]
    loaded, heavy = run.stdout.strip().split("] [")
    assert sorted(literal_eval(f"{loaded}]")) == [f"weightkit.{name}" for name in ours], run.stderr
    assert heavy == "]"


# ---- processors


def test_what_lies_around_a_policy_goes_along() -> None:
    found = recognised(PEERS / "lerobot044_shared")
    assert about(found, Severity.WARNING) == []
    assert "LeRobot 0.4's actor applies none of them" in finding(found, "policy_preprocessor").message
    kept = found.beside["lerobot"]
    assert isinstance(kept, dict)
    assert kept["config"]["type"] == "sac"
    assert set(kept) == {"config", "policy_preprocessor", "policy_postprocessor", "statistics"}
    assert set(kept["statistics"]) == {PREPROCESSOR, POSTPROCESSOR}
    stored = load_file(PEERS / "lerobot044_shared" / PREPROCESSOR)
    assert set(kept["statistics"][PREPROCESSOR]) == set(stored)
    for name, value in kept["statistics"][PREPROCESSOR].items():
        assert array_of_json(value).tobytes() == stored[name].tobytes()


def tampered(tmp_path: Path, file: str, name: str, array: np.ndarray) -> Recognition:
    folder = tmp_path / "policy"
    shutil.copytree(PEERS / "lerobot044_shared", folder)
    arrays = load_file(folder / file)
    assert name in arrays
    save_file({**arrays, name: array.astype(np.float32)}, folder / file)
    return recognised(folder)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("observation.state.min", np.zeros(4), "its shape is [4], that of the feature is [5]"),
        ("observation.state.min", np.full(5, 9.0), "it is above observation.state.max"),
        ("observation.images.front.std", np.zeros((3, 1, 1)), "not above 0"),
        ("observation.images.front.mean", np.zeros((3,)), "its shape is [3], that of the feature is [3, 48, 56]"),
        ("observation.images.front.mean", np.full((3, 1, 1), np.nan), "no finite numbers"),
        ("action.max", np.full(2, 7.0), "actions are not scaled back as they were scaled"),
    ],
)
def test_a_statistic_that_cannot_be_applied_is_a_warning(
    tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    found = tampered(tmp_path, PREPROCESSOR, name, array)
    assert found.config is not None, "the weights are good all the same"
    warnings = [each for each in found.findings if each.severity is Severity.WARNING]
    assert len(warnings) == 1
    assert message in warnings[0].message
    assert name in warnings[0].subject


def test_a_policy_without_its_algorithm_is_known_and_says_what_is_missing() -> None:
    found = recognised(PEERS / "lerobot061_separate" / "pretrained_model")
    assert found.layout == "lerobot-gaussian-actor"
    assert found.config is not None
    assert "later versions keep them with the algorithm" in finding(found, "critic").message
    assert about(found, Severity.WARNING) == []
