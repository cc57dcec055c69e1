"""Building blocks that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def pixels_to_unit(images: Tensor) -> Tensor:
    """Images as float32 in [0, 1]. ``(..., H, W) -> (..., H, W)``, uint8 0..255 or float 0..1.

    Raises ValueError for floats outside [0, 1] (a 0..255 image as float would act like noise) and other dtypes.
    """
    if images.dtype == torch.uint8:
        return images.to(torch.float32) / 255.0
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 (0..255) or float (0..1), found {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"float images must lie in 0..1, found {low:g}..{high:g}; hand in uint8 for 0..255, or divide by 255"
        )
    return images.to(torch.float32)


def trunk(in_features: int, out_features: int) -> nn.Sequential:
    """``(B, in) -> (B, out)`` in (-1, 1): Linear, LayerNorm, tanh. Entries 0 and 1 have parameters."""
    return nn.Sequential(nn.Linear(in_features, out_features), nn.LayerNorm(out_features), nn.Tanh())


def mlp(in_features: int, hidden_dims: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """``(B, in) -> (B, hidden_dims[-1])``: Linear and activation, once for each width. Even entries have parameters."""
    layers: list[nn.Module] = []
    for width in hidden_dims:
        layers += [nn.Linear(in_features, width), activation()]
        in_features = width
    return nn.Sequential(*layers)


def normed_mlp(in_features: int, hidden_dims: Sequence[int], final: type[nn.Module] | None = nn.SiLU) -> nn.Sequential:
    """``(B, in) -> (B, hidden_dims[-1])``: Linear, LayerNorm and SiLU, once for each width.

    The last layer ends with ``final``; None leaves it a bare Linear. Entries 3i and 3i + 1 have parameters.
    Source: LeRobot 0.4.4 `modeling_sac.MLP`.
    """
    layers: list[nn.Module] = []
    for index, width in enumerate(hidden_dims):
        layers.append(nn.Linear(in_features, width))
        activation = nn.SiLU if index < len(hidden_dims) - 1 else final
        if activation is not None:
            layers += [nn.LayerNorm(width), activation()]
        in_features = width
    return nn.Sequential(*layers)


def orthogonal_init(module: nn.Module) -> None:
    """Orthogonal weights and zero biases, ReLU gain for convolutions. Source: drqv2 `utils.weight_init`."""
    if isinstance(module, nn.Linear):
        nn.init.orthogonal_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu"))
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class RandomShift(nn.Module):
    """Shift each image by up to ``pad`` pixels both ways, the border repeated. ``(B, C, H, W)`` of any dtype, the same.

    Source: Yarats et al. 2021 (DrQ-v2), section 3.1; the shift is drawn from ``generator`` so that runs repeat.
    """

    def __init__(self, pad: int = 4) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        batch, _, height, width = images.shape
        shift = torch.randint(0, 2 * self.pad + 1, (2, batch), generator=generator, device="cpu").to(images.device)
        rows, columns = (
            (shift[axis][:, None] + torch.arange(size, device=images.device) - self.pad).clamp(0, size - 1)
            for axis, size in enumerate((height, width))
        )
        moved = images.gather(2, rows[:, None, :, None].expand(images.shape))
        return moved.gather(3, columns[:, None, None, :].expand(images.shape))
