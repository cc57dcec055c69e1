"""The journal gives back exactly what was accepted, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weightkit.core.version import WeightVersion
from weightkit.errors import WriteError
from weightkit.transports.base import Backoff
from weightkit_runners.config import RunConfig, read_run_config
from weightkit_runners.experience import (
    AcceptedBatch,
    BatchRefused,
    ExperienceBatch,
    ExperienceCounts,
    ExperienceReceiver,
    ExperienceSender,
    SinkClosed,
    encode_transitions,
)
from weightkit_runners.experience.journal import ExperienceJournal
from weightkit_runners.experience.journal_segment import START, records
from weightkit_runners.experience.messages import AcceptedEpoch
from weightkit_runners.learner import Learner
from weightkit_runners.pretrained import prepare_policy
from weightkit_runners.templates import read_template
from weightkit_runners.transitions import make_transition, transition_spec

VERSION = WeightVersion("run", 3, 40)
PATIENCE_S = 20.0


def batch(seq: int, *, actor: str = "arm", epoch: str = "e", size: int = 8, count: int = 1) -> AcceptedBatch:
    rows = [{"step": np.asarray(seq), "image": np.full(size, seq % 256, np.uint8)} for _ in range(count)]
    return AcceptedBatch(actor, epoch, seq, VERSION, encode_transitions(rows), count)


def opened(folder: Path, capacity_bytes: int = 1 << 20, **kwargs: Any) -> ExperienceJournal:
    return ExperienceJournal(folder, capacity_bytes=capacity_bytes, **kwargs)


def kept(folder: Path, newest: int | None = None) -> list[AcceptedBatch]:
    with opened(folder, capacity_bytes=1 << 40) as journal:
        return list(journal.read(newest))


def fill(folder: Path, *batches: AcceptedBatch, capacity_bytes: int = 1 << 20) -> None:
    with opened(folder, capacity_bytes, sync=False) as journal:
        for one in batches:
            journal.append(one)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def places(content: bytes) -> list[tuple[int, int]]:
    return [(found.start, found.end) for found in records(content)]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """The disk is full: no file of this process grows beyond ``size_bytes``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- what is written is what is read


@settings(deadline=None, max_examples=30, database=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.integers(0, 3)), max_size=12))
def test_what_was_appended_is_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    wanted = [
        batch(seq, actor=actor, size=size, count=count) for seq, (actor, size, count) in enumerate(batches, start=1)
    ]
    fill(folder, *wanted)
    with opened(folder) as journal:
        assert list(journal.read()) == wanted
        assert journal.transitions == sum(one.count for one in wanted)
        assert {key: known.seq for key, known in journal.accepted().items()} == {
            (one.actor_id, "e"): one.seq for one in wanted
        }
    for one in kept(folder):
        assert one.decode().transitions == () or int(one.decode().transitions[0]["step"]) == one.seq


def test_a_journal_goes_on_where_the_last_process_ended(tmp_path: Path) -> None:
    for seq in range(1, 6):
        with opened(tmp_path) as journal:
            assert journal.accepted() == ({("arm", "e"): AcceptedEpoch(seq - 1, seq - 1)} if seq > 1 else {})
            journal.append(batch(seq))
    assert [one.seq for one in kept(tmp_path)] == [1, 2, 3, 4, 5]


def test_a_learner_that_accepts_nothing_leaves_no_file(tmp_path: Path) -> None:
    for _ in range(3):
        opened(tmp_path).close()
    assert segments(tmp_path) == []


def test_the_newest_transitions_are_read_without_the_older_files(tmp_path: Path) -> None:
    for seq in range(1, 7):
        fill(tmp_path, batch(seq, count=10))
    assert [one.seq for one in kept(tmp_path, newest=25)] == [4, 5, 6]
    assert [one.seq for one in kept(tmp_path, newest=1000)] == [1, 2, 3, 4, 5, 6]
    segments(tmp_path)[0].write_bytes(b"")
    assert [one.seq for one in kept(tmp_path, newest=25)] == [4, 5, 6]


