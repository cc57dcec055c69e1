"""The links, the certificates, and what no test may leave behind."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.links import LINKS, Link, make_link, shares_memory
from conformance.pairs import wait_until
from weightkit.sync import snapshots
from weightkit.transports import memory
from weightkit.transports.certificates import make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the learner's machine needs, and what a robot needs."""
    learner, actor = tmp_path_factory.mktemp("learner"), tmp_path_factory.mktemp("actor")
    made = make_certificates(learner)
    for path in made.paths:
        if path.name in ("ca.pem", "actor.pem", "actor.key"):
            shutil.copy(path, actor)
        if path.name.startswith("actor."):
            path.unlink()
    return learner, actor


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Link:
    if request.param == "shm" and not shares_memory():
        pytest.skip("processes of this machine cannot map each other's memory, so weights never go that way")
    made = request.getfixturevalue("certificates") if request.param == "tls" else None
    return make_link(request.param, tmp_path, made)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the few kilobytes of a small net take a dozen chunks."""
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 256)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before, listening = set(threading.enumerate()), set(memory._listening)
    yield

    def left() -> list[str]:
        started = set(threading.enumerate()) - before
        return [thread.name for thread in started if thread.name.startswith("weightkit")]

    assert wait_until(lambda: not left(), 2), left()
    assert set(memory._listening) == listening
