"""What the proof costs and what the tripwire costs, on the 10.3 million numbers of the devlogs' DrQ-v2 policy.

    python benchmarks/proving.py        writes benchmarks/results/proving.json

Proof: tracing ``act()`` on four observations, twice, with the test that what is not read does not matter, and the
judgement against a manifest. Its peers find a read set in the same run: ``gradients`` (which parameters get one from
the actions) is what one would write first, ``poison`` overwrites each tensor alone with NaN and compares the actions.
How many of the policies in tests/acting_cases.py each of the three gets right stands beside its time.

Tripwire: one act on one observation, on a policy whose critics were taken away, and on the same policy untouched, in
turns.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
RUNS = 7
ACTS = 2000
MOST_SECONDS = 1.0
ALONE = """
import sys, time, torch
import numpy
started = time.perf_counter()
import weightkit as wk
from weightkit.architectures import architecture_named
from weightkit.architectures.probes import probes
architecture = architecture_named("drqv2")
config = architecture.default_config()
policy = architecture.build(config).eval()
seen = probes(architecture.inputs(config))
built = time.perf_counter()
groups = {"encoder": "send", "actor": "send", "critic": "hold", "critic_target": "hold"}
report = wk.prove_coverage(policy, lambda p, o: p.act(o), seen, wk.make_manifest(policy, groups))
done = time.perf_counter()
assert report.ok and len(report.facts["reads"]) == 22, report
print(done - started, done - built)
"""


def by_gradients(policy: Any, act: Callable[[Any, Any], Any], probes: list[Any]) -> set[str]:
    """Names of the parameters that get a gradient from the actions."""
    found: set[str] = set()
    for probe in probes:
        policy.zero_grad()
        output = act(policy, probe)
        if hasattr(output, "requires_grad") and output.requires_grad:
            output.sum().backward()
        found |= {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    return found


def by_poison(policy: Any, act: Callable[[Any, Any], Any], probes: list[Any]) -> set[str]:
    """Names of the tensors that, full of NaN, change an action."""
    import torch

    def actions() -> list[Any]:
        torch.manual_seed(0)
        return [torch.as_tensor(act(policy, probe)).clone() for probe in probes]

    expected, found = actions(), set()
    for name, tensor in policy.state_dict().items():
        if tensor.dtype.is_floating_point:
            before = tensor.clone()
            tensor.fill_(float("nan"))
            try:
                if not all(map(torch.equal, actions(), expected)):
                    found.add(name)
            except Exception:
                found.add(name)
            tensor.copy_(before)
    return found


def ours(policy: Any, act: Callable[[Any, Any], Any], probes: list[Any]) -> set[str]:
    """The read set."""
    from weightkit.sync.read_set import read_set

    return set(read_set(policy, act, probes))


def exactness() -> dict[str, Any]:
    """On how many of the hard cases each method gives exactly what is read; the cases it gets wrong."""
    import torch

    from acting_cases import CASES

    wrong: dict[str, list[str]] = {method.__name__: [] for method in (by_gradients, by_poison, ours)}
    for name, case in CASES.items():
        for method in (by_gradients, by_poison, ours):
            policy, act, probes = case.build()
            try:
                exact = method(policy, act, probes) == case.reads
            except Exception:
                exact = False
            if not exact:
                wrong[method.__name__].append(name)
            torch._dynamo.reset()
    return {"cases": len(CASES), "wrong": wrong}


def policy_and_probes() -> tuple[Any, list[Any]]:
    from weightkit.architectures import architecture_named
    from weightkit.architectures.probes import probes

    architecture = architecture_named("drqv2")
    config = architecture.default_config()
    return architecture.build(config).eval(), probes(architecture.inputs(config))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def proof() -> dict[str, Any]:
    import weightkit as wk

    policy, seen = policy_and_probes()
    groups = {"encoder": "send", "actor": "send", "critic": "hold", "critic_target": "hold"}
    manifest = wk.make_manifest(policy, groups)

    def act(net: Any, observation: Any) -> Any:
        return net.act(observation)

    def with_gradients(net: Any, observation: Any) -> Any:
        return net.means(observation)

    works: dict[str, Callable[[], object]] = {
        "proof": lambda: wk.prove_coverage(policy, act, seen, manifest),
        "read set": lambda: ours(policy, act, seen),
        "poison": lambda: by_poison(policy, act, seen),
        "gradients": lambda: by_gradients(policy, with_gradients, seen),
        "acting": lambda: [act(policy, observation) for observation in seen],
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(RUNS):
        for name, work in works.items():
            times[name].append(seconds(work))
    found = {name: statistics.median(each) for name, each in times.items()}
    alone = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
        alone.append([float(word) for word in done.stdout.split()])
    return {
        "parameters": sum(p.numel() for p in policy.parameters()),
        "seconds": found,
        "poison / proof": found["poison"] / found["proof"],
        "proof / acting": found["proof"] / found["acting"],
        "new process, after importing torch": {
            "importing weightkit, building the net and proving": statistics.median(total for total, _ in alone),
            "proving": statistics.median(proving for _, proving in alone),
        },
    }


def tripwire() -> dict[str, Any]:
    from weightkit.sync.inventory import inventory
    from weightkit.sync.tripwire import arm

    plain, seen = policy_and_probes()
    armed = copy.deepcopy(plain)
    held = {item.name for item in inventory(armed) if item.name.startswith("critic")}
    assert arm(armed, held) == ()
    one = {key: value[:1] for key, value in seen[0].items()}
    times: dict[str, list[float]] = {"off": [], "on": []}
    for turn in range(ACTS):
        for name, policy in (("off", plain), ("on", armed))[:: 1 if turn % 2 else -1]:
            times[name].append(seconds(lambda policy=policy: policy.act(one)))  # type: ignore[misc]
    medians = {name: statistics.median(each) for name, each in times.items()}
    tails = {name: statistics.quantiles(each, n=100)[98] for name, each in times.items()}
    return {
        "acts": ACTS,
        "tensors taken away": len(held),
        "median_ms": {name: 1e3 * each for name, each in medians.items()},
        "p99_ms": {name: 1e3 * each for name, each in tails.items()},
        "on / off": medians["on"] / medians["off"],
    }


def main() -> int:
    """Measure, write, print."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    result = {
        "machine": {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()},
        "proof": proof(),
        "exactness": exactness(),
        "tripwire": tripwire(),
    }
    slow = result["proof"]["new process, after importing torch"]
    result["goals"] = {
        f"proof under {MOST_SECONDS} s after torch is imported": max(slow.values()) < MOST_SECONDS,
        "tripwire costs nothing (within 2 %)": abs(result["tripwire"]["on / off"] - 1) < 0.02,
        "exact on every case": not result["exactness"]["wrong"]["ours"],
    }
    (ROOT / "benchmarks" / "results" / "proving.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0 if all(result["goals"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
