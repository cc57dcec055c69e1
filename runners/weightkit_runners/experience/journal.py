"""What the learner has accepted, on disk before it says so: a kill at any moment loses nothing and repeats nothing."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from weightkit.errors import WriteError
from weightkit_runners.experience.journal_records import Accepted, Header, batch_body, header_body, read_body
from weightkit_runners.experience.journal_segment import FORMAT, START, SegmentFile, first_record, records, sync_file
from weightkit_runners.experience.messages import AcceptedBatch, AcceptedEpoch

logger = logging.getLogger(__name__)

SUFFIX = ".journal"
MAX_SEGMENT_BYTES = 64 << 20
SEGMENTS_AT_LEAST = 8  # a journal at its capacity gives up an eighth of it at a time


@dataclass(slots=True)
class _Segment:
    """A file of the journal; ``before``: transitions accepted before it, None where its first record is damaged."""

    number: int
    path: Path
    size_bytes: int
    before: int | None
    holds_batches: bool = True


@dataclass(slots=True)
class _Append:
    """A record that has been written; ``done`` when the disk has it, or ``error`` says that it has not."""

    batch: AcceptedBatch
    done: bool = False
    error: OSError | None = None


class ExperienceJournal:
    """Accepted batches in ``folder``, in order. ``append`` returns when the batch is on the disk.

    The files hold at most ``capacity_bytes``: the oldest are deleted, and the accepted numbers that they held stand at
    the beginning of every newer one. ``sync=False`` leaves the writing to the system: a killed process still loses
    nothing, a machine that loses power may. Raises WriteError where another process has the journal open, or the
    folder takes no files.
    """

    def __init__(self, folder: Path, *, capacity_bytes: int, sync: bool = True) -> None:
        self.folder = Path(folder)
        self._capacity_bytes = capacity_bytes
        self._segment_bytes = min(MAX_SEGMENT_BYTES, max(1, capacity_bytes // SEGMENTS_AT_LEAST))
        self._sync = sync
        self._accepted = Accepted()
        self._segments: list[_Segment] = []
        self._number = 0
        self._file: SegmentFile | None = None  # the last segment, once there is something to write
        self._unsynced: list[_Append] = []
        self._writing = threading.Lock()
        self._committing = threading.Lock()  # taken before _writing where both are
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock(self.folder)
        except OSError as error:
            raise _write_error(self.folder, error) from None
        try:
            self._recover()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def accepted(self) -> dict[tuple[str, str], AcceptedEpoch]:
        """What was accepted by actor and epoch, the one that was heard of last at the end."""
        with self._writing:
            return dict(self._accepted.epochs)

    @property
    def transitions(self) -> int:
        """Transitions accepted since the journal began, those that were deleted with the oldest files too."""
        return self._accepted.transitions

    @property
    def size_bytes(self) -> int:
        """What the files hold together."""
        with self._writing:
            return sum(segment.size_bytes for segment in self._segments)

    def read(self, newest: int | None = None) -> Iterator[AcceptedBatch]:
        """The batches in the order of acceptance, each once; with ``newest``, at least that many transitions where
        there are so many, the last of them the newest. To be read before the first ``append``.

        Damaged records are left out and reported in the log.
        """
        first = 0
        if newest is not None:
            wanted = self.transitions - newest
            known = [i for i, s in enumerate(self._segments) if s.before is not None and s.before <= wanted]
            first = max(known, default=0)
        seen = Accepted()
        for segment in self._segments[first:]:
            for record in self._records(segment):
                if isinstance(record, Header):
                    seen.add_header(record)
                elif seen.add(record):
                    yield record

    def append(self, batch: AcceptedBatch) -> None:
        """Keep a batch, durably on return. Raises WriteError where the disk does not take it; it is not kept then.

        Batches that come together from several threads share one wait for the disk.
        """
        body = batch_body(batch)
        append = _Append(batch)
        with self._writing:
            self._write(body)
            self._unsynced.append(append)
        with self._committing:
            if not (append.done or append.error):
                self._commit()
        if append.error is not None:
            raise _write_error(self.folder, append.error)

    def forget(self, actor_id: str, epoch: str) -> None:
        """Leave an epoch out of what later files begin with."""
        with self._writing:
            self._accepted.epochs.pop((actor_id, epoch), None)

    def close(self) -> None:
        """Free the folder for another process; nothing can be appended afterwards."""
        with self._committing:
            self._commit()
            with self._writing:
                if self._file is not None:
                    self._file.close()
                    self._file = None
                if self._lock_fd >= 0:
                    os.close(self._lock_fd)
                    self._lock_fd = -1

    def __enter__(self) -> ExperienceJournal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- writing

    def _write(self, body: bytes) -> None:
        if self._lock_fd < 0:
            raise WriteError(f"{self.folder}: the journal is closed")
        try:
            file = self._file or self._start_segment()
            file.append(body)
        except OSError as error:
            raise _write_error(self.folder, error) from None
        self._segments[-1].size_bytes = file.size_bytes
        self._segments[-1].holds_batches = True

    def _commit(self) -> None:
        """Bring all that is written to the disk, in one go; others may write meanwhile."""
        with self._writing:
            file, appends, self._unsynced = self._file, self._unsynced, []
            reached = file.size_bytes if file else 0
        if file is None or not appends:
            return
        error = self._synced(file)
        with self._writing:
            if error is None:
                self._settle(file, appends, reached)
                if file.size_bytes < self._segment_bytes:
                    self._delete_oldest()
                    return
                appends, self._unsynced = self._unsynced, []  # the file is full: what came meanwhile is its last
                error = self._synced(file) if appends else None
            if error is None:
                self._settle(file, appends, file.size_bytes)
            else:
                self._give_up(file, [*appends, *self._unsynced], error)
            file.close()
            self._file = None
            self._delete_oldest()

    def _synced(self, file: SegmentFile) -> OSError | None:
        try:
            if self._sync:
                file.sync()
        except OSError as error:
            return error
        return None

    def _settle(self, file: SegmentFile, appends: list[_Append], reached: int) -> None:
        for append in appends:
            append.done = True
            self._accepted.add(append.batch)
        file.durable_bytes = reached

    def _give_up(self, file: SegmentFile, appends: list[_Append], error: OSError) -> None:
        """What the disk has not confirmed is taken back: what might stay there is known by its numbers when read."""
        for append in appends:
            append.error = error
        self._unsynced = []
        file.take_back()
        self._segments[-1].size_bytes = file.size_bytes

    def _start_segment(self) -> SegmentFile:
        self._number += 1
        path = self.folder / f"{self._number:010d}{SUFFIX}"
        self._file = file = SegmentFile(path, header_body(self._accepted), sync=self._sync)
        for older in [older for older in self._segments if not older.holds_batches]:
            self._delete(older)  # what it says of the accepted numbers, the new one says too
        segment = _Segment(self._number, path, file.size_bytes, self._accepted.transitions, holds_batches=False)
        self._segments.append(segment)
        return file

    def _delete_oldest(self) -> None:
        while len(self._segments) > 1 and sum(s.size_bytes for s in self._segments) > self._capacity_bytes:
            self._delete(self._segments[0])

    def _delete(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s: cannot be deleted: %s", segment.path, error.strerror)

    # ---- reading

    def _recover(self) -> None:
        """Learn the accepted numbers from the newest file that says them, and cut off what was not written to its end.

        Raises WriteError where the files cannot be read.
        """
        try:
            for path in self.folder.glob(f"*{SUFFIX}"):
                if path.stem.isdecimal():
                    self._segments.append(_Segment(int(path.stem), path, path.stat().st_size, _before(path)))
            self._segments.sort(key=lambda segment: segment.number)
            self._number = self._segments[-1].number if self._segments else 0
            first = max((i for i, s in enumerate(self._segments) if s.before is not None), default=0)
            for segment in self._segments[first:]:
                segment.holds_batches = False
                for record in self._records(segment, cut=segment is self._segments[-1]):
                    if isinstance(record, Header):
                        self._accepted.add_header(record)
                    else:
                        segment.holds_batches = True
                        self._accepted.add(record)
            if self._segments and self._sync:  # what a killed process had written counts as accepted from here on
                sync_file(self._segments[-1].path)
        except OSError as error:
            raise _write_error(self.folder, error) from None

    def _records(self, segment: _Segment, *, cut: bool = False) -> Iterator[Header | AcceptedBatch]:
        """The verified records of a file. ``cut``: end the file behind the last one."""
        content = segment.path.read_bytes()[: segment.size_bytes]
        if content[: len(FORMAT)] != FORMAT[: len(content)]:
            segment.holds_batches = True  # perhaps
            logger.warning("%s: is no journal of this version: not read", segment.path)
            return
        end = START
        for found in records(content):
            record = read_body(found.body)
            if record is None:
                continue
            if found.start > end:
                _report(segment, end, found.start)
            end = found.end
            yield record
        if end >= len(content):
            return
        if not cut:
            _report(segment, end, len(content))
            return
        logger.warning(
            "%s: cut off %d bytes at its end: they hold no whole record (a learner that was killed while it wrote one "
            "had not acknowledged it)",
            segment.path, len(content) - end,
        )  # fmt: skip
        os.truncate(segment.path, end)
        segment.size_bytes = end


def _before(path: Path) -> int | None:
    """Transitions accepted before a segment, as its first record says."""
    found = first_record(path)
    header = read_body(found.body) if found is not None else None
    return header.transitions if isinstance(header, Header) else None


def _report(segment: _Segment, start: int, end: int) -> None:
    logger.warning("%s: damaged from byte %d to %d: what stood there is left out", segment.path, start, end)


def _lock(folder: Path) -> int:
    """The descriptor that holds the folder's lock. Raises WriteError where another process has it."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise WriteError(
            f"{folder}: another learner keeps its transitions there (process {holder})",
            hint="stop it, or give this run another output_dir",
        ) from None
    except BaseException:
        os.close(fd)
        raise
    with contextlib.suppress(OSError):  # a full disk: who holds it is only for people to read
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _write_error(path: Path, error: OSError) -> WriteError:
    return WriteError(f"{path}: {error.strerror or error}", hint="free space on that disk, or make the folder writable")
