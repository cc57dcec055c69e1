"""What every mutant must do: end in one of the documented ways, twice the same, and touch nothing else."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from weightkit.architectures import recognise
from weightkit.cli.inspect_text import shown
from weightkit.cli.output import failure_report, report_json
from weightkit.core.checkpoint import Checkpoint
from weightkit.errors import CorruptFile, FormatError, LimitExceeded, NotDenseError, UnknownFormat, UnsafeContent
from weightkit.formats import Limits, open_checkpoint
from weightkit.verbs.diff import diff_of
from weightkit.verbs.inspect import inspect, report_on

if TYPE_CHECKING:
    from weightkit.core.report import Report

LIMITS = Limits(
    opcodes=200_000, nodes=100_000, marks=5_000, memo=100_000, tensors=5_000, entries=1_000, header_bytes=1 << 20,
    json_bytes=1 << 18, expanded_bytes=1 << 20, wall_s=4.0,
)  # fmt: skip
MOST_SECONDS = 5.0
EXITS = {CorruptFile: 3, FormatError: 3, UnknownFormat: 3, NotDenseError: 3, UnsafeContent: 4, LimitExceeded: 5}
_MOST_READ = 200


class Violation(AssertionError):
    """A mutant that did what no file may do."""


@dataclass(frozen=True)
class Judged:
    """How a mutant ended: in a word, and as what it was opened, where it was."""

    outcome: str
    checkpoint: Checkpoint | None = None
    why: str = ""


class Tape:
    """Stands for stdout and stderr, and remembers whether anything was written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> int:
        """Remember it."""
        self.written += text[:200]
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""

    def isatty(self) -> bool:
        """No terminal."""
        return False


class Room:
    """An empty working directory, and stdout and stderr that nobody may write to."""

    def __init__(self, folder: Path, beside: Path) -> None:
        self.folder = folder
        self.tape = Tape()
        self.printed = beside
        self._descriptor = -1

    @contextmanager
    def entered(self) -> Iterator[Room]:
        """Within the block this process works in the room."""
        kept = [os.dup(1), os.dup(2)]
        before, streams = os.getcwd(), (sys.stdout, sys.stderr)
        self._descriptor = os.open(self.printed, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            os.dup2(self._descriptor, 1)
            os.dup2(self._descriptor, 2)
            sys.stdout = sys.stderr = self.tape  # type: ignore[assignment]
            os.chdir(self.folder)
            yield self
        finally:
            os.chdir(before)
            sys.stdout, sys.stderr = streams
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for descriptor in (*kept, self._descriptor):
                os.close(descriptor)
            self._descriptor = -1

    def check(self) -> None:
        """Raise Violation where something was printed or a file was made; the room is as new afterwards."""
        if self.tape.written:
            text, self.tape.written = self.tape.written, ""
            raise Violation(f"printed {text!r}")
        if self._descriptor >= 0 and os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, 0)
            raise Violation("something was printed beside Python")
        left = os.listdir()
        if left:
            for name in left:
                with suppress(OSError):
                    os.unlink(name)
            raise Violation(f"files were made: {left}")


def judge(path: Path, room: Room, *, thorough: bool) -> Judged:
    """How ``path`` ends. Raises Violation, or whatever else escaped from weightkit, where that is not allowed.

    With ``thorough`` everything is done a second time and compared, and what a person would read is drawn.
    """
    before = os.listdir(path if path.is_dir() else path.parent)
    start = time.process_time()
    found = _judged(path, thorough)
    seconds = time.process_time() - start
    if seconds > MOST_SECONDS:
        raise Violation(f"took {seconds:.1f} s")
    room.check()
    if os.listdir(path if path.is_dir() else path.parent) != before:
        raise Violation("files were made beside the mutant")
    return found


def _judged(path: Path, thorough: bool) -> Judged:
    try:
        checkpoint = open_checkpoint(path, LIMITS)
    except FormatError as error:
        document = _failure(error)
        if thorough:
            _check_refused_again(path, document)
        return Judged(f"{type(error).__name__} {error.exit_code}", why=error.message.replace(f"{path}", ""))
    report = report_on(checkpoint, recognise(checkpoint))
    document = _report(report)
    if report.exit_code != (4 if checkpoint.verdict == "unsafe" else 0):
        raise Violation(f"verdict {checkpoint.verdict}, exit code {report.exit_code}")
    digest = _digest(checkpoint)
    if thorough:
        _check_text(shown(report))
        if document != report_json(inspect(path, limits=LIMITS)):
            raise Violation("two openings, two reports")
        second = open_checkpoint(path, LIMITS)
        if _digest(second) != digest:
            raise Violation("two openings, two contents")
        _check_diff(checkpoint, second)
    return Judged(f"opened {checkpoint.verdict or 'without verdict'} {report.exit_code}", checkpoint)


def _check_refused_again(path: Path, document: str) -> None:
    try:
        inspect(path, limits=LIMITS)
    except FormatError as again:
        if _failure(again) != document:
            raise Violation(f"two openings, two errors: {document} and {again}") from None
        return
    raise Violation(f"refused, then opened: {document}")


def _failure(error: FormatError) -> str:
    if EXITS.get(type(error), error.exit_code) != error.exit_code or error.exit_code not in (3, 4, 5):
        raise Violation(f"exit code {error.exit_code} of {type(error).__name__}")
    for line in f"{error.message}\n{error.hint}".split("\n"):
        if not line.isprintable():
            raise Violation(f"an error that is not printable: {line!r}")
    return report_json(failure_report("inspect", error))


def _report(report: Report) -> str:
    for finding in report.findings:
        for part in (finding.subject, finding.message, finding.hint):
            if not part.isprintable():
                raise Violation(f"finding {finding.code} is not printable: {part!r}")
    return report_json(report)


def _check_text(text: str) -> None:
    for line in text.split("\n"):
        if not line.isprintable():
            raise Violation(f"a line for people that is not printable: {line!r}")
    text.encode()


def _digest(checkpoint: Checkpoint) -> str:
    """The digest of everything that can be read. Raises Violation where an array is not what its spec says."""
    digest = hashlib.blake2b(repr(sorted(checkpoint.state.aliases.items())).encode("utf-8", "backslashreplace"))
    for name in list(checkpoint.state)[:_MOST_READ]:
        spec = checkpoint.state[name]
        try:
            array = checkpoint.read(name)
        except NotDenseError as error:
            _failure(error)
            if name not in checkpoint.not_dense:
                raise Violation(f"{name!r} is not listed as not dense, and is not") from None
            continue
        except FormatError as error:
            digest.update(_failure(error).encode())
            continue
        if name in checkpoint.not_dense:
            raise Violation(f"{name!r} is said to be not dense, and was read")
        if array.shape != spec.shape or array.dtype.name != spec.dtype.name:
            raise Violation(f"{name!r}: {array.dtype}{array.shape}, expected {spec}")
        if not (array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative):
            raise Violation(f"{name!r}: not contiguous, not writable or not native")
        digest.update(array.tobytes())
    return digest.hexdigest()


def _check_diff(one: Checkpoint, two: Checkpoint) -> None:
    """A file does not differ from itself."""
    try:
        report = diff_of(one, two, values=True)
    except FormatError as error:
        _failure(error)
        return
    _report(report)
    facts = report.facts
    differs = [facts[key] for key in ("differences", "only_a", "only_b", "renames") if facts[key]]
    equal = not facts["not_compared"]  # what cannot be compared is not called equal
    if differs or facts["equal"] is not equal or report.exit_code != (4 if one.verdict == "unsafe" else int(not equal)):
        raise Violation(f"differs from itself: {report_json(report)[:500]}")
