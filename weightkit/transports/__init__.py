"""Ways of carrying weights from a learner to its actors: a table from address scheme to transport."""

from __future__ import annotations

import os
from importlib import import_module
from typing import cast

from weightkit.transports.base import OPEN, Access, Connection, Server, Service, SyncEndpoint, Transport

# gRPC's core writes a line of its own for every failed handshake, without limit and past every log; it reads this once
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

TRANSPORTS: dict[str, str] = {
    "memory": "weightkit.transports.memory",  # memory:NAME, within one process
    "": "weightkit.transports.grpc",  # HOST:PORT or unix:PATH
}


def transport_for(address: str) -> Transport:
    """The transport that an address names by its scheme."""
    scheme, colon, _ = address.partition(":")
    module = TRANSPORTS[scheme if colon and scheme in TRANSPORTS else ""]
    return cast(Transport, import_module(module).TRANSPORT)


def serve(bind: str, endpoint: SyncEndpoint, *, services: tuple[Service, ...] = (), access: Access = OPEN) -> Server:
    """``endpoint`` listening at ``bind``: ``memory:NAME``, ``HOST:PORT`` (port 0: any free one) or ``unix:PATH``."""
    return transport_for(bind).serve(bind, endpoint, services=services, access=access)


def connect(address: str, *, access: Access = OPEN) -> Connection:
    """A connection to the learner at ``address``."""
    return transport_for(address).connect(address, access=access)


def access_of(tls: str | None, token_file: str | None, insecure: bool) -> Access:
    """What ``--tls DIR``, ``--token-file F`` and ``--insecure`` say. Raises ConfigError for a file without a token."""
    token = None
    if token_file is not None:
        from weightkit.transports._tokens import read_token

        token = read_token(token_file)
    return Access(insecure=insecure, tls=tls, token=token)
