"""Who is turned away hears in one clear line why; the learner says so in one line too, and counts it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
from torch import nn

from weightkit.core.tensor import StateSpec
from weightkit.errors import TransportTimeout
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import _handshakes, _security, certificates, connect
from weightkit.transports.base import PROTOCOL, Access, Backoff, Hello, Reject
from weightkit.transports.certificates import make_certificates

TOKEN, OTHER_TOKEN = "a-token-that-nobody-guesses", "another-token-of-somebody-else"
PROBES = [torch.ones(1, 3)]
LONG_AGO = datetime.now(timezone.utc) - timedelta(days=400)


def act(policy: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return policy(x).detach()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``good``, ``other`` (another authority), ``expired`` (made long ago)."""
    root = tmp_path_factory.mktemp("certificates")
    make_certificates(root / "good")
    make_certificates(root / "other")
    make_certificates(root / "expired", days=30, now=LONG_AGO)
    return root


CASES: dict[str, tuple[Callable[[Path], Access], Callable[[Path], Access], str, str]] = {
    "a learner of another authority": (
        lambda s: Access(tls=str(s / "good")), lambda s: Access(tls=str(s / "other")), "authority", "failed handshake",
    ),
    "an actor in plain text": (
        lambda s: Access(tls=str(s / "good")), lambda s: Access(), "the learner speaks TLS", "failed handshake",
    ),
    "a wrong token": (
        lambda s: Access(token=TOKEN), lambda s: Access(token=OTHER_TOKEN), "wrong token", "wrong token",
    ),
    "no token": (lambda s: Access(token=TOKEN), lambda s: Access(), "no token", "no token"),
    "a wrong token over TLS": (
        lambda s: Access(tls=str(s / "good"), token=TOKEN),
        lambda s: Access(tls=str(s / "good"), token=OTHER_TOKEN),
        "wrong token",
        "wrong token",
    ),
    "a learner whose certificate has expired": (
        lambda s: Access(tls=str(s / "expired")),
        lambda s: Access(tls=str(s / "expired")),
        "expired",
        "failed handshake",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_turned_away_is_one_clear_line_on_both_sides_and_counted(
    case: str, sets: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    learners, actors, said, counted = CASES[case]
    monkeypatch.setattr(_handshakes, "SESSION_S", 0.2)
    if "expired" in case:  # neither side would start with such files: they expire while it runs
        then = LONG_AGO + timedelta(days=1)
        monkeypatch.setattr(
            _security,
            "read_identity",
            lambda folder, role: certificates.read_identity(folder, role, now=then if "expired" in folder else None),
        )
    learner, actor = nn.Linear(3, 2), nn.Linear(3, 2)
    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})
    with caplog.at_level(logging.INFO, logger="weightkit"):
        with Publisher(learner, manifest, act=act, probes=PROBES, access=learners(sets)) as pub:
            pub.publish()
            with Subscriber(
                actor, pub.address, act=act, probes=PROBES, actor_id="stranger", access=actors(sets),
                backoff=Backoff(low_s=0.05, high_s=0.1),
            ) as sub:  # fmt: skip
                give_up_at = time.monotonic() + 20
                while said not in str(sub.status()["trouble"]) or not pub.state().counts[counted]:
                    assert time.monotonic() < give_up_at, (sub.status()["trouble"], pub.state().counts)
                    sub.poll(0.05)
                with pytest.raises(TransportTimeout, match=said):
                    sub.wait_for_first(0.01)
            status = pub.state()
    assert not status.actors
    here = [r.getMessage() for r in caplog.records if r.name == "weightkit.sync.subscriber"]
    there = [r.getMessage() for r in caplog.records if r.name != "weightkit.sync.subscriber"]
    assert len(here) == 1, "the same line is said once, not at every attempt"
    assert said in here[0]
    assert len({line for line in there if "golden" not in line}) >= 1
    assert all("\n" not in line and len(line) < 400 for line in (*here, *there))
    assert actor.weight.isnan().all()


def test_another_protocol_is_refused_named_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    learner = nn.Linear(3, 2)
    manifest = make_manifest(learner, {"weight": "send", "bias": "send"})
    with Publisher(learner, manifest, act=act, probes=PROBES) as pub:
        connection = connect(pub.address)
        try:
            reply = connection.hello(Hello(PROTOCOL + 1, "newer", "session", StateSpec({}), frozenset()))
        finally:
            connection.close()
        assert isinstance(reply, Reject)
        assert f"protocol {PROTOCOL} of weightkit.v1, the actor protocol {PROTOCOL + 1}" in reply.message
        assert pub.state().counts["rejected"] == 1
    assert [reply.message in record.getMessage() for record in caplog.records] == [True]
