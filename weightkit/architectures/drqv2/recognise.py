"""Whether a file is one of DrQ-v2's, at a glance; only then is it looked at closely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint

_FIRST_KERNEL = "encoder.convs_per_cam.0.0.weight"


def recognise(checkpoint: Checkpoint, settings: Mapping[str, str]) -> Recognition | None:
    """What the checkpoint is, None where it is not this architecture."""
    document = checkpoint.metadata.get("config")
    is_native = isinstance(document, dict) and document.get("type") == "drqv2"
    if not is_native and _FIRST_KERNEL not in checkpoint.state:
        return None
    from weightkit.architectures.drqv2.inference import recognise_native, recognise_robobase

    return recognise_native(checkpoint) or recognise_robobase(checkpoint, settings)


def group_of(name: str) -> str:
    """The group that a tensor of any of the layouts belongs to."""
    first = name.split(".", 1)[0]
    return "actor" if first == "actor_model" else first