def test_batches_that_come_together_are_all_kept(tmp_path: Path) -> None:
    with opened(tmp_path, 40_000) as journal, ThreadPoolExecutor(8) as pool:

        def send(actor: int) -> None:
            for seq in range(1, 26):
                journal.append(batch(seq, actor=str(actor)))

        list(pool.map(send, range(8)))
        assert journal.transitions == 200
        assert journal.size_bytes <= 40_000 + 8 * 300
    found: dict[str, list[int]] = {}
    for one in kept(tmp_path):
        found.setdefault(one.actor_id, []).append(one.seq)
    assert all(seqs == list(range(seqs[0], 26)) for seqs in found.values())
    with opened(tmp_path) as journal:
        assert {key: known.seq for key, known in journal.accepted().items()} == {(str(i), "e"): 25 for i in range(8)}


# ---- bounds


def test_old_files_are_deleted_and_the_accepted_numbers_survive_them(tmp_path: Path) -> None:
    with opened(tmp_path, 20_000, sync=False) as journal:
        journal.append(batch(7, actor="early", count=3))
        for seq in range(1, 200):
            journal.append(batch(seq, size=1000))
            assert journal.size_bytes <= 20_000
    with opened(tmp_path, 20_000) as journal:
        assert journal.accepted()["early", "e"] == AcceptedEpoch(7, 3)
        assert journal.accepted()["arm", "e"] == AcceptedEpoch(199, 199)
        assert journal.transitions == 202
        found = [one.seq for one in journal.read()]
    assert 10 < len(found) < 20
    assert found == list(range(found[0], 200))
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= 20_000


def test_a_journal_smaller_than_a_batch_keeps_the_newest(tmp_path: Path) -> None:
    fill(tmp_path, *(batch(seq, size=5000) for seq in range(1, 9)), capacity_bytes=100)
    assert [one.seq for one in kept(tmp_path)] == [8]
    with opened(tmp_path, 100) as journal:
        assert journal.accepted()["arm", "e"].seq == 8


def test_what_is_forgotten_stands_in_no_later_file(tmp_path: Path) -> None:
    with opened(tmp_path, 1) as journal:
        for epoch in ("old", "new"):
            journal.append(batch(1, epoch=epoch))
        journal.forget("arm", "old")
        journal.append(batch(2, epoch="new"))
    with opened(tmp_path) as journal:
        assert list(journal.accepted()) == [("arm", "new")]


def test_two_learners_on_one_folder_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        with pytest.raises(WriteError, match=f"another learner .*process {os.getpid()}") as refused:
            opened(tmp_path)
        assert "output_dir" in refused.value.hint
    opened(tmp_path).close()


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file"):
        opened(tmp_path / "file" / "journal")


def test_nothing_is_appended_after_closing(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.close()
    journal.close()
    with pytest.raises(WriteError, match="closed"):
        journal.append(batch(1))


# ---- damage


def test_a_record_that_is_cut_anywhere_is_left_out_and_the_others_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path / "whole", *(batch(seq) for seq in (1, 2, 3)))
    [whole] = segments(tmp_path / "whole")
    content = whole.read_bytes()
    start, end = places(content)[-1]
    assert end == len(content)
    for length in range(start, end):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / whole.name).write_bytes(content[:length])
        caplog.clear()
        with opened(folder, sync=False) as journal:
            assert ("cut off" in caplog.text) == (length > start)
            assert [one.seq for one in journal.read()] == [1, 2]
            assert journal.accepted()["arm", "e"].seq == 2
            journal.append(batch(3))
        assert (folder / whole.name).read_bytes() == content[:start]
        assert [one.seq for one in kept(folder)] == [1, 2, 3]


