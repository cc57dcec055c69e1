"""The layout ``sb3-sac``: SAC of stable-baselines3, an archive or the state_dict of its policy."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from dataclasses import replace
from functools import lru_cache
from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING

from weightkit.architectures.base import Conventions, Folder
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.sb3_inference import CNN, STD_MAX, STD_MIN, archive, infer
from weightkit.core.names import parse_template
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.rule import Mapping
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.errors import PlanError, UsageError
from weightkit.mapping_file import read_mapping

if TYPE_CHECKING:
    from weightkit.core.checkpoint import Checkpoint

_HEADS = ("critic-head", "critic-target-head")
_BESIDE = {"action_space": ("dtype", "_shape", "low", "high"), "observation_space": ("dtype", "_shape")}
_LONGEST = 1000


class SB3SAC:
    """The layout ``sb3-sac``."""

    name = "sb3-sac"
    architecture = "sac"
    title = "stable-baselines3 SAC"
    options: NameMap[str, str] = {}

    def conventions(self, config: SACConfig) -> Conventions:
        return Conventions(
            pixels="0..255" if config.cameras else "none",
            images="uint8 0..255, divided by 255 on the way to the net" if config.cameras else "none",
            state="the observation as a vector, after VecNormalize where one was used",
            action="tanh(mean) in (-1, 1), scaled to the action space's bounds outside the net",
        )

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        state = checkpoint.state
        if "actor.latent_pi.0.weight" not in state or not any(name.startswith("actor.mu.") for name in state):
            return None
        data = archive(checkpoint)
        evidence = ["tensors actor.latent_pi.*, actor.mu and actor.log_std"]
        if any(name.startswith("critic.qf0.") for name in state):
            evidence.append("critics critic.qf*")
        if CNN in state:
            evidence.append("the layers of NatureCNN below features_extractor.cnn")
        if data:
            evidence.append("an archive of stable-baselines3, whose settings were read without building its objects")
        config, findings = infer(checkpoint, settings)
        if config is not None:
            images = f"images of {config.image_height}x{config.image_width}, " if config.cameras else ""
            evidence.append(f"shapes of {images}state {config.state_dim}, {config.action_dim} actions")
        kept: dict[str, object] = {}
        for key, names in _BESIDE.items():
            space = data.get(key)
            if isinstance(space, dict):
                kept[key] = {n: space[n] for n in names if n in space and len(str(space[n])) <= _LONGEST}
        return Recognition(
            "sac",
            self.name,
            self.title,
            "certain" if data and config is not None else "likely",
            tuple(evidence),
            config,
            tuple(findings),
            beside={"sb3": kept} if kept else {},
        )

    def mapping(self, config: SACConfig, options: NameMap[str, str] | None = None) -> Mapping:
        del options
        return _mapping(config.shared_encoder and bool(config.cameras), len(config.critic_hidden_dims))

    def fitted(self, config: SACConfig) -> SACConfig:
        problems: dict[str, str] = {}
        if config.mlp == "layernorm_silu":
            problems["mlp"] = "it has no LayerNorm in its hidden layers"
        if config.vision_encoder not in ("none", "nature"):
            problems["vision_encoder"] = f"it has NatureCNN, not {config.vision_encoder!r}"
        elif config.cameras and (len(config.cameras) > 1 or config.state_dim or config.environment_dim):
            problems["cameras"] = "its CnnPolicy sees one image and nothing else"
        elif config.cameras and config.target_encoder != "own":
            problems["target_encoder"] = "its critics' targets have a features extractor of their own"
        if not config.cameras and config.environment_dim:
            problems["environment_dim"] = "its MlpPolicy sees one vector"
        if config.state_encoder != "none" and not config.cameras:
            problems["state_encoder"] = "it hands states to the hidden layers as they are"
        if config.image_normalization != "none":
            problems["image_normalization"] = "it divides images by 255 and does no more"
        if config.num_discrete_actions:
            problems["num_discrete_actions"] = "it has no discrete head"
        if not (isclose(config.std_min, STD_MIN, rel_tol=1e-6) and isclose(config.std_max, STD_MAX, rel_tol=1e-6)):
            problems["std_min"] = "it bounds the standard deviation to exp(-20)..exp(2)"
        if problems:
            findings = tuple(
                Finding("WK201", Severity.ERROR, name, f"stable-baselines3 cannot hold this {name}: {why}")
                for name, why in problems.items()
            )
            raise PlanError(
                f"{self.name}: {'; '.join(finding.message for finding in findings)}",
                report=Report("plan", findings, exit_code=1),
                hint="keep it in the native layout: --to sac",
            )
        frames = config.frame_stack
        return replace(
            config,
            frame_stack=1,
            image_channels=frames * config.image_channels if config.cameras else config.image_channels,
            state_dim=frames * config.state_dim,
            target_encoder="own",
            state_encoder="none",
            shared_encoder=config.shared_encoder or not config.cameras,
        )

    def extras(self, config: SACConfig, options: NameMap[str, str]) -> NameMap[str, TensorSpec]:
        del config, options
        return {}

    def folder(
        self, config: SACConfig, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]
    ) -> Folder:
        del config, names, options, beside
        raise UsageError(
            "stable-baselines3 keeps a policy in one archive, which it builds itself: there is no folder to write",
            hint="write its tensors, -o policy.pt, and load those of the policy: model.policy.load_state_dict(...)",
        )


@lru_cache(maxsize=16)
def _mapping(shared: bool, layers: int) -> Mapping:
    """The rules, with the last layer of a critic at its place."""
    found = read_mapping(Path(__file__).with_name("sb3-sac-shared.toml" if shared else "sb3-sac.toml"))
    rules = tuple(
        replace(
            rule, sources=tuple(parse_template(each.text.replace(".4.", f".{2 * layers}.")) for each in rule.sources)
        )
        if rule.id in _HEADS
        else rule
        for rule in found.rules
    )
    return replace(found, rules=rules)


LAYOUT = SB3SAC()
