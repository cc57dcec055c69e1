"""The coverage-guided fuzzer: libFuzzer on weightkit's formats, with the edits of ``fuzz.mutate`` among its own.

Run by ``fuzz.campaign``; needs atheris. Its input is one byte that says where the rest goes: a file of its own under
one of several names, or one file of a folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from fuzz.mutate import edited
from fuzz.seeds import Sample, samples
from fuzz.workers import limit_memory, signature

TOKENS = (
    b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08", b"\x93NUMPY\x01\x00",
    b"descr", b"data_offsets", b"fortran_order", b"shape", b"dtype", b"__metadata__", b"weightkit.aliases",
    b"weightkit.json", b"weight_map", b":serialized:", b"F32", b"BF16", b"BOOL", b"<f4", b"|b1", b"archive/data.pkl",
    b"archive/data/0", b"archive/byteorder", b"policy.pth", b"__weightkit__.json",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n)R", b"\x8a\x0a",
    b"state_dict", b"_parameters", b"_buffers", b"_modules", b"param_groups", b"cnumpy\ndtype\n", b"storage", b"cpu",
    b"FB", b"\x80\x02", b"\x80\x04\x95",
)  # fmt: skip


def places() -> list[Sample]:
    """Where an input can go: one file under a name, or, with ``opened`` as ``file|opened``, one file of a folder."""
    names = ("model.pt", "model.bin", "model.npz", "sac.zip", "stats.pkl", "model.safetensors", "model.index.json", "x")
    found = [Sample(name, "", name) for name in names]
    for sample in samples():
        found += [replace(sample, content=name.encode()) for name in sample.members]
    return found


def inputs() -> list[bytes]:
    """The good files as inputs."""
    where = places()
    single = {place.filename: index for index, place in enumerate(where) if not place.members}
    found = []
    for sample in samples():
        if sample.members:
            for index, place in enumerate(where):
                if place.name == sample.name:
                    found.append(bytes([index]) + sample.members[place.content.decode()])
        else:
            found.append(bytes([single.get(sample.filename, single["model.pt"])]) + sample.content)
    return found


def dictionary() -> str:
    """The tokens in libFuzzer's spelling."""
    return "".join('"' + "".join(f"\\x{byte:02x}" for byte in token) + '"\n' for token in TOKENS)


class Target:
    """One run of the fuzzer: what was counted and found; ``report`` is written as it goes."""

    def __init__(self, report: Path, folder: Path) -> None:
        from fuzz.judge import Room, judge

        self.report = report
        self.folder = folder
        self.places = places()
        (folder / "room").mkdir()
        self.room = Room(folder / "room", folder / "printed")
        self.judge = judge
        self.outcomes: Counter[str] = Counter()
        self.violations: dict[str, Any] = {}
        self.runs = 0
        self.start = time.monotonic()
        self.written = self.start
        self.laid: Path | None = None

    def write(self) -> None:
        """Write down how things stand."""
        held = {
            "runs": self.runs, "seconds": round(time.monotonic() - self.start, 1), "outcomes": dict(self.outcomes),
            "violations": self.violations,
        }  # fmt: skip
        self.report.write_text(json.dumps(held, indent=1), encoding="utf-8")

    def __call__(self, data: bytes) -> None:
        """Judge one input. Nothing escapes: what was found is written down and the run goes on."""
        if len(data) < 2:
            return
        self.runs += 1
        place = self.places[data[0] % len(self.places)]
        if place.members:
            sample = replace(place, members={**place.members, place.content.decode(): data[1:]}, content=b"")
        else:
            sample = replace(place, content=data[1:])
        spot = self.folder / place.name if place.members else self.folder
        spot.mkdir(exist_ok=True)
        path = sample.write(spot)
        try:
            outcome = self.judge(path, self.room, thorough=self.runs % 4 == 0).outcome
        except (Exception, RecursionError) as error:
            outcome = "VIOLATION"
            where = signature(error)
            if where not in self.violations:
                self.violations[where] = {"input": data.hex(), "traceback": traceback.format_exc()[-3000:]}
                self.write()
        if not place.members:
            path.unlink()
        self.outcomes[outcome] += 1
        if time.monotonic() > self.written + 10:
            self.written = time.monotonic()
            self.write()


def mutator(data: bytes, longest: int, seed: int) -> bytes:
    """One or two edits that know what they edit; now and then another place for the same bytes."""
    rng = Random(seed)
    if len(data) < 2:
        return bytes([rng.randrange(256)]) + rng.choice(TOKENS)
    first, rest = data[:1], bytes(data[1:])
    if rng.random() < 0.02:
        first = bytes([rng.randrange(256)])
    for _ in range(rng.choice((1, 1, 2))):
        way = rng.random()
        if way < 0.1 and rest:
            at = rng.randrange(len(rest))
            rest = rest[:at] + rng.choice(TOKENS) + rest[at + rng.choice((0, 0, 4)) :]
        else:
            made = edited(rng, rest, blind=0.25)
            rest = made if len(made) < longest else rest
    return (first + rest)[:longest]


def main() -> None:
    """``python -m fuzz.guided REPORT CORPUS FOLDER SECONDS SEED own|libfuzzer``: whose edits are made."""
    import atheris

    report, corpus, folder = (Path(word).resolve() for word in sys.argv[1:4])
    seconds, seed = int(sys.argv[4]), int(sys.argv[5])
    with atheris.instrument_imports(include=["weightkit"], enable_loader_override=False):
        import weightkit.architectures
        import weightkit.formats
        import weightkit.verbs.diff
        import weightkit.verbs.inspect

        for name in weightkit.formats.FORMATS:
            weightkit.formats.format_named(name)
        import weightkit.formats._torch_state
    corpus.mkdir(parents=True, exist_ok=True)
    for index, content in enumerate(inputs()):
        (corpus / f"seed-{index}").write_bytes(content)
    words = corpus.with_name("tokens.dict")
    words.write_text(dictionary(), encoding="ascii")
    warnings.simplefilter("error")
    limit_memory(1 << 30)
    target = Target(report, folder)
    target.write()
    arguments = [
        sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-max_len=9000", "-timeout=20", f"-seed={seed}",
        f"-dict={words}", "-print_final_stats=1", "-rss_limit_mb=2500", f"-artifact_prefix={corpus.parent}/",
    ]  # fmt: skip
    own = {"custom_mutator": mutator} if sys.argv[6] == "own" else {}
    atheris.Setup(arguments, target, **own)
    sys.stdout = target.room.tape  # type: ignore[assignment]
    os.chdir(target.room.folder)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
