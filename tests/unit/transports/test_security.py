"""Who may not talk to a learner is told why in one line, counted by the learner, and told in its log."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from weightkit.errors import ConfigError, TransportError, Unauthenticated, UsageError
from weightkit.transports._diagnosis import diagnose, explain
from weightkit.transports._handshakes import SESSION_S, Handshakes
from weightkit.transports._security import channel_credentials, check_access, server_credentials
from weightkit.transports._tokens import (
    LINE_EVERY_S,
    NO_TOKEN,
    WRONG_TOKEN,
    Refusals,
    host_of,
    read_token,
    server_interceptor,
    with_token,
)
from weightkit.transports.base import Access
from weightkit.transports.certificates import judge_learner, make_certificates, read_identity

TOKEN = "a-token-that-nobody-guesses"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
TIMEOUT_S = 20.0
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.so_reuseport", 0),
]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---- certificates, some of them wrong in one way


def issue(
    folder: Path,
    *,
    names: tuple[str, ...] = ("localhost",),
    addresses: tuple[str, ...] = ("127.0.0.1",),
    authority_days: tuple[int, int] = (-99, 99),
    learner_days: tuple[int, int] = (-1, 9),
    actor_days: tuple[int, int] = (-1, 9),
) -> Path:
    """A set of one authority, whose certificates are valid between days from now."""
    now = datetime.now(timezone.utc)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    authority = ec.generate_private_key(ec.SECP256R1())
    folder.mkdir()

    def write(role: str, subject: x509.Name, key: Any, days: tuple[int, int], *extensions: Any) -> None:
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now + timedelta(days=days[0])).not_valid_after(now + timedelta(days=days[1]))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        made = builder.sign(authority, hashes.SHA256())
        (folder / f"{role}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{role}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        (folder / f"{role}.key").chmod(0o600)

    reached = x509.SubjectAlternativeName(
        [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses)]
    )
    server, client = (
        x509.ExtendedKeyUsage([purpose])
        for purpose in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    )
    write("ca", issuer, authority, authority_days, x509.BasicConstraints(True, None))
    for role, days, extensions in (("learner", learner_days, (server, reached)), ("actor", actor_days, (client,))):
        write(role, x509.Name([]), ec.generate_private_key(ec.SECP256R1()), days, *extensions)
    return folder


def mixed(folder: Path, **origins: Path) -> Path:
    """A set put together from others: ``ca``, ``learner`` and ``actor``, each from a folder."""
    folder.mkdir()
    for role, origin in origins.items():
        for ending in ("pem", "key"):
            if (origin / f"{role}.{ending}").exists():
                shutil.copy(origin / f"{role}.{ending}", folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    for name in ("good", "other"):
        make_certificates(root / name)
    past = datetime.now(timezone.utc) - timedelta(days=30)
    make_certificates(root / "past", days=1, now=past)
    issue(root / "elsewhere", names=("robot.example",), addresses=("10.9.8.7",))
    issue(root / "learner_expired", learner_days=(-9, -2))
    issue(root / "learner_early", learner_days=(2, 9))
    issue(root / "actor_expired", actor_days=(-9, -2))
    issue(root / "actor_early", actor_days=(2, 9))
    issue(root / "authority_expired", authority_days=(-9, -2))
    return root


@pytest.fixture(scope="module")
def good(root: Path) -> Path:
    return root / "good"


def unchecked_server(folder: Path, on_handshake: Callable[[], None], *, trust: Path | None = None) -> Any:
    """A server's credentials that nobody has looked at."""
    pair = ((folder / "learner.key").read_bytes(), (folder / "learner.pem").read_bytes())
    authority = ((trust or folder) / "ca.pem").read_bytes()
    configuration = grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)
    return grpc.dynamic_ssl_server_credentials(configuration, on_handshake, require_client_authentication=True)


def unchecked_channel(folder: Path, *, trust: Path | None = None, certificate: bool = True) -> Any:
    """A channel's credentials that nobody has looked at."""
    key, shown = ((folder / f"actor.{ending}").read_bytes() if certificate else None for ending in ("key", "pem"))
    return grpc.ssl_channel_credentials(((trust or folder) / "ca.pem").read_bytes(), key, shown)


