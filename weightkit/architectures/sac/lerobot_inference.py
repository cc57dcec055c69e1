"""What LeRobot's names, shapes and configuration say about the SAC net they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from weightkit.architectures.sac.config import SACConfig, map_size, parse_settings, pixel_range
from weightkit.architectures.sac.train_config import from_policy
from weightkit.core.report import Finding, Severity
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.engine.wrappers import unwrapped
from weightkit.errors import ConfigError, UsageError

ENCODER = "actor.encoder"
CNN = f"{ENCODER}.image_encoder.image_enc_layers.0.weight"
RESNET = f"{ENCODER}.image_encoder.image_enc_layers.embedder.0.weight"
CRITIC_ENCODERS = ("critic_ensemble.encoder", "encoder_critic", "critic_target.encoder", "discrete_critic.encoder")
_COMMON_SIZES = (128, 84, 96, 64, 224, 256, 48)
_NOT_IN_WEIGHTS = ("cameras", "image_size", "std_min", "std_max", "freeze_vision_encoder")
_UNSEEN = ("image_height", "image_width", "std_min", "std_max", "freeze_vision_encoder")
_CRITICS = ("num_critics", "critic_hidden_dims", "critic_final")
_NOT_LEROBOTS = (
    "features_dim",
    "image_normalization",
    "mlp",
    "target_encoder",
    "state_encoder",
    "learned_temperature",
    "resnet_widths",
)


class ShapeError(Exception):
    """A tensor of the net's names that has not the axes of the net's tensors."""

    def __init__(self, name: str, found: TensorSpec | None) -> None:
        super().__init__(f"{name} is {found}" if found is not None else f"{name} is not there")
        self.name = name


@dataclass
class Seen:
    """A state under plain names, and what was noted on the way."""

    state: StateSpec
    policy: Mapping[str, object] | None
    settings: Mapping[str, str]
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = {unwrapped(name): name for name in self.state}
        self.chosen = parse_settings({key: text for key, text in self.settings.items() if key in _NOT_IN_WEIGHTS})

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def size(self, name: str, axis: int) -> int:
        """How long a tensor is on ``axis``. Raises ShapeError for one that has none."""
        found = self.state[self.names[name]] if name in self.names else None
        if found is None or len(found.shape) <= axis or found.shape[axis] < 1:
            raise ShapeError(name, found)
        return found.shape[axis]

    def mlp(self, prefix: str, stated: str) -> tuple[tuple[int, ...], str]:
        """The hidden widths of an MLP and how its last layer ends; ``stated`` where it ends with an activation.

        Raises ShapeError where another layer than the last has no LayerNorm.
        """
        found: list[int] = []
        while f"{prefix}.{3 * len(found)}.weight" in self:
            found.append(self.size(f"{prefix}.{3 * len(found)}.weight", 0))
        bare = bool(found) and f"{prefix}.{3 * len(found) - 2}.weight" not in self
        for index in range(len(found) - bare):
            self.size(f"{prefix}.{3 * index + 1}.weight", 0)
        return tuple(found), "none" if bare else "silu" if stated == "none" else stated

    def ties(self, prefix: str) -> bool:
        """Whether the encoder below ``prefix`` is the actor's by the file's own word."""
        for name, other in self.names.items():
            if name.startswith(f"{prefix}."):
                mine = self.names.get(f"{ENCODER}.{name[len(prefix) + 1 :]}")
                if mine is None or self.state.canonical(other) != self.state.canonical(mine):
                    return False
        return True

    def note(self, subject: str, message: str, hint: str = "", severity: Severity = Severity.INFO) -> None:
        self.findings.append(Finding("WK108", severity, subject, printable(message), hint))

    def refuse(self, subject: str, message: str, hint: str = "") -> None:
        self.findings.append(Finding("WK107", Severity.ERROR, subject, printable(message), hint))


def infer(seen: Seen, *, stated_critics: bool) -> SACConfig | None:
    """The configuration that shapes and LeRobot's config give; what they leave open is assumed, and said.

    ``stated_critics``: whether the configuration speaks of the critics too.
    """
    stated: SACConfig | None = None
    if seen.policy is not None:
        try:
            stated = from_policy(Section({**seen.policy, **_backbone(seen)}, "config.json"))
        except ConfigError as error:
            seen.refuse("config.json", f"its configuration is of no net that sac can hold: {error.message}", error.hint)
            return None
    try:
        values = _shapes(seen, stated)
        config = SACConfig(**values)  # type: ignore[arg-type]
    except ShapeError as error:
        seen.refuse(error.name, f"the shapes fit no sac configuration: {error}")
        return None
    except ValueError as error:
        seen.refuse("config", f"the shapes fit no sac configuration: {error}")
        return None
    if stated is not None:
        _compare(seen, config, stated, stated_critics)
    return config


def _backbone(seen: Seen) -> dict[str, object]:
    """The kind of the vision backbone, by its names: what config.json calls a ResNet is a repository or a folder."""
    if RESNET not in seen:
        return {"vision_encoder": "cnn"} if CNN in seen else {}
    plain = f"{ENCODER}.image_encoder.image_enc_layers.encoder.stages.0.conv1.weight" in seen
    return {"vision_encoder": "resnet10_symmetric" if plain else "resnet10"}


def _compare(seen: Seen, config: SACConfig, stated: SACConfig, stated_critics: bool) -> None:
    for each in fields(config):
        name = each.name
        if name in (*_UNSEEN, *_NOT_LEROBOTS, *seen.chosen) or (name in _CRITICS and not stated_critics):
            continue
        if name in ("image_encoder_hidden_dim", "image_embedding_pooling_dim") and not config.cameras:
            continue
        if name in ("discrete_hidden_dims", "discrete_final") and not config.num_discrete_actions:
            continue
        if getattr(config, name) != getattr(stated, name):
            message = (
                f"config.json says {getattr(stated, name)}, the tensors are of {getattr(config, name)}: they count"
            )
            seen.note(name, message, "look at who wrote config.json", Severity.WARNING)


def _shapes(seen: Seen, stated: SACConfig | None) -> dict[str, object]:
    trunk, environment = f"{ENCODER}.state_encoder.0.weight", f"{ENCODER}.env_encoder.0.weight"
    discrete = "discrete_critic.output_layer.weight"
    values: dict[str, object] = {
        "image_channels": 3,
        "image_height": 1,
        "image_width": 1,
        "cameras": (),
        "vision_encoder": "none",
        "state_dim": seen.size(trunk, 1) if trunk in seen else 0,
        "environment_dim": seen.size(environment, 1) if environment in seen else 0,
        "action_dim": seen.size("actor.mean_layer.weight", 0),
        "num_discrete_actions": seen.size(discrete, 0) if discrete in seen else 0,
        "shared_encoder": _shared(seen, stated),
    }

    def layers(whose: str, prefix: str) -> None:
        final = getattr(stated, f"{whose}_final") if stated is not None else "silu"
        values[f"{whose}_hidden_dims"], values[f"{whose}_final"] = seen.mlp(prefix, final)

    layers("actor", "actor.network.net")
    for name in (trunk, environment):
        if name in seen:
            values["latent_dim"] = seen.size(name, 0)
    if discrete in seen:
        layers("discrete", "discrete_critic.net.net")
    elif stated is not None:
        values |= {name: getattr(stated, name) for name in ("discrete_hidden_dims", "discrete_final")}
    critics = 0
    while f"critic_ensemble.critics.{critics}.output_layer.weight" in seen:
        critics += 1
    if critics:
        values["num_critics"] = critics
        layers("critic", "critic_ensemble.critics.0.net.net")
    elif stated is not None:
        values |= {name: getattr(stated, name) for name in _CRITICS}
    if CNN in seen or RESNET in seen:
        values |= _images(seen, stated)
    if stated is not None:
        values |= {name: getattr(stated, name) for name in ("std_min", "std_max", "freeze_vision_encoder")}
    else:
        for name, default in (("std_min", 1e-5), ("std_max", 10.0)):
            if name not in seen.chosen:
                seen.note(
                    name, f"the bounds of the standard deviation are not stored: LeRobot's {default:g} is assumed"
                )
        if values["cameras"] and "freeze_vision_encoder" not in seen.chosen:
            message = "whether the vision encoder is frozen is not stored: assumed, as it is LeRobot's default"
            seen.note("freeze_vision_encoder", message, "otherwise: --set freeze_vision_encoder=false")
        chosen = ("std_min", "std_max", "freeze_vision_encoder")
        values |= {name: seen.chosen[name] for name in chosen if name in seen.chosen}
    return values


def _shared(seen: Seen, stated: SACConfig | None) -> bool:
    if stated is not None:
        return stated.shared_encoder
    return all(seen.ties(prefix) for prefix in CRITIC_ENCODERS)


def _images(seen: Seen, stated: SACConfig | None) -> dict[str, object]:
    """What the tensors say about cameras and images; their size where config.json or ``--set`` says it."""
    kind, first = str(_backbone(seen)["vision_encoder"]), CNN if CNN in seen else RESNET
    prefix, suffix = f"{ENCODER}.spatial_embeddings.", ".kernel"
    found = [n[len(prefix) : -len(suffix)] for n in seen.names if n.startswith(prefix) and n.endswith(suffix)]
    if not found:
        raise ShapeError(f"{prefix}<camera>{suffix}", None)
    kernel = f"{prefix}{found[0]}{suffix}"
    cells = (seen.size(kernel, 1), seen.size(kernel, 2))
    values: dict[str, object] = {
        "vision_encoder": kind,
        "image_channels": seen.size(first, 1),
        "cameras": _cameras(seen, stated, found),
        "image_embedding_pooling_dim": seen.size(kernel, 3),
        "latent_dim": seen.size(f"{ENCODER}.post_encoders.{found[0]}.1.weight", 0),
    }
    if kind == "cnn":
        values["image_encoder_hidden_dim"] = seen.size(first, 0)
    else:
        stages = f"{ENCODER}.image_encoder.image_enc_layers.encoder.stages"
        conv = "conv1.weight" if kind == "resnet10_symmetric" else "conv1.conv.weight"
        values["resnet_widths"] = tuple(seen.size(f"{stages}.{i}.{conv}", 0) for i in range(4))
        if stated is not None:
            values["image_encoder_hidden_dim"] = stated.image_encoder_hidden_dim
    size = _image_size(seen, stated, kind, cells)
    return values | {"image_height": size[0], "image_width": size[1]}


def _image_size(seen: Seen, stated: SACConfig | None, kind: str, cells: tuple[int, int]) -> tuple[int, int]:
    chosen = (seen.chosen.get("image_height"), seen.chosen.get("image_width"))
    stated_size = (stated.image_height, stated.image_width) if stated is not None and stated.cameras else None
    for size in (stated_size, chosen):
        if size is None or not isinstance(size[0], int) or not isinstance(size[1], int):
            continue
        if (map_size(kind, size[0]), map_size(kind, size[1])) == cells:
            return size[0], size[1]
        fitting = " by ".join("{} to {}".format(*pixel_range(kind, n)) for n in cells)
        raise ValueError(f"images of {size[0]}x{size[1]} do not give maps of {cells[0]}x{cells[1]}: {fitting} do")
    ranges = [pixel_range(kind, n) for n in cells]
    height, width = (next((n for n in _COMMON_SIZES if low <= n <= high), low) for low, high in ranges)
    shown = " by ".join(f"{low} to {high}" for low, high in ranges)
    seen.note(
        "image_size",
        f"the image size is not stored: {height}x{width} is assumed, {shown} pixels fit the weights",
        "otherwise: --set image_size=HEIGHTxWIDTH",
    )
    return height, width


def _cameras(seen: Seen, stated: SACConfig | None, found: list[str]) -> tuple[str, ...]:
    """The cameras in their order, which is that of the features. ``found`` are LeRobot's modules."""

    def module(camera: str) -> str:
        plain = camera.replace(".", "_")
        return plain if camera.startswith("observation.") else f"observation_images_{plain}"

    if stated is not None and sorted(map(module, stated.cameras)) == sorted(found):
        return stated.cameras
    chosen = seen.chosen.get("cameras")
    if isinstance(chosen, tuple):
        if sorted(map(module, chosen)) != sorted(found):
            raise UsageError(
                f"--set cameras={','.join(chosen)}: the file has {printable(', '.join(map(_camera, found)))}",
                hint="name these, in the order of the policy's features",
            )
        return chosen
    cameras = tuple(map(_camera, found))
    order = f", in the order {', '.join(cameras)}" if len(cameras) > 1 else ""
    seen.note(
        "cameras",
        f"camera names are taken from the names of modules, where a dot is written as _{order}",
        "otherwise: --set cameras=front,wrist, in the order of the policy's features",
        Severity.WARNING if len(cameras) > 1 else Severity.INFO,
    )
    return cameras


def _camera(module: str) -> str:
    if module.startswith("observation_images_"):
        return module.removeprefix("observation_images_")
    return f"observation.{module.removeprefix('observation_')}"
