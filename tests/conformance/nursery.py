"""Learners and actors in processes of their own, to be killed.

Run as a program it imports everything once, which takes seconds, and then forks a child for every connection to its
socket. A line of JSON says what the child is to be and the next ones what it is to do; each is answered by one line.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]


class Child:
    """A forked process; ``start`` is what it said when it had begun."""

    def __init__(self, where: str, **role: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(where)
        self._lines = self._socket.makefile("r")
        self.start = self.tell(**role)
        self.pid: int = self.start["pid"]

    def tell(self, **command: Any) -> Any:
        """What the child answers to a command. Raises EOFError where it has died."""
        self._socket.sendall(json.dumps(command).encode() + b"\n")
        line = self._lines.readline()
        if not line:
            raise EOFError("the child has died")
        return json.loads(line)

    def kill(self) -> None:
        """End it at once, by SIGKILL, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._lines.readline() == ""
        self.close()

    def close(self) -> None:
        """Let it go: it ends when it hears no more."""
        self._lines.close()
        self._socket.close()


class Nursery:
    """Forks children; all of them end with it."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder / "nursery")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
        command = [sys.executable, __file__, self.where]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def child(self, **role: Any) -> Child:
        """A new process in this role."""
        return Child(self.where, **role)

    def close(self) -> None:
        """End it, and everything that it has forked."""
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


# ---- the program


def serve(where: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(where)
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    import_everything()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while all(key.fileobj is listening for key, _ in selector.select()):
        connection, _ = listening.accept()
        if os.fork() == 0:
            selector.close()
            listening.close()
            try:
                live(connection)
            finally:
                os._exit(0)
        connection.close()


def import_everything() -> None:
    import conformance.pairs
    import weightkit.transports.grpc

    del conformance, weightkit


def live(connection: socket.socket) -> None:
    """One child's life."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lines = connection.makefile("r")
    role = json.loads(lines.readline())
    obey = {"learner": learner, "actor": actor}[role.pop("role")](**role)
    connection.sendall(json.dumps({"pid": os.getpid(), **obey({})}).encode() + b"\n")
    for line in lines:
        connection.sendall(json.dumps(obey(json.loads(line))).encode() + b"\n")


def learner(seed: int, bind: str, access: dict[str, Any]) -> Any:
    """Publishes a version, of the seed that it is told, with each command."""
    from conformance.links import Link
    from conformance.pairs import Net, fill, publisher_of
    from weightkit.transports.base import Access

    net = Net(seed)
    pub = publisher_of(Link("child", bind, Access(**access), Access(**access)), net)

    def obey(command: dict[str, Any]) -> dict[str, Any]:
        if "seed" in command:
            fill(net, command["seed"])
            pub.publish()
        return {"address": pub.address, "run_id": pub.run_id, "status": asdict(pub.state())}

    return obey


def actor(actor_id: str, address: str, access: dict[str, Any]) -> Any:
    """Polls until it holds the version that it is told."""
    from conformance.links import Link
    from conformance.pairs import Net, follow, subscriber_of
    from weightkit.transports.base import Access

    sub = subscriber_of(Link("child", "", Access(), Access(**access)), Net(0), address, actor_id)

    def obey(command: dict[str, Any]) -> dict[str, Any]:
        if "counter" in command:
            follow(sub, command["counter"])
        return {"root": sub.root, "path": sub.status()["path"]}

    return obey


if __name__ == "__main__":
    serve(sys.argv[1])
