"""``python -m weightkit_runners.demo``: the whole journey of one snapshot, in one sitting.

A trained snapshot in RoboBase layout is inspected, converted, proven complete, served by a learner and acted on by an
actor, in two processes on this machine; then its success is compared with that of an actor whose encoder was withheld.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from weightkit.cli.main import run_command
from weightkit.errors import WeightkitError
from weightkit_runners.children import Child
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.environment import make_run_env
from weightkit_runners.episodes import Act, Episode, policy_act, random_act, run_episodes, successes
from weightkit_runners.process import limit_threads
from weightkit_runners.templates import write_template

SNAPSHOT = Path("fixtures/best_snapshot.pt")
STEPS = 6
LEARNER_UPDATES = 100
LEAST_VERSIONS = 4
LEARNER_START_TIMEOUT_S = 90.0
ACTOR_TIMEOUT_S = 180.0
TRAINING_TIMEOUT_S = 150.0
OTHER_SEED = 1
"""What an actor that gets no encoder keeps: values drawn from another seed than the learner's."""


class DemoFailed(WeightkitError):
    """Something that the demo is there to show did not hold."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--snapshot", type=click.Path(), default=str(SNAPSHOT), show_default=True, help="The trained snapshot.")
@click.option("--out", type=click.Path(), default="outputs/demo", show_default=True, help="Where files are written.")
@click.option("--episodes", type=click.IntRange(min=1), default=20, show_default=True, help="Episodes per row.")
def command(snapshot: str, out: str, episodes: int) -> None:
    """Show the whole journey on the demo arm; exit code 0 only where everything that it shows holds."""
    signal.signal(signal.SIGTERM, _interrupt)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jsonl"):
        old.unlink()
    config_path = write_template("demo_arm", folder / "train_config.json", pretrained=snapshot, force=True)
    config = read_run_config(config_path, [f"output_dir={json.dumps(str(folder))}"])
    limit_threads(config.torch_threads or 1)
    make_run_env(config).close()  # a machine that cannot draw should say so now, not after three parts
    started = time.monotonic()
    show_snapshot(snapshot)
    policy_dir = show_plan(snapshot, config_path, folder)
    show_proof(config_path, policy_dir, folder)
    seeds = range(config.seed, config.seed + episodes)
    rows = {"file run directly": evaluate_file(config, policy_dir, seeds)}
    with ExitStack() as children:
        learner = children.enter_context(start_learner(config_path, folder))
        address = _address(learner)
        rows["actor after sync"] = evaluate_actor(config_path, folder, address, seeds)
        rows["encoder withheld"] = evaluate_withheld(config, policy_dir, seeds)
        rows["random actions"] = evaluate_random(config, seeds)
        show_training(config_path, folder, learner, address)
    show_result(rows, folder, policy_dir, time.monotonic() - started)


def heading(number: int, text: str) -> None:
    """A line between the parts."""
    click.echo(f"\n=== {number}/{STEPS}  {text}")


def show_snapshot(snapshot: str) -> None:
    """What the file is."""
    from weightkit.reporting.inspect import inspect_text
    from weightkit.verbs.inspect import inspect

    heading(1, f"What the snapshot is: weightkit inspect {snapshot}")
    click.echo(inspect_text(inspect(snapshot), tensors=False))


def show_plan(snapshot: str, config_path: Path, folder: Path) -> Path:
    """The conversion, every tensor accounted for; gives the folder that was written."""
    from weightkit.reporting.convert import convert_text
    from weightkit.verbs.convert import convert

    heading(2, f"The plan: weightkit convert {snapshot} --to drqv2 --config_path {config_path} -o {folder / 'policy'}")
    report = convert(snapshot, to="drqv2", config=config_path, out=folder / "policy", force=True)
    click.echo(convert_text(report))
    return folder / "policy"


def show_proof(config_path: Path, policy_dir: Path, folder: Path) -> None:
    """What act() reads against what the learner sends, and against what devlog 042's learner sent."""
    import torch

    from weightkit.reporting.sync import verify_sync_text
    from weightkit.verbs.load_policy import load_policy
    from weightkit.verbs.manifest import write_manifest
    from weightkit.verbs.verify_sync import verify_sync

    heading(3, "The proof: does the actor get every tensor that its action reads?")
    manifest = folder / "manifest.json"
    write_manifest(manifest, config_path=config_path, force=True)
    report = verify_sync(config_path=config_path, manifest=manifest)
    click.echo(f"$ weightkit verify-sync --config_path {config_path} --manifest {manifest}")
    click.echo(verify_sync_text(report))
    push = folder / "push_of_devlog_042.pt"
    torch.save({"policy": load_policy(policy_dir).actor.state_dict()}, push)
    old = verify_sync(config_path=config_path, payload=push)
    click.echo("\nand what devlog 042's learner pushed, only the actor:")
    click.echo(f"$ weightkit verify-sync --config_path {config_path} --payload {push}")
    click.echo(verify_sync_text(old))
    if not report.ok or old.ok:
        raise DemoFailed("the proof should pass for the manifest and fail for devlog 042's push")


