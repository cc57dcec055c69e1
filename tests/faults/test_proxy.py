"""The fault proxy: forwards to the byte what it is given, and every fault really happens, where it is meant to."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults.proxy import FaultProxy
from faults.script import (
    Blackhole,
    Bytes,
    Corrupt,
    Drop,
    Duplicate,
    Fault,
    HalfClose,
    Refuse,
    Reorder,
    Reset,
    Slow,
    Stall,
    draw_fault,
)

SIZE = 300_000
SENT = random.Random(7).randbytes(SIZE)
TIMEOUT_S = 20.0
QUIET_S = 0.15  # how long something must not happen


@dataclass(frozen=True)
class Heard:
    """What one side has heard: the bytes, and how it ended: "end", "reset", or "" where it is still open."""

    bytes: bytes
    ending: str


class Peer:
    """One side of a connection, reading along on a thread of its own."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._bytes = bytearray()
        self._ending = ""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._ending:
            try:
                piece = self.end.recv(1 << 16)
                ending = "" if piece else "end"
            except ConnectionResetError:
                piece, ending = b"", "reset"
            except OSError:
                piece, ending = b"", "closed"
            with self._changed:
                self._bytes += piece
                self._ending = ending
                self._changed.notify_all()

    def heard(self) -> Heard:
        with self._changed:
            return Heard(bytes(self._bytes), self._ending)

    def wait_for(self, holds: Callable[[Heard], bool], timeout_s: float = TIMEOUT_S) -> Heard:
        """What was heard when ``holds`` came true, or at the deadline."""
        with self._changed:
            self._changed.wait_for(lambda: holds(Heard(bytes(self._bytes), self._ending)), timeout_s)
        return self.heard()

    def wait_for_bytes(self, size: int, timeout_s: float = TIMEOUT_S) -> Heard:
        return self.wait_for(lambda heard: len(heard.bytes) >= size or bool(heard.ending), timeout_s)

    def wait_for_ending(self, timeout_s: float = TIMEOUT_S) -> Heard:
        return self.wait_for(lambda heard: bool(heard.ending), timeout_s)

    def say(self, content: bytes) -> None:
        try:
            self.end.sendall(content)
        except OSError:
            return  # what arrived is looked at on the other side

    def leave(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):  # it is gone already
            self.end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self.end.close()


class Pair:
    """A listening target, a proxy before it, and any number of connections through both."""

    def __init__(self, *faults: Fault) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT_S)
        host, port = self._listener.getsockname()
        self.proxy = FaultProxy(f"{host}:{port}", *faults)
        self._peers: list[Peer] = []

    def connect(self) -> Peer:
        host, port = self.proxy.address.split(":")
        peer = Peer(socket.create_connection((host, int(port)), timeout=TIMEOUT_S))
        peer.end.settimeout(None)
        self._peers.append(peer)
        return peer

    def accept(self) -> Peer:
        end, _ = self._listener.accept()
        peer = Peer(end)
        self._peers.append(peer)
        return peer

    def close(self) -> None:
        for peer in self._peers:
            peer.close()
        self._listener.close()
        self.proxy.close()


@contextmanager
def pair(*faults: Fault) -> Iterator[Pair]:
    opened = Pair(*faults)
    try:
        yield opened
    finally:
        opened.close()


def speak(speaker: Peer, content: bytes, *, and_end: bool = False) -> threading.Thread:
    """Say it, and then that it was all, on a thread of its own, since a fault may keep it from ever being taken."""

    def say() -> None:
        speaker.say(content)
        if and_end:
            speaker.leave()

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    return thread


# ---- each fault with a check that a faithful proxy fails


def arrives(expected: bytes, ending: str = "end", **counts: int) -> Callable[[Pair, str], bool]:
    """A check: the listening side hears exactly ``expected`` and then ``ending``, and it was counted."""

    def check(opened: Pair, direction: str) -> bool:
        client = opened.connect()
        server = opened.accept()
        speaker, listener = (client, server) if direction == "up" else (server, client)
        speak(speaker, SENT, and_end=True)
        return listener.wait_for_ending() == Heard(expected, ending) and counts.items() <= opened.proxy.counts().items()

    return check


def holds_back(size: int) -> Callable[[Pair, str], bool]:
    """A check: the listening side hears ``size`` bytes, then nothing, not even that the speaker has gone."""

    def check(opened: Pair, direction: str) -> bool:
        client = opened.connect()
        server = opened.accept()
        speaker, listener = (client, server) if direction == "up" else (server, client)
        speak(speaker, SENT)
        listener.wait_for_bytes(size)
        speaker.leave()
        heard = listener.wait_for(lambda h: len(h.bytes) > size or bool(h.ending), QUIET_S)
        return heard == Heard(SENT[:size], "")

    return check