# ---- servers and calls


class Learner:
    """A server with an echo of each kind, health and reflection, behind certificates or a token or both."""

    def __init__(
        self,
        credentials: Callable[[Callable[[], None]], Any] | None = None,
        token: str | None = None,
        handshakes: Handshakes | None = None,
    ) -> None:
        self.clock = Clock()
        self.refusals = Refusals(clock=self.clock)
        self.handshakes = handshakes or Handshakes(clock=self.clock)
        self.parsed: list[bytes] = []
        self.entered: list[str] = []
        gate = server_interceptor(token, self.refusals, self.handshakes)
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, interceptors=(gate,), options=OPTIONS)
        for parsing in (True, False):
            handlers = {kind: self._handler(kind, self._parse if parsing else None) for kind in KINDS}
            service = grpc.method_handlers_generic_handler("parsing" if parsing else "raw", handlers)
            self._server.add_generic_rpc_handlers((service,))
        # its default can lock up the whole server where one watcher comes as another goes
        servicer = health.HealthServicer(experimental_non_blocking=False)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        reflection.enable_server_reflection((reflection.SERVICE_NAME, health.SERVICE_NAME), self._server)
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials(self.handshakes.started))
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def _parse(self, message: bytes) -> bytes:
        self.parsed.append(message)
        return message

    def _handler(self, kind: str, parse: Callable[[bytes], bytes] | None) -> Any:
        def answer(request: Any, context: Any) -> Any:
            self.entered.append(kind)
            return request if kind.startswith("unary") else b"".join(request)

        def answers(request: Any, context: Any) -> Iterator[bytes]:
            self.entered.append(kind)
            yield from [request] * 2 if kind.startswith("unary") else request

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(answers if kind.endswith("stream") else answer, parse, lambda message: message)

    def failed(self) -> int:
        """Handshakes that came to nothing, when all have had their time."""
        self.clock.now += SESSION_S
        return self.handshakes.failed

    def close(self) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()


@contextlib.contextmanager
def learner(
    folder: Path | None = None, *, token: str | None = None, trust: Path | None = None, checked: bool = True
) -> Iterator[Learner]:
    def credentials(on_handshake: Callable[[], None]) -> Any:
        assert folder is not None
        if checked:
            return server_credentials(str(folder), on_handshake)
        return unchecked_server(folder, on_handshake, trust=trust)

    server = Learner(None if folder is None else credentials, token)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def channel_to(address: str, credentials: Any = None, *, token: str | None = None) -> Iterator[Any]:
    channel = (
        grpc.insecure_channel(address, OPTIONS)
        if credentials is None
        else grpc.secure_channel(address, credentials, OPTIONS)
    )
    try:
        yield channel if token is None else with_token(channel, token)
    finally:
        channel.close()


def call(channel: Any, kind: str = "unary_unary", service: str = "raw") -> list[bytes]:
    """What an echo answers to b"a" (and b"b", where it takes a stream). Raises grpc.RpcError."""
    method = getattr(channel, kind)(f"/{service}/{kind}")
    answer = method(iter((b"a", b"b")) if kind.startswith("stream") else b"a", timeout=TIMEOUT_S)
    return list(answer) if kind.endswith("stream") else [answer]


def failure(channel: Any, kind: str = "unary_unary", service: str = "raw") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, kind, service)
    return caught.value.code(), caught.value.details()


def explained(server: Learner, credentials: Any, access: Access, *, host: str = "127.0.0.1") -> TransportError:
    """What a failing call means."""
    address = f"{host}:{server.port}"
    with channel_to(address, credentials) as channel:
        code, details = failure(channel)
    assert code is grpc.StatusCode.UNAVAILABLE
    said = explain(details, address, access)
    assert said is not None, details
    assert said.message.startswith(f"{address}: ")
    assert "\n" not in said.message
    assert said.hint
    return said


def the_only_line(caplog: pytest.LogCaptureFixture) -> str:
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("weightkit.transports.")]
    assert len(lines) == 1, lines
    assert "\n" not in lines[0]
    return lines[0]


