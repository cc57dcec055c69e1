"""weightkit, by its public names: every version is hashed, verified by every actor, and applied whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import weightkit as wk
from peers_of_pushing.work import Work
from weightkit.transports.certificates import make_certificates

WAYS = ("grpc", "unix", "tls", "shared memory")
_MOST_S = 120.0


def _access(way: str, folder: Path) -> wk.Access:
    return wk.Access(tls=str(folder / "tls") if way == "tls" else None, shared_memory=way == "shared memory")


class Learner:
    """A Publisher."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        way, folder, self._actors = config["way"], Path(config["folder"]), int(config["actors"])
        if way == "tls":
            make_certificates(folder / "tls")
        self._publisher = wk.Publisher(
            work.policy,
            wk.make_manifest(work.policy, work.groups),
            act=work.act,
            probes=work.probes,
            bind=f"unix:{folder}/learner" if way == "unix" else "127.0.0.1:0",
            access=_access(way, folder),
        )
        self.address = self._publisher.address

    def ready(self) -> None:
        deadline = time.monotonic() + _MOST_S
        while True:
            actors: Any = self._publisher.status()["actors"]
            if sum(actor["connected"] for actor in actors.values()) == self._actors:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._actors} actors were started, these have come: {actors}")
            time.sleep(0.01)

    def publish(self) -> None:
        self._publisher.publish()

    def close(self) -> None:
        self._publisher.close()


class Actor:
    """A Subscriber."""

    def __init__(self, work: Work, config: dict[str, Any]) -> None:
        self._subscriber = wk.Subscriber(
            work.policy,
            config["address"],
            act=work.act,
            probes=work.probes,
            actor_id=f"actor-{config['rank']}",
            access=_access(config["way"], Path(config["folder"])),
        )

    def take(self) -> None:
        if self._subscriber.version is None:
            self._subscriber.wait_for_first(_MOST_S)
            return
        if self._subscriber.poll(timeout_s=_MOST_S) is None:
            raise TimeoutError(f"no version in {_MOST_S:g} s: {self._subscriber.status()}")

    def poll(self) -> bool:
        return self._subscriber.poll() is not None

    def path(self) -> str:
        return str(self._subscriber.status()["path"])

    def close(self) -> None:
        self._subscriber.close()
