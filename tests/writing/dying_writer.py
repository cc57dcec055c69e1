"""A process that converts a checkpoint over and over and is killed at another step each time.

``python dying_writer.py ROOT JSON`` with ``{source, out, old, nameless, options}``: for n = 0, 1, 2 ... a child process
converts ``source`` to ``out`` in the folder ``ROOT/n``, where a copy of ``old`` may stand already, and kills itself
(SIGKILL) before the n-th step that changes something on the disk, or in the middle of it where the step is a write.
Ends after the first child that finished. Prints the names of the steps, one a line.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import weightkit as wk

STEPS = ("mkdir", "fsync", "fchmod", "chmod", "link", "unlink", "replace", "rename", "rmdir", "scandir")


def arm(kill_at: int, told: int) -> None:
    """Let this process die at the step ``kill_at``, having written the step's name to the descriptor ``told``."""
    write, left = os.write, kill_at

    def step(name: str) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            write(told, f"{name}\n".encode())
            signal.raise_signal(signal.SIGKILL)
        return True

    def before(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: step(name) and function(*arguments, **named)

    open_, written = os.open, os.O_WRONLY | os.O_RDWR | os.O_DIRECTORY

    def open_to_write(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
        if flags & written:  # opening a file of the source is no step
            step("open")
        return open_(path, flags, *arguments, **named)

    def write_in_two(descriptor: int, content: Any) -> int:
        step("write")
        view = memoryview(content).cast("B")
        half = write(descriptor, view[: len(view) // 2])
        step("half a write")
        return half + write(descriptor, view[half:])

    for name in STEPS:
        setattr(os, name, before(name, getattr(os, name)))
    os.open, os.write = open_to_write, write_in_two
    fcntl.flock = before("flock", fcntl.flock)
    library = ctypes.CDLL(None, use_errno=True)
    ctypes.CDLL = lambda *_, **__: SimpleNamespace(renameat2=before("renameat2", library.renameat2))  # type: ignore[misc,assignment]


def die_at(kill_at: int, folder: Path, task: dict[str, Any], told: int) -> bool:
    """One child; whether it was killed."""
    folder.mkdir()
    if task["old"] is not None:
        copy = shutil.copytree if os.path.isdir(task["old"]) else shutil.copy2
        copy(task["old"], folder / task["out"])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            arm(kill_at, told)
            wk.convert(task["source"], out=task["out"], force=task["old"] is not None, **task["options"])
            code = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status:
        raise SystemExit(f"the writer failed at step {kill_at}: status {status}")
    return False


def main() -> None:
    root, task = Path(sys.argv[1]), json.loads(sys.argv[2])
    if not task["nameless"]:
        del os.O_TMPFILE
    warm = root / "warm"
    warm.mkdir()
    wk.convert(task["source"], out=warm / task["out"], **task["options"])  # so that no child imports anything
    shutil.rmtree(warm)
    kill_at = 0
    while die_at(kill_at, root / str(kill_at), task, sys.stdout.fileno()):
        kill_at += 1


if __name__ == "__main__":
    main()
