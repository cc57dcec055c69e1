"""The door for replay: what the learner keeps of transitions, and where its batches come from.

`weightkit_runners.replay.buffer` is the ring of frames, `memory` the two rings of a run with their batches half and
half, `prefetch` draws batches ahead in a thread, `process` in a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig
    from weightkit_runners.replay.base import ReplaySource

__all__ = ["make_replay"]


def make_replay(config: RunConfig) -> ReplaySource:
    """The run's replay: in a process of its own, with batches drawn ahead, or neither, as the configuration says.

    Raises ConfigError where its device is not there, or where a buffer would not hold one transition.
    """
    from weightkit_runners.replay.memory import ReplayMemory
    from weightkit_runners.replay.prefetch import Prefetched
    from weightkit_runners.replay.process import ReplayProcess
    from weightkit_runners.transitions import transition_spec

    spec = transition_spec(config)
    if config.replay.in_process:
        return ReplayProcess(spec, config.update, config.replay, seed=config.seed, where=config.path)
    memory = ReplayMemory(spec, config.update, config.replay, seed=config.seed, where=config.path)
    return Prefetched(memory) if config.replay.async_prefetch else memory
