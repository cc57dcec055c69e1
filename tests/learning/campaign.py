"""Does it learn? A clone that was made worse gets better on the demo arm, through real learner and actor processes.

    python -m learning.campaign [--seeds 3] [--minutes 60] [--out FOLDER]      by hand: ./dev campaign learn

`fixtures/best_snapshot.pt` with noise on its weights, so much that it succeeds in 30 to 60 % of the episodes, is
fine-tuned with demonstrations of the scripted expert: a learner and a collecting actor, each a process of its own, and
in this process two actors that only look on, the one with the newest weights, the other with the first ones for ever
(the control: its synchronisation is frozen). Both act on the same held-out episodes every few minutes, without noise.

What is done already is not done again: a campaign that was broken off goes on, the learner from its last checkpoint.
Writes benchmarks/results/learning_curve.json and draws docs/images/learning-curve.svg.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import torch

import weightkit as wk
from weightkit.verbs.save_policy import save_policy_directory
from weightkit_runners.actor import Actor
from weightkit_runners.checkpoints import CHECKPOINTS, LAST
from weightkit_runners.children import Child
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.environment import make_run_env
from weightkit_runners.episodes import policy_act, run_episodes, successes
from weightkit_runners.process import log
from weightkit_runners.templates import read_template

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "learning_curve.json"
PICTURE = ROOT / "docs" / "images" / "learning-curve.svg"
HELD_OUT = range(2_000_000, 2_000_050)
TUNING = range(1_500_000, 1_500_050)
DEMONSTRATIONS, FIRST_DEMONSTRATION = 40, 3_000_000
WANTED = (0.35, 0.55)
LOOK_EVERY_MIN = 4.0
RISE = 0.30
SETTINGS: dict[str, Any] = {
    "batch_size": 64, "log_freq": 100, "save_freq": 1000,
    "policy.actor_lr": 1e-4, "policy.critic_lr": 3e-4, "policy.encoder_lr": 1e-4, "policy.nstep": 3,
    "policy.discount": 0.97, "policy.stddev_schedule": "0.15", "policy.online_step_before_learning": 400,
    "policy.online_buffer_capacity": 60_000, "policy.offline_buffer_capacity": 20_000,
    "policy.online_steps": 10_000_000, "policy.actor_learner_config.policy_parameters_push_frequency": 2,
}  # fmt: skip


def configured(folder: Path, seed: int) -> tuple[RunConfig, Path]:
    """The run's configuration: the demo's, with what is learned from."""
    document = read_template("demo_arm")
    document["output_dir"], document["seed"] = str(folder / "run"), seed
    document["policy"]["pretrained_path"] = str(folder.parent / "degraded")
    document["dataset"] = {"root": str(folder.parent / "demonstrations")}
    for key, value in SETTINGS.items():
        place = document
        *parents, last = key.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "train_config.json"
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return read_run_config(path), path


def success_of(policy: Any, config: RunConfig, seeds: range) -> float:
    env = make_run_env(config)
    try:
        return successes(run_episodes(env, policy_act(policy), seeds)) / len(seeds)
    finally:
        env.close()


def degrade(folder: Path, config: RunConfig) -> dict[str, float]:
    """A policy that succeeds in about half of the episodes: every weight with noise, in proportion to its spread."""
    noted = folder / "degraded.json"
    if noted.exists():
        return dict(json.loads(noted.read_text()))
    low, high, best = 0.0, 0.6, None
    for _ in range(12):
        scale = (low + high) / 2
        policy = wk.load_policy(ROOT / "fixtures" / "best_snapshot.pt")
        random = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in [*policy.encoder.parameters(), *policy.actor.parameters()]:
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs().mean()
                parameter.add_(torch.randn(parameter.shape, generator=random) * spread * scale)
        rate = success_of(policy, config, TUNING)
        click.echo(f"noise {scale:.4f}: {rate:.0%}")
        if WANTED[0] <= rate <= WANTED[1]:
            best = policy, scale, rate
            break
        low, high = (scale, high) if rate > WANTED[1] else (low, scale)
    if best is None:
        raise SystemExit("no noise was found that makes the clone succeed in about half of the episodes")
    policy, scale, rate = best
    save_policy_directory(policy, config.net, folder / "degraded", force=True)
    found = {"noise": scale, "success": rate, "held_out": success_of(policy, config, HELD_OUT)}
    noted.write_text(json.dumps(found))
    return found


def demonstrate(folder: Path, config_path: Path) -> None:
    """The expert's episodes, as weightkit-record writes them."""
    there = len(list((folder / "demonstrations").glob("*.safetensors")))
    if there < DEMONSTRATIONS:
        words = ["--config_path", str(config_path), "--by", "expert", "--episodes", str(DEMONSTRATIONS - there)]
        words += ["--seed", str(FIRST_DEMONSTRATION + there), "-o", str(folder / "demonstrations")]
        with Child("record", ["weightkit_runners.record", *words], log_path=folder / "record.log") as child:
            child.wait(timeout_s=600)


