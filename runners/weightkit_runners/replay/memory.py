"""A run's two buffers: what its actors did, and what people did, drawn half and half."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from weightkit.errors import ConfigError
from weightkit_runners.config import ReplayConfig, UpdateConfig
from weightkit_runners.replay.base import ReplayCounts
from weightkit_runners.replay.buffer import Batch, ReplayBuffer, intervened
from weightkit_runners.transitions import Transition, TransitionSpec

_GIB = 1 << 30
_ONLINE, _OFFLINE = 0, 1
_MOST_STREAMS = 1024


class ReplayMemory:
    """Online and offline buffer. Half of every batch is the offline one's as soon as that holds anything.

    Source: Ball et al. 2023 (RLPD), section 4.1, symmetric sampling. A person's transitions are kept in both, with as
    many frames before them as a stack needs.
    """

    def __init__(
        self, spec: TransitionSpec, update: UpdateConfig, replay: ReplayConfig, *, seed: int, where: str
    ) -> None:
        self._config, self._spec, self._seed = update, spec, seed
        most = int(replay.memory_gb * _GIB / spec.frame_bytes)
        share = min(1.0, most / (replay.online_capacity + replay.offline_capacity))
        try:
            device = torch.device(replay.storage_device)
            self.online, self.offline = (
                ReplayBuffer(spec, int(share * capacity), nstep=update.nstep, discount=update.discount, device=device)
                for capacity in (replay.online_capacity, replay.offline_capacity)
            )
        except (RuntimeError, AssertionError) as error:
            why = str(error).splitlines()[0]
            raise ConfigError(f"{where} @ $.policy.storage_device: {replay.storage_device!r}: {why}") from None
        except ValueError as error:
            raise ConfigError(f"{where} @ $.policy.replay_memory_gb: {error}") from None
        self._context: dict[str, deque[Transition]] = {}
        self._interventions = 0

    def add(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one actor's run, in their order; those of a person go to the offline buffer too."""
        self.online.add(stream, transitions)
        before = self._context.pop(stream, None) or deque(maxlen=self._spec.frame_stack)
        self._context[stream] = before
        if len(self._context) > _MOST_STREAMS:
            del self._context[next(iter(self._context))]
        for transition in transitions:
            if intervened(transition):
                self.offline.add(stream, [*before, transition], drawable=intervened)
                self._interventions += 1
                before.clear()  # they stand there now, and the next goes on from this one
            else:
                before.append(transition)

    def demonstrate(self, stream: str, transitions: Sequence[Transition]) -> None:
        """Transitions of one recording, in their order, for the offline buffer."""
        self.offline.add(stream, transitions)

    def counts(self) -> ReplayCounts:
        """How much there is."""
        return ReplayCounts(len(self.online), len(self.offline), self.online.added, self._interventions)

    def batches(self, learner_step: int) -> list[Batch]:
        """The ``utd_ratio`` batches of a step."""
        return [self._batch(learner_step, index) for index in range(self._config.utd_ratio)]

    def _batch(self, learner_step: int, index: int) -> Batch:
        size = self._config.batch_size
        theirs = size // 2 if len(self.offline) else 0
        parts = [
            buffer.sample(count, np.random.default_rng([self._seed, learner_step, index, which]))
            for which, buffer, count in ((_ONLINE, self.online, size - theirs), (_OFFLINE, self.offline, theirs))
            if count
        ]
        return parts[0] if len(parts) == 1 else {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def close(self) -> None:
        """Nothing to free."""
