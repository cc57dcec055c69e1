"""What a file's tensors say about the DrQ-v2 net they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt

from weightkit.architectures.drqv2.config import DrQV2Config, parse_settings
from weightkit.architectures.drqv2.recognise import is_native
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.section import Section
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.errors import ConfigError, UsageError

_TOWER = re.compile(r"encoder\.convs_per_cam\.(\d+)\.(\d+)\.weight")
_TRUNK = "input_preprocess_modules"
_HEAD = "critic.qs.0.out_mlp.0.weight"
_NOT_IN_WEIGHTS = {"cameras", "image_channels", "image_height", "image_width", "num_downsample_convs"}
_MOST = 1000
"""What a file says about itself is believed up to here: no such net has more frames or convolutions."""
_SNAPSHOT_KEYS = ("_pretrain_step", "_main_loop_iterations", "_global_env_episode", "best_eval_reward", "cfg")


def recognise_native(checkpoint: Checkpoint) -> Recognition | None:
    """A file that weightkit wrote: its configuration lies beside the tensors."""
    document = checkpoint.metadata.get("config")
    if not is_native(checkpoint) or not isinstance(document, dict):
        return None
    evidence = ("its metadata holds the configuration of a drqv2 policy, written by weightkit",)
    config: DrQV2Config | None = None
    findings: tuple[Finding, ...] = ()
    try:
        config = DrQV2Config.from_section(Section(document, checkpoint.path, "$.config"))
    except ConfigError as error:
        findings = (Finding("WK107", Severity.ERROR, "config", error.message, "give --config_path train_config.json"),)
    return Recognition("drqv2", "drqv2", "weightkit DrQ-v2", "certain", evidence, config, findings)


def recognise_robobase(checkpoint: Checkpoint, settings: Mapping[str, str]) -> Recognition | None:
    """A RoboBase DrQ-v2 agent, by its names; the configuration by its shapes and, where it is there, by ``cfg``."""
    state = checkpoint.state
    towers = [found for found in map(_TOWER.fullmatch, state) if found]
    actor = next((p for p in ("actor.actor_model", "actor_model") if f"{p}.out_mlp.0.weight" in state), None)
    needed = ("encoder.convs_per_cam.0.0.weight", f"{actor}.{_TRUNK}.fused_view_feats.0.weight")
    if not towers or actor is None or any(len(state[n].shape) < 2 for n in needed if n in state):
        return None
    if any(name not in state for name in needed):
        return None
    cameras = len({found[1] for found in towers})
    indices = sorted({int(found[2]) for found in towers})
    layers = "{" + ",".join(map(str, indices)) + "}"
    tower = "0" if cameras == 1 else "{" + f"0..{cameras - 1}" + "}"
    evidence = [f"{2 * len(towers)} tensors encoder.convs_per_cam.{tower}.{layers}"]
    tied = [name for name in state.aliases if "actor_model." in name]
    if tied:
        evidence.append(f"{len(tied)} names actor.actor_model.* and actor_model.* share one tensor each")
    hidden = next((name for name in state if name.endswith(".hidden_state")), None)
    if hidden is not None:
        envs = state[hidden].shape[1] - 1 if len(state[hidden].shape) == 3 else 0
        evidence.append(f"hidden_state buffers {list(state[hidden].shape)}: {envs} training envs")
    keys = [key for key in _SNAPSHOT_KEYS if key in checkpoint.metadata]
    if keys:
        evidence.append(f"a RoboBase snapshot's keys {', '.join(keys)}" + ("" if "cfg" in keys else ", no cfg"))
    config: DrQV2Config | None
    try:
        config, findings = _infer(state, actor, cameras, len(indices), _cfg(checkpoint), settings, evidence)
    except _ShapeError as error:
        message = f"the shapes fit no drqv2 configuration: {error}"
        config, findings = None, [Finding("WK107", Severity.ERROR, error.name, message)]
    sure = config is not None and "cfg" in checkpoint.metadata
    return Recognition(
        "drqv2",
        "robobase-drqv2",
        "RoboBase DrQ-v2",
        "certain" if sure else "likely",
        tuple(evidence),
        config,
        tuple(findings),
    )


class _ShapeError(Exception):
    """A tensor of the net's names that has not the axes of the net's tensors."""

    def __init__(self, name: str, spec: TensorSpec) -> None:
        super().__init__(f"{name} is {spec}")
        self.name = name


def _length(state: StateSpec, name: str, axis: int) -> int:
    """How long a weight matrix or kernel is on ``axis``. Raises _ShapeError for a tensor that has none."""
    if len(state[name].shape) <= axis or state[name].shape[axis] < 1:
        raise _ShapeError(name, state[name])
    return state[name].shape[axis]


def _cfg(checkpoint: Checkpoint) -> Mapping[str, object]:
    cfg = checkpoint.metadata.get("cfg")
    return cfg if isinstance(cfg, dict) else {}


def _at(cfg: Mapping[str, object], *path: str) -> object:
    value: object = cfg
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _infer(
    state: StateSpec,
    actor: str,
    cameras: int,
    convs: int,
    cfg: Mapping[str, object],
    settings: Mapping[str, str],
    evidence: list[str],
) -> tuple[DrQV2Config | None, list[Finding]]:
    """The configuration that shapes and ``cfg`` give; what they leave open is assumed, and said."""
    findings: list[Finding] = []
    unsupported = [
        name for name in state if ".time_obs." in name or ".time_dim_rnn." in name or name.startswith("view_fusion.")
    ]
    atoms = _length(state, _HEAD, 0) if _HEAD in state else 1
    if unsupported or atoms != 1:
        what = f"tensor {unsupported[0]}" if unsupported else f"a distributional critic of {atoms} atoms"
        findings.append(
            Finding(
                "WK107",
                Severity.ERROR,
                unsupported[0] if unsupported else _HEAD,
                f"a RoboBase variant that drqv2 cannot hold: {what}",
                "inspect lists its tensors; converting it would change the policy",
            )
        )
        return None, findings
    # --set describes the target; of the source it may only say what weights leave open
    chosen = {key: value for key, value in parse_settings(settings).items() if key in _NOT_IN_WEIGHTS}

    def decide(key: str, stated: object, assumed: int, note: str, least: int = 1) -> int:
        if isinstance(chosen.get(key), int):
            value = chosen[key]
            assert isinstance(value, int)
            return value
        if isinstance(stated, int) and not isinstance(stated, bool) and least <= stated <= _MOST:
            return stated
        findings.append(Finding("WK108", Severity.INFO, key, note))
        return assumed

    first = [_length(state, "encoder.convs_per_cam.0.0.weight", axis) for axis in (0, 1)]
    channels = first[0]
    low_dim = f"{actor}.{_TRUNK}.low_dim_obs.0.weight"
    states = _length(state, low_dim, 1) if low_dim in state else 0
    image_channels = decide("image_channels", None, 3, "RGB images are assumed: channels per frame are not stored")
    frames = decide(
        "frame_stack",
        _at(cfg, "frame_stack") if _at(cfg, "frame_stack_on_channel") is not False else 1,
        max(first[1] // image_channels, 1),
        f"{first[1]} input channels are read as {first[1] // image_channels} RGB frames: frame_stack is not stored",
    )
    down = decide(
        "num_downsample_convs",
        _at(cfg, "method", "encoder_model", "num_downsample_convs"),
        1,
        "strides are not stored: RoboBase's default is assumed, one convolution of stride 2, then stride 1",
        least=0,
    )
    visual = [_length(state, f"{actor}.{_TRUNK}.fused_view_feats.0.weight", axis) for axis in (0, 1)]
    size = _image_size(chosen, cfg, visual[1], cameras * channels, down, convs - down, findings)
    if size is None:
        return None, findings
    nodes: list[int] = []
    while f"{actor}.main_mlp.{3 * len(nodes)}.weight" in state:
        nodes.append(_length(state, f"{actor}.main_mlp.{3 * len(nodes)}.weight", 0))
    critics = sum(1 for name in state if re.fullmatch(r"critic\.qs\.\d+\.out_mlp\.0\.weight", name))
    try:
        names = chosen.get("cameras") or tuple(f"cam{index}" for index in range(cameras))
        assert isinstance(names, tuple)
        if len(names) != cameras:
            raise UsageError(f"--set cameras={','.join(names)}: the file has {cameras} camera towers")
        if "cameras" not in chosen:
            note = f"camera names are not stored: called {', '.join(names)}" + (
                ", in the file's order" if cameras > 1 else ""
            )
            findings.append(
                Finding(
                    "WK108",
                    Severity.INFO,
                    "cameras",
                    note,
                    "name them in tower order: --set cameras=front,wrist",
                )
            )
        config = DrQV2Config(
            cameras=names,
            image_channels=image_channels,
            image_height=size[0],
            image_width=size[1],
            frame_stack=frames,
            state_dim=states // frames,
            action_dim=_length(state, f"{actor}.out_mlp.0.weight", 0),
            encoder_channels=channels,
            num_downsample_convs=down,
            num_post_downsample_convs=convs - down,
            bottleneck_size=visual[0],
            mlp_nodes=tuple(nodes),
            num_critics=max(critics, 1),
        )
    except ValueError as error:
        findings.append(Finding("WK107", Severity.ERROR, "config", f"the shapes fit no drqv2 configuration: {error}"))
        return None, findings
    evidence.append(
        f"shapes of {frames} stacked frames of {config.image_height}x{config.image_width}, state {config.state_dim}, "
        f"{config.action_dim} actions, MLP {list(config.mlp_nodes)}"
    )
    return config, findings


def _image_size(
    chosen: Mapping[str, object],
    cfg: Mapping[str, object],
    visual_dim: int,
    maps: int,
    down: int,
    post: int,
    findings: list[Finding],
) -> tuple[int, int] | None:
    """Height and width in pixels: as chosen, as ``cfg`` says, or the even square that the features' number allows."""
    height, width = chosen.get("image_height"), chosen.get("image_width")
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    stated = _at(cfg, "visual_observation_shape")
    if isinstance(stated, list) and len(stated) == 2 and all(isinstance(n, int) for n in stated):
        return stated[0], stated[1]
    cells = isqrt(visual_dim // maps)
    if cells * cells * maps != visual_dim:
        message = f"{visual_dim} features of {maps} maps are no square: the image size is not stored"
        findings.append(
            Finding("WK108", Severity.ERROR, "image_size", message, "say it: --set image_size=HEIGHTxWIDTH")
        )
        return None
    side = cells + 2 * post
    for _ in range(down):
        side = (side - 1) * 2 + 3
    side += side % 2
    note = (
        f"square images are assumed: {side}x{side} (weights alone fit {side - 1} too)"
        if down
        else f"square images are assumed: {side}x{side}"
    )
    findings.append(Finding("WK108", Severity.INFO, "image_size", note, "otherwise: --set image_size=HEIGHTxWIDTH"))
    return side, side
