"""RoboBase's DrQ-v2: the state_dict of its agent, alone or as ``agent`` of a snapshot with its ``cfg``.

Source: robobase/method/drqv2.py, models/{encoder,fusion,fully_connected}.py, workspace.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as NameMap
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from weightkit.architectures.base import Conventions, Folder
from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.architectures.drqv2.inference import Stated, UnusableError, infer, native_names
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.names import whole_number
from weightkit.core.report import Finding, Severity
from weightkit.core.rule import Mapping
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.errors import UsageError
from weightkit.mapping_file import read_mapping

_TOWER = re.compile(r"encoder\.convs_per_cam\.(\d+)\.(\d+)\.weight")
_SNAPSHOT_KEYS = ("_pretrain_step", "_main_loop_iterations", "_global_env_episode", "best_eval_reward", "cfg")
_HIDDEN_SIZE, _RNN_LAYERS = 128, 1
_MOST_ENVS = 1 << 20
_BOTTLENECKED = ["fused_view_feats", "low_dim_obs", "time_obs"]
_STRANGERS = (
    (".time_dim_rnn.", "a GRU over frames (frame_stack_on_channel: false)"),
    ("out_mlp.0._rnn.", "a sequence of actions by a GRU"),
    ("view_fusion.", "attention between the cameras"),
    ("intr_critic", "an intrinsic reward's critics"),
    ("intrinsic_reward_module.", "an intrinsic reward"),
)
"""What nets of this project may have and ours cannot hold, by a part of a name."""
_STATISTICS = {
    "norm_obs": "states are normalised",
    "use_standardization": "actions are scaled back",
    "use_min_max_normalization": "actions are scaled back",
}


class RoboBaseDrQV2:
    """The layout ``robobase-drqv2``."""

    name = "robobase-drqv2"
    architecture = "drqv2"
    title = "RoboBase DrQ-v2"
    options: NameMap[str, str] = MappingProxyType(
        {"num_train_envs": "training environments, which is what the buffers hidden_state are made for (1)"}
    )

    def conventions(self, config: DrQV2Config) -> Conventions:
        return Conventions(
            "0..255",
            "uint8 0..255, which the encoder divides by 255; cameras in the order of the observation's rgb keys",
            "as the environment gives it, in its own units" if config.state_dim else "none",
            "tanh of the mean in -1..1; scaling to the robot's range is the environment's and not in the file",
        )

    def mapping(self, config: DrQV2Config, options: NameMap[str, str] | None = None) -> Mapping:
        del config, options
        return read_mapping(Path(__file__).with_name(f"{self.name}.toml"))

    def fitted(self, config: DrQV2Config) -> DrQV2Config:
        return replace(config, shared_critic_trunk=False)

    def extras(self, config: DrQV2Config, options: NameMap[str, str]) -> dict[str, TensorSpec]:
        text = options.get("num_train_envs", "1")
        envs = whole_number(text)
        if envs is None or not 0 < envs <= _MOST_ENVS:
            raise UsageError(f"--set num_train_envs={text}: expected a whole number of at least 1")
        hidden = spec("float32", _RNN_LAYERS, envs + 1, _HIDDEN_SIZE)
        critics = [f"{c}.qs.{q}" for c in ("critic", "critic_target") for q in range(config.num_critics)]
        return {f"{prefix}.hidden_state": hidden for prefix in ("actor.actor_model", *critics)}

    def folder(
        self, config: DrQV2Config, names: StateSpec, options: NameMap[str, str], beside: NameMap[str, object]
    ) -> Folder:
        raise UsageError(f"{self.name}: RoboBase keeps an agent in one file", hint="-o agent.pt")

    def recognise(self, checkpoint: Checkpoint, settings: NameMap[str, str]) -> Recognition | None:
        """By its names; the configuration by its shapes and, where it is there, by ``cfg``."""
        state = checkpoint.state
        towers = [found for found in map(_TOWER.fullmatch, state) if found]
        if not any(name.startswith(("actor.actor_model.", "actor_model.")) for name in state):
            return None
        evidence = _evidence(state, towers)
        keys = [key for key in _SNAPSHOT_KEYS if key in checkpoint.metadata]
        if keys:
            evidence.append(f"a RoboBase snapshot's keys {', '.join(keys)}" + ("" if "cfg" in keys else ", no cfg"))
        cfg = checkpoint.metadata.get("cfg")
        cfg = cfg if isinstance(cfg, dict) else {}
        own = {key: value for key, value in settings.items() if key not in self.options}
        cameras = tuple(f"cam{index}" for index in range(len({found[1] for found in towers})))
        config: DrQV2Config | None = None
        findings: list[Finding] = []
        try:
            if not towers:
                if any(".fused_view_feats." in name for name in state):
                    message = "the encoder's tensors are not in the file, and the actor's trunk reads their features"
                    raise UnusableError("encoder", message, "find the file that holds encoder.convs_per_cam.*")
                message = "a RoboBase policy without images: drqv2 needs at least one camera"
                raise UnusableError("encoder", message, "inspect lists its tensors")
            _refuse_variants(state, cfg)
            native = native_names(state, read_mapping(Path(__file__).with_name(f"{self.name}.toml")), cameras)
            config, findings, sentence = infer(native, cameras, _stated(cfg), own)
            evidence.append(sentence)
            findings += [_not_stored(key, what) for key, what in _STATISTICS.items() if cfg.get(key) is True]
        except UnusableError as error:
            findings = [error.finding]
        sure = config is not None and bool(cfg)
        envs = next((_envs(spec) for name, spec in state.items() if name.endswith(".hidden_state")), 0)
        options = {"num_train_envs": str(envs)} if envs else {}
        options |= {key: value for key, value in settings.items() if key in self.options}
        return Recognition(
            "drqv2",
            self.name,
            self.title,
            "certain" if sure else "likely",
            tuple(evidence),
            config,
            tuple(findings),
            options,
        )


def _not_stored(key: str, what: str) -> Finding:
    message = f"cfg.{key} is true: {what} with statistics that are not in the snapshot"
    return Finding("WK108", Severity.WARNING, f"cfg.{key}", message, "whoever trained it has them")


def _evidence(state: StateSpec, towers: list[re.Match[str]]) -> list[str]:
    cameras = len({found[1] for found in towers})
    layers = "{" + ",".join(map(str, sorted({int(found[2]) for found in towers}))) + "}"
    tower = "0" if cameras == 1 else "{" + f"0..{cameras - 1}" + "}"
    evidence = [f"{2 * len(towers)} tensors encoder.convs_per_cam.{tower}.{layers}"] if towers else []
    tied = [name for name in state.aliases if "actor_model." in name]
    if tied:
        evidence.append(f"{len(tied)} names actor.actor_model.* and actor_model.* share one tensor each")
    hidden = next((name for name in state if name.endswith(".hidden_state")), None)
    if hidden is not None:
        evidence.append(f"hidden_state buffers {list(state[hidden].shape)}: {_envs(state[hidden])} training envs")
    return evidence


def _envs(hidden: TensorSpec) -> int:
    """Training environments of a ``hidden_state`` buffer: one more row is there for evaluation."""
    return max(hidden.shape[1] - 1, 0) if len(hidden.shape) == 3 else 0


def _refuse_variants(state: StateSpec, cfg: NameMap[str, object]) -> None:
    """Raise UnusableError for a net of this project that ours is not."""
    hint = "inspect lists its tensors; converting it would change the policy"
    for part, what in _STRANGERS:
        name = next((name for name in state if part in name), None)
        if name is not None:
            raise UnusableError(name, f"a RoboBase variant that drqv2 cannot hold: {what} (tensor {name})", hint)
    for model in ("actor_model", "critic_model"):
        for key, usual in (
            ("norm_after_bottleneck", True),
            ("tanh_after_bottleneck", True),
            ("activation", "relu"),
            ("norm", "identity"),
            ("keys_to_bottleneck", _BOTTLENECKED),
            ("linear_bias", True),
        ):
            found = _at(cfg, "method", model, key)
            if found is not None and found != usual:
                where = f"cfg.method.{model}.{key}"
                message = f"a RoboBase variant that drqv2 cannot hold: {where} is {found!r}, not {usual!r}"
                raise UnusableError(where, message, hint)
    kernel = _at(cfg, "method", "encoder_model", "kernel_size")
    if kernel not in (None, 3):
        message = f"a RoboBase variant that drqv2 cannot hold: kernels of {kernel}"
        raise UnusableError("cfg.method.encoder_model.kernel_size", message, hint)


def _stated(cfg: NameMap[str, object]) -> Stated:
    """What ``cfg`` says of the net."""
    size = _at(cfg, "visual_observation_shape")
    whole = isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)
    return Stated(
        frame_stack=_at(cfg, "frame_stack") if _at(cfg, "frame_stack_on_channel") is not False else 1,
        image_size=(size[0], size[1]) if whole and isinstance(size, list) else None,
        num_downsample_convs=_at(cfg, "method", "encoder_model", "num_downsample_convs"),
        fusion=_at(cfg, "method", "view_fusion_model", "mode"),
        value_limit=_at(cfg, "method", "distributional_critic_limit"),
        value_transform=_at(cfg, "method", "distributional_critic_transform"),
    )


def _at(cfg: NameMap[str, object], *path: str) -> object:
    value: object = cfg
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


LAYOUT = RoboBaseDrQV2()
