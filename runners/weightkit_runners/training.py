"""A policy in training: its replay, its learning rule and how far it has come; saved and resumed as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightkit.errors import ConfigError
from weightkit_runners.config import RunConfig
from weightkit_runners.demonstrations import read_demonstrations
from weightkit_runners.episode_stats import EpisodeStats
from weightkit_runners.process import log
from weightkit_runners.replay import make_replay
from weightkit_runners.transitions import Transition, TransitionSpec
from weightkit_runners.updates import make_update


class Training:
    """``learner_step`` counts updates, ``env_step`` the actors' transitions. Used by one thread; ``close`` it."""

    def __init__(self, policy: Any, config: RunConfig) -> None:
        self.policy = policy
        self.learner_step = 0
        self.env_step = 0
        self._least = config.online_step_before_learning
        self._ready = False
        self.update = make_update(policy, config)
        self.episodes = EpisodeStats()
        self.replay = make_replay(config)

    def add(self, actor_id: str, transitions: Sequence[Transition]) -> None:
        """What an actor did next."""
        self.replay.add(actor_id, transitions)
        self.episodes.add(actor_id, transitions)
        self.env_step += len(transitions)

    def demonstrate(self, folder: Path, spec: TransitionSpec) -> None:
        """Put the recordings in ``folder`` into the offline buffer. Raises ConfigError, as `read_demonstrations`."""
        for name, transitions in read_demonstrations(folder, spec):
            self.replay.demonstrate(name, transitions)
        log.info("[LEARNER] Demonstrations: %d transitions from %s", self.replay.counts().offline, folder)

    def is_ready(self) -> bool:
        """Whether there are as many transitions as learning waits for."""
        self._ready = self._ready or self.replay.counts().online >= self._least
        return self._ready

    def step(self) -> dict[str, float]:
        """One update; its losses."""
        batches = self.replay.batches(self.learner_step)
        metrics = self.update.update(batches, env_step=self.env_step, learner_step=self.learner_step)
        self.learner_step += 1
        return metrics

    def state(self) -> dict[str, Tensor]:
        """The optimizers' tensors by name. With the policy's own and ``learner_step`` that is all an update reads."""
        return {
            f"{name}.{index}.{moment}": value.contiguous()
            for name, optimizer in self.update.optimizers.items()
            for index, parameter in enumerate(optimizer.param_groups[0]["params"])
            for moment, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state(self, state: dict[str, Tensor], *, learner_step: int) -> None:
        """Go on from what ``state`` gave. Raises ConfigError where it is of other optimizers or of another net."""
        parameters = {
            f"{name}.{index}": (optimizer, parameter)
            for name, optimizer in self.update.optimizers.items()
            for index, parameter in enumerate(optimizer.param_groups[0]["params"])
        }
        hint = "resume with the configuration that the checkpoint was written with"
        for key, value in state.items():
            place, moment = key.rsplit(".", 1)
            if place not in parameters:
                raise ConfigError(
                    f"the checkpoint's training state has {key}, which nothing here is trained by", hint=hint
                )
            optimizer, parameter = parameters[place]
            if moment != "step" and value.shape != parameter.shape:
                raise ConfigError(
                    f"the checkpoint's {key} is {list(value.shape)}, the parameter here {list(parameter.shape)}",
                    hint=hint,
                )
            there = torch.empty_like(parameter if value.shape == parameter.shape else value, device=parameter.device)
            optimizer.state[parameter][moment] = there.copy_(value)  # laid out as the parameter: Adam goes by memory
        self.learner_step = learner_step

    def close(self) -> None:
        """Free the replay."""
        self.replay.close()
