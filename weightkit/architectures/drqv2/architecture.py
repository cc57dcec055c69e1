"""The architecture ``drqv2``: its configuration, its tensors by arithmetic, its layouts, its net."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightkit.architectures.drqv2.config import DrQV2Config, from_train_config, with_settings
from weightkit.architectures.drqv2.recognise import group_of, recognise
from weightkit.architectures.drqv2.spec import acting_path, drqv2_spec, drqv2_target
from weightkit.core.group import Group, Transfer
from weightkit.core.plan import ConversionTarget
from weightkit.core.rule import Mapping, identity_mapping
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec
from weightkit.mapping_file import read_mapping

if TYPE_CHECKING:
    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint
    from weightkit.nets.drqv2 import DrQV2Policy


class DrQV2:
    """The architecture ``drqv2``."""

    name = "drqv2"
    groups = (
        Group("encoder", Transfer.SEND, "trained end to end, and every action reads it"),
        Group("actor", Transfer.SEND, "every action reads it"),
        Group("critic", Transfer.HOLD, "read by the learner's updates only"),
        Group("critic_target", Transfer.HOLD, "read by the learner's updates only"),
    )

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        return recognise(checkpoint, settings)

    def default_config(self) -> DrQV2Config:
        return DrQV2Config(
            cameras=("front",),
            image_channels=3,
            image_height=84,
            image_width=84,
            frame_stack=3,
            state_dim=18,
            action_dim=4,
        )

    def configure(self, config: DrQV2Config, settings: NameMap[str, str]) -> DrQV2Config:
        return with_settings(config, settings)

    def config_from_train_config(self, root: Section) -> DrQV2Config:
        return from_train_config(root)

    def spec(self, config: DrQV2Config) -> StateSpec:
        return drqv2_spec(config)

    def target(self, config: DrQV2Config) -> ConversionTarget:
        return drqv2_target(config)

    def group_of(self, name: str) -> str:
        return group_of(name)

    def acting_path(self, state: StateSpec) -> frozenset[str]:
        return acting_path(state)

    def mapping_from(self, layout: str) -> Mapping:
        if layout == "drqv2":
            return identity_mapping("drqv2")
        return read_mapping(Path(__file__).parent / "layouts" / f"{layout}.toml")

    def build(self, config: DrQV2Config, *, with_critic: bool = True) -> DrQV2Policy:
        from weightkit.nets.drqv2 import DrQV2Policy

        return DrQV2Policy(
            cameras=config.cameras,
            image_channels=config.image_channels,
            image_height=config.image_height,
            image_width=config.image_width,
            frame_stack=config.frame_stack,
            state_dim=config.state_dim,
            action_dim=config.action_dim,
            encoder_channels=config.encoder_channels,
            num_downsample_convs=config.num_downsample_convs,
            num_post_convs=config.num_post_downsample_convs,
            bottleneck_dim=config.bottleneck_size,
            hidden_dims=config.mlp_nodes,
            num_critics=config.num_critics if with_critic else 0,
            config=config,
        )

    def probes(self, config: DrQV2Config, *, batch: int = 2, seed: int = 0) -> list[dict[str, Any]]:
        import numpy as np

        random = np.random.default_rng(seed)
        shape = (batch, config.frame_stack * config.image_channels, config.image_height, config.image_width)
        images = [
            random.integers(0, 256, shape).astype(np.uint8),
            np.zeros(shape, np.uint8),
            np.full(shape, 255, np.uint8),
        ]
        probes: list[dict[str, Any]] = []
        for pixels in images:
            observation: dict[str, Any] = {f"observation.images.{camera}": pixels for camera in config.cameras}
            if config.state_dim:
                size = (batch, config.frame_stack * config.state_dim)
                observation["observation.state"] = random.standard_normal(size).astype(np.float32)
            probes.append(observation)
        return probes


ARCHITECTURE = DrQV2()