def evaluate_file(config: RunConfig, policy_dir: Path, seeds: range) -> list[Episode]:
    """The converted file, run directly in this process."""
    from weightkit_runners.rollout import load_checkpoint

    heading(4, "Acting, without exploration noise, the same episodes each")
    return _episodes(config, policy_act(load_checkpoint(config, policy_dir)), seeds, "file run directly")


def evaluate_withheld(config: RunConfig, policy_dir: Path, seeds: range) -> list[Episode]:
    """Devlog 042's fault, the guard off: the actor's net gets everything but the encoder."""
    import dataclasses

    from weightkit_runners.pretrained import build_policy
    from weightkit_runners.rollout import load_checkpoint

    sent = load_checkpoint(config, policy_dir)
    actor = build_policy(dataclasses.replace(config, seed=config.seed + OTHER_SEED)).eval()
    actor.actor.load_state_dict(sent.actor.state_dict())
    return _episodes(config, policy_act(actor), seeds, "encoder withheld")


def evaluate_random(config: RunConfig, seeds: range) -> list[Episode]:
    """Uniform random actions."""
    return _episodes(config, random_act(config.net.action_dim, config.seed), seeds, "random actions")


def _episodes(config: RunConfig, act: Act, seeds: range, title: str) -> list[Episode]:
    env = make_run_env(config)
    try:
        with progress(title, len(seeds)) as advance:
            return run_episodes(env, act, seeds, on_episode=lambda episode: advance())
    finally:
        env.close()


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr; ``yield`` gives the function that moves it by one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def start_learner(config_path: Path, folder: Path) -> Child:
    """The learner as a process of its own, on a free port."""
    settings = {"policy.online_steps": LEARNER_UPDATES, "log_freq": 20, "output_dir": json.dumps(str(folder))}
    return Child(
        "learner",
        [
            "weightkit_runners.learner",
            "--config_path",
            str(config_path),
            "--bind",
            "127.0.0.1:0",
            "--anew",
            *_sets(settings),
        ],
        log_path=folder / "learner.log",
    )


def start_actor(config_path: Path, folder: Path, address: str, name: str, *options: str) -> Child:
    """An actor as a process of its own."""
    arguments = ["--config_path", str(config_path), "--learner", address, "--name", name, *options]
    sets = _sets({"output_dir": json.dumps(str(folder))})
    return Child(name, ["weightkit_runners.actor", *arguments, *sets], log_path=folder / f"{name}.log")


