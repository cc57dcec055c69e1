"""What makes one DrQ-v2 net differ from another, and where it is read from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import inf

from weightkit.architectures.features import shape_of
from weightkit.architectures.settings import IMAGE_SIZE, Parse, names, one_of, parse, size, truth, whole, wholes
from weightkit.core.section import Section
from weightkit.errors import ConfigError, UsageError

IMAGE_KEY = "observation.images"
STATE_KEY = "observation.state"
TIME_KEY = "observation.time"
FUSIONS = ("flatten", "average", "sum")
MOST_CRITICS, MOST_CONVS, MOST_WIDE, MOST_LAYERS, MOST_CAMERAS = 64, 64, 65536, 64, 64
"""What a configuration may ask for: beyond this a typing error would only fill the memory."""
_MOST = {
    "num_critics": MOST_CRITICS,
    "num_atoms": MOST_WIDE,
    "num_downsample_convs": MOST_CONVS,
    "num_post_downsample_convs": MOST_CONVS,
}
_CAMERA = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_TAKEN = {"training", "cameras"}
"""Attributes that the encoder's module sets: a tower cannot be called so."""


@dataclass(frozen=True, slots=True)
class DrQV2Config:
    """One DrQ-v2 net. ``state_dim`` and ``image_channels`` are of a single frame; ``state_dim`` 0 means no state.

    Images are ``(frame_stack * image_channels, image_height, image_width)``, oldest frame first, states
    ``(frame_stack * state_dim,)``. ``mlp_nodes`` are the hidden widths of actor and critics. ``fusion`` says how the
    cameras' features become one vector. ``time_dim`` is the length of the one-hot time that the critics see, 0 without.
    ``num_atoms`` 1 is a plain critic; with more a critic gives a distribution over ``-value_limit..value_limit``,
    with ``value_transform`` on a scale that is compressed. ``shared_critic_trunk``: all critics have one trunk.
    """

    cameras: tuple[str, ...]
    image_channels: int
    image_height: int
    image_width: int
    frame_stack: int
    state_dim: int
    action_dim: int
    encoder_channels: int = 32
    num_downsample_convs: int = 1
    num_post_downsample_convs: int = 3
    bottleneck_size: int = 50
    mlp_nodes: tuple[int, ...] = (256, 256)
    num_critics: int = 2
    fusion: str = "flatten"
    time_dim: int = 0
    shared_critic_trunk: bool = False
    num_atoms: int = 1
    value_limit: float = 20.0
    value_transform: bool = True

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("cameras: DrQ-v2 needs at least one camera")
        for camera in self.cameras:
            if not _CAMERA.fullmatch(camera) or camera in _TAKEN:
                taken = " or ".join(sorted(_TAKEN))
                raise ValueError(
                    f"cameras: {camera!r} cannot name a camera: a letter, then letters, digits and _, not {taken}"
                )
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: a name stands twice in {', '.join(self.cameras)}")
        if len(self.cameras) > MOST_CAMERAS:
            raise ValueError(f"cameras: {len(self.cameras)} are too many, at most {MOST_CAMERAS}")
        if not self.mlp_nodes:
            raise ValueError("mlp_nodes: at least one hidden layer is needed")
        if len(self.mlp_nodes) > MOST_LAYERS:
            raise ValueError(f"mlp_nodes: {len(self.mlp_nodes)} hidden layers are too many, at most {MOST_LAYERS}")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise ValueError(f"{name}: at most {most}, found {getattr(self, name)}")
        for name in (
            "image_channels",
            "frame_stack",
            "action_dim",
            "encoder_channels",
            "bottleneck_size",
            "num_critics",
            "num_atoms",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: at least 1 is needed, found {getattr(self, name)}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion: expected one of {', '.join(FUSIONS)}, found {self.fusion!r}")
        if not 0 < self.value_limit < inf:
            raise ValueError(f"value_limit: a finite number above 0 is needed, found {self.value_limit}")
        if self.time_dim < 0:
            raise ValueError("time_dim cannot be negative")
        if self.state_dim < 0 or self.num_downsample_convs < 0 or self.num_post_downsample_convs < 0:
            raise ValueError("state_dim and the numbers of convolutions cannot be negative")
        if self.num_downsample_convs + self.num_post_downsample_convs < 1:
            raise ValueError("num_downsample_convs: at least one convolution is needed")
        height, width = self.feature_size
        if height < 1 or width < 1:
            raise ValueError(
                f"image_height, image_width: {self.image_height}x{self.image_width} is too small for "
                f"{self.num_downsample_convs + self.num_post_downsample_convs} convolutions"
            )

    @property
    def feature_size(self) -> tuple[int, int]:
        """Height and width of an encoder's feature map, in cells."""
        return self._convolved(self.image_height), self._convolved(self.image_width)

    def _convolved(self, size: int) -> int:
        for _ in range(self.num_downsample_convs):
            size = (size - 3) // 2 + 1
        return size - 2 * self.num_post_downsample_convs

    @property
    def num_convs(self) -> int:
        """Convolutions in each camera's tower."""
        return self.num_downsample_convs + self.num_post_downsample_convs

    @property
    def visual_dim(self) -> int:
        """Features of all cameras together."""
        height, width = self.feature_size
        views = len(self.cameras) if self.fusion == "flatten" else 1
        return views * self.encoder_channels * height * width

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON values."""
        values = asdict(self)
        return {"type": "drqv2", **values, "cameras": list(self.cameras), "mlp_nodes": list(self.mlp_nodes)}

    @classmethod
    def from_section(cls, section: Section) -> DrQV2Config:
        """The configuration that ``to_dict`` wrote. Raises ConfigError with the address of what does not fit."""
        section.text("type", choices=("drqv2",))
        return _checked(
            section,
            cameras=section.texts("cameras"),
            image_channels=section.integer("image_channels"),
            image_height=section.integer("image_height"),
            image_width=section.integer("image_width"),
            frame_stack=section.integer("frame_stack"),
            state_dim=section.integer("state_dim"),
            action_dim=section.integer("action_dim"),
            time_dim=section.integer("time_dim", 0),
            **_widths(section),
        )


def from_train_config(root: Section) -> DrQV2Config:
    """The net that a HIL-SERL style train_config.json describes: ``policy.input_features``, ``policy.frame_stack``...

    ``input_features`` hold stacked shapes, ``env.features`` those of a single frame: where both are there they must
    agree. Raises ConfigError with both addresses.
    """
    return from_policy_section(root.section("policy"), root.section("env").section("features"))


def from_policy_section(policy: Section, single: Section | None = None) -> DrQV2Config:
    """The net that a policy's section describes, or a LeRobot config.json; ``single`` are the environment's features.

    Raises ConfigError with the addresses.
    """
    policy.text("type", choices=("drqv2",))
    single = single if single is not None else Section({}, policy.origin)
    frames = policy.integer("frame_stack", 1, minimum=1)
    inputs, outputs = policy.section("input_features"), policy.section("output_features")
    images = {key: shape_of(inputs, key, 3) for key in inputs.values if is_image_key(key)}
    if not images:
        raise ConfigError(
            f"{policy.where('input_features')}: DrQ-v2 needs at least one camera, such as '{IMAGE_KEY}.front'"
        )
    if IMAGE_KEY in images and len(images) > 1:
        raise ConfigError(
            f"{inputs.where(IMAGE_KEY)}: a bare {IMAGE_KEY!r} is the one camera of a policy, found {len(images)}",
            hint=f"name it, such as '{IMAGE_KEY}.front'",
        )
    (channels, height, width) = next(iter(images.values()))
    for key, shape in images.items():
        if shape != (channels, height, width):
            raise ConfigError(
                f"{inputs.where(key)}: all cameras must have one shape, found {list(shape)} beside "
                f"{[channels, height, width]} at {inputs.where(next(iter(images)))}"
            )
        _check_single(inputs, key, shape, single, frames)
    state = 0
    if STATE_KEY in inputs:
        shape = shape_of(inputs, STATE_KEY, 1)
        _check_single(inputs, STATE_KEY, shape, single, frames)
        state = shape[0]
    time = shape_of(inputs, TIME_KEY, 1)[0] if TIME_KEY in inputs else 0
    for key, length in ((next(iter(images)), channels), (STATE_KEY, state)):
        if length % frames:
            raise ConfigError(
                f"{inputs.where(key)}.shape: {length} is no multiple of {policy.where('frame_stack')} = {frames}"
            )
    if "action" in outputs:
        _check_single(outputs, "action", shape_of(outputs, "action", 1), single, 1)
    return _checked(
        policy,
        cameras=tuple(camera_of(key) for key in images),
        image_channels=channels // frames,
        image_height=height,
        image_width=width,
        frame_stack=frames,
        state_dim=state // frames,
        action_dim=shape_of(outputs, "action", 1)[0],
        time_dim=time,
        **_widths(policy),
    )


def is_image_key(key: str) -> bool:
    """Whether an observation key holds a camera's images."""
    return key == IMAGE_KEY or key.startswith(f"{IMAGE_KEY}.")


def camera_of(key: str) -> str:
    """The camera's name in an observation key; a bare ``observation.images`` is the one camera, ``cam0``."""
    return key.removeprefix(f"{IMAGE_KEY}.") if key != IMAGE_KEY else "cam0"


def _widths(section: Section) -> dict[str, object]:
    nodes = "hidden_dims" if "hidden_dims" in section and "mlp_nodes" not in section else "mlp_nodes"
    return {
        "encoder_channels": section.integer("encoder_channels", 32, minimum=1, maximum=MOST_WIDE),
        "num_downsample_convs": section.integer("num_downsample_convs", 1, maximum=MOST_CONVS),
        "num_post_downsample_convs": section.integer("num_post_downsample_convs", 3, maximum=MOST_CONVS),
        "bottleneck_size": section.integer("bottleneck_size", 50, minimum=1, maximum=MOST_WIDE),
        "mlp_nodes": section.sizes(nodes, (256, 256)),
        "num_critics": section.integer("num_critics", 2, minimum=1, maximum=MOST_CRITICS),
        "fusion": section.text("fusion", "flatten", choices=FUSIONS),
        "shared_critic_trunk": section.flag("shared_critic_trunk", False),
        "num_atoms": section.integer("num_atoms", 1, minimum=1, maximum=MOST_WIDE),
        "value_limit": section.number("value_limit", 20.0),
        "value_transform": section.flag("value_transform", True),
    }


def _checked(section: Section, **values: object) -> DrQV2Config:
    try:
        return DrQV2Config(**values)  # type: ignore[arg-type]
    except ValueError as error:
        raise ConfigError(f"{section.origin} @ {section.address}: {error}") from None


def _check_single(inputs: Section, key: str, stacked: tuple[int, ...], single: Section, frames: int) -> None:
    if key not in single:
        return
    shape = shape_of(single, key, len(stacked))
    expected = (shape[0] * frames, *shape[1:])
    if stacked != expected:
        raise ConfigError(
            f"{inputs.where(key)}.shape: expected {list(expected)} = frame_stack {frames} x {list(shape)} "
            f"({single.where(key)}.shape), found {list(stacked)}",
            hint="env.features are single frames; policy.input_features are what the policy sees, stacked",
        )


_KINDS: dict[str, Parse] = {
    "cameras": names,
    IMAGE_SIZE: size,
    "image_channels": whole(),
    "frame_stack": whole(),
    "state_dim": whole(0),
    "action_dim": whole(),
    "encoder_channels": whole(),
    "bottleneck_size": whole(),
    "mlp_nodes": wholes,
    "num_critics": whole(),
    "num_downsample_convs": whole(0),
    "num_post_downsample_convs": whole(0),
    "fusion": one_of(*FUSIONS),
    "time_dim": whole(0),
    "shared_critic_trunk": truth,
    "num_atoms": whole(),
    "value_limit": float,
    "value_transform": truth,
}
SETTINGS: tuple[str, ...] = tuple(_KINDS)
"""The keys that ``--set`` takes where no train_config.json is given. ``image_size`` is HxW or one number."""


def parse_settings(settings: Mapping[str, str]) -> dict[str, object]:
    """``--set`` texts as values of DrQV2Config. Raises UsageError for an unknown key or a value of the wrong kind."""
    return parse(settings, _KINDS, of="drqv2", example="cameras=front,wrist image_size=84x84 mlp_nodes=256,256")


def with_settings(config: DrQV2Config, settings: Mapping[str, str]) -> DrQV2Config:
    """``config`` with ``--set`` keys applied. Raises UsageError."""
    try:
        return replace(config, **parse_settings(settings))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"--set: {error}") from None
