"""Whole episodes without exploration noise, and how they went."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightkit_runners.environment import RunEnv
from weightkit_runners.process import log

Act = Callable[[dict[str, NDArray[Any]]], NDArray[Any]]
"""A stacked observation ``(1, ...)`` to an action ``(A,)``."""


@dataclass(frozen=True, slots=True)
class Episode:
    """How one episode went. ``actions_digest`` is equal for two episodes only where every action was bit-equal."""

    seed: int
    success: bool
    steps: int
    reward: float
    actions_digest: str

    def to_dict(self) -> dict[str, object]:
        """The episode as JSON values."""
        return asdict(self)


def run_episode(
    env: RunEnv, act: Act, seed: int, *, on_step: Callable[[dict[str, NDArray[Any]]], object] | None = None
) -> Episode:
    """One episode from ``reset(seed)`` to its end. ``on_step`` sees every stacked observation."""
    observation = env.reset(seed)
    digest = hashlib.sha256()
    total, steps = 0.0, 0
    while True:
        if on_step is not None:
            on_step(observation)
        action = np.asarray(act(observation), dtype=np.float32)
        digest.update(action.tobytes())
        observation, reward, terminated, truncated, info = env.step(action)
        total += reward
        steps += 1
        if terminated or truncated:
            return Episode(seed, bool(info.get("success", False)), steps, total, digest.hexdigest()[:16])


def run_episodes(
    env: RunEnv, act: Act, seeds: Iterable[int], *, on_episode: Callable[[Episode], object] | None = None
) -> list[Episode]:
    """One episode per seed, in order."""
    episodes = []
    for seed in seeds:
        episode = run_episode(env, act, seed)
        episodes.append(episode)
        if on_episode is not None:
            on_episode(episode)
    return episodes


def policy_act(policy: Any) -> Act:
    """The deterministic action of a policy, for ``run_episode``."""

    def act(observation: dict[str, NDArray[Any]]) -> NDArray[Any]:
        action: NDArray[Any] = policy.act(observation)[0].cpu().numpy()
        return action

    return act


def random_act(action_dim: int, seed: int) -> Act:
    """Uniform random actions in [-1, 1], for comparison."""
    random = np.random.default_rng(seed)
    return lambda observation: random.uniform(-1.0, 1.0, action_dim).astype(np.float32)


def successes(episodes: Iterable[Episode]) -> int:
    """How many of the episodes reached their goal."""
    return sum(episode.success for episode in episodes)


def log_episode(episode: Episode) -> None:
    """Say how an actor's episode went."""
    word = "reached the goal" if episode.success else "did not reach the goal"
    log.info("[ACTOR] episode %d %s in %d steps", episode.seed, word, episode.steps)