def test_a_file_that_was_begun_and_no_more_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "whole", batch(1))
    [whole] = segments(tmp_path / "whole")
    content = whole.read_bytes()
    header_end = places(content)[0][1]
    for length in range(header_end):
        folder = tmp_path / str(length)
        fill(folder, batch(1))
        (folder / "0000000002.journal").write_bytes(content[:length])
        with opened(folder, sync=False) as journal:
            assert journal.accepted()["arm", "e"].seq == 1
            journal.append(batch(2))
        assert [one.seq for one in kept(folder)] == [1, 2]
        assert len(segments(folder)) == 2, "what holds no batch is deleted"


@settings(deadline=None, max_examples=150, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_changed_byte_costs_at_most_the_record_that_it_stands_in(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    wanted = [batch(seq, actor="ab"[seq % 2]) for seq in range(1, 6)]
    fill(folder, *wanted)
    fill(folder, batch(6))
    first, _ = segments(folder)
    content = bytearray(first.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    hit = [index for index, (start, end) in enumerate(places(first.read_bytes())) if start <= at < end]
    first.write_bytes(content)
    with opened(folder) as journal:
        assert journal.accepted()["a", "e"].seq == 4
        assert journal.accepted()["b", "e"].seq == 5
        assert journal.transitions == 6
        found = list(journal.read())
    if at < START:
        assert found == [batch(6)], "nothing of a file is believed whose beginning is damaged"
    else:
        lost = {index - 1 for index in hit}
        assert found == [one for index, one in enumerate(wanted) if index not in lost] + [batch(6)]


def test_damage_in_the_middle_is_reported_with_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, *(batch(seq) for seq in (1, 2, 3)))
    [path] = segments(tmp_path)
    content = bytearray(path.read_bytes())
    start, end = places(bytes(content))[2]
    content[end - 1] ^= 1
    path.write_bytes(content)
    assert [one.seq for one in kept(tmp_path)] == [1, 3]
    assert f"{path}: damaged from byte {start} to {end}" in caplog.text


def test_a_file_of_another_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = tmp_path / "0000000004.journal"
    strange.write_bytes(b"weightkit-journal-2\nsomething else")
    fill(tmp_path, batch(1))
    assert [one.seq for one in kept(tmp_path)] == [1]
    assert strange.read_bytes() == b"weightkit-journal-2\nsomething else"
    assert "no journal of this version" in caplog.text


def test_a_payload_that_looks_like_a_record_is_never_read_as_one(tmp_path: Path) -> None:
    fill(tmp_path / "other", batch(99, actor="ghost"))
    forged = segments(tmp_path / "other")[0].read_bytes()
    row = {"step": np.asarray(1), "image": np.frombuffer(forged, np.uint8)}
    folder = tmp_path / "journal"
    fill(folder, AcceptedBatch("arm", "e", 1, VERSION, encode_transitions([row]), 1), batch(2))
    [path] = segments(folder)
    content = bytearray(path.read_bytes())
    content[places(bytes(content))[1][0] + 4] ^= 0xFF  # the length of the record that holds the forged one
    path.write_bytes(content)
    assert kept(folder) == [batch(2)]


def test_a_record_that_came_back_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, batch(1), batch(2))
    fill(tmp_path, batch(2), batch(3))
    assert kept(tmp_path) == [batch(1), batch(2), batch(3)]
    with opened(tmp_path) as journal:
        assert journal.transitions == 3


# ---- a full disk


def test_a_full_disk_refuses_a_batch_and_takes_it_when_there_is_room(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(batch(1))
        with files_of_at_most(journal.size_bytes + 700):
            journal.append(batch(2))
            for _ in range(3):
                with pytest.raises(WriteError, match=re.escape(str(tmp_path))):
                    journal.append(batch(3, size=1000))
            journal.append(batch(3))
        journal.append(batch(4, size=1000))
    assert kept(tmp_path) == [batch(1), batch(2), batch(3), batch(4, size=1000)]


def test_a_disk_that_is_full_before_the_first_batch_leaves_no_file(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with files_of_at_most(20), pytest.raises(WriteError):
            journal.append(batch(1))
        assert segments(tmp_path) == []
        journal.append(batch(1))
    assert kept(tmp_path) == [batch(1)]


def test_what_a_failing_disk_does_not_confirm_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weightkit_runners.experience import journal_segment

    works = journal_segment._sync
    failing: list[int] = []

    def sync(fd: int) -> None:
        if failing:
            raise OSError(5, "Input/output error")
        works(fd)

    monkeypatch.setattr(journal_segment, "_sync", sync)
    with opened(tmp_path) as journal:
        journal.append(batch(1))
        failing.append(1)
        with pytest.raises(WriteError, match="Input/output"):
            journal.append(batch(2))
        assert journal.transitions == 1
        failing.clear()
        journal.append(batch(2))
        assert journal.accepted()["arm", "e"] == AcceptedEpoch(2, 2)
    assert kept(tmp_path) == [batch(1), batch(2)]


def test_what_a_killed_process_left_is_on_the_disk_before_it_counts_as_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightkit_runners.experience import journal_segment

    synced: list[int] = []
    fill(tmp_path, batch(1))
    monkeypatch.setattr(journal_segment, "_sync", lambda fd: synced.append(os.fstat(fd).st_ino))
    with opened(tmp_path) as journal:
        assert journal.accepted()
        assert synced == [segments(tmp_path)[0].stat().st_ino]
        journal.append(batch(2))
        assert tmp_path.stat().st_ino in synced
        assert synced[-1] == segments(tmp_path)[1].stat().st_ino


# ---- the receiver with a journal


class Learning:
    """A learner's receiving end on a UNIX socket that can go and come back with its journal."""

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        self.address = f"unix:{folder}/s"
        self.folder = folder / "journal"
        self.given: list[int] = []
        self._kwargs = kwargs
        self._open()
        self.listen()

    def _open(self) -> None:
        self.journal = opened(self.folder, sync=False)
        self.given = [int(row["step"]) for one in self.journal.read() for row in one.decode().transitions]
        self.receiver = ExperienceReceiver(self._take, journal=self.journal, **self._kwargs)

    def _take(self, taken: ExperienceBatch) -> None:
        self.given += [int(row["step"]) for row in taken.transitions]

    def listen(self) -> None:
        self.server = grpc.server(ThreadPoolExecutor(8))
        self.receiver.service(self.server)
        self.server.add_insecure_port(self.address)
        self.server.start()

    def hang_up(self) -> None:
        self.server.stop(None).wait()

    def end(self) -> None:
        self.hang_up()
        self.server._state.thread_pool.shutdown(wait=True)
        self.journal.close()

    def restart(self) -> None:
        self.end()
        self._open()
        self.listen()


def transition(step: int) -> dict[str, np.ndarray]:
    return {"step": np.asarray(step), "image": np.zeros(16, np.uint8)}


def sender_to(address: str, **kwargs: Any) -> ExperienceSender:
    return ExperienceSender(address, "arm", backoff=Backoff(low_s=0.001, high_s=0.01), **kwargs)


def no_sevens(taken: ExperienceBatch) -> None:
    if any(int(row["step"]) % 7 == 0 for row in taken.transitions):
        raise BatchRefused("seven")


def await_true(condition: Callable[[], bool]) -> None:
    tick, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        tick.wait(0.002)


OPERATIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 12)), st.sampled_from([("hang up", 0), ("restart", 0), ("settle", 0)])
)


