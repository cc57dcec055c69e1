"""Every key that is read changes what happens: none is taken and forgotten."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import episodes
from test_run import Recorder

from locations import ROOT
from weightkit.core.version import WeightVersion
from weightkit.errors import WeightkitError
from weightkit.verbs.save_policy import save_policy_directory
from weightkit_runners.checkpoints import going_on
from weightkit_runners.collecting import Collector
from weightkit_runners.config import RunConfig, asked_keys, read_run_config
from weightkit_runners.demonstrations import demonstration_files
from weightkit_runners.environment import make_run_env
from weightkit_runners.exploring import explorer
from weightkit_runners.learner import Learner
from weightkit_runners.pretrained import build_policy, plan_pretrained, prepare_policy
from weightkit_runners.process import limit_threads
from weightkit_runners.replay import make_replay
from weightkit_runners.training import Training

Observe = Callable[[RunConfig], object]
VERSION = WeightVersion("r", 1, 25)


def document(kind: str, folder: Path) -> dict[str, Any]:
    size, stack = (24, 2) if kind == "drqv2" else (64, 1)
    policy: dict[str, Any] = {
        "type": kind,
        "frame_stack": stack,
        "input_features": {"observation.images.front": [3 * stack, size, size], "observation.state": [18 * stack]},
        "output_features": {"action": [4]},
        "online_steps": 4, "online_step_before_learning": 4, "online_buffer_capacity": 400,
        "offline_buffer_capacity": 300, "replay_memory_gb": 0.5, "torch_threads": 1,
        "actor_learner_config": {"policy_parameters_push_frequency": 1000.0, "queue_get_timeout": 0.01},
        "stddev_schedule": "linear(1.0,0.1,50)",
    }  # fmt: skip
    if kind == "drqv2":
        policy |= {"encoder_channels": 4, "mlp_nodes": [16], "bottleneck_size": 8}
    else:
        policy |= {"image_encoder_hidden_dim": 4, "latent_dim": 8, "freeze_vision_encoder": False}
        policy |= {"actor_network_kwargs": {"hidden_dims": [8]}, "critic_network_kwargs": {"hidden_dims": [8]}}
    return {
        "output_dir": str(folder / "run"),
        "batch_size": 4,
        "log_freq": 2,
        "policy": policy,
        "env": {
            "name": "synthetic", "max_episode_steps": 6,
            "features": {"observation.images.front": [3, size, size], "observation.state": [18]},
        },
    }  # fmt: skip


# ---- what there is to see


def digest(policy: Any) -> float:
    return float(sum(value.double().abs().sum() for value in policy.state_dict().values()))


def net(config: RunConfig) -> object:
    """Names and shapes of the net, and what it does with fixed numbers."""
    policy = build_policy(config)
    with torch.no_grad():
        for index, value in enumerate(policy.state_dict().values()):
            value.copy_(0.3 * torch.sin(1.7 * torch.arange(value.numel()) + index).reshape(value.shape))
    random = torch.Generator().manual_seed(0)
    frames = {
        key: torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=random)
        for key, shape in _shapes(config, 4)
    }
    states = {key: torch.randn(2, *shape, generator=random) for key, shape in _shapes(config, 2)}
    seen = {**frames, **states}
    shapes = [(name, tuple(value.shape)) for name, value in policy.state_dict().items()]
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    acted = policy.act(seen)
    more = policy.stds(seen) if hasattr(policy, "stds") else torch.zeros(1)
    values = policy.q_values(seen, acted)
    choices = policy.discrete_q_values(seen) if getattr(policy, "discrete_critic", None) is not None else torch.zeros(1)
    numbers = (*acted.flatten(), *more.flatten(), *values.flatten(), *choices.flatten())
    return shapes, trained, [round(float(x), 6) for x in numbers]


def _shapes(config: RunConfig, axes: int) -> list[tuple[str, tuple[int, ...]]]:
    height, width = config.net.image_height, config.net.image_width
    if axes == 4:
        channels = config.net.frame_stack * config.net.image_channels
        return [(f"observation.images.{camera}", (channels, height, width)) for camera in config.net.cameras]
    return [("observation.state", (config.net.frame_stack * config.net.state_dim,))]


def learned(config: RunConfig) -> float:
    """The weights after some updates on fixed transitions."""
    policy = prepare_policy(config, None)
    with closing(Training(policy, config)) as training:
        for transitions in episodes(config):
            training.add("a", transitions)
        for _ in range(3):
            training.step()
        return digest(policy)


def losses(config: RunConfig) -> object:
    """The same, its last numbers too."""
    policy = prepare_policy(config, None)
    with closing(Training(policy, config)) as training:
        for transitions in episodes(config):
            training.add("a", transitions)
        return [training.step() for _ in range(3)], digest(policy)


def run(config: RunConfig) -> object:
    """How often a whole run publishes, logs, saves and updates."""
    with Learner(config, prepare_policy(config, None), bind="127.0.0.1:0") as learner:
        for transitions in episodes(config):
            learner.training.add("a", transitions)
        learner.run(threading.Event())
        updates = learner.training.learner_step
    folder = config.output_dir
    lines = [len((folder / name).read_text().splitlines()) for name in ("learner_versions.jsonl", "metrics.jsonl")]
    saved = sorted(path.name for path in (folder / "checkpoints").glob("0*"))
    return lines, saved, updates, (folder / "tensorboard").exists()


def waited(config: RunConfig) -> object:
    """How long the learner waits for transitions at a time before there are enough."""
    asked: list[float] = []
    stop = threading.Event()
    with Learner(config, prepare_policy(config, None), bind="127.0.0.1:0") as learner:
        learner.intake.move = lambda training, wait_s: asked.append(wait_s) or stop.set() or 0  # type: ignore[method-assign, func-returns-value]
        learner.run(stop)
    return asked[0]


def ready(config: RunConfig) -> object:
    """Whether so many transitions are enough to learn."""
    with closing(Training(prepare_policy(config, None), config)) as training:
        training.add("a", episodes(config)[0])
        return training.is_ready()


def replayed(config: RunConfig) -> object:
    """What the replay is, how much it holds and how much comes out."""
    with closing(make_replay(config)) as source:
        for transitions in episodes(config):
            source.add("a", transitions)
        batches = source.batches(0)
        sizes = [tuple(value.shape) for batch in batches for value in batch.values()]
        numbers = [float(batch[key].double().sum()) for batch in batches for key in ("reward", "discount", "action")]
        room = getattr(source, "online", None), getattr(source, "offline", None)
        return type(source).__name__, sizes, numbers, [buffer.capacity for buffer in room if buffer is not None]


def acted(config: RunConfig) -> object:
    """An episode with exploration: its actions, its length, the environment and the pace."""
    paces: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            paces.append(round(timeout or 0.0, 1))
            return False

    env, recorder = make_run_env(config), Recorder()
    try:
        explore = explorer(build_policy(config), config)
        collector = Collector(config, env, explore, lambda stop: VERSION, recorder, clock=lambda: 0.0)  # type: ignore[arg-type]
        collector.env_step = 10
        episode = collector.episode(0, config.seed, Stop())
    finally:
        env.close()
    actions = [t["action"].tolist() for _, batch in recorder.sent for t in batch]
    return type(env.robot).__name__, episode.steps, actions, paces[0]


def device(config: RunConfig) -> object:
    return str(next(build_policy(config).parameters()).device)


def threads(config: RunConfig) -> object:
    before = torch.get_num_threads()
    try:
        limit_threads(config.torch_threads)
        return torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def link(config: RunConfig) -> object:
    return config.link.address


def going(config: RunConfig) -> object:
    found = going_on(config, anew=False)
    return None if found is None else found.learner_step


def shown(config: RunConfig) -> object:
    folder = config.replay.demonstrations
    return None if folder is None else demonstration_files(folder)


def saved(change: str) -> Observe:
    """An observer of whether a file that differs from the net in one way is taken."""

    def taken(config: RunConfig) -> object:
        net = replace(config.net, frame_stack=1) if change == "one frame" else config.net
        policy = config.architecture.build(net, with_critic=change != "acting path")
        if change == "extra":
            policy.critic.register_buffer("more", torch.zeros(3))
        path = config.output_dir.parent / "other"
        save_policy_directory(policy, net, path)
        conversion, _ = plan_pretrained(config, path)
        return len(conversion.plan.left_out)

    return taken


EVERYWHERE: dict[str, tuple[Any, Observe]] = {
    "batch_size": (6, replayed),
    "dataset.root": ("nowhere", shown),
    "env.fps": (5.0, acted),
    "env.max_episode_steps": (9, acted),
    "env.name": ("own_robots:Nothing-v0", acted),
    "log_freq": (1, run),
    "save_freq": (2, run),
    "save_checkpoint": (False, run),
    "tensorboard": (True, run),
    "resume": (True, going),
    "seed": (7, losses),
    "policy.actor_learner_config.learner_host": ("::1", link),
    "policy.actor_learner_config.learner_port": (4711, link),
    "policy.actor_learner_config.policy_parameters_push_frequency": (0.0, run),
    "policy.actor_learner_config.queue_get_timeout": (0.5, waited),
    "policy.actor_lr": (0.01, learned),
    "policy.critic_lr": (0.01, learned),
    "policy.critic_target_update_weight": (0.5, learned),
    "policy.grad_clip_norm": (1e-6, learned),
    "policy.use_augmentation": (False, losses),
    "policy.policy_update_freq": (2, learned),
    "policy.utd_ratio": (3, replayed),
    "policy.nstep": (5, replayed),
    "policy.discount": (0.5, replayed),
    "policy.adapt": (["*=inflate:newest"], saved("one frame")),
    "policy.drop": (["critic.more"], saved("extra")),
    "policy.allow_missing": (["critic*"], saved("acting path")),
    "policy.num_critics": (3, net),
    "policy.frame_stack": (None, net),
    "policy.device": ("meta", device),
    "policy.storage_device": ("no such device", replayed),
    "policy.torch_threads": (2, threads),
    "policy.async_prefetch": (True, replayed),
    "policy.concurrency.learner": ("processes", replayed),
    "policy.concurrency.actor": ("processes", acted),
    "policy.online_buffer_capacity": (20, replayed),
    "policy.offline_buffer_capacity": (20, replayed),
    "policy.replay_memory_gb": (0.001, replayed),
    "policy.online_steps": (3, run),
    "policy.online_step_before_learning": (40, ready),
}
DRQV2: dict[str, tuple[Any, Observe]] = {
    "policy.encoder_lr": (0.01, learned),
    "policy.stddev_schedule": ("0.5", acted),
    "policy.stddev_clip": (0.01, learned),
    "policy.stddev_clock": ("learner_step", acted),
    "policy.exploration_start_step": (30, acted),
    "policy.bottleneck_size": (9, net),
    "policy.encoder_channels": (5, net),
    "policy.mlp_nodes": ([17], net),
    "policy.num_atoms": (5, net),
    "policy.num_downsample_convs": (2, net),
    "policy.num_post_downsample_convs": (2, net),
    "policy.shared_critic_trunk": (True, net),
    "policy.fusion": ("sum", net),
    "policy.value_limit": (5.0, net),
    "policy.value_transform": (False, net),
}
SAC: dict[str, tuple[Any, Observe]] = {
    "policy.temperature_init": (0.1, learned),
    "policy.temperature_lr": (0.1, learned),
    "policy.target_entropy": (9.0, learned),
    "policy.num_subsample_critics": (1, losses),
    "policy.use_backup_entropy": (False, losses),
    "policy.actor_network_kwargs.hidden_dims": ([9], net),
    "policy.critic_network_kwargs.hidden_dims": ([9], net),
    "policy.image_embedding_pooling_dim": (5, net),
    "policy.image_encoder_hidden_dim": (5, net),
    "policy.image_normalization": ("imagenet", net),
    "policy.latent_dim": (9, net),
    "policy.freeze_vision_encoder": (True, net),
    "policy.num_discrete_actions": (3, net),
    "policy.policy_kwargs.std_max": (0.01, net),
    "policy.policy_kwargs.std_min": (8.0, net),
    "policy.shared_encoder": (False, net),
    "policy.state_encoder": ("none", net),
    "policy.target_encoder": ("own", net),
    "policy.vision_encoder_name": ("helper2424/resnet10", net),
    "policy.resnet_widths": ([8, 16, 32, 64], net),
    "policy.mlp": ("relu", net),
    "policy.features_dim": (9, net),
    **{
        f"policy.{part}_network_kwargs.{key}": (value, net)
        for part in ("actor", "critic", "discrete_critic")
        for key, value in (("activate_final", False), ("final_activation", "Tanh"))
    },
    "policy.discrete_critic_network_kwargs.hidden_dims": ([9], net),
}
ELSEWHERE: dict[str, str] = {
    "policy.type": "test_the_config_of_lerobot_0_4_4_has_no_unknown_key",
    "output_dir": "test_a_pretrained_path_is_found_in_the_saved_config_of_the_output_folder",
    "policy.actor_learner_config.first_weights_timeout": (
        "test_an_actor_without_a_learner_waits_says_so_and_ends_with_an_error_at_its_deadline"
    ),
}
BESIDE: dict[str, dict[str, Any]] = {
    "policy.value_limit": {"policy.num_atoms": 5},
    "policy.value_transform": {"policy.num_atoms": 5},
    "policy.resnet_widths": {"policy.vision_encoder_name": "helper2424/resnet10"},
    "policy.discrete_critic_network_kwargs.hidden_dims": {"policy.num_discrete_actions": 3},
    "policy.discrete_critic_network_kwargs.activate_final": {"policy.num_discrete_actions": 3},
    "policy.discrete_critic_network_kwargs.final_activation": {"policy.num_discrete_actions": 3},
    "policy.fusion": {"cameras": 2},
    "policy.features_dim": {"policy.vision_encoder": "nature"},
}
"""What a key needs beside it to mean anything."""


def configured(kind: str, folder: Path, settings: dict[str, Any]) -> RunConfig:
    written = document(kind, folder)
    for key, value in settings.items():
        features = written["policy"]["input_features"]
        if key == "policy.frame_stack":
            stack = written["policy"]["frame_stack"] = written["policy"]["frame_stack"] + 1
            features["observation.images.front"][0], features["observation.state"][0] = 3 * stack, 18 * stack
        elif key == "cameras":
            for each in (features, written["env"]["features"]):
                each["observation.images.wrist"] = each["observation.images.front"]
        else:
            place: Any = written
            *parents, last = key.split(".")
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
    path = folder / "train_config.json"
    path.write_text(json.dumps(written))
    return read_run_config(path)


def observed(observe: Observe, kind: str, folder: Path, settings: dict[str, Any]) -> object:
    folder.mkdir()
    try:
        return observe(configured(kind, folder, settings))
    except WeightkitError as error:
        return str(error).replace(str(folder), "")


CASES = [
    *(("drqv2", key, *case) for key, case in {**EVERYWHERE, **DRQV2}.items()),
    *(("sac", key, *case) for key, case in {**EVERYWHERE, **SAC}.items() if case[1] in (net, learned, losses)),
]


@pytest.mark.parametrize(("kind", "key", "value", "observe"), CASES, ids=[f"{kind}-{key}" for kind, key, *_ in CASES])
def test_every_field_changes_what_happens(kind: str, key: str, value: Any, observe: Observe, tmp_path: Path) -> None:
    """The same twice without it, another with it."""
    beside = BESIDE.get(key, {})
    before = observed(observe, kind, tmp_path / "before", beside)
    assert observed(observe, kind, tmp_path / "again", beside) == before
    assert observed(observe, kind, tmp_path / "changed", {**beside, key: value}) != before


@pytest.mark.parametrize(("kind", "own"), [("drqv2", DRQV2), ("sac", SAC)])
def test_no_field_is_left_out_of_these_tests(kind: str, own: dict[str, Any]) -> None:
    read = {".".join(path) for path in asked_keys(kind)}
    assert read - {*EVERYWHERE, *own, *ELSEWHERE} == set()
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in ELSEWHERE.values() if f"def {name}(" not in tests] == []