def takes_its_time(opened: Pair, direction: str) -> bool:
    """A check: 300,000 bytes at a million bytes in a second."""
    client = opened.connect()
    server = opened.accept()
    speaker, listener = (client, server) if direction == "up" else (server, client)
    started = time.monotonic()
    speak(speaker, SENT).join(TIMEOUT_S)
    heard = listener.wait_for_bytes(SIZE)
    return heard.bytes == SENT and time.monotonic() - started > 0.2


def is_refused(opened: Pair, direction: str) -> bool:
    try:
        opened.connect()
    except ConnectionRefusedError:
        return True
    return False


def is_never_answered(opened: Pair, direction: str) -> bool:
    """A check: somebody accepts and takes everything, and the target hears of nobody."""
    client = opened.connect()
    speak(client, SENT).join(TIMEOUT_S)
    heard = client.wait_for(lambda h: bool(h.ending), QUIET_S)
    swallowed = opened.proxy.counts().get("swallowed_bytes", 0)
    while swallowed < SIZE and "blackholed" in opened.proxy.counts():
        swallowed = opened.proxy.counts()["swallowed_bytes"]
    return heard == Heard(b"", "") and swallowed == SIZE


AT = 123_457
FLIPPED = SENT[:AT] + bytes([SENT[AT] ^ 0b100000]) + SENT[AT + 1 :]
CASES: dict[str, tuple[Fault, Callable[[Pair, str], bool]]] = {
    "corrupt": (Corrupt(at=AT, bit=5), arrives(FLIPPED, corrupted=1)),
    "drop": (Drop(at=AT, length=70_001), arrives(SENT[:AT] + SENT[AT + 70_001 :], dropped=1, dropped_bytes=70_001)),
    "duplicate": (
        Duplicate(at=AT, length=70_001),
        arrives(SENT[: AT + 70_001] + SENT[AT:], duplicated=1),
    ),
    "reorder": (
        Reorder(at=AT, length=70_001),
        arrives(
            SENT[:AT] + SENT[AT + 70_001 : AT + 140_002] + SENT[AT : AT + 70_001] + SENT[AT + 140_002 :], reordered=1
        ),
    ),
    "reset": (Reset(at=AT), arrives(SENT[:AT], "reset", reset=1)),
    "half_close": (HalfClose(at=AT), arrives(SENT[:AT], "end", half_closed=1)),
    "stall": (Stall(at=AT), holds_back(AT)),
    "blackhole": (Blackhole(at=AT), holds_back(AT)),
    "slow": (Slow(bytes_per_s=1e6), takes_its_time),
    "refuse": (Refuse(), is_refused),
    "never_answered": (Blackhole(), is_never_answered),
}


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", CASES)
def test_every_fault_happens_at_its_byte_and_nothing_else_changes(name: str, direction: str) -> None:
    fault, check = CASES[name]
    if name not in ("refuse", "never_answered"):
        fault = replace(fault, direction=direction)  # type: ignore[type-var]
    with pair(fault) as opened:
        assert check(opened, direction)


@pytest.mark.parametrize("name", CASES)
def test_a_faithful_proxy_fails_every_check(name: str) -> None:
    _, check = CASES[name]
    with pair() as opened:
        assert not check(opened, "down")


def test_without_faults_everything_arrives_both_ways_and_both_ends_are_told_of_the_end() -> None:
    with pair() as opened:
        client = opened.connect()
        server = opened.accept()
        for speaker, listener in ((client, server), (server, client)):
            speak(speaker, SENT, and_end=True)
            assert listener.wait_for_ending() == Heard(SENT, "end")
        assert opened.proxy.counts() == {"accepted": 1, "forwarded_bytes": 2 * SIZE}


def test_a_fault_in_one_direction_of_one_connection_leaves_the_others_alone() -> None:
    with pair(Corrupt(at=AT, bit=5, direction="up", connection=1)) as opened:
        heard = []
        for _ in range(3):
            client, server = opened.connect(), opened.accept()
            for speaker, listener in ((client, server), (server, client)):
                speak(speaker, SENT)
                heard.append(listener.wait_for_bytes(SIZE).bytes)
        assert [content == SENT for content in heard] == [True, True, False, True, True, True]
        assert heard[2] == FLIPPED


def test_faults_injected_while_bytes_flow_hit_open_connections_at_once() -> None:
    with pair() as opened:
        client, server = opened.connect(), opened.accept()
        client.say(SENT[:1000])
        server.wait_for_bytes(1000)
        assert opened.proxy.positions() == {(0, "up"): 1000, (0, "down"): 0}
        opened.proxy.inject(Drop(direction="up", length=10))
        client.say(SENT[1000:2000])
        assert server.wait_for_bytes(1990).bytes == SENT[:1000] + SENT[1010:2000]
        opened.proxy.inject(Reset(direction="up"))
        assert client.wait_for_ending().ending == "reset"
        assert server.wait_for_ending().ending == "reset"
        assert opened.proxy.positions() == {}


