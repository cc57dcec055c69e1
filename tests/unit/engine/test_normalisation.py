"""Normalisation statistics are found by what stands beside each other, and a BatchNorm is none."""

from __future__ import annotations

import math

import pytest

from weightkit.core.tensor import StateSpec, spec
from weightkit.engine.normalisation import doubts, find_normalisation


def state(**shapes: tuple[int, ...]) -> StateSpec:
    return StateSpec({name: spec("float32", *shape) for name, shape in shapes.items()})


@pytest.mark.parametrize(
    ("prefix", "names", "feature"),
    [
        ("policy_preprocessor.step_3.observation.state.", {"mean": "mean", "std": "std"}, "observation.state"),
        ("observation.images.front.", {"min": "min", "max": "max"}, "observation.images.front"),
        ("action.", {"mean": "mean", "std": "std", "q01": "q01", "q99": "q99"}, "action"),
        ("normalize_inputs.buffer_observation_state.", {"mean": "mean", "std": "std"}, "observation_state"),
        (
            "running_mean_std.",
            {"running_mean": "mean", "running_var": "var", "count": "count"},
            "running_mean_std",
        ),
        ("obs_norm_state_dict.", {"_mean": "mean", "_var": "var", "_std": "std"}, "obs_norm_state_dict"),
        (
            "state_preprocessor.",
            {"running_mean": "mean", "running_variance": "var", "current_count": "count"},
            "state_preprocessor",
        ),
        ("", {"mean": "mean", "std": "std"}, "(the whole file)"),
    ],
    ids=["lerobot", "minmax", "quantiles", "old lerobot", "rl_games", "rsl_rl", "skrl", "root"],
)
def test_the_statistics_of_each_project_are_found(prefix: str, names: dict[str, str], feature: str) -> None:
    tensors = {prefix + name: (() if statistic == "count" else (3,)) for name, statistic in names.items()}
    found = find_normalisation(state(**{"net.0.weight": (3, 3), **tensors}))
    wanted = {statistic: prefix + name for name, statistic in names.items()}
    assert found == [{"feature": feature, "shape": [3], "tensors": wanted}]


@pytest.mark.parametrize("beside", ["weight", "bias", "num_batches_tracked"])
def test_a_batch_norm_is_none(beside: str) -> None:
    assert not find_normalisation(state(**{"n.running_mean": (3,), "n.running_var": (3,), f"n.{beside}": (3,)}))
    assert not find_normalisation(state(**{"batch_stats.n.mean": (3,), "batch_stats.n.var": (3,)}))


def test_half_a_set_or_two_shapes_are_none() -> None:
    assert not find_normalisation(state(std=(3,)))
    assert not find_normalisation(state(**{"a.mean": (3,)}))
    assert not find_normalisation(state(**{"a.min": (3,), "a.std": (3,)}))
    assert not find_normalisation(state(**{"a.mean": (3,), "a.std": (4,)}))
    assert not find_normalisation(state(**{"a.mean": (3,), "b.std": (3,)}))


def test_a_spread_that_cannot_be_divided_by_is_doubtful() -> None:
    assert doubts({"mean": [0.0], "std": [1.0], "min": [0.0], "max": [0.0]}) == []
    assert doubts({"std": [1.0, 0.0]}) == ["std is 0 or negative in 1 of 2 elements: it is divided by"]
    assert doubts({"var": [math.nan, 1.0]}) == ["var is NaN or infinite in 1 of 2 elements"]
    assert doubts({"mean": [math.inf], "std": [1.0]}) == ["mean is NaN or infinite in 1 of 1 elements"]
    assert doubts({"min": [1.0, 0.0], "max": [0.0, 1.0]}) == ["min is above max in 1 of 2 elements"]
