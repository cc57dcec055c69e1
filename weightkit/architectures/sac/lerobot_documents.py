"""The configurations that LeRobot reads, as draccus wants them: every key known, none of another version's."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from weightkit.architectures.sac.config import FINALS, WIDTHS, SACConfig
from weightkit.architectures.sac.lerobot_processors import PROCESSORS, features_of
from weightkit.architectures.sac.train_config import ENVIRONMENT_KEY, IMAGE_KEYS, MLPS, STATE_KEY, TORCH_NAMES, key_of
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, UsageError

Document = dict[str, Any]
RESNET10 = "helper2424/resnet10"
_FILE = re.compile(r"policy_[A-Za-z0-9_-]+\.safetensors")
_LEAVE_OUT = "leave the processors out: --set processors=false"
_CLASSES = {name: torch_name for torch_name, name in TORCH_NAMES.items()}
_MLP: Document = {"hidden_dims": [256, 256], "activate_final": True, "final_activation": None}
_NORMS = {"VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MIN_MAX", "ACTION": "MIN_MAX"}
_TRANSPORT: Document = {
    "learner_host": "127.0.0.1", "learner_port": 50051, "policy_parameters_push_frequency": 4, "queue_get_timeout": 2,
}  # fmt: skip
POLICY: Document = {
    "n_obs_steps": 1, "input_features": {}, "output_features": {}, "device": "cpu", "use_amp": False, "use_peft": False,
    "push_to_hub": False, "repo_id": None, "private": None, "tags": None, "license": None, "pretrained_path": None,
    "normalization_mapping": _NORMS, "dataset_stats": None, "storage_device": "cpu", "vision_encoder_name": None,
    "freeze_vision_encoder": True, "image_encoder_hidden_dim": 32, "shared_encoder": True, "num_discrete_actions": None,
    "image_embedding_pooling_dim": 8, "online_steps": 1000000, "online_buffer_capacity": 100000,
    "offline_buffer_capacity": 100000, "async_prefetch": False, "online_step_before_learning": 100,
    "state_encoder_hidden_dim": 256, "latent_dim": 256,
    "actor_network_kwargs": {"hidden_dims": [256, 256], "activate_final": True},
    "policy_kwargs": {"use_tanh_squash": True, "std_min": 1e-05, "std_max": 10.0, "init_final": 0.05},
    "discrete_critic_network_kwargs": _MLP, "actor_learner_config": _TRANSPORT,
    "concurrency": {"actor": "threads", "learner": "threads"},
}  # fmt: skip
"""What LeRobot 0.4.4's ``sac`` and later versions' ``gaussian_actor`` both have, with its defaults."""
ALGORITHM: Document = {
    "actor_lr": 0.0003, "critic_lr": 0.0003, "temperature_lr": 0.0003, "discount": 0.99, "use_backup_entropy": True,
    "critic_target_update_weight": 0.005, "num_critics": 2, "num_subsample_critics": None,
    "critic_network_kwargs": _MLP, "temperature_init": 1.0, "target_entropy": None, "utd_ratio": 1,
    "policy_update_freq": 1, "grad_clip_norm": 40.0, "use_torch_compile": False,
}  # fmt: skip
"""What 0.4.4 has in the policy's configuration and later versions in that of the algorithm."""
_LATER: Document = {"pretrained_revision": None}
_LATER_CONCURRENCY: Document = {"multiprocessing_context": "spawn"}


def sac_document(config: SACConfig, beside: Mapping[str, object], *, compiled: bool) -> Document:
    """config.json of LeRobot 0.4.4's ``sac``: what came along, with what the net says put in."""
    found = _policy(config, beside)
    carried = {**_document(beside, "config"), **_document(beside, "algorithm")}
    found |= _chosen(carried, ALGORITHM)
    found["num_critics"] = config.num_critics
    found["critic_network_kwargs"] = _layers(
        found["critic_network_kwargs"], config.critic_hidden_dims, config.critic_final
    )
    found["use_torch_compile"] = compiled
    found["concurrency"] = {key: found["concurrency"].get(key, "threads") for key in ("actor", "learner")}
    return {"type": "sac", **found}


def gaussian_actor_document(config: SACConfig, beside: Mapping[str, object], *, stats: bool) -> Document:
    """config.json of the policy ``gaussian_actor``.

    Its actor normalises by ``dataset_stats``, 0.4's does not: those of a 0.4 policy are left out unless ``stats``.
    """
    found = _policy(config, beside)
    carried = _document(beside, "config")
    if carried.get("type") != "gaussian_actor" and not stats:
        found["dataset_stats"] = None
    found |= _chosen(carried, _LATER)
    found["concurrency"] = {**_LATER_CONCURRENCY, **found["concurrency"]}
    return {"type": "gaussian_actor", **found}


