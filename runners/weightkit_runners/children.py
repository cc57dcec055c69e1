"""Processes that another process starts, watches and always ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from weightkit.errors import WeightkitError

STOP_TIMEOUT_S = 10.0


class ChildFailed(WeightkitError):
    """A started process ended early, or did not do in time what it should."""


class Child:
    """``python -m MODULE ARGUMENTS`` in a session of its own; ended by SIGTERM, then by SIGKILL, when the block ends.

    Its stderr goes line by line to ``log_path``; ``wait_for_line`` reads along. ``output`` is its stdout so far.
    """

    def __init__(self, name: str, module_and_arguments: list[str], *, log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self.output = ""
        self._lines: list[str] = []
        self._seen = 0
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", *module_and_arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        self._readers = [threading.Thread(target=self._read_log), threading.Thread(target=self._read_output)]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def wait_for_output(self, text: str, *, timeout_s: float) -> None:
        """Wait until its stdout holds ``text``. Raises ChildFailed where it does not come."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self.output or self._ended, timeout_s):
                raise self._failed(f"expected {text!r} on stdout within {timeout_s:g} s")
            if text not in self.output:
                raise self._failed(f"expected {text!r} on stdout, but it ended")

    def wait_for_line(self, start: str, *, timeout_s: float) -> str:
        """The next line of its log that begins with ``start``. Raises ChildFailed where none comes."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                while self._seen < len(self._lines):
                    line = self._lines[self._seen]
                    self._seen += 1
                    if line.startswith(start):
                        return line
                left = deadline - time.monotonic()
                if self._ended or left <= 0:
                    why = "ended" if self._ended else f"said nothing of it for {timeout_s:g} s"
                    raise self._failed(f"expected {start!r}, but it {why}")
                self._changed.wait(left)

    def wait_ended(self, *, timeout_s: float) -> None:
        """Wait for its end, whatever its exit code. Raises ChildFailed where it takes too long."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failed(f"still runs after {timeout_s:g} s") from None
        for reader in self._readers:
            reader.join()

    def wait(self, *, timeout_s: float) -> None:
        """Wait for its end. Raises ChildFailed where it takes too long or fails."""
        self.wait_ended(timeout_s=timeout_s)
        if self._process.returncode:
            raise self._failed(f"exit code {self._process.returncode}")

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL where that does not help."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for reader in self._readers:
            reader.join()

    def _failed(self, what: str) -> ChildFailed:
        last = "\n".join(f"  {line}" for line in self._lines[-8:])
        return ChildFailed(f"{self.name}: {what}; its last lines:\n{last}", hint=f"see {self.log_path}")

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream, self.log_path.open("w", encoding="utf-8") as log:
            for line in stream:
                log.write(line)
                log.flush()
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._changed:
                    self.output += line
                    self._changed.notify_all()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
