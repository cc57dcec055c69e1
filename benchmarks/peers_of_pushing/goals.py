"""What is wanted of a push, and what a run has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RECIPE, GRPC, TLS, SHARED = "LeRobot recipe", "weightkit, gRPC", "weightkit, TLS", "weightkit, shared memory"
BESIDE = ("LeRobot 0.4.4", "LeRobot recipe, plain queues")
PUBLISH_MS, SWAP_MS, ACTING_RATIO, FLAT_RATIO, TLS_RATIO = 15.0, 2.0, 1.5, 1.5, 1.6
FASTER = {GRPC: (8.0, 5.0), SHARED: (25.0, 15.0)}


@dataclass(frozen=True)
class Goal:
    """``verdict``: reached, required (what is required holds, the goal does not), short (nothing is required), MISSED
    (what is required does not hold), or not measured. ``reason``: what was in the way.
    """

    goal: str
    found: str
    verdict: str
    reason: str = ""


def goals(sections: dict[str, Any]) -> list[dict[str, str]]:
    """Every goal with what was found."""
    found = [*_speed(sections.get("latency")), *_learner(sections.get("latency")), *_acting(sections.get("acting"))]
    return [asdict(goal) for goal in found]


def _row(section: dict[str, Any] | None, payload: str, actors: int | None = None) -> dict[str, Any]:
    """The peers of the row for a payload, told by its first word, and so many actors."""
    for row in (section or {}).get("rows", []):
        if row["payload"].split()[0] == payload and row.get("actors") == actors:
            return dict(row["peers"])
    return {}


def _verdict(value: float, goal: float, required: float | None, *, at_least: bool) -> str:
    def holds(limit: float) -> bool:
        return value >= limit if at_least else value <= limit

    if holds(goal):
        return "reached"
    if required is None:
        return "short"
    return "required" if holds(required) else "MISSED"


def _busy(section: dict[str, Any], peer: dict[str, Any], actors: int) -> str:
    """How much of the cores' time between publish and the last actor was computing."""
    cores = section["machine"]["cores"]
    cpu_ms = peer["learner_cpu_ms"] + actors * peer["actor_cpu_ms"]
    share = cpu_ms / (cores * peer["latency_ms"]["p50"])
    return (
        f"learner and actors computed for {cpu_ms:.1f} ms in {peer['latency_ms']['p50']:.1f} ms: "
        f"{share:.0%} of {cores} cores, which they share with what else runs here"
    )


def _speed(section: dict[str, Any] | None) -> list[Goal]:
    found = []
    for actors in (1, 4):
        crew = "1 actor" if actors == 1 else f"{actors} actors"
        row = _row(section, "all", actors)
        for name, (goal, required) in FASTER.items():
            what = f"{name}: {goal:g} times faster than the {RECIPE}, 41.2 MB, {crew} ({required:g} required)"
            if section is None or name not in row or RECIPE not in row:
                found.append(Goal(what, "", "not measured"))
                continue
            peer, theirs = row[name], row[RECIPE]
            ratio = theirs["latency_ms"]["p50"] / peer["latency_ms"]["p50"]
            each = [their / our for their, our in zip(theirs["round_p50_ms"], peer["round_p50_ms"], strict=False)]
            text = f"{ratio:.1f} times ({peer['latency_ms']['p50']:.1f} against {theirs['latency_ms']['p50']:.1f} ms)"
            text += f", by round {min(each):.1f} to {max(each):.1f}"
            text += f", by the least of each {theirs['latency_ms']['least'] / peer['latency_ms']['least']:.1f}"
            for other in [name for name in BESIDE if name in row]:
                text += f"; than {other} {row[other]['latency_ms']['p50'] / peer['latency_ms']['p50']:.1f} times"
            verdict = _verdict(ratio, goal, required, at_least=True)
            found.append(Goal(what, text, verdict, "" if verdict == "reached" else _busy(section, peer, actors)))
        what = f"{TLS}: at most {TLS_RATIO} times gRPC in plain text, 41.2 MB, {crew} (required)"
        if TLS not in row or GRPC not in row:
            found.append(Goal(what, "", "not measured"))
            continue
        ratio = row[TLS]["latency_ms"]["p50"] / row[GRPC]["latency_ms"]["p50"]
        found.append(Goal(what, f"{ratio:.2f} times", _verdict(ratio, TLS_RATIO, TLS_RATIO, at_least=False)))
    return found


def _learner(section: dict[str, Any] | None) -> list[Goal]:
    found = []
    one, many = _row(section, "all", 1), _row(section, "all", 16)
    for name in (GRPC, SHARED):
        what = f"{name}: the learner's CPU time per version with 16 actors at most {FLAT_RATIO} times that with 1"
        if name not in one or name not in many:
            found.append(Goal(what, "", "not measured"))
        else:
            few_ms, many_ms = one[name]["learner_cpu_ms"], many[name]["learner_cpu_ms"]
            ratio = many_ms / few_ms
            verdict = _verdict(ratio, FLAT_RATIO, None, at_least=False)
            why = "" if verdict == "reached" else "every actor's stream is written by the learner's own cores"
            found.append(Goal(what, f"{ratio:.1f} times ({few_ms:.1f} and {many_ms:.1f} ms)", verdict, why))
        what = f"{name}: publish call at most {PUBLISH_MS:g} ms, 41.2 MB, 1 actor"
        if name not in one:
            found.append(Goal(what, "", "not measured"))
        else:
            taken = one[name]["publish_ms"]
            text = f"p50 {taken['p50']:.1f} ms, p95 {taken['p95']:.1f} ms"
            found.append(Goal(what, text, _verdict(taken["p50"], PUBLISH_MS, None, at_least=False)))
    return found


def _acting(section: dict[str, Any] | None) -> list[Goal]:
    found = []
    row = _row(section, "encoder")
    for name in (GRPC, SHARED):
        peer = row.get(name)
        swap = f"{name}: pause of the acting thread for a swap at most {SWAP_MS:g} ms, 8.3 MB"
        late = f"{name}: p99 of poll and act at 50 Hz while receiving at most {ACTING_RATIO} times idle, 8.3 MB"
        if peer is None:
            found += [Goal(swap, "", "not measured"), Goal(late, "", "not measured")]
            continue
        taken, ratio = peer["swap_ms"], peer["p99 receiving / idle"]
        text = f"p50 {taken['p50']:.2f} ms, p95 {taken['p95']:.2f} ms"
        found.append(Goal(swap, text, _verdict(taken["p50"], SWAP_MS, None, at_least=False)))
        text = f"{ratio:.2f} times ({peer['idle_ms']['p99']:.1f} ms idle, {peer['receiving_ms']['p99']:.1f} ms)"
        found.append(Goal(late, text, _verdict(ratio, ACTING_RATIO, None, at_least=False)))
    return found
