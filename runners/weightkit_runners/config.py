"""A run's configuration, read from a HIL-SERL style train_config.json."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from weightkit.architectures import architecture_named
from weightkit.architectures.base import Architecture
from weightkit.core.report import Finding
from weightkit.core.section import Section
from weightkit.errors import ConfigError, UsageError, WriteError
from weightkit.verbs.configure import architecture_of_config, read_train_config
from weightkit_runners.config_keys import KNOWN_WITHOUT_EFFECT, key_findings
from weightkit_runners.envs.gymnasium_robot import is_gymnasium_id
from weightkit_runners.schedules import Linear, parse_schedule

TRAINED_HERE = ("drqv2", "sac")
DEFAULT_NSTEP = {"drqv2": 3, "sac": 1}
DEFAULT_TARGET_WEIGHT = {"drqv2": 0.01, "sac": 0.005}
DEFAULT_SCHEDULE = "linear(1.0,0.1,50000)"


@dataclass(frozen=True, slots=True)
class ActorLearnerConfig:
    """Where the learner listens, and how often it sends. Times in seconds."""

    learner_host: str
    learner_port: int
    push_every_s: float
    queue_get_timeout_s: float
    first_weights_timeout_s: float

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"{self.learner_host}:{self.learner_port}"


@dataclass(frozen=True, slots=True)
class Exploration:
    """The scheduled noise: standard deviation over the steps of ``clock``, beginning at ``start_step``."""

    schedule: Linear
    clip: float
    clock: str
    start_step: int

    def stddev(self, *, env_step: int, learner_step: int) -> float:
        """The standard deviation now."""
        step = env_step if self.clock == "env_step" else learner_step
        return self.schedule.at(step + self.start_step)


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """How the learner updates: learning rates, batch, returns, target averaging, updates per step.

    From ``temperature_init`` on it is SAC's alone. ``num_subsample_critics`` None reads all targets; ``target_entropy``
    None is minus half the number of actions.
    """

    batch_size: int
    actor_lr: float
    critic_lr: float
    encoder_lr: float
    nstep: int
    discount: float
    target_update_weight: float
    utd_ratio: int
    policy_update_freq: int
    grad_clip_norm: float
    use_augmentation: bool
    temperature_init: float
    temperature_lr: float
    num_subsample_critics: int | None
    target_entropy: float | None
    use_backup_entropy: bool


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """What the learner keeps of transitions, and how batches come out.

    Capacities count frames; ``memory_gb`` bounds both buffers together, in GiB. ``async_prefetch`` draws batches while
    the step before is computed; ``in_process`` does so in a process of its own.
    """

    online_capacity: int
    offline_capacity: int
    memory_gb: float
    storage_device: str
    async_prefetch: bool
    in_process: bool
    demonstrations: Path | None


@dataclass(frozen=True, slots=True)
class EnvConfig:
    """Which environment, the observation keys it gives for single frames, and the options it is made with.

    ``features_map``: for a gymnasium environment, its observation keys to ours.
    ``fps`` is the pace at which an actor that collects takes steps, per second; 0 is as fast as the environment goes.
    """

    name: str
    features: dict[str, tuple[int, ...]]
    max_episode_steps: int
    fps: float
    features_map: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that learner, actor and rollout read from a train_config.json. ``net`` is the policy's own part.

    ``document`` is that file with overrides applied and defaults filled in, as JSON values.
    """

    path: str
    document: dict[str, Any]
    architecture: Architecture
    net: Any
    env: EnvConfig
    link: ActorLearnerConfig
    exploration: Exploration
    update: UpdateConfig
    replay: ReplayConfig
    env_in_process: bool
    interventions: dict[str, Any]
    device: str
    torch_threads: int
    seed: int
    output_dir: Path
    resume: bool
    tensorboard: bool
    log_freq: int
    save_freq: int
    save_checkpoint: bool
    online_steps: int
    online_step_before_learning: int
    pretrained_path: Path | None
    pretrained_origin: str
    adapt: tuple[str, ...]
    drop: tuple[str, ...]
    allow_missing: tuple[str, ...]
    findings: tuple[Finding, ...]


