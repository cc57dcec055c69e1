"""Files that LeRobot and stable-baselines3 wrote themselves, and what those projects computed with them.

More such files are tested where the environment variable WEIGHTKIT_PEERS names a folder of them: each NAME (a folder or
a .zip) with NAME.outputs.npz as `fixtures/peers/sac/README.md` describes it.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from locations import FIXTURES, SHARED, needs_shared
from weightkit.architectures import recognise
from weightkit.architectures.recognition import Recognition
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.architectures.sac.train_config import key_of
from weightkit.core.checkpoint import Checkpoint
from weightkit.engine.planning import make_plan
from weightkit.formats import open_checkpoint
from weightkit.nets.sac import SACPolicy
from weightkit.nets.sac_encoder import Seen
from weightkit.torch_state import load_state

PEERS = FIXTURES / "peers" / "sac"
REAL = SHARED / "real" / "lerobot044_sac_shared"
ATOL = 1e-5


def outputs_beside(folder: Path, prefixes: tuple[str, ...]) -> list[Path]:
    return sorted(each for each in folder.glob("*.outputs.npz") if each.name.startswith(prefixes))


MORE = outputs_beside(Path(os.environ.get("WEIGHTKIT_PEERS") or FIXTURES / "none"), ("lerobot0", "sb3_"))
EVERY = [*outputs_beside(PEERS, ("lerobot0", "sb3_")), *MORE]


def source_of(outputs: Path) -> Path:
    base = outputs.parent / outputs.name.removesuffix(".outputs.npz")
    return base if base.is_dir() else base.with_suffix(".zip")


def loaded(path: Path) -> tuple[Checkpoint, Recognition, SACPolicy]:
    """The file as a native policy, through its layout's own rules."""
    checkpoint = open_checkpoint(path)
    found = recognise(checkpoint, {})
    assert found is not None
    assert found.config is not None, found.findings
    layout = import_module(f"weightkit.architectures.sac.layouts.{found.layout.replace('-', '_')}").LAYOUT
    plan = make_plan(checkpoint.state, ARCHITECTURE.target(found.config), layout.mapping(found.config))
    policy = ARCHITECTURE.build(found.config)
    load_state(policy, {step.targets[0]: checkpoint.read(step.sources[0]) for step in plan.steps})
    return checkpoint, found, policy


def observed(policy: SACPolicy, arrays: dict[str, np.ndarray]) -> tuple[Seen, dict[str, torch.Tensor]]:
    """What the original net was given: through our checks where the images are in 0..1, else as it is."""
    given = {k.removeprefix("obs."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("obs.")}
    if "obs" in arrays:  # stable-baselines3: one image, or one vector, which may be an image laid flat
        raw = torch.from_numpy(arrays["obs"])
        flat = raw.flatten(1).float() / (255 if raw.dtype == torch.uint8 else 1)
        given = {"observation.images": raw} if policy.cameras else {"observation.state": flat}
    inside = {
        k.removeprefix("normalized."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("normalized.")
    }
    if not inside:
        return policy.see(given), given
    images = {camera: inside[key_of(camera)] for camera in policy.cameras}
    return Seen(images, inside.get("observation.environment_state"), inside.get("observation.state")), {}


def close(found: torch.Tensor, wanted: np.ndarray) -> None:
    assert tuple(found.shape) == wanted.shape
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=ATOL, rtol=ATOL)


@pytest.mark.parametrize("outputs", EVERY, ids=lambda path: path.name.removesuffix(".outputs.npz"))
@torch.no_grad()
def test_the_native_net_computes_what_the_original_did(outputs: Path) -> None:
    arrays = dict(np.load(outputs))
    _, found, policy = loaded(source_of(outputs))
    assert found.confidence == "certain"
    by_sample = found.layout == "sb3-sac" and "mean" not in arrays
    seen, given = observed(policy, arrays)
    mean, std = policy.actor(policy.features(seen))
    close(mean, arrays[next(key for key in ("mean", "means_pre_tanh", "mean_pre_tanh") if key in arrays)])
    action = arrays.get("squashed_action", arrays["action"])
    close(torch.tanh(mean), action)
    if "std" in arrays:
        close(std, arrays["std"])
    if "log_std_clamped" in arrays:
        close(std.log(), arrays["log_std_clamped"])
    assert policy.critic is not None
    assert policy.critic_target is not None
    pairs: list[tuple[Any, Any, str, np.ndarray]] = [
        (policy.critic, "critic", "q", action),
        (policy.critic_target, "target", "q_target", action),
    ]
    if "q_other" in arrays:
        pairs.append((policy.critic, "critic", "q_other", arrays["other_action"]))
    for critic, whose, key, chosen in pairs:
        wanted = arrays[key].T if by_sample else arrays[key]
        close(critic(policy.features(seen, whose), torch.from_numpy(chosen)), wanted)
    if "discrete_q" in arrays:
        assert policy.discrete_critic is not None
        close(policy.discrete_critic(policy.features(seen, "critic")), arrays["discrete_q"])
    if "log_alpha" in arrays:
        close(policy.log_alpha, arrays["log_alpha"])
    if given:  # and by the names that a user calls
        acted = policy.act(given)
        close(acted[:, : action.shape[1]], action)
        if "discrete_q" in arrays:
            assert acted[:, -1].tolist() == arrays["discrete_q"].argmax(1).tolist()
        close(policy.q_values(given, acted), arrays["q"].T if by_sample else arrays["q"])
        close(policy.target_q_values(given, acted), arrays["q_target"].T if by_sample else arrays["q_target"])


@needs_shared
def test_a_folder_that_lerobots_learner_wrote_is_known_by_its_evidence_and_computes_the_same() -> None:
    arrays = dict(np.load(REAL.with_name("lerobot044_sac_shared.outputs.npz")))
    checkpoint, found, policy = loaded(REAL)
    assert (found.layout, found.confidence) == ("lerobot-sac", "certain")
    assert "config.json of a LeRobot policy of type 'sac'" in found.evidence
    assert "51 names of the critics' encoder share a tensor with another name" in found.evidence
    assert len([name for name in checkpoint.state if name.startswith("training_state.")]) > 0
    _, given = observed(policy, arrays)
    close(policy(given)[0], arrays["means_pre_tanh"])
    close(policy.act(given), arrays["action"])
    close(policy.q_values(given, arrays["action"]), arrays["q"])
    close(policy.target_q_values(given, arrays["action"]), arrays["q_target"])


@pytest.mark.parametrize("outputs", EVERY, ids=lambda path: path.name.removesuffix(".outputs.npz"))
def test_images_as_floats_above_one_are_refused_whatever_project_the_policy_comes_from(outputs: Path) -> None:
    _, _, policy = loaded(source_of(outputs))
    if not policy.cameras:
        pytest.skip("it has no camera")
    shape = (1, *policy.image_shape)
    observation = {f"observation.images.{camera}": torch.full(shape, 200.0) for camera in policy.cameras}
    with pytest.raises(ValueError, match=r"must lie in 0\.\.1"):
        policy.images_of(observation)
