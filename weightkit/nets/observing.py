"""Observations as every policy takes them, checked: what is missing or of another shape is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from weightkit.nets.blocks import pixels_to_unit

IMAGE_KEY = "observation.images"
STATE_KEY = "observation.state"
ENVIRONMENT_KEY = "observation.environment_state"
TIME_KEY = "observation.time"


def images_by_camera(
    observation: Mapping[str, Any], cameras: Sequence[str], shape: tuple[int, int, int], device: torch.device
) -> dict[str, Tensor]:
    """The observation's images by camera, float32 in [0, 1]: ``{camera: (B, T*C, H, W)}``; ``shape`` is (T*C, H, W).

    With one camera a bare ``observation.images`` is that camera's; a camera that is called by a whole key has that.
    Raises KeyError for a camera that is missing, ValueError for a wrong shape, dtype or range.
    """
    found = {}
    for camera in cameras:
        key = f"{IMAGE_KEY}.{camera}"
        if key not in observation and camera.startswith("observation.") and camera in observation:
            key = camera
        elif key not in observation and len(cameras) == 1 and IMAGE_KEY in observation:
            key = IMAGE_KEY
        images = _entry(observation, key, device)
        if images.ndim != 4 or tuple(images.shape[1:]) != shape:
            raise ValueError(
                f"{key}: expected (B, {', '.join(map(str, shape))}) = (B, T*C, H, W), found {tuple(images.shape)}"
            )
        found[camera] = pixels_to_unit(images)
    return found


def vector(observation: Mapping[str, Any], key: str, size: int, axis: str, device: torch.device) -> Tensor | None:
    """The observation's entry ``key``, ``(B, size)`` float32; None where ``size`` is 0. ``axis`` says what it is for.

    Raises KeyError where it is missing, ValueError for a wrong shape or for complex numbers.
    """
    if not size:
        return None
    values = _entry(observation, key, device)
    if values.ndim != 2 or values.shape[1] != size:
        raise ValueError(f"{key}: expected (B, {size}) = (B, {axis}), found {tuple(values.shape)}")
    if values.is_complex():
        raise ValueError(f"{key}: expected real numbers, found {values.dtype}")
    return values.to(torch.float32)


def _entry(observation: Mapping[str, Any], key: str, device: torch.device) -> Tensor:
    if key not in observation:
        raise KeyError(f"the observation has no {key!r}; it has {', '.join(map(repr, observation)) or 'nothing'}")
    values = observation[key]
    if not isinstance(values, Tensor):
        values = torch.tensor(values)  # a copy: arrays that must not be written to are welcome
    return values.to(device)
