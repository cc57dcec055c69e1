"""The SAC net's tensors by arithmetic; a test equates them with the net."""

from __future__ import annotations

from math import prod

from weightkit.architectures.sac.config import STRIDED, SACConfig
from weightkit.core.axes import Factor, FactoredAxis, stacked_axis
from weightkit.core.plan import ConversionTarget
from weightkit.core.tensor import StateSpec, TensorSpec, spec

_NATURE = (32, 64, 64)
Tensors = dict[str, TensorSpec]


def sac_spec(config: SACConfig, *, with_critic: bool = True) -> StateSpec:
    """Every tensor of the native layout; ``with_critic=False``: of what acting reads."""
    tensors: Tensors = {}
    discrete = config.num_discrete_actions
    features, action = config.feature_dim, config.action_dim
    if with_critic and config.learned_temperature:
        tensors["log_alpha"] = spec("float32", 1)
    _encoder(tensors, "encoder", config)
    width = _mlp(tensors, "actor.mlp", config, features, config.actor_hidden_dims, config.actor_final)
    for name in ("actor.mean", "actor.log_std"):
        _layer(tensors, name, action, width)
    if not config.shared_encoder and (with_critic or discrete):
        _encoder(tensors, "critic_encoder", config)
    for critic in ("critic", "critic_target") if with_critic else ():
        if critic == "critic_target" and config.target_encoder == "own":
            _encoder(tensors, "critic_target_encoder", config)
        for index in range(config.num_critics):
            q = f"{critic}.qs.{index}"
            width = _mlp(tensors, f"{q}.mlp", config, features + action, config.critic_hidden_dims, config.critic_final)
            _layer(tensors, f"{q}.head", 1, width)
    for critic in ("discrete_critic", "discrete_critic_target") if discrete else ():
        if with_critic or critic == "discrete_critic":
            hidden, final = config.discrete_hidden_dims, config.discrete_final
            width = _mlp(tensors, f"{critic}.mlp", config, features, hidden, final)
            _layer(tensors, f"{critic}.head", discrete, width)
    return StateSpec(tensors)


def _layer(tensors: Tensors, name: str, *weight: int, bias: bool = True) -> None:
    tensors[f"{name}.weight"] = spec("float32", *weight)
    if bias:
        tensors[f"{name}.bias"] = spec("float32", weight[0])


def _mlp(tensors: Tensors, prefix: str, config: SACConfig, width: int, hidden: tuple[int, ...], final: str) -> int:
    step = 3 if config.mlp == "layernorm_silu" else 2
    for index, nodes in enumerate(hidden):
        _layer(tensors, f"{prefix}.{step * index}", nodes, width)
        if step == 3 and (index < len(hidden) - 1 or final != "none"):
            _layer(tensors, f"{prefix}.{3 * index + 1}", nodes)
        width = nodes
    return width


def _encoder(tensors: Tensors, prefix: str, config: SACConfig) -> None:
    """One encoder: backbone, then what each camera has of its own, then the states' trunks."""
    if config.cameras:
        channels = _backbone(tensors, f"{prefix}.backbone", config)
        places = prod(config.feature_size)
        pooled = channels * config.image_embedding_pooling_dim
        if config.vision_encoder != "nature":
            for camera in config.modules:
                kernel = (channels, *config.feature_size, config.image_embedding_pooling_dim)
                tensors[f"{prefix}.spatial.{camera}.kernel"] = spec("float32", *kernel)
        for camera in config.modules:
            if config.vision_encoder == "nature":
                _layer(tensors, f"{prefix}.post.{camera}.0", config.features_dim, channels * places)
            else:
                _trunk(tensors, f"{prefix}.post.{camera}", config.latent_dim, pooled)
    if config.state_encoder == "latent":
        sizes = {"environment": config.environment_dim, "state": config.frame_stack * config.state_dim}
        for name, size in sizes.items():
            if size:
                _trunk(tensors, f"{prefix}.{name}", config.latent_dim, size)


def _trunk(tensors: Tensors, prefix: str, out: int, width: int) -> None:
    _layer(tensors, f"{prefix}.0", out, width)
    _layer(tensors, f"{prefix}.1", out)


