"""Loads files as a trusting program would, each in a child of its own, in a folder of its own. Run as a script.

Its input is a JSON list of ``[file, loader, folder]``, its output a JSON list of what the loader said.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import gc
import io
import json
import os
import resource
import signal
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

LIMIT_S = 20.0


def load(path: str, loader: str) -> None:
    """Load the file and everything in it, trusting it."""
    if loader == "numpy":
        import numpy as np

        found = np.load(path, allow_pickle=True)
        if hasattr(found, "files"):
            for name in found.files:
                found[name]
    elif loader == "sb3":
        _load_as_stable_baselines(path)
    else:
        import torch

        torch.load(path, weights_only=False)


def _load_as_stable_baselines(path: str) -> None:
    """What stable_baselines3.common.save_util.load_from_zip_file does, without its package."""
    import cloudpickle
    import torch

    with zipfile.ZipFile(path) as archive:
        for value in json.loads(archive.read("data")).values():
            if isinstance(value, dict) and ":serialized:" in value:
                cloudpickle.loads(base64.b64decode(value[":serialized:"]))
        for name in archive.namelist():
            if name.endswith(".pth"):
                torch.load(io.BytesIO(archive.read(name)), weights_only=False)


def _in_child(path: str, loader: str, folder: str, said: int) -> None:
    os.setsid()
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CPU, (int(LIMIT_S), int(LIMIT_S)))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    atexit._clear()  # what this program registered is none of the payload's business
    try:
        load(path, loader)
        answer = "loaded"
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        os.write(said, answer.encode("utf-8", "backslashreplace")[:2000])
    gc.collect()
    atexit._run_exitfuncs()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()  # what was started in the background may still leave its mark
    os._exit(0)


def _load_in_child(path: str, loader: str, folder: str) -> str:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _in_child(path, loader, folder, writing)
        finally:
            os._exit(1)
    os.close(writing)
    deadline = time.monotonic() + LIMIT_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.002)
    with os.fdopen(reading, "rb") as file:
        os.set_blocking(file.fileno(), False)
        return (file.read() or b"").decode("utf-8", "replace")


def main() -> None:
    """Read the list, load everything, write what was said."""
    import numpy  # noqa: F401
    import torch

    from corpus.live_opcodes import register_extensions

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    register_extensions()
    sys.path.insert(0, "")
    wanted: list[Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answers = [_load_in_child(*item) for item in wanted]
    Path(sys.argv[2]).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main()
