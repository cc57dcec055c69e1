"""How long a person waits for ``weightkit --help`` and ``weightkit inspect``, against ``import torch`` in the same run.

Whole processes, alternating, the median of ``RUNS``. Writes benchmarks/results/startup.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 15
COMMANDS = {
    "weightkit --help": ["-m", "weightkit.cli.main", "--help"],
    "weightkit inspect": ["-m", "weightkit.cli.main", "inspect", str(ROOT / "fixtures" / "best_snapshot.pt")],
    "weightkit inspect --json": [
        "-m",
        "weightkit.cli.main",
        "inspect",
        "--json",
        str(ROOT / "fixtures" / "best_snapshot.pt"),
    ],
    "peer: import torch": ["-c", "import torch"],
    "peer: torch.load(weights_only=True)": [
        "-c",
        f"import torch; torch.load({str(ROOT / 'fixtures' / 'best_snapshot.pt')!r}, weights_only=True)",
    ],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one whole process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and write the result."""
    for arguments in COMMANDS.values():
        seconds(arguments)
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    medians = {name: statistics.median(values) for name, values in times.items()}
    peer = medians["peer: torch.load(weights_only=True)"]
    result = {
        "benchmark": "startup",
        "runs": RUNS,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "times_faster_than_torch_load": {
            name: round(peer / value, 1) for name, value in medians.items() if not name.startswith("peer")
        },
    }
    path = ROOT / "benchmarks" / "results" / "startup.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
