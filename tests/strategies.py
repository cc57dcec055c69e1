"""Hypothesis strategies that several laws share, and the policies and observations that go with them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


@st.composite
def drqv2_kwargs(draw: st.DrawFn, shared_trunks: bool = False) -> dict[str, Any]:
    """Keyword arguments of ``weightkit.nets.drqv2.DrQV2Policy``: small nets, every dimension varied.

    ``shared_trunks``: among them nets whose critics share one trunk, which RoboBase does not have.
    """
    downsample, post = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    if downsample + post == 0:
        post = 1
    smallest = 1 + 2 * post
    for _ in range(downsample):
        smallest = 2 * smallest + 1
    cameras = draw(st.lists(st.sampled_from(("front", "wrist", "side")), min_size=1, max_size=3, unique=True))
    return {
        "cameras": cameras,
        "image_channels": draw(st.sampled_from((1, 3))),
        "image_height": smallest + draw(st.integers(0, 5)),
        "image_width": smallest + draw(st.integers(0, 5)),
        "frame_stack": draw(st.integers(1, 4)),
        "state_dim": draw(st.integers(0, 5)),
        "action_dim": draw(st.integers(1, 4)),
        "encoder_channels": draw(st.integers(1, 4)),
        "num_downsample_convs": downsample,
        "num_post_convs": post,
        "bottleneck_dim": draw(st.integers(2, 6)),
        "hidden_dims": draw(st.lists(st.integers(2, 8), min_size=1, max_size=3)),
        "num_critics": draw(st.sampled_from((0, 2))),
        "fusion": draw(st.sampled_from(("flatten", "average", "sum"))) if len(cameras) > 1 else "flatten",
        "time_dim": draw(st.sampled_from((0, 0, 3))),
        "num_atoms": draw(st.sampled_from((1, 1, 5))),
        "shared_critic_trunk": draw(st.booleans()) if shared_trunks else False,
    }


SMALL_DRQV2: dict[str, Any] = {
    "cameras": ["front", "wrist"],
    "image_channels": 3,
    "image_height": 11,
    "image_width": 9,
    "frame_stack": 2,
    "state_dim": 3,
    "action_dim": 2,
    "encoder_channels": 2,
    "num_downsample_convs": 1,
    "num_post_convs": 1,
    "bottleneck_dim": 4,
    "hidden_dims": [6, 5],
    "num_critics": 2,
}


def drqv2_policy(kwargs: dict[str, Any], seed: int) -> Any:
    """A DrQ-v2 policy with every tensor random: biases and norms too, which fresh nets all have in common."""
    import torch

    from weightkit.nets.drqv2 import DrQV2Policy

    torch.set_num_threads(1)  # sharing nets this small out among threads costs more than computing them
    policy = DrQV2Policy(**kwargs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in policy.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return policy.eval()


def drqv2_observations(kwargs: dict[str, Any], seed: int, count: int = 2) -> list[dict[str, Any]]:
    """Random observations for ``DrQV2Policy(**kwargs)``, batches of 2."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    stack, state_dim = kwargs["frame_stack"], kwargs["state_dim"]
    size = (2, stack * kwargs["image_channels"], kwargs["image_height"], kwargs["image_width"])
    observations = []
    for _ in range(count):
        observation: dict[str, Any] = {
            f"observation.images.{camera}": torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
            for camera in kwargs["cameras"]
        }
        if state_dim:
            observation["observation.state"] = torch.randn(2, stack * state_dim, generator=generator)
        if kwargs.get("time_dim"):
            observation["observation.time"] = torch.eye(kwargs["time_dim"])[:1].repeat(2, 1)
        observations.append(observation)
    return observations


def drqv2_groups(policy: Any) -> dict[str, str]:
    """The groups of a DrQ-v2 policy's manifest: the acting path sent, the rest held."""
    names = {name.split(".")[0] for name in policy.state_dict()}
    return {name: "send" if name in ("encoder", "actor") else "hold" for name in sorted(names)}


def act(policy: Any, observation: Any) -> Any:
    """How every policy of these tests acts."""
    return policy.act(observation)


# ---- core: names, templates, specs

DTYPE_NAMES = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "int64", "int32", "uint8", "bool")
NAME_PARTS = st.text(st.characters(exclude_characters=".", exclude_categories=("Cs",)), min_size=1, max_size=6)
LITERALS = st.sampled_from(("encoder", "actor", "mlp", "0", "7", "weight", "a b", "x*y", "größe"))