# ---- certificates, end to end


@pytest.mark.parametrize("kind", KINDS)
def test_two_sides_of_one_set_talk_and_nothing_is_counted(good: Path, kind: str) -> None:
    with learner(good) as server, channel_to(server.address, channel_credentials(str(good))) as channel:
        assert call(channel, kind)[0][:1] == b"a"
        assert server.failed() == 0
        assert diagnose(server.address, Access(tls=str(good))) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_learner_of_another_authority_is_not_believed(
    root: Path, good: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with learner(root / "other") as server:
        access = Access(tls=str(good))
        said = explained(server, channel_credentials(str(good)), access, host=host)
        assert isinstance(said, Unauthenticated)
        assert "the learner's certificate is not one of the authority in this actor's ca.pem" in said.message
        assert server.failed() >= 1
        assert re.search(r"did not get through the TLS handshake \(\d+ so far\): ", the_only_line(caplog))
        assert server.entered == []


def test_an_actor_of_another_authority_is_not_let_in(
    root: Path, good: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    actor = mixed(tmp_path / "actor", ca=root / "other", actor=root / "other")
    with open(actor / "ca.pem", "ab") as file:  # it trusts both authorities, so that its own files fit together
        file.write((good / "ca.pem").read_bytes())
    with learner(good) as server:
        said = explained(server, channel_credentials(str(actor)), Access(tls=str(actor)))
        assert isinstance(said, Unauthenticated)
        assert "the learner refuses this actor's certificate" in said.message
        assert server.failed() >= 1
        assert "TLS handshake" in the_only_line(caplog)
        assert server.entered == []


def test_an_actor_without_a_certificate_is_not_let_in(good: Path) -> None:
    with learner(good) as server, channel_to(server.address, unchecked_channel(good, certificate=False)) as channel:
        assert failure(channel)[0] is grpc.StatusCode.UNAVAILABLE
        assert server.failed() >= 1
        assert server.entered == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("learner_expired", "the learner's certificate expired on "), ("learner_early", "is not valid before ")],
)
def test_a_learner_out_of_its_time_is_not_believed(root: Path, name: str, said: str) -> None:
    folder = root / name
    with learner(folder, checked=False) as server:
        error = explained(server, channel_credentials(str(folder)), Access(tls=str(folder)))
        assert isinstance(error, Unauthenticated)
        assert said in error.message
        assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", error.message)
        assert server.failed() >= 1


@pytest.mark.parametrize(("name", "said"), [("actor_expired", "expired on "), ("actor_early", "is not valid before ")])
def test_an_actor_out_of_its_time_is_not_let_in_and_hears_which_file_it_is(root: Path, name: str, said: str) -> None:
    folder = root / name
    with learner(folder) as server:
        error = explained(server, unchecked_channel(folder), Access(tls=str(folder)))
        assert isinstance(error, Unauthenticated)
        assert f"{folder}/actor.pem: the certificate {said}" in error.message
        assert server.failed() >= 1
        assert server.entered == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_learner_under_another_name_is_not_believed_and_its_names_are_told(root: Path, host: str) -> None:
    folder = root / "elsewhere"
    with learner(folder) as server:
        said = explained(server, channel_credentials(str(folder)), Access(tls=str(folder)), host=host)
        assert isinstance(said, Unauthenticated)
        assert f"the learner's certificate is not for {host}, but for robot.example, 10.9.8.7" in said.message
        assert f"--host {host}" in said.hint
        assert server.failed() >= 1


def test_who_has_an_actors_key_cannot_pass_for_the_learner(good: Path, tmp_path: Path) -> None:
    thief = mixed(tmp_path / "thief", ca=good)
    for ending in ("pem", "key"):
        shutil.copy(good / f"actor.{ending}", thief / f"learner.{ending}")
    with learner(thief, checked=False) as server:
        said = explained(server, channel_credentials(str(good)), Access(tls=str(good)))
        assert isinstance(said, Unauthenticated)
        assert "not meant for a learner" in said.message