def algorithm_document(config: SACConfig, beside: Mapping[str, object], policy: Document) -> Document:
    """config.json of the algorithm ``sac``, which holds the policy's too."""
    carried = {**_document(beside, "config"), **_document(beside, "algorithm")}
    found = _chosen(carried, ALGORITHM)
    found["num_critics"] = config.num_critics
    found["critic_network_kwargs"] = _layers(
        found["critic_network_kwargs"], config.critic_hidden_dims, config.critic_final
    )
    found["discrete_critic_network_kwargs"] = copy.deepcopy(policy["discrete_critic_network_kwargs"])
    found["use_torch_compile"] = False
    return {"type": "sac", **found, "policy_config": policy}


def _policy(config: SACConfig, beside: Mapping[str, object]) -> Document:
    carried = _document(beside, "config")
    found = _chosen(carried, POLICY)
    found["input_features"] = _inputs(config, carried.get("input_features"))
    found["output_features"] = {"action": {"type": "ACTION", "shape": [config.action_dim]}}
    if config.vision_encoder.startswith("resnet10"):
        found["vision_encoder_name"] = found["vision_encoder_name"] or RESNET10
    else:
        found["vision_encoder_name"] = None
    for name in ("freeze_vision_encoder", "shared_encoder", "latent_dim"):
        found[name] = getattr(config, name)
    if config.cameras:
        found["image_embedding_pooling_dim"] = config.image_embedding_pooling_dim
        found["image_encoder_hidden_dim"] = config.image_encoder_hidden_dim
    found["num_discrete_actions"] = config.num_discrete_actions or None
    for name, final in zip(WIDTHS, FINALS, strict=True):
        if MLPS[name] in found:
            found[MLPS[name]] = _layers(found[MLPS[name]], getattr(config, name), getattr(config, final))
    found["policy_kwargs"] = {**found["policy_kwargs"], "std_min": config.std_min, "std_max": config.std_max}
    return found


def _chosen(carried: Document, defaults: Document) -> Document:
    """The values that came along for the keys of ``defaults``, and those where none came or one of another kind."""
    found: Document = {}
    for key, default in defaults.items():
        value = carried.get(key, default)
        other = default is not None and isinstance(default, dict) != isinstance(value, dict)
        found[key] = copy.deepcopy(default if other else value)
    return found


def _inputs(config: SACConfig, carried: object) -> Document:
    """The features that the policy sees: in the order that came along where the cameras' is the same."""
    wanted: Document = {}
    for camera in config.cameras:
        wanted[key_of(camera)] = {"type": "VISUAL", "shape": list(config.image_shape)}
    if config.environment_dim:
        wanted[ENVIRONMENT_KEY] = {"type": "ENV", "shape": [config.environment_dim]}
    if config.state_dim:
        wanted[STATE_KEY] = {"type": "STATE", "shape": [config.frame_stack * config.state_dim]}
    before = carried if isinstance(carried, dict) else {}
    order = [key for key in before if key in wanted]
    images = [key for key in before if key.startswith(IMAGE_KEYS)]
    if set(order) != set(wanted) or images != [key_of(camera) for camera in config.cameras]:
        return wanted
    return {key: wanted[key] for key in order}


def _layers(mlp: object, widths: tuple[int, ...], final: str) -> Document:
    """An MLP's part of the configuration; an actor's has no ``final_activation``."""
    found = dict(mlp) if isinstance(mlp, dict) else {}
    if "final_activation" in found and final != "none":
        found["final_activation"] = None if final == "silu" else _CLASSES[final]
    return {**found, "hidden_dims": list(widths), "activate_final": final != "none"}


def _document(beside: Mapping[str, object], key: str) -> Document:
    found = beside.get(key)
    return found if isinstance(found, dict) else {}


def processors_to_write(
    config: SACConfig, beside: Mapping[str, object], options: Mapping[str, str]
) -> tuple[dict[str, object], dict[str, Mapping[str, object]]]:
    """The processors' documents and statistics that came along, by file.

    Raises UsageError where they do not fit the policy, CorruptFile where they are none.
    """
    if not flag(options, "processors", True):
        return {}, {}
    wanted = {**_inputs(config, None), "action": {"shape": [config.action_dim]}}
    documents: dict[str, object] = {}
    for processor in PROCESSORS:
        document = _document(beside, processor)
        steps = document.get("steps")
        for step in steps if isinstance(steps, list) else []:
            for key, shape in features_of(step).items():
                expected = wanted[key]["shape"] if key in wanted else "none"
                if list(shape) != expected:
                    found = printable(f"{key} {list(shape)}")
                    raise UsageError(
                        f"the {processor} that came along has {found}, the policy {expected}", hint=_LEAVE_OUT
                    )
        if document:
            documents[f"{processor}.json"] = document
    statistics = _document(beside, "statistics")
    for file, arrays in statistics.items():
        if not _FILE.fullmatch(file) or not isinstance(arrays, dict):
            raise CorruptFile(f"{printable(file)!r} cannot be a processor's file of statistics", hint=_LEAVE_OUT)
    return documents, dict(statistics)


def flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """A layout's setting that is true or false. Raises UsageError for another text."""
    text = options.get(name, str(default)).lower()
    if text not in ("true", "false"):
        raise UsageError(f"--set {name}={options[name]}: expected true or false")
    return text == "true"
