"""The ways from a learner to an actor on which every conformance test runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weightkit.shared_memory import SharedBuffer, attach
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports.base import Access

TOKEN = "conformance-tests-share-this-token"
LINKS = ("memory", "grpc", "uds", "tls", "shm")


@dataclass(frozen=True, slots=True)
class Link:
    """Where a learner binds, what each side is given to get in with, and what both call the way that weights take."""

    name: str
    bind: str
    learner: Access
    actor: Access
    path: str = "stream"

    @property
    def chunked(self) -> bool:
        """Whether weights travel, in chunks, instead of being looked at where they lie."""
        return self.path == "stream"

    def assert_used(self, pub: Publisher, sub: Subscriber) -> None:
        """Both sides say that weights have come this way and no other."""
        seen = pub.status()["actors"]
        assert isinstance(seen, dict)
        assert (sub.status()["path"], seen[sub.actor_id]["path"]) == (self.path, self.path)
        travelled = (seen[sub.actor_id]["sent_bytes"] > 0, sub.status()["received_bytes"] != 0)
        assert travelled == (self.chunked, self.chunked)
        assert pub.address.startswith({"memory": "memory:", "uds": "unix:"}.get(self.name, "127.0.0.1:"))


def make_link(name: str, folder: Path, certificates: tuple[Path, Path] | None = None) -> Link:
    """The link called ``name``; a socket lies in ``folder``. ``certificates``: the learner's folder and the actor's."""
    streams = Access(shared_memory=False)
    if name == "memory":
        return Link(name, "memory:", Access(), Access())
    if name == "uds":
        return Link(name, f"unix:{folder}/socket", streams, streams)
    if name == "tls":
        assert certificates is not None
        learner, actor = (Access(tls=str(path), token=TOKEN, shared_memory=False) for path in certificates)
        return Link(name, "127.0.0.1:0", learner, actor)
    if name == "shm":
        return Link(name, "127.0.0.1:0", Access(), Access(), "shared memory")
    return Link(name, "127.0.0.1:0", streams, streams)


def shares_memory() -> bool:
    """Whether processes of this machine can map each other's memory."""
    try:
        buffer = SharedBuffer(64)
        attach(buffer.ref)
    except OSError:
        return False
    buffer.close()
    return True
