"""A learner and its actors, small enough to be made by the dozen, and what the tests look at on either side."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from conformance.links import Link
from strategies import act
from weightkit.core.version import WeightVersion
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports.base import ActorStatus, Backoff

GROUPS = {"encoder": "send", "actor": "send", "scale": "send", "steps": "send", "critic": "hold"}
DEADLINE_S = 20.0


class Net(nn.Module):
    """An encoder beside the actor, a critic that ``act()`` does not read, a buffer of whole numbers, a bfloat16 one."""

    def __init__(self, seed: int, *, inputs: int = 16, hidden: int = 32) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self.encoder = nn.Linear(inputs, hidden)
        self.actor = nn.Linear(hidden, 4)
        self.critic = nn.Linear(4, 1)
        self.register_buffer("scale", torch.zeros(4, dtype=torch.bfloat16))
        self.register_buffer("steps", torch.tensor(0))
        fill(self, seed)

    def act(self, observation: Tensor) -> Tensor:
        return self.actor(torch.relu(self.encoder(observation))) * self.scale.float() + self.steps


def fill(net: nn.Module, seed: int) -> None:
    """Give every tensor other values, those of ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.dtype.is_floating_point:
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            else:
                tensor.fill_(1000 + seed)


def sent(net: nn.Module) -> dict[str, Tensor]:
    """A copy of what is sent, as it is now."""
    return {
        name: tensor.detach().clone()
        for name, tensor in (*net.named_parameters(), *net.named_buffers())
        if not name.startswith("critic.")
    }


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether all tensors are equal, bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def is_poisoned(net: nn.Module) -> bool:
    """Whether no tensor holds anything that a policy could have."""
    return all(
        bool(tensor.isnan().all()) if tensor.dtype.is_floating_point else bool((tensor == -(2**63)).all())
        for tensor in net.state_dict().values()
    )


def observations(inputs: int = 16) -> list[Tensor]:
    """What the nets of both sides are traced with."""
    return [torch.linspace(-1, 1, 2 * inputs).reshape(2, inputs)]


def publisher_of(link: Link, net: nn.Module, **kwargs: Any) -> Publisher:
    """A learner that listens on ``link``."""
    own = {"manifest": make_manifest(net, GROUPS), "bind": link.bind, "access": link.learner, "probes": observations()}
    return Publisher(net, act=act, **{**own, **kwargs})


def subscriber_of(link: Link, net: nn.Module, address: str, actor_id: str = "a", **kwargs: Any) -> Subscriber:
    """An actor of the learner at ``address`` that tries again at once."""
    own = {"access": link.actor, "probes": observations(), "backoff": Backoff(low_s=0.001, high_s=0.01)}
    return Subscriber(net, address, act=act, actor_id=actor_id, **{**own, **kwargs})


def wait_until(holds: Callable[[], bool], timeout_s: float = DEADLINE_S) -> bool:
    """Wait until ``holds()``; whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def follow(sub: Subscriber, counter: int, *, run_id: str | None = None, timeout_s: float = DEADLINE_S) -> list[int]:
    """Poll until the actor holds version ``counter`` or a later one, of ``run_id``; the counters that came."""
    came: list[WeightVersion] = []
    deadline = time.monotonic() + timeout_s
    while sub.version is None or sub.version.counter < counter or run_id not in (None, sub.version.run_id):
        assert time.monotonic() < deadline, f"version {counter} did not come; the actor says {sub.status()}"
        version = sub.poll(0.02)
        if version is not None:
            came.append(version)
    return [version.counter for version in came]


def learners_view(pub: Publisher, actor_id: str = "a") -> ActorStatus:
    """How the learner sees an actor."""
    return next(actor for actor in pub.state().actors if actor.actor_id == actor_id)


def is_connected(pub: Publisher, actor_id: str = "a") -> bool:
    """Whether the learner knows the actor, and it is connected."""
    return any(actor.connected for actor in pub.state().actors if actor.actor_id == actor_id)


def slots(pub: Publisher) -> list[Any]:
    """Where the learner keeps versions."""
    return list(pub._service._pool._slots)


def readers(pub: Publisher) -> set[str]:
    """The sessions that the learner believes to read versions still."""
    return {user for slot in slots(pub) for user in slot.users}


def sessions(pub: Publisher) -> set[str]:
    """The sessions that the learner has open."""
    return set(pub._service._sessions)
