"""The learner of devlog 042, as it was: it pushes what `policy.actor` holds and takes that for the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from weightkit.core.manifest import SyncManifest
from weightkit.sync.grouping import make_manifest

NET: dict[str, Any] = {
    "cameras": ["front"],
    "image_channels": 3,
    "image_height": 19,
    "image_width": 19,
    "frame_stack": 3,
    "state_dim": 4,
    "action_dim": 2,
    "encoder_channels": 4,
    "num_downsample_convs": 1,
    "num_post_convs": 3,
    "bottleneck_dim": 5,
    "hidden_dims": [8, 8],
    "num_critics": 2,
}
EIGHT = {f"encoder.front.{layer}.{kind}" for layer in (0, 2, 4, 6) for kind in ("weight", "bias")}
"""What its actors never got."""


class Learner042:
    """A LeRobot-style learner of a policy whose encoder is a sibling of its actor."""

    def __init__(self, policy: Any) -> None:
        self.policy = policy

    def push(self) -> dict[str, dict[str, torch.Tensor]]:
        """What goes to the actors."""
        return {"policy": self.policy.actor.state_dict()}

    def save_push(self, path: Path) -> Path:
        """The push as a file."""
        torch.save(self.push(), path)
        return path

    def manifest(self) -> SyncManifest:
        """What such a learner sends, written down: the actor; everything else it keeps to itself."""
        names = dict.fromkeys(name.split(".")[0] for name in self.policy.state_dict())
        return make_manifest(self.policy, {name: "send" if name == "actor" else "hold" for name in names})


class FixedLearner042(Learner042):
    """The same after the fix: the encoder is a key of its own."""

    def push(self) -> dict[str, dict[str, torch.Tensor]]:
        return {**super().push(), "encoder": self.policy.encoder.state_dict()}
