"""A process that has imported everything and started nothing, from which actors and learners are forked in a moment.

``python -m faults.zygote FD``: FD is one end of a socket pair. It imports torch and gRPC but makes no thread, so that
a fork of it is sound, which a fork of the testing process would not be. Each child gets a socket of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

TESTS = Path(__file__).resolve().parents[1]


class Zygote:
    """Starts processes and ends them, for any thread; none is left when the block is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.zygote", str(other.fileno())],
                pass_fds=(other.fileno(),),
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"},
            )

    def start(self, what: str, spec: dict[str, Any]) -> tuple[int, socket.socket]:
        """A process of ``what`` ("actor" or "learner"): its id, and the socket on which it speaks and is spoken to."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            socket.send_fds(self._end, [json.dumps({"start": what, "spec": spec}).encode()], [theirs.fileno()])
            return int(self._end.recv(64)), ours

    def end(self, pid: int) -> None:
        """SIGKILL, and wait until it is gone."""
        with self._lock:
            self._end.sendall(json.dumps({"end": pid}).encode())
            self._end.recv(64)

    def close(self) -> None:
        """End every process."""
        self._end.close()
        self._process.wait()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _main(end: socket.socket) -> None:
    import torch

    import weightkit as wk
    from faults import actor, learner

    assert wk.Publisher is not None  # imported here, once, rather than in every child
    assert wk.Subscriber is not None
    torch.empty(1, device="meta").add(1)  # torch imports half of sympy with the first of these
    torch.set_num_threads(1)
    run = {"actor": actor.run_as_process, "learner": learner.run_as_process}
    children: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(end, 1 << 16, 1)
        if not message:
            for child in children:
                _kill(child)
            return
        order = json.loads(message)
        if "end" in order:
            _kill(order["end"])
            children.discard(order["end"])
            end.sendall(b"ended")
            continue
        child = os.fork()
        if child == 0:
            end.close()
            _run_child(run[order["start"]], descriptors[0], order["spec"])
        os.close(descriptors[0])
        children.add(child)
        end.sendall(str(child).encode())


def _run_child(run: Any, descriptor: int, spec: dict[str, Any]) -> None:
    code = 1
    try:
        with socket.socket(fileno=descriptor) as end, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            run(end, spec)
            code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _kill(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
