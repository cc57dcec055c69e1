"""What the ops promise about the function of a net, measured on small nets in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from weightkit.core.axes import parse_axis
from weightkit.core.tensor import spec
from weightkit.shape_ops import ADAPTERS
from weightkit.shape_ops.fill import Fill
from weightkit.shape_ops.inflate import InflateMean, InflateNewest
from weightkit.shape_ops.pad import Pad
from weightkit.shape_ops.rearrange import AxisView, ReorderBlocks
from weightkit.shape_ops.sum_blocks import SumBlocks
from weightkit.shape_ops.take import Shrink, TakeNewest

torch: Any = pytest.importorskip("torch")
EXACT = 1e-13
RANDOM = np.random.default_rng(7)
KERNEL = RANDOM.standard_normal((8, 3, 3, 3))
STILL = np.tile(RANDOM.standard_normal((2, 1, 3, 9, 9)), (1, 3, 1, 1, 1))
MOVING = RANDOM.standard_normal((2, 3, 3, 9, 9))


def apply(op: Any, array: np.ndarray) -> np.ndarray:
    (result,) = op.apply((array,))
    return result


def conv(frames: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The response to stacks of frames, ``(b, t, c, h, w)``, oldest first: ``(b, (t c), h, w)`` to the net."""
    stacked = torch.from_numpy(frames.reshape(len(frames), -1, *frames.shape[3:]))
    result: np.ndarray = torch.nn.functional.conv2d(stacked, torch.from_numpy(kernel), padding=1).numpy()
    return result


