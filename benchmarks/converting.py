"""How long a pure renaming of a large checkpoint takes, against copying the file.

The peer is ``cp`` of the same file, ``fsync`` of the copy and one read of it: what any tool does at least that writes
the file whole, makes it last and looks at what arrived. ``weightkit convert --map`` besides plans, hashes every tensor
as it is read and compares every written byte with what arrived. Whole processes, in turns; the source is in the page
cache; each output is removed before the next. Medians of ``RUNS``.

    python benchmarks/converting.py [GIGABYTES]     exits with 1 where the claim does not hold

Writes benchmarks/results/converting.json.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = 5
ELEMENTS = 4_000_000  # 16 MB a tensor
LEAST_SPEED = 0.7
MAPPING = """
name = "renamed"
version = 1
source_layout = "a"
target_layout = "b"
[[rule]]
id = "layers"
source = "model.layers.{i}.{p:name}"
target = "net.blocks.{i}.{p:name}"
"""
PEER = """
import os, subprocess, sys
subprocess.run(["cp", sys.argv[1], sys.argv[2]], check=True)
with open(sys.argv[2], "rb", buffering=0) as file:
    os.fsync(file.fileno())
    buffer = bytearray(1 << 20)
    while file.readinto(buffer):
        pass
"""


def make(path: Path, size: float) -> int:
    """A safetensors file of ``size`` GB of numbers that are no hole."""
    count = max(1, round(size * 1e9 / (4 * ELEMENTS)))
    names = [f"model.layers.{number // 2}.{('weight', 'bias')[number % 2]}" for number in range(count)]
    width = 4 * ELEMENTS
    header = {
        name: {"dtype": "F32", "shape": [ELEMENTS], "data_offsets": [width * number, width * (number + 1)]}
        for number, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    block = os.urandom(width)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _ in names:
            file.write(block)
    return path.stat().st_size


def timed(command: list[str], out: Path) -> float:
    """Seconds of a whole process; its output is removed."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took = time.perf_counter() - started
    out.unlink()
    os.sync()
    return took


def main() -> None:
    """Measure, print and write the result."""
    size = float(sys.argv[1]) if sys.argv[1:] else 2.0
    with tempfile.TemporaryDirectory(prefix="weightkit-bench-", dir=os.environ.get("WEIGHTKIT_BENCH_DIR")) as made:
        folder = Path(made)
        source, mapping, out = folder / "in.safetensors", folder / "m.toml", folder / "out.safetensors"
        mapping.write_text(MAPPING, encoding="utf-8")
        total = make(source, size)
        os.sync()
        convert = [sys.executable, "-m", "weightkit", "convert", str(source), "--map", str(mapping), "-o", str(out)]
        copy = [sys.executable, "-c", PEER, str(source), str(out)]
        timed(convert, out), timed(copy, out)
        both = [(timed(convert, out), timed(copy, out)) for _ in range(RUNS)]
    mine, peer = (statistics.median(times) for times in zip(*both, strict=True))
    speed = round(peer / mine, 2)
    pairs = [round(theirs / ours, 2) for ours, theirs in both]
    claim = f"a pure renaming runs at {LEAST_SPEED} times the speed of cp, fsync and one read, or better"
    result = {
        "benchmark": "converting",
        "runs": RUNS,
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "bytes": total,
        "weightkit_s": round(mine, 2),
        "copy_s": round(peer, 2),
        "weightkit_gb_per_s": round(total / mine / 1e9, 2),
        "speed_against_copy": speed,
        "pairs": pairs,
        "holds": {claim: speed >= LEAST_SPEED},
    }
    path = ROOT / "benchmarks" / "results" / "converting.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    sys.exit(speed < LEAST_SPEED)


if __name__ == "__main__":
    main()
