"""Which keys of a train_config.json are known, and how unknown ones are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase

from weightkit.core.report import Finding, Severity
from weightkit.core.section import Section

KNOWN_WITHOUT_EFFECT: tuple[str, ...] = (
    "$.$schema",
    "$.dataset",
    "$.dataset.*",
    "$.env.type",
    "$.env.task",
    "$.env.features.*.type",
    "$.env.features.action",
    "$.env.features.action.*",
    "$.env.features_map",
    "$.env.features_map.*",
    "$.env.max_parallel_tasks",
    "$.env.disable_env_checker",
    "$.env.robot",
    "$.env.robot.*",
    "$.env.teleop",
    "$.env.teleop.*",
    "$.env.processor",
    "$.env.processor.*",
    "$.policy.n_obs_steps",
    "$.policy.input_features.*",
    "$.policy.output_features.*",
    "$.policy.use_amp",
    "$.policy.use_peft",
    "$.policy.push_to_hub",
    "$.policy.repo_id",
    "$.policy.private",
    "$.policy.tags",
    "$.policy.license",
    "$.policy.normalization_mapping",
    "$.policy.normalization_mapping.*",
    "$.policy.dataset_stats",
    "$.policy.dataset_stats.*",
    "$.policy.vision_encoder_name",
    "$.policy.freeze_vision_encoder",
    "$.policy.image_encoder_hidden_dim",
    "$.policy.shared_encoder",
    "$.policy.num_discrete_actions",
    "$.policy.image_embedding_pooling_dim",
    "$.policy.encoder_lr",
    "$.policy.stddev_schedule",
    "$.policy.stddev_clip",
    "$.policy.stddev_clock",
    "$.policy.exploration_start_step",
    "$.policy.temperature_init",
    "$.policy.temperature_lr",
    "$.policy.num_critics",
    "$.policy.num_subsample_critics",
    "$.policy.state_encoder_hidden_dim",
    "$.policy.latent_dim",
    "$.policy.target_entropy",
    "$.policy.use_backup_entropy",
    "$.policy.critic_network_kwargs",
    "$.policy.critic_network_kwargs.*",
    "$.policy.actor_network_kwargs",
    "$.policy.actor_network_kwargs.*",
    "$.policy.policy_kwargs",
    "$.policy.policy_kwargs.*",
    "$.policy.discrete_critic_network_kwargs",
    "$.policy.discrete_critic_network_kwargs.*",
    "$.policy.use_torch_compile",
    "$.job_name",
    "$.num_workers",
    "$.steps",
    "$.eval",
    "$.eval.*",
    "$.eval_freq",
    "$.tolerance_s",
    "$.use_policy_training_preset",
    "$.optimizer",
    "$.optimizer.*",
    "$.scheduler",
    "$.scheduler.*",
    "$.wandb",
    "$.wandb.*",
    "$.peft",
    "$.peft.*",
    "$.use_rabc",
    "$.rabc_*",
    "$.rename_map",
    "$.rename_map.*",
    "$.checkpoint_path",
)
"""Addresses, as globs, that LeRobot and its forks write and that change nothing here."""


def leaves(values: Mapping[str, object], address: str = "$") -> Iterator[str]:
    """The address of every value that is no object, and of every empty object."""
    for key, value in values.items():
        where = f"{address}.{key}"
        if isinstance(value, dict) and value:
            yield from leaves(value, where)
        else:
            yield where


def key_findings(root: Section) -> tuple[Finding, ...]:
    """What is in the file but changes nothing: known keys in one note, each unknown key in a warning.

    ``root.used`` are the addresses that were asked for.
    """
    idle: list[str] = []
    findings = []
    for address in leaves(root.values):
        if any(address == key or address.startswith(f"{key}.") for key in root.used):
            continue
        if any(fnmatchcase(address, pattern) for pattern in KNOWN_WITHOUT_EFFECT):
            idle.append(address.removeprefix("$."))
            continue
        candidates = [key for key in (*root.used, *KNOWN_WITHOUT_EFFECT) if "*" not in key]
        close = get_close_matches(address, candidates, n=1, cutoff=0.7)
        hint = f"did you mean {close[0].removeprefix('$.')!r}?" if close else "it changes nothing: remove it"
        findings.append(
            Finding("WK402", Severity.WARNING, address.removeprefix("$."), f"{root.origin}: unknown key", hint)
        )
    if idle:
        message = f"{root.origin}: known, but without effect here: {', '.join(idle)}"
        findings.append(Finding("WK401", Severity.INFO, f"{len(idle)} keys", message))
    return tuple(findings)
