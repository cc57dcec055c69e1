"""An actor that does nothing but act, look at itself, and say what it saw: on a thread, or as a process of its own."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

import weightkit as wk
from faults.judge import Look
from faults.policies import POISONED, Policy, act, digest_of, is_poisoned, probes_of
from weightkit.transports.base import Access, Backoff
from weightkit_runners.experience import ExperienceSender

PERIOD_S = 0.01
REPORT_S = 0.02  # how often a process says that nothing but its counts has changed


@dataclass(frozen=True, slots=True)
class ActorSpec:
    """``number`` marks this start of the actor in its transitions. ``capacity_bytes``: 0 for room enough."""

    name: str
    number: int
    kind: str
    address: str
    shared_memory: bool = False
    capacity_bytes: int = 0
    produce: bool = True


def quick() -> Backoff:
    """Pauses that suit a test."""
    return Backoff(low_s=0.01, high_s=0.1)


class Actor:
    """Acts on a thread from construction until ``close``; ``report`` gets every Look, on that thread."""

    def __init__(self, spec: ActorSpec, report: Callable[[Look], object], **subscribing: Any) -> None:
        self.spec = spec
        self._report = report
        self._policy = Policy(spec.kind)
        self._probe = probes_of(spec.kind)[0]
        self._producing = spec.produce
        self._stopping = threading.Event()
        self._steps = 0
        self._balanced = True
        self._subscriber = wk.Subscriber(
            self._policy,
            spec.address,
            act=act,
            probes=[self._probe],
            actor_id=spec.name,
            backoff=quick(),
            access=Access(shared_memory=spec.shared_memory),
            **subscribing,
        )
        room: dict[str, Any] = {}
        if spec.capacity_bytes:
            room = {"capacity_bytes": spec.capacity_bytes, "when_full": "drop_oldest"}
        self._sender = ExperienceSender(spec.address, spec.name, backoff=quick(), **room)
        self.epoch = self._sender.epoch
        self._thread = threading.Thread(target=self._run, name=f"actor-{spec.name}", daemon=True)
        self._thread.start()

    def quiet(self) -> None:
        """Produce no more transitions."""
        self._producing = False

    def status(self) -> dict[str, object]:
        """The subscriber's."""
        return self._subscriber.status()

    def close(self) -> Look:
        """Stop, whatever is pending; the last look."""
        self._stopping.set()
        self._thread.join()
        self._subscriber.close()
        self._sender.close()
        last = self._look("")
        self._report(last)
        return last

    def _run(self) -> None:
        try:
            while not self._stopping.wait(PERIOD_S):
                self._subscriber.poll()
                self._report(self._look(""))
                if self._subscriber.version is not None:
                    self._act(self._subscriber.version)
        except Exception as error:
            self._report(replace(self._look(""), trouble=f"{type(error).__name__}: {error}"))

    def _act(self, version: wk.WeightVersion) -> None:
        action = act(self._policy, self._probe)
        assert torch.isfinite(action).all(), "it acts with numbers that nobody published"
        if self._producing and self._steps < 10_000:
            step = {
                "actor": np.asarray(self.spec.number),
                "step": np.asarray(self._steps),
                "action": action.numpy(),
            }
            self._steps += 1
            self._sender.send([step], version)

    def _look(self, trouble: str) -> Look:
        subscriber, version, quiet = self._subscriber, self._subscriber.version, not self._producing
        counts, status = self._sender.counts(), subscriber.status()
        whole = counts.accepted + counts.pending + counts.dropped
        self._balanced &= counts.produced == whole == self._steps
        # before the first version the question is whether anything is in it, not which numbers
        digest = POISONED if version is None and is_poisoned(self._policy) else digest_of(self._policy)
        return Look(
            digest,
            "" if version is None else version.run_id,
            0 if version is None else version.counter,
            subscriber.root,
            bool(status["connected"]),
            counts.produced,
            counts.accepted,
            counts.pending,
            counts.dropped,
            self._balanced,
            int(str(status["discarded"])),
            int(str(status["repaired"])),
            int(str(status["reconnects"])),
            quiet,
            trouble,
        )


def run_as_process(end: socket.socket, spec: dict[str, Any]) -> None:
    """Act until ``end`` says "close" or is gone; looks go back on it, a line of JSON each."""
    lines = end.makefile("r")
    saying = threading.Lock()
    said: list[tuple[float, Look | None]] = [(0.0, None)]

    def say(message: dict[str, Any]) -> None:
        with saying:
            end.sendall(json.dumps(message).encode() + b"\n")

    def report(look: Look) -> None:
        at, before = said[0]
        same = before is not None and _weights(look) == _weights(before)
        if same and time.monotonic() - at < REPORT_S:
            return
        said[0] = (time.monotonic(), look)
        say({"look": asdict(look)})

    actor = Actor(ActorSpec(**spec), report)
    say({"epoch": actor.epoch})
    for line in lines:
        order = json.loads(line)["order"]
        if order == "quiet":
            actor.quiet()
        if order == "close":
            say({"closed": asdict(actor.close())})
            return
    os._exit(1)  # whoever started it is gone


def _weights(look: Look) -> tuple[object, ...]:
    return (look.digest, look.run_id, look.counter, look.balanced, look.quiet, look.trouble)
