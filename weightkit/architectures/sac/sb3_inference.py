"""What the names, shapes and readable settings of stable-baselines3's SAC say about the net."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import exp, isqrt
from typing import Any

from weightkit.architectures.sac.config import SACConfig, map_size, parse_settings, pixel_range
from weightkit.architectures.sac.train_config import TORCH_NAMES
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import StateSpec
from weightkit.core.text import printable

STD_MIN, STD_MAX = exp(-20), exp(2)
"""stable-baselines3 clamps the logarithm of the standard deviation to -20..2."""
CNN = "actor.features_extractor.cnn.0.weight"
LINEAR = "actor.features_extractor.linear.0.weight"
LOG_ALPHA, CONSTANT_ALPHA = "pytorch_variables.log_ent_coef", "pytorch_variables.ent_coef_tensor"
_EXTRACTOR = re.compile(r"(actor|critic|critic_target)\.features_extractor\.(cnn\.[024]|linear\.0)\.(weight|bias)")
_NOT_IN_WEIGHTS = ("cameras", "image_size")
_MAPS = 64
_COMMON_SIDES = (84, 64, 96, 36)


class ShapeError(Exception):
    """A tensor of the net's names that has not the axes of the net's tensors."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name} {message}")
        self.name = name


def infer(checkpoint: Checkpoint, settings: Mapping[str, str]) -> tuple[SACConfig | None, list[Finding]]:
    """The configuration that shapes and the archive's readable settings give; what they leave open is said."""
    data = archive(checkpoint)
    findings: list[Finding] = []
    why = _unsupported(checkpoint.state, data)
    if why:
        return None, [
            Finding("WK107", Severity.ERROR, why[0], f"a SAC of stable-baselines3 that sac cannot hold: {why[1]}")
        ]
    try:
        values = _values(checkpoint.state, data, settings, findings)
        return SACConfig(**values), [*findings, *_around(checkpoint, data)]  # type: ignore[arg-type]
    except ShapeError as error:
        message = f"the shapes fit no sac configuration: {error}"
        return None, [*findings, Finding("WK107", Severity.ERROR, error.name, message)]
    except ValueError as error:
        message = f"the shapes fit no sac configuration: {error}"
        return None, [*findings, Finding("WK107", Severity.ERROR, "config", message)]


