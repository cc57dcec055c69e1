"""What a push of weights costs, from just before the learner's publish call until the last actor has it applied,
against LeRobot's way, agentlace's, torch.distributed's gloo and one memcpy, in the same run.

    python benchmarks/pushing.py                        every section, about half an hour, with the plots
    python benchmarks/pushing.py --quick                two minutes, prints only
    python benchmarks/pushing.py --only latency acting  these sections again; the others stay as they stand in the file

Writes benchmarks/results/pushing.json and draws docs/images/pushing-size.svg and pushing-actors.svg; exits with 1 where
a required ratio is missed. WEIGHTKIT_PEERS_PYTHON names a Python with lerobot 0.4.4 and grpcio, for LeRobot's own code.

Learner and actors are processes of their own on one machine, each with one thread for arithmetic. Every number of the
payload changes before every version, outside of what is timed. A version is published when every actor has applied the
one before it, so that nothing queues; 3 versions do not count. All peers take turns, each with new processes in every
round, and no other peer's processes are there meanwhile. At the end of each turn every actor's tensors are compared
with the learner's. Only weightkit verifies: its times include hashing on both sides and the comparison of digests.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from peers_of_pushing import Unavailable
from peers_of_pushing.crew import Crew, Nursery, Peer, Pushed
from peers_of_pushing.goals import goals
from peers_of_pushing.plots import draw

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "pushing.json"
PEERS_PYTHON = "WEIGHTKIT_PEERS_PYTHON"
WARM_UPS = 3
MEMORY_FACTOR = 10  # a policy, its arenas and copies, on both sides, while one version travels
FLOOR = Peer("memcpy", "memcpy", has_actors=False)
RECIPE = Peer("LeRobot recipe", "lerobot_recipe")
PLAIN_QUEUES = Peer("LeRobot recipe, plain queues", "lerobot_recipe", "within")
LEROBOT = Peer("LeRobot 0.4.4", "lerobot_own", is_foreign=True)
PICKLE = Peer("pickle + lz4", "pickle_lz4")
GLOO = Peer("gloo", "gloo")
GRPC, UNIX, TLS, SHARED = (
    Peer(f"weightkit, {name}", "ours", way)
    for name, way in (
        ("gRPC", "grpc"), ("unix socket", "unix"), ("TLS", "tls"), ("shared memory", "shared memory"),
    )
)  # fmt: skip
EVERY = (FLOOR, RECIPE, PLAIN_QUEUES, LEROBOT, PICKLE, GLOO, GRPC, UNIX, TLS, SHARED)
PAYLOADS = {"all": "all groups, 41.2 MB", "acting": "encoder and actor, 8.3 MB"}


@dataclass(frozen=True)
class Effort:
    """How much is measured. A turn ends early after ``budget_s``, never before ``least`` versions."""

    rounds: int = 3
    versions: int = 12
    least: int = 4
    budget_s: float = 15.0
    payloads: tuple[str, ...] = ("all", "acting")
    actors: tuple[int, ...] = (1, 4, 16)
    phase_s: float = 10.0
    sizes_mb: tuple[int, ...] = (1, 4, 16, 64, 256, 1000)
    swept: tuple[int, ...] = (1, 2, 4, 8, 16, 32)


QUICK = Effort(1, 4, 3, 3.0, ("all",), (1, 4), 2.0, (16,), (4,))


class Bench:
    """The interpreters in which learners and actors run, and which peers there are."""

    def __init__(self, effort: Effort, names: list[str]) -> None:
        self.effort = effort
        self.skipped: dict[str, str] = {}
        self._names = names
        self._own = Nursery(sys.executable)
        foreign = os.environ.get(PEERS_PYTHON)
        self._foreign = Nursery(foreign) if foreign else None

    def peers(self, among: tuple[Peer, ...]) -> list[Peer]:
        """Those of ``among`` that can be measured."""
        if self._foreign is None:
            self.skipped[LEROBOT.name] = f"no Python with lerobot is named by {PEERS_PYTHON}"
        wanted = [peer for peer in among if not self._names or peer.name in self._names]
        return [peer for peer in wanted if peer.name not in self.skipped]

    def crew(self, peer: Peer, payload: str, actors: int) -> Crew | None:
        """Its processes, ready; None where this machine lacks something, which ``skipped`` then says."""
        nursery = self._foreign if peer.is_foreign else self._own
        assert nursery is not None
        try:
            return Crew(nursery, peer, payload, actors)
        except Unavailable as error:
            self.skipped[peer.name] = str(error)
            return None

    def close(self) -> None:
        for nursery in (self._own, self._foreign):
            if nursery is not None:
                nursery.close()

    def measure(self, among: tuple[Peer, ...], payload: str, actors: int, effort: Effort) -> dict[str, Any]:
        """A row for each peer, measured in turns."""
        turns: dict[str, list[Turn]] = {}
        for number in range(effort.rounds):
            peers = self.peers(among)
            for peer in peers[:: 1 if number % 2 else -1]:
                say(f"{payload}, {actors} actors, round {number + 1}: {peer.name}")
                crew = self.crew(peer, payload, actors)
                if crew is not None:
                    with crew:
                        turns.setdefault(peer.name, []).append(one_turn(crew, effort))
        return {peer.name: row(turns[peer.name]) for peer in among if peer.name in turns}


@dataclass(frozen=True)
class Turn:
    """What one turn of one peer gave; the learner's CPU time per version."""

    pushed: tuple[Pushed, ...]
    learner_cpu_ms: float
    path: str


