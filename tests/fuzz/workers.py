"""Runs mutants in forked children that are watched: a hang or a crash names its number, and the rest goes on."""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import weightkit

HANGS_S = 30.0
MORE_MEMORY = 768 << 20  # what a child may take beyond what it was born with
MOST_GROWTH = 200 << 20  # of resident memory, over one chunk
_PACKAGE = str(Path(weightkit.__file__).parent) + os.sep
_STATE = struct.Struct("<QdQ")
TWICE = 4  # one mutant of so many is judged twice
READING, COMPARING = 0, 1


def scratch() -> str | None:
    """A folder in memory where there is one."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def limit_memory(more: int) -> None:
    """Let this process have ``more`` bytes beyond those that it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    allowed = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


def signature(error: BaseException) -> str:
    """Type of the error, and the innermost place in weightkit that it, or what it came from, went through."""
    what = str(error).split(":", 1)[0][:60] if isinstance(error, AssertionError) else ""
    place = "the judge"
    link: BaseException | None = error
    while link is not None:
        frames = [frame for frame in traceback.extract_tb(link.__traceback__) if frame.filename.startswith(_PACKAGE)]
        if frames:
            place = f"{Path(frames[-1].filename).name}:{frames[-1].name}"
            break
        link = link.__context__
    return f"{type(error).__name__} in {place}" + (f": {what}" if what else "")


