"""``weightkit-record``: episodes of a person, of the demo arm's expert or of a checkpoint, to learn from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from weightkit.cli import options
from weightkit.cli.main import run_command
from weightkit.cli.output import emit
from weightkit.core.report import Report
from weightkit.core.version import WeightVersion
from weightkit.errors import UsageError, WriteError
from weightkit_runners.collecting import Collector
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.demonstrations import (
    Demonstration,
    demonstration_files,
    read_demonstration,
    write_demonstration,
)
from weightkit_runners.environment import RunEnv, make_run_env
from weightkit_runners.interventions import InterventionSource, make_source
from weightkit_runners.process import limit_threads, log, log_findings, start_logging, stop_on_sigterm
from weightkit_runners.transitions import TERMINATED, TRUNCATED, transition_spec

Plan = Callable[[dict[str, NDArray[Any]]], NDArray[np.float32]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@options.config_path
@options.set_values
@click.option("--by", metavar="NAME", help="keyboard, gamepad, expert or package.module:factory: who acts.")
@click.option("--policy", "checkpoint", type=click.Path(), metavar="CHECKPOINT", help="What acts where nobody does.")
@click.option("--episodes", type=click.IntRange(min=1), default=10, show_default=True, metavar="N")
@click.option("--seed", type=click.IntRange(min=0), help="The first episode's seed instead of the configuration's.")
@click.option("--keep", type=click.Choice(["all", "successes"]), default="successes", show_default=True)
@click.option("--out", "-o", type=click.Path(), metavar="DIR", help="Add the recordings to this folder.")
@click.option("--replay", type=click.Path(), metavar="DIR", help="Do what was recorded there again, and compare.")
@options.as_json
def command(
    config_path: str | None,
    set_values: tuple[str, ...],
    by: str | None,
    checkpoint: str | None,
    episodes: int,
    seed: int | None,
    keep: str,
    out: str | None,
    replay: str | None,
    as_json: bool,
) -> None:
    """Record episodes into a folder, for a learner's dataset.root; or replay those of a folder."""
    if config_path is None:
        raise click.UsageError("give --config_path, such as outputs/hilserl_drqv2/train_config.json")
    if replay is None and (out is None or (by is None and checkpoint is None)):
        raise click.UsageError("give -o DIR and who acts: --by expert, --by keyboard, or --policy CHECKPOINT")
    if replay is not None and (out or by or checkpoint):
        raise click.UsageError("--replay only does again what was recorded: leave -o, --by and --policy out")
    start_logging()
    stop = stop_on_sigterm()

    def make() -> Report:
        config = read_run_config(config_path, set_values)
        limit_threads(config.torch_threads or 1)
        log_findings(config, "RECORD")
        with closing(make_run_env(config)) as env:
            if replay is not None:
                facts: dict[str, Any] = {"folder": replay, "replayed": replayed(env, Path(replay), stop)}
                return Report("record", config.findings, facts)
            assert out is not None
            plan = _planned(config, checkpoint)
            first = config.seed if seed is None else seed
            source = make_source(by, env.action_dim, **_options(by, config)) if by is not None else None
            try:
                done = recorded(
                    config,
                    env,
                    plan,
                    source,
                    range(first, first + episodes),
                    _folder(out),
                    stop,
                    all_of_them=keep == "all",
                )
            finally:
                if source is not None:
                    source.close()
        return Report("record", config.findings, {"folder": out, "recorded": done})

    emit("record", as_json, make, _text)


class _Kept:
    """Takes what a collector sends."""

    def __init__(self) -> None:
        self.transitions: list[dict[str, NDArray[Any]]] = []

    def send(self, transitions: list[dict[str, NDArray[Any]]], version: WeightVersion) -> None:
        """Keep them, in their order."""
        self.transitions += transitions


def _any_version(stop: threading.Event) -> WeightVersion | None:
    """No learner's weights are acted with here."""
    return None if stop.is_set() else WeightVersion("", 0, 0)


