"""What is wrong about TLS, in words: gRPC often knows only that a socket was closed."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from weightkit.errors import ConfigError, TransportError, Unauthenticated
from weightkit.transports.base import Access
from weightkit.transports.certificates import HINT, OTHER_AUTHORITY, OTHER_PURPOSE, judge_learner, read_identity

PROBE_S = 1.0


def explain(details: str, address: str, access: Access) -> TransportError | None:
    """What gRPC's ``details`` of an UNAVAILABLE call mean, where they are about TLS; None where they are not.

    Where gRPC knows less than can be found out, this connects to ``address`` once more (`diagnose`).
    """
    said = details.lower()
    if "failed to connect" not in said or address.startswith("unix:"):
        return None
    if access.tls is not None and "wrong_version_number" in said:
        return _plain_learner(address)
    # a name stands for several addresses, and gRPC tells of the last one only
    looks_closed = any(word in said for word in _CLOSED) or (
        "refused" in said and not _is_ip(_host_and_port(address)[0])
    )
    reason = next((reason for word, reason in _SAID if word in said), None) if access.tls is not None else None
    unclear = looks_closed or reason not in (None, OTHER_AUTHORITY)
    if unclear and (found := diagnose(address, access)) is not None:
        return found
    return None if reason is None else Unauthenticated(f"{address}: {reason[0]}", hint=reason[1])


_CLOSED = ("socket closed", "connection reset", "broken pipe", "end of file", "eof")
_CLOCKS = f"check the clocks of both machines, or {HINT}"
_OTHER_NAME = (
    "the learner's certificate is not for this address",
    "connect by a name that it holds, or make a new set with --host NAME",
)
_SAID = (
    ("certificate has expired", ("the learner's certificate has expired", _CLOCKS)),
    ("certificate is not yet valid", ("the learner's certificate is not valid yet", _CLOCKS)),
    ("unsupported certificate purpose", OTHER_PURPOSE),
    ("certificate_verify_failed", OTHER_AUTHORITY),
    ("hostname verification", _OTHER_NAME),
    ("not in peer certificate", _OTHER_NAME),
)


def diagnose(address: str, access: Access, *, timeout_s: float = PROBE_S) -> TransportError | None:
    """What a TLS handshake with ``address`` shows to be wrong, None for nothing. Trusts nothing, sends no weights.

    With ``access.tls`` it shows this actor's certificate, and judges the learner's.
    """
    host, port = _host_and_port(address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        if access.tls is not None:
            authority = read_identity(access.tls, "actor").authority
            context.load_cert_chain(Path(access.tls) / "actor.pem", Path(access.tls) / "actor.key")
        with socket.create_connection((host, port), timeout_s) as plain:
            secure = _Secure(plain, context, None if _is_ip(host) else host)
            if access.tls is None:
                return _tls_learner(address)
            fault = judge_learner(secure.certificate, authority, host)
            if fault is None and secure.closes():
                fault = _REFUSED
    except ConfigError as error:  # the own files, which may have expired since they were loaded
        return Unauthenticated(f"{address}: {error.message}", hint=error.hint)
    except ssl.SSLError as error:
        if access.tls is not None and error.reason == "WRONG_VERSION_NUMBER":
            return _plain_learner(address)
        return _tls_learner(address) if access.tls is None and "ALERT" in (error.reason or "") else None
    except (OSError, ValueError):
        return None
    return None if fault is None else Unauthenticated(f"{address}: {fault[0]}", hint=fault[1])


_REFUSED = (
    "the learner refuses this actor's certificate: the ca.pem that it goes by is another, or its clock is wrong",
    OTHER_AUTHORITY[1],
)


class _Secure:
    """A TLS connection over ``plain``, shaken hands on. It owns no socket: one that fails half-way would leak it.

    Raises OSError, of which ssl.SSLError is one.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, host: str | None) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._connection = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._until_done(self._connection.do_handshake)

    @property
    def certificate(self) -> bytes:
        """The peer's, as DER."""
        return self._connection.getpeercert(binary_form=True) or b""

    def closes(self) -> bool:
        """Whether the peer hangs up where a gRPC server has the first word, which is how it refuses in TLS 1.3."""
        try:
            return not self._until_done(lambda: self._connection.read(1))
        except TimeoutError:
            return False
        except OSError:
            return True

    def _until_done(self, step: Callable[[], bytes | None]) -> bytes | None:
        """What ``step`` gives, once the peer has said what it needs."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._plain.sendall(self._outgoing.read())
                if piece := self._plain.recv(1 << 14):
                    self._incoming.write(piece)
                else:
                    self._incoming.write_eof()
            finally:
                if self._outgoing.pending:
                    self._plain.sendall(self._outgoing.read())


def _plain_learner(address: str) -> TransportError:
    return TransportError(
        f"{address}: the learner speaks plain text, and this side was told to use TLS",
        hint="start the learner with --tls DIR too, or leave it out on both sides",
    )


def _tls_learner(address: str) -> TransportError:
    return TransportError(
        f"{address}: the learner speaks TLS, and this side plain text",
        hint="use --tls DIR, with the ca.pem, actor.pem and actor.key of the learner's set",
    )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
