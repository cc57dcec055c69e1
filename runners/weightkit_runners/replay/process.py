"""A replay in a process of its own: neither decoding nor drawing takes time from the learner's interpreter.

Both ends speak in bytes over a pipe: a letter, then transitions as they travel, a step's number, or JSON. Batches lie
in memory that both map, two steps' worth in turn: the next step's are drawn while the learner computes with the last.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from weightkit.errors import ConfigError, WeightkitError
from weightkit.shared_memory import SharedBuffer, SharedRef, attach
from weightkit_runners.config import ReplayConfig, UpdateConfig
from weightkit_runners.experience.messages import decode_transitions, encode_transitions
from weightkit_runners.replay.base import ReplayCounts
from weightkit_runners.replay.buffer import Batch
from weightkit_runners.replay.memory import ReplayMemory
from weightkit_runners.transitions import Transition, TransitionSpec

_ADD, _DEMONSTRATE, _COUNT, _DRAW = b"A", b"D", b"C", b"B"
_FINE, _WRONG = b"+", b"-"
_LENGTH, _STEP = struct.Struct("<I"), struct.Struct("<q")
_ALIGNMENT = 64
_SLOTS = 2
_END_TIMEOUT_S = 10.0


class ReplayProcess:
    """The learner's end. Raises ConfigError as `ReplayMemory` does, WeightkitError where the process has ended."""

    def __init__(
        self, spec: TransitionSpec, update: UpdateConfig, replay: ReplayConfig, *, seed: int, where: str
    ) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._pipe = Connection(ours.detach())
        self._slots: list[list[Batch]] = []
        told = {
            "spec": spec.to_dict(),
            "update": asdict(update),
            "replay": asdict(replay),
            "seed": seed,
            "where": where,
        }
        try:
            self._send(json.dumps(told, default=str).encode())
            self._answer()
        except BaseException:
            self.close()
            raise

    def add(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one actor's run, in their order."""
        self._send(_ADD + _named(stream) + encode_transitions(transitions))

    def demonstrate(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one recording, in their order, for the offline buffer."""
        self._send(_DEMONSTRATE + _named(stream) + encode_transitions(transitions))

    def counts(self) -> ReplayCounts:
        """How much there is, everything counted that `add` was given before."""
        self._send(_COUNT)
        return ReplayCounts(**json.loads(self._answer()))

    def batches(self, learner_step: int) -> list[Batch]:
        """The batches of a step. They are overwritten by those of the step after the next one asked for."""
        self._send(_DRAW + _STEP.pack(learner_step))
        answer = json.loads(self._answer())
        if "refs" in answer:
            self._slots = [_mapped(SharedRef(**ref), answer["layout"]) for ref in answer["refs"]]
        return self._slots[answer["slot"]]

    def _send(self, message: bytes) -> None:
        try:
            self._pipe.send_bytes(message)
        except OSError:
            raise self._ended() from None

    def _answer(self) -> bytes:
        try:
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise self._ended() from None
        if answer[:1] == _WRONG:
            wrong = json.loads(answer[1:])
            kinds: dict[str, type[Exception]] = {"ConfigError": ConfigError, "ValueError": ValueError}
            raise kinds.get(wrong["kind"], WeightkitError)(wrong["message"])
        return answer[1:]

    def _ended(self) -> WeightkitError:
        self._end()
        return WeightkitError(
            f"the process that holds the replay has ended, exit code {self._process.returncode}",
            hint="its memory may have run out: lower policy.replay_memory_gb",
        )

    def close(self) -> None:
        """End the process."""
        self._slots = []
        self._pipe.close()
        self._end()

    def _end(self) -> None:
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(pipe: Connection) -> None:
    """The process: ends when the learner's end of the pipe is closed, whatever signals come."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    told = json.loads(pipe.recv_bytes())
    try:
        memory = ReplayMemory(
            TransitionSpec.from_dict(told["spec"]),
            UpdateConfig(**told["update"]),
            ReplayConfig(**told["replay"]),
            seed=told["seed"],
            where=told["where"],
        )
    except ConfigError as error:
        pipe.send_bytes(_said(error))
        return
    pipe.send_bytes(_FINE)
    drawer, wanted = _Drawer(memory), None
    while True:
        try:
            if wanted is not None and not pipe.poll():
                drawer.draw_ahead(wanted)
                wanted = None
            message = pipe.recv_bytes()
            kind, content = message[:1], message[1:]
            if kind == _COUNT:
                pipe.send_bytes(_FINE + json.dumps(asdict(memory.counts())).encode())
            elif kind == _DRAW:
                (step,) = _STEP.unpack(content)
                answer = drawer.draw(step)
                pipe.send_bytes(answer)
                wanted = step + 1 if answer[:1] == _FINE else None
            else:
                length = _LENGTH.unpack_from(content)[0]
                stream, payload = (
                    content[_LENGTH.size : _LENGTH.size + length].decode(),
                    content[_LENGTH.size + length :],
                )
                take = memory.add if kind == _ADD else memory.demonstrate
                take(stream, decode_transitions(payload))
        except (EOFError, OSError):
            return


class _Drawer:
    """Draws batches into shared memory, one step ahead."""

    def __init__(self, memory: ReplayMemory) -> None:
        self._memory = memory
        self._buffers: list[SharedBuffer] = []
        self._slots: list[list[Batch]] = []
        self._layout: list[list[dict[str, Any]]] = []
        self._slot, self._ahead = 0, -1

    def draw(self, step: int) -> bytes:
        """The answer for a step: in which slot its batches are; at first, where the slots are."""
        is_first = not self._buffers
        if step != self._ahead:
            try:
                self._fill(step)
            except ValueError as error:
                return _said(error)
        answer: dict[str, Any] = {"slot": self._slot}
        if is_first:
            answer |= {"refs": [asdict(buffer.ref) for buffer in self._buffers], "layout": self._layout}
        self._ahead = -1
        return _FINE + json.dumps(answer).encode()

    def draw_ahead(self, step: int) -> None:
        """The next step's batches, while the learner computes."""
        self._fill(step)
        self._ahead = step

    def _fill(self, step: int) -> None:
        batches = self._memory.batches(step)
        if not self._buffers:
            nbytes, self._layout = _laid_out(batches)
            self._buffers = [SharedBuffer(nbytes) for _ in range(_SLOTS)]
            self._slots = [_viewed(buffer.array, self._layout) for buffer in self._buffers]
        self._slot = (self._slot + 1) % _SLOTS
        for batch, there in zip(batches, self._slots[self._slot], strict=True):
            for key, value in batch.items():
                there[key].copy_(value)


def _named(stream: str) -> bytes:
    name = stream.encode()
    return _LENGTH.pack(len(name)) + name


def _said(error: Exception) -> bytes:
    return _WRONG + json.dumps({"kind": type(error).__name__, "message": str(error)}).encode()


def _laid_out(batches: Sequence[Batch]) -> tuple[int, list[list[dict[str, Any]]]]:
    """Bytes of all batches one after another, and where each tensor lies: key, dtype, shape, offset."""
    offset = 0
    layout: list[list[dict[str, Any]]] = []
    for batch in batches:
        layout.append([])
        for key, value in batch.items():
            dtype = str(value.dtype).removeprefix("torch.")
            layout[-1].append({"key": key, "dtype": dtype, "shape": list(value.shape), "offset": offset})
            offset += -(-value.numel() * value.element_size() // _ALIGNMENT) * _ALIGNMENT
    return offset, layout


def _viewed(array: np.ndarray, layout: list[list[dict[str, Any]]]) -> list[Batch]:
    return [
        {
            each["key"]: torch.from_numpy(
                array[each["offset"] :][: int(np.prod(each["shape"])) * np.dtype(each["dtype"]).itemsize]
                .view(each["dtype"])
                .reshape(each["shape"])
            )
            for each in batch
        }
        for batch in layout
    ]


def _mapped(ref: SharedRef, layout: list[list[dict[str, Any]]]) -> list[Batch]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch cannot say read-only; nobody writes to a batch
        return _viewed(attach(ref), layout)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
