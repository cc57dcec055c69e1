"""torch.distributed's gloo: one flat tensor broadcast to a world of fixed size, then copied into the parameters.

A collective: learner and actors wait for each other, nobody can come later or go, and nothing is verified.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from peers_of_pushing import Unavailable
from peers_of_pushing.work import Work

if not dist.is_available() or not dist.is_gloo_available():
    raise Unavailable("this torch has no gloo")


def _join(config: dict[str, Any], rank: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{config['folder']}/gloo",
        rank=rank,
        world_size=int(config["actors"]) + 1,
        timeout=timedelta(seconds=120),
    )


def _flat(work: Work) -> torch.Tensor:
    return torch.empty(sum(tensor.numel() for tensor in work.state().values()))


class Learner:
    """Rank 0."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work, self._config, self._payload = work, config, _flat(work)
        self.address = ""

    def ready(self) -> None:
        _join(self._config, 0)

    def publish(self) -> None:
        torch.cat([tensor.reshape(-1) for tensor in self._work.state().values()], out=self._payload)
        dist.broadcast(self._payload, src=0)

    def close(self) -> None:
        dist.destroy_process_group()


class Actor:
    """The other ranks."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._work, self._payload = work, _flat(work)
        _join(config, int(config["rank"]) + 1)

    def take(self) -> None:
        dist.broadcast(self._payload, src=0)
        with torch.no_grad():
            start = 0
            for tensor in self._work.state().values():
                tensor.copy_(self._payload[start : start + tensor.numel()].view(tensor.shape))
                start += tensor.numel()

    def poll(self) -> bool:
        raise Unavailable("a broadcast cannot be polled: whoever takes part waits for the learner")

    def path(self) -> str:
        return "stream"

    def close(self) -> None:
        dist.destroy_process_group()
