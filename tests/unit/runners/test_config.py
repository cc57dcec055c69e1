"""train_config.json: the devlogs' table, LeRobot's keys, and errors that carry an address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from locations import SHARED, needs_shared
from weightkit.errors import ConfigError, UsageError
from weightkit_runners.config import check_config, read_run_config
from weightkit_runners.templates import TEMPLATES, read_template, write_template


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_template("hilserl_drqv2", tmp_path / "train_config.json")


def edited(tmp_path: Path, change: Any, name: str = "hilserl_drqv2") -> Path:
    document = read_template(name)
    change(document)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(document))
    return path


def test_all_ten_rows_of_the_devlogs_table_hold_in_the_template(tmp_path: Path) -> None:
    document = json.loads(
        write_template("hilserl_drqv2", tmp_path / "c.json", pretrained="/data/best_snapshot.pt").read_text()
    )
    policy, env = document["policy"], document["env"]
    assert policy["type"] == "drqv2"
    assert policy["frame_stack"] == 3
    assert policy["input_features"]["observation.images"]["shape"] == [9, 84, 84]
    assert policy["input_features"]["observation.state"]["shape"] == [54]
    assert env["features"]["observation.images"]["shape"] == [3, 84, 84]
    assert env["features"]["observation.state"]["shape"] == [18]
    assert policy["pretrained_path"] == "/data/best_snapshot.pt"
    assert policy["encoder_channels"] == 32
    assert policy["bottleneck_size"] == 50
    assert policy["stddev_schedule"] == "linear(1.0,0.1,50000)"
    assert policy["use_augmentation"] is True


def test_the_template_is_the_devlogs_policy_of_10_3_million_parameters(written: Path) -> None:
    config = read_run_config(written)
    assert config.architecture.spec(config.net).numel == 10_309_760
    assert config.link.learner_port == 50051
    assert config.exploration.stddev(env_step=0, learner_step=0) == 1.0
    assert config.exploration.stddev(env_step=25_000, learner_step=0) == pytest.approx(0.55)
    assert config.exploration.stddev(env_step=10**6, learner_step=0) == pytest.approx(0.1)
    assert (config.log_freq, config.save_freq) == (100, 500)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_has_no_unknown_key(name: str, tmp_path: Path) -> None:
    findings = read_run_config(write_template(name, tmp_path / "c.json")).findings
    assert [f for f in findings if f.code == "WK402"] == []


@needs_shared
def test_the_config_of_lerobot_0_4_4_has_no_unknown_key() -> None:
    findings = check_config(SHARED / "facts" / "lerobot-0.4.4-train-config.json")
    assert [f.subject for f in findings if f.code == "WK402"] == []
    assert [f.code for f in findings] == ["WK401"]


def test_an_unknown_key_is_a_warning_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda d: d["policy"].update(utd_ratioo=3))
    (finding,) = [f for f in read_run_config(path).findings if f.code == "WK402"]
    assert finding.subject == "policy.utd_ratioo"
    assert "policy.utd_ratio" in finding.hint


def test_keys_without_effect_are_listed_once(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda d: d.update(wandb={"enable": False, "project": "x"}, peft=None))
    (finding,) = [f for f in read_run_config(path).findings if f.code == "WK401"]
    for key in ("wandb.enable", "wandb.project", "peft", "job_name"):
        assert key in finding.message
    for key in ("policy.utd_ratio", "policy.async_prefetch", "policy.concurrency.actor"):
        assert key not in finding.message


def test_features_may_be_bare_lists(tmp_path: Path, written: Path) -> None:
    def bare(document: dict[str, Any]) -> None:
        for part in (document["policy"]["input_features"], document["policy"]["output_features"]):
            for key in part:
                part[key] = part[key]["shape"]

    assert read_run_config(edited(tmp_path, bare)).net == read_run_config(written).net


@pytest.mark.parametrize(
    ("change", "address"),
    [
        (lambda d: d["policy"].update(utd_ratio="two"), "$.policy.utd_ratio"),
        (lambda d: d["policy"].update(utd_ratio=0), "$.policy.utd_ratio"),
        (lambda d: d["policy"].update(use_augmentation="yes"), "$.policy.use_augmentation"),
        (lambda d: d["policy"].update(stddev_schedule="cosine(1,0,5)"), "$.policy.stddev_schedule"),
        (lambda d: d["policy"].update(actor_learner_config=[1]), "$.policy.actor_learner_config"),
        (lambda d: d["policy"]["actor_learner_config"].update(learner_port=70000), "learner_port"),
        (lambda d: d["policy"].update(type="act"), "$.policy.type"),
        (lambda d: d.update(batch_size=1.5), "$.batch_size"),
        (lambda d: d.update(batch_size=10**400), "$.batch_size"),
        (lambda d: d.update(seed=10**30), "$.seed"),
        (lambda d: d["policy"].update(critic_lr=10**400), "$.policy.critic_lr"),
        (lambda d: d["policy"].update(num_critics=10**30), "$.policy.num_critics"),
        (lambda d: d["policy"].update(num_critics=100000), "$.policy.num_critics"),
        (lambda d: d["policy"].update(bottleneck_size=10**9), "$.policy.bottleneck_size"),
        (lambda d: d["policy"].update(mlp_nodes=[10**30]), "$.policy.mlp_nodes"),
        (lambda d: d["policy"].update(stddev_schedule=-1), "$.policy.stddev_schedule"),
        (lambda d: d["policy"].update(stddev_schedule="linear(1,0,-5)"), "$.policy.stddev_schedule"),
        (lambda d: d["policy"].update(discount=1.5), "$.policy.discount"),
        (lambda d: d["policy"]["concurrency"].update(actor=5), "$.policy.concurrency.actor"),
        (lambda d: d["policy"].update(offline_buffer_capacity="abc"), "$.policy.offline_buffer_capacity"),
        (lambda d: d["policy"].update(async_prefetch="abc"), "$.policy.async_prefetch"),
        (lambda d: d["policy"].update(storage_device=3), "$.policy.storage_device"),
        (lambda d: d["env"]["features"]["action"].update(shape=[7]), "$.env.features.action"),
        (lambda d: d.update(output_dir="x" * 300), "$.output_dir"),
        (lambda d: d["policy"]["input_features"].update({"observation.state": {"shape": [50]}}), "observation.state"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_address(tmp_path: Path, change: Any, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_run_config(edited(tmp_path, change))
    assert address in caught.value.message
    assert len(caught.value.message) < 1000
    assert caught.value.exit_code == 3


def test_features_that_are_not_stacked_single_frames_are_refused_with_both_addresses(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda d: d["policy"]["input_features"]["observation.images"].update(shape=[3, 84, 84]))
    with pytest.raises(ConfigError) as caught:
        read_run_config(path)
    assert "$.policy.input_features.observation.images.shape" in caught.value.message
    assert "$.env.features.observation.images" in caught.value.message
    assert "[9, 84, 84]" in caught.value.message


def test_overrides_are_dotted_json_values_and_unknown_ones_are_refused(written: Path) -> None:
    config = read_run_config(written, ["policy.utd_ratio=4", "policy.device=cpu", "policy.encoder_lr=0.5"])
    assert config.update.utd_ratio == 4
    assert config.update.encoder_lr == 0.5
    with pytest.raises(UsageError, match=r"policy\.utd_ratioo") as caught:
        read_run_config(written, ["policy.utd_ratioo=4"])
    assert "policy.utd_ratio" in caught.value.hint
    with pytest.raises(UsageError, match="KEY=VALUE"):
        read_run_config(written, ["policy.utd_ratio"])


def test_the_encoder_learns_at_the_critics_rate_where_it_has_none_of_its_own(tmp_path: Path) -> None:
    path = edited(tmp_path, lambda d: (d["policy"].pop("encoder_lr"), d["policy"].update(critic_lr=0.123)))
    assert read_run_config(path).update.encoder_lr == 0.123


def test_a_pretrained_path_is_found_in_the_saved_config_of_the_output_folder(tmp_path: Path, written: Path) -> None:
    saved = tmp_path / "run" / "train_config.json"
    write_template("hilserl_drqv2", saved, pretrained="weights.pt")
    config = read_run_config(written, [f'output_dir="{saved.parent}"'])
    assert config.pretrained_path == Path("weights.pt")
    assert str(saved) in config.pretrained_origin
    assert "$.policy.pretrained_path" in config.pretrained_origin


def test_an_override_finds_keys_that_hold_dots_themselves(written: Path) -> None:
    config = read_run_config(
        written,
        [
            "policy.input_features.observation.images.shape=[9, 48, 48]",
            "env.features.observation.images.shape=[3, 48, 48]",
        ],
    )
    assert (config.net.image_height, config.net.image_width) == (48, 48)


@pytest.mark.parametrize("text", ["dataset.repo_id=x", "wandb.enable=true", "env.task=Lift", "policy.torch_threads=1"])
def test_what_may_stand_in_the_file_may_be_set(text: str, written: Path) -> None:
    read_run_config(written, [text])


def test_a_bare_image_key_beside_a_named_camera_is_refused(tmp_path: Path) -> None:
    wrist = {"type": "VISUAL", "shape": [9, 84, 84]}
    path = edited(tmp_path, lambda d: d["policy"]["input_features"].update({"observation.images.wrist": wrist}))
    with pytest.raises(ConfigError, match="one camera"):
        read_run_config(path)