def learn(folder: Path, seed: int, minutes: float) -> list[dict[str, float]]:
    """One seed's curve: minutes of learning, updates, success with the newest weights and with the first ones."""
    config, path = configured(folder, seed)
    curve_path = folder / "curve.jsonl"
    curve = [json.loads(line) for line in curve_path.read_text().splitlines()] if curve_path.exists() else []
    spent = curve[-1]["minutes"] if curve else 0.0
    if spent >= minutes:
        return curve
    run = Path(config.output_dir)
    resume = ["--resume", str(run)] if (run / CHECKPOINTS / LAST).exists() else []
    words = ["--config_path", str(path), "--bind", "127.0.0.1:0", *resume]
    with Child("learner", ["weightkit_runners.learner", *words], log_path=folder / "learner.log") as learner:
        line = learner.wait_for_line("[LEARNER] Listening on ", timeout_s=120)
        address = line.removeprefix("[LEARNER] Listening on ").split(",")[0]
        frozen = Actor(config, address=address, name="frozen", hold=True)
        newest = Actor(config, address=address, name="newest")
        words = ["--config_path", str(path), "--learner", address, "--name", "collector"]
        words += ["--seed", str(10_000 * (seed + 1) + len(curve) * 1000)]
        with (
            frozen,
            newest,
            Child("collector", ["weightkit_runners.actor", *words], log_path=folder / "collector.log") as collector,
        ):
            stop = threading.Event()
            for actor in (frozen, newest):
                assert actor.weights.wait(stop, timeout_s=120)
            started = time.monotonic()
            while True:
                passed = spent + (time.monotonic() - started) / 60
                version = newest.weights.current(stop)
                assert version is not None
                row: dict[str, float] = {"minutes": round(passed, 2), "updates": version.learner_step}
                for name, actor in (("newest", newest), ("frozen", frozen)):
                    row[name] = successes(actor.evaluate(HELD_OUT, stop)) / len(HELD_OUT)
                curve.append(row)
                with curve_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                click.echo(f"seed {seed}: {row}")
                for child in (learner, collector):
                    if child.returncode is not None:
                        raise SystemExit(f"{child.name} ended with {child.returncode}: see {child.log_path}")
                if passed >= minutes:
                    break
                stop.wait(60 * min(LOOK_EVERY_MIN, minutes - passed))
    return curve


def draw(curves: dict[str, list[dict[str, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 3.4))
    for index, (seed, curve) in enumerate(curves.items()):
        minutes = [row["minutes"] for row in curve]
        axes.plot(minutes, [100 * row["newest"] for row in curve], color=f"C{index}", label=f"seed {seed}")
        axes.plot(minutes, [100 * row["frozen"] for row in curve], color=f"C{index}", linestyle=":")
    axes.set(xlabel="minutes of learning on 2 cores", ylabel="success in 50 held-out episodes, %", ylim=(0, 103))
    axes.legend(title="dotted: first weights for ever", fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE)


def judged(curves: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """For each seed: success at first and over the last three looks, of both actors, and whether it is enough."""
    rows = {}
    for seed, curve in curves.items():
        last = curve[-3:]
        newest, frozen = (sum(row[name] for row in last) / len(last) for name in ("newest", "frozen"))
        rise, control = newest - curve[0]["newest"], frozen - curve[0]["frozen"]
        rows[seed] = {
            "first": curve[0]["newest"], "last": round(newest, 3), "rise": round(rise, 3),
            "control": round(control, 3), "holds": rise >= RISE and abs(control) < 0.15,
        }  # fmt: skip
    return rows


def main() -> int:
    """Prepare, learn seed after seed, write, draw."""
    parser = argparse.ArgumentParser(description="Does it learn?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=ROOT / ".learn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    log.setLevel("WARNING")
    options.out.mkdir(exist_ok=True)
    config, path = configured(options.out / "seed0", 0)
    degraded = degrade(options.out, config)
    demonstrate(options.out, path)
    curves = {str(seed): learn(options.out / f"seed{seed}", seed, options.minutes) for seed in range(options.seeds)}
    result = {"campaign": "learning", "how": __doc__, "degraded": degraded, "settings": SETTINGS}
    verdict = judged(curves)
    RESULT.write_text(json.dumps({**result, "verdict": verdict, "curves": curves}, indent=1) + "\n", encoding="utf-8")
    draw(curves)
    click.echo(json.dumps(verdict, indent=1))
    return int(not all(row["holds"] for row in verdict.values()))


if __name__ == "__main__":
    sys.exit(main())
