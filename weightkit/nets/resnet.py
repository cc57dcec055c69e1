"""ResNet-10 with group norms, as HIL-SERL pretrained it on ImageNet.

Function-equal to the port of it that LeRobot loads (github.com/helper2424/resnet10, `modeling_resnet`): padding as
JAX's "SAME", which puts the odd row and column at the end, ReLU, four groups. An early form of that port pads
convolutions on both sides instead, and the pool at the end only: ``symmetric``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTHS = (64, 128, 256, 512)
_GROUPS = 4


def padded_same(images: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """``(B, C, H, W)`` with what a window of ``kernel`` needs to give ``ceil(size / stride)`` places a side."""
    pads: list[int] = []
    for size in (images.shape[3], images.shape[2]):
        missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        pads += [missing // 2, missing - missing // 2]
    return nn.functional.pad(images, pads, value=value)


class _Stem(nn.Module):
    """A convolution of stride 2 and a pool of stride 2. ``(B, C, H, W) -> (B, channels, H/4, W/4)``."""

    def __init__(self, in_channels: int, channels: int, symmetric: bool) -> None:
        super().__init__()
        self.symmetric = symmetric
        self.conv = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.norm = nn.GroupNorm(_GROUPS, channels)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.norm(self.conv(images)))
        end = nn.functional.pad(maps, (0, 1, 0, 1), value=float("-inf")) if self.symmetric else None
        return nn.functional.max_pool2d(padded_same(maps, 3, 2, float("-inf")) if end is None else end, 3, stride=2)


class _Block(nn.Module):
    """Two 3x3 convolutions around which the input goes by itself, or through a 1x1 one where the width changes."""

    def __init__(self, in_channels: int, channels: int, stride: int, symmetric: bool) -> None:
        super().__init__()
        self.stride = stride
        self.symmetric = symmetric
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, bias=False)
        self.norm1 = nn.GroupNorm(_GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm2 = nn.GroupNorm(_GROUPS, channels)
        self.shortcut: nn.Module | None = None
        if in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.GroupNorm(_GROUPS, channels))

    def forward(self, maps: Tensor) -> Tensor:
        padded = nn.functional.pad(maps, (1, 1, 1, 1)) if self.symmetric else padded_same(maps, 3, self.stride)
        found = torch.relu(self.norm1(self.conv1(padded)))
        found = self.norm2(self.conv2(padded_same(found, 3, 1)))
        return torch.relu(found + (maps if self.shortcut is None else self.shortcut(maps)))


class ResNet10(nn.Module):
    """``(B, C, H, W) -> (B, widths[-1], H/32, W/32)``, sizes rounded up: no pooling at the end."""

    def __init__(self, in_channels: int = 3, widths: Sequence[int] = WIDTHS, *, symmetric: bool = False) -> None:
        super().__init__()
        self.stem = _Stem(in_channels, widths[0], symmetric)
        before = (widths[0], *widths)
        blocks = (_Block(before[i], width, 2 if i else 1, symmetric) for i, width in enumerate(widths))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.blocks(self.stem(images))
        return found