@settings(deadline=None, max_examples=25, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(operations=st.lists(OPERATIONS, min_size=3, max_size=8), drops=st.booleans())
def test_every_accepted_transition_is_delivered_once_and_the_balance_is_exact(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]], drops: bool
) -> None:
    learning = Learning(tmp_path_factory.mktemp("j"), check=no_sevens)
    room = 6 * len(encode_transitions([transition(0)])) if drops else 1 << 20
    sender = sender_to(learning.address, capacity_bytes=room, when_full="drop_oldest")
    produced = 0
    try:
        for operation, count in operations:
            if operation == "send":
                for _ in range(count):
                    sender.send([transition(produced)], VERSION)
                    produced += 1
            elif operation == "hang up":
                learning.hang_up()
                learning.listen()
            elif operation == "restart":
                learning.restart()
            else:
                assert sender.flush(PATIENCE_S)
            counts = sender.counts()
            assert counts.produced == counts.accepted + counts.pending + counts.dropped == produced
        assert sender.flush(PATIENCE_S)
        counts = sender.close()
        assert counts.pending == 0
        assert counts.accepted == len(learning.given) == learning.receiver.status()["accepted"]
        assert learning.given == sorted(set(learning.given)), "in order, none twice"
        assert all(step % 7 for step in learning.given)
        if not drops:
            assert learning.given == [step for step in range(produced) if step % 7]
            assert counts.dropped_by.get("refused", 0) == produced - len(learning.given)
        learning.restart()
        assert len(learning.given) == counts.accepted, "what was accepted stands in the journal"
    finally:
        sender.close()
        learning.end()


