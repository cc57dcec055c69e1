"""The layout ``lerobot-gaussian-actor``: LeRobot after 0.4 keeps the policy and the SAC algorithm apart."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from weightkit.architectures.base import Conventions, Folder
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.lerobot import (
    LEROBOT_LATER,
    as_written,
    fitted_to_lerobot,
    looks_split,
    recognised,
    with_early_names,
    without_temperature,
)
from weightkit.core.rule import Mapping
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.mapping_file import read_mapping

if TYPE_CHECKING:
    from weightkit.core.checkpoint import Checkpoint

_STATS = "dataset_stats"
POLICY, ALGORITHM = "pretrained_model", "algorithm"
_OF_ALGORITHM = ("critic_ensemble.", "critic_target.", "discrete_critic_target.", "log_alpha")


class LeRobotGaussianActor:
    """The layout ``lerobot-gaussian-actor``."""

    name = "lerobot-gaussian-actor"
    architecture = "sac"
    title = "LeRobot Gaussian actor with the SAC algorithm"
    options: NameMap[str, str] = {
        _STATS: "true keeps a 0.4 policy's: this actor normalises by them, 0.4's does not; false by default",
        "processors": "false leaves out the pre- and postprocessor that came along; true by default",
    }

    def conventions(self, config: SACConfig) -> Conventions:
        return LEROBOT_LATER

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        policy, algorithm = checkpoint.metadata.get("config"), checkpoint.metadata.get("algorithm")
        if not isinstance(policy, dict) or policy.get("type") != "gaussian_actor":
            if isinstance(policy, dict) or not looks_split(checkpoint.state):
                return None
            policy = None
        stated = policy
        if policy is not None and isinstance(algorithm, dict):
            stated = {**policy, **{k: algorithm[k] for k in ("num_critics", "critic_network_kwargs") if k in algorithm}}
        return recognised(self, checkpoint, settings, stated, stated_critics=isinstance(algorithm, dict))

    def mapping(self, config: SACConfig, options: NameMap[str, str] | None = None) -> Mapping:
        """Without ``options``: rules that read every spelling there is. With them: those names that are written."""
        discrete = config.num_discrete_actions > 0
        early = config.vision_encoder == "resnet10_symmetric"
        found = _mapping(config.shared_encoder, discrete, config.learned_temperature, early)
        return found if options is None else as_written(found, discrete=discrete, compiled=False)

    def fitted(self, config: SACConfig) -> SACConfig:
        return fitted_to_lerobot(self.name, config)

    def extras(self, config: SACConfig, options: NameMap[str, str]) -> NameMap[str, TensorSpec]:
        del options
        return {} if config.learned_temperature else {"log_alpha": spec("float32", 1)}

    def folder(
        self, config: SACConfig, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]
    ) -> Folder:
        from weightkit.architectures.sac.lerobot_documents import (
            algorithm_document,
            flag,
            gaussian_actor_document,
            processors_to_write,
        )
        from weightkit.architectures.sac.lerobot_processors import came_along

        carried = came_along(beside)
        documents, statistics = processors_to_write(config, carried, options)
        policy = gaussian_actor_document(config, carried, stats=flag(options, _STATS, False))
        kept = names.unique()
        algorithm = tuple(name for name in kept if name.startswith(_OF_ALGORITHM))
        weights = {f"{POLICY}/model.safetensors": tuple(name for name in kept if not name.startswith(_OF_ALGORITHM))}
        if algorithm:
            weights[f"{ALGORITHM}/model.safetensors"] = algorithm
        return Folder(
            weights,
            {
                f"{POLICY}/config.json": policy,
                f"{ALGORITHM}/config.json": algorithm_document(config, carried, policy),
                **{f"{POLICY}/{file}": document for file, document in documents.items()},
            },
            {f"{POLICY}/{file}": arrays for file, arrays in statistics.items()},
        )


@lru_cache(maxsize=16)
def _mapping(shared: bool, discrete: bool, temperature: bool, early: bool) -> Mapping:
    variant = "" if shared else "-separate-discrete" if discrete else "-separate"
    found = read_mapping(Path(__file__).with_name(f"lerobot-gaussian-actor{variant}.toml"))
    found = found if temperature else without_temperature(found)
    return with_early_names(found) if early else found


LAYOUT = LeRobotGaussianActor()
