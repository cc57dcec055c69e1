"""How long it takes to rename the tensors of a model by a table of rules, against transformers' own engine.

The same table of 20 renamings: as regular expressions for ``transformers.core_model_loading.rename_source_key`` (every
renaming is searched in every name, as its loader does it), and as templates for `make_plan`, which besides reads the
shapes of both sides, finds names that two rules or none would take, and proves that every source and every target name
is accounted for exactly once. Both in this process, in turns; medians of ``RUNS``. Names and specs are made beforehand.

    pip install transformers            for this benchmark only
    python benchmarks/mapping.py        exits with 1 where a claim does not hold

Writes benchmarks/results/mapping.json.
"""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from weightkit.core.names import parse_template
from weightkit.core.plan import ConversionTarget
from weightkit.core.rule import Mapping, renaming
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.engine.planning import make_plan

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
SCALE = (2_000, 10_000, 100_000)
MOST_RATIO, MOST_SECONDS, MOST_SLOPE_RATIO = 3.0, 2.0, 1.5
PARTS = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
    "self_attn.q_norm": "attention.query_norm",
    "self_attn.k_norm": "attention.key_norm",
    "mlp.gate_proj": "feed.gate",
    "mlp.up_proj": "feed.up",
    "mlp.down_proj": "feed.down",
    "input_layernorm": "norm_before",
    "post_attention_layernorm": "norm_between",
    "post_feed_layernorm": "norm_after",
    "cross_attn.q_proj": "cross.query",
    "cross_attn.k_proj": "cross.key",
    "cross_attn.v_proj": "cross.value",
    "cross_attn.o_proj": "cross.out",
    "router.proj": "route.weights",
    "router.norm": "route.norm",
    "adapter.down": "adapt.reduce",
    "adapter.up": "adapt.expand",
}
"""Twenty parts of a layer: the names of the source and those of the target."""


def tables(count: int) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """``count`` names of each side with their specs, 40 a layer."""
    before: dict[str, TensorSpec] = {}
    after: dict[str, TensorSpec] = {}
    for number in range(count):
        layer, place = divmod(number, 2 * len(PARTS))
        part = list(PARTS)[place // 2]
        kind, found = (("weight", spec("float32", 8, 4)), ("bias", spec("float32", 8)))[place % 2]
        before[f"model.layers.{layer}.{part}.{kind}"] = found
        after[f"net.blocks.{layer}.{PARTS[part]}.{kind}"] = found
    return before, after


def ours(before: dict[str, TensorSpec], after: dict[str, TensorSpec]) -> Callable[[], dict[str, str]]:
    """Planning by templates."""
    rules = tuple(
        renaming(
            source,
            parse_template(f"model.layers.{{i}}.{source}.{{p:name}}"),
            parse_template(f"net.blocks.{{i}}.{target}.{{p:name}}"),
        )
        for source, target in PARTS.items()
    )
    mapping = Mapping("bench", 1, "a", "b", rules)
    source, target = StateSpec(before), ConversionTarget("b", StateSpec(after))

    def run() -> dict[str, str]:
        return {step.sources[0]: step.targets[0] for step in make_plan(source, target, mapping).steps}

    return run


def theirs(before: dict[str, TensorSpec]) -> Callable[[], dict[str, str]]:
    """Renaming by transformers."""
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [
        WeightRenaming(rf"^model\.layers\.(\d+)\.{source.replace('.', chr(92) + '.')}\.", rf"net.blocks.\1.{target}.")
        for source, target in PARTS.items()
    ]
    return lambda: {name: rename_source_key(name, renamings, [])[0] for name in before}


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call, the garbage of the one before collected."""
    gc.collect()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and write the result."""
    rows: dict[str, dict[str, float]] = {}
    for count in SCALE:
        before, after = tables(count)
        plan, rename = ours(before, after), theirs(before)
        expected = dict(zip(before, after, strict=True))
        if plan() != expected or rename() != expected:
            raise SystemExit("the two do not rename alike: nothing to compare")
        runs = RUNS if count < SCALE[-1] else 5
        both = [(timed(plan), timed(rename)) for _ in range(runs)]
        mine, peer = (statistics.median(times) for times in zip(*both, strict=True))
        rows[str(count)] = {
            "weightkit_plan_ms": round(1000 * mine, 2),
            "transformers_rename_ms": round(1000 * peer, 2),
            "ratio": round(mine / peer, 2),
        }
    times = [rows[str(count)]["weightkit_plan_ms"] for count in SCALE]
    slopes = [
        (late - early) / (more - fewer)
        for (early, late), (fewer, more) in zip(itertools.pairwise(times), itertools.pairwise(SCALE), strict=True)
    ]
    ratio = round(slopes[1] / slopes[0], 2)
    holds = {
        f"2,000 names: at most {MOST_RATIO} times transformers": rows["2000"]["ratio"] <= MOST_RATIO,
        f"100,000 names: under {MOST_SECONDS} s": rows["100000"]["weightkit_plan_ms"] < 1000 * MOST_SECONDS,
        f"slopes up to 10k and 100k names differ by a factor of {MOST_SLOPE_RATIO} at most": ratio <= MOST_SLOPE_RATIO,
    }
    result = {
        "benchmark": "mapping",
        "runs": RUNS,
        "rules": len(PARTS),
        "python": platform.python_version(),
        "transformers": importlib.metadata.version("transformers"),
        "cpus": len(os.sched_getaffinity(0)),
        "rows": rows,
        "ratio_of_slopes": ratio,
        "holds": holds,
    }
    path = ROOT / "benchmarks" / "results" / "mapping.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    sys.exit(not all(holds.values()))


if __name__ == "__main__":
    main()