def off(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


@pytest.mark.parametrize("frames", [STILL, MOVING], ids=["still", "moving"])
def test_inflating_the_newest_is_exact_on_every_stack(frames: np.ndarray) -> None:
    inflated = apply(InflateNewest(1, 9, 3), KERNEL)
    assert off(conv(frames, inflated), conv(frames[:, -1:], KERNEL)) < EXACT


def test_inflating_the_mean_is_exact_on_still_stacks_and_sees_the_mean_frame_of_moving_ones() -> None:
    inflated = apply(InflateMean(1, 3), KERNEL)
    assert off(conv(STILL, inflated), conv(STILL[:, -1:], KERNEL)) < EXACT
    assert off(conv(MOVING, inflated), conv(MOVING.mean(axis=1, keepdims=True), KERNEL)) < EXACT
    assert off(conv(MOVING, inflated), conv(MOVING[:, -1:], KERNEL)) > 0.5


def test_tiling_the_weights_is_off() -> None:
    tiled = np.tile(KERNEL, (1, 3, 1, 1))
    assert off(conv(STILL, tiled), conv(STILL[:, -1:], KERNEL)) > 1


def test_summing_the_frames_is_exact_on_still_stacks_only() -> None:
    stacked = RANDOM.standard_normal((8, 9, 3, 3))
    summed = apply(SumBlocks(1, 3), stacked)
    assert off(conv(STILL[:, -1:], summed), conv(STILL, stacked)) < EXACT
    assert off(conv(MOVING[:, -1:], summed), conv(MOVING, stacked)) > 0.5


def test_taking_the_newest_is_exact_only_where_older_frames_had_no_weight() -> None:
    stacked = RANDOM.standard_normal((8, 9, 3, 3))
    assert off(conv(MOVING[:, -1:], apply(TakeNewest(1, 3, 9), stacked)), conv(MOVING, stacked)) > 0.5
    stacked[:, :6] = 0
    assert off(conv(MOVING[:, -1:], apply(TakeNewest(1, 3, 9), stacked)), conv(MOVING, stacked)) < EXACT


def test_flattening_the_other_way_is_exact_with_the_axis_view_and_off_without() -> None:
    features = RANDOM.standard_normal((5, 4, 6, 7))
    weight = RANDOM.standard_normal((3, 6 * 7 * 4)) / 13
    channels_last = features.transpose(0, 2, 3, 1).reshape(5, -1) @ weight.T
    viewed = apply(AxisView(1, "H=6,W=7,C=4", "C,H,W"), weight)
    assert off(features.reshape(5, -1) @ viewed.T, channels_last) < EXACT
    assert off(features.reshape(5, -1) @ weight.T, channels_last) > 0.5


def test_frames_before_channels_become_channels_before_frames() -> None:
    inputs = RANDOM.standard_normal((5, 3, 4))
    weight = RANDOM.standard_normal((2, 12))
    viewed = apply(AxisView(1, "T=3,C=4", "C,T"), weight)
    assert off(inputs.transpose(0, 2, 1).reshape(5, -1) @ viewed.T, inputs.reshape(5, -1) @ weight.T) < EXACT


def test_blocks_of_inputs_in_another_order() -> None:
    parts = [RANDOM.standard_normal((5, size)) for size in (50, 18, 6)]
    weight = RANDOM.standard_normal((4, 74))
    moved = apply(ReorderBlocks(1, (50, 18, 6), (2, 0, 1)), weight)
    there = np.concatenate([parts[2], parts[0], parts[1]], axis=1) @ moved.T
    assert off(there, np.concatenate(parts, axis=1) @ weight.T) < EXACT


def test_a_longer_state_is_exact_padded_by_block_and_off_at_the_end_of_the_same_shape() -> None:
    weight = RANDOM.standard_normal((16, 18))
    states = RANDOM.standard_normal((5, 3, 7))
    shorter = states[:, :, :6].reshape(5, -1) @ weight.T
    (op,) = ADAPTERS["pad"](spec("float64", 16, 18), spec("float64", 16, 21), [parse_axis(1, "T=3,D=7")], "block")
    by_block, at_end = apply(op, weight), apply(Pad(1, "n=18", "n=21"), weight)
    assert by_block.shape == at_end.shape
    assert off(states.reshape(5, -1) @ by_block.T, shorter) < EXACT
    assert off(states.reshape(5, -1) @ at_end.T, shorter) > 1


def test_a_shorter_state_is_exact_only_where_what_is_left_out_was_zero() -> None:
    weight = RANDOM.standard_normal((16, 21))
    states = RANDOM.standard_normal((5, 3, 7))
    shrunk = apply(Shrink(1, "T=3,D=7", "T=3,D=6"), weight)
    assert off(states[:, :, :6].reshape(5, -1) @ shrunk.T, states.reshape(5, -1) @ weight.T) > 0.5
    states[:, :, 6] = 0
    assert off(states[:, :, :6].reshape(5, -1) @ shrunk.T, states.reshape(5, -1) @ weight.T) < EXACT


def test_more_hidden_units_change_nothing_unless_a_layer_norm_sees_them() -> None:
    inputs = torch.from_numpy(RANDOM.standard_normal((5, 4)))
    first, second = RANDOM.standard_normal((6, 4)), RANDOM.standard_normal((3, 6))
    wider = apply(Pad(0, "n=6", "n=10"), first), apply(Pad(1, "n=6", "n=10"), second)

    def net(layers: tuple[np.ndarray, np.ndarray], norm: bool) -> np.ndarray:
        one, two = map(torch.from_numpy, layers)
        hidden = inputs @ one.T
        hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[1:]) if norm else hidden
        result: np.ndarray = (torch.tanh(hidden) @ two.T).numpy()
        return result

    assert off(net(wider, norm=False), net((first, second), norm=False)) < EXACT
    assert off(net(wider, norm=True), net((first, second), norm=True)) > 0.1
    assert "LayerNorm" in Pad.preserves


def test_a_fill_is_what_it_says() -> None:
    (made,) = Fill("float16", (2, 3), 0.1).apply(())
    assert np.array_equal(made, np.full((2, 3), np.float16(0.1)))
    with pytest.raises(ValueError, match="does not fit"):
        Fill("float16", (2, 3), 70000.0).apply(())
    with pytest.raises(ValueError, match="does not fit"):
        Fill("int8", (), 0.5).apply(())
