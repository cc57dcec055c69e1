"""FrameStackBuffer: oldest first, and nothing survives an episode boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from weightkit_runners import FrameStackBuffer

IMAGE, STATE = "observation.images.front", "observation.state"


def frame(number: int, channels: int, state_dim: int) -> dict[str, NDArray[Any]]:
    """A frame whose every value tells its number and its channel."""
    image = np.zeros((channels, 2, 3), np.uint8)
    image += np.arange(channels, dtype=np.uint8)[:, None, None] + np.uint8(8 * number)
    return {IMAGE: image, STATE: np.arange(state_dim, dtype=np.float32) + 100 * number}


episodes = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@given(frames=st.integers(1, 5), channels=st.integers(1, 3), state_dim=st.integers(1, 4), lengths=episodes)
def test_a_stack_is_the_last_frames_of_its_own_episode_oldest_first(
    frames: int, channels: int, state_dim: int, lengths: list[int]
) -> None:
    buffer = FrameStackBuffer(frames, [IMAGE], STATE)
    number = 0
    for length in lengths:
        first = number
        stacked = buffer.reset(frame(number, channels, state_dim))
        for step in range(length + 1):
            if step:
                number += 1
                stacked = buffer.update(frame(number, channels, state_dim))
            expected = [max(first, number - back) for back in reversed(range(frames))]
            assert stacked[IMAGE].shape == (frames * channels, 2, 3)
            assert stacked[STATE].shape == (frames * state_dim,)
            for t, source in enumerate(expected):
                one = frame(source, channels, state_dim)
                for c in range(channels):
                    assert np.array_equal(stacked[IMAGE][t * channels + c], one[IMAGE][c])
                for d in range(state_dim):
                    assert stacked[STATE][t * state_dim + d] == one[STATE][d]
        number += 1


@given(frames=st.integers(2, 5))
def test_a_stack_holds_copies_that_a_reused_frame_cannot_change(frames: int) -> None:
    buffer = FrameStackBuffer(frames, [IMAGE], STATE)
    reused = frame(1, 3, 2)
    buffer.reset(reused)
    reused[IMAGE][:] = 255
    stacked = buffer.update(reused)
    assert np.array_equal(stacked[IMAGE][:3], frame(1, 3, 2)[IMAGE])
    assert (stacked[IMAGE][-3:] == 255).all()


def test_update_before_reset_is_refused() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        FrameStackBuffer(2, [IMAGE], STATE).update(frame(0, 3, 2))


def test_a_missing_key_and_a_changed_shape_are_refused_by_name() -> None:
    buffer = FrameStackBuffer(2, [IMAGE], STATE)
    with pytest.raises(KeyError, match=STATE):
        buffer.reset({IMAGE: frame(0, 3, 2)[IMAGE]})
    buffer.reset(frame(0, 3, 2))
    with pytest.raises(ValueError, match=IMAGE):
        buffer.update({**frame(1, 3, 2), IMAGE: np.zeros((3, 9, 9), np.uint8)})


@pytest.mark.parametrize("frames", [0, -1])
def test_a_stack_of_no_frames_is_refused(frames: int) -> None:
    with pytest.raises(ValueError, match="frame_stack"):
        FrameStackBuffer(frames, [IMAGE], STATE)
