"""What protects the gRPC transport: certificates on both sides, where an address needs them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]

from weightkit.core.text import printable
from weightkit.errors import UsageError
from weightkit.transports._tokens import check_token
from weightkit.transports.base import Access
from weightkit.transports.certificates import Role, read_identity, readable_by_others, warn_once

_SOON = timedelta(days=30)


def check_access(address: str, access: Access) -> None:
    """Raise UsageError for certificates where they protect nothing, and for a token that cannot be one."""
    if access.tls is not None and address.startswith(("unix:", "memory:")):
        raise UsageError(
            f"--tls with {address}: what stays on this machine needs no certificates, and they name hosts, not paths",
            hint="leave --tls out (access to the socket's folder decides who may connect), or use HOST:PORT",
        )
    if access.token is not None:
        check_token(access.token)


def server_credentials(folder: str, on_handshake: Callable[[], None]) -> Any:
    """A learner's credentials from ``folder``: only actors with a certificate of its authority come through.

    ``on_handshake`` is called by gRPC's threads when a connection's handshake begins. Raises ConfigError.
    """
    authority, certificate, key = _loaded(folder, "learner")

    def fetch() -> None:  # nothing returned: the certificates stay what they are
        on_handshake()

    configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)
    return grpc.dynamic_ssl_server_credentials(configuration, fetch, require_client_authentication=True)


def channel_credentials(folder: str) -> Any:
    """An actor's credentials from ``folder``. Raises ConfigError."""
    authority, certificate, key = _loaded(folder, "actor")
    return grpc.ssl_channel_credentials(authority, key, certificate)


def _loaded(folder: str, role: Role) -> tuple[bytes, bytes, bytes]:
    identity = read_identity(folder, role)
    shown = printable(folder)
    if identity.expires - datetime.now(timezone.utc) < _SOON:
        warn_once(f"{shown}: the certificates expire on {identity.expires:%Y-%m-%d %H:%M} UTC")
    if mode := readable_by_others(Path(folder) / f"{role}.key"):
        warn_once(f"{shown}/{role}.key: others may read it (mode {mode}): chmod 600")
    return identity.authority, identity.certificate, identity.key
