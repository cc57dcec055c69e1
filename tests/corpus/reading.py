"""Runs weightkit's command line on files, each in a child of its own that is watched. Run as a script.

Its input is a JSON list of ``[file, folder, module]``, its output a JSON list of what each of the three commands gave.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

LIMIT_S = 120.0
MOST_MEMORY = 2 << 30
COMMANDS = {
    "json": ["inspect", "FILE", "--json"],
    "plain": ["inspect", "FILE"],
    "convert": ["convert", "FILE", "-o", "out.safetensors"],
}
# What no reader of data has any business with, by the names of Python's audit events.
FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pty.spawn",
    "pickle.find_class", "socket.connect", "socket.bind", "ctypes.dlopen", "ctypes.dlsym", "webbrowser.open",
    "shutil.copyfile", "sqlite3.connect", "urllib.Request", "code.__new__",
)  # fmt: skip


def _run(words: list[str], seen: list[str]) -> dict[str, Any]:
    from weightkit.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    start = time.process_time()
    code: Any = 0
    seen.clear()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as end:
            code = 0 if end.code is None else end.code
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    return {
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "seconds": time.process_time() - start,
        "events": sorted(set(seen)),
    }


def _in_child(path: str, folder: str, module: str, answer: Path) -> None:
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seen: list[str] = []
    sys.addaudithook(lambda event, arguments: seen.append(event) if event in FORBIDDEN else None)
    before = set(sys.modules)
    found: dict[str, Any] = {
        name: _run([path if word == "FILE" else word for word in words], seen) for name, words in COMMANDS.items()
    }
    found["left"] = sorted(os.listdir(folder))
    found["imported"] = module in set(sys.modules) - before
    answer.write_text(json.dumps(found, ensure_ascii=True), encoding="utf-8")
    os._exit(0)


def _watch(pid: int) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_S
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return {"status": os.waitstatus_to_exitcode(status), "rss": usage.ru_maxrss * 1024}
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"status": "hangs", "rss": 0}
        time.sleep(0.002)


def _read_in_child(path: str, folder: str, module: str, scratch: Path) -> dict[str, Any]:
    scratch.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            _in_child(path, folder, module, scratch)
        finally:
            os._exit(1)
    found = _watch(pid)
    if scratch.exists():
        found.update(json.loads(scratch.read_text(encoding="utf-8")))
    return found


def _warm_up(folder: Path) -> None:
    """Everything that weightkit imports for a good file, so that a child shows what a bad one adds."""
    from corpus.opcodes import pickled, tensor
    from corpus.rawzip import archive

    folder.mkdir()
    path = folder / "warm.pt"
    path.write_bytes(archive(pickled({"w": tensor()})))
    os.chdir(folder)
    for words in COMMANDS.values():
        answer = _run([str(path) if word == "FILE" else word for word in words], [])
        assert answer["code"] == 0, answer


def main() -> None:
    """Read the list, run everything, write what came."""
    listed, target = Path(sys.argv[1]), Path(sys.argv[2])
    _warm_up(target.with_name("warm"))
    wanted: list[Any] = json.loads(listed.read_text(encoding="utf-8"))
    answers = [_read_in_child(*item, target.with_name("scratch.json")) for item in wanted]
    target.write_text(json.dumps(answers, ensure_ascii=True), encoding="utf-8")


if __name__ == "__main__":
    main()
