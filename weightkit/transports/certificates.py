"""Certificates of a private authority: made for one learner and its actors, read back, judged when they are shown."""

from __future__ import annotations

import functools
import ipaddress
import logging
import os
import re
import shlex
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from weightkit.atomic_file import write_directory_atomically
from weightkit.core.text import printable
from weightkit.errors import ConfigError, UsageError, WriteError

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    E = TypeVar("E", bound=x509.ExtensionType)

Role = Literal["learner", "actor"]
_A = {"learner": "a learner", "actor": "an actor"}
AUTHORITY = "ca.pem"
FILES = (AUTHORITY, "learner.pem", "learner.key", "actor.pem", "actor.key")
HINT = "make a new set with weightkit-learner --make-certs DIR and give every machine its part of it"
_EARLIER = timedelta(days=1)  # a robot's clock may lag behind the machine that makes the certificates
_MOST_BYTES = 1 << 20
_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """What `make_certificates` has written: ``names`` are those by which actors may reach the learner."""

    folder: Path
    names: tuple[str, ...]
    reach: str
    expires: datetime

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(self.folder / name for name in FILES)

    def how_to_use(self) -> str:
        """What goes where, and the commands that start both sides."""
        folder = shlex.quote(printable(str(self.folder)))
        reach = f"[{self.reach}]" if ":" in self.reach else self.reach
        return "\n".join(
            (
                f"certificates   {folder}, valid until {_date(self.expires)}",
                f"learner is     {', '.join(self.names)}",
                "               (reached by another name or address? make a set with --host NAME)",
                "",
                "the learner's machine needs   ca.pem  learner.pem  learner.key",
                "every robot needs             ca.pem  actor.pem    actor.key",
                "",
                "Keep learner.key away from robots: who has it can pass for the learner. Then start",
                "",
                f"  weightkit-learner --config_path train_config.json --bind 0.0.0.0:50051 --tls {folder}",
                f"  weightkit-actor --config_path train_config.json --learner {reach}:50051 --tls {folder}",
                "",
                "The authority's key was not kept: nobody can add a certificate to this set. For another name, after a",
                "theft, or before these expire, make a new set in another folder and replace the files everywhere.",
            )
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What one side of a connection trusts and shows, as PEM, and until when that is valid."""

    authority: bytes
    certificate: bytes
    key: bytes = field(repr=False)
    expires: datetime


def make_certificates(
    folder: str | Path, hosts: Iterable[str] = (), *, days: int = 825, now: datetime | None = None
) -> CertificateSet:
    """A new authority in ``folder``, and certificates of it: one for the learner, one for all of its actors.

    The learner's holds for localhost, this machine's names, and ``hosts`` (names or IP addresses). The folder must be
    new or empty, and is filled whole or not at all. Raises WriteError, and UsageError for what is no host.
    """
    folder = Path(folder)
    given = tuple(dict.fromkeys(_host(host) for host in hosts))
    if not 1 <= days <= 36_500:
        raise UsageError(f"certificates for {days} days make no sense", hint="at least 1, at most 36500")
    _check_empty(folder)
    own = [name for name in (socket.gethostname().lower(), socket.getfqdn().lower()) if _NAME.fullmatch(name)]
    names = tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", *own, *given)))
    start = (now or datetime.now(timezone.utc)).replace(microsecond=0)
    expires = start + timedelta(days=days)
    files = _issue(names, start - _EARLIER, expires)

    def fill(draft: Path) -> None:
        draft.chmod(0o700)
        for name, content in files.items():
            mode = 0o600 if name.endswith(".key") else 0o644
            with open(os.open(draft / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
                file.write(content)

    # an empty folder is exchanged; one that somebody fills meanwhile is refused, and stays
    write_directory_atomically(folder, fill, force=True, is_ours=lambda path: not any(path.iterdir()))
    return CertificateSet(folder, names, (*given, *own, "localhost")[0], expires)


def _host(text: str) -> str:
    host = text.strip().lower().removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if _NAME.fullmatch(host) and not host.rpartition(".")[2].isdecimal():
            return host
        raise UsageError(
            f"{printable(text)!r} is no host name and no IP address", hint="give it as actors will, without the port"
        ) from None
    if address.is_unspecified:
        raise UsageError(f"{host} is where to listen, not where to connect to", hint="give the machine's own address")
    return str(address)


def _check_empty(folder: Path) -> None:
    try:
        found = {entry.name for entry in folder.iterdir()}
    except (OSError, ValueError):  # not there, no folder, or no possible name: the writing says which
        return
    ours = [name for name in FILES if name in found]
    if found:
        what = f"holds {', '.join(ours)} already" if ours else "is not empty"
        raise WriteError(
            f"{printable(str(folder))}: {what}; certificates are never written over anything",
            hint="name a new folder, and replace the old set on every machine afterwards",
        )


def _issue(names: tuple[str, ...], start: datetime, expires: datetime) -> Mapping[str, bytes]:
    """The files of a new authority. Its own key is in none of them."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    serial = x509.random_serial_number()
    authority_name = named(f"weightkit authority {serial % (1 << 32):08x}")  # so that errors tell two of them apart
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())

    def signed(subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        is_authority = subject == authority_name
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign" if is_authority else "digital_signature": True}
        builder = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=authority_name)
            .public_key(key.public_key())
            .serial_number(serial if is_authority else x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(is_authority, 0 if is_authority else None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    files = {AUTHORITY: signed(authority_name, authority_key, key_id)}
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    reached = x509.SubjectAlternativeName([_general_name(name) for name in names])
    for role, purpose, extras in (
        ("learner", ExtendedKeyUsageOID.SERVER_AUTH, (reached,)),
        ("actor", ExtendedKeyUsageOID.CLIENT_AUTH, ()),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        # one purpose each: a key that is stolen from a robot cannot pass for the learner
        purposes = x509.ExtendedKeyUsage([purpose])
        files[f"{role}.pem"] = signed(named(f"weightkit {role}"), key, issuer, purposes, *extras)
        files[f"{role}.key"] = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    return files


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def read_identity(folder: str | Path, role: Role, *, now: datetime | None = None) -> Identity:
    """What a learner or an actor needs of ``folder``, found to fit together and to be valid now.

    Raises ConfigError that names the file: missing, unreadable, no PEM, expired or not yet valid, a key that belongs to
    another certificate, a certificate of another authority.
    """
    folder = Path(folder)
    now = now or datetime.now(timezone.utc)
    if not os.path.isdir(folder):
        raise ConfigError(f"{printable(str(folder))}: is no folder that can be opened", hint=HINT)
    paths = tuple(folder / name for name in (AUTHORITY, f"{role}.pem", f"{role}.key"))
    authority, certificate, key = (_read(path) for path in paths)
    shown = [printable(str(path)) for path in paths]
    authorities = _certificates(authority, shown[0])
    own = _certificates(certificate, shown[1])[0]
    if _public_key_of(key, shown[2]) != _as_bytes(own.public_key()):
        raise ConfigError(f"{shown[2]}: is not the key of {shown[1]}", hint=f"they go together in pairs; {HINT}")
    issuer = next((candidate for candidate in authorities if _is_issued_by(own, candidate)), None)
    if issuer is None:
        raise ConfigError(f"{shown[1]}: was not issued by the authority in {shown[0]}", hint=f"mixed sets? {HINT}")
    if not _is_for(own, role):
        raise ConfigError(f"{shown[1]}: is not meant for {_A[role]}", hint=f"was another file renamed? {HINT}")
    for path, found in ((shown[0], issuer), (shown[1], own)):
        if fault := _time_fault(found, now):
            raise ConfigError(f"{path}: the certificate {fault}", hint=f"check this machine's clock, or {HINT}")
    return Identity(authority, certificate, key, min(own.not_valid_after_utc, issuer.not_valid_after_utc))


def readable_by_others(path: Path) -> str:
    """A file's mode in octal where more users than its owner may read it, else ""."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return f"{mode:04o}" if mode & 0o044 else ""


@functools.lru_cache(maxsize=64)
def warn_once(line: str) -> None:
    """Log ``line``, the first time: an actor loads its files again for every connection that it makes."""
    logger.warning("[transport] %s", line)


def _read(path: Path) -> bytes:
    shown = printable(str(path))
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{shown}: is no regular file", hint=HINT)
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{shown}: is missing", hint=f"copy it from the set that was made, or {HINT}") from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}", hint="check its owner and mode") from None
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{shown}: more than {_MOST_BYTES} bytes, no certificate or key is as large", hint=HINT)
    return content


def _certificates(content: bytes, shown: str) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(content)
    except (ValueError, x509.InvalidVersion):
        raise ConfigError(f"{shown}: is not a certificate in PEM", hint=HINT) from None


def _public_key_of(content: bytes, shown: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return _as_bytes(load_pem_private_key(content, None).public_key())
    except TypeError:
        raise ConfigError(f"{shown}: is protected by a passphrase, which cannot be asked for", hint=HINT) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{shown}: is not a private key in PEM", hint=HINT) from None


def _as_bytes(key: PublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _time_fault(certificate: x509.Certificate, now: datetime) -> str:
    if now > certificate.not_valid_after_utc:
        return f"expired on {_date(certificate.not_valid_after_utc)}"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {_date(certificate.not_valid_before_utc)} (today is {now:%Y-%m-%d} here)"
    return ""


def _date(when: datetime) -> str:
    return f"{when.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def judge_learner(shown: bytes, authority: bytes, host: str, *, now: datetime | None = None) -> tuple[str, str] | None:
    """What is wrong with the certificate (DER) that a learner shows at ``host``, and what to do; None: nothing.

    ``authority`` is the actor's own, as PEM.
    """
    from cryptography import x509

    now = now or datetime.now(timezone.utc)
    try:
        certificate = x509.load_der_x509_certificate(shown)
    except (ValueError, x509.InvalidVersion):
        return OTHER_AUTHORITY
    if not any(_is_issued_by(certificate, known) for known in x509.load_pem_x509_certificates(authority)):
        return OTHER_AUTHORITY
    if fault := _time_fault(certificate, now):
        return f"the learner's certificate {fault}", f"check the clocks of both machines, or {HINT}"
    if not _is_for(certificate, "learner"):
        return OTHER_PURPOSE
    names = _names_in(certificate)
    if not any(_is_name_of(name, host) for name in names):
        return (
            f"the learner's certificate is not for {host}, but for {', '.join(map(printable, names)) or 'no name'}",
            f"connect by one of these names, or make a new set with --host {host}",
        )
    return None


OTHER_AUTHORITY = (
    "the learner's certificate is not one of the authority in this actor's ca.pem",
    "give both sides the files of one set, made by one weightkit-learner --make-certs DIR",
)
OTHER_PURPOSE = (
    "the learner shows a certificate that is not meant for a learner",
    "it needs learner.pem and learner.key, and nobody else may have them",
)


def _is_for(certificate: x509.Certificate, role: Role) -> bool:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    wanted = ExtendedKeyUsageOID.SERVER_AUTH if role == "learner" else ExtendedKeyUsageOID.CLIENT_AUTH
    return purposes is None or wanted in purposes


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _names_in(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    found = _extension(certificate, x509.SubjectAlternativeName)
    if found is None:
        return []
    addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def _is_name_of(name: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and "." in host and name[1:] == host[host.index(".") :])