def recorded(
    config: RunConfig,
    env: RunEnv,
    plan: Plan,
    source: InterventionSource | None,
    seeds: range,
    folder: Path,
    stop: threading.Event,
    *,
    all_of_them: bool,
) -> list[dict[str, Any]]:
    """One episode per seed, written where it succeeded; an episode that ``stop`` cuts short is not written."""
    done: list[dict[str, Any]] = []
    for number, seed in enumerate(seeds):
        kept_steps = _Kept()
        collector = Collector(config, env, lambda seen, *_: plan(seen), _any_version, kept_steps, source=source)
        collector.episode(number, seed, stop)
        transitions = kept_steps.transitions
        if not transitions or not (transitions[-1][TERMINATED] or transitions[-1][TRUNCATED]):
            break
        demonstration = Demonstration.of(transitions, seed=seed)
        kept = all_of_them or demonstration.success
        path = write_demonstration(folder, demonstration) if kept else None
        word = "succeeded" if demonstration.success else "failed"
        log.info("[RECORD] episode %d %s after %d steps: %s", seed, word, len(transitions), path or "not kept")
        done.append(
            {"seed": seed, "success": demonstration.success, "steps": len(transitions), "path": str(path or "")}
        )
    return done


def replayed(env: RunEnv, folder: Path, stop: threading.Event) -> list[dict[str, Any]]:
    """Every recording's actions once more, from its seed: how it ends, and how far its states are from the recorded."""
    done: list[dict[str, Any]] = []
    for path in demonstration_files(folder):
        recording = read_demonstration(path)
        env.reset(recording.seed)
        apart = _apart(env, recording, 0)
        success = False
        for step in range(len(recording)):
            if stop.is_set():
                return done
            _, _, terminated, truncated, info = env.step(recording.actions[step])
            success = bool(info.get("success", False))
            apart = max(apart, _apart(env, recording, step + 1))
            if terminated or truncated:
                break
        log.info("[RECORD] %s: %s, recorded %s; frames differ by %.3g at most",
                 path.name, _word(success), _word(recording.success), apart)  # fmt: skip
        done.append({"path": str(path), "success": success, "recorded": recording.success, "apart": apart})
    return done


def _planned(config: RunConfig, checkpoint: str | None) -> Plan:
    """What is done where nobody says otherwise: the checkpoint's actions, or nothing."""
    if checkpoint is None:
        still = np.zeros(transition_spec(config).action_dim, np.float32)
        return lambda observation: still
    from weightkit_runners.episodes import policy_act
    from weightkit_runners.rollout import load_checkpoint

    return policy_act(load_checkpoint(config, checkpoint))


def _options(by: str | None, config: RunConfig) -> dict[str, Any]:
    return {"rate": 1.0, **config.interventions} if by == "expert" else dict(config.interventions)


def _folder(out: str) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"-o {out}: {error.strerror}", hint="choose another folder") from None
    if not folder.is_dir():
        raise UsageError(f"-o {out}: is no folder")
    return folder


def _apart(env: RunEnv, recording: Demonstration, step: int) -> float:
    """The largest difference of any number of the newest frame from the recorded one."""
    return max(
        float(np.abs(values.astype(np.float64) - recording.frames[key][step].astype(np.float64)).max())
        for key, values in env.frame.items()
    )


def _word(success: bool) -> str:
    return "succeeded" if success else "failed"


def _text(report: Report) -> str:
    facts: Any = report.facts
    if "replayed" in facts:
        rows = facts["replayed"]
        same = sum(row["success"] == row["recorded"] for row in rows)
        return f"{same} of {len(rows)} recordings ended as they were recorded"
    rows = facts["recorded"]
    kept = sum(bool(row["path"]) for row in rows)
    return f"{kept} of {len(rows)} episodes recorded in {facts['folder']}"


def main() -> None:
    """Run ``weightkit-record`` and exit."""
    run_command(command, "weightkit-record")


if __name__ == "__main__":
    main()
