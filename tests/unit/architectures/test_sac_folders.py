"""LeRobot's folders of a SAC policy, written as LeRobot reads them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sac_configs import (
    PEERS,
    POSTPROCESSOR,
    PREPROCESSOR,
    SMALL,
    bare,
    of_arrays,
    opened,
    random_arrays,
    recognised,
    turned_round,
)
from weightkit.architectures import recognise
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.layouts.lerobot_gaussian_actor import LAYOUT as GAUSSIAN
from weightkit.architectures.sac.layouts.lerobot_sac import LAYOUT as LEROBOT
from weightkit.core.tensor import StateSpec, spec
from weightkit.errors import CorruptFile, UsageError


def document(**changes: Any) -> dict[str, object]:
    folder = LEROBOT.folder(SMALL, bare(SMALL), {}, {})
    config = folder.documents["config.json"]
    assert isinstance(config, dict)
    return {**config, **changes}


def test_a_folder_is_written_with_what_came_along_and_what_the_net_says() -> None:
    found = recognised(PEERS / "lerobot044_shared")
    config = replace(found.config, num_critics=2, latent_dim=9)
    names = StateSpec({"a": spec("float32", 1)})
    folder = LEROBOT.folder(config, names, {}, found.beside)
    written = folder.documents["config.json"]
    kept = found.beside["lerobot"]
    assert isinstance(written, dict)
    assert isinstance(kept, dict)
    changed = {key for key in written if written[key] != kept["config"].get(key)}
    assert changed == {"num_critics", "latent_dim"}
    assert list(written["input_features"]) == list(kept["config"]["input_features"])
    assert folder.weights == {"model.safetensors": ("a",)}
    assert set(folder.documents) == {"config.json", "policy_preprocessor.json", "policy_postprocessor.json"}
    assert set(folder.statistics) == {PREPROCESSOR, POSTPROCESSOR}


def test_a_folder_of_a_policy_that_came_from_nowhere_has_lerobots_defaults() -> None:
    written = document()
    assert written["use_torch_compile"] is False
    assert written["critic_network_kwargs"] == {"hidden_dims": [6], "activate_final": True, "final_activation": None}
    assert list(written["input_features"]) == [  # type: ignore[call-overload]
        "observation.images.front",
        "observation.images.wrist",
        "observation.state",
    ]
    assert recognise(opened(bare(SMALL), {"config": written}), {}) is not None


def test_config_json_says_of_torch_compile_what_the_names_say() -> None:
    options = {"use_torch_compile": "true"}
    names = turned_round(LEROBOT.mapping(SMALL, options), SMALL).values()
    wrapped = StateSpec({name: spec("float32", 1) for name in names})
    for state, expected in ((wrapped, True), (bare(SMALL), False)):
        written = LEROBOT.folder(SMALL, state, options, {}).documents["config.json"]
        assert isinstance(written, dict)
        assert written["use_torch_compile"] is expected


def test_what_is_written_is_recognised_as_the_same_policy() -> None:
    config = replace(SMALL, num_discrete_actions=3, critic_final="tanh", actor_final="none", std_max=4.0)
    for layout in (LEROBOT, GAUSSIAN):
        names = turned_round(layout.mapping(config), config)
        native = random_arrays(ARCHITECTURE.spec(config), 0)
        written = {names[name]: array for name, array in native.items()}
        folder = layout.folder(config, of_arrays(written).state, {}, {})
        assert sorted(name for part in folder.weights.values() for name in part) == sorted(written)
        documents = {
            Path(path).name if "algorithm" not in path else "algorithm": each for path, each in folder.documents.items()
        }
        metadata = {"config": documents["config.json"], "algorithm": documents.get("algorithm", {})}
        found = recognise(of_arrays(written, metadata if layout is GAUSSIAN else {"config": metadata["config"]}), {})
        assert found is not None
        assert (found.layout, found.confidence) == (layout.name, "certain")
        assert found.config == config, found.findings


def test_a_04_policy_in_the_later_layout_keeps_its_settings_but_not_what_would_scale_its_inputs() -> None:
    found = recognised(PEERS / "lerobot044_shared")
    kept = found.beside["lerobot"]
    assert isinstance(kept, dict)
    folder = GAUSSIAN.folder(found.config, StateSpec({"actor.x": spec("float32", 1)}), {}, found.beside)
    policy, algorithm = (folder.documents[f"{part}/config.json"] for part in ("pretrained_model", "algorithm"))
    assert isinstance(policy, dict)
    assert isinstance(algorithm, dict)
    assert policy["dataset_stats"] is None
    assert (policy["type"], algorithm["type"], algorithm["num_critics"]) == ("gaussian_actor", "sac", 3)
    assert algorithm["critic_network_kwargs"]["final_activation"] == "Tanh"
    assert algorithm["policy_config"] == policy
    assert not set(algorithm) & {"dataset_stats", "input_features"}
    assert f"pretrained_model/{PREPROCESSOR}" in folder.statistics
    keeps = GAUSSIAN.folder(found.config, StateSpec({}), {"dataset_stats": "true"}, found.beside)
    with_stats = keeps.documents["pretrained_model/config.json"]
    assert isinstance(with_stats, dict)
    assert with_stats["dataset_stats"] == kept["config"]["dataset_stats"]
    back = LEROBOT.folder(found.config, StateSpec({}), {}, {"lerobot": {"config": policy, "algorithm": algorithm}})
    again = back.documents["config.json"]
    assert isinstance(again, dict)
    assert {key for key in again if again[key] != kept["config"].get(key)} == {"dataset_stats"}


def test_processors_of_other_inputs_are_not_written_in_silence() -> None:
    found = recognised(PEERS / "lerobot044_shared")
    wider = replace(found.config, state_dim=6)
    with pytest.raises(UsageError, match=r"observation\.state") as refused:
        LEROBOT.folder(wider, StateSpec({}), {}, found.beside)
    assert "--set processors=false" in str(refused.value)
    assert set(LEROBOT.folder(wider, StateSpec({}), {"processors": "false"}, found.beside).documents) == {"config.json"}


def test_a_temperature_that_is_not_learned_is_written_as_that_of_one() -> None:
    config = replace(SMALL, learned_temperature=False)
    assert LEROBOT.extras(config, {}) == GAUSSIAN.extras(config, {}) == {"log_alpha": spec("float32", 1)}
    assert not LEROBOT.extras(SMALL, {})


@pytest.mark.parametrize(
    "kept",
    [
        {"config": {"concurrency": 3, "policy_kwargs": [], "input_features": 7, "actor_network_kwargs": "x"}},
        {"policy_preprocessor": {"steps": 3}, "statistics": {}},
        {"policy_preprocessor": {"steps": [3, {"config": 4}, {"config": {"features": {"action": 5}}}]}},
        {"config": 4, "algorithm": [], "statistics": 3},
    ],
)
def test_what_came_along_and_is_no_such_thing_does_no_harm(kept: dict[str, object]) -> None:
    for layout in (LEROBOT, GAUSSIAN):
        folder = layout.folder(SMALL, StateSpec({"log_alpha": spec("float32", 1)}), {}, {"lerobot": kept})
        assert any(path.endswith("config.json") for path in folder.documents)
    assert LEROBOT.folder(SMALL, StateSpec({}), {}, {"lerobot": 3}).documents["config.json"] == document()


@pytest.mark.parametrize("file", ["../evil.safetensors", "a/b.safetensors", "x.json", "", "model.safetensors"])
def test_statistics_are_never_written_elsewhere(file: str) -> None:
    with pytest.raises(CorruptFile, match="cannot be a processor's file"):
        LEROBOT.folder(SMALL, StateSpec({}), {}, {"lerobot": {"statistics": {file: {}}}})