@st.composite
def tensor_specs(draw: st.DrawFn, dtypes: tuple[str, ...] = DTYPE_NAMES, min_dims: int = 0) -> Any:
    """A TensorSpec of small extents; 0-d and empty ones too."""
    from weightkit.core.tensor import spec

    return spec(draw(st.sampled_from(dtypes)), *draw(st.lists(st.integers(0, 4), min_size=min_dims, max_size=4)))


@st.composite
def state_specs(draw: st.DrawFn, max_size: int = 8) -> Any:
    """A StateSpec of any names; some tensors have second names."""
    from weightkit.core.tensor import StateSpec

    names = draw(st.lists(st.lists(NAME_PARTS, min_size=1, max_size=4).map(".".join), max_size=max_size, unique=True))
    tensors: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for name in names:
        firsts = [first for first in tensors if first not in aliases]
        if firsts and draw(st.booleans()):
            aliases[name] = draw(st.sampled_from(firsts))
            tensors[name] = tensors[aliases[name]]
        else:
            tensors[name] = draw(tensor_specs())
    return StateSpec(tensors, aliases)


@st.composite
def template_pairs(draw: st.DrawFn) -> tuple[str, str, dict[str, list[str]], dict[str, str]]:
    """Two template texts over the same variables, the lists they look up, and the kind of each variable.

    A whole number stands in each text as itself, as an affine index or as an entry of a list.
    """
    kinds = draw(st.lists(st.sampled_from(("int", "int", "name")), max_size=3))
    variables = {f"v{index}": kind for index, kind in enumerate(kinds)}
    if draw(st.booleans()):
        variables["rest"] = "path"
    entries = draw(st.lists(NAME_PARTS, min_size=1, max_size=4, unique=True))
    texts = []
    for _ in range(2):
        pieces = []
        for variable in draw(st.permutations([v for v in variables if v != "rest"])):
            pieces.append(_written(draw, variable, variables[variable]))
        for _ in range(draw(st.integers(0 if pieces else 1, 2))):
            pieces.insert(draw(st.integers(0, len(pieces))), draw(LITERALS))
        texts.append(".".join([*pieces, *(["{rest:path}"] if "rest" in variables else [])]))
    return texts[0], texts[1], {"entries": entries}, variables


def _written(draw: st.DrawFn, variable: str, kind: str) -> str:
    if kind == "name":
        return f"{{{variable}:name}}"
    form = draw(st.sampled_from(("plain", "int", "scale", "affine", "list")))
    scale, offset = draw(st.integers(1, 4)), draw(st.integers(0, 5))
    forms = {"int": ":int", "scale": f"*{scale}", "affine": f"*{scale}+{offset}", "list": "@entries", "plain": ""}
    return f"{{{variable}{forms[form]}}}"


def bindings(variables: dict[str, str], numbers: int) -> st.SearchStrategy[dict[str, Any]]:
    """Values for the variables of a template; whole numbers below ``numbers``."""
    of = {
        "int": st.integers(0, numbers - 1),
        "name": NAME_PARTS,
        "path": st.lists(NAME_PARTS, min_size=1, max_size=3).map(".".join),
    }
    return st.fixed_dictionaries({variable: of[kind] for variable, kind in variables.items()})


# ---- DrQ-v2 configurations


def drqv2_config(kwargs: dict[str, Any]) -> Any:
    """The DrQV2Config of the policy ``DrQV2Policy(**kwargs)``; it always has critics."""
    from weightkit.architectures.drqv2.config import DrQV2Config

    return DrQV2Config(
        cameras=tuple(kwargs["cameras"]),
        image_channels=kwargs["image_channels"],
        image_height=kwargs["image_height"],
        image_width=kwargs["image_width"],
        frame_stack=kwargs["frame_stack"],
        state_dim=kwargs["state_dim"],
        action_dim=kwargs["action_dim"],
        encoder_channels=kwargs["encoder_channels"],
        num_downsample_convs=kwargs["num_downsample_convs"],
        num_post_downsample_convs=kwargs["num_post_convs"],
        bottleneck_size=kwargs["bottleneck_dim"],
        mlp_nodes=tuple(kwargs["hidden_dims"]),
        num_critics=kwargs["num_critics"] or 1,
        **{key: kwargs[key] for key in ("fusion", "time_dim", "num_atoms", "shared_critic_trunk") if key in kwargs},
    )


def drqv2_configs(shared_trunks: bool = False) -> st.SearchStrategy[Any]:
    """Small DrQV2Configs, every dimension varied."""
    return drqv2_kwargs(shared_trunks=shared_trunks).map(drqv2_config)
