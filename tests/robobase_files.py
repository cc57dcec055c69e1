"""DrQ-v2 policies under RoboBase's names, as specs and as files: from RoboBase's modules, not from our rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weightkit.architectures.drqv2.architecture import ARCHITECTURE
from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.core.tensor import StateSpec, TensorSpec, spec

HIDDEN = (1, 9, 128)
"""RoboBase's live recurrent state: one layer, 8 training envs and 1 for evaluation, 128 wide."""


def robobase_name(native: str, cameras: tuple[str, ...]) -> str:
    """RoboBase's first name for a tensor of the native layout."""
    first, *rest = native.split(".")
    if first == "encoder":
        camera, layer, kind = rest
        return f"encoder.convs_per_cam.{cameras.index(camera)}.{int(layer) // 2 * 3}.{kind}"
    head, part = ["actor", "actor_model"], rest
    if first != "actor":
        head, part = [first, "qs", rest[1]], rest[2:]
    keys = {"visual_trunk": "fused_view_feats", "state_trunk": "low_dim_obs", "time_trunk": "time_obs"}
    if part[0] in keys:
        key = keys[part[0]]
        return ".".join([*head, "input_preprocess_modules", key, *part[1:]])
    if part[0] == "mlp":
        return ".".join([*head, "main_mlp", str(int(part[1]) // 2 * 3), part[2]])
    return ".".join([*head, "out_mlp", "0", part[1]])


def robobase_table(config: DrQV2Config) -> dict[str, str]:
    """RoboBase's first name -> native name, for every tensor of the policy; buffers that are no weights left out."""
    return {robobase_name(name, config.cameras): name for name in ARCHITECTURE.spec(config)}


def hidden_names(config: DrQV2Config) -> tuple[str, ...]:
    """The ``hidden_state`` buffers, one a net, under their first names."""
    critics = [f"{c}.qs.{q}.hidden_state" for c in ("critic", "critic_target") for q in range(config.num_critics)]
    return ("actor.actor_model.hidden_state", *critics)


def second_name(name: str) -> str | None:
    """RoboBase registers the actor's net twice: the other name, None for all other tensors."""
    return name.removeprefix("actor.") if name.startswith("actor.actor_model.") else None


def robobase_spec(config: DrQV2Config, *, twice: bool = True, hidden: tuple[int, ...] = HIDDEN) -> StateSpec:
    """The StateSpec of a RoboBase agent; ``twice``: with the actor's second names, tied, as torch saves them."""
    native = ARCHITECTURE.spec(config)
    tensors: dict[str, TensorSpec] = {name: native[goal] for name, goal in robobase_table(config).items()}
    tensors |= {name: spec("float32", *hidden) for name in hidden_names(config)}
    aliases: dict[str, str] = {}
    if twice:
        ordered: dict[str, TensorSpec] = {}
        for name, found in tensors.items():
            other = second_name(name)
            if other is not None:
                ordered[other] = found
                aliases[name] = other
            ordered[name] = found
        tensors = ordered
    return StateSpec(tensors, aliases)


def robobase_state(policy: Any, *, hidden: tuple[int, ...] = HIDDEN) -> dict[str, Any]:
    """The ``agent`` of a RoboBase snapshot with the policy's weights, second names and recurrent state included."""
    import torch

    state: dict[str, Any] = {}
    tensors = {robobase_name(name, policy.cameras): tensor for name, tensor in policy.state_dict().items()}
    critics = sorted({name[: name.index(".", name.index(".qs.") + 4)] for name in tensors if ".qs." in name})
    tensors |= {f"{net}.hidden_state": torch.zeros(hidden) for net in ("actor.actor_model", *critics)}
    for name, tensor in tensors.items():
        other = second_name(name)
        if other is not None:
            state[other] = tensor
        state[name] = tensor
    return state


def cfg_of(config: DrQV2Config) -> dict[str, Any]:
    """The part of RoboBase's ``cfg`` that says what weights do not."""
    return {
        "pixels": True,
        "visual_observation_shape": [config.image_height, config.image_width],
        "frame_stack": config.frame_stack,
        "frame_stack_on_channel": True,
        "method": {
            "encoder_model": {
                "num_downsample_convs": config.num_downsample_convs,
                "num_post_downsample_convs": config.num_post_downsample_convs,
            },
            "view_fusion_model": {"mode": config.fusion},
            "distributional_critic": config.num_atoms > 1,
            "distributional_critic_limit": config.value_limit,
            "distributional_critic_atoms": config.num_atoms,
            "distributional_critic_transform": config.value_transform,
        },
    }


def save_robobase(path: Path, state: dict[str, Any], *, cfg: dict[str, Any] | None = None) -> Path:
    """A snapshot file with ``agent`` and, where it is given, ``cfg``."""
    import torch

    snapshot: dict[str, Any] = {"_main_loop_iterations": 7, "agent": state}
    snapshot |= {"best_eval_reward": 0.5} if cfg is None else {"cfg": cfg}
    torch.save(snapshot, path)
    return path
