"""How long a person waits for ``weightkit inspect`` on large files, and how much memory it takes, against torch and
safetensors in the same run.

Whole processes, alternating; median and least of ``RUNS`` by wall clock and by CPU time, the largest resident set by
wait4. Files are made in a temporary folder (about 2.5 GB; those of safetensors are a header and a hole). Each run that
counts follows one of the same command that does not, so that all it touches is in the page cache, whatever the system
took out of it since the last round (a machine that reclaims cold pages made whoever came first pay for the disk); the
commands of the scaling rows alone are not run twice. What runs is a copy of the package that ``compileall`` has
compiled to bytecode, as pip does on installation and as torch is, by a console script as current installers write it
(pip 26, uv; that of pip 23 imports ``re`` besides).
Most of a peer's time is the import of torch, which has a row of its own. This process imports neither torch nor numpy,
because a child's resident set counts from that of its parent; the row of ``pass`` shows the least that can be measured.

    python benchmarks/reading.py          exits with 1 where a claim does not hold

Writes benchmarks/results/reading.json.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RUNS = 7
TENSORS, SHAPE = 2_000, (256, 512)  # 1.05 GB of float32
LARGE_TENSORS, LARGE_ELEMENTS = 5_000, 250_000  # 5.0 GB
SHARDS = 8
SCALE = (1_000, 10_000, 100_000)
LEAST_SPEED_UP, MOST_RSS_MB, MOST_SLOPE_RATIO = 20, 60, 1.5


class Cost(NamedTuple):
    """What one process took."""

    wall: float
    cpu: float
    rss: float


def name_of(number: int) -> str:
    """Names as a network has them, four tensors a block."""
    kind = ("attn.weight", "attn.bias", "mlp.weight", "mlp.bias")[number % 4]
    return f"actor.blocks.{number // 4}.{kind}"


def sparse_safetensors(path: Path, names: list[str], elements: int) -> None:
    """A safetensors file of float32 tensors whose elements are a hole."""
    size = 4 * elements
    header = {
        name: {"dtype": "F32", "shape": [elements], "data_offsets": [size * number, size * (number + 1)]}
        for number, name in enumerate(names)
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size * len(names))


def make(folder: Path) -> None:
    """The files to read; in a process of its own, because it needs torch."""
    import torch

    state = {name_of(number): torch.rand(SHAPE) for number in range(TENSORS)}
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    for count in SCALE:
        torch.save({name_of(number): torch.rand(4) for number in range(count)}, folder / f"{count}.pt")
    sparse_safetensors(folder / "large.safetensors", [name_of(n) for n in range(LARGE_TENSORS)], LARGE_ELEMENTS)
    shards = folder / "shards"
    shards.mkdir()
    places = {name_of(n): f"model-{n * SHARDS // TENSORS + 1:05}-of-{SHARDS:05}.safetensors" for n in range(TENSORS)}
    elements = SHAPE[0] * SHAPE[1]
    for shard in sorted(set(places.values())):
        sparse_safetensors(shards / shard, [name for name, place in places.items() if place == shard], elements)
    index = {"metadata": {"total_size": 4 * elements * TENSORS}, "weight_map": places}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))


SCRIPT = """\
#!{python}
import sys
from weightkit.cli.entry import main
if __name__ == '__main__':
    sys.argv[0] = sys.argv[0].removesuffix('.exe')
    sys.exit(main())
"""


def install(site: Path) -> None:
    """A compiled copy of the package with its console script beside it, for this process's children."""
    shutil.copytree(ROOT / "weightkit", site / "weightkit", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(site)], check=True)
    script = site / "bin" / "weightkit"
    script.parent.mkdir()
    script.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
    script.chmod(0o755)
    os.environ["PYTHONPATH"] = str(site)


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, by name."""
    inspect = [str(folder / "site" / "bin" / "weightkit"), "inspect"]

    def python(*lines: str) -> list[str]:
        return [sys.executable, "-c", "\n".join(lines)]

    def torch_load(name: str, options: str = "mmap=True, weights_only=True") -> list[str]:
        return python("import torch", f"torch.load({str(folder / name)!r}, {options})")

    paths = {kind: str(folder / kind) for kind in ("zip.pt", "legacy.pt", "large.safetensors", "shards")}
    last = name_of(TENSORS - 1)
    listed = "for key in file.keys(): part = file.get_slice(key); part.get_shape(), part.get_dtype()"
    return {
        "python -c pass": python("pass"),
        "import torch": python("import torch"),
        "inspect 1 GB .pt": [*inspect, paths["zip.pt"]],
        "inspect --json 1 GB .pt": [*inspect, paths["zip.pt"], "--json"],
        "peer: torch.load(mmap=True, weights_only=True) 1 GB .pt": torch_load("zip.pt"),
        "inspect 1 GB legacy .pt": [*inspect, paths["legacy.pt"]],
        "peer: torch.load(weights_only=True) 1 GB legacy .pt": torch_load("legacy.pt", "weights_only=True"),
        "inspect 5 GB safetensors": [*inspect, paths["large.safetensors"]],
        "inspect --json 5 GB safetensors": [*inspect, paths["large.safetensors"], "--json"],
        "peer: safe_open, names and shapes, 5 GB safetensors": python(
            "import torch",
            "from safetensors import safe_open",
            f"with safe_open({paths['large.safetensors']!r}, framework='pt') as file:",
            f"    {listed}",
        ),
        f"inspect 1 GB in {SHARDS} shards": [*inspect, paths["shards"]],
        f"peer: safe_open, names and shapes, {SHARDS} shards": python(
            "import torch",
            "from pathlib import Path",
            "from safetensors import safe_open",
            f"for shard in sorted(Path({paths['shards']!r}).glob('*.safetensors')):",
            "    with safe_open(shard, framework='pt') as file:",
            f"        {listed}",
        ),
        "read one tensor of 1 GB .pt": python(
            "from weightkit.formats import open_checkpoint",
            f"open_checkpoint({paths['zip.pt']!r}).read({last!r}).sum()",
        ),
        "peer: torch.load(mmap=True), one tensor of 1 GB .pt": python(
            "import torch",
            f"torch.load({paths['zip.pt']!r}, mmap=True, weights_only=True)[{last!r}].sum()",
        ),
        **{f"inspect {count} tensors": [*inspect, str(folder / f"{count}.pt")] for count in SCALE},
        **{
            f"peer: torch.load(mmap=True, weights_only=True) {count} tensors": torch_load(f"{count}.pt")
            for count in SCALE
        },
    }


def cost(command: list[str]) -> Cost:
    """One whole process, from its start until it is reaped."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    started = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"failed: {command}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def summary(costs: list[Cost]) -> dict[str, float]:
    """Milliseconds and MiB of one command."""
    wall, cpu, rss = zip(*costs, strict=True)
    return {
        "wall_ms_median": round(1000 * statistics.median(wall), 1),
        "wall_ms_least": round(1000 * min(wall), 1),
        "cpu_ms_median": round(1000 * statistics.median(cpu), 1),
        "cpu_ms_least": round(1000 * min(cpu), 1),
        "rss_mib_most": round(max(rss), 1),
    }


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """How many times faster each command is than the peer that follows it, by the medians."""
    found = {}
    names = list(rows)
    for place, name in enumerate(names):
        if name.startswith("peer: ") or name in ("python -c pass", "import torch"):
            continue
        scaled = name.endswith(" tensors") and f"peer: torch.load(mmap=True, weights_only=True) {name[8:]}"
        peer = scaled or next(other for other in names[place:] if other.startswith("peer: "))
        found[name] = {
            kind: round(rows[peer][f"{kind}_ms_median"] / rows[name][f"{kind}_ms_median"], 1)
            for kind in ("wall", "cpu")
        }
    return found