@dataclass
class Tally:
    """What was counted and found over some mutants."""

    mutants: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)  # "format|outcome"
    compared: Counter[str] = field(default_factory=Counter)  # "format|class"
    examples: dict[str, int] = field(default_factory=dict)  # class -> the first number in it
    violations: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, other: dict[str, Any]) -> None:
        """Take in what another has counted."""
        self.mutants += other["mutants"]
        self.outcomes.update(other["outcomes"])
        self.compared.update(other["compared"])
        for key, number in other["examples"].items():
            self.examples.setdefault(key, number)
        for key, found in other["violations"].items():
            held = self.violations.setdefault(key, {**found, "count": 0})
            held["count"] += found["count"]

    def violation(self, key: str, number: int, detail: str) -> None:
        """Note one."""
        held = self.violations.setdefault(key, {"number": number, "detail": detail, "count": 0})
        held["count"] += 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "mutants": self.mutants,
            "outcomes": dict(sorted(self.outcomes.items())),
            "compared": dict(sorted(self.compared.items())),
            "examples": dict(sorted(self.examples.items())),
            "violations": self.violations,
        }


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder that goes away again."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=scratch()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Chunk:
    """Some mutants in one child. ``every``: one of so many is compared with the reference, 0 for none."""

    def __init__(self, numbers: range, folder: Path, every: int) -> None:
        self.numbers = numbers
        self.folder = folder
        self.every = every
        self.tally = Tally()
        self.shared = mmap.mmap(-1, mmap.PAGESIZE)
        self.pid = 0
        self.next = numbers.start
        self._answer = folder / "answer.json"

    def start(self) -> None:
        """Fork a child for what is left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        _STATE.pack_into(self.shared, 0, self.next, time.monotonic(), READING)
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                self._work(range(self.next, self.numbers.stop))
                code = 0
            except BaseException:
                (self.folder / "error").write_text(traceback.format_exc(), encoding="utf-8")
            finally:
                os._exit(code)

    def done(self) -> bool:
        """Look after the child; whether everything is judged. A child that died or hangs has its successor started."""
        number, moment, phase = _STATE.unpack_from(self.shared, 0)
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            if moment < 1.0 or time.monotonic() - moment < HANGS_S:  # below 1: it is being written just now
                return False
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._lost(number, phase, "hangs")
        elif os.waitstatus_to_exitcode(status) == 0:
            self.tally.add(json.loads(self._answer.read_text(encoding="utf-8")))
            return True
        else:
            error = self.folder / "error"
            said = error.read_text(encoding="utf-8") if error.exists() else ""
            self._lost(number, phase, f"died with {os.waitstatus_to_exitcode(status)}", said)
        if self.next >= self.numbers.stop:
            return True
        self.start()
        return False

    def _lost(self, number: int, phase: int, how: str, said: str = "") -> None:
        if self._answer.exists():
            self.tally.add(json.loads(self._answer.read_text(encoding="utf-8")))
        if phase == COMPARING:
            self.tally.compared[f"|the reference {how}"] += 1
            self.tally.examples.setdefault(f"the reference {how}", number)
        else:
            self.tally.violation(how, number, said)
        self.tally.mutants += 1
        self.next = number + 1

    def _work(self, numbers: range) -> None:
        from fuzz.judge import Room

        limit_memory(MORE_MEMORY)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        warnings.resetwarnings()
        warnings.simplefilter("error")
        tally = Tally()
        (self.folder / "room").mkdir()
        (self.folder / "files").mkdir()
        room = Room(self.folder / "room", self.folder / "printed")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        with room.entered():
            for number in numbers:
                _STATE.pack_into(self.shared, 0, number, time.monotonic(), READING)
                self._one(number, room, tally)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
        if grown > MOST_GROWTH:
            tally.violation("memory grew", numbers.start, f"{grown >> 20} MiB over the mutants {numbers}")
        self._write(tally)

    def _write(self, tally: Tally) -> None:
        self._answer.write_text(json.dumps(tally.to_dict()), encoding="utf-8")

    def _one(self, number: int, room: Any, tally: Tally) -> None:
        from fuzz.judge import judge
        from fuzz.mutate import mutant

        sample = mutant(number)
        spot = self.folder / "files"
        path = sample.write(spot)
        try:
            judged = judge(path, room, thorough=number % TWICE == 0)
            outcome = judged.outcome
        except (Exception, RecursionError, MemoryError) as error:
            judged, outcome = None, "VIOLATION"
            tally.violation(signature(error), number, "".join(traceback.format_exception(error))[-3000:])
        tally.mutants += 1
        tally.outcomes[f"{sample.format}|{outcome}"] += 1
        if judged is not None and self.every and number % self.every == 0:
            from fuzz.reference import compare

            # A child that dies from here on died of the reference: what was counted until then must not be lost.
            self._write(tally)
            _STATE.pack_into(self.shared, 0, number, time.monotonic(), COMPARING)
            try:
                found = compare(path, sample, judged)
            except Exception as error:
                tally.violation(signature(error), number, "".join(traceback.format_exception(error))[-3000:])
                found = None
            if found is not None:
                tally.compared[f"{sample.format}|{found}"] += 1
                tally.examples.setdefault(f"{sample.format}|{found}", number)
            room.tape.written = ""
        if path != spot / sample.filename or sample.members:
            shutil.rmtree(spot / sample.filename)
        else:
            path.unlink()


def run(
    numbers: range, *, jobs: int, every: int, size: int = 2000, tell: Any = None, seconds: float | None = None
) -> Tally:
    """Judge these mutants in ``jobs`` children at a time; ``tell`` is called with the Tally and the next number."""
    whole = Tally()
    starts = list(range(numbers.start, numbers.stop, size))
    deadline = None if seconds is None else time.monotonic() + seconds
    waiting = iter(starts)
    running: dict[int, Chunk] = {}
    finished: set[int] = set()
    low = numbers.start
    with workplace() as folder:
        while True:
            while len(running) < jobs and (deadline is None or time.monotonic() < deadline):
                first = next(waiting, None)
                if first is None:
                    break
                chunk = Chunk(range(first, min(first + size, numbers.stop)), folder / f"chunk{first}", every)
                running[first] = chunk
                chunk.start()
            if not running:
                return whole
            time.sleep(0.01)
            for first, chunk in list(running.items()):
                if not chunk.done():
                    continue
                del running[first]
                shutil.rmtree(chunk.folder, ignore_errors=True)
                whole.add(chunk.tally.to_dict())
                finished.add(first)
                while low in finished:
                    finished.discard(low)
                    low = min(low + size, numbers.stop)
                if tell is not None:
                    tell(whole, low)


def fail(message: str) -> None:
    """Say it and end."""
    sys.stderr.write(f"error: {message}\n")
    sys.exit(1)
