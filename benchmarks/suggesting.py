"""How long a suggestion takes for 2,000 names against 2,000, and how often it is right; beside closest spellings.

    python benchmarks/suggesting.py        writes benchmarks/results/suggesting.json

The two sides are the same net under two naming schemes: half of the words are others, the order is another, the
numbers of layers have other gaps. ``mixed`` has towers and stacks of many shapes, ``one stack`` is the worst case for
an assignment: few shapes, each on hundreds of tensors. The peer pairs each name with the closest spelling among the
names of its shape (difflib), which is what one would write by hand.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.engine.suggestion import suggest_pairs

ROOT = Path(__file__).resolve().parents[1]
TENSORS = 2000
RUNS = 5
MOST_SECONDS = 3.0
LEAST_PRECISION = 0.95

Rename = Callable[[str], str]


def dense(tensors: dict[str, TensorSpec], name: str, out: int, width: int) -> None:
    """A linear layer."""
    tensors[f"{name}.weight"] = spec("float32", out, width)
    tensors[f"{name}.bias"] = spec("float32", out)


def norm(tensors: dict[str, TensorSpec], name: str, width: int) -> None:
    """A layer norm."""
    tensors[f"{name}.weight"] = spec("float32", width)
    tensors[f"{name}.bias"] = spec("float32", width)


def block(tensors: dict[str, TensorSpec], name: str, width: int) -> None:
    """A transformer block: 12 tensors."""
    norm(tensors, f"{name}.attention_norm", width)
    dense(tensors, f"{name}.attention.qkv_projection", 3 * width, width)
    dense(tensors, f"{name}.attention.out_projection", width, width)
    norm(tensors, f"{name}.feed_norm", width)
    dense(tensors, f"{name}.feed_forward.inner", 4 * width, width)
    dense(tensors, f"{name}.feed_forward.outer", width, 4 * width)


def mixed() -> dict[str, TensorSpec]:
    """Policies of many sizes: a convolutional tower, a stack of blocks, an actor and two critics with copies."""
    tensors: dict[str, TensorSpec] = {}
    tasks = ("grasp", "push", "insert", "stack", "open", "pour", "wipe", "fold", "sort", "screw", "lift", "hang")
    number = 0
    while len(tensors) < TENSORS:
        arm = ("left", "right")[number // len(tasks)]
        name, width = f"{arm}_{tasks[number % len(tasks)]}_policy", 64 + 16 * number
        for layer in range(4):
            tensors[f"{name}.visual_tower.{3 * layer}.weight"] = spec("float32", width, 3 if not layer else width, 3, 3)
            tensors[f"{name}.visual_tower.{3 * layer}.bias"] = spec("float32", width)
        for layer in range(6):
            block(tensors, f"{name}.trunk.blocks.{layer}", width)
        for copy in ("critic", "critic_target"):
            for q in range(2):
                dense(tensors, f"{name}.{copy}.heads.{q}.hidden", 256, width + 7)
                dense(tensors, f"{name}.{copy}.heads.{q}.value", 1, 256)
        dense(tensors, f"{name}.actor.hidden", 256, width)
        dense(tensors, f"{name}.actor.mean_layer", 7, 256)
        dense(tensors, f"{name}.actor.std_layer", 7, 256)
        number += 1
    return dict(list(tensors.items())[:TENSORS])


def one_stack() -> dict[str, TensorSpec]:
    """As many blocks of one width as it takes."""
    tensors: dict[str, TensorSpec] = {}
    while len(tensors) < TENSORS:
        block(tensors, f"transformer.blocks.{len(tensors) // 12}", 256)
    return dict(list(tensors.items())[:TENSORS])


def renaming(names: list[str], share: float, draw: random.Random) -> Rename:
    """Another scheme of names: ``share`` of the words become others, gaps of 3 become gaps of 2."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = {word for name in names for segment in name.split(".")[:-1] for word in segment.split("_")}
    other = {
        word: "".join(draw.choices(letters, k=6)) if not word.isdigit() and draw.random() < share else word
        for word in sorted(words)
    }

    def rename(name: str) -> str:
        *path, last = name.split(".")
        segments = ["_".join(other[word] for word in segment.split("_")) for segment in path]
        if "visual_tower" in path:
            segments[-1] = str(int(path[-1]) // 3 * 2)
        return ".".join([*segments, last])

    return rename


def closest_spellings(source: StateSpec, target: StateSpec) -> dict[str, str]:
    """The peer: each name with the closest spelling of its shape that is not taken."""
    by_shape: dict[object, list[str]] = {}
    for name in target:
        by_shape.setdefault(target[name], []).append(name)
    pairs = {}
    for name in source:
        waiting = by_shape.get(source[name], [])
        close = difflib.get_close_matches(name, waiting, n=1, cutoff=0.0)
        if close:
            pairs[name] = close[0]
            waiting.remove(close[0])
    return pairs


def measure(tensors: dict[str, TensorSpec], share: float, *, runs: int = RUNS) -> dict[str, object]:
    """Times and counts for one net under two schemes."""
    draw = random.Random(7)
    rename = renaming(list(tensors), share, draw)
    shuffled = draw.sample(list(tensors), len(tensors))
    source = StateSpec(tensors)
    target = StateSpec({rename(name): tensors[name] for name in shuffled})
    times = []
    for _ in range(runs):
        started = time.process_time()
        suggestion = suggest_pairs(source, target)
        times.append(time.process_time() - started)
    sure = suggestion.standing("sure")
    right = sum(rename(pair.source) == pair.target for pair in sure)
    started = time.process_time()
    peer = closest_spellings(source, target)
    peer_time = time.process_time() - started
    peer_right = sum(rename(name) == other for name, other in peer.items())
    return {
        "names": len(tensors),
        "cpu_s_median": round(statistics.median(times), 3),
        "cpu_s_most": round(max(times), 3),
        "sure": len(sure),
        "precision_of_sure": round(right / len(sure), 4) if sure else None,
        "unsure": len(suggestion.standing("unsure")),
        "ambiguous": len(suggestion.standing("ambiguous")),
        "left": len(suggestion.left_sources),
        "peer: difflib.get_close_matches within a shape": {
            "cpu_s": round(peer_time, 3),
            "pairs": len(peer),
            "precision": round(peer_right / len(peer), 4),
        },
    }


def main() -> None:
    """Measure, print and write the result."""
    rows = {
        "mixed, half of the words renamed": measure(mixed(), 0.5),
        "mixed, all words renamed": measure(mixed(), 1.0),
        "one stack, half of the words renamed": measure(one_stack(), 0.5),
        "one stack, all words renamed": measure(one_stack(), 1.0),
    }
    holds = {f"{name}: under {MOST_SECONDS:g} s": row["cpu_s_most"] < MOST_SECONDS for name, row in rows.items()}  # type: ignore[operator]
    for name, row in rows.items():
        precision = row["precision_of_sure"]
        if isinstance(precision, float):
            holds[f"{name}: precision of what is sure at least {LEAST_PRECISION:g}"] = precision >= LEAST_PRECISION
    result = {
        "benchmark": "suggesting",
        "runs": RUNS,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "rss_mib_most": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "rows": rows,
        "holds": holds,
    }
    path = ROOT / "benchmarks" / "results" / "suggesting.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    sys.exit(not all(holds.values()))


if __name__ == "__main__":
    main()
