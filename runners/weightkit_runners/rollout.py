"""``weightkit-rollout``: a checkpoint run directly, without a learner."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from weightkit.cli import options
from weightkit.cli.main import run_command
from weightkit.cli.output import emit
from weightkit.core.report import Report
from weightkit.errors import UsageError, WriteError
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.environment import make_run_env
from weightkit_runners.episodes import Episode, policy_act, run_episode
from weightkit_runners.process import limit_threads, log, log_findings, start_logging


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path())
@options.config_path
@options.set_values
@options.adapt
@options.drop
@options.allow_missing
@click.option("--episodes", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@click.option("--seed", type=click.IntRange(min=0), help="The first episode's seed instead of the configuration's.")
@click.option("--video", type=click.Path(), metavar="OUT.gif", help="Write what the first camera saw.")
@options.as_json
def command(
    checkpoint: str,
    config_path: str | None,
    set_values: tuple[str, ...],
    adapt: tuple[str, ...],
    drop: tuple[str, ...],
    allow_missing: tuple[str, ...],
    episodes: int,
    seed: int | None,
    video: str | None,
    as_json: bool,
) -> None:
    """Run CHECKPOINT for some episodes, without exploration noise, and say how many succeeded."""
    if config_path is None:
        raise click.UsageError("give --config_path, such as outputs/hilserl_drqv2/train_config.json")
    start_logging()

    def make() -> Report:
        config = read_run_config(config_path, set_values)
        limit_threads(config.torch_threads or 1)
        log_findings(config, "ROLLOUT")
        if video:
            check_video(Path(video))
        first = config.seed if seed is None else seed
        frames: list[NDArray[Any]] = []
        times_ms: list[float] = []
        done = rollout(
            config,
            checkpoint,
            range(first, first + episodes),
            adapt=adapt,
            drop=drop,
            allow_missing=allow_missing,
            frames=frames if video else None,
            times_ms=times_ms,
        )
        if video:
            write_gif(Path(video), frames)
        facts = {"checkpoint": checkpoint, "episodes": [episode.to_dict() for episode in done]}
        return Report("rollout", config.findings, {**facts, "latency_ms": percentiles(times_ms)})

    emit("rollout", as_json, make, _text)


def _text(report: Report) -> str:
    latency: Any = report.facts["latency_ms"]
    said = ", ".join(f"{name} {value:.1f}" for name, value in latency.items())
    return f"{episodes_text(report)}; act() took {said} ms"


def percentiles(times_ms: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile of times in ms; empty where nothing was done."""
    if not times_ms:
        return {}
    found = np.percentile(times_ms, (50, 95, 99))
    return {f"p{q}": round(float(value), 3) for q, value in zip((50, 95, 99), found, strict=True)}


def episodes_text(report: Report) -> str:
    """How many of a Report's episodes succeeded."""
    episodes: Any = report.facts["episodes"]
    return f"{sum(episode['success'] for episode in episodes)} of {len(episodes)} episodes succeeded"


def load_checkpoint(
    config: RunConfig,
    path: str | Path,
    *,
    adapt: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    allow_missing: tuple[str, ...] = (),
) -> Any:
    """The run's policy with the checkpoint's weights, in eval mode. Raises PlanError where there is a gap."""
    from weightkit_runners.pretrained import build_policy, load_logged

    policy = build_policy(config)
    load_logged(policy, config, path, adapt=adapt, drop=drop, allow_missing=allow_missing, only_refusals=True)
    return policy.eval()


def rollout(
    config: RunConfig,
    checkpoint: str | Path,
    seeds: range,
    *,
    adapt: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    allow_missing: tuple[str, ...] = (),
    frames: list[NDArray[Any]] | None = None,
    times_ms: list[float] | None = None,
) -> list[Episode]:
    """One episode per seed with the checkpoint's deterministic actions.

    ``frames`` collects (H, W, 3) images, ``times_ms`` how long each action took.
    """
    policy = load_checkpoint(config, checkpoint, adapt=adapt, drop=drop, allow_missing=allow_missing)
    env = make_run_env(config)
    done, chosen = [], policy_act(policy)

    def act(observation: dict[str, NDArray[Any]]) -> NDArray[Any]:
        started = time.perf_counter()
        action = chosen(observation)
        if times_ms is not None:
            times_ms.append((time.perf_counter() - started) * 1e3)
        return action

    def collect(observation: dict[str, NDArray[Any]]) -> None:
        if frames is not None:
            key = next(key for key in observation if key.startswith("observation.images"))
            frames.append(np.ascontiguousarray(observation[key][0, -3:].transpose(1, 2, 0)))

    try:
        for seed in seeds:
            episode = run_episode(env, act, seed, on_step=collect)
            done.append(episode)
            log.info(
                "[ROLLOUT] episode %d %s after %d steps",
                seed,
                "succeeded" if episode.success else "failed",
                episode.steps,
            )
    finally:
        env.close()
    return done


def check_video(path: Path) -> None:
    """Refuse a video that could not be written, before an episode is run."""
    if path.suffix.lower() != ".gif":
        raise UsageError(f"--video {path}: a .gif is written", hint="name a file that ends in .gif")
    if not path.parent.is_dir():
        raise WriteError(f"--video {path}: there is no folder {path.parent}")
    if find_spec("PIL") is None:
        raise UsageError("--video needs pillow, which is not installed", hint="pip install pillow")


def write_gif(path: Path, frames: list[NDArray[Any]]) -> None:
    """Write frames (H, W, 3) uint8 as an animation, 10 frames a second, enlarged to be seen."""
    from PIL import Image

    scale = max(1, 256 // frames[0].shape[0])
    images = [Image.fromarray(np.repeat(np.repeat(frame, scale, 0), scale, 1)) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0)


def main() -> None:
    """Run ``weightkit-rollout`` and exit."""
    run_command(command, "weightkit-rollout")


if __name__ == "__main__":
    main()
