"""``./dev campaign fuzz``: many mutants, then the coverage-guided fuzzer, then a summary; broken off, it goes on."""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import weightkit
from fuzz.workers import Tally, fail, run, workplace

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".fuzz"
_FORMATS = Path(weightkit.__file__).parent / "formats"
_FINAL = re.compile(r"#(\d+)\s+DONE\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


def main() -> None:
    """Run what the arguments say; exit code 1 where anything was found."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--mutants", type=int, default=1_000_000, help="judge the mutants 0 to N - 1")
    words.add_argument("--guided", type=int, default=1800, help="seconds for the coverage-guided fuzzer")
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    words.add_argument("--every", type=int, default=20, help="one of so many is compared with the reference, 0: none")
    words.add_argument("--kept", type=Path, default=KEPT, help="the folder of state, corpus and summary")
    words.add_argument("--fresh", action="store_true", help="start from mutant 0 again")
    chosen = words.parse_args()
    chosen.kept.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "python": platform.python_version()}
    if chosen.mutants:
        summary["mutants"] = mutants(chosen)
    if chosen.guided:
        summary["guided"] = guided(chosen.kept, chosen.guided)
    text = json.dumps(summary, indent=1)
    (chosen.kept / "summary.json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")
    found = [key for part in ("mutants", "guided") for key in summary.get(part, {}).get("violations", {})]
    if found:
        fail(f"{len(found)} findings: {'; '.join(found)}")


def code() -> str:
    """The digest of the formats' source, so that a summary says what was judged."""
    digest = hashlib.sha256()
    for path in sorted(_FORMATS.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def warm_up() -> None:
    """Import everything, so that children share it, and what is edited meanwhile is not mixed in."""
    from fuzz import judge, mutate, reference, seeds  # noqa: F401
    from weightkit.formats import FORMATS, format_named

    for name in FORMATS:
        format_named(name)
    with workplace() as folder:
        (folder / "room").mkdir()
        with judge.Room(folder / "room", folder / "printed").entered() as room:
            for index, sample in enumerate(seeds.samples()):
                spot = folder / str(index)
                spot.mkdir()
                path = sample.write(spot)
                reference.compare(path, sample, judge.judge(path, room, thorough=True))
                room.tape.written = ""
    gc.collect()
    gc.freeze()


def mutants(chosen: argparse.Namespace) -> dict[str, Any]:
    """Judge what the state file says is left."""
    state_file = chosen.kept / "state.json"
    state: dict[str, Any] = {"next": 0, "seconds": 0.0, "codes": [], "tally": Tally().to_dict()}
    if state_file.exists() and not chosen.fresh:
        state = json.loads(state_file.read_text(encoding="utf-8"))
    if code() not in state["codes"]:
        state["codes"].append(code())
    before = Tally()
    before.add(state["tally"])
    start, told = time.monotonic(), time.monotonic()
    spent = state["seconds"]

    def tell(tally: Tally, low: int) -> None:
        nonlocal told
        if time.monotonic() < told + 5 and low < chosen.mutants:
            return
        told = time.monotonic()
        whole = Tally()
        whole.add(state["tally"])
        whole.add(tally.to_dict())
        held = {
            "next": low, "seconds": round(spent + told - start, 1), "codes": state["codes"], "tally": whole.to_dict()
        }  # fmt: skip
        partial = state_file.with_suffix(".part")
        partial.write_text(json.dumps(held), encoding="utf-8")
        partial.replace(state_file)
        rate = tally.mutants / max(told - start, 0.001)
        sys.stderr.write(f"{whole.mutants} mutants, {rate:.0f}/s, {len(whole.violations)} findings\n")

    if state["next"] < chosen.mutants:
        warm_up()
        found = run(range(state["next"], chosen.mutants), jobs=chosen.jobs, every=chosen.every, tell=tell)
        before.add(found.to_dict())
        spent += time.monotonic() - start
    return {"seconds": round(spent, 1), "codes": state["codes"], **before.to_dict()}


def guided(kept: Path, seconds: int) -> dict[str, Any]:
    """The coverage-guided fuzzer, half of the time with our edits and half with libFuzzer's, on one corpus."""
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("warning: atheris is not installed: no coverage-guided fuzzing\n")
        return {"skipped": "atheris is not installed"}
    phases: list[dict[str, Any]] = []
    violations: dict[str, Any] = {}
    for edits in ("own", "libfuzzer"):
        left = seconds // 2
        for attempt in range(1, 20):
            if left < 5:
                break
            start = time.monotonic()
            phase = _phase(kept, edits, left, attempt, violations)
            phases.append(phase)
            left -= int(time.monotonic() - start) + 1
    return {"code": code(), "phases": phases, "violations": violations}


def _phase(kept: Path, edits: str, seconds: int, attempt: int, violations: dict[str, Any]) -> dict[str, Any]:
    report = kept / f"guided_{edits}_{attempt}.json"
    with workplace() as folder, (kept / f"guided_{edits}_{attempt}.log").open("w+", encoding="utf-8") as log:
        words = [sys.executable, "-m", "fuzz.guided", report, kept / "corpus", folder, seconds, attempt, edits]
        done = subprocess.run(list(map(str, words)), stdout=log, stderr=log, check=False)
        log.seek(0)
        said = log.read()
    found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {"violations": {}}
    violations.update(found.pop("violations"))
    if done.returncode:
        violations[f"{edits}: ended with {done.returncode}"] = {"said": said[-3000:]}
    final = _FINAL.search(said)
    if final:
        found |= dict(zip(("runs", "coverage", "features", "corpus"), map(int, final.groups()), strict=True))
    return {"edits": edits, **found}


if __name__ == "__main__":
    main()
