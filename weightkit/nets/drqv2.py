"""DrQ-v2 for several named cameras and a low-dimensional state.

Source: Yarats et al. 2021 (DrQ-v2); per-camera towers, bottlenecked trunks and separate critics as RoboBase has them.
Function-equal to RoboBase's `EncoderCNNMultiViewDownsampleWithStrides` and `MLPWithBottleneckFeatures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from weightkit.nets.blocks import mlp, orthogonal_init, pixels_to_unit, trunk

STATE_KEY = "observation.state"
IMAGE_KEY = "observation.images"


def conv_output_size(size: int, num_downsample_convs: int, num_post_convs: int) -> int:
    """Pixels along one side after the 3x3 convolutions without padding; below 1 where the image is too small."""
    for _ in range(num_downsample_convs):
        size = (size - 3) // 2 + 1
    return size - 2 * num_post_convs


class Encoder(nn.Module):
    """One tower of 3x3 convolutions per camera: first those of stride 2, then those of stride 1, ReLU after each.

    ``{camera: (B, T*C, H, W) float in [0, 1]} -> (B, cameras * channels * h * w)``, cameras in their declared order.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        in_channels: int,
        channels: int,
        num_downsample_convs: int,
        num_post_convs: int,
    ) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        for camera in self.cameras:
            layers: list[nn.Module] = []
            width = in_channels
            for index in range(num_downsample_convs + num_post_convs):
                stride = 2 if index < num_downsample_convs else 1
                layers += [nn.Conv2d(width, channels, 3, stride=stride), nn.ReLU()]
                width = channels
            self._modules[camera] = nn.Sequential(*layers)  # add_module refuses names such as 'type' or 'half'

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        features = [self._modules[camera](images[camera] - 0.5) for camera in self.cameras]  # type: ignore[misc]
        return torch.cat([f.flatten(1) for f in features], dim=1)


class BottleneckMLP(nn.Module):
    """Visual features and state through a trunk each, then an MLP and a linear head.

    ``(B, visual), (B, state) or None, (B, extra) or None -> (B, out)``; ``extra`` (the action) skips the trunks.
    """

    def __init__(
        self,
        visual_dim: int,
        state_dim: int,
        extra_dim: int,
        bottleneck_dim: int,
        hidden_dims: Sequence[int],
        out_dim: int,
    ) -> None:
        super().__init__()
        self.visual_trunk = trunk(visual_dim, bottleneck_dim)
        self.state_trunk = trunk(state_dim, bottleneck_dim) if state_dim else None
        width = bottleneck_dim * (2 if state_dim else 1) + extra_dim
        self.mlp = mlp(width, hidden_dims)
        self.head = nn.Linear(hidden_dims[-1], out_dim)

    def forward(self, visual: Tensor, state: Tensor | None, extra: Tensor | None = None) -> Tensor:
        parts = [self.visual_trunk(visual)]
        if self.state_trunk is not None:
            parts.append(self.state_trunk(state))
        if extra is not None:
            parts.append(extra)
        result: Tensor = self.head(self.mlp(torch.cat(parts, dim=1)))
        return result


class Critic(nn.Module):
    """Independent Q functions. ``(B, visual), (B, state) or None, (B, A) -> (num_critics, B)``."""

    def __init__(self, num_critics: int, **kwargs: Any) -> None:
        super().__init__()
        self.qs = nn.ModuleList(BottleneckMLP(out_dim=1, **kwargs) for _ in range(num_critics))

    def forward(self, visual: Tensor, state: Tensor | None, action: Tensor) -> Tensor:
        return torch.stack([q(visual, state, action).squeeze(1) for q in self.qs])


