"""How fast the learner learns and the replay is, against plain ways to do the same, in the same run.

    python benchmarks/learning.py            about ten minutes; writes benchmarks/results/learning.json
    python benchmarks/learning.py --quick    one minute, prints only

``update``: one DrQ-v2 update with the policy of devlog 041 (84x84, stack of 3, 10.3 M parameters) on one batch, by
`DrQV2Update` and by a straight transcription of the original's loop: the same nets, shift by ``grid_sample`` on float
images, ``torch.optim.Adam`` as it comes, targets one parameter after another. ``replay``: transitions a second into the
buffer, batches a second out of it, and bytes a transition, against a ring that stores both stacks of every transition.
``acting``: steps a second of an actor in the synthetic environment whose learner publishes at 5 Hz, against the same
policy in the same environment without any learner. Peers take turns; figures are medians over rounds; freed memory is
kept by the process, as in a learner, for all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import weightkit as wk
from weightkit.architectures import architecture_named
from weightkit.architectures.probes import probes
from weightkit.transports._malloc import keep_freed_memory
from weightkit_runners.config import Exploration, UpdateConfig
from weightkit_runners.envs import make_env
from weightkit_runners.frame_stack import FrameStackBuffer
from weightkit_runners.replay.buffer import ReplayBuffer
from weightkit_runners.schedules import Linear
from weightkit_runners.transitions import TransitionSpec, make_transition
from weightkit_runners.updates.drqv2 import DrQV2Update

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "learning.json"
IMAGE, STATE = "observation.images.front", "observation.state"
STACK, SIZE, STATE_DIM, ACTIONS = 3, 84, 18, 4
STDDEV, CLIP, TAU, LR = 0.1, 0.3, 0.01, 1e-4


def policy() -> Any:
    architecture = architecture_named("drqv2")
    torch.manual_seed(0)
    return architecture.build(architecture.default_config())


def batch_of(net: Any, size: int) -> dict[str, torch.Tensor]:
    (camera,) = net.cameras
    random = torch.Generator().manual_seed(0)

    def seen(prefix: str) -> dict[str, torch.Tensor]:
        return {
            f"{prefix}observation.images.{camera}": torch.randint(
                0, 256, (size, *net.image_shape), dtype=torch.uint8, generator=random
            ),
            f"{prefix}{STATE}": torch.randn(size, net.state_dim, generator=random),
        }

    return {
        **seen(""),
        **seen("next."),
        "action": torch.rand(size, net.action_dim, generator=random) * 2 - 1,
        "reward": torch.randn(size, generator=random),
        "discount": torch.full((size,), 0.97),
    }


class Transcription:
    """The original's loop, line by line, on our nets."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.encoder_opt = torch.optim.Adam(net.encoder.parameters(), lr=LR)
        self.actor_opt = torch.optim.Adam(net.actor.parameters(), lr=LR)
        self.critic_opt = torch.optim.Adam(net.critic.parameters(), lr=LR)

    def update(self, batch: dict[str, torch.Tensor]) -> None:
        net, camera = self.net, self.net.cameras[0]
        obs = shifted(batch[f"observation.images.{camera}"].float())
        next_obs = shifted(batch[f"next.observation.images.{camera}"].float())
        state, next_state = batch[STATE], batch[f"next.{STATE}"]
        features = net.encoder({camera: obs / 255.0})
        with torch.no_grad():
            next_features = net.encoder({camera: next_obs / 255.0})
            next_action = sampled(torch.tanh(net.actor(next_features, next_state)))
            target = net.critic_target(next_features, next_state, next_action)
            wanted = batch["reward"] + batch["discount"] * torch.min(target[0], target[1])
        first, second = net.critic(features, state, batch["action"])
        loss = nn.functional.mse_loss(first, wanted) + nn.functional.mse_loss(second, wanted)
        loss.item()
        self.encoder_opt.zero_grad(set_to_none=True)
        self.critic_opt.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_opt.step()
        self.encoder_opt.step()
        action = sampled(torch.tanh(net.actor(features.detach(), state)))
        values = net.critic(features.detach(), state, action)
        actor_loss = -torch.min(values[0], values[1]).mean()
        self.actor_opt.zero_grad(set_to_none=True)
        actor_loss.backward()
        self.actor_opt.step()
        actor_loss.item()
        for parameter, target_parameter in zip(net.critic.parameters(), net.critic_target.parameters(), strict=True):
            target_parameter.data.copy_(TAU * parameter.data + (1 - TAU) * target_parameter.data)