def test_who_has_the_learners_key_cannot_pass_for_an_actor(good: Path, tmp_path: Path) -> None:
    thief = mixed(tmp_path / "thief", ca=good)
    for ending in ("pem", "key"):
        shutil.copy(good / f"learner.{ending}", thief / f"actor.{ending}")
    with learner(good) as server, channel_to(server.address, unchecked_channel(thief)) as channel:
        assert failure(channel)[0] is grpc.StatusCode.UNAVAILABLE
        assert server.entered == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_plain_text_to_a_learner_with_certificates_is_explained_and_counted(
    good: Path, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    with learner(good) as server:
        said = explained(server, None, Access(), host=host)
        assert said.message == f"{host}:{server.port}: the learner speaks TLS, and this side plain text"
        assert "--tls" in said.hint
        assert server.failed() >= 1
        assert "plain text" in the_only_line(caplog)
        assert server.entered == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_certificates_to_a_learner_with_plain_text_are_explained(good: Path, host: str) -> None:
    with learner() as server:
        said = explained(server, channel_credentials(str(good)), Access(tls=str(good)), host=host)
        assert "the learner speaks plain text, and this side was told to use TLS" in said.message
        assert "--tls" in said.hint


def test_a_connection_that_says_nothing_is_counted(good: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = threading.Event()

    def credentials(on_handshake: Callable[[], None]) -> Any:
        return server_credentials(str(good), lambda: (on_handshake(), begun.set())[0])

    server = Learner(credentials)
    try:
        with socket.create_connection(("127.0.0.1", server.port)):
            assert begun.wait(TIMEOUT_S)
            assert server.handshakes.failed == 0
            assert server.failed() == 1
    finally:
        server.close()
    assert "(1 so far)" in the_only_line(caplog)


@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_each_call_is_told_whether_it_was_let_in_or_not(kind: str, token: str | None) -> None:
    class Recorded(Handshakes):
        def peer(self, address: str) -> None:
            begun.append(address)

        def left(self, address: str) -> None:
            ended.append(address)
            over.set()

    begun: list[str] = []
    ended: list[str] = []
    over = threading.Event()
    server = Learner(token=TOKEN, handshakes=Recorded())
    try:
        with channel_to(server.address, token=token) as channel:
            if token is None:
                failure(channel, kind)
            else:
                call(channel, kind)
        assert over.wait(TIMEOUT_S)
        assert begun == ended
        assert len(ended) == 1
    finally:
        server.close()


def test_a_probe_finds_out_alone_who_speaks_what(root: Path, good: Path) -> None:
    def found(server: Learner, access: Access) -> str:
        said = diagnose(server.address, access)
        return "" if said is None else said.message

    with learner(good) as guarded, learner() as plain, learner(root / "other") as strange:
        assert "speaks TLS" in found(guarded, Access())
        assert found(plain, Access()) == ""
        assert "speaks plain text" in found(plain, Access(tls=str(good)))
        assert found(guarded, Access(tls=str(good))) == ""
        assert "authority" in found(strange, Access(tls=str(good)))
        assert "no folder" in found(guarded, Access(tls=str(root / "nowhere")))


def test_a_refusal_at_one_address_of_a_name_hides_nothing_at_another(good: Path) -> None:
    with learner(good) as server:
        refused = "failed to connect to all addresses; last error: UNKNOWN: ipv6:[::1]:1: connect: Connection refused"
        said = explain(refused, f"localhost:{server.port}", Access())
        assert said is not None
        assert "speaks TLS" in said.message
        assert explain(refused, server.address, Access()) is None


def test_a_learner_that_is_silent_after_its_handshake_has_refused_nobody(good: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(good / "learner.pem", good / "learner.key")
    over = threading.Event()

    def serve() -> None:
        with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True):
            over.wait(TIMEOUT_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            assert diagnose(address, Access(tls=str(good)), timeout_s=0.3) is None
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("host", "holds"),
    [("a.lab", True), ("A.LAB", True), ("a.b.lab", False), ("lab", False), ("z.net", True), ("y.net", False)],
)
def test_an_asterisk_stands_for_one_label(tmp_path: Path, host: str, holds: bool) -> None:
    folder = issue(tmp_path / "set", names=("*.lab", "z.net"))
    shown = ssl.PEM_cert_to_DER_cert((folder / "learner.pem").read_text())
    assert (judge_learner(shown, (folder / "ca.pem").read_bytes(), host) is None) == holds


@pytest.mark.parametrize("access", [Access(), Access(tls="set")])
def test_what_is_not_about_certificates_is_left_alone(good: Path, access: Access) -> None:
    access = Access(tls=str(good) if access.tls else None)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert diagnose(address, access, timeout_s=0.05) is None
    refused = "failed to connect to all addresses; last error: UNKNOWN: {}: connect: Connection refused (111)"
    assert diagnose(address, access) is None
    assert explain(refused.format(f"ipv4:{address}"), address, access) is None
    assert explain(refused.format("ipv6:[::1]:1"), f"localhost:{address.rpartition(':')[2]}", access) is None
    assert explain("Socket closed", address, access) is None
    assert explain("", address, access) is None
    assert explain("failed to connect to all addresses; last error: unix:/s: Socket closed", "unix:/s", access) is None


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ("Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED: self signed certificate", "ca.pem"),
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "has expired"),
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK", "not valid yet"),
        ("Tls handshake failed: CERTIFICATE_VERIFY_FAILED: unsupported certificate purpose", "not meant for"),
        ("Peer name 127.0.0.1 is not in peer certificate", "not for this address"),
        ("Custom verification check failed with error: Hostname Verification Check failed.", "not for this address"),
        ("Ssl handshake failed: SSL_ERROR_SSL: WRONG_VERSION_NUMBER: Invalid context", "speaks plain text"),
    ],
)
def test_grpcs_own_words_are_enough_when_the_learner_is_gone(good: Path, details: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    details = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:{address}: {details}"
    error = explain(details, address, Access(tls=str(good)))
    assert error is not None
    assert said in error.message


# ---- certificates, on loading


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("past", "both"),
        ("learner_expired", "learner"),
        ("actor_early", "actor"),
        ("authority_expired", "both"),
        ("nowhere", "both"),
    ],
)
def test_what_is_wrong_with_ones_own_files_is_said_before_anything_starts(root: Path, name: str, load: str) -> None:
    folder = str(root / name)
    if load in ("learner", "both"):
        with pytest.raises(ConfigError, match=folder):
            server_credentials(folder, lambda: None)
    if load in ("actor", "both"):
        with pytest.raises(ConfigError, match=folder):
            channel_credentials(folder)


