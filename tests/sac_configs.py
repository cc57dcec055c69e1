"""SAC configurations and tensors for tests: small nets over all options, and layouts' rules turned round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from locations import FIXTURES
from weightkit.architectures import recognise
from weightkit.architectures.base import Layout
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.config import SACConfig
from weightkit.architectures.sac.layouts.lerobot_sac import LAYOUT as LEROBOT
from weightkit.architectures.sac.sb3_inference import STD_MAX, STD_MIN
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.rule import Fate, Mapping
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.formats import open_checkpoint

PEERS = FIXTURES / "peers" / "sac"
PREPROCESSOR = "policy_preprocessor_step_3_normalizer_processor.safetensors"
POSTPROCESSOR = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
CAMERAS = ("front", "wrist", "top.left", "observation.image", "cam-2", "type")
WIDTHS = st.lists(st.integers(3, 6), min_size=1, max_size=3).map(tuple)
FINALS = st.sampled_from(["silu", "silu", "tanh", "none"])


@st.composite
def sac_configs(draw: st.DrawFn, lerobot: bool = False) -> SACConfig:
    """Nets of all options; ``lerobot``: those that LeRobot's layouts hold."""
    cameras = draw(st.lists(st.sampled_from(CAMERAS), max_size=3, unique=True).map(tuple))
    state = draw(st.integers(0 if cameras else 1, 4))
    kinds = ["cnn", "cnn", "resnet10", "resnet10_symmetric"] + ([] if lerobot else ["nature"])
    mlp = "layernorm_silu" if lerobot else draw(st.sampled_from(["layernorm_silu", "relu", "tanh"]))
    normed = mlp == "layernorm_silu"
    imagenet = cameras and not lerobot and draw(st.booleans())
    channels = 3 if imagenet else draw(st.sampled_from([1, 3]))
    frames = 1 if lerobot else draw(st.integers(1, 2))
    return SACConfig(
        cameras=cameras,
        image_channels=channels if cameras else 3,
        image_height=draw(st.integers(47, 50)) if cameras else 1,
        image_width=draw(st.integers(47, 66)) if cameras else 1,
        state_dim=state,
        action_dim=draw(st.integers(1, 3)),
        frame_stack=frames,
        environment_dim=draw(st.integers(0, 2)),
        num_discrete_actions=draw(st.sampled_from([0, 0, 2, 3])),
        vision_encoder=draw(st.sampled_from(kinds)) if cameras else "none",
        image_encoder_hidden_dim=draw(st.integers(2, 4)) if cameras else 32,
        resnet_widths=draw(st.sampled_from([(4, 8, 12, 16), (8, 16, 8, 12)])),
        image_embedding_pooling_dim=draw(st.integers(1, 3)) if cameras else 8,
        latent_dim=draw(st.integers(2, 5)),
        features_dim=512 if lerobot else draw(st.integers(2, 5)),
        state_encoder="latent" if lerobot else draw(st.sampled_from(["latent", "none"])),
        shared_encoder=draw(st.booleans()),
        target_encoder="critic" if lerobot else draw(st.sampled_from(["critic", "own"])),
        freeze_vision_encoder=draw(st.booleans()),
        image_normalization="imagenet" if imagenet else "none",
        mlp=mlp,
        actor_final=draw(st.sampled_from(["silu", "none"])) if normed else "silu",
        critic_final=draw(FINALS) if normed else "silu",
        discrete_final=draw(FINALS) if normed else "silu",
        actor_hidden_dims=draw(WIDTHS),
        critic_hidden_dims=draw(WIDTHS),
        discrete_hidden_dims=draw(WIDTHS),
        num_critics=draw(st.integers(1, 3)),
        learned_temperature=draw(st.booleans()),
    )