def _sets(settings: dict[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]


def _address(learner: Child) -> str:
    line = learner.wait_for_line("[LEARNER] Listening on ", timeout_s=LEARNER_START_TIMEOUT_S)
    return line.removeprefix("[LEARNER] Listening on ").split(",")[0]


def evaluate_actor(config_path: Path, folder: Path, address: str, seeds: range) -> list[Episode]:
    """An actor process with the learner's first weights; the lines of devlog 042's Verification are shown."""
    options = ("--eval", "--hold-version", "--json", "--seed", str(seeds.start), "--episodes", str(len(seeds)))
    with start_actor(config_path, folder, address, "eval-actor", *options) as actor:
        for line in ("Waiting for initial parameters", "Loaded encoder parameters", "Loaded initial parameters"):
            click.echo(actor.wait_for_line(f"[ACTOR] {line}", timeout_s=ACTOR_TIMEOUT_S))
        with progress("actor after sync", len(seeds)) as advance:
            for _ in seeds:
                actor.wait_for_line("[ACTOR] episode ", timeout_s=ACTOR_TIMEOUT_S)
                advance()
        actor.wait(timeout_s=ACTOR_TIMEOUT_S)
        document = json.loads(actor.output)
    return [Episode(**item) for item in document["episodes"]]


def show_training(config_path: Path, folder: Path, learner: Child, address: str) -> None:
    """A second actor feeds the learner, whose updated weights come back; both sides' digests are compared."""
    heading(5, f"Learning: {LEARNER_UPDATES} updates while an actor acts, every push verified")
    with start_actor(config_path, folder, address, "train-actor") as actor:
        with progress("learner updates", LEARNER_UPDATES) as advance:
            for _ in range(LEARNER_UPDATES // 20):
                line = learner.wait_for_line("[LEARNER] step ", timeout_s=TRAINING_TIMEOUT_S)
                for _ in range(20):
                    advance()
            click.echo(line)
        learner.wait(timeout_s=TRAINING_TIMEOUT_S)
        actor.stop()
        if actor.returncode:
            raise DemoFailed(f"the actor ended with exit code {actor.returncode}", hint=f"see {actor.log_path}")
    sent = {row["counter"]: row for row in _rows(folder / "learner_versions.jsonl")}
    got = {row["counter"]: row for row in _rows(folder / "train-actor_versions.jsonl")}
    from weightkit.reporting.text import table

    lines: list[list[object]] = [["version", "learner step", "learner's digest", "actor's digest", "equal"]]
    shown = list(sent)[:4] + list(sent)[max(4, len(sent) - 4) :]
    for counter, row in ((c, sent[c]) for c in shown):
        theirs = got.get(counter)
        same = "-" if theirs is None else "yes" if theirs["root"] == row["root"] else "NO"
        actor_root = "superseded" if theirs is None else theirs["root"][:16]
        lines.append([f"v{counter}", row["learner_step"], row["root"][:16], actor_root, same])
    if len(shown) < len(sent):
        lines.insert(5, ["...", "", "", "", ""])
    click.echo("\n".join(table(lines, right=(1,))))
    equal = [c for c, row in got.items() if c in sent and row["root"] == sent[c]["root"]]
    click.echo(f"{len(sent)} versions pushed, {len(got)} taken by the actor, {len(equal)} with equal digests")
    if len(equal) < LEAST_VERSIONS or len(equal) < len(got):
        raise DemoFailed(f"{len(equal)} of {len(got)} versions arrived with equal digests, expected {LEAST_VERSIONS}")


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def show_result(rows: dict[str, list[Episode]], folder: Path, policy_dir: Path, elapsed_s: float) -> None:
    """The table, the picture, the files; raises DemoFailed where file and actor differ in any episode."""
    from weightkit.reporting.text import table

    heading(6, "Success")
    lines: list[list[object]] = [["policy", "success", "episodes", "mean steps"]]
    for name, episodes in rows.items():
        mean = sum(e.steps for e in episodes) / len(episodes)
        lines.append([name, f"{100 * successes(episodes) / len(episodes):.0f} %", len(episodes), f"{mean:.1f}"])
    click.echo("\n".join(table(lines, right=(1, 2, 3))))
    direct, synced = rows["file run directly"], rows["actor after sync"]
    same = [a == b for a, b in zip(direct, synced, strict=True)]
    click.echo(f"\nfile and actor: {sum(same)} of {len(same)} episodes equal, action by action, bit by bit")
    document = {name: [episode.to_dict() for episode in episodes] for name, episodes in rows.items()}
    (folder / "results.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    draw_bars(rows, folder / "success.png")
    click.echo("\nfiles:")
    for path, what in (
        (folder / "success.png", "the table as bars"),
        (folder / "results.json", "every episode"),
        (policy_dir, "the converted policy"),
        (folder / "manifest.json", "what the learner sends"),
        (folder / "checkpoints" / "last", "the policy after training"),
        (folder / "learner.log", "the learner's log"),
        (folder / "train-actor.log", "the actor's log"),
    ):
        click.echo(f"  {path}  {what}")
    click.echo(f"\ndone in {elapsed_s:.0f} s")
    if not all(same):
        raise DemoFailed("file and actor should agree in every episode")
    if successes(rows["encoder withheld"]) * 2 > successes(direct):
        raise DemoFailed("withholding the encoder should have hurt")


def draw_bars(rows: dict[str, list[Episode]], path: Path) -> None:
    """The success rates as a bar chart."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(rows)
    shares = [100 * successes(rows[name]) / len(rows[name]) for name in names]
    colours = ["#2a6f97", "#2a6f97", "#c1440e", "#8a8a8a"]
    figure, axes = pyplot.subplots(figsize=(7.2, 2.6), dpi=120)
    bars = axes.barh(names[::-1], shares[::-1], color=colours[::-1])
    axes.bar_label(bars, labels=[f"{share:.0f} %" for share in shares[::-1]], padding=4)
    axes.set_xlim(0, 112)
    axes.set_xlabel(f"episodes that reach the cube, of {len(rows[names[0]])}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xticks(range(0, 101, 25))
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the demo and exit."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("the demo runs in a process of its own")
    run_command(command, f"{Path(sys.executable).name} -m weightkit_runners.demo")


if __name__ == "__main__":
    main()
