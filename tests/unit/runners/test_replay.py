"""The replay buffer keeps the newest transitions, whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weightkit_runners.replay import ReplayBuffer


def transition(number: int) -> dict[str, NDArray[Any]]:
    return {"a": np.full((2, 3), number, np.uint8), "reward": np.float32(number).reshape(())}


@given(capacity=st.integers(1, 600), batches=st.lists(st.integers(0, 200), max_size=8))
def test_it_holds_exactly_the_newest_transitions(capacity: int, batches: list[int]) -> None:
    buffer, added = ReplayBuffer(capacity), 0
    for count in batches:
        buffer.add([transition((added + i) % 256) for i in range(count)])
        added += count
    assert buffer.added == added
    assert len(buffer) == min(added, capacity)
    if added:
        kept = {(n % 256) for n in range(max(0, added - capacity), added)}
        batch = buffer.sample(4 * len(buffer) + 64, np.random.default_rng(0))
        assert set(batch["reward"].astype(int)) <= kept
        assert (batch["a"] == batch["reward"][:, None, None]).all()
        assert batch["a"].dtype == np.uint8


def test_a_transition_unlike_the_first_is_refused_by_name() -> None:
    buffer = ReplayBuffer(4)
    buffer.add([transition(1)])
    with pytest.raises(ValueError, match="reward"):
        buffer.add([{**transition(1), "reward": np.zeros(3, np.float32)}])
    with pytest.raises(ValueError, match="extra"):
        buffer.add([{**transition(1), "extra": np.zeros(3)}])
    assert len(buffer) == 1


def test_sampling_an_empty_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        ReplayBuffer(4).sample(1, np.random.default_rng(0))