@st.composite
def sb3_configs(draw: st.DrawFn) -> SACConfig:
    """Nets that stable-baselines3 holds: one image, or one vector."""
    image = draw(st.booleans())
    return SACConfig(
        cameras=("front",) if image else (),
        image_channels=draw(st.sampled_from([1, 3])) if image else 3,
        image_height=draw(st.integers(36, 50)) if image else 1,
        image_width=draw(st.integers(36, 50)) if image else 1,
        state_dim=0 if image else draw(st.integers(1, 5)),
        action_dim=draw(st.integers(1, 3)),
        vision_encoder="nature" if image else "none",
        features_dim=draw(st.integers(2, 5)),
        state_encoder="none",
        shared_encoder=draw(st.booleans()) or not image,
        target_encoder="own",
        freeze_vision_encoder=False,
        mlp=draw(st.sampled_from(["relu", "tanh"])),
        actor_hidden_dims=draw(WIDTHS),
        critic_hidden_dims=draw(WIDTHS),
        num_critics=draw(st.integers(1, 3)),
        std_min=STD_MIN,
        std_max=STD_MAX,
        learned_temperature=draw(st.booleans()),
    )


SMALL = SACConfig(
    cameras=("front", "wrist"),
    image_channels=3,
    image_height=47,
    image_width=50,
    state_dim=4,
    action_dim=2,
    image_encoder_hidden_dim=4,
    image_embedding_pooling_dim=2,
    latent_dim=5,
    actor_hidden_dims=(6, 7),
    critic_hidden_dims=(6,),
    discrete_hidden_dims=(5,),
)


def sb3_net(**settings: Any) -> SACConfig:
    """A small net that stable-baselines3 holds."""
    return replace(
        SMALL, cameras=(), vision_encoder="none", state_encoder="none", target_encoder="own", mlp="relu",
        freeze_vision_encoder=False, std_min=STD_MIN, std_max=STD_MAX, **settings,
    )  # fmt: skip


def turned_round(mapping: Mapping, config: SACConfig) -> dict[str, str]:
    """The layout's name for each native name of ``config``: each from exactly one rule."""
    target = ARCHITECTURE.target(config)
    found: dict[str, str] = {}
    for name in target.state:
        names = []
        for rule in mapping.rules:
            if rule.fate is not Fate.MAP:
                continue
            assert not rule.ops
            bound = rule.targets[0].match(name, target.lists)
            if bound is not None:
                filled = rule.sources[0].fill(bound, target.lists)
                if filled is not None:
                    names.append(filled)
        assert len(names) == 1, (name, names)
        found[name] = names[0]
    assert len(set(found.values())) == len(found)
    return found


def random_arrays(state: StateSpec, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(each.shape).astype(np.float32) for name, each in state.tensors.items()}


def opened(
    state: StateSpec, metadata: dict[str, object] | None = None, arrays: dict[str, np.ndarray] | None = None
) -> Checkpoint:
    """A checkpoint of specs; without ``arrays`` it must not be read."""

    def read(name: str) -> np.ndarray:
        if arrays is None or name not in arrays:
            raise AssertionError(f"{name} was read")
        return arrays[name]

    return Checkpoint("policy", "memory", "", state, metadata or {}, read)


def of_arrays(arrays: dict[str, np.ndarray], metadata: dict[str, object] | None = None) -> Checkpoint:
    state = StateSpec({name: spec(array.dtype.name, *array.shape) for name, array in arrays.items()})
    return opened(state, metadata, arrays)


def key_table(path: Path) -> dict[str, dict[str, Any]]:
    """A table of the real projects' names, with shapes, as recorded beside the checkout."""
    table: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return table


def table_specs(table: dict[str, dict[str, Any]]) -> dict[str, TensorSpec]:
    return {name: spec(row["dtype"], *row["shape"]) for name, row in table.items()}


def recognised(path: Path, **settings: str) -> Recognition:
    found = recognise(open_checkpoint(path), settings)
    assert found is not None
    return found


def bare(config: SACConfig, layout: Layout = LEROBOT) -> StateSpec:
    """The tensors of a net under the layout's names."""
    names = turned_round(layout.mapping(config), config)
    native = ARCHITECTURE.spec(config)
    return StateSpec({names[name]: native[name] for name in native})