def test_a_stalled_connection_goes_on_where_it_stood_when_it_is_healed_or_its_time_is_over() -> None:
    with pair() as opened:
        client, server = opened.connect(), opened.accept()
        opened.proxy.inject(Stall())
        speaking = speak(client, SENT)
        assert server.wait_for_bytes(1, QUIET_S).bytes == b""
        opened.proxy.heal()
        assert server.wait_for_bytes(SIZE).bytes == SENT
        speaking.join(TIMEOUT_S)
        opened.proxy.inject(Stall(duration_s=0.2))
        started = time.monotonic()
        server.say(SENT)
        assert client.wait_for_bytes(SIZE).bytes == SENT
        assert time.monotonic() - started > 0.15
        assert opened.proxy.counts()["stalled"] == 4


def test_after_a_black_hole_old_connections_are_reset_and_new_ones_work() -> None:
    with pair() as opened:
        before, served = opened.connect(), opened.accept()
        idle, idle_served = opened.connect(), opened.accept()
        opened.proxy.inject(Blackhole())
        before.say(b"lost")
        meanwhile = opened.connect()
        meanwhile.say(b"lost too")
        while opened.proxy.counts().get("swallowed_bytes", 0) < 12:
            assert served.heard() == Heard(b"", "")
        opened.proxy.heal()
        for peer in (before, served, meanwhile):
            assert peer.wait_for_ending().ending == "reset"
        idle.say(b"lost nothing")
        assert idle_served.wait_for_bytes(12) == Heard(b"lost nothing", "")
        after = opened.connect()
        after.say(b"arrives")
        assert opened.accept().wait_for_bytes(7) == Heard(b"arrives", "")


def test_a_black_hole_in_one_direction_lets_the_other_pass() -> None:
    with pair(Blackhole(direction="down")) as opened:
        client, server = opened.connect(), opened.accept()
        client.say(b"question")
        assert server.wait_for_bytes(8).bytes == b"question"
        server.say(b"answer")
        assert client.wait_for_bytes(1, QUIET_S) == Heard(b"", "")


def test_neither_end_of_a_black_hole_hears_that_the_other_is_gone() -> None:
    with pair() as opened:
        client, server = opened.connect(), opened.accept()
        opened.proxy.inject(Blackhole())
        client.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert server.wait_for_ending(QUIET_S) == Heard(b"", "")


def test_refusing_keeps_the_port_and_ends_with_healing() -> None:
    with pair() as opened:
        before, served = opened.connect(), opened.accept()
        address = opened.proxy.address
        opened.proxy.inject(Refuse())
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                opened.connect()
        before.say(b"still here")
        assert served.wait_for_bytes(10).bytes == b"still here"
        opened.proxy.heal()
        assert opened.proxy.address == address
        opened.connect().say(b"again")
        assert opened.accept().wait_for_bytes(5).bytes == b"again"


def test_a_target_that_nobody_listens_at_is_a_reset_and_another_one_may_take_its_place() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nowhere = f"127.0.0.1:{gone.getsockname()[1]}"
    with pair() as opened:
        target = opened.proxy.address  # a proxy before the proxy
        with FaultProxy(nowhere) as outer:
            host, port = outer.address.split(":")
            with pytest.raises(ConnectionResetError):
                with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as lost:
                    lost.recv(1)
            outer.retarget(target)
            with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as found:
                found.sendall(b"through both")
                assert opened.accept().wait_for_bytes(12).bytes == b"through both"


def test_a_reader_that_does_not_read_holds_the_speaker_back_and_loses_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        with FaultProxy(f"{host}:{port}") as proxy:
            proxy_host, proxy_port = proxy.address.split(":")
            with socket.create_connection((proxy_host, int(proxy_port))) as client:
                server, _ = listener.accept()
                client.settimeout(0.3)
                sent = 0
                with contextlib.suppress(TimeoutError):
                    while sent < 1 << 30:
                        sent += client.send(SENT)
                assert sent < 1 << 28
                client.shutdown(socket.SHUT_WR)
                received = 0
                while piece := server.recv(1 << 16):
                    received += len(piece)
                server.close()
            assert received == sent