def test_a_batch_that_stands_in_the_journal_and_did_not_reach_the_sink_reaches_it_once(tmp_path: Path) -> None:
    given: list[int] = []
    closed = threading.Event()
    closed.set()
    tried = threading.Event()

    def sink(taken: ExperienceBatch) -> None:
        if closed.is_set():
            tried.set()
            raise SinkClosed("not now")
        given.append(taken.seq)

    learning = Learning(tmp_path)
    learning.hang_up()
    learning.receiver = ExperienceReceiver(sink, journal=learning.journal)
    learning.listen()
    room = len(encode_transitions([transition(0)])) + 4
    sender = sender_to(learning.address, capacity_bytes=room, when_full="drop_oldest")
    try:
        sender.send([transition(0)], VERSION)
        assert tried.wait(PATIENCE_S)
        assert sender.counts() == ExperienceCounts(1, 0, 1)
        sender.send([transition(1)], VERSION)
        assert sender.counts() == ExperienceCounts(2, 0, 2), "the first may have arrived, and has"
        closed.clear()
        assert sender.flush(PATIENCE_S)
        assert sender.counts() == ExperienceCounts(2, 2, 0)
        assert given == [1, 2]
        assert learning.receiver.status()["accepted"] == 2
    finally:
        sender.close()
        learning.end()
    assert [one.seq for one in kept(learning.folder)] == [1, 2]


def test_a_full_disk_ends_the_stream_with_a_reason_and_a_later_try_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learning = Learning(tmp_path)
    sender = sender_to(learning.address)
    caplog.set_level(logging.INFO, "weightkit_runners")
    try:
        sender.send([transition(0)], VERSION)
        assert sender.flush(PATIENCE_S)
        with files_of_at_most(learning.journal.size_bytes + 10):
            sender.send([transition(1)], VERSION)
            await_true(lambda: "the learner cannot keep transitions" in caplog.text)
            assert sender.counts() == ExperienceCounts(2, 1, 1)
        assert sender.flush(PATIENCE_S)
        assert learning.given == [0, 1]
    finally:
        sender.close()
        learning.end()
    assert caplog.text.count("so none is accepted") == 1
    assert "transitions are kept again" in caplog.text
    assert "Traceback" not in caplog.text
    assert [one.seq for one in kept(learning.folder)] == [1, 2]


def test_a_learner_killed_at_any_moment_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    folder, address = tmp_path / "journal", f"unix:{tmp_path}/s"
    program = Path(__file__).with_name("journal_learner.py")
    sender = sender_to(address)
    random = np.random.default_rng(0)
    produced = 0
    try:
        for round_ in range(5):
            child = subprocess.Popen(
                [sys.executable, str(program), str(folder), address], stdout=subprocess.PIPE, text=True
            )
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
                before = sender.counts().accepted
                for _ in range(150):
                    sender.send([transition(produced)], VERSION)
                    produced += 1
                wanted = before + int(random.integers(1, 140))
                if round_ == 4:
                    assert sender.flush(PATIENCE_S)
                else:
                    await_true(lambda wanted=wanted: sender.counts().accepted >= wanted)
                acknowledged = sender.counts().accepted
            finally:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                assert child.stdout is not None
                child.stdout.close()
            steps = [int(row["step"]) for one in kept(folder) for row in one.decode().transitions]
            assert steps == list(range(len(steps))), "in order, none twice, none missing"
            assert len(steps) >= acknowledged
        counts = sender.close()
        assert counts == ExperienceCounts(produced, produced, 0)
        assert len(steps) == produced
    finally:
        sender.close()


