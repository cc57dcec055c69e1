"""One DrQ-v2 update against a straight-line derivation from the paper's equations, in float64.

The derivation shares no code with the package: convolutions, trunks, losses, Adam, clipping and averaging are written
out; gradients come from autograd on those. Weights, batch, noise and shift are the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_drqv2_update import IMAGE, STATE, make_batch, make_update
from torch import Tensor
from torch.nn import functional

from weightkit.nets.drqv2 import DrQV2Policy
from weightkit_runners.updates.base import StepRandom

SIZE, PAD = 24, 4
STEP, STDDEV, CLIP = 5, 0.1, 0.3
CLOSE = {"rtol": 0.0, "atol": 1e-9}

Weights = dict[str, Tensor]


def square_policy(**changes: Any) -> DrQV2Policy:
    torch.manual_seed(0)
    policy = DrQV2Policy(
        cameras=("front",), image_channels=3, image_height=SIZE, image_width=SIZE, frame_stack=2, state_dim=3,
        action_dim=2, encoder_channels=4, num_downsample_convs=1, num_post_convs=3, bottleneck_dim=8,
        hidden_dims=(16, 16), num_critics=2, **changes,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in policy.parameters():  # biases and norms too must matter
            parameter.add_(0.05 * torch.randn_like(parameter))
    images, state = policy.images_of, policy.state_of
    policy.images_of = lambda seen: {key: value.double() for key, value in images(seen).items()}  # type: ignore[method-assign]
    policy.state_of = lambda seen: state(seen).double()  # type: ignore[method-assign, union-attr]
    return policy


def batch_of(size: int) -> dict[str, Any]:
    random = np.random.default_rng(7)
    batch = make_batch(size)
    for key in (IMAGE, f"next.{IMAGE}"):
        batch[key] = random.integers(0, 256, (size, 6, SIZE, SIZE)).astype(np.uint8)
    batch["reward"] = random.standard_normal(size)
    batch["discount"] = random.choice([0.0, 0.9, 0.729], size)
    batch["action"] = random.uniform(-1, 1, (size, 2))
    return batch


# ---- the derivation


def shifted(images: Tensor, shift: Tensor) -> Tensor:
    """Pad by 4 with the border, then sample bilinearly at the shifted grid, as the original does with grid_sample."""
    count, _, height, _ = images.shape
    padded = functional.pad(images, (PAD,) * 4, mode="replicate")
    eps = 1.0 / (height + 2 * PAD)
    line = torch.linspace(-1.0 + eps, 1.0 - eps, height + 2 * PAD, dtype=images.dtype)[:height]
    grid = torch.stack([line[None, :].repeat(height, 1), line[:, None].repeat(1, height)], dim=2)
    rows, columns = shift[0].to(images.dtype), shift[1].to(images.dtype)
    moved = grid[None] + torch.stack([columns, rows], dim=1)[:, None, None] * (2.0 / (height + 2 * PAD))
    assert moved.shape[0] == count
    return functional.grid_sample(padded, moved, padding_mode="zeros", align_corners=False)


def encoded(w: Weights, images: Tensor) -> Tensor:
    x = images - 0.5
    for index, stride in ((0, 2), (2, 1), (4, 1), (6, 1)):
        x = torch.relu(
            functional.conv2d(x, w[f"encoder.front.{index}.weight"], w[f"encoder.front.{index}.bias"], stride)
        )
    return x.reshape(len(x), -1)


def trunk(w: Weights, name: str, x: Tensor) -> Tensor:
    x = x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"]
    mean = x.mean(dim=1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
    return torch.tanh((x - mean) / torch.sqrt(variance + 1e-5) * w[f"{name}.1.weight"] + w[f"{name}.1.bias"])


def head(w: Weights, name: str, visual: Tensor, state: Tensor, action: Tensor | None = None) -> Tensor:
    x = torch.cat(
        [trunk(w, f"{name}.visual_trunk", visual), trunk(w, f"{name}.state_trunk", state)]
        + ([] if action is None else [action]),
        dim=1,
    )
    for index in (0, 2):
        x = torch.relu(x @ w[f"{name}.mlp.{index}.weight"].T + w[f"{name}.mlp.{index}.bias"])
    return x @ w[f"{name}.head.weight"].T + w[f"{name}.head.bias"]


def explored(mean: Tensor, noise: Tensor) -> Tensor:
    """The action's value; its gradient is the mean's."""
    value = (mean + (STDDEV * noise).clamp(-CLIP, CLIP)).clamp(-1 + 1e-6, 1 - 1e-6)
    return mean + (value - mean).detach()


def adam(w: Weights, loss: Tensor, names: list[str], lr: float, clip: float) -> tuple[Weights, Weights]:
    """The first step of Adam from zero moments, on gradients scaled to a norm of at most ``clip``."""
    gradients = dict(zip(names, torch.autograd.grad(loss, [w[name] for name in names], retain_graph=True), strict=True))
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    scale = min(1.0, clip / (norm + 1e-6))
    new = {}
    for name, gradient in gradients.items():
        g = gradient * scale
        first, second = 0.1 * g / (1 - 0.9), 0.001 * g**2 / (1 - 0.999)
        new[name] = (w[name] - lr * first / (torch.sqrt(second) + 1e-8)).detach()
    return new, {name: (g * scale).detach() for name, g in gradients.items()}


def derived(
    w: Weights, batch: dict[str, Any], clip: float, lr: float, tau: float
) -> tuple[dict[str, float], Weights, Weights]:
    """Losses, gradients and the weights afterwards."""
    w = {name: value.clone().requires_grad_() for name, value in w.items()}
    size = len(batch["reward"])
    random = StepRandom(0)
    random.begin(STEP)
    shifts = [torch.randint(0, 2 * PAD + 1, (2, size), generator=random.generator) for _ in range(2)]
    noises = [torch.randn((size, 2), generator=random.generator, dtype=torch.float64) for _ in range(2)]
    images, after = (torch.from_numpy(batch[key]).float().div(255).double() for key in (IMAGE, f"next.{IMAGE}"))
    state, next_state = (torch.from_numpy(batch[key]).double() for key in (STATE, f"next.{STATE}"))
    action, reward, discount = (torch.from_numpy(batch[key]) for key in ("action", "reward", "discount"))

    visual = encoded(w, shifted(images, shifts[0]))
    next_visual = encoded(w, shifted(after, shifts[1]))
    next_action = explored(torch.tanh(head(w, "actor", next_visual, next_state)), noises[0])
    first, second = (head(w, f"critic_target.qs.{i}", next_visual, next_state, next_action)[:, 0] for i in (0, 1))
    wanted = (reward + discount * torch.minimum(first, second)).detach()
    values = [head(w, f"critic.qs.{i}", visual, state, action)[:, 0] for i in (0, 1)]
    critic_loss = sum(((value - wanted) ** 2).mean() for value in values)
    assert isinstance(critic_loss, Tensor)
    critic_names = [name for name in w if name.startswith("critic.")]
    encoder_names = [name for name in w if name.startswith("encoder.")]
    new, gradients = adam(w, critic_loss, critic_names, lr, clip)
    more, more_gradients = adam(w, critic_loss, encoder_names, lr, clip)

    moved = {**w, **{name: value.requires_grad_() for name, value in new.items()}}
    acted = explored(torch.tanh(head(moved, "actor", visual.detach(), state)), noises[1])
    qs = [head(moved, f"critic.qs.{i}", visual.detach(), state, acted)[:, 0] for i in (0, 1)]
    actor_loss = -torch.minimum(*qs).mean()
    actor_new, actor_gradients = adam(moved, actor_loss, [n for n in w if n.startswith("actor.")], lr, clip)

    after_all = {**w, **new, **more, **actor_new}
    for name in w:
        if name.startswith("critic_target."):
            live = after_all[name.replace("critic_target", "critic")]
            after_all[name] = (1 - tau) * w[name] + tau * live
    losses = {"critic_loss": float(critic_loss.detach()), "actor_loss": float(actor_loss.detach())}
    return losses, {**gradients, **more_gradients, **actor_gradients}, {k: v.detach() for k, v in after_all.items()}


@pytest.mark.parametrize("clip", [40.0, 0.05], ids=["unclipped", "clipped"])
def test_one_update_is_the_papers_to_nine_decimals(clip: float) -> None:
    policy, batch = square_policy(), batch_of(16)
    update = make_update(policy, grad_clip_norm=clip, target_update_weight=0.01, use_augmentation=True)
    losses, gradients, weights = derived(dict(policy.state_dict()), batch, clip, 1e-3, 0.01)
    seen: dict[str, Tensor] = {}
    names = {id(parameter): name for name, parameter in policy.named_parameters()}
    for optimizer in update.optimizers.values():
        optimizer.register_step_pre_hook(
            lambda opt, args, kwargs: seen.update(
                {names[id(p)]: p.grad.clone() for p in opt.param_groups[0]["params"]}  # type: ignore[attr-defined]
            )
        )
    metrics = update.update([batch], env_step=0, learner_step=STEP)
    for name, loss in losses.items():
        assert metrics[name] == pytest.approx(loss, abs=1e-9)
    assert set(seen) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(seen[name], gradient, **CLOSE, msg=lambda m, n=name: f"gradient of {n}: {m}")
    for name, value in policy.state_dict().items():
        torch.testing.assert_close(value, weights[name], **CLOSE, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("part", ["discount", "reward", "action", STATE, f"next.{IMAGE}"])
def test_the_comparison_sees_every_part_of_the_batch(part: str) -> None:
    policy, batch = square_policy(), batch_of(16)
    other = {**batch, part: batch[part][::-1].copy()}
    losses, _, _ = derived(dict(policy.state_dict()), other, 40.0, 1e-3, 0.01)
    metrics = make_update(policy, use_augmentation=True).update([batch], env_step=0, learner_step=STEP)
    assert abs(metrics["critic_loss"] - losses["critic_loss"]) > 1e-6
