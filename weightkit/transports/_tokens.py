"""A secret that every call carries: read from a file, shown by actors, asked for by a learner."""

from __future__ import annotations

import functools
import hmac
import logging
import threading
import time
import urllib.parse
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc  # type: ignore[import-untyped, unused-ignore]

from weightkit.core.text import printable
from weightkit.errors import ConfigError, UsageError
from weightkit.transports._handshakes import Handshakes
from weightkit.transports.certificates import readable_by_others, warn_once

logger = logging.getLogger(__name__)

NO_TOKEN = "no token"
WRONG_TOKEN = "wrong token"
LINE_EVERY_S = 60.0
_LEAST_TOKEN, _LONGEST_TOKEN = 16, 4096
_TOKEN_HINT = "openssl rand -hex 32 > FILE makes a good one; both sides take it with --token-file FILE"
_MOST_HOSTS = 256
_MOST_LINES = 10  # a minute, from all hosts together


def read_token(path: str | Path) -> str:
    """The token in a file, without the newline at its end. Raises ConfigError for what can be none."""
    path = Path(path)
    shown = printable(str(path))
    try:
        with open(path, "rb") as file:
            content = file.read(_LONGEST_TOKEN + 3)
        mode = readable_by_others(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{shown}: the token cannot be read: {why}", hint=_TOKEN_HINT) from None
    token = content.decode("latin-1").removesuffix("\n").removesuffix("\r")
    if fault := _token_fault(token):
        raise ConfigError(f"{shown}: the token {fault}", hint=_TOKEN_HINT)
    if mode:
        warn_once(f"{shown}: others may read the token (mode {mode}): chmod 600")
    return token


def check_token(token: str) -> None:
    if fault := _token_fault(token):
        raise UsageError(f"the token {fault}", hint=_TOKEN_HINT)


def _token_fault(token: str) -> str:
    if not token:
        return "is empty"
    if len(token) < _LEAST_TOKEN:
        return f"has {len(token)} characters, which is guessed too soon: at least {_LEAST_TOKEN}"
    if len(token) > _LONGEST_TOKEN:
        return f"has more than {_LONGEST_TOKEN} characters"
    if not all("!" <= character <= "~" for character in token):
        return "has a space or another character that no header can carry: printable ASCII only, on one line"
    return ""


class Refusals:
    """Calls without the right token: counted by reason, and told in the log, one line a minute for each host.

    ``clock`` gives seconds. What is remembered of hosts is bounded, and so are the lines of all of them together.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = {NO_TOKEN: 0, WRONG_TOKEN: 0}
        self._told: OrderedDict[str, float] = OrderedDict()
        self._lines: deque[float] = deque(maxlen=_MOST_LINES)

    def counts(self) -> Mapping[str, int]:
        """How many calls were refused so far, by reason."""
        with self._lock:
            return dict(self._counts)

    def refused(self, peer: str, reason: str) -> None:
        """A call from ``peer`` was refused."""
        host = host_of(peer)
        with self._lock:
            self._counts[reason] += 1
            total = sum(self._counts.values())
            if not self._may_tell(host, self._clock()):
                return
        logger.warning("[transport] refused a call from %s: %s (%d refused so far)", host, reason, total)

    def _may_tell(self, host: str, now: float) -> bool:
        too_many = len(self._lines) == _MOST_LINES and now - self._lines[0] < LINE_EVERY_S
        if too_many or (host in self._told and now - self._told[host] < LINE_EVERY_S):
            return False
        self._lines.append(now)
        self._told[host] = now
        self._told.move_to_end(host)
        if len(self._told) > _MOST_HOSTS:
            self._told.popitem(last=False)
        return True


def host_of(peer: str) -> str:
    """The host in what gRPC calls a peer, such as ``ipv4:10.0.0.7:41234``; fit for a terminal."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return "this machine" if kind == "unix" else printable(peer)
    return printable(urllib.parse.unquote(rest).rpartition(":")[0].strip("[]"))


def server_interceptor(token: str | None, refusals: Refusals, handshakes: Handshakes | None = None) -> Any:
    """A ``grpc.ServerInterceptor`` that lets calls with ``token`` through, of every service; all calls with None.

    ``handshakes`` hears of each call's peer, whatever its token: its connection stands. Raises UsageError.
    """
    if token is not None:
        check_token(token)
    return _Gate(None if token is None else f"Bearer {token}".encode(), refusals, handshakes)


class _Gate(grpc.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    def __init__(self, expected: bytes | None, refusals: Refusals, handshakes: Handshakes | None) -> None:
        self._expected = expected
        self._refusals = refusals
        self._handshakes = handshakes

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        if reason := self._reason(details):
            return self._ending(reason)
        handler = continuation(details)
        if self._handshakes is None:
            return handler
        return self._ending(None) if handler is None else self._reporting(handler)

    def _reason(self, details: Any) -> str:
        if self._expected is None:
            return ""
        shown = [value for key, value in details.invocation_metadata or () if key == "authorization"]
        if not shown:
            return NO_TOKEN
        given = shown[0] if isinstance(shown[0], bytes) else shown[0].encode("utf-8", "surrogateescape")
        return "" if hmac.compare_digest(given, self._expected) and len(shown) == 1 else WRONG_TOKEN

    def _ending(self, reason: str | None) -> Any:
        """A handler for any kind of call, which reads nothing of it: refused for ``reason``, or unknown here (None)."""

        def end(_: Any, context: Any) -> None:
            self._report(context)
            if reason is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            self._refusals.refused(context.peer(), str(reason))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{reason}: the learner takes calls with its token only")

        return grpc.stream_stream_rpc_method_handler(end)

    def _reporting(self, handler: Any) -> Any:
        kinds = (
            "stream" if streams else "unary" for streams in (handler.request_streaming, handler.response_streaming)
        )
        kind = "_".join(kinds)
        behavior = getattr(handler, kind)

        @functools.wraps(behavior)  # with the attributes by which health's Watch asks not to occupy a thread
        def call(request: Any, context: Any, *rest: Any) -> Any:
            self._report(context)
            return behavior(request, context, *rest)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(call, handler.request_deserializer, handler.response_serializer)

    def _report(self, context: Any) -> None:
        if self._handshakes is None:
            return
        peer = context.peer()
        self._handshakes.peer(peer)
        if not context.add_callback(functools.partial(self._handshakes.left, peer)):
            self._handshakes.left(peer)


def with_token(channel: Any, token: str) -> Any:
    """``channel``, with ``token`` on every call of every kind.

    On a closed channel a call of it fails when its answer is asked for, where one without a token raises at once.
    """
    check_token(token)
    return grpc.intercept_channel(channel, _Bearer(token))


class _CallDetails(NamedTuple):
    """``grpc.ClientCallDetails``, with other metadata."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[misc, unused-ignore]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[misc, unused-ignore]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[misc, unused-ignore]
    grpc.StreamStreamClientInterceptor,  # type: ignore[misc, unused-ignore]
):
    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _intercept(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), self._header)
        carried = _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            getattr(details, "wait_for_ready", None),
            getattr(details, "compression", None),
        )
        return continuation(carried, request)

    intercept_unary_unary = _intercept
    intercept_unary_stream = _intercept
    intercept_stream_unary = _intercept
    intercept_stream_stream = _intercept
