"""What both ends of a gRPC connection agree on: addresses, options, deadlines, what a failure means."""

from __future__ import annotations

import ipaddress
import logging
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]

from weightkit.errors import (
    Disconnected,
    TransportError,
    TransportTimeout,
    Unauthenticated,
    UsageError,
)
from weightkit.transports._diagnosis import explain
from weightkit.transports._security import channel_credentials, check_access
from weightkit.transports._tokens import with_token
from weightkit.transports.base import (
    OPEN,
    Access,
)

logger = logging.getLogger(__name__)

SERVICE = "weightkit.wire.v1.Sync"
CALL_TIMEOUT_S = 5.0
SILENCE_S = 4.5  # a learner that says nothing for so long (it beats every second) counts as gone
FLUSH_S = 0.5  # how long closing waits for the last acknowledgement to go out
ASK_TIMEOUT_S = 40.0  # an actor answers between two steps, and only then
STALL_S = 10.0  # an actor that takes nothing of what it is sent for so long is cut off
MAX_CALLS = 256
MAX_MESSAGE_BYTES = 64 << 20
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 2500),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.ping_timeout_ms", 2000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]
SERVER_OPTIONS = [
    *_KEEPALIVE,
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
]
_CLIENT_OPTIONS = [
    *_KEEPALIVE,
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


def is_local(address: str) -> bool:
    """Whether an address stays on this machine: a UNIX socket, localhost or a loopback IP."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: str, access: Access, verb: str) -> None:
    host, colon, port = address.rpartition(":")
    if not address.startswith("unix:") and not (colon and host and port.isdecimal() and int(port) < 65536):
        raise UsageError(f"{address!r} is no address", hint="HOST:PORT, [IPv6]:PORT, unix:PATH or memory:NAME")
    check_access(address, access)
    if not (access.insecure or access.tls is not None or is_local(address)):
        raise UsageError(
            f"refused to {verb} {address} in plain text: weights and actions would travel unprotected",
            hint="make certificates once, copy what the actor needs, and give them to both sides:\n"
            f"      weightkit-learner --make-certs certs --host {host.strip('[]')}\n"
            f"      weightkit-learner --tls certs --bind {address} --config_path F\n"
            f"      weightkit-actor --tls certs --learner {address} --config_path F\n"
            "      or say --insecure on both sides, on a network that you trust",
        )


def open_channel(address: str, *, access: Access = OPEN) -> Any:
    """A channel with this transport's keepalive and limits.

    Raises UsageError for plain text beyond this machine, ConfigError for certificates that cannot be used.
    """
    check_address(address, access, "connect to")
    if access.tls is None:
        channel = grpc.insecure_channel(address, options=_CLIENT_OPTIONS)
    else:
        channel = grpc.secure_channel(address, channel_credentials(access.tls), options=_CLIENT_OPTIONS)
    return channel if access.token is None else with_token(channel, access.token)


def error_of(error: Any, address: str, access: Access = OPEN) -> TransportError:
    """What a gRPC failure means. May connect once more to find out what is wrong about TLS."""
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and (explained := explain(details, address, access)) is not None:
        return explained
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TransportTimeout(f"{address}: no answer in time")
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Unauthenticated(f"{address}: {details}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return Disconnected(f"{address}: the connection is lost or was never made ({details})")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return TransportError(
            f"{address}: the peer does not speak {SERVICE}", hint="is it a weightkit learner, of this version?"
        )
    return TransportError(f"{address}: {code.name.lower()}: {details}")
