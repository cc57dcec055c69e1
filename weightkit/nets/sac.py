"""Soft actor-critic for named cameras, states and an optional discrete head.

Source: Haarnoja et al. 2018 (SAC). Function-equal to LeRobot's SAC (0.4.4 `modeling_sac`, later `gaussian_actor` with
`sac_algorithm`) and to the SAC policies of stable-baselines3, according to the options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from weightkit.nets.observing import ENVIRONMENT_KEY, STATE_KEY, images_by_camera, vector
from weightkit.nets.sac_encoder import Encoder, Seen
from weightkit.nets.sac_heads import Actor, Critic, Head


class SACPolicy(nn.Module):
    """Encoders, actor, critics with targets, discrete critic and temperature. Each tensor stands once.

    ``encoder`` is the actor's; ``critic_encoder`` is there where the critics have their own (``shared_encoder`` false),
    ``critic_target_encoder`` where their targets have a copy (``target_encoder`` "own"). ``with_critic=False`` builds
    what acting reads. Modes do not matter: dropout is asked for (`features`). ``config`` is carried along unseen.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        image_shape: tuple[int, int, int],
        state_dim: int,
        environment_dim: int,
        action_dim: int,
        num_discrete_actions: int,
        vision_encoder: str,
        image_encoder_hidden_dim: int,
        resnet_widths: Sequence[int],
        image_embedding_pooling_dim: int,
        latent_dim: int,
        features_dim: int,
        state_encoder: str,
        shared_encoder: bool,
        target_encoder: str,
        freeze_vision_encoder: bool,
        image_normalization: str,
        mlp: str,
        actor_final: str,
        critic_final: str,
        discrete_final: str,
        actor_hidden_dims: Sequence[int],
        critic_hidden_dims: Sequence[int],
        discrete_hidden_dims: Sequence[int],
        num_critics: int,
        std_min: float,
        std_max: float,
        learned_temperature: bool,
        with_critic: bool = True,
        config: Any = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.cameras = tuple(cameras)
        self.image_shape = image_shape
        self.state_dim, self.environment_dim = state_dim, environment_dim
        self.action_dim, self.num_discrete_actions = action_dim, num_discrete_actions

        def encoder() -> Encoder:
            found = Encoder(
                cameras=self.cameras,
                image_shape=image_shape,
                vision_encoder=vision_encoder,
                hidden_dim=image_encoder_hidden_dim,
                resnet_widths=resnet_widths,
                pooling_dim=image_embedding_pooling_dim,
                latent_dim=latent_dim,
                features_dim=features_dim,
                environment_dim=environment_dim,
                state_dim=state_dim,
                state_encoder=state_encoder,
                image_normalization=image_normalization,
            )
            if freeze_vision_encoder and found.backbone is not None:
                found.backbone.requires_grad_(False)
            return found

        self.encoder = encoder()
        size = self.encoder.output_dim
        self.actor = Actor(mlp, actor_final, size, actor_hidden_dims, action_dim, (std_min, std_max))
        own = not shared_encoder and (with_critic or num_discrete_actions > 0)
        self.critic_encoder = encoder() if own else None
        self.critic: Critic | None = None
        self.critic_target_encoder: Encoder | None = None
        self.critic_target: Critic | None = None
        self.discrete_critic: Head | None = None
        self.discrete_critic_target: Head | None = None
        self.register_parameter("log_alpha", None)
        if with_critic:
            self.critic = Critic(mlp, critic_final, size + action_dim, critic_hidden_dims, num_critics)
            if target_encoder == "own":
                self.critic_target_encoder = _target(encoder(), self._critic_encoder)
            target = Critic(mlp, critic_final, size + action_dim, critic_hidden_dims, num_critics)
            self.critic_target = _target(target, self.critic)
            if learned_temperature:
                self.log_alpha = nn.Parameter(torch.zeros(1))
        if num_discrete_actions:
            head = (mlp, discrete_final, size, discrete_hidden_dims, num_discrete_actions)
            self.discrete_critic = Head(*head)
            if with_critic:
                self.discrete_critic_target = _target(Head(*head), self.discrete_critic)

    @property
    def _critic_encoder(self) -> Encoder:
        return self.critic_encoder if self.critic_encoder is not None else self.encoder

    @property
    def _device(self) -> torch.device:
        return self.actor.mean.weight.device

    def images_of(self, observation: Mapping[str, Any]) -> dict[str, Tensor]:
        """The observation's images by camera, as `weightkit.nets.observing.images_by_camera` gives them."""
        return images_by_camera(observation, self.cameras, self.image_shape, self._device)

    def state_of(self, observation: Mapping[str, Any]) -> Tensor | None:
        """The observation's state, ``(B, T*D)`` float32; None for a policy without one."""
        return vector(observation, STATE_KEY, self.state_dim, "T*D", self._device)

    def environment_of(self, observation: Mapping[str, Any]) -> Tensor | None:
        """The observation's environment state, ``(B, E)`` float32; None for a policy without one."""
        return vector(observation, ENVIRONMENT_KEY, self.environment_dim, "E", self._device)

    def see(self, observation: Mapping[str, Any]) -> Seen:
        """The observation, checked and ready for the encoders. Raises KeyError and ValueError."""
        return Seen(self.images_of(observation), self.environment_of(observation), self.state_of(observation))

    def features(
        self,
        seen: Seen,
        of: Literal["actor", "critic", "target"] = "actor",
        *,
        maps: Mapping[str, Tensor] | None = None,
        detach_images: bool = False,
        dropout: bool = False,
    ) -> Tensor:
        """The features that the actor, the critics or their targets read, ``(B, F)``.

        ``maps`` of a frozen backbone may be reused (`Encoder.maps`); ``dropout`` is for training.
        """
        encoder = self.encoder if of == "actor" else self._critic_encoder
        if of == "target" and self.critic_target_encoder is not None:
            encoder = self.critic_target_encoder
        found: Tensor = encoder(seen, maps, detach_images=detach_images, dropout=dropout)
        return found

    def encode(self, observation: Mapping[str, Any]) -> Tensor:
        """The actor's features of an observation, ``(B, F)``."""
        return self.features(self.see(observation))

    def forward(self, observation: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the action before its tanh, ``(B, A)`` each."""
        found: tuple[Tensor, Tensor] = self.actor(self.encode(observation))
        return found

    @torch.no_grad()
    def means(self, observation: Mapping[str, Any]) -> Tensor:
        """The means of the action before the tanh: ``(B, A)``."""
        means, _ = self(observation)
        found: Tensor = means
        return found

    @torch.no_grad()
    def stds(self, observation: Mapping[str, Any]) -> Tensor:
        """The standard deviations of the action before the tanh: ``(B, A)``."""
        return self(observation)[1]  # type: ignore[no-any-return]

    @torch.no_grad()
    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The deterministic action, tanh of the mean: ``(B, A)`` in (-1, 1).

        With a discrete head ``(B, A + 1)``: the index of its largest value last, as float.
        """
        seen = self.see(observation)
        action = torch.tanh(self.actor(self.features(seen))[0])
        if self.discrete_critic is None:
            return action
        best = self.discrete_critic(self.features(seen, "critic")).argmax(dim=1, keepdim=True)
        return torch.cat([action, best.to(action)], dim=1)

    @torch.no_grad()
    def q_values(self, observation: Mapping[str, Any], action: Any) -> Tensor:
        """The critics' values of ``action``: ``(num_critics, B)``. Raises ValueError without a critic.

        ``(B, A)``, or ``(B, A + 1)`` as `act` gives it with a discrete head: the critics read the continuous part.
        """
        return self._values(self.critic, "critic", observation, action)

    @torch.no_grad()
    def target_q_values(self, observation: Mapping[str, Any], action: Any) -> Tensor:
        """The critic targets' values of ``action``, as `q_values`."""
        return self._values(self.critic_target, "target", observation, action)

    @torch.no_grad()
    def discrete_q_values(self, observation: Mapping[str, Any]) -> Tensor:
        """The value of each discrete action: ``(B, num_discrete_actions)``. Raises ValueError without a head."""
        if self.discrete_critic is None:
            raise ValueError("this policy has no discrete head")
        found: Tensor = self.discrete_critic(self.features(self.see(observation), "critic"))
        return found

    def _values(
        self, critic: Critic | None, of: Literal["critic", "target"], observation: Mapping[str, Any], action: Any
    ) -> Tensor:
        if critic is None:
            raise ValueError("this policy has no critic: the file it came from holds the acting path only")
        features = self.features(self.see(observation), of)
        action = torch.as_tensor(action).to(features)
        widths = (self.action_dim, self.action_dim + 1) if self.num_discrete_actions else (self.action_dim,)
        if action.ndim != 2 or action.shape[0] != features.shape[0] or action.shape[1] not in widths:
            wanted = " or ".join(f"(B, {width})" for width in widths)
            raise ValueError(f"action: expected {wanted}, found {tuple(action.shape)}")
        values: Tensor = critic(features, action[:, : self.action_dim])
        return values


def _target(module: Any, of: nn.Module) -> Any:
    """``module`` with the values of ``of``, not to be trained."""
    module.load_state_dict(of.state_dict())
    return module.requires_grad_(False)