def one_turn(crew: Crew, effort: Effort) -> Turn:
    for _ in range(WARM_UPS):
        crew.push()
    pushed, started = [], time.monotonic()
    cpu_started_s = 0.0
    while len(pushed) < effort.versions:
        if len(pushed) >= effort.least and time.monotonic() - started > effort.budget_s:
            break
        one, cpu_s = crew.push()
        cpu_started_s = cpu_started_s if pushed else cpu_s
        pushed.append(one)
    cpu_ended_s, path = crew.check()
    return Turn(tuple(pushed), 1e3 * (cpu_ended_s - cpu_started_s) / len(pushed), path)


def quantiles(values: list[float]) -> dict[str, float]:
    """p50 and p95."""
    ordered = sorted(values)
    return {"p50": round(statistics.median(ordered), 3), "p95": round(ordered[int(0.95 * (len(ordered) - 1) + 0.5)], 3)}


def row(turns: list[Turn]) -> dict[str, Any]:
    """What stands in the result for one peer, in ms; ``round_p50_ms`` has a figure for each round, in their order."""
    pushed = [one for turn in turns for one in turn.pushed]
    return {
        "latency_ms": {
            **quantiles([one.latency_ms for one in pushed]),
            "least": round(min(one.latency_ms for one in pushed), 3),
        },
        "publish_ms": quantiles([one.publish_ms for one in pushed]),
        "learner_cpu_ms": round(statistics.median(turn.learner_cpu_ms for turn in turns), 3),
        "actor_cpu_ms": round(statistics.median(one.actor_cpu_ms for one in pushed), 3),
        "round_p50_ms": [round(statistics.median(one.latency_ms for one in turn.pushed), 3) for turn in turns],
        "versions": len(pushed),
        "path": turns[0].path,
    }


def latency(bench: Bench) -> dict[str, Any]:
    """Every peer, both payloads, several numbers of actors."""
    effort, rows = bench.effort, []
    for payload in effort.payloads:
        for actors in effort.actors:
            fewer = replace(effort, rounds=min(2, effort.rounds)) if actors > 4 else effort
            found = bench.measure(EVERY, payload, actors, fewer)
            rows.append({"payload": PAYLOADS[payload], "actors": actors, "peers": found})
            show(rows[-1])
    return {"rows": rows}


def acting(bench: Bench) -> dict[str, Any]:
    """A 50 Hz control loop: a turn of poll and act while the learner's weights change at 5 Hz, published or not."""
    effort, rows = bench.effort, []
    for payload in ("acting", "all"):
        found: dict[str, dict[str, list[float]]] = {}
        for number in range(effort.rounds):
            for peer in bench.peers((RECIPE, GRPC, SHARED)):
                say(f"acting, {payload}, round {number + 1}: {peer.name}")
                crew = bench.crew(peer, payload, 1)
                if crew is None:
                    continue
                with crew:
                    for _ in range(WARM_UPS):
                        crew.push()
                    kept = found.setdefault(peer.name, {"idle": [], "receiving": [], "swap": [], "publish": []})
                    for phase in ("idle", "receiving", "idle", "receiving"):
                        crew.learner.send("train", seconds=effort.phase_s, hz=5, publish=phase == "receiving")
                        driven = crew.actors[0].ask("drive", seconds=effort.phase_s, hz=50)
                        kept["publish"] += crew.learner.receive()["publish_ms"]
                        kept[phase] += driven["turns_ms"]
                        kept["swap"] += driven["swaps_ms"]
        rows.append({"payload": PAYLOADS[payload], "peers": {name: control(kept) for name, kept in found.items()}})
        show(rows[-1])
    return {"rows": rows}


def control(kept: dict[str, list[float]]) -> dict[str, Any]:
    """What stands in the result for one peer, in ms."""
    found: dict[str, Any] = {}
    for phase in ("idle", "receiving"):
        centiles = statistics.quantiles(kept[phase], n=100)
        found[f"{phase}_ms"] = {"p50": round(centiles[49], 3), "p99": round(centiles[98], 3)}
    found["turns"] = {phase: len(kept[phase]) for phase in ("idle", "receiving")}
    found["p99 receiving / idle"] = round(found["receiving_ms"]["p99"] / found["idle_ms"]["p99"], 2)
    found["swap_ms"] = quantiles(kept["swap"])
    found["publish_ms"] = quantiles(kept["publish"])
    found["swaps"] = len(kept["swap"])
    return found


