"""A replay in a process of its own: neither decoding nor drawing takes time from the learner's interpreter.

Both ends speak in bytes over a pipe: a letter, then transitions as they travel, a step's number, or JSON. Batches lie
in memory that both map, two steps' worth in turn: the next step's are drawn while the learner computes with the last.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from weightkit.shared_memory import SharedBuffer, SharedRef, attach
from weightkit_runners.config import ReplayConfig, UpdateConfig
from weightkit_runners.experience.messages import decode_transitions, encode_transitions
from weightkit_runners.piped import PipedProcess, serve
from weightkit_runners.replay.base import ReplayCounts
from weightkit_runners.replay.buffer import Batch
from weightkit_runners.replay.memory import ReplayMemory
from weightkit_runners.transitions import Transition, TransitionSpec

_ADD, _DEMONSTRATE, _COUNT, _DRAW = b"A", b"D", b"C", b"B"
_LENGTH, _STEP = struct.Struct("<I"), struct.Struct("<q")
_ALIGNMENT = 64
_SLOTS = 2


class ReplayProcess:
    """The learner's end. Raises ConfigError as `ReplayMemory` does, WeightkitError where the process has died."""

    def __init__(
        self, spec: TransitionSpec, update: UpdateConfig, replay: ReplayConfig, *, seed: int, where: str
    ) -> None:
        self._there = PipedProcess(
            __name__,
            what="the process that holds the replay",
            hint="its memory may have run out: lower policy.replay_memory_gb",
        )
        self._slots: list[list[Batch]] = []
        told = {"spec": spec.to_dict(), "update": asdict(update), "replay": asdict(replay)}
        try:
            self._there.ask(json.dumps({**told, "seed": seed, "where": where}, default=str).encode())
        except BaseException:
            self.close()
            raise

    def add(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one actor's run, in their order."""
        self._there.send(_ADD + _named(stream) + encode_transitions(transitions))

    def demonstrate(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one recording, in their order, for the offline buffer."""
        self._there.send(_DEMONSTRATE + _named(stream) + encode_transitions(transitions))

    def counts(self) -> ReplayCounts:
        """How much there is, everything counted that `add` was given before."""
        return ReplayCounts(**json.loads(self._there.ask(_COUNT)))

    def batches(self, learner_step: int) -> list[Batch]:
        """The batches of a step. They are overwritten by those of the step after the next one asked for."""
        answer = json.loads(self._there.ask(_DRAW + _STEP.pack(learner_step)))
        if "refs" in answer:
            self._slots = [_mapped(SharedRef(**ref), answer["layout"]) for ref in answer["refs"]]
        return self._slots[answer["slot"]]

    def close(self) -> None:
        """End the process."""
        self._slots = []
        self._there.close()


class _There:
    """The replay in its process."""

    def __init__(self) -> None:
        self._drawer: _Drawer | None = None
        self._wanted: int | None = None

    def respond(self, message: bytes) -> bytes:
        """To what the other side says: first what to make, then transitions, and questions."""
        if self._drawer is None:
            return self._made(json.loads(message))
        kind, content, memory = message[:1], message[1:], self._drawer.memory
        if kind == _COUNT:
            return json.dumps(asdict(memory.counts())).encode()
        if kind == _DRAW:
            (step,) = _STEP.unpack(content)
            answer = self._drawer.draw(step)
            self._wanted = step + 1
            return answer
        end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
        take = memory.add if kind == _ADD else memory.demonstrate
        take(content[_LENGTH.size : end].decode(), decode_transitions(content[end:]))
        return b""

    def draw_ahead(self) -> None:
        """The next step's batches, while the learner computes with the last."""
        if self._drawer is not None and self._wanted is not None:
            self._drawer.draw_ahead(self._wanted)
            self._wanted = None

    def _made(self, told: dict[str, Any]) -> bytes:
        spec, update = TransitionSpec.from_dict(told["spec"]), UpdateConfig(**told["update"])
        replay = ReplayConfig(**told["replay"])
        self._drawer = _Drawer(ReplayMemory(spec, update, replay, seed=told["seed"], where=told["where"]))
        return b""


class _Drawer:
    """Draws batches into shared memory, one step ahead."""

    def __init__(self, memory: ReplayMemory) -> None:
        self.memory = memory
        self._buffers: list[SharedBuffer] = []
        self._slots: list[list[Batch]] = []
        self._layout: list[list[dict[str, Any]]] = []
        self._slot, self._ahead = 0, -1

    def draw(self, step: int) -> bytes:
        """The answer for a step: in which slot its batches are; at first, where the slots are."""
        is_first = not self._buffers
        if step != self._ahead:
            self._fill(step)
        answer: dict[str, Any] = {"slot": self._slot}
        if is_first:
            answer |= {"refs": [asdict(buffer.ref) for buffer in self._buffers], "layout": self._layout}
        self._ahead = -1
        return json.dumps(answer).encode()

    def draw_ahead(self, step: int) -> None:
        """The next step's batches, while the learner computes."""
        self._fill(step)
        self._ahead = step

    def _fill(self, step: int) -> None:
        batches = self.memory.batches(step)
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


def main() -> None:
    """Run the process."""
    torch.set_num_threads(1)
    there = _There()
    serve(there.respond, is_told=lambda message: message[:1] in (_ADD, _DEMONSTRATE), idle=there.draw_ahead)


if __name__ == "__main__":
    main()
