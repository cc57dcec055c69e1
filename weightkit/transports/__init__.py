"""Ways of carrying weights from a learner to its actors: a table from address scheme to transport."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from weightkit.transports.base import Connection, Server, Service, SyncEndpoint, Transport

TRANSPORTS: dict[str, str] = {
    "memory": "weightkit.transports.memory",  # memory:NAME, within one process
    "": "weightkit.transports.grpc",  # HOST:PORT or unix:PATH
}


def transport_for(address: str) -> Transport:
    """The transport that an address names by its scheme."""
    scheme, colon, _ = address.partition(":")
    module = TRANSPORTS[scheme if colon and scheme in TRANSPORTS else ""]
    return cast(Transport, import_module(module).TRANSPORT)


def serve(bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), insecure: bool = False) -> Server:
    """``endpoint`` listening at ``bind``: ``memory:NAME``, ``HOST:PORT`` (port 0: any free one) or ``unix:PATH``."""
    return transport_for(bind).serve(bind, endpoint, services=services, insecure=insecure)


def connect(address: str, *, insecure: bool = False) -> Connection:
    """A connection to the learner at ``address``."""
    return transport_for(address).connect(address, insecure=insecure)
