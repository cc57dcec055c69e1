"""Bytes of any kind instead of messages: the caller is told, nothing is executed, logged at length or kept."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from corpus.cases import corpus
from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit_runners.experience import ExperienceReceiver

SYNC = "/weightkit.wire.v1.Sync/"
UNARY = ("Hello", "Receive", "Acknowledge", "Refuse", "Answer", "GetStatus", "Describe", "Ask")
STREAMS = ("Watch", "Fetch")
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT}
PARSED = {grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT}
MOST_BYTES = 1 << 20


def noise() -> list[bytes]:
    """Bytes that mean nothing."""
    draw = random.Random(7)
    return [draw.randbytes(size) for size in (1, 2, 3, 9, 64, 1000, 65536) for _ in range(6)]


def hostile_files() -> list[bytes]:
    """Every hostile file of the corpus that fits into a message."""
    files = [case.content() if callable(case.content) else case.content for case in corpus() if not case.members]
    return [content for content in files if 0 < len(content) <= MOST_BYTES]


@pytest.fixture
def learner() -> Iterator[tuple[Publisher, ExperienceReceiver]]:
    policy = drqv2_policy(SMALL_DRQV2, 0)
    manifest = make_manifest(policy, drqv2_groups(policy))
    receiver = ExperienceReceiver(lambda batch: None)
    probes = drqv2_observations(SMALL_DRQV2, 5)
    with Publisher(policy, manifest, act=act, probes=probes, services=[receiver.service]) as pub:
        pub.publish()
        yield pub, receiver


def outcome(call: Any) -> grpc.StatusCode:
    try:
        call()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def threads_and_descriptors() -> tuple[int, int]:
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("contents_of", [noise, pytest.param(hostile_files, marks=pytest.mark.slow)])
def test_no_bytes_get_further_than_a_clear_refusal(
    contents_of: Callable[[], list[bytes]],
    learner: tuple[Publisher, ExperienceReceiver],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pub, receiver = learner
    contents = contents_of()
    codes: dict[str, set[grpc.StatusCode]] = {}
    with grpc.insecure_channel(pub.address) as channel, caplog.at_level(logging.INFO):
        unary = {name: channel.unary_unary(SYNC + name) for name in UNARY}
        streams = {name: channel.unary_stream(SYNC + name) for name in STREAMS}
        exchange = channel.stream_stream("/weightkit_runners.wire.v1.Experience/Exchange")
        for content in contents:
            for name, method in unary.items():
                codes.setdefault(name, set()).add(outcome(lambda m=method, c=content: m(c, timeout=10)))
            for name, method in streams.items():
                codes.setdefault(name, set()).add(outcome(lambda m=method, c=content: list(m(c, timeout=10))))
            got = outcome(lambda c=content: list(exchange(iter([c]), timeout=10)))
            codes.setdefault("Exchange", set()).add(got)
    assert all(found <= PARSED for found in codes.values()), codes
    assert all(codes[name] & REFUSED for name in (*UNARY, *STREAMS, "Exchange")), codes
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    state = pub.state()
    assert state.counts["malformed"] > len(contents)
    assert not any(actor.connected for actor in state.actors)
    assert receiver.status()["accepted"] == 0
    assert not Path("ran").exists()


def test_a_thousand_bad_calls_leave_no_thread_and_no_descriptor(
    learner: tuple[Publisher, ExperienceReceiver],
) -> None:
    pub, _ = learner
    with grpc.insecure_channel(pub.address) as channel:
        method = channel.unary_unary(SYNC + "Hello")
        draw = random.Random(3)
        for _ in range(100):
            outcome(lambda: method(draw.randbytes(4096), timeout=10))
        before = threads_and_descriptors()
        for _ in range(1000):
            outcome(lambda: method(draw.randbytes(4096), timeout=10))
        after = threads_and_descriptors()
    assert after[1] <= before[1] + 2
    assert after[0] <= before[0] + 8  # gRPC keeps a few threads of its own