def archive(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What of the archive's ``data`` can be read without building objects; empty for bare tensors."""
    data = checkpoint.metadata.get("data")
    return data if isinstance(data, dict) else {}


def _part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def _unsupported(state: StateSpec, data: Mapping[str, Any]) -> tuple[str, str] | None:
    """What of the file changes the net's function and is not known here."""
    for name in state:
        if ".features_extractor." in name and not _EXTRACTOR.fullmatch(name):
            return name, f"the tensor {printable(name)} of a features extractor other than NatureCNN"
    if "actor.mu.weight" not in state or "actor.log_std.weight" not in state or data.get("use_sde") is True:
        return "actor.log_std", "state-dependent exploration (use_sde), whose actor is another one"
    kwargs = _part(data, "policy_kwargs")
    if kwargs.get("normalize_images") is False:
        return "policy_kwargs", "normalize_images=False: its images are not divided by 255"
    activation = _activation(kwargs)
    if activation is not None and activation not in TORCH_NAMES:
        return "policy_kwargs", f"the activation {printable(activation)}"
    return None


def _activation(kwargs: Mapping[str, Any]) -> str | None:
    """torch's name of the hidden layers' activation, None where it was not given."""
    found = re.search(r"(\w+)'?>?$", str(kwargs.get("activation_fn", "")))
    return found[1] if found else None


def _size(state: StateSpec, name: str, axis: int) -> int:
    if name not in state:
        raise ShapeError(name, "is not there")
    if len(state[name].shape) <= axis or state[name].shape[axis] < 1:
        raise ShapeError(name, f"is {state[name]}")
    return state[name].shape[axis]


def _hidden(state: StateSpec, prefix: str) -> tuple[int, ...]:
    found: list[int] = []
    while f"{prefix}.{2 * len(found)}.weight" in state:
        found.append(_size(state, f"{prefix}.{2 * len(found)}.weight", 0))
    return tuple(found)


def _values(
    state: StateSpec, data: Mapping[str, Any], settings: Mapping[str, str], findings: list[Finding]
) -> dict[str, object]:
    def note(subject: str, message: str, hint: str = "") -> None:
        findings.append(Finding("WK108", Severity.INFO, subject, message, hint))

    critics = 0
    while f"critic.qf{critics}.0.weight" in state:
        critics += 1
    heads = _hidden(state, "critic.qf0")
    kwargs = _part(data, "policy_kwargs")
    values: dict[str, object] = {
        "cameras": (),
        "image_channels": 3,
        "image_height": 1,
        "image_width": 1,
        "vision_encoder": "none",
        "state_dim": 0,
        "action_dim": _size(state, "actor.mu.weight", 0),
        "state_encoder": "none",
        "target_encoder": "own",
        "freeze_vision_encoder": False,
        "mlp": TORCH_NAMES[_activation(kwargs) or "ReLU"],
        "actor_hidden_dims": _hidden(state, "actor.latent_pi"),
        "critic_hidden_dims": heads[:-1] if critics else _hidden(state, "actor.latent_pi"),
        "num_critics": max(critics, 1),
        "std_min": STD_MIN,
        "std_max": STD_MAX,
        "learned_temperature": LOG_ALPHA in state,
    }
    if not data:
        note("mlp", "the activation of hidden layers is not stored: ReLU is assumed", "otherwise: --set mlp=tanh")
        chosen = parse_settings({key: text for key, text in settings.items() if key == "mlp"})
        values |= chosen
    if CNN not in state:
        return values | {"state_dim": _size(state, "actor.latent_pi.0.weight", 1), "shared_encoder": True}
    chosen = parse_settings({key: text for key, text in settings.items() if key in _NOT_IN_WEIGHTS})
    cameras = chosen.get("cameras") or ("cam0",)
    if "cameras" not in chosen:
        note("cameras", "the camera's name is not stored: called cam0", "name it: --set cameras=front")
    channels = _size(state, CNN, 1)
    if channels not in (1, 3):
        note("frame_stack", f"{channels} channels are taken for those of one frame: frames are not stored")
    critic = CNN.replace("actor.", "critic.", 1)
    shared = critic not in state or state.canonical(critic) == state.canonical(CNN)
    cells = _size(state, LINEAR, 1) // _MAPS
    height, width = _image_size(chosen, _part(data, "observation_space").get("_shape"), cells, findings)
    return values | {
        "cameras": cameras,
        "image_channels": channels,
        "image_height": height,
        "image_width": width,
        "vision_encoder": "nature",
        "features_dim": _size(state, LINEAR, 0),
        "shared_encoder": shared or kwargs.get("share_features_extractor") is True,
    }


def _image_size(chosen: Mapping[str, object], shape: object, cells: int, findings: list[Finding]) -> tuple[int, int]:
    """Height and width in pixels: as the observation space says, as chosen, else the square that fits."""
    height, width = chosen.get("image_height"), chosen.get("image_width")
    stated = tuple(shape[1:]) if isinstance(shape, list) and len(shape) == 3 else ()
    for size in (stated, (height, width)):
        if len(size) == 2 and isinstance(size[0], int) and isinstance(size[1], int):
            if map_size("nature", size[0]) * map_size("nature", size[1]) == cells:
                return size[0], size[1]
            raise ValueError(f"images of {size[0]}x{size[1]} do not give {cells} places")
    side = isqrt(cells)
    if side * side != cells:
        raise ValueError(
            f"{cells} places are no square, and the image size is not stored: --set image_size=HEIGHTxWIDTH"
        )
    low, high = pixel_range("nature", side)
    guess = next((n for n in _COMMON_SIDES if low <= n <= high), low)
    message = f"the image size is not stored: {guess}x{guess} is assumed, squares of {low} to {high} fit the weights"
    findings.append(Finding("WK108", Severity.INFO, "image_size", message, "otherwise: --set image_size=HEIGHTxWIDTH"))
    return guess, guess


def _around(checkpoint: Checkpoint, data: Mapping[str, Any]) -> list[Finding]:
    """What stable-baselines3 does outside the net."""
    space = _part(data, "action_space")
    bounds = f": {space['low']} to {space['high']}" if {"low", "high"} <= space.keys() else ", which is not stored"
    notes = {
        "action": "stable-baselines3 scales actions from (-1, 1) to the action space outside the net" + bounds,
        "observation": "statistics of VecNormalize are in a file of their own, where they were used",
    }
    observed = _part(data, "observation_space")
    shape = observed.get("_shape")
    if CNN not in checkpoint.state and isinstance(shape, list) and len(shape) == 3 and observed.get("dtype") == "uint8":
        notes["state"] = f"the state is an image {shape}, flattened (channels first) and divided by 255"
    if CONSTANT_ALPHA in checkpoint.state:
        notes["log_alpha"] = f"the entropy coefficient is a constant ({data.get('ent_coef', 'not named')}), not learned"
    elif LOG_ALPHA not in checkpoint.state:
        notes["log_alpha"] = "no entropy coefficient is among the tensors: stable-baselines3 keeps it beside the policy"
    return [Finding("WK108", Severity.INFO, subject, printable(message)) for subject, message in notes.items()]
