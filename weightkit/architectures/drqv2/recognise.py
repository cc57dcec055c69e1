"""Whether a file is one of DrQ-v2's, at a glance; only then is it looked at closely."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint

_FIRST_KERNEL = "encoder.convs_per_cam.0.0.weight"


def recognise(checkpoint: Checkpoint, settings: Mapping[str, str]) -> Recognition | None:
    """What the checkpoint is, None where it is not this architecture."""
    if not is_native(checkpoint) and _FIRST_KERNEL not in checkpoint.state:
        return None
    from weightkit.architectures.drqv2.inference import recognise_native, recognise_robobase

    return recognise_native(checkpoint) or recognise_robobase(checkpoint, settings)


def is_native(checkpoint: Checkpoint) -> bool:
    """Whether weightkit wrote it; other projects have a ``config`` of that type too."""
    document = checkpoint.metadata.get("config")
    if not isinstance(document, dict) or document.get("type") != "drqv2":
        return False
    return "weightkit_version" in checkpoint.metadata or "weightkit_format" in document


def group_of(name: str) -> str:
    """The group that a tensor of any of the layouts belongs to."""
    first = name.split(".", 1)[0]
    return "actor" if first == "actor_model" else first