def shifted(images: torch.Tensor, pad: int = 4) -> torch.Tensor:
    count, _, height, _ = images.shape
    padded = nn.functional.pad(images, (pad,) * 4, "replicate")
    eps = 1.0 / (height + 2 * pad)
    line = torch.linspace(-1.0 + eps, 1.0 - eps, height + 2 * pad)[:height]
    line = line.unsqueeze(0).repeat(height, 1).unsqueeze(2)
    grid = torch.cat([line, line.transpose(1, 0)], dim=2).unsqueeze(0).repeat(count, 1, 1, 1)
    shift = torch.randint(0, 2 * pad + 1, size=(count, 1, 1, 2)).float() * 2.0 / (height + 2 * pad)
    return nn.functional.grid_sample(padded, grid + shift, padding_mode="zeros", align_corners=False)


def sampled(mean: torch.Tensor) -> torch.Tensor:
    noise = (torch.randn_like(mean) * STDDEV).clamp(-CLIP, CLIP)
    moved = mean + noise
    return moved - moved.detach() + moved.clamp(-1 + 1e-6, 1 - 1e-6).detach()


def rule(net: Any, size: int) -> DrQV2Update:
    config = UpdateConfig(
        batch_size=size, actor_lr=LR, critic_lr=LR, encoder_lr=LR, nstep=3, discount=0.99, target_update_weight=TAU,
        utd_ratio=1, policy_update_freq=1, grad_clip_norm=0.0, use_augmentation=True, temperature_init=1.0,
        temperature_lr=0.0, num_subsample_critics=None, target_entropy=None, use_backup_entropy=True,
    )  # fmt: skip
    return DrQV2Update(net, config, Exploration(Linear(STDDEV, STDDEV, 0.0), CLIP, "env_step", 0), seed=0)


def timed(functions: dict[str, Callable[[], object]], rounds: int, least_s: float) -> dict[str, float]:
    """Seconds a call of each, the median over rounds in which they take turns."""
    for function in functions.values():
        function()
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            calls, started = 0, time.perf_counter()
            while time.perf_counter() - started < least_s:
                function()
                calls += 1
            found[name].append((time.perf_counter() - started) / calls)
    return {name: statistics.median(times) for name, times in found.items()}


def update(rounds: int, least_s: float) -> dict[str, Any]:
    rows = []
    for size in (64, 256):
        ours, theirs = policy(), policy()
        batch = batch_of(ours, size)
        one, other = rule(ours, size), Transcription(theirs)
        took = timed(
            {
                "weightkit": lambda one=one, batch=batch: one.update([batch], env_step=0, learner_step=0),
                "transcription": lambda other=other, batch=batch: other.update(batch),
            },
            rounds,
            least_s,
        )
        rows.append({"batch": size, **{f"{k}_ms": round(1e3 * v, 1) for k, v in took.items()},
                     "times_faster": round(took["transcription"] / took["weightkit"], 3)})  # fmt: skip
        print(rows[-1], flush=True)
    return {"rows": rows}


class NaiveRing:
    """Both stacks of every transition, side by side."""

    def __init__(self, capacity: int) -> None:
        shape = (STACK * 3, SIZE, SIZE)
        self.columns = {
            "now": np.empty((capacity, *shape), np.uint8), "then": np.empty((capacity, *shape), np.uint8),
            "state": np.empty((capacity, STACK * STATE_DIM), np.float32),
            "then_state": np.empty((capacity, STACK * STATE_DIM), np.float32),
            "action": np.empty((capacity, ACTIONS), np.float32), "reward": np.empty(capacity, np.float32),
        }  # fmt: skip
        self.capacity, self.at, self.size = capacity, 0, 0

    def add(self, **values: Any) -> None:
        for key, value in values.items():
            self.columns[key][self.at] = value
        self.at = (self.at + 1) % self.capacity
        self.size = min(self.size + 1, self.capacity)

    def sample(self, count: int, random: np.random.Generator) -> dict[str, torch.Tensor]:
        rows = random.integers(0, self.size, count)
        return {key: torch.from_numpy(column[rows]) for key, column in self.columns.items()}

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())