def sizes(bench: Bench) -> dict[str, Any]:
    """From 1 MB to 1 GB, one actor."""
    rows = []
    for megabytes in bench.effort.sizes_mb:
        wanted_mb, free_mb = MEMORY_FACTOR * megabytes, available_mb()
        if wanted_mb > free_mb:
            rows.append({"size_mb": megabytes, "peers": {}, "skipped": f"needs {wanted_mb} MB, {free_mb} MB are free"})
            continue
        few = replace(bench.effort, rounds=1 if megabytes > 100 else min(2, bench.effort.rounds), least=3)
        found = bench.measure((FLOOR, RECIPE, GLOO, GRPC, SHARED), f"synthetic-{megabytes}", 1, few)
        rows.append({"size_mb": megabytes, "peers": found})
        show(rows[-1])
    return {"rows": rows}


def actors(bench: Bench) -> dict[str, Any]:
    """From 1 to 32 actors, encoder and actor."""
    rows = []
    few = replace(bench.effort, rounds=min(2, bench.effort.rounds))
    for count in bench.effort.swept:
        found = bench.measure((FLOOR, RECIPE, GLOO, GRPC, SHARED), "acting", count, few)
        rows.append({"payload": PAYLOADS["acting"], "actors": count, "peers": found})
        show(rows[-1])
    return {"rows": rows}


SECTIONS = {"latency": latency, "acting": acting, "sizes": sizes, "actors": actors}


def available_mb() -> int:
    """Memory that could be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def show(found: dict[str, Any]) -> None:
    """One row of a section, aligned."""
    print("\n" + ", ".join(f"{key} {value}" for key, value in found.items() if key not in ("peers", "skipped")))
    for name, each in found["peers"].items():
        texts = []
        for key, value in each.items():
            if isinstance(value, dict):
                texts.append(f"{key} " + " ".join(f"{word} {number}" for word, number in value.items()))
            elif not isinstance(value, list):
                texts.append(f"{key} {value}")
        print(f"  {name:28s} " + "  ".join(texts), flush=True)


def machine() -> dict[str, Any]:
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
    }


def main() -> int:
    """Measure, merge, write, print."""
    parser = argparse.ArgumentParser(description="What a push of weights costs, against its peers.")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="measure these sections")
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME", help="these peers only; prints only")
    parser.add_argument("--actors", nargs="+", type=int, metavar="N", help="so many actors only; prints only")
    parser.add_argument("--rounds", type=int, help="how often all peers take turns")
    parser.add_argument("--quick", action="store_true", help="little of everything; prints only")
    parser.add_argument("--out", type=Path, help=f"the result, instead of {RESULT.relative_to(ROOT)}")
    options = parser.parse_args()
    unknown = set(options.peers) - {peer.name for peer in EVERY}
    if unknown:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in EVERY)}")
    effort = QUICK if options.quick else Effort()
    effort = replace(effort, rounds=options.rounds or effort.rounds)
    if options.actors:
        effort = replace(effort, actors=tuple(options.actors), swept=tuple(options.actors))
    path = options.out or (None if options.quick or options.peers or options.actors else RESULT)
    result: dict[str, Any] = {"benchmark": "pushing", "how": __doc__, "sections": {}}
    if path is not None and path.exists():
        result["sections"] = json.loads(path.read_text(encoding="utf-8"))["sections"]
    with contextlib.closing(Bench(effort, options.peers)) as bench:
        if os.getloadavg()[0] > 0.5:
            say(f"other programs are computing here (load {os.getloadavg()[0]:.1f}): figures will be too high")
        for name in options.only:
            stamp = {
                "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "what": SECTIONS[name].__doc__,
                "effort": {"rounds": effort.rounds, "versions": effort.versions, "budget_s": effort.budget_s},
                "machine": machine(),
            }
            found = SECTIONS[name](bench)
            result["sections"][name] = {**stamp, "skipped": dict(bench.skipped), **found}
            result["goals"] = goals(result["sections"])
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print()
    for goal in result["goals"]:
        print(f"{goal['verdict']:12s} {goal['goal']}: {goal['found']}")
        if goal["reason"]:
            print(f"{'':12s} {goal['reason']}")
    if path == RESULT:
        draw(result["sections"], ROOT / "docs" / "images")
    return int(any(goal["verdict"] == "MISSED" for goal in result["goals"]))


if __name__ == "__main__":
    sys.exit(main())
