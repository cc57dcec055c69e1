"""The processes of one measurement, from the benchmark's side: a learner, its actors, one version at a time."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from peers_of_pushing import Unavailable

BENCHMARKS = Path(__file__).resolve().parents[1]
TIMEOUT_S = 150.0
_SETTLE_S = 0.003


@dataclass(frozen=True)
class Peer:
    """A way of pushing: its module, which python runs it, and its variant."""

    name: str
    module: str
    way: str = ""
    has_actors: bool = True
    is_foreign: bool = False


@dataclass(frozen=True)
class Pushed:
    """One version: ms from before ``publish`` until the last actor has it applied, of the call, CPU ms of an actor."""

    latency_ms: float
    publish_ms: float
    actor_cpu_ms: float


class Worker:
    """A learner's or an actor's process, talked to in JSON lines."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT_S)
        self._connection, self._buffer = connection, b""

    def send(self, do: str, **more: Any) -> None:
        self._connection.sendall(json.dumps({"do": do, **more}).encode() + b"\n")

    def receive(self) -> Any:
        """The next message. Raises Unavailable where the worker says so, RuntimeError where it fails."""
        while b"\n" not in self._buffer:
            more = self._connection.recv(1 << 16)
            if not more:
                raise RuntimeError("a worker has ended without a word; what it said is on standard error")
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(text)
        if "unavailable" in message:
            raise Unavailable(message["unavailable"])
        if "error" in message:
            raise RuntimeError(f"a worker has failed:\n{message['error']}")
        return message

    def ask(self, do: str, **more: Any) -> Any:
        self.send(do, **more)
        return self.receive()

    def close(self) -> None:
        """Let it close; it has ended, or is let go, when this returns."""
        try:
            self.send("close")
            while self._connection.recv(1 << 16):
                pass
        except OSError:
            pass
        self._connection.close()


class Nursery:
    """An interpreter that has imported everything and forks workers."""

    def __init__(self, python: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pushing-")
        where = f"{self._folder.name}/workers"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(where)
        self._listener.listen(64)
        self._listener.settimeout(1.0)
        paths = [str(BENCHMARKS), str(BENCHMARKS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [python, "-m", "peers_of_pushing.nursery", where],
            stdin=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._count = 0

    def folder(self) -> str:
        """A new folder for one crew."""
        self._count += 1
        found = Path(self._folder.name) / str(self._count)
        found.mkdir()
        return str(found)

    def start(self, configs: list[dict[str, Any]]) -> list[Worker]:
        """A worker for each, in order."""
        assert self._process.stdin is not None
        found: dict[int, Worker] = {}
        for place, config in enumerate(configs):
            self._process.stdin.write(json.dumps({**config, "name": place}) + "\n")
        self._process.stdin.flush()
        while len(found) < len(configs):
            worker = Worker(self._accept())
            found[worker.receive()["name"]] = worker
        return [found[place] for place in range(len(configs))]

    def _accept(self) -> socket.socket:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(TimeoutError):
                return self._listener.accept()[0]
        raise RuntimeError("no worker was started; what its interpreter said is on standard error")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._listener.close()
        self._folder.cleanup()


class Crew:
    """A learner with its actors, all there. Raises Unavailable."""

    def __init__(self, nursery: Nursery, peer: Peer, payload: str, actors: int) -> None:
        config = {
            "module": peer.module, "way": peer.way, "payload": payload, "actors": actors, "folder": nursery.folder(),
        }  # fmt: skip
        self._workers: list[Worker] = []
        try:
            (self.learner,) = self._workers = nursery.start([{**config, "role": "learner"}])
            address = self.learner.receive()["address"]
            each = [{**config, "role": "actor", "rank": rank, "address": address} for rank in range(actors)]
            self.actors = nursery.start(each if peer.has_actors else [])
            self._workers = [self.learner, *self.actors]
            self.learner.send("ready")
            for worker in self.actors:
                worker.receive()
            self.learner.receive()
        except BaseException:
            self.close()
            raise

    def push(self) -> tuple[Pushed, float]:
        """One version, waited for by every actor; with the learner's CPU seconds before it."""
        for actor in self.actors:
            actor.send("take")
        for actor in self.actors:
            actor.receive()
        time.sleep(_SETTLE_S)
        told = self.learner.ask("publish")
        taken = [actor.receive() for actor in self.actors]
        published_ms = float(told["publish_ms"])
        latency_ms = max((each["at"] - told["started"]) / 1e6 for each in taken) if taken else published_ms
        actor_cpu_ms = sum(each["cpu_ms"] for each in taken) / max(1, len(taken))
        return Pushed(latency_ms, published_ms, actor_cpu_ms), float(told["cpu_s"])

    def check(self) -> tuple[float, str]:
        """The learner's CPU seconds, and which way the weights came. Raises RuntimeError where they are not equal."""
        learner = self.learner.ask("tell")
        told = [actor.ask("tell") for actor in self.actors]
        if any(actor["digest"] != learner["digest"] for actor in told):
            raise RuntimeError("an actor does not hold the learner's weights: what was measured is no push")
        return float(learner["cpu_s"]), ", ".join(sorted({actor["path"] for actor in told}))

    def close(self) -> None:
        for worker in reversed(self._workers):
            worker.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
