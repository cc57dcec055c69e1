"""Twenty minutes of one learner and eight actors that join, leave, are killed and are stopped for a while.

    python -m soak.campaign [--minutes 20] [--actors 8] [--seed 0]        by hand: ./dev campaign soak [MINUTES]

Asserted at the end: every version that an actor acknowledged is one that was published, no actor went backwards, every
transition arrived exactly once and in order, ``produced = accepted + pending + dropped`` of every actor that left by
itself and the learner's count of it are the same number, and memory, descriptors and threads of the learner are in the
last quarter what they were in the one before. In the first half memory still grows, to what each of 30 threads keeps of
its largest work. Writes benchmarks/results/soak.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from soak.policy import PROBES, act, make_policy
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit_runners.experience import ExperienceBatch, ExperienceReceiver
from weightkit_runners.experience.journal import ExperienceJournal

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "soak.json"
PUBLISH_EVERY_S = 0.5
SAMPLE_EVERY_S = 5.0
MOST_GROWTH = 0.02
JOURNAL_BYTES = 256 << 20


class Arrived:
    """The learner's sink: transitions of every actor must come in order, each once."""

    def __init__(self) -> None:
        self.last: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __call__(self, batch: ExperienceBatch) -> None:
        for transition in batch.transitions:
            number = int(transition["number"])
            if number != self.last[batch.actor_id] + 1:
                self.wrong.append(f"{batch.actor_id}: {number} after {self.last[batch.actor_id]}")
            self.last[batch.actor_id] = number


class Actor:
    """One process, and what happens to it."""

    def __init__(self, address: str, name: str, way: str) -> None:
        self.name = name
        self.stopped_until = 0.0
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "soak.actor", address, name, way],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip

    def stall(self, seconds: float) -> None:
        """Stop it where it stands."""
        self.stopped_until = time.monotonic() + seconds
        self.process.send_signal(signal.SIGSTOP)

    def go_on_when_due(self) -> None:
        """Let it go on."""
        if self.stopped_until and time.monotonic() >= self.stopped_until:
            self.stopped_until = 0.0
            self.process.send_signal(signal.SIGCONT)

    def end(self, *, kill: bool) -> dict[str, Any] | None:
        """Kill it, or let it leave; what it says at its end."""
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        return None if kill or not out.strip() else json.loads(out)


def sample(publisher: Publisher) -> dict[str, float]:
    """The learner's resources, and what it has done so far.

    Freed memory is handed back first: what glibc keeps of it for 30 threads goes up and down by 100 MB.
    """
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    state = publisher.state()
    return {
        "rss_mb": pages * os.sysconf("SC_PAGESIZE") / 2**20,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "version": state.counter,
        "connected": sum(actor.connected for actor in state.actors),
    }


def soak(minutes: float, actors: int, seed: int) -> dict[str, Any]:
    """Run it; everything that is asserted and shown."""
    draw = random.Random(seed)
    arrived, did, ends = Arrived(), Counter(), []
    policy = make_policy(seed=seed)
    manifest = make_manifest(policy, dict.fromkeys(("0", "2", "4", "6"), "send"))
    samples: list[dict[str, float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ExperienceJournal(Path(folder) / "experience", capacity_bytes=JOURNAL_BYTES) as journal,
    ):
        receiver = ExperienceReceiver(arrived, journal=journal)
        with Publisher(policy, manifest, act=act, probes=PROBES, services=[receiver.service]) as publisher:
            present: list[Actor] = []
            started = time.monotonic()
            end, next_sample, joined = started + 60 * minutes, started, 0
            while time.monotonic() < end:
                turn_ends = time.monotonic() + PUBLISH_EVERY_S
                with torch.no_grad():
                    layers = [policy[6], policy[4]] if draw.random() < 0.8 else [policy[i] for i in (0, 2, 4, 6)]
                    for layer in layers:
                        layer.weight.add_(torch.randn_like(layer.weight), alpha=1e-3)
                publisher.publish()
                while len(present) < actors:
                    joined += 1
                    way = draw.choice(["stream", "shared"])
                    present.append(Actor(publisher.address, f"{way}-{joined}", way))
                    did[f"joined, {way}"] += 1
                for actor in present:
                    actor.go_on_when_due()
                fate = draw.random()
                chosen = draw.choice(present)
                if fate < 0.04 and not chosen.stopped_until:
                    kill = draw.random() < 0.5
                    present.remove(chosen)
                    told = chosen.end(kill=kill)
                    did["killed" if kill else "left"] += 1
                    ends += [told] if told else []
                elif fate < 0.08 and not chosen.stopped_until:
                    chosen.stall(draw.choice([1.0, 4.0, 15.0]))
                    did["stopped for a while"] += 1
                if time.monotonic() >= next_sample:
                    samples.append({"s": time.monotonic() - started, **sample(publisher)})
                    next_sample += SAMPLE_EVERY_S
                time.sleep(max(0.0, turn_ends - time.monotonic()))
            for actor in present:
                told = actor.end(kill=False)
                did["left"] += 1
                ends += [told] if told else []
            state, experience = publisher.state(), receiver.status()
            experience.pop("actors")
    return judged(samples, did, ends, arrived, {"versions": state.counter, "counts": dict(state.counts),
                  "nacks": sum(actor.nacks for actor in state.actors), "experience": experience})  # fmt: skip


def judged(
    samples: list[dict[str, float]],
    did: Counter[str],
    ends: list[dict[str, Any]],
    arrived: Arrived,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """The result, with a line for everything that does not hold."""
    faults = list(arrived.wrong)
    quarter = len(samples) // 4
    for what in ("rss_mb", "descriptors", "threads"):
        quarters = [samples[-4 * quarter :][n * quarter : (n + 1) * quarter] for n in range(4)]
        medians = [statistics.median(row[what] for row in each) for each in quarters]
        facts[what] = {f"quarter {n}": round(each, 1) for n, each in enumerate(medians, start=1)}
        if medians[3] > medians[2] * (1 + MOST_GROWTH):
            faults.append(f"{what} grew from {medians[2]:.1f} to {medians[3]:.1f}")
    for told in ends:
        name = told["name"]
        if told["backwards"]:
            faults.append(f"{name} went backwards {told['backwards']} times")
        if told["produced"] != told["accepted"] + told["pending"] + told["dropped"]:
            faults.append(f"{name}: the balance does not hold: {told}")
        if told["accepted"] != arrived.last[name]:
            faults.append(f"{name}: {told['accepted']} accepted there, {arrived.last[name]} arrived")
    totals = {key: sum(told[key] for told in ends) for key in ("produced", "accepted", "pending", "dropped", "received",
                                                               "discarded", "reconnects")}  # fmt: skip
    return {
        "minutes": round(samples[-1]["s"] / 60, 1),
        "what happened": dict(sorted(did.items())),
        "actors that left by themselves": {"actors": len(ends), **totals},
        "transitions that arrived": sum(arrived.last.values()),
        **facts,
        "faults": faults,
        "samples": [{key: round(value, 1) for key, value in row.items()} for row in samples],
    }


def main() -> int:
    """Run it, write the result, print it without the samples; 1 where something does not hold."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--minutes", type=float, default=20.0)
    options.add_argument("--actors", type=int, default=8)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(1)
    result = soak(chosen.minutes, chosen.actors, chosen.seed)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps({key: value for key, value in result.items() if key != "samples"}, indent=1) + "\n")
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
