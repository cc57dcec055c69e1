"""How actors of each kind of policy explore: scheduled noise for DrQ-v2, the policy's own spread for SAC."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig

Explore = Callable[[dict[str, NDArray[Any]], int, int], NDArray[np.float32]]
"""A stacked observation ``(1, ...)``, the actor's env step and the weights' learner step, to an action ``(A,)``."""


def explorer(policy: Any, config: RunConfig) -> Explore:
    """The run's way to explore with ``policy``; repeatable from the configuration's seed."""
    random = np.random.default_rng(config.seed)
    return _sampled(policy, random) if config.architecture.name == "sac" else _noisy(policy, config, random)


def _noisy(policy: Any, config: RunConfig, random: np.random.Generator) -> Explore:
    """Gaussian noise on the action, its standard deviation scheduled. Source: Yarats et al. 2021, section 3.1."""
    exploration = config.exploration

    def explore(observation: dict[str, NDArray[Any]], env_step: int, learner_step: int) -> NDArray[np.float32]:
        mean: NDArray[np.float32] = policy.act(observation)[0].cpu().numpy()
        noise = random.normal(0.0, exploration.stddev(env_step=env_step, learner_step=learner_step), mean.shape)
        return np.clip(mean + noise, -1.0, 1.0).astype(np.float32)

    return explore


def _sampled(policy: Any, random: np.random.Generator) -> Explore:
    """A sample of the policy's Gaussian through the tanh; the discrete action is the most valued one."""

    def explore(observation: dict[str, NDArray[Any]], env_step: int, learner_step: int) -> NDArray[np.float32]:
        del env_step, learner_step
        action: NDArray[np.float32] = policy.act(observation)[0].cpu().numpy()
        mean, std = policy(observation)
        mean, stddev = (values[0].detach().cpu().numpy() for values in (mean, policy.actor.deviation(std)))
        drawn = np.tanh(mean + stddev * random.standard_normal(mean.shape))
        action[: len(drawn)] = drawn.astype(np.float32)
        return action

    return explore