def scaling(rows: dict[str, dict[str, float]]) -> dict[str, object]:
    """Time against the number of tensors: what a further thousand costs, between 1k and 10k and between 10k and 100k.

    By the least CPU time of each, which other processes on the machine disturb least.
    """
    times = [rows[f"inspect {count} tensors"]["cpu_ms_least"] for count in SCALE]
    slopes = [
        1000 * (late - early) / (more - fewer)
        for (early, late), (fewer, more) in zip(itertools.pairwise(times), itertools.pairwise(SCALE), strict=True)
    ]
    return {
        "cpu_ms_least": dict(zip(map(str, SCALE), times, strict=True)),
        "ms_per_further_1000_tensors": [round(slope, 2) for slope in slopes],
        "ratio_of_slopes": round(slopes[1] / slopes[0], 2),
    }


def measure(folder: Path) -> dict[str, list[Cost]]:
    """Every command ``RUNS`` times, in turns, after one that does not count."""
    tasks = commands(folder)
    for command in tasks.values():
        cost(command)
    costs: dict[str, list[Cost]] = {name: [] for name in tasks}
    for _ in range(RUNS):
        for name, command in tasks.items():
            if not name.endswith(" tensors"):
                cost(command)
            costs[name].append(cost(command))
    return costs


def claims(result: dict[str, dict[str, float]], faster: dict[str, dict[str, float]], ratio: float) -> dict[str, bool]:
    """What is claimed of reading, and whether this run shows it."""
    found = {}
    for name in ("1 GB .pt", "5 GB safetensors"):
        least = min(faster[f"inspect {name}"].values())
        found[f"inspect {name}: at least {LEAST_SPEED_UP} times faster, by wall clock and CPU"] = (
            least >= LEAST_SPEED_UP
        )
        found[f"inspect {name}: at most {MOST_RSS_MB} MiB"] = result[f"inspect {name}"]["rss_mib_most"] <= MOST_RSS_MB
    found[f"slopes up to 10k and 100k tensors differ by a factor of {MOST_SLOPE_RATIO} at most"] = (
        1 / MOST_SLOPE_RATIO <= ratio <= MOST_SLOPE_RATIO
    )
    return found


def main() -> None:
    """Measure, print and write the result."""
    with tempfile.TemporaryDirectory(prefix="weightkit-bench-") as made:
        folder = Path(made)
        install(folder / "site")
        subprocess.run([sys.executable, __file__, "make", made], check=True)
        bytes_of = {name: (folder / name).stat().st_size for name in ("zip.pt", "legacy.pt", "large.safetensors")}
        costs = measure(folder)
    rows = {name: summary(found) for name, found in costs.items()}
    faster = ratios(rows)
    scale = scaling(rows)
    ratio = scale["ratio_of_slopes"]
    assert isinstance(ratio, float)
    holds = claims(rows, faster, ratio)
    result = {
        "benchmark": "reading",
        "runs": RUNS,
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "safetensors": importlib.metadata.version("safetensors"),
        "cpus": len(os.sched_getaffinity(0)),
        "tensors": {"1 GB .pt": TENSORS, "5 GB safetensors": LARGE_TENSORS},
        "bytes": bytes_of,
        "rows": rows,
        "times_faster_than_peer": faster,
        "scaling": scale,
        "holds": holds,
    }
    path = ROOT / "benchmarks" / "results" / "reading.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    sys.exit(not all(holds.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]))
    else:
        main()
