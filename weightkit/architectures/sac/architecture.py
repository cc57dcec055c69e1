"""The architecture ``sac``: its configuration, its tensors by arithmetic, its net."""

from __future__ import annotations

from collections.abc import Mapping as NameMap
from typing import TYPE_CHECKING

from weightkit.architectures.base import Conventions, Inputs
from weightkit.architectures.sac.config import SACConfig, with_settings
from weightkit.architectures.sac.recognise import group_of
from weightkit.architectures.sac.spec import acting_path, sac_spec, sac_target
from weightkit.architectures.sac.train_config import from_train_config
from weightkit.core.group import Group, Transfer
from weightkit.core.plan import ConversionTarget
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec

if TYPE_CHECKING:
    from weightkit.nets.sac import SACPolicy

_READ = "every action reads it"
_LEARNER = "read by the learner's updates only"
_FROZEN = "frozen: both sides have it, and only its digest is compared"


class SAC:
    """The architecture ``sac``."""

    name = "sac"
    title = "weightkit SAC"

    def groups(self, config: SACConfig) -> tuple[Group, ...]:
        discrete = config.num_discrete_actions > 0
        whose = "the discrete head reads it, and every action that" if discrete else _LEARNER
        critics = Transfer.SEND if discrete else Transfer.HOLD
        if config.freeze_vision_encoder:
            backbone = Group("encoder.backbone", Transfer.PIN, _FROZEN)
            pinned = Group("critic_encoder.backbone", Transfer.PIN, _FROZEN)
            critic_backbone = pinned if discrete else Group("critic_encoder.backbone", Transfer.HOLD, _LEARNER)
        else:
            backbone = Group("encoder.backbone", Transfer.SEND, f"trained, and {_READ}")
            critic_backbone = Group("critic_encoder.backbone", critics, whose)
        return (
            backbone,
            Group("encoder", Transfer.SEND, f"trained, and {_READ}"),
            Group("actor", Transfer.SEND, _READ),
            critic_backbone,
            Group("critic_encoder", critics, whose),
            Group("discrete_critic", critics, _READ if discrete else _LEARNER),
            *(
                Group(name, Transfer.HOLD, _LEARNER)
                for name in (
                    "critic",
                    "critic_target_encoder.backbone",
                    "critic_target_encoder",
                    "critic_target",
                    "discrete_critic_target",
                    "log_alpha",
                )
            ),
        )

    def group_of(self, name: str) -> str:
        return group_of(name)

    def default_config(self) -> SACConfig:
        return SACConfig(
            cameras=("front",), image_channels=3, image_height=128, image_width=128, state_dim=18, action_dim=3
        )

    def configure(self, config: SACConfig, settings: NameMap[str, str]) -> SACConfig:
        return with_settings(config, settings)

    def config_from_dict(self, section: Section) -> SACConfig:
        return SACConfig.from_section(section)

    def config_from_train_config(self, root: Section) -> SACConfig:
        return from_train_config(root)

    def inputs(self, config: SACConfig) -> Inputs:
        return Inputs(
            cameras=config.cameras,
            channels=config.image_channels,
            height=config.image_height,
            width=config.image_width,
            frames=config.frame_stack,
            state_dim=config.state_dim,
            action_dim=config.action_dim,
            environment_dim=config.environment_dim,
        )

    def conventions(self, config: SACConfig) -> Conventions:
        return Conventions(
            "either" if config.cameras else "none",
            "uint8 0..255 or float 0..1, told apart by type; a float above 1 is refused",
            "as the policy was trained on it" if config.state_dim else "none",
            "tanh of the mean in -1..1; a discrete action is an index behind it",
        )

    def spec(self, config: SACConfig) -> StateSpec:
        return sac_spec(config)

    def target(self, config: SACConfig) -> ConversionTarget:
        return sac_target(config)

    def acting_path(self, state: StateSpec) -> frozenset[str]:
        return acting_path(state)

    def build(self, config: SACConfig, *, with_critic: bool = True) -> SACPolicy:
        from weightkit.nets.sac import SACPolicy

        return SACPolicy(
            cameras=config.cameras,
            image_shape=config.image_shape,
            state_dim=config.frame_stack * config.state_dim,
            environment_dim=config.environment_dim,
            action_dim=config.action_dim,
            num_discrete_actions=config.num_discrete_actions,
            vision_encoder=config.vision_encoder,
            image_encoder_hidden_dim=config.image_encoder_hidden_dim,
            resnet_widths=config.resnet_widths,
            image_embedding_pooling_dim=config.image_embedding_pooling_dim,
            latent_dim=config.latent_dim,
            features_dim=config.features_dim,
            state_encoder=config.state_encoder,
            shared_encoder=config.shared_encoder,
            target_encoder=config.target_encoder,
            freeze_vision_encoder=config.freeze_vision_encoder,
            image_normalization=config.image_normalization,
            mlp=config.mlp,
            actor_final=config.actor_final,
            critic_final=config.critic_final,
            discrete_final=config.discrete_final,
            actor_hidden_dims=config.actor_hidden_dims,
            critic_hidden_dims=config.critic_hidden_dims,
            discrete_hidden_dims=config.discrete_hidden_dims,
            num_critics=config.num_critics,
            std_min=config.std_min,
            std_max=config.std_max,
            learned_temperature=config.learned_temperature,
            with_critic=with_critic,
            config=config,
        )


ARCHITECTURE = SAC()
