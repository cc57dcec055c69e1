"""A SAC net as LeRobot's configuration describes it: ``policy`` of a train_config.json, or a policy's config.json."""

from __future__ import annotations

from weightkit.architectures.features import shape_of
from weightkit.architectures.sac.config import CHOICES, DEFAULTS, FINALS, RESNET_WIDTHS, WIDTHS, SACConfig
from weightkit.core.section import Section
from weightkit.errors import ConfigError

IMAGE_KEYS = "observation.image"
CAMERA_KEY = "observation.images"
STATE_KEY = "observation.state"
ENVIRONMENT_KEY = "observation.environment_state"
TORCH_NAMES = {
    "ReLU": "relu", "Tanh": "tanh", "ELU": "elu", "GELU": "gelu", "SiLU": "silu", "LeakyReLU": "leaky_relu",
    "Sigmoid": "sigmoid", "Softplus": "softplus", "Mish": "mish", "Identity": "identity",
}  # fmt: skip
"""torch's class of an activation -> its name here."""
MLPS = {
    "actor_hidden_dims": "actor_network_kwargs",
    "critic_hidden_dims": "critic_network_kwargs",
    "discrete_hidden_dims": "discrete_critic_network_kwargs",
}


def camera_of(key: str) -> str:
    """The camera's name for LeRobot's key of its images.

    ``observation.images.front`` is ``front``; any other key that LeRobot takes for images is a name by itself.
    """
    name = key.removeprefix(f"{CAMERA_KEY}.")
    return key if name.startswith("observation.") else name


def key_of(camera: str) -> str:
    """LeRobot's key for a camera's images: `camera_of` turned round."""
    return camera if camera.startswith("observation.") else f"{CAMERA_KEY}.{camera}"


def from_train_config(root: Section) -> SACConfig:
    """The net that a HIL-SERL style train_config.json describes, LeRobot 0.4.4's keys and our own in ``policy``.

    ``input_features`` hold stacked shapes, ``env.features`` those of a single frame: where both are there they must
    agree. Raises ConfigError with both addresses.
    """
    policy = root.section("policy")
    policy.text("type", choices=("sac",))
    single = root.section("env").section("features")
    frames = policy.integer("frame_stack", 1, minimum=1)
    inputs, outputs = policy.section("input_features"), policy.section("output_features")
    for features, stack in ((inputs, frames), (outputs, 1)):
        for key in features.values:
            if key in single and key != ENVIRONMENT_KEY:
                _check_single(features, key, single, stack)
    return from_policy(policy)


def from_policy(policy: Section) -> SACConfig:
    """The net that LeRobot's policy configuration describes. Raises ConfigError with the address."""
    frames = policy.integer("frame_stack", 1, minimum=1)
    inputs, outputs = policy.section("input_features"), policy.section("output_features")
    images = {key: shape_of(inputs, key, 3) for key in inputs.values if key.startswith(IMAGE_KEYS)}
    first = next(iter(images), "")
    for key, shape in images.items():
        if shape != images[first]:
            raise ConfigError(
                f"{inputs.where(key)}: all cameras must have one shape, found {list(shape)} beside "
                f"{list(images[first])} at {inputs.where(first)}"
            )
    state = shape_of(inputs, STATE_KEY, 1)[0] if STATE_KEY in inputs else 0
    channels, height, width = images[first] if images else (3 * frames, 1, 1)
    for key, size in ((first, channels), (STATE_KEY, state)):
        if size % frames:
            raise ConfigError(
                f"{inputs.where(key)}.shape: {size} is no multiple of {policy.where('frame_stack')} = {frames}"
            )
    values: dict[str, object] = {
        "cameras": tuple(camera_of(key) for key in images),
        "image_channels": channels // frames,
        "image_height": height,
        "image_width": width,
        "frame_stack": frames,
        "state_dim": state // frames,
        "environment_dim": shape_of(inputs, ENVIRONMENT_KEY, 1)[0] if ENVIRONMENT_KEY in inputs else 0,
        "action_dim": shape_of(outputs, "action", 1)[0],
        "num_discrete_actions": policy.integer("num_discrete_actions", 0),
        "vision_encoder": _vision_encoder(policy) if images else "none",
    }
    for name in (
        "image_encoder_hidden_dim",
        "image_embedding_pooling_dim",
        "latent_dim",
        "features_dim",
        "num_critics",
    ):
        values[name] = policy.integer(name, int(str(DEFAULTS[name])), minimum=1)
    for name in ("shared_encoder", "freeze_vision_encoder"):
        values[name] = policy.flag(name, bool(DEFAULTS[name]))
    for name in ("state_encoder", "target_encoder", "image_normalization", "mlp"):
        values[name] = policy.text(name, str(DEFAULTS[name]), choices=CHOICES[name])
    for name, final in zip(WIDTHS, FINALS, strict=True):
        layers = policy.section(MLPS[name])
        values[name] = layers.sizes("hidden_dims", (256, 256))
        values[final] = _final(layers)
    values["resnet_widths"] = policy.sizes("resnet_widths", RESNET_WIDTHS)
    head = policy.section("policy_kwargs")
    values["std_min"] = head.number("std_min", 1e-5, minimum=0.0)
    values["std_max"] = head.number("std_max", 10.0, minimum=0.0)
    try:
        return SACConfig(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"{policy.origin} @ {policy.address}: {error}") from None


def _vision_encoder(policy: Section) -> str:
    """LeRobot's ``vision_encoder_name`` is null for its CNN, else a repository's name or a folder of its weights."""
    if "vision_encoder" in policy:
        return policy.text("vision_encoder", choices=CHOICES["vision_encoder"][1:])
    name = policy.text("vision_encoder_name", "")
    if name and "resnet10" not in name.lower().replace("-", "").replace("_", ""):
        raise policy.wrong("vision_encoder_name", "null, or ResNet-10's such as 'helper2424/resnet10'", name)
    return "resnet10" if name else "cnn"


def _final(mlp: Section) -> str:
    """How an MLP's last hidden layer ends; "none" where LeRobot leaves it a bare Linear."""
    name = mlp.text("final_activation", "") or "SiLU"
    if not mlp.flag("activate_final", True):
        return "none"
    if name not in TORCH_NAMES:
        raise mlp.wrong("final_activation", f"null or one of {', '.join(TORCH_NAMES)}", name)
    return TORCH_NAMES[name]


def _check_single(features: Section, key: str, single: Section, frames: int) -> None:
    rank = 3 if key.startswith(IMAGE_KEYS) else 1
    stacked, shape = shape_of(features, key, rank), shape_of(single, key, rank)
    expected = (shape[0] * frames, *shape[1:])
    if stacked != expected:
        raise ConfigError(
            f"{features.where(key)}.shape: expected {list(expected)} = frame_stack {frames} x {list(shape)} "
            f"({single.where(key)}.shape), found {list(stacked)}",
            hint="env.features are single frames; policy.input_features are what the policy sees, stacked",
        )
