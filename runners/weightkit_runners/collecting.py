"""Episodes with exploration, every transition sent to the learner with the version it was acted with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from numpy.typing import NDArray

from weightkit.core.version import WeightVersion
from weightkit_runners.config import RunConfig
from weightkit_runners.environment import RunEnv
from weightkit_runners.episodes import Episode
from weightkit_runners.exploring import Explore
from weightkit_runners.interventions import InterventionSource
from weightkit_runners.transitions import make_transition

SEND_EVERY_STEPS = 10

Weights = Callable[[threading.Event], "WeightVersion | None"]
"""Asked at every step boundary: the version to act with, newer weights swapped in; None where the run is to end."""


class Takes(Protocol):
    """Where transitions go."""

    def send(self, transitions: list[dict[str, NDArray[Any]]], version: WeightVersion, /) -> object:
        """Transitions in their order, and the version that their actions were chosen with."""


class Collector:
    """Acts in ``env`` and hands transitions to ``sender``; ``env_step`` counts them.

    ``source``: whoever may take over. A batch carries one version: the one that all its actions were chosen with.
    """

    def __init__(
        self,
        config: RunConfig,
        env: RunEnv,
        explore: Explore,
        weights: Weights,
        sender: Takes,
        *,
        source: InterventionSource | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.env_step = self.interventions = 0
        self._config, self._env, self._explore, self._weights = config, env, explore, weights
        self._sender, self._source, self._clock = sender, source, clock
        self._pending: list[dict[str, NDArray[Any]]] = []
        self._version: WeightVersion | None = None

    def episode(self, number: int, seed: int, stop: threading.Event) -> Episode:
        """The episode that ``seed`` names, the run's ``number``-th; cut short where ``stop`` is set."""
        observation = self._env.reset(seed)
        if self._source is not None:
            self._source.begin(self._env.robot, seed)
        first = dict(self._env.frame)
        total, step, ended, success = 0.0, 0, False, False
        pace = 1.0 / self._config.env.fps if self._config.env.fps else 0.0
        while not ended:
            version = self._weights(stop)
            if version is None:
                break
            due = self._clock() + pace
            if version != self._version:
                self._send()
            self._version = version
            action = self._explore(observation, self.env_step, version.learner_step)
            taken = None if self._source is None else self._source.action(observation, action)
            if taken is not None:
                action = self._env.policy_action(taken)
            observation, reward, terminated, truncated, info = self._env.step(action)
            ended, success = terminated or truncated, bool(info.get("success", False))
            self._pending.append(
                make_transition(
                    first, action, reward, self._env.frame, episode=number, step=step, terminated=terminated,
                    truncated=truncated, success=success, intervention=taken is not None,
                )
            )  # fmt: skip
            total, step, self.env_step = total + reward, step + 1, self.env_step + 1
            self.interventions += taken is not None
            if len(self._pending) >= SEND_EVERY_STEPS:
                self._send()
            stop.wait(max(0.0, due - self._clock()))
        self._send()
        return Episode(seed, success, step, total, "")

    def _send(self) -> None:
        if self._pending:
            assert self._version is not None
            self._sender.send(self._pending, self._version)
            self._pending = []
