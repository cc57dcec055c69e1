"""What SAC sees: images through one backbone for all cameras, states through a trunk each or as they are.

Function-equal to LeRobot 0.4.4's `SACObservationEncoder` (backbone ``cnn`` or ``resnet10``) and to the feature
extractors `NatureCNN` and `FlattenExtractor` of stable-baselines3 (``nature``, states as they are).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weightkit.nets.blocks import trunk
from weightkit.nets.resnet import ResNet10

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DROPOUT = 0.1
"""Before a camera's linear layer, in training only, as LeRobot has it."""


class Seen(NamedTuple):
    """An observation that was checked: images ``{camera: (B, T*C, H, W)}`` in [0, 1], states ``(B, size)`` or None."""

    images: dict[str, Tensor]
    environment: Tensor | None
    state: Tensor | None


class PerCamera(nn.Module):
    """One module for each camera, under the camera's name; a dot in it is written as ``_``."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for camera, module in modules.items():
            self._modules[camera.replace(".", "_")] = module  # add_module refuses names such as 'type' or 'half'

    def forward(self, camera: str, features: Tensor) -> Tensor:
        found: Tensor = self._modules[camera.replace(".", "_")](features)  # type: ignore[misc]
        return found


class SpatialEmbedding(nn.Module):
    """A learned weighting over places, ``features`` times a channel: ``(B, C, h, w) -> (B, C * features)``.

    Source: LeRobot 0.4.4 `modeling_sac.SpatialLearnedEmbeddings`.
    """

    def __init__(self, channels: int, height: int, width: int, features: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(channels, height, width, features))
        nn.init.kaiming_normal_(self.kernel, mode="fan_in", nonlinearity="linear")

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[1:] != self.kernel.shape[:3]:
            raise ValueError(f"feature maps: expected {tuple(self.kernel.shape[:3])}, found {tuple(maps.shape[1:])}")
        return torch.einsum("bchw,chwp->bcp", maps, self.kernel).flatten(1)


def strided(in_channels: int, layers: Sequence[tuple[int, int, int]]) -> nn.Sequential:
    """Convolutions ``(channels, kernel, stride)`` without padding, ReLU after each. Even entries have parameters."""
    found: list[nn.Module] = []
    for channels, kernel, stride in layers:
        found += [nn.Conv2d(in_channels, channels, kernel, stride=stride), nn.ReLU()]
        in_channels = channels
    return nn.Sequential(*found)


def backbone(kind: str, in_channels: int, hidden_dim: int, resnet_widths: Sequence[int]) -> nn.Module:
    """``(B, in_channels, H, W) -> (B, C, h, w)``: LeRobot's ``cnn``, SB3's ``nature`` or a ResNet-10."""
    if kind == "cnn":
        return strided(in_channels, [(hidden_dim, kernel, 2) for kernel in (7, 5, 3, 3)])
    if kind == "nature":
        return strided(in_channels, [(32, 8, 4), (64, 4, 2), (64, 3, 1)])
    return ResNet10(in_channels, resnet_widths, symmetric=kind == "resnet10_symmetric")


class Encoder(nn.Module):
    """An observation's features, ``(B, output_dim)``: cameras in their order, then environment, then state."""

    def __init__(
        self,
        *,
        cameras: Sequence[str],
        image_shape: tuple[int, int, int],
        vision_encoder: str,
        hidden_dim: int,
        resnet_widths: Sequence[int],
        pooling_dim: int,
        latent_dim: int,
        features_dim: int,
        environment_dim: int,
        state_dim: int,
        state_encoder: str,
        image_normalization: str,
    ) -> None:
        super().__init__()
        self.cameras = tuple(cameras)
        self.imagenet = image_normalization == "imagenet"
        self.output_dim = 0
        self.backbone: nn.Module | None = None
        self.spatial: PerCamera | None = None
        self.post: PerCamera | None = None
        if self.cameras:
            self.backbone = backbone(vision_encoder, image_shape[0], hidden_dim, resnet_widths)
            with torch.no_grad():
                channels, height, width = self.backbone(torch.zeros(1, *image_shape)).shape[1:]
            if vision_encoder == "nature":
                size = channels * height * width
                self.post = PerCamera({c: nn.Sequential(nn.Linear(size, features_dim), nn.ReLU()) for c in cameras})
                self.output_dim += len(self.cameras) * features_dim
            else:
                self.spatial = PerCamera({c: SpatialEmbedding(channels, height, width, pooling_dim) for c in cameras})
                self.post = PerCamera({c: trunk(channels * pooling_dim, latent_dim) for c in cameras})
                self.output_dim += len(self.cameras) * latent_dim
        latent = state_encoder == "latent"
        self.environment = trunk(environment_dim, latent_dim) if environment_dim and latent else None
        self.state = trunk(state_dim, latent_dim) if state_dim and latent else None
        self.output_dim += sum(latent_dim if latent else size for size in (environment_dim, state_dim) if size)

    def maps(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the backbone makes of each camera's image, ``{camera: (B, C, h, w)}``; a frozen one's may be reused."""
        if self.backbone is None:
            return {}
        return {camera: self.backbone(self._normalised(images[camera])) for camera in self.cameras}

    def forward(
        self,
        seen: Seen,
        maps: Mapping[str, Tensor] | None = None,
        *,
        detach_images: bool = False,
        dropout: bool = False,
    ) -> Tensor:
        """``maps`` are those of `maps` where they are known already; ``detach_images``: no gradient through images."""
        found = self.maps(seen.images) if maps is None else maps
        parts = [self._camera(camera, found[camera], dropout) for camera in self.cameras]
        if detach_images:
            parts = [part.detach() for part in parts]
        for values, encoder in ((seen.environment, self.environment), (seen.state, self.state)):
            if values is not None:
                parts.append(values if encoder is None else encoder(values))
        return torch.cat(parts, dim=1)

    def _camera(self, camera: str, maps: Tensor, dropout: bool) -> Tensor:
        assert self.post is not None
        features = maps.flatten(1) if self.spatial is None else self.spatial(camera, maps)
        if dropout and self.spatial is not None:
            features = nn.functional.dropout(features, DROPOUT)
        found: Tensor = self.post(camera, features)
        return found

    def _normalised(self, images: Tensor) -> Tensor:
        """ImageNet's mean and standard deviation taken out, frame by frame, where the policy was built so."""
        if not self.imagenet:
            return images
        mean, std = (
            torch.tensor(values, device=images.device).repeat(images.shape[1] // 3)[:, None, None]
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        return (images - mean) / std