def test_an_authority_that_expires_first_is_what_counts(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"authority_expired/ca\.pem: the certificate expired on "):
        channel_credentials(str(root / "authority_expired"))
    folder = issue(tmp_path / "set", authority_days=(-1, 50), actor_days=(-1, 200))
    assert read_identity(folder, "actor").expires < datetime.now(timezone.utc) + timedelta(days=51)


def test_certificates_that_expire_soon_and_keys_that_others_can_read_are_told(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(root / "learner_early", tmp_path / "copy"))
    for _ in range(3):  # an actor loads them for every connection
        channel_credentials(str(folder))
    assert re.search(r"copy: the certificates expire on \d{4}-", the_only_line(caplog))
    caplog.clear()
    made = make_certificates(tmp_path / "made").folder
    channel_credentials(str(made))
    assert caplog.records == []
    (made / "actor.key").chmod(0o640)
    channel_credentials(str(made))
    assert "actor.key: others may read it (mode 0640)" in the_only_line(caplog)


@pytest.mark.parametrize("address", ["unix:/tmp/socket", "memory:run"])
def test_certificates_for_what_stays_on_one_machine_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="needs no certificates"):
        check_access(address, Access(tls="certs"))
    check_access(address, Access(token=TOKEN))


@pytest.mark.parametrize(
    "token", ["", "short", "with a space in between", "newline-at-the-end\n", "ü" * 20, "x" * 5000]
)
def test_what_can_be_no_token_is_refused_everywhere(token: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the token "):
        check_access("127.0.0.1:1", Access(token=token))
    with pytest.raises(UsageError, match="the token "):
        server_interceptor(token, Refusals())
    with channel_to("127.0.0.1:1") as channel, pytest.raises(UsageError, match="the token "):
        with_token(channel, token)
    (tmp_path / "token").write_text(token + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="token: the token ") as caught:
        read_token(tmp_path / "token")
    assert not token or token not in str(caught.value)


# ---- tokens


@pytest.mark.parametrize("service", ["parsing", "raw"])
@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_every_kind_come_through_with_the_token_and_not_without(kind: str, service: str) -> None:
    with learner(token=TOKEN) as server:
        with channel_to(server.address, token=TOKEN) as channel:
            expected = {
                "unary_unary": [b"a"],
                "unary_stream": [b"a", b"a"],
                "stream_unary": [b"ab"],
                "stream_stream": [b"a", b"b"],
            }
            assert call(channel, kind, service) == expected[kind]
        server.parsed.clear()
        server.entered.clear()
        for token, reason in ((None, NO_TOKEN), (TOKEN[:-1] + "x", WRONG_TOKEN), (TOKEN + "x", WRONG_TOKEN)):
            with channel_to(server.address, token=token) as channel:
                code, details = failure(channel, kind, service)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert details == f"{reason}: the learner takes calls with its token only"
        assert server.refusals.counts() == {NO_TOKEN: 1, WRONG_TOKEN: 2}
        assert server.entered == []
        assert server.parsed == []


def test_health_and_reflection_want_the_token_too() -> None:
    def listed(channel: Any) -> Any:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        return next(stub.ServerReflectionInfo(iter((request,)), timeout=TIMEOUT_S))

    def checked(channel: Any) -> Any:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)

    def watched(channel: Any) -> Any:
        stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        first = next(stream)
        stream.cancel()
        return first

    with learner(token=TOKEN) as server:
        for ask in (listed, checked, watched):
            with channel_to(server.address, token=TOKEN) as channel:
                assert ask(channel)
            with channel_to(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
                ask(channel)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert server.refusals.counts() == {NO_TOKEN: 3, WRONG_TOKEN: 0}


def test_a_handler_that_asks_for_no_thread_of_its_own_still_asks(line: Line) -> None:
    def watch(request: bytes, context: Any, send: Callable[[bytes], None]) -> None:
        send(request)

    class Context:
        def peer(self) -> str:
            return "ipv4:10.0.0.7:1"

        def add_callback(self, callback: Callable[[], None]) -> bool:
            return False

    watch.experimental_non_blocking = True  # type: ignore[attr-defined]
    original = grpc.unary_stream_rpc_method_handler(watch)
    gate = server_interceptor(None, Refusals(), line.handshakes)
    handler = gate.intercept_service(lambda details: original, None)
    sent: list[bytes] = []
    handler.unary_stream(b"a", Context(), sent.append)
    assert handler.unary_stream.experimental_non_blocking
    assert sent == [b"a"]


def test_who_has_no_token_does_not_learn_which_methods_there_are() -> None:
    with learner(token=TOKEN) as server:
        with channel_to(server.address) as channel:
            assert failure(channel, service="nothing")[0] is grpc.StatusCode.UNAUTHENTICATED
        with channel_to(server.address, token=TOKEN) as channel:
            assert failure(channel, service="nothing") == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", TOKEN)],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")],
        [("authorization-bin", f"Bearer {TOKEN}".encode())],
    ],
)
def test_only_the_one_header_counts(headers: list[tuple[str, Any]]) -> None:
    with learner(token=TOKEN) as server, channel_to(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/raw/unary_unary")(b"a", metadata=headers, timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert sum(server.refusals.counts().values()) == 1


def test_what_is_sent_without_waiting_and_what_is_cancelled_stays_so_with_a_token() -> None:
    with learner(token=TOKEN) as server, channel_to(server.address, token=TOKEN) as channel:
        sent = channel.unary_unary("/raw/unary_unary").future(b"a", timeout=TIMEOUT_S)
        assert (sent.result(TIMEOUT_S), sent.code()) == (b"a", grpc.StatusCode.OK)
        stream = channel.stream_stream("/raw/stream_stream")(iter((b"a",)), timeout=TIMEOUT_S)
        assert stream.cancel()
        with pytest.raises(grpc.RpcError):
            list(stream)
        assert stream.code() is grpc.StatusCode.CANCELLED


def test_on_a_closed_channel_a_call_with_a_token_fails_when_it_is_asked() -> None:
    with channel_to("127.0.0.1:1", token=TOKEN) as channel:
        channel.close()
        stream = channel.unary_stream("/raw/unary_stream")(b"a")
        with pytest.raises(ValueError, match="closed"):
            next(stream)
        with pytest.raises(ValueError, match="closed"):
            channel.unary_unary("/raw/unary_unary")(b"a")


def test_the_headers_of_a_call_stay_beside_the_token() -> None:
    class Mirror(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.update(details.invocation_metadata)
            return continuation(details)

    seen: dict[str, Any] = {}
    pool = ThreadPoolExecutor(2)
    server = grpc.server(pool, interceptors=(Mirror(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with channel_to(f"127.0.0.1:{port}", token=TOKEN) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/a/b")(b"", metadata=(("actor", "one"),), timeout=TIMEOUT_S)
    server.stop(0).wait()
    pool.shutdown()
    assert (seen["actor"], seen["authorization"]) == ("one", f"Bearer {TOKEN}")


def test_a_wrong_token_over_certificates_is_a_refusal_and_no_failed_handshake(
    good: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with learner(good, token=TOKEN) as server:
        for token in (None, "x" * 20, TOKEN):
            with channel_to(server.address, channel_credentials(str(good)), token=token) as channel:
                if token == TOKEN:
                    assert call(channel) == [b"a"]
                else:
                    assert failure(channel)[0] is grpc.StatusCode.UNAUTHENTICATED
        assert server.refusals.counts() == {NO_TOKEN: 1, WRONG_TOKEN: 1}
        assert server.failed() == 0
    assert the_only_line(caplog) == "[transport] refused a call from 127.0.0.1: no token (1 refused so far)"


def test_a_call_of_an_unknown_method_is_no_failed_handshake(good: Path) -> None:
    with learner(good) as server, channel_to(server.address, channel_credentials(str(good))) as channel:
        assert failure(channel, service="nothing")[0] is grpc.StatusCode.UNIMPLEMENTED
        assert server.failed() == 0


def test_a_token_is_read_without_the_newline_at_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    for text in (TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\n"):
        path.write_bytes(text.encode())
        path.chmod(0o600)
        assert read_token(path) == TOKEN
    assert caplog.records == []
    path.chmod(0o644)
    assert read_token(path) == TOKEN
    assert "others may read the token (mode 0644)" in the_only_line(caplog)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("text", [f"{TOKEN}\n\n", f"{TOKEN} \n", f"{TOKEN}\n{TOKEN}\n", f" {TOKEN}"])
def test_a_token_on_more_than_one_line_or_with_spaces_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError, match="on one line") as caught:
        read_token(tmp_path / "token")
    assert TOKEN not in str(caught.value)


def test_a_token_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), (Path("a\0b"), "null")):
        with pytest.raises(ConfigError, match=f"the token cannot be read: .*{why}") as caught:
            read_token(path)
        assert "--token-file" in caught.value.hint


# ---- what a learner's log is told


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.7:41234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:41234", "::1"),
        ("ipv6:[fd00::7]:41234", "fd00::7"),
        ("unix:", "this machine"),
        ("unix:@\x1b[2J", "this machine"),
        ("\x1b[2J", "\\x1b[2J"),
    ],
)
def test_a_peer_is_told_by_its_host(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_a_flood_of_refusals_is_counted_and_fills_neither_log_nor_memory(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock=clock)
    for port in range(1000):
        refusals.refused(f"ipv4:10.0.0.7:{port}", WRONG_TOKEN)
    assert [record.getMessage() for record in caplog.records] == [
        "[transport] refused a call from 10.0.0.7: wrong token (1 refused so far)"
    ]
    caplog.clear()
    clock.now += LINE_EVERY_S
    refusals.refused("ipv4:10.0.0.7:1", NO_TOKEN)
    assert "10.0.0.7: no token (1001 refused so far)" in the_only_line(caplog)
    caplog.clear()
    for minute in range(100):
        clock.now += LINE_EVERY_S
        for host in range(256):
            refusals.refused(f"ipv4:10.1.{minute}.{host}:1", NO_TOKEN)
    assert len(caplog.records) == 100 * 10
    assert refusals.counts() == {NO_TOKEN: 25_601, WRONG_TOKEN: 1000}
    assert len(refusals._told) <= 256
    assert refusals._lines.maxlen == 10


class Line:
    """A Handshakes on a clock, with what it has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        self.clock = Clock()
        self.handshakes = Handshakes(clock=self.clock)
        self._caplog = caplog

    def said(self) -> list[str]:
        return [record.getMessage().split(":")[0] for record in self._caplog.records]


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture) -> Line:
    return Line(caplog)


def test_a_handshake_without_a_call_counts_after_its_time_and_not_before(line: Line) -> None:
    line.handshakes.started()
    line.clock.now += SESSION_S - 0.1
    line.handshakes.expire()
    assert line.handshakes.failed == 0
    line.handshakes.expire(line.clock.now + 0.1)
    assert line.handshakes.failed == 1
    assert line.said() == ["[transport] a connection did not get through the TLS handshake (1 so far)"]


def test_of_ten_handshakes_the_three_that_never_call_are_counted(line: Line) -> None:
    for number in range(10):
        line.handshakes.started()
        if number % 3:
            line.handshakes.peer(f"ipv4:10.0.0.7:{number}")
            line.handshakes.peer(f"ipv4:10.0.0.7:{number}")
        line.clock.now += 0.4
    line.clock.now += SESSION_S
    assert line.handshakes.failed == 4


def test_lines_come_once_a_minute_and_the_last_count_is_told_in_the_end(line: Line) -> None:
    for _ in range(100):
        line.handshakes.started()
        line.clock.now += SESSION_S / 5
        line.handshakes.expire()
    for _ in range(100):
        line.clock.now += 1.0
        line.handshakes.expire()
    assert line.said() == [
        "[transport] a connection did not get through the TLS handshake (1 so far)",
        "[transport] 60 connections did not get through the TLS handshake (61 so far)",
        "[transport] 39 connections did not get through the TLS handshake (100 so far)",
    ]


def test_a_connection_that_stays_is_one_session_however_long_and_often_it_calls(line: Line) -> None:
    peer = "ipv4:10.0.0.7:1"
    line.handshakes.started()
    line.handshakes.peer(peer)  # a call that goes on
    for _ in range(10):
        line.clock.now += 1000.0
        line.handshakes.started()  # another connection, which fails
        line.handshakes.peer(peer)
        line.handshakes.left(peer)
        line.clock.now += SESSION_S
        line.handshakes.expire()
    assert line.handshakes.failed == 10


def test_a_port_that_is_used_again_later_is_another_session(line: Line) -> None:
    peer = "ipv4:10.0.0.7:1"
    for _ in range(3):
        line.handshakes.started()
        line.handshakes.peer(peer)
        line.handshakes.left(peer)
        line.clock.now += 60.0
    line.clock.now += SESSION_S
    assert line.handshakes.failed == 0


def test_a_flood_of_connections_is_counted_within_bounded_memory(line: Line) -> None:
    for number in range(10_000):
        line.handshakes.started()
        line.handshakes.peer(f"ipv4:10.0.{number // 256}.{number % 256}:1")
    assert len(line.handshakes._peers) == 4096
    for _ in range(10_000):
        line.handshakes.started()
    assert len(line.handshakes._under_way) == 4096
    line.clock.now += SESSION_S
    assert line.handshakes.failed == 10_000
    assert len(line.said()) == 1


def test_what_is_told_of_calls_that_nobody_knows_changes_nothing(line: Line) -> None:
    line.handshakes.left("ipv4:10.0.0.7:1")
    line.handshakes.peer("ipv4:10.0.0.7:1")
    assert line.handshakes.failed == 0