def _backbone(tensors: Tensors, prefix: str, config: SACConfig) -> int:
    """The backbone's tensors; how many channels it gives."""
    width = config.image_shape[0]
    if config.vision_encoder.startswith("resnet10"):
        first = config.resnet_widths[0]
        _layer(tensors, f"{prefix}.stem.conv", first, width, 7, 7, bias=False)
        _layer(tensors, f"{prefix}.stem.norm", first)
        width = first
        for index, channels in enumerate(config.resnet_widths):
            block = f"{prefix}.blocks.{index}"
            for number, size in ((1, width), (2, channels)):
                _layer(tensors, f"{block}.conv{number}", channels, size, 3, 3, bias=False)
                _layer(tensors, f"{block}.norm{number}", channels)
            if width != channels:
                _layer(tensors, f"{block}.shortcut.0", channels, width, 1, 1, bias=False)
                _layer(tensors, f"{block}.shortcut.1", channels)
            width = channels
        return width
    kernels = [kernel for kernel, _ in STRIDED[config.vision_encoder]]
    widths = _NATURE if config.vision_encoder == "nature" else (config.image_encoder_hidden_dim,) * len(kernels)
    for index, (kernel, channels) in enumerate(zip(kernels, widths, strict=True)):
        _layer(tensors, f"{prefix}.{2 * index}", channels, width, kernel, kernel)
        width = channels
    return width


def sac_target(config: SACConfig) -> ConversionTarget:
    """What a conversion into the native layout must produce.

    First convolutions and the state's trunks stack frames (channels C, state D); an MLP reads the features of cameras,
    environment and state, and a critic's the action.
    """
    state = sac_spec(config)
    first = "stem.conv.weight" if config.vision_encoder.startswith("resnet10") else "0.weight"
    axes: dict[str, tuple[FactoredAxis, ...]] = {}
    for name in state:
        if name.endswith(f"encoder.backbone.{first}"):
            axes[name] = (stacked_axis(1, frames=config.frame_stack, per_frame=config.image_channels),)
        elif name.endswith("encoder.state.0.weight"):
            axes[name] = (stacked_axis(1, frames=config.frame_stack, per_frame=config.state_dim, inner="D"),)
        elif name.endswith(".mlp.0.weight"):
            axes[name] = (_mlp_inputs(config, with_action=name.startswith("critic")),)
    return ConversionTarget("sac", state, lists(config), axes, acting_path(state))


def lists(config: SACConfig) -> dict[str, tuple[str, ...]]:
    """What the layouts' templates look up: the cameras' names here and in LeRobot, SB3's critics and their layers."""
    return {
        "cameras": config.modules,
        "lerobot_cameras": tuple(
            module if camera.startswith("observation.") else f"observation_images_{module}"
            for camera, module in zip(config.cameras, config.modules, strict=True)
        ),
        "sb3_linear": ("linear",),
        "sb3_critics": tuple(f"qf{index}" for index in range(config.num_critics)),
        "sb3_layers": tuple(str(2 * index) for index in range(len(config.critic_hidden_dims))),
    }


def _mlp_inputs(config: SACConfig, *, with_action: bool) -> FactoredAxis:
    blocks: list[tuple[Factor, ...]] = []
    camera = config.features_dim if config.vision_encoder == "nature" else config.latent_dim
    latent = config.state_encoder == "latent"
    if config.cameras:
        blocks.append((Factor("visual", len(config.cameras) * camera),))
    if config.environment_dim:
        blocks.append((Factor("environment", config.latent_dim if latent else config.environment_dim),))
    if config.state_dim and latent:
        blocks.append((Factor("state", config.latent_dim),))
    elif config.state_dim:
        blocks.append(stacked_axis(1, frames=config.frame_stack, per_frame=config.state_dim, inner="D").blocks[0])
    if with_action:
        blocks.append((Factor("action", config.action_dim),))
    return FactoredAxis(1, tuple(blocks))


def acting_path(state: StateSpec) -> frozenset[str]:
    """What choosing an action reads: encoder and actor; with a discrete head that one, and the encoder it reads."""
    read = {"encoder", "actor"}
    if any(name.startswith("discrete_critic.") for name in state):
        read |= {"discrete_critic", "critic_encoder"}
    return frozenset(name for name in state if name.split(".", 1)[0] in read)
