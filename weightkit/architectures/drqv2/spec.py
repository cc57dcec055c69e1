"""The DrQ-v2 net's tensors by arithmetic; a test equates them with the net."""

from __future__ import annotations

from collections.abc import Mapping

from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.core.axes import Factor, FactoredAxis, stacked_axis
from weightkit.core.plan import ConversionTarget
from weightkit.core.tensor import StateSpec, TensorSpec, spec


def drqv2_spec(config: DrQV2Config) -> StateSpec:
    """Every tensor of the native layout: encoder, actor, critic, critic_target; a shared trunk's names are tied."""
    tensors: dict[str, TensorSpec] = {}
    aliases: dict[str, str] = {}
    for camera in config.cameras:
        width = config.frame_stack * config.image_channels
        for index in range(config.num_convs):
            tensors[f"encoder.{camera}.{2 * index}.weight"] = spec("float32", config.encoder_channels, width, 3, 3)
            tensors[f"encoder.{camera}.{2 * index}.bias"] = spec("float32", config.encoder_channels)
            width = config.encoder_channels
    _head(tensors, "actor", config, trunks=_trunks(config, with_time=False), extra=0, out=config.action_dim)
    trunks = _trunks(config, with_time=True)
    for critic in ("critic", "critic_target"):
        for index in range(config.num_critics):
            prefix = f"{critic}.qs.{index}"
            _head(tensors, prefix, config, trunks=trunks, extra=config.action_dim, out=config.num_atoms)
            if config.shared_critic_trunk and index:
                for name in _trunk_names(trunks):
                    aliases[f"{prefix}.{name}"] = f"{critic}.qs.0.{name}"
    return StateSpec(tensors, aliases)


def _trunks(config: DrQV2Config, *, with_time: bool) -> dict[str, int]:
    """The trunks that a net has, with the width of what each reads."""
    widths = {
        "visual_trunk": config.visual_dim,
        "state_trunk": config.frame_stack * config.state_dim,
        "time_trunk": config.time_dim if with_time else 0,
    }
    return {trunk: width for trunk, width in widths.items() if width}


def _trunk_names(trunks: Mapping[str, int]) -> list[str]:
    return [f"{trunk}.{name}" for trunk in trunks for name in ("0.weight", "0.bias", "1.weight", "1.bias")]


def _head(
    tensors: dict[str, TensorSpec],
    prefix: str,
    config: DrQV2Config,
    *,
    trunks: Mapping[str, int],
    extra: int,
    out: int,
) -> None:
    size = config.bottleneck_size
    for name in _trunk_names(trunks):
        tensors[f"{prefix}.{name}"] = spec("float32", size)
    for trunk, width in trunks.items():
        tensors[f"{prefix}.{trunk}.0.weight"] = spec("float32", size, width)
    width = size * len(trunks) + extra
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
    trunks = _trunks(config, with_time=with_action)
    blocks = [Factor(trunk.removesuffix("_trunk"), config.bottleneck_size) for trunk in trunks]
    if with_action:
        blocks.append(Factor("action", config.action_dim))
    return FactoredAxis(1, tuple((block,) for block in blocks))


def acting_path(state: StateSpec) -> frozenset[str]:
    """What choosing an action reads: the encoder and the actor."""
    return frozenset(name for name in state if name.split(".", 1)[0] in {"encoder", "actor"})