def test_closing_leaves_no_thread_and_ends_every_connection() -> None:
    before = set(threading.enumerate())
    with pair(Stall(at=5)) as opened:
        client, server = opened.connect(), opened.accept()
        client.say(b"stalled")
        server.wait_for_bytes(5)
        opened.proxy.close()
        assert client.wait_for_ending().ending == "reset"
        assert server.wait_for_ending().ending == "reset"
        with pytest.raises(RuntimeError, match="closed"):
            opened.proxy.heal()
    assert set(threading.enumerate()) == before


# ---- the bytes alone


def through(content: bytes, faults: list[Fault], cuts: list[int]) -> tuple[bytes, Counter[str]]:
    """``content`` through the faults of one direction, handed over in pieces of the given sizes."""
    counts: Counter[str] = Counter()
    flow = Bytes(lambda switch: pytest.fail(f"{switch} is no edit"), counts)
    for fault in faults:
        flow.add(fault)  # type: ignore[arg-type]
    out = bytearray()
    while content:
        size = cuts.pop() if cuts else len(content)
        flow.inbox += content[:size]
        content = content[size:]
        flow.advance()
        out += flow.outbox
        flow.outbox.clear()
    flow.end()
    return bytes(out + flow.outbox), counts


edits = st.builds(
    lambda kind, at, length: Corrupt(at=at, bit=length % 8) if kind is Corrupt else kind(at=at, length=length),
    st.sampled_from([Corrupt, Drop, Duplicate, Reorder]),
    st.integers(0, 120),
    st.integers(1, 40),
)


@settings(deadline=None, max_examples=200, database=None)
@given(st.lists(edits, max_size=5), st.lists(st.integers(1, 50), max_size=20))
def test_what_faults_do_does_not_depend_on_how_the_bytes_are_cut(faults: list[Any], cuts: list[int]) -> None:
    content = bytes(range(100))
    assert through(content, faults, cuts) == through(content, faults, [])


@settings(deadline=None, max_examples=200, database=None)
@given(edits, st.lists(st.integers(1, 50), max_size=20))
def test_one_fault_does_what_its_name_says(fault: Any, cuts: list[int]) -> None:
    content = bytes(range(200))
    found, counts = through(content, [fault], cuts)
    before, at = content[: fault.at], fault.at
    if isinstance(fault, Corrupt):
        expected = before + bytes([content[at] ^ (1 << fault.bit)]) + content[at + 1 :]
    else:
        first, second = content[at : at + fault.length], content[at + fault.length : at + 2 * fault.length]
        rest = content[at + 2 * fault.length :]
        middle: dict[Any, bytes] = {Drop: second, Duplicate: first + first + second, Reorder: second + first}
        expected = before + middle[type(fault)] + rest
    assert found == expected
    assert found != content
    assert sum(count for name, count in counts.items() if name != "dropped_bytes") == 1


def test_a_seed_draws_the_same_faults_and_every_kind_is_drawn() -> None:
    drawn = [draw_fault(random.Random(seed), span_bytes=100) for seed in range(200)]
    assert drawn == [draw_fault(random.Random(seed), span_bytes=100) for seed in range(200)]
    assert {type(fault).__name__.lower() for fault in drawn} == {
        "stall", "blackhole", "slow", "reset", "halfclose", "corrupt", "drop", "duplicate", "reorder"
    }  # fmt: skip
    assert {fault.at for fault in drawn} <= set(range(100))


# ---- before a gRPC server


@contextmanager
def echo_server() -> Iterator[str]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1)])
        handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Say": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def say_over_grpc(address: str, content: bytes, timeout_s: float) -> bytes:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        return bytes(channel.unary_unary("/test.Echo/Say")(content, timeout=timeout_s))


def test_grpc_passes_unharmed_where_there_is_no_fault() -> None:
    with echo_server() as target, FaultProxy(target) as proxy:
        assert say_over_grpc(proxy.address, SENT, TIMEOUT_S) == SENT


def test_grpc_hands_a_flipped_bit_of_a_message_over_as_if_nothing_were_wrong() -> None:
    with echo_server() as target, FaultProxy(target, Corrupt(at=SIZE // 2, direction="down", bit=3)) as proxy:
        heard = say_over_grpc(proxy.address, SENT, TIMEOUT_S)
        assert len(heard) == SIZE
        assert sum(a != b for a, b in zip(heard, SENT, strict=True)) == 1


@pytest.mark.parametrize("fault", [Reset(at=200), HalfClose(at=200), Blackhole(), Stall(), Refuse()])
def test_grpc_fails_where_the_connection_does(fault: Fault) -> None:
    with echo_server() as target, FaultProxy(target, fault) as proxy:
        with pytest.raises(grpc.RpcError):
            say_over_grpc(proxy.address, SENT, 1.0)
        proxy.heal()
        assert say_over_grpc(proxy.address, SENT, TIMEOUT_S) == SENT
