"""Which layouts of SAC a file may have, at a glance; only then is it looked at closely."""

from __future__ import annotations

from weightkit.engine.wrappers import unwrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from weightkit.core.checkpoint import Checkpoint

_MEAN = "actor.mean_layer.weight"
_LEROBOT = (_MEAN, f"_orig_mod.{_MEAN}", f"module.{_MEAN}", "actor._orig_mod.mean_layer.weight")
_SB3 = "actor.latent_pi.0.weight"
_ENCODERS = {
    "actor": "encoder", "encoder_actor": "encoder", "encoder_critic": "critic_encoder", "critic": "critic_encoder",
    "critic_ensemble": "critic_encoder", "critic_target": "critic_target_encoder", "discrete_critic": "critic_encoder",
    "discrete_critic_target": "critic_encoder",
}  # fmt: skip
_BACKBONES = ("backbone", "image_encoder", "cnn")


def candidates(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Layouts that are worth a closer look, in this order."""
    if any(name in checkpoint.state for name in _LEROBOT):
        return ("lerobot-gaussian-actor", "lerobot-sac")
    return ("sb3-sac",) if _SB3 in checkpoint.state else ()


def group_of(name: str) -> str:
    """The group that a tensor of any of the layouts belongs to.

    A vision backbone is a group of its own, ``encoder.backbone``: frozen, it never travels.
    """
    parts = unwrapped(name).split(".")
    first = parts[0]
    if first in ("encoder", "critic_encoder", "critic_target_encoder"):
        return f"{first}.backbone" if parts[1:2] == ["backbone"] else first
    inner = parts[1:2] if first in ("encoder_actor", "encoder_critic") else parts[2:3]
    if first in ("encoder_actor", "encoder_critic") or parts[1:2] in (["encoder"], ["features_extractor"]):
        encoder = _ENCODERS.get(first, first)
        return f"{encoder}.backbone" if inner and inner[0] in _BACKBONES else encoder
    if first == "pytorch_variables":
        return "log_alpha"
    return "critic" if first == "critic_ensemble" else first