def replay(rounds: int, least_s: float, capacity: int = 4000, length: int = 40) -> dict[str, Any]:
    frame = {IMAGE: (np.dtype(np.uint8), (3, SIZE, SIZE)), STATE: (np.dtype(np.float32), (STATE_DIM,))}
    ours = ReplayBuffer(TransitionSpec(frame, ACTIONS, STACK), capacity, nstep=3)
    naive = NaiveRing(capacity)
    random = np.random.default_rng(0)
    frames = [
        {IMAGE: random.integers(0, 256, (3, SIZE, SIZE)).astype(np.uint8), STATE: np.zeros(STATE_DIM, np.float32)}
        for _ in range(length + 1)
    ]
    action = np.zeros(ACTIONS, np.float32)
    episode = [
        make_transition(frames[t], action, 0.0, frames[t + 1], episode=0, step=t, terminated=t == length - 1)
        for t in range(length)
    ]
    stack = FrameStackBuffer(STACK, [IMAGE], STATE)
    stacked = [stack.reset(frames[0]), *(stack.update(frame) for frame in frames[1:])]

    def add_naive() -> None:
        for t in range(length):
            naive.add(
                now=stacked[t][IMAGE], then=stacked[t + 1][IMAGE], state=stacked[t][STATE],
                then_state=stacked[t + 1][STATE], action=action, reward=0.0,
            )  # fmt: skip

    while ours.added < capacity:
        ours.add("a", episode)
        add_naive()
    added = timed({"weightkit": lambda: ours.add("a", episode), "stacked": add_naive}, rounds, least_s)
    drawn = timed(
        {"weightkit": lambda: ours.sample(256, random), "stacked": lambda: naive.sample(256, random)}, rounds, least_s
    )
    found = {
        "transitions_added_per_s": {name: round(length / took) for name, took in added.items()},
        "batches_of_256_per_s": {name: round(1 / took, 1) for name, took in drawn.items()},
        "bytes_a_transition": {
            "weightkit": round(ours.nbytes / capacity * (length + 1) / length), "stacked": naive.nbytes // capacity,
        },
    }  # fmt: skip
    print(found, flush=True)
    return found


def acting(rounds: int, least_s: float) -> dict[str, Any]:
    """An actor's turn: poll, act, step; the learner is a process of its own."""
    from multiprocessing import get_context

    context = get_context("spawn")
    ours, theirs = context.Pipe()
    learner = context.Process(target=publishing, args=(theirs,), daemon=True)
    learner.start()
    address = ours.recv()
    net, alone = policy().eval(), policy().eval()
    seen = probes(architecture_named("drqv2").inputs(net.config))
    env = make_env("synthetic", cameras=("front",), image_size=(SIZE, SIZE), max_episode_steps=10**9)
    env.reset(0)
    action = np.zeros(ACTIONS, np.float32)
    with wk.Subscriber(net, address, act=lambda p, o: p.act(o), probes=seen, actor_id="a") as subscriber:
        subscriber.wait_for_first(60)

        def turn(acts: Any, polls: bool) -> None:
            if polls:
                subscriber.poll()
            acts.act(seen[0])
            env.step(action)

        took = timed({"sync on": lambda: turn(net, True), "sync off": lambda: turn(alone, False)}, rounds, least_s)
        ours.send("pause")
        ours.recv()
        quiet = timed({"sync on": lambda: turn(net, True), "sync off": lambda: turn(alone, False)}, rounds, least_s)
    ours.send("end")
    learner.join()
    env.close()
    found = {
        "steps_per_s": {name: round(1 / each, 1) for name, each in quiet.items()},
        "on / off": round(quiet["sync off"] / quiet["sync on"], 4),
        "steps_per_s_at_5_versions_a_s": {name: round(1 / each, 1) for name, each in took.items()},
        "on / off at 5 versions a s": round(took["sync off"] / took["sync on"], 4),
    }
    print(found, flush=True)
    return found


def publishing(pipe: Any) -> None:
    torch.set_num_threads(1)
    net = policy().eval()
    seen = probes(architecture_named("drqv2").inputs(net.config))
    groups = {"encoder": "send", "actor": "send", "critic": ("hold", "unread"), "critic_target": ("hold", "unread")}
    with wk.Publisher(net, wk.make_manifest(net, groups), act=lambda p, o: p.act(o), probes=seen) as publisher:
        pipe.send(publisher.address)
        while not pipe.poll(0.2):
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.add_(1e-4)
            publisher.publish()
        pipe.send(pipe.recv())
        pipe.recv()


def main() -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="How fast the learner learns and the replay is.")
    parser.add_argument("--quick", action="store_true", help="little of everything; prints only")
    parser.add_argument("--only", nargs="+", choices=("update", "replay", "acting"), help="these; the others stay")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch's threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rounds, least_s = (2, 1.0) if options.quick else (5, 10.0)
    result: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    result |= {"benchmark": "learning", "how": __doc__}
    for name, section in (("update", update), ("replay", replay), ("acting", acting)):
        if options.only and name not in options.only:
            continue
        if name == "acting":
            torch.set_num_threads(1)
        stamp = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        machine = {
            "cores": len(os.sched_getaffinity(0)),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        result[name] = {"measured": stamp, "machine": machine, "rounds": rounds, **section(rounds, least_s)}
    if not options.quick:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
