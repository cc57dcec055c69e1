"""The DrQ-v2 net's tensors by arithmetic; a test equates them with the net."""

from __future__ import annotations

from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.core.axes import Factor, FactoredAxis, stacked_axis
from weightkit.core.plan import ConversionTarget
from weightkit.core.tensor import StateSpec, TensorSpec, spec


def drqv2_spec(config: DrQV2Config) -> StateSpec:
    """Every tensor of the native layout: encoder, actor, critic, critic_target."""
    tensors: dict[str, TensorSpec] = {}
    for camera in config.cameras:
        width = config.frame_stack * config.image_channels
        for index in range(config.num_convs):
            tensors[f"encoder.{camera}.{2 * index}.weight"] = spec("float32", config.encoder_channels, width, 3, 3)
            tensors[f"encoder.{camera}.{2 * index}.bias"] = spec("float32", config.encoder_channels)
            width = config.encoder_channels
    _head(tensors, "actor", config, extra=0, out=config.action_dim)
    for critic in ("critic", "critic_target"):
        for index in range(config.num_critics):
            _head(tensors, f"{critic}.qs.{index}", config, extra=config.action_dim, out=1)
    return StateSpec(tensors)


def _head(tensors: dict[str, TensorSpec], prefix: str, config: DrQV2Config, *, extra: int, out: int) -> None:
    size = config.bottleneck_size
    inputs = {"visual_trunk": config.visual_dim, "state_trunk": config.frame_stack * config.state_dim}
    for trunk, width in inputs.items():
        if width:
            tensors[f"{prefix}.{trunk}.0.weight"] = spec("float32", size, width)
            for name in ("0.bias", "1.weight", "1.bias"):
                tensors[f"{prefix}.{trunk}.{name}"] = spec("float32", size)
    width = size * (2 if config.state_dim else 1) + extra
    for index, nodes in enumerate(config.mlp_nodes):
        tensors[f"{prefix}.mlp.{2 * index}.weight"] = spec("float32", nodes, width)
        tensors[f"{prefix}.mlp.{2 * index}.bias"] = spec("float32", nodes)
        width = nodes
    tensors[f"{prefix}.head.weight"] = spec("float32", out, width)
    tensors[f"{prefix}.head.bias"] = spec("float32", out)


def drqv2_target(config: DrQV2Config) -> ConversionTarget:
    """What a conversion into the native layout must produce.

    First convolutions and state trunks stack frames (channels C, state D); a main MLP reads the features of each trunk,
    and a critic's the action.
    """
    state = drqv2_spec(config)
    firsts = {f"encoder.{camera}.0.weight" for camera in config.cameras}
    axes: dict[str, tuple[FactoredAxis, ...]] = {}
    for name in state:
        if name in firsts:
            axes[name] = (stacked_axis(1, frames=config.frame_stack, per_frame=config.image_channels),)
        elif name.endswith(".state_trunk.0.weight"):
            axes[name] = (stacked_axis(1, frames=config.frame_stack, per_frame=config.state_dim, inner="D"),)
        elif name.endswith(".mlp.0.weight"):
            axes[name] = (_mlp_inputs(config, with_action=name.startswith("critic")),)
    return ConversionTarget("drqv2", state, {"cameras": config.cameras}, axes, acting_path(state))


def _mlp_inputs(config: DrQV2Config, *, with_action: bool) -> FactoredAxis:
    blocks = [Factor("visual", config.bottleneck_size)]
    if config.state_dim:
        blocks.append(Factor("state", config.bottleneck_size))
    if with_action:
        blocks.append(Factor("action", config.action_dim))
    return FactoredAxis(1, tuple((block,) for block in blocks))


def acting_path(state: StateSpec) -> frozenset[str]:
    """What choosing an action reads: the encoder and the actor."""
    return frozenset(name for name in state if name.split(".", 1)[0] in {"encoder", "actor"})