def read_run_config(path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
    """The run that ``path`` describes, with ``KEY=VALUE`` overrides (dotted keys, JSON values) applied.

    Raises ConfigError with the address of what does not fit, UsageError for an override of an unknown key.
    """
    root = read_train_config(path)
    values = json.loads(json.dumps(root.values))
    overridden = [_override(values, text) for text in overrides]
    root = Section(values, root.origin)
    architecture = architecture_of_config(root)
    config = _parse(root, architecture)
    for address in overridden:
        if address not in root.used and not any(fnmatchcase(address, pattern) for pattern in KNOWN_WITHOUT_EFFECT):
            raise _unknown_override(address, root.used | set(KNOWN_WITHOUT_EFFECT))
    return config


def check_config(path: str | Path) -> tuple[Finding, ...]:
    """Every key of a train_config.json that is unknown or without effect, for any ``policy.type`` that LeRobot has."""
    root = read_train_config(path)
    kind = root.section("policy").text("type")
    if kind in TRAINED_HERE:
        return _parse(root, architecture_named(kind)).findings
    _parse_common(root, kind)
    return key_findings(root)


def asked_keys(kind: str) -> dict[tuple[str, ...], dict[str, object]]:
    """Every key that is read for a kind of policy, by the keys that lead there, and what is expected of it."""
    image, state = {"shape": [3, 84, 84]}, {"shape": [1]}
    features = {"observation.images.front": image, "observation.state": state}
    policy: dict[str, object] = {"type": kind, "num_subsample_critics": 1, "target_entropy": 0.0}
    policy |= {"input_features": features, "output_features": {"action": {"shape": [1]}}}
    root = Section(
        {"policy": policy, "env": {"name": "robot:Id-v0"}, "dataset": {"root": "folder"}}, "train_config.json"
    )
    _parse(root, architecture_named(kind))
    return {path: each for path, each in root.asked.items() if not {"input_features", "output_features"} & set(path)}


def _parse(root: Section, architecture: Architecture) -> RunConfig:
    net = architecture.config_from_train_config(root)
    common = _parse_common(root, architecture.name)
    findings = key_findings(root)
    return RunConfig(
        path=root.origin, document=root.resolved(), architecture=architecture, net=net, findings=findings, **common
    )


def _parse_common(root: Section, kind: str) -> dict[str, Any]:
    """All but the net's own part; some defaults are those of the kind of policy."""
    policy = root.section("policy")
    output_dir = Path(root.text("output_dir", "outputs/train"))
    pretrained, origin = _pretrained(root, output_dir)
    critic_lr = policy.number("critic_lr", 3e-4, minimum=0.0)
    link = policy.section("actor_learner_config")
    return {
        "env": _env(root),
        "link": ActorLearnerConfig(
            learner_host=link.text("learner_host", "127.0.0.1"),
            learner_port=_port(link),
            push_every_s=link.number("policy_parameters_push_frequency", 4.0, minimum=0.0),
            queue_get_timeout_s=link.number("queue_get_timeout", 2.0, minimum=0.0),
            first_weights_timeout_s=link.number("first_weights_timeout", 120.0, minimum=0.0),
        ),
        "exploration": _exploration(policy if kind != "sac" else Section({}, policy.origin)),
        "update": UpdateConfig(
            batch_size=root.integer("batch_size", 256, minimum=1, maximum=65536),
            actor_lr=policy.number("actor_lr", 3e-4, minimum=0.0),
            critic_lr=critic_lr,
            encoder_lr=critic_lr if kind == "sac" else policy.number("encoder_lr", critic_lr, minimum=0.0),
            nstep=policy.integer("nstep", DEFAULT_NSTEP.get(kind, 1), minimum=1, maximum=1024),
            discount=policy.number("discount", 0.99, minimum=0.0, maximum=1.0),
            target_update_weight=policy.number(
                "critic_target_update_weight", DEFAULT_TARGET_WEIGHT.get(kind, 0.005), minimum=0.0, maximum=1.0
            ),
            utd_ratio=policy.integer("utd_ratio", 1, minimum=1, maximum=1024),
            policy_update_freq=policy.integer("policy_update_freq", 1, minimum=1),
            grad_clip_norm=policy.number("grad_clip_norm", 40.0, minimum=0.0),
            use_augmentation=policy.flag("use_augmentation", True),
            **_sac(policy, kind),
        ),
        "replay": ReplayConfig(
            online_capacity=policy.integer("online_buffer_capacity", 100_000, minimum=2),
            offline_capacity=policy.integer("offline_buffer_capacity", 50_000, minimum=2),
            memory_gb=policy.number("replay_memory_gb", 8.0, minimum=0.001),
            storage_device=policy.text("storage_device", "cpu"),
            async_prefetch=policy.flag("async_prefetch", False),
            in_process=_concurrency(policy, "learner"),
            demonstrations=_demonstrations(root),
        ),
        "env_in_process": _concurrency(policy, "actor"),
        "interventions": _options(root.section("env").section("teleop"), "options"),
        "device": policy.text("device", "cpu"),
        "torch_threads": policy.integer("torch_threads", 0, maximum=1024),
        "seed": root.integer("seed", 1000),
        "output_dir": output_dir,
        "resume": root.flag("resume", False),
        "tensorboard": root.flag("tensorboard", False),
        "log_freq": root.integer("log_freq", 100, minimum=1),
        "save_freq": root.integer("save_freq", 500, minimum=1),
        "save_checkpoint": root.flag("save_checkpoint", True),
        "online_steps": policy.integer("online_steps", 1_000_000),
        "online_step_before_learning": policy.integer("online_step_before_learning", 100, minimum=1),
        "pretrained_path": pretrained,
        "pretrained_origin": origin,
        "adapt": policy.texts("adapt", ()),
        "drop": policy.texts("drop", ()),
        "allow_missing": policy.texts("allow_missing", ()),
    }


def _pretrained(root: Section, output_dir: Path) -> tuple[Path | None, str]:
    """The path of pretrained weights and where it was found; ``<output_dir>/train_config.json`` is asked last."""
    policy = root.section("policy")
    if "pretrained_path" in policy:
        return Path(policy.text("pretrained_path")), policy.where("pretrained_path")
    policy.raw("pretrained_path")
    saved = output_dir / "train_config.json"
    try:
        there = saved.is_file()
    except OSError as error:
        raise ConfigError(f"{root.where('output_dir')}: {error.strerror}") from None
    if not there or saved.resolve() == Path(root.origin).resolve():
        return None, ""
    other = read_train_config(saved).section("policy")
    if "pretrained_path" not in other:
        return None, ""
    return Path(other.text("pretrained_path")), other.where("pretrained_path")


def _env(root: Section) -> EnvConfig:
    env = root.section("env")
    features: dict[str, tuple[int, ...]] = {}
    given = env.section("features")
    for key in given.values:
        if not key.startswith("observation."):
            given.raw(key)
            continue
        raw = given.raw(key)
        features[key] = given.sizes(key) if isinstance(raw, list) else given.section(key).sizes("shape")
    options = _options(env, "options")
    name = env.text("name", "arm")
    return EnvConfig(
        name=name,
        features=features,
        max_episode_steps=env.integer("max_episode_steps", 40, minimum=1),
        fps=env.number("fps", 0.0, minimum=0.0),
        features_map=_features_map(env) if is_gymnasium_id(name) else {},
        options=options,
    )


def _options(section: Section, key: str) -> dict[str, Any]:
    """An object that is handed on as it is."""
    found = section.raw(key) or {}
    if not isinstance(found, dict):
        raise section.wrong(key, "an object", found)
    return found


def _features_map(env: Section) -> dict[str, str]:
    """A gymnasium environment's observation keys to ours; its ``action`` is no observation."""
    section = env.section("features_map")
    return {key: section.text(key) for key in section.values if key != "action"}


def _exploration(policy: Section) -> Exploration:
    """The scheduled noise; SAC explores by its own spread."""
    return Exploration(
        schedule=_schedule(policy),
        clip=policy.number("stddev_clip", 0.3, minimum=0.0),
        clock=policy.text("stddev_clock", "env_step", choices=("env_step", "learner_step")),
        start_step=policy.integer("exploration_start_step", 0),
    )


def _sac(policy: Section, kind: str) -> dict[str, Any]:
    """SAC's own settings; for another kind of policy they are keys that change nothing."""
    section = policy if kind == "sac" else Section({}, policy.origin)
    num_critics = section.integer("num_critics", 2, minimum=1)
    is_subsampled = section.raw("num_subsample_critics") is not None
    has_target = section.raw("target_entropy") is not None
    return {
        "temperature_init": section.number("temperature_init", 1.0, minimum=1e-12),
        "temperature_lr": section.number("temperature_lr", 3e-4, minimum=0.0),
        "num_subsample_critics": section.integer("num_subsample_critics", minimum=1, maximum=num_critics)
        if is_subsampled
        else None,
        "target_entropy": section.number("target_entropy") if has_target else None,
        "use_backup_entropy": section.flag("use_backup_entropy", True),
    }


def _concurrency(policy: Section, side: str) -> bool:
    """Whether a side uses processes instead of threads."""
    return policy.section("concurrency").text(side, "threads", choices=("threads", "processes")) == "processes"


def _demonstrations(root: Section) -> Path | None:
    """The folder of demonstrations for the offline buffer, where one is named."""
    dataset = root.section("dataset")
    return Path(dataset.text("root")) if dataset.raw("root") is not None else None


def prepare_output(config: RunConfig) -> None:
    """Make the output folder. Raises WriteError where it takes no files, before anything listens or moves."""
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.output_dir):
            pass
    except OSError as error:
        raise WriteError(
            f"{config.output_dir}: nothing can be written there: {error.strerror}", hint="choose another output_dir"
        ) from None


