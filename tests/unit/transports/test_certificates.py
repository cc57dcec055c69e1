"""Certificates are made whole and for one purpose each; what does not fit together is named before anything starts."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from weightkit.errors import ConfigError, UsageError, WriteError
from weightkit.transports.certificates import (
    FILES,
    CertificateSet,
    Role,
    judge_learner,
    make_certificates,
    read_identity,
)

NOW = datetime(2030, 5, 1, 12, tzinfo=timezone.utc)
BOTH: tuple[Role, Role] = ("learner", "actor")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CertificateSet:
    folder = tmp_path_factory.mktemp("made") / "certs"
    return make_certificates(folder, ["Robot-Lab.example", "10.1.2.3", "[fd00::7]"], days=100, now=NOW)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> CertificateSet:
    return make_certificates(tmp_path_factory.mktemp("other") / "certs", days=100, now=NOW)


@pytest.fixture
def folder(made: CertificateSet, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(made.folder, tmp_path / "copy"))


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- making


def test_five_files_are_made_and_only_their_owner_can_read_the_keys(made: CertificateSet) -> None:
    assert tuple(path.name for path in made.paths) == FILES
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(FILES)
    assert mode_of(made.folder) == 0o700
    assert {mode_of(made.folder / f"{role}.key") for role in BOTH} == {0o600}


def test_the_authoritys_own_key_is_nowhere(made: CertificateSet) -> None:
    authority = certificate(made.folder / "ca.pem").public_key()
    for role in BOTH:
        key = load_pem_private_key((made.folder / f"{role}.key").read_bytes(), None)
        assert key.public_key() != authority


def test_each_certificate_serves_one_purpose_and_makes_no_others(made: CertificateSet) -> None:
    for role, purpose in (("learner", ExtendedKeyUsageOID.SERVER_AUTH), ("actor", ExtendedKeyUsageOID.CLIENT_AUTH)):
        found = certificate(made.folder / f"{role}.pem").extensions
        assert list(found.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
        assert not found.get_extension_for_class(x509.BasicConstraints).value.ca


def test_the_learners_holds_for_this_machine_and_the_hosts_that_were_given(made: CertificateSet) -> None:
    found = certificate(made.folder / "learner.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName)
    names = found.value.get_values_for_type(x509.DNSName)
    addresses = [str(address) for address in found.value.get_values_for_type(x509.IPAddress)]
    assert {"localhost", "robot-lab.example"} <= set(names)
    assert addresses == ["127.0.0.1", "::1", "10.1.2.3", "fd00::7"]
    assert set(made.names) == {*names, *addresses}


def test_it_is_valid_for_the_days_that_were_asked_for_and_a_day_before(made: CertificateSet) -> None:
    for name in ("ca.pem", "learner.pem", "actor.pem"):
        found = certificate(made.folder / name)
        assert found.not_valid_before_utc == NOW - timedelta(days=1)
        assert found.not_valid_after_utc == NOW + timedelta(days=100) == made.expires


def test_the_strictest_verifier_accepts_it(made: CertificateSet) -> None:
    from cryptography.x509.verification import PolicyBuilder, Store

    store = Store([certificate(made.folder / "ca.pem")])
    learner = certificate(made.folder / "learner.pem")
    builder = PolicyBuilder().store(store).time(NOW)
    builder.build_server_verifier(x509.DNSName("robot-lab.example")).verify(learner, [])


def test_what_to_copy_and_to_type_is_said(made: CertificateSet) -> None:
    text = made.how_to_use()
    assert "the learner's machine needs   ca.pem  learner.pem  learner.key\n" in text
    assert "every robot needs             ca.pem  actor.pem    actor.key\n" in text
    assert f"--bind 0.0.0.0:50051 --tls {made.folder}\n" in text
    assert f"--learner robot-lab.example:50051 --tls {made.folder}\n" in text
    assert "valid until 2030-08-09 12:00 UTC" in text
    assert all(name in text for name in made.names)


def test_the_command_for_an_ipv6_learner_has_brackets(tmp_path: Path) -> None:
    assert "--learner [fd00::7]:50051 " in make_certificates(tmp_path / "certs", ["fd00::7"]).how_to_use()


def test_an_empty_folder_is_filled_and_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir(mode=0o750)
    assert make_certificates(folder).folder == folder
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert mode_of(folder) == 0o750
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(("name", "said"), [("ca.pem", "holds ca.pem already"), ("notes.txt", "is not empty")])
def test_nothing_is_written_over(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(WriteError, match=said) as caught:
        make_certificates(tmp_path)
    assert "new folder" in caught.value.hint
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_folder_that_somebody_fills_meanwhile_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    hostname = socket.gethostname

    def asked() -> str:  # after the folder was looked at, before it is exchanged
        (folder / "theirs").write_text("mine")
        return hostname()

    monkeypatch.setattr(socket, "getfqdn", asked)
    with pytest.raises(WriteError, match="certs: "):
        make_certificates(folder)
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [folder]


def test_where_nothing_can_be_written_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="does not exist"):
        make_certificates(tmp_path / "missing" / "certs")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match="is a file"):
        make_certificates(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "host",
    ["", "robot:50051", "a b", "10.1.2.300", "10.1.2", "-a", "a-", "a..b", "*.lab", "röbot", "x" * 64, "0.0.0.0"],
)
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(UsageError):
        make_certificates(tmp_path / "certs", [host])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_a_lifetime_without_sense_is_refused(tmp_path: Path, days: int) -> None:
    with pytest.raises(UsageError, match=f"{days} days"):
        make_certificates(tmp_path / "certs", days=days)


# ---- reading


@pytest.mark.parametrize("role", BOTH)
def test_what_was_made_is_accepted(made: CertificateSet, role: Role) -> None:
    identity = read_identity(made.folder, role, now=NOW)
    assert identity.authority == (made.folder / "ca.pem").read_bytes()
    assert identity.certificate == (made.folder / f"{role}.pem").read_bytes()
    assert identity.key == (made.folder / f"{role}.key").read_bytes()
    assert identity.expires == made.expires
    assert "PRIVATE" not in repr(identity)


@pytest.mark.parametrize("role", BOTH)
def test_each_side_needs_only_its_own_files(folder: Path, role: Role) -> None:
    away = "actor" if role == "learner" else "learner"
    (folder / f"{away}.pem").unlink()
    (folder / f"{away}.key").unlink()
    read_identity(folder, role, now=NOW)


@pytest.mark.parametrize("role", BOTH)
@pytest.mark.parametrize("ending", ["ca.pem", ".pem", ".key"])
def test_a_missing_an_empty_and_a_damaged_file_are_named(folder: Path, role: Role, ending: str) -> None:
    path = folder / (ending if ending == "ca.pem" else role + ending)
    whole = path.read_bytes()
    for content in (
        b"",
        whole[: len(whole) // 2],
        b"\x00" * 100,
        whole.replace(b"-----BEGIN", b"BEGIN"),
        b"x" * (2 << 20),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=str(path)) as caught:
            read_identity(folder, role, now=NOW)
        assert "--make-certs" in caught.value.hint
    path.unlink()
    with pytest.raises(ConfigError, match=f"{path}: is missing"):
        read_identity(folder, role, now=NOW)
    path.mkdir()
    with pytest.raises(ConfigError, match=f"{path}: "):
        read_identity(folder, role, now=NOW)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: is no folder"):
        read_identity(tmp_path / "nowhere", "actor")


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "ca.pem").unlink()
    os.mkfifo(folder / "ca.pem")
    with pytest.raises(ConfigError, match=r"ca\.pem: is no regular file"):
        read_identity(folder, "actor", now=NOW)


def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    code = (
        "import os\n"
        "from weightkit.errors import ConfigError\n"
        "from weightkit.transports.certificates import read_identity\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: read_identity('.', 'actor')\n"
        "except ConfigError as error: print(error.message)\n"
    )
    folder.chmod(0o755)
    (folder / "actor.key").chmod(0)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "actor.key: cannot be read: Permission denied\n"


@pytest.mark.parametrize("role", BOTH)
def test_a_key_of_another_certificate_is_named(folder: Path, other: CertificateSet, role: Role) -> None:
    shutil.copy(other.folder / f"{role}.key", folder)
    with pytest.raises(ConfigError, match=rf"{role}\.key: is not the key of .*{role}\.pem"):
        read_identity(folder, role, now=NOW)


def test_a_key_with_a_passphrase_is_named(folder: Path) -> None:
    path = folder / "actor.key"
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match=r"actor\.key: is protected by a passphrase"):
        read_identity(folder, "actor", now=NOW)


@pytest.mark.parametrize("role", BOTH)
def test_a_certificate_of_another_authority_is_named(folder: Path, other: CertificateSet, role: Role) -> None:
    shutil.copy(other.folder / "ca.pem", folder)
    with pytest.raises(ConfigError, match=rf"{role}\.pem: was not issued by the authority in .*ca\.pem"):
        read_identity(folder, role, now=NOW)


def test_an_authority_among_several_is_found(folder: Path, other: CertificateSet) -> None:
    both = (other.folder / "ca.pem").read_bytes() + (folder / "ca.pem").read_bytes()
    (folder / "ca.pem").write_bytes(both)
    assert read_identity(folder, "actor", now=NOW).authority == both


@pytest.mark.parametrize("role", BOTH)
def test_the_others_certificate_under_the_own_name_is_named(folder: Path, role: Role) -> None:
    away = "actor" if role == "learner" else "learner"
    for ending in ("pem", "key"):
        shutil.copy(folder / f"{away}.{ending}", folder / f"{role}.{ending}")
    with pytest.raises(ConfigError, match=rf"{role}\.pem: is not meant for an? {role}"):
        read_identity(folder, role, now=NOW)


@pytest.mark.parametrize("role", BOTH)
def test_an_expired_certificate_is_named_with_its_date(made: CertificateSet, role: Role) -> None:
    last = NOW + timedelta(days=100)
    read_identity(made.folder, role, now=last)
    with pytest.raises(ConfigError, match="the certificate expired on 2030-08-09 12:00 UTC") as caught:
        read_identity(made.folder, role, now=last + timedelta(seconds=1))
    assert "clock" in caught.value.hint
    assert "--make-certs" in caught.value.hint


@pytest.mark.parametrize("role", BOTH)
def test_a_certificate_that_is_not_valid_yet_is_named_with_its_date(made: CertificateSet, role: Role) -> None:
    first = NOW - timedelta(days=1)
    read_identity(made.folder, role, now=first)
    with pytest.raises(ConfigError, match=r"is not valid before 2030-04-30 12:00 UTC \(today is 2030-04-30 here\)"):
        read_identity(made.folder, role, now=first - timedelta(seconds=1))


# ---- judging what a learner shows


def shown_by(made: CertificateSet, role: Role = "learner") -> bytes:
    return certificate(made.folder / f"{role}.pem").public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1", "ROBOT-lab.example", "10.1.2.3", "fd00::7"]
)
def test_a_learner_is_believed_under_each_of_its_names(made: CertificateSet, host: str) -> None:
    assert judge_learner(shown_by(made), (made.folder / "ca.pem").read_bytes(), host, now=NOW) is None


@pytest.mark.parametrize("host", ["example", "lab.example", "10.1.2.4", "x.robot-lab.example"])
def test_a_learner_is_not_believed_under_another_name_and_its_names_are_told(made: CertificateSet, host: str) -> None:
    fault = judge_learner(shown_by(made), (made.folder / "ca.pem").read_bytes(), host, now=NOW)
    assert fault is not None
    assert fault[0].startswith(f"the learner's certificate is not for {host}, but for localhost, ")
    assert "10.1.2.3" in fault[0]
    assert f"--host {host}" in fault[1]


def test_what_else_is_wrong_with_a_learners_certificate_is_told(made: CertificateSet, other: CertificateSet) -> None:
    authority = (made.folder / "ca.pem").read_bytes()

    def said(shown: bytes, now: datetime = NOW) -> str:
        fault = judge_learner(shown, authority, "localhost", now=now)
        assert fault is not None
        return fault[0]

    assert "is not one of the authority" in said(shown_by(other))
    assert "is not one of the authority" in said(b"garbage")
    assert "expired on 2030-08-09" in said(shown_by(made), NOW + timedelta(days=101))
    assert "is not valid before 2030-04-30" in said(shown_by(made), NOW - timedelta(days=2))
    assert "not meant for a learner" in said(shown_by(made, "actor"))


def test_the_library_for_certificates_is_imported_where_it_is_used_only() -> None:
    code = "import sys, weightkit.transports.certificates\nprint('cryptography' in sys.modules, 'grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