class DrQV2Policy(nn.Module):
    """Encoder, actor, critic and critic target of DrQ-v2. ``num_critics=0`` builds the acting path only.

    ``config`` is carried along for whoever built the net and is not looked at.
    """

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        image_channels: int,
        image_height: int,
        image_width: int,
        frame_stack: int,
        state_dim: int,
        action_dim: int,
        encoder_channels: int,
        num_downsample_convs: int,
        num_post_convs: int,
        bottleneck_dim: int,
        hidden_dims: Sequence[int],
        num_critics: int,
        config: Any = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.cameras = tuple(cameras)
        self.image_shape = (frame_stack * image_channels, image_height, image_width)
        self.state_dim = frame_stack * state_dim
        self.action_dim = action_dim
        height, width = (conv_output_size(n, num_downsample_convs, num_post_convs) for n in (image_height, image_width))
        if height < 1 or width < 1:
            raise ValueError(f"images of {image_height}x{image_width} are too small for the convolutions")
        head: dict[str, Any] = {
            "visual_dim": len(self.cameras) * encoder_channels * height * width,
            "state_dim": self.state_dim,
            "bottleneck_dim": bottleneck_dim,
            "hidden_dims": tuple(hidden_dims),
        }
        self.encoder = Encoder(
            self.cameras, self.image_shape[0], encoder_channels, num_downsample_convs, num_post_convs
        )
        self.actor = BottleneckMLP(extra_dim=0, out_dim=action_dim, **head)
        self.critic: Critic | None = None
        self.critic_target: Critic | None = None
        if num_critics:
            self.critic = Critic(num_critics, extra_dim=action_dim, **head)
            self.critic_target = Critic(num_critics, extra_dim=action_dim, **head)
        self.apply(orthogonal_init)
        if self.critic is not None and self.critic_target is not None:
            self.critic_target.load_state_dict(self.critic.state_dict())
            self.critic_target.requires_grad_(False)

    def images_of(self, observation: Mapping[str, Any]) -> dict[str, Tensor]:
        """The observation's images by camera, float32 in [0, 1]: ``{camera: (B, T*C, H, W)}``.

        Raises KeyError for a camera that is missing, ValueError for a wrong shape, dtype or range. With one camera a
        bare ``observation.images`` is that camera's.
        """
        found = {}
        for camera in self.cameras:
            key = f"{IMAGE_KEY}.{camera}"
            if key not in observation and len(self.cameras) == 1 and IMAGE_KEY in observation:
                key = IMAGE_KEY
            images = self._entry(observation, key)
            if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
                raise ValueError(
                    f"{key}: expected (B, {', '.join(map(str, self.image_shape))}) = (B, T*C, H, W), "
                    f"found {tuple(images.shape)}"
                )
            found[camera] = pixels_to_unit(images)
        return found

    def state_of(self, observation: Mapping[str, Any]) -> Tensor | None:
        """The observation's state, ``(B, T*D)`` float32; None for a policy without one."""
        if not self.state_dim:
            return None
        state = self._entry(observation, STATE_KEY)
        if state.ndim != 2 or state.shape[1] != self.state_dim:
            raise ValueError(f"{STATE_KEY}: expected (B, {self.state_dim}) = (B, T*D), found {tuple(state.shape)}")
        return state.to(torch.float32)

    def _entry(self, observation: Mapping[str, Any], key: str) -> Tensor:
        if key not in observation:
            raise KeyError(f"the observation has no {key!r}; it has {', '.join(map(repr, observation)) or 'nothing'}")
        return torch.as_tensor(observation[key]).to(self.actor.head.weight.device)

    def encode(self, observation: Mapping[str, Any]) -> Tensor:
        """Features of the fused views, ``(B, cameras * channels * h * w)``."""
        features: Tensor = self.encoder(self.images_of(observation))
        return features

    @torch.no_grad()
    def act(self, observation: Mapping[str, Any]) -> Tensor:
        """The deterministic action, tanh of the mean: ``(B, A)`` in (-1, 1)."""
        return torch.tanh(self.actor(self.encode(observation), self.state_of(observation)))

    @torch.no_grad()
    def q_values(self, observation: Mapping[str, Any], action: Any) -> Tensor:
        """The critics' values of ``action (B, A)``: ``(num_critics, B)``. Raises ValueError without a critic."""
        return self._values(self.critic, observation, action)

    @torch.no_grad()
    def target_q_values(self, observation: Mapping[str, Any], action: Any) -> Tensor:
        """The critic targets' value of ``action (B, A)``: ``(num_critics, B)``."""
        return self._values(self.critic_target, observation, action)

    def _values(self, critic: Critic | None, observation: Mapping[str, Any], action: Any) -> Tensor:
        if critic is None:
            raise ValueError("this policy has no critic: the file it came from holds the acting path only")
        features = self.encode(observation)
        action = torch.as_tensor(action).to(features)
        if action.shape != (features.shape[0], self.action_dim):
            raise ValueError(f"action: expected (B, {self.action_dim}), found {tuple(action.shape)}")
        values: Tensor = critic(features, self.state_of(observation), action)
        return values
