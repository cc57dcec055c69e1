"""The two sides of a run as whoever tries them out holds them, whichever process they are in."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

from faults.actor import Actor, ActorSpec
from faults.judge import Look
from faults.learner import Learner, Sink
from faults.policies import POISONED, Draw
from faults.zygote import Zygote

ANSWER_S = 20.0


class ActorPeer(Protocol):
    """One start of an actor. ``last`` is its newest Look."""

    spec: ActorSpec
    last: Look
    epoch: str

    def quiet(self) -> None:
        """Produce no more transitions."""

    def close(self) -> None:
        """Stop in an orderly way."""


class LearnerPeer(Protocol):
    """One start of a learner."""

    @property
    def address(self) -> str:
        """Where it listens."""

    @property
    def run_id(self) -> str:
        """Of this start."""

    def publish(self, draw: Draw) -> object:
        """Learn, and publish."""

    def publish_nan(self) -> bool:
        """Try to publish what is not finite; whether it was refused."""

    def status(self) -> dict[str, Any]:
        """The publisher's."""

    def close(self) -> None:
        """Stop in an orderly way."""


class ThreadActor:
    """On a thread of this process; ``subscribing`` goes to its Subscriber."""

    def __init__(self, spec: ActorSpec, report: Callable[[str, Look], object], **subscribing: Any) -> None:
        self.spec, self.last = spec, Look(POISONED)

        def hear(look: Look) -> None:
            self.last = look
            report(f"{spec.name}.{spec.number}", look)

        self._actor = Actor(spec, hear, **subscribing)
        self.epoch = self._actor.epoch

    def quiet(self) -> None:
        self._actor.quiet()

    def close(self) -> None:
        self._actor.close()


class _Process:
    """A forked process, and a thread that reads what it says."""

    def __init__(self, zygote: Zygote, what: str, spec: dict[str, Any]) -> None:
        self._zygote = zygote
        self._answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.pid, self._end = zygote.start(what, spec)
        self._reader = threading.Thread(target=self._read, name=f"reader-{what}")
        self._reader.start()

    def hear(self, message: dict[str, Any]) -> None:
        self._answers.put(message)

    def answer(self) -> dict[str, Any]:
        return self._answers.get(timeout=ANSWER_S)

    def order(self, **order: Any) -> None:
        self._end.sendall(json.dumps(order).encode() + b"\n")

    def _read(self) -> None:
        with self._end.makefile("r") as lines:
            try:
                for line in lines:
                    if line.endswith("\n"):  # a line that was cut short by its end was never said
                        self.hear(json.loads(line))
            except ConnectionResetError:
                pass  # it was killed before it had read everything

    def kill(self) -> None:
        """SIGKILL; returns when everything that it had said is heard."""
        self._zygote.end(self.pid)
        self._reader.join()
        self._end.close()


class ProcessActor(_Process):
    """In a process of its own."""

    def __init__(self, zygote: Zygote, spec: ActorSpec, report: Callable[[str, Look], object]) -> None:
        self.spec, self.last = spec, Look(POISONED)
        self._report_look = report
        super().__init__(zygote, "actor", asdict(spec))
        self.epoch: str = self.answer()["epoch"]

    def hear(self, message: dict[str, Any]) -> None:
        said = message.get("look") or message.get("closed")
        if said is not None:
            self.last = Look(**said)
            self._report_look(f"{self.spec.name}.{self.spec.number}", self.last)
        if "look" not in message:
            super().hear(message)

    def quiet(self) -> None:
        self.order(order="quiet")

    def close(self) -> None:
        self.order(order="close")
        self.answer()
        self.kill()


class ThreadLearner(Learner):
    """In this process."""


class ProcessLearner(_Process):
    """In a process of its own."""

    def __init__(
        self,
        zygote: Zygote,
        kind: str,
        sink: Sink,
        *,
        accepted: Mapping[str, int] | None = None,
        shared_memory: bool = False,
    ) -> None:
        self._sink = sink
        spec = {"kind": kind, "accepted": dict(accepted or {}), "shared_memory": shared_memory}
        super().__init__(zygote, "learner", spec)
        started = self.answer()
        self.address, self.run_id = str(started["address"]), str(started["run_id"])

    def hear(self, message: dict[str, Any]) -> None:
        if "accepted" in message:
            self._sink([(str(name), *map(int, numbers)) for name, *numbers in message["accepted"]])  # type: ignore[misc]
        else:
            super().hear(message)

    def publish(self, draw: Draw) -> None:
        self.order(order="publish", seed=draw.seed, every=draw.every)
        self.answer()

    def publish_nan(self) -> bool:
        self.order(order="publish_nan")
        return bool(self.answer()["answer"])

    def status(self) -> dict[str, Any]:
        self.order(order="status")
        answer: dict[str, Any] = self.answer()["answer"]
        return answer

    def close(self) -> None:
        self.order(order="close")
        self.answer()
        self.kill()
