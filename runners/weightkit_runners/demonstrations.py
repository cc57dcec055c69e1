"""Recorded episodes: one safetensors file each, every frame once, to learn from and to be replayed.

``frames`` of T steps are ``(T + 1, ...)`` under their observation keys; ``action (T, A)``, ``reward (T,)``,
``intervention (T,)``; seed, success and how it ended are the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from weightkit.atomic_file import write_atomically
from weightkit.errors import ConfigError
from weightkit_runners.transitions import (
    ACTION,
    INTERVENTION,
    NEXT,
    REWARD,
    SUCCESS,
    TERMINATED,
    TRUNCATED,
    Transition,
    TransitionSpec,
    make_transition,
)

KIND, VERSION = "weightkit_demonstration", "1"
_PATTERN = "episode_*.safetensors"


@dataclass(frozen=True)
class Demonstration:
    """One episode. ``frames``: observation key -> ``(T + 1, ...)``; ``actions (T, A)``, ``rewards (T,)``."""

    frames: Mapping[str, NDArray[Any]]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    interventions: NDArray[np.bool_]
    seed: int
    success: bool
    terminated: bool

    def __len__(self) -> int:
        return len(self.actions)

    def transitions(self, number: int) -> list[dict[str, NDArray[Any]]]:
        """Its steps, as an actor sends them, of the ``number``-th episode."""
        last = len(self) - 1
        return [
            make_transition(
                {key: values[step] for key, values in self.frames.items()},
                self.actions[step],
                float(self.rewards[step]),
                {key: values[step + 1] for key, values in self.frames.items()},
                episode=number,
                step=step,
                terminated=self.terminated and step == last,
                truncated=not self.terminated and step == last,
                success=self.success and step == last,
                intervention=bool(self.interventions[step]),
            )
            for step in range(len(self))
        ]

    @classmethod
    def of(cls, transitions: Sequence[Transition], *, seed: int) -> Demonstration:
        """A whole episode's transitions as one recording."""
        keys = [key.removeprefix(NEXT) for key in transitions[0] if key.startswith(NEXT)]
        return cls(
            {key: np.stack([transitions[0][key], *(t[NEXT + key] for t in transitions)]) for key in keys},
            np.stack([t[ACTION] for t in transitions]),
            np.stack([t[REWARD] for t in transitions]),
            np.stack([t[INTERVENTION] for t in transitions]),
            seed,
            bool(transitions[-1][SUCCESS]),
            bool(transitions[-1][TERMINATED]) and not bool(transitions[-1][TRUNCATED]),
        )


def write_demonstration(folder: Path, demonstration: Demonstration) -> Path:
    """Write an episode under the next free number, whole or not at all. Raises WriteError."""
    from safetensors.numpy import save

    numbers = [_number(path) for path in folder.glob(_PATTERN)]
    path = folder / f"episode_{max(numbers, default=-1) + 1:06d}.safetensors"
    arrays = {
        **{key: np.ascontiguousarray(values) for key, values in demonstration.frames.items()},
        ACTION: demonstration.actions,
        REWARD: demonstration.rewards,
        INTERVENTION: demonstration.interventions,
    }
    said = {"seed": demonstration.seed, "success": demonstration.success, "terminated": demonstration.terminated}
    content = save(arrays, {KIND: VERSION, "episode": json.dumps(said)})

    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write)
    return path


def demonstration_files(folder: Path) -> list[Path]:
    """The recordings in a folder, in their order. Raises ConfigError where there are none."""
    found = sorted(folder.glob(_PATTERN))
    if not found:
        raise ConfigError(
            f"{folder}: there are no demonstrations in it",
            hint="record some with weightkit-record; datasets of LeRobot (parquet and video) are not read",
        )
    return found


def read_demonstration(path: Path) -> Demonstration:
    """One recording. Raises ConfigError for a file that is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
        if metadata.get(KIND) != VERSION:
            raise ValueError(f"no recording of version {VERSION}: {KIND} is {metadata.get(KIND)!r}")
        said = json.loads(metadata["episode"])
        actions, rewards, people = (arrays.pop(key) for key in (ACTION, REWARD, INTERVENTION))
        lengths = {key: len(values) for key, values in arrays.items()} | {"reward": len(rewards) + 1}
        if not len(actions) or set(lengths.values()) != {len(actions) + 1}:
            raise ValueError(f"{len(actions)} actions do not go with {lengths}")
        facts: tuple[int, bool, bool] = (int(said["seed"]), bool(said["success"]), bool(said["terminated"]))
        return Demonstration(arrays, actions, rewards, people, *facts)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: no demonstration can be read from it: {error}") from None


def read_demonstrations(folder: Path, spec: TransitionSpec) -> Iterator[tuple[str, list[dict[str, NDArray[Any]]]]]:
    """Each recording's name and transitions. Raises ConfigError for one that is not of the run's kind."""
    for number, path in enumerate(demonstration_files(folder)):
        transitions = read_demonstration(path).transitions(number)
        try:
            for transition in transitions:
                spec.check(transition)
        except ValueError as error:
            raise ConfigError(f"{path}: recorded with another configuration: {error}") from None
        yield path.stem, transitions


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("episode_")
    return int(digits) if digits.isdigit() else -1