def _port(link: Section) -> int:
    port = link.integer("learner_port", 50051)
    if port > 65535:
        raise link.wrong("learner_port", "a port, 0 to 65535", port)
    return port


def _schedule(policy: Section) -> Linear:
    raw = policy.raw("stddev_schedule")
    is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    text = str(policy.number("stddev_schedule")) if is_number else policy.text("stddev_schedule", DEFAULT_SCHEDULE)
    try:
        return parse_schedule(text)
    except ValueError as error:
        raise ConfigError(f"{policy.where('stddev_schedule')}: {error}") from None


def _override(values: dict[str, Any], text: str) -> str:
    """Apply one ``KEY=VALUE`` to ``values``; gives the address. Raises UsageError for a text without ``=``.

    Keys that hold dots themselves (``observation.images``) are found where they are: the longest one that fits wins.
    """
    key, sign, raw = text.partition("=")
    if not sign or not key:
        raise UsageError(f"--set {text!r}: expected KEY=VALUE", hint="for example --set policy.utd_ratio=2")
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        value = raw
    place, rest = values, key
    while True:
        known = [k for k, below in place.items() if rest.startswith(f"{k}.") and isinstance(below, dict)]
        if not known:
            break
        step = max(known, key=len)
        place, rest = place[step], rest.removeprefix(f"{step}.")
    if rest not in place:
        *parents, rest = rest.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"--set {text!r}: {parent!r} is {place!r}, not an object")
    place[rest] = value
    return "$." + key


def _unknown_override(address: str, known: Iterable[str]) -> UsageError:
    from difflib import get_close_matches

    key = address.removeprefix("$.")
    names = [k.removeprefix("$.") for k in known]
    by_last = [name for name in names if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    close = by_last or get_close_matches(key, names, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else "keys are dotted paths into the train_config.json"
    return UsageError(f"--set {key}: unknown key", hint=hint)
