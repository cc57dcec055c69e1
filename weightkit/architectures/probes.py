"""Observations that tell policies apart: random, still, moving and extreme ones, the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from weightkit.architectures.base import Inputs

if TYPE_CHECKING:
    import numpy as np

IMAGE_KEY = "observation.images"
STATE_KEY = "observation.state"
ENVIRONMENT_KEY = "observation.environment_state"
TIME_KEY = "observation.time"

Observation = Mapping[str, Any]


def probes(inputs: Inputs, *, batch: int = 2, seed: int = 0, kinds: tuple[str, ...] = ()) -> list[Observation]:
    """Observations (numpy) that a policy can act on, uint8 images and float32 states, one of each of ``kinds``.

    "moving": every frame is another; "still": all frames of a stack are the same; "black" and "white": still too, with
    extreme images. All of them where none is named.
    """
    import numpy as np

    found: list[Observation] = []
    for index, kind in enumerate(("moving", "still", "black", "white")):
        random = np.random.default_rng((seed, index))
        observation: dict[str, Any] = {}
        for camera in inputs.cameras:
            observation[f"{IMAGE_KEY}.{camera}"] = _images(random, kind, batch, inputs)
        frames = inputs.frames if kind == "moving" else 1
        if inputs.state_dim:
            state = random.standard_normal((batch, frames, inputs.state_dim))
            state = np.broadcast_to(state, (batch, inputs.frames, inputs.state_dim))
            observation[STATE_KEY] = np.array(state.reshape(batch, -1), np.float32)
        if inputs.environment_dim:
            observation[ENVIRONMENT_KEY] = random.standard_normal((batch, inputs.environment_dim)).astype(np.float32)
        if inputs.time_dim:
            hot = random.integers(0, inputs.time_dim, batch)
            observation[TIME_KEY] = np.eye(inputs.time_dim, dtype=np.float32)[hot]
        if not kinds or kind in kinds:
            found.append(observation)
    return found


def _images(random: np.random.Generator, kind: str, batch: int, inputs: Inputs) -> np.ndarray:
    """``(batch, frames * channels, height, width)`` uint8."""
    import numpy as np

    shape = (batch, inputs.frames, inputs.channels, inputs.height, inputs.width)
    if kind in ("black", "white"):
        images = np.full(shape, 0 if kind == "black" else 255, np.uint8)
    else:
        frames = 1 if kind == "still" else inputs.frames
        images = random.integers(0, 256, (shape[0], frames, *shape[2:])).astype(np.uint8)
        images = np.array(np.broadcast_to(images, shape))
    return images.reshape(batch, inputs.frames * inputs.channels, inputs.height, inputs.width)
