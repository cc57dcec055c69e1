"""One batch through LeRobot's own SAC losses and through ours, with the same weights, noise and subset of critics.

Usage: lerobot_sac_losses.py VARIANT. Prints JSON: loss -> {"theirs", "ours", and the norms of both gradients}.
"""

import json
import sys
import tempfile

import lerobot_imports  # noqa: F401
import lerobot_sac_sync
import torch
from torch.distributions import multivariate_normal

import weightkit as wk
from weightkit_runners.config import Exploration, UpdateConfig
from weightkit_runners.schedules import Linear
from weightkit_runners.updates.sac import SACUpdate, View

BATCH, GAMMA = 16, 0.97
CHANGES = {
    "shared": {},
    "separate": {"shared_encoder": False},
    "discrete": {"num_discrete_actions": 3},
    "no_backup_entropy": {"use_backup_entropy": False},
    "ensemble": {"num_critics": 4, "num_subsample_critics": 2},
    "trained_encoder": {"freeze_vision_encoder": False},
}


def main(variant):
    theirs, _, _ = lerobot_sac_sync.made(3, discount=GAMMA, temperature_init=0.7, **CHANGES[variant])
    with torch.no_grad():
        for index, parameter in enumerate(theirs.parameters()):  # targets and norms too must matter
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = wk.load_policy(folder)
    for parameter in [*ours.actor.parameters(), *ours.critic.parameters()]:
        parameter.requires_grad_(True)
    update = SACUpdate(ours, settings(variant), Exploration(Linear(0, 0, 0), 0.3, "env_step", 0), seed=0)
    update.dropout = False  # LeRobot's is in eval mode here

    random = torch.Generator().manual_seed(5)
    seen, after = (observation(theirs, random) for _ in range(2))
    size = 2 + bool(theirs.config.num_discrete_actions)
    action = torch.rand(BATCH, size, generator=random) * 2 - 1
    if size == 3:
        action[:, 2] = torch.randint(0, 3, (BATCH,), generator=random)
    reward = torch.randn(BATCH, generator=random)
    done = (torch.rand(BATCH, generator=random) < 0.3).float()
    batch = {"action": action, "reward": reward, "state": seen, "next_state": after, "done": done}
    noise = torch.randn(BATCH, 2, generator=random)
    subset = torch.randperm(theirs.config.num_critics, generator=random)
    multivariate_normal._standard_normal = lambda shape, dtype, device: noise
    torch.randperm = lambda count, **kwargs: subset
    update.random.normal = lambda like: noise
    here, there = (View(ours.see(each)) for each in (seen, after))
    discount = GAMMA * (1 - done)
    parts = {
        "critic": (
            lambda: update.critic_loss(here, action, reward, discount, there),
            ours.critic,
            theirs.critic_ensemble.critics,
        ),
        "actor": (lambda: update.actor_loss(here), ours.actor, theirs.actor),
        "temperature": (lambda: update.temperature_loss(here), [ours.log_alpha], [theirs.log_alpha]),
    }
    if size == 3:
        parts["discrete_critic"] = (
            lambda: update.discrete_critic_loss(here, action, reward, discount, there),
            ours.discrete_critic,
            theirs.discrete_critic,
        )
    found = {}
    for name, (loss, our_part, their_part) in parts.items():
        their_loss = theirs.forward(batch, model=name)[f"loss_{name}"]
        our_loss = loss()
        found[name] = {
            "theirs": float(their_loss.detach()),
            "ours": float(our_loss.detach()),
            "their_gradient": norm(their_loss, their_part, skip="encoder"),
            "our_gradient": norm(our_loss, our_part),
        }
    sys.stdout.write(json.dumps(found) + "\n")


def settings(variant):
    changed = CHANGES[variant]
    return UpdateConfig(
        batch_size=BATCH, actor_lr=0.0, critic_lr=0.0, encoder_lr=0.0, nstep=1, discount=GAMMA,
        target_update_weight=0.0, utd_ratio=1, policy_update_freq=1, grad_clip_norm=0.0, use_augmentation=False,
        temperature_init=0.7, temperature_lr=0.0, num_subsample_critics=changed.get("num_subsample_critics"),
        target_entropy=None, use_backup_entropy=changed.get("use_backup_entropy", True),
    )  # fmt: skip


def observation(policy, random):
    features = policy.config.input_features
    return {key: torch.rand(BATCH, *feature.shape, generator=random) for key, feature in features.items()}


def norm(loss, part, skip=""):
    """The norm of a loss's gradient on the parameters of a part, a shared encoder's left out."""
    named = part.named_parameters() if hasattr(part, "named_parameters") else ((str(i), p) for i, p in enumerate(part))
    chosen = [p for name, p in named if p.requires_grad and not (skip and name.startswith(skip))]
    gradients = torch.autograd.grad(loss, chosen, retain_graph=True, allow_unused=True)
    return float(sum((g.double() ** 2).sum() for g in gradients if g is not None) ** 0.5)


if __name__ == "__main__":
    main(sys.argv[1])
