"""The architecture ``drqv2``: its configuration, its tensors by arithmetic, its layouts, its net."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from typing import TYPE_CHECKING

from weightkit.architectures.base import Conventions, Inputs
from weightkit.architectures.drqv2.config import DrQV2Config, from_train_config, with_settings
from weightkit.architectures.drqv2.recognise import group_of
from weightkit.architectures.drqv2.spec import acting_path, drqv2_spec, drqv2_target
from weightkit.core.group import Group, Transfer
from weightkit.core.plan import ConversionTarget
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec

if TYPE_CHECKING:
    from weightkit.nets.drqv2 import DrQV2Policy


_GROUPS = (
    Group("encoder", Transfer.SEND, "trained end to end, and every action reads it"),
    Group("actor", Transfer.SEND, "every action reads it"),
    Group("critic", Transfer.HOLD, "read by the learner's updates only"),
    Group("critic_target", Transfer.HOLD, "read by the learner's updates only"),
)


class DrQV2:
    """The architecture ``drqv2``."""

    name = "drqv2"
    title = "weightkit DrQ-v2"

    def groups(self, config: DrQV2Config) -> tuple[Group, ...]:
        del config
        return _GROUPS

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

    def config_from_dict(self, section: Section) -> DrQV2Config:
        return DrQV2Config.from_section(section)

    def config_from_train_config(self, root: Section) -> DrQV2Config:
        return from_train_config(root)

    def inputs(self, config: DrQV2Config) -> Inputs:
        return Inputs(
            cameras=config.cameras,
            channels=config.image_channels,
            height=config.image_height,
            width=config.image_width,
            frames=config.frame_stack,
            state_dim=config.state_dim,
            action_dim=config.action_dim,
            time_dim=config.time_dim,
        )

    def conventions(self, config: DrQV2Config) -> Conventions:
        return Conventions(
            "either",
            "uint8 0..255 or float 0..1, told apart by type; a float above 1 is refused",
            "as the policy was trained on it" if config.state_dim else "none",
            "tanh of the mean in -1..1",
        )

    def spec(self, config: DrQV2Config) -> StateSpec:
        return drqv2_spec(config)

    def target(self, config: DrQV2Config) -> ConversionTarget:
        return drqv2_target(config)

    def group_of(self, name: str) -> str:
        return group_of(name)

    def acting_path(self, state: StateSpec) -> frozenset[str]:
        return acting_path(state)

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
            fusion=config.fusion,
            time_dim=config.time_dim,
            shared_critic_trunk=config.shared_critic_trunk,
            num_atoms=config.num_atoms,
            value_limit=config.value_limit,
            value_transform=config.value_transform,
            config=config,
        )


ARCHITECTURE = DrQV2()
