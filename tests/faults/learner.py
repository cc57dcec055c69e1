"""A learner that publishes random weights and takes transitions: in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch

import weightkit as wk
from faults.policies import TRANSFERS, Draw, Policy, act, probes_of
from weightkit.transports.base import Access
from weightkit_runners.experience import ExperienceBatch, ExperienceReceiver

HEARTBEAT_S = 0.1

Sink = Callable[[list[tuple[str, int, int, int]]], object]
"""Gets the accepted transitions: the actor's name, the number of its start, the step, the number of the batch."""


class Learner:
    """Publisher and receiver, from construction until ``close``."""

    def __init__(
        self, kind: str, sink: Sink, *, accepted: Mapping[str, int] | None = None, shared_memory: bool = False
    ) -> None:
        self._policy = Policy(kind)
        self.receiver = ExperienceReceiver(lambda batch: sink(_marks(batch)), accepted=accepted)
        self.publisher = wk.Publisher(
            self._policy,
            wk.make_manifest(self._policy, TRANSFERS),
            act=act,
            probes=probes_of(kind),
            services=(self.receiver.service,),
            heartbeat_s=HEARTBEAT_S,
            access=Access(shared_memory=shared_memory),
        )

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.publisher.address

    @property
    def run_id(self) -> str:
        """Of this start."""
        return self.publisher.run_id

    def publish(self, draw: Draw) -> int:
        """Learn, and publish; the version's counter."""
        draw.apply(self._policy)
        return self.publisher.publish().counter

    def publish_nan(self) -> bool:
        """Diverge, try to publish that, and go back; whether it was refused."""
        weight = next(self._policy.body.parameters()).detach()
        kept = weight.clone()
        weight[0, 0] = torch.nan
        try:
            self.publisher.publish()
        except wk.PublishRefused:
            return True
        finally:
            weight.copy_(kept)
        return False

    def status(self) -> dict[str, Any]:
        """The publisher's."""
        return self.publisher.status()

    def close(self) -> None:
        """Stop."""
        self.publisher.close()


def _marks(batch: ExperienceBatch) -> list[tuple[str, int, int, int]]:
    return [(batch.actor_id, int(t["actor"]), int(t["step"]), batch.seq) for t in batch.transitions]


def run_as_process(end: socket.socket, spec: dict[str, Any]) -> None:
    """Follow the orders that come on ``end``, a line of JSON each, and answer them, until it is gone.

    An accepted batch goes out as a line before the actor hears of it: what ``end`` has taken survives this process.
    """
    lines = end.makefile("r")
    saying = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        with saying:
            end.sendall(json.dumps(message).encode() + b"\n")

    learner = Learner(**spec, sink=lambda marks: say({"accepted": marks}))
    say({"address": learner.address, "run_id": learner.run_id})
    for line in lines:
        order = json.loads(line)
        if order["order"] == "publish":
            learner.publish(Draw(order["seed"], order["every"]))
            say({"answer": None})
        elif order["order"] == "publish_nan":
            say({"answer": learner.publish_nan()})
        elif order["order"] == "status":
            say({"answer": learner.status()})
        elif order["order"] == "close":
            learner.close()
            say({"answer": None})
            return
    os._exit(1)  # whoever started it is gone
