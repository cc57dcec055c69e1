"""What makes one SAC net differ from another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from math import inf

from weightkit.architectures.settings import IMAGE_SIZE, Parse, names, one_of, parse, size, truth, whole, wholes
from weightkit.core.section import Section
from weightkit.errors import ConfigError, UsageError

ACTIVATIONS = (
    "relu", "tanh", "elu", "gelu", "silu", "leaky_relu", "sigmoid", "softplus", "mish", "identity",
)  # fmt: skip
FINALS = ("actor_final", "critic_final", "discrete_final")
CHOICES: dict[str, tuple[str, ...]] = {
    "vision_encoder": ("none", "cnn", "resnet10", "resnet10_symmetric", "nature"),
    "state_encoder": ("latent", "none"),
    "target_encoder": ("critic", "own"),
    "image_normalization": ("none", "imagenet"),
    "mlp": ("layernorm_silu", *ACTIVATIONS),
    **{final: ("silu", "none", *(name for name in ACTIVATIONS if name != "silu")) for final in FINALS},
}
WIDTHS = ("actor_hidden_dims", "critic_hidden_dims", "discrete_hidden_dims")
MOST_CRITICS, MOST_LAYERS, MOST_CAMERAS, MOST_WIDE, MOST_INPUTS = 64, 64, 64, 65536, 1 << 20
"""What a configuration may ask for: beyond this a typing error would only fill the memory."""
STRIDED: dict[str, tuple[tuple[int, int], ...]] = {
    "cnn": ((7, 2), (5, 2), (3, 2), (3, 2)),
    "nature": ((8, 4), (4, 2), (3, 1)),
}
"""Kernel and stride of the convolutions without padding, in order."""
RESNET_WIDTHS, RESNET_HALVINGS = (64, 128, 256, 512), 5
_CAMERA = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LEAST: dict[str, int] = {
    "image_channels": 1, "image_height": 1, "image_width": 1, "frame_stack": 1, "state_dim": 0, "environment_dim": 0,
    "action_dim": 1, "num_discrete_actions": 0, "image_encoder_hidden_dim": 1, "image_embedding_pooling_dim": 1,
    "latent_dim": 1, "features_dim": 1, "num_critics": 1,
}  # fmt: skip
_MOST = {"state_dim": MOST_INPUTS, "environment_dim": MOST_INPUTS, "num_critics": MOST_CRITICS}


@dataclass(frozen=True, slots=True)
class SACConfig:
    """One SAC net. ``state_dim`` and ``image_channels`` are of a single frame; 0 means that there is none.

    Images are ``(frame_stack * image_channels, image_height, image_width)``, oldest frame first, states
    ``(frame_stack * state_dim,)``; ``environment_dim`` is not stacked.

    ``vision_encoder``: LeRobot's ``cnn``, ``resnet10`` (HIL-SERL's; ``resnet10_symmetric`` is an early port of it) or
    SB3's ``nature``, which gives ``features_dim`` a camera instead of ``latent_dim``. ``state_encoder``: "latent" puts
    states through Linear, LayerNorm and tanh, "none" hands them on. ``target_encoder``: whether the critics' targets
    read the critics' encoder or an averaged copy of their "own". ``mlp``: LeRobot's layers, whose last one ends with
    ``actor_final`` and so on ("none": a bare Linear), or an activation after each Linear. ``std_min`` and ``std_max``
    bound the standard deviation.
    """

    cameras: tuple[str, ...]
    image_channels: int
    image_height: int
    image_width: int
    state_dim: int
    action_dim: int
    frame_stack: int = 1
    environment_dim: int = 0
    num_discrete_actions: int = 0
    vision_encoder: str = "cnn"
    image_encoder_hidden_dim: int = 32
    resnet_widths: tuple[int, ...] = RESNET_WIDTHS
    image_embedding_pooling_dim: int = 8
    latent_dim: int = 256
    features_dim: int = 512
    state_encoder: str = "latent"
    shared_encoder: bool = True
    target_encoder: str = "critic"
    freeze_vision_encoder: bool = True
    image_normalization: str = "none"
    mlp: str = "layernorm_silu"
    actor_final: str = "silu"
    critic_final: str = "silu"
    discrete_final: str = "silu"
    actor_hidden_dims: tuple[int, ...] = (256, 256)
    critic_hidden_dims: tuple[int, ...] = (256, 256)
    discrete_hidden_dims: tuple[int, ...] = (256, 256)
    num_critics: int = 2
    std_min: float = 1e-5
    std_max: float = 10.0
    learned_temperature: bool = True

    def __post_init__(self) -> None:
        for camera in self.cameras:
            if not _CAMERA.fullmatch(camera) or camera == "training":
                raise ValueError(
                    f"cameras: {camera!r} cannot name a camera: letters, digits, - and _, dots between them"
                )
        if len(set(self.modules)) < len(self.cameras):
            raise ValueError(f"cameras: two have one name once dots are written as _: {', '.join(self.cameras)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {getattr(self, name)!r}")
        for name, least in _LEAST.items():
            most = _MOST.get(name, MOST_WIDE)
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected a number from {least} to {most}, found {getattr(self, name)}")
        for name in WIDTHS:
            widths = getattr(self, name)
            if not 1 <= len(widths) <= MOST_LAYERS or not 1 <= min(widths) <= max(widths) <= MOST_WIDE:
                raise ValueError(
                    f"{name}: expected 1 to {MOST_LAYERS} widths from 1 to {MOST_WIDE}, found {list(widths)}"
                )
        widths = self.resnet_widths
        whole = len(widths) == 4 and all(4 <= n <= MOST_WIDE and n % 4 == 0 for n in widths)
        if not whole or any(n == after for n, after in pairwise(widths)):
            raise ValueError(f"resnet_widths: expected four multiples of 4, each another one, found {list(widths)}")
        if self.mlp != "layernorm_silu" and any(getattr(self, name) != "silu" for name in FINALS):
            raise ValueError(f"{', '.join(FINALS)}: only layers of 'layernorm_silu' end otherwise than the others")
        if len(self.cameras) > MOST_CAMERAS:
            raise ValueError(f"cameras: {len(self.cameras)} are too many, at most {MOST_CAMERAS}")
        if not 0 < self.std_min <= self.std_max < inf:
            raise ValueError(f"std_min, std_max: expected 0 < std_min <= std_max, found {self.std_min}, {self.std_max}")
        if (self.vision_encoder == "none") != (not self.cameras):
            raise ValueError(f"vision_encoder: {self.vision_encoder!r} does not go with {len(self.cameras)} cameras")
        if not self.cameras and not self.state_dim and not self.environment_dim:
            raise ValueError("cameras, state_dim, environment_dim: the policy would see nothing")
        if self.image_normalization == "imagenet" and (not self.cameras or self.image_channels != 3):
            raise ValueError("image_normalization: 'imagenet' is for cameras of 3 channels")
        if self.cameras and min(self.feature_size) < 1:
            raise ValueError(
                f"image_height, image_width: {self.image_height}x{self.image_width} is too small for the convolutions "
                f"of {self.vision_encoder!r}"
            )

    @property
    def modules(self) -> tuple[str, ...]:
        """The cameras' names as modules have them: a dot is written as ``_``, as LeRobot does."""
        return tuple(camera.replace(".", "_") for camera in self.cameras)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels of all frames, height and width."""
        return self.frame_stack * self.image_channels, self.image_height, self.image_width

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of a feature map of the vision encoder, in cells."""
        return (map_size(self.vision_encoder, self.image_height), map_size(self.vision_encoder, self.image_width))

    @property
    def feature_dim(self) -> int:
        """Features that the actor and the critics read."""
        camera = self.features_dim if self.vision_encoder == "nature" else self.latent_dim
        sizes = [size for size in (self.environment_dim, self.frame_stack * self.state_dim) if size]
        if self.state_encoder == "latent":
            sizes = [self.latent_dim] * len(sizes)
        return len(self.cameras) * camera + sum(sizes)

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON values."""
        lists = {name: list(getattr(self, name)) for name in ("cameras", "resnet_widths", *WIDTHS)}
        return {"type": "sac", **asdict(self), **lists}

    @classmethod
    def from_section(cls, section: Section) -> SACConfig:
        """The configuration that ``to_dict`` wrote. Raises ConfigError with the address of what does not fit."""
        section.text("type", choices=("sac",))
        values: dict[str, object] = {"cameras": section.texts("cameras")}
        for name, least in _LEAST.items():
            values[name] = section.integer(name, DEFAULTS.get(name), minimum=least)  # type: ignore[arg-type]
        for name, choices in CHOICES.items():
            values[name] = section.text(name, str(DEFAULTS[name]), choices=choices)
        for name in ("shared_encoder", "freeze_vision_encoder", "learned_temperature"):
            values[name] = section.flag(name, bool(DEFAULTS[name]))
        for name in WIDTHS:
            values[name] = section.sizes(name, (256, 256))
        values["resnet_widths"] = section.sizes("resnet_widths", RESNET_WIDTHS)
        values["std_min"] = section.number("std_min", 1e-5, minimum=0.0)
        values["std_max"] = section.number("std_max", 10.0, minimum=0.0)
        try:
            return cls(**values)  # type: ignore[arg-type]
        except ValueError as error:
            raise ConfigError(f"{section.origin} @ {section.address}: {error}") from None


DEFAULTS: Mapping[str, object] = {
    each.name: each.default for each in fields(SACConfig) if isinstance(each.default, (int, float, str))
}
"""Setting -> its value where nobody says another, for those that have one."""


def map_size(kind: str, size: int) -> int:
    """Cells along one side of a feature map, of ``size`` pixels; below 1 where the image is too small."""
    if kind.startswith("resnet10"):
        for halving in range(RESNET_HALVINGS):
            size = size // 2 if halving == 1 and kind == "resnet10_symmetric" else -(-size // 2)
        return size
    for kernel, stride in STRIDED.get(kind, ()):
        if size < kernel:
            return 0
        size = (size - kernel) // stride + 1
    return size


def pixel_range(kind: str, cells: int) -> tuple[int, int]:
    """The smallest and the largest image side that gives ``cells`` along a feature map."""
    low = high = cells
    if kind.startswith("resnet10"):
        for halving in reversed(range(RESNET_HALVINGS)):
            floor = halving == 1 and kind == "resnet10_symmetric"
            low, high = (2 * low, 2 * high + 1) if floor else (2 * low - 1, 2 * high)
        return low, high
    for kernel, stride in reversed(STRIDED.get(kind, ())):
        low, high = (low - 1) * stride + kernel, (high - 1) * stride + kernel + stride - 1
    return low, high


SETTINGS: tuple[str, ...] = (
    "cameras",
    "image_size",
    *(each.name for each in fields(SACConfig) if each.name not in ("cameras", "image_height", "image_width")),
)
"""The keys that ``--set`` takes. ``image_size`` is HxW or one number, ``cameras=`` none at all."""


def _kind(key: str) -> Parse:
    """How the text of a setting is read."""
    if key in (*WIDTHS, "resnet_widths"):
        return wholes
    if key in CHOICES:
        return one_of(*CHOICES[key])
    if key in ("std_min", "std_max"):
        return float
    if key in ("shared_encoder", "freeze_vision_encoder", "learned_temperature"):
        return truth
    return {"cameras": names, IMAGE_SIZE: size}.get(key) or whole(_LEAST[key])


def parse_settings(settings: Mapping[str, str]) -> dict[str, object]:
    """``--set`` texts as values of SACConfig. Raises UsageError for an unknown key or a value of the wrong kind."""
    example = "cameras=front,wrist image_size=128x128 actor_hidden_dims=256,256"
    return parse(settings, {key: _kind(key) for key in SETTINGS}, of="sac", example=example)


def with_settings(config: SACConfig, settings: Mapping[str, str]) -> SACConfig:
    """``config`` with ``--set`` keys applied. Raises UsageError."""
    try:
        return replace(config, **parse_settings(settings))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"--set: {error}") from None
