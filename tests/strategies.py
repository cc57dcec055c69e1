"""Hypothesis strategies that several laws share, and the policies and observations that go with them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


@st.composite
def drqv2_kwargs(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments of ``weightkit.nets.drqv2.DrQV2Policy``: small nets, every dimension varied."""
    downsample, post = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    if downsample + post == 0:
        post = 1
    smallest = 1 + 2 * post
    for _ in range(downsample):
        smallest = 2 * smallest + 1
    return {
        "cameras": draw(st.lists(st.sampled_from(("front", "wrist", "side")), min_size=1, max_size=3, unique=True)),
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
        observations.append(observation)
    return observations


def drqv2_groups(policy: Any) -> dict[str, str]:
    """The groups of a DrQ-v2 policy's manifest: the acting path sent, the rest held."""
    names = {name.split(".")[0] for name in policy.state_dict()}
    return {name: "send" if name in ("encoder", "actor") else "hold" for name in sorted(names)}


def act(policy: Any, observation: Any) -> Any:
    """How every policy of these tests acts."""
    return policy.act(observation)