# ---- the learner


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    document = read_template("hilserl_drqv2")
    document["output_dir"] = str(tmp_path / "run")
    policy, env = document["policy"], document["env"]
    policy["input_features"]["observation.images"]["shape"] = [9, 24, 24]
    env["features"]["observation.images"]["shape"] = [3, 24, 24]
    policy.update(encoder_channels=4, mlp_nodes=[16], online_buffer_capacity=50, nstep=1)
    env.update(name="synthetic")
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(document))
    return read_run_config(path)


def learner_of(config: RunConfig) -> Learner:
    return Learner(config, prepare_policy(config, None), bind="127.0.0.1:0")


def rows_of(config: RunConfig, count: int, start: int = 0) -> list[dict[str, np.ndarray]]:
    """Steps of one long episode; the reward is the step's number."""
    frame = {name: np.zeros(shape, dtype) for name, (dtype, shape) in transition_spec(config).frame.items()}
    return [
        make_transition(frame, np.zeros(4), float(step), frame, episode=0, step=step, terminated=False)
        for step in range(start, start + count)
    ]


def test_a_learner_that_starts_again_has_what_it_had_accepted(config: RunConfig) -> None:
    with learner_of(config) as learner:
        sender = sender_to(learner.address)
        try:
            for start in range(0, 80, 10):
                sender.send(rows_of(config, 10, start), VERSION)
            assert sender.flush(PATIENCE_S)
        finally:
            assert sender.close().accepted == 80
        assert learner.training.env_step == 0, "accepted, and not yet taken out of the queue"
    with learner_of(config) as again:
        assert again.training.env_step == 80
        assert again.training.replay.counts().online == 47, "50 frames, and a stack of three before the first action"
        rewards = {float(r) for step in range(20) for r in again.training.replay.batches(step)[0]["reward"]}
        assert rewards == set(range(33, 80))
        assert again.intake.status()["accepted"] == 80


def test_a_learner_refuses_another_configurations_transitions_and_counts_them(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with learner_of(config) as learner:
        sender = sender_to(learner.address)
        try:
            for odd in ({}, {"reward": np.zeros(3, np.float32)}, {}, {"reward": np.zeros(3, np.float32)}):
                sender.send([{**row, **odd} for row in rows_of(config, 2)], VERSION)
            assert sender.flush(PATIENCE_S)
            assert sender.counts() == ExperienceCounts(8, 4, 0, {"refused": 4})
            assert learner.intake.status()["refused"] == 4
            assert learner.intake.move(learner.training, wait_s=PATIENCE_S) == 4
        finally:
            sender.close()
    assert caplog.text.count("refused 2 transitions of arm: reward: expected float32[], found float32[3]") == 1
    assert caplog.text.count("the learner refused a batch of 2 transitions for good: reward") == 1
    assert [one.seq for one in kept(config.output_dir / "experience")] == [1, 3]


def test_transitions_of_another_configuration_in_the_journal_are_left_out_and_said(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    good, odd = rows_of(config, 3), [{"x": np.zeros(2)}]
    fill(
        config.output_dir / "experience",
        AcceptedBatch("arm", "e", 1, VERSION, encode_transitions(odd), 1),
        AcceptedBatch("arm", "e", 2, VERSION, encode_transitions(good), 3),
    )
    with learner_of(config) as learner:
        assert learner.training.replay.counts().online == 3
    assert "Left out 1 transitions of another configuration" in caplog.text


def test_two_learners_on_one_output_folder_are_refused(config: RunConfig) -> None:
    with learner_of(config):
        with pytest.raises(WriteError, match="another learner keeps its transitions there"):
            learner_of(config)
    learner_of(config).close()
