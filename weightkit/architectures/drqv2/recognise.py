"""Which layouts of DrQ-v2 a file may have, at a glance; only then is it looked at closely."""

from __future__ import annotations

from weightkit.engine.wrappers import unwrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from weightkit.core.checkpoint import Checkpoint

_MARKS = {
    "encoder.convs_per_cam.0.0.weight": ("lerobot-drqv2", "robobase-drqv2"),
    "encoder.convnet.0.weight": ("fb-drqv2",),
    "actor_model.out_mlp.0.weight": ("robobase-drqv2",),  # a policy without images, which is said
}


def candidates(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Layouts that are worth a closer look, in this order."""
    return next((layouts for name, layouts in _MARKS.items() if name in checkpoint.state), ())


def group_of(name: str) -> str:
    """The group that a tensor of any of the layouts belongs to."""
    first = unwrapped(name).split(".", 1)[0]
    return {"actor_model": "actor", "critic_ensemble": "critic"}.get(first, first)
