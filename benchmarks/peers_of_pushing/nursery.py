"""The program that learners and actors run in: ``python -m peers_of_pushing.nursery SOCKET``, one for each interpreter.

It imports everything and builds the policy once, and starts no thread; every line on its standard input makes it fork a
worker, a process of its own that connects to SOCKET and does what the lines there say. It ends when its standard input
does, a worker when its socket does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from typing import Any

import torch

from peers_of_pushing import Unavailable
from peers_of_pushing.work import Work, make_work

_IMPORTED = ("grpc", "numpy", "torch.distributed", "weightkit.architectures.drqv2")


class Line:
    """JSON lines over a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self._file = connection, connection.makefile("rb")

    def send(self, **message: Any) -> None:
        self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message, None at the end."""
        text = self._file.readline()
        return json.loads(text) if text else None


def learn(learner: Any, work: Work, line: Line) -> None:
    """Publish on command. CPU times are those of the whole process, without the change of the weights."""
    left_out_s = 0.0
    while (command := line.receive()) is not None and command["do"] != "close":
        if command["do"] == "ready":
            learner.ready()
            line.send(ready=True)
        elif command["do"] == "publish":
            before_s = time.process_time()
            work.change()
            changed_s = time.process_time()
            left_out_s += changed_s - before_s
            started = time.monotonic_ns()
            learner.publish()
            ended = time.monotonic_ns()
            line.send(started=started, publish_ms=(ended - started) / 1e6, cpu_s=changed_s - left_out_s)
        elif command["do"] == "train":
            _train(learner, work, line, command)
        else:
            line.send(cpu_s=time.process_time() - left_out_s, digest=work.digest(), size_bytes=work.size_bytes)


def _train(learner: Any, work: Work, line: Line, command: dict[str, Any]) -> None:
    """Change the weights at a steady rate, and publish them where that is asked for."""
    taken_ms, period_s = [], 1 / command["hz"]
    start = time.monotonic()
    for turn in range(1, int(command["seconds"] * command["hz"])):
        time.sleep(max(0.0, start + turn * period_s - time.monotonic()))
        work.change()
        if command["publish"]:
            started = time.monotonic_ns()
            learner.publish()
            taken_ms.append((time.monotonic_ns() - started) / 1e6)
    line.send(publish_ms=taken_ms)


def act(actor: Any, work: Work, line: Line) -> None:
    """Take versions, or act, on command."""
    while (command := line.receive()) is not None and command["do"] != "close":
        if command["do"] == "take":
            line.send(waiting=True)
            before_s = time.process_time()
            actor.take()
            line.send(at=time.monotonic_ns(), cpu_ms=1e3 * (time.process_time() - before_s))
        elif command["do"] == "drive":
            _drive(actor, work, line, command)
        else:
            line.send(digest=work.digest(), path=actor.path())


def _drive(actor: Any, work: Work, line: Line, command: dict[str, Any]) -> None:
    """A control loop: poll, then act on one observation; what a turn took, and what a poll that brought news took."""
    observation = {key: value[:1] for key, value in work.probes[0].items()}
    turns_ms, swaps_ms, period_s = [], [], 1 / command["hz"]
    start = time.monotonic()
    for turn in range(1, int(command["seconds"] * command["hz"])):
        time.sleep(max(0.0, start + turn * period_s - time.monotonic()))
        before = time.monotonic_ns()
        has_news = actor.poll()
        polled = time.monotonic_ns()
        work.act(work.policy, observation)
        turns_ms.append((time.monotonic_ns() - before) / 1e6)
        if has_news:
            swaps_ms.append((polled - before) / 1e6)
    line.send(turns_ms=turns_ms, swaps_ms=swaps_ms)


def run(config: dict[str, Any], line: Line) -> None:
    """One worker's life."""
    is_learner = config["role"] == "learner"
    try:
        peer = importlib.import_module(f"peers_of_pushing.{config['module']}")
        work = make_work(config["payload"])
        if not is_learner:
            torch.manual_seed(config["rank"] + 1)
            work.change(0.01)  # so that equal weights are the push's doing
        side = (peer.Learner if is_learner else peer.Actor)(work, config)
        line.send(address=getattr(side, "address", None))
        (learn if is_learner else act)(side, work, line)
        side.close()
    except Unavailable as error:
        line.send(unavailable=str(error))
    except Exception:
        line.send(error=traceback.format_exc())


def main() -> None:
    """Fork a worker for every line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    torch.set_num_threads(1)
    for name in _IMPORTED:
        with contextlib.suppress(ImportError):  # the peer that needs it says so
            importlib.import_module(name)
    for text in sys.stdin:
        config = json.loads(text)
        make_work(config["payload"])
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(0)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(sys.argv[1])
        line = Line(connection)
        try:
            line.send(name=config["name"])
            run(config, line)
        except OSError:
            pass  # the benchmark has gone
        os._exit(0)


if __name__ == "__main__":
    main()
