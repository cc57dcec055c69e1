"""Normalisation statistics among the tensors of a checkpoint, found by the names that stand beside each other."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from weightkit.core.tensor import StateSpec

STATISTICS: dict[str, str] = {
    "mean": "mean",
    "_mean": "mean",
    "running_mean": "mean",
    "std": "std",
    "_std": "std",
    "running_std": "std",
    "var": "var",
    "_var": "var",
    "running_var": "var",
    "running_variance": "var",
    "min": "min",
    "max": "max",
    "count": "count",
    "_count": "count",
    "current_count": "count",
    "q01": "q01",
    "q10": "q10",
    "q50": "q50",
    "q90": "q90",
    "q99": "q99",
}
"""Last segment of a tensor's name -> the statistic that it holds."""

_OF_A_LAYER = ("weight", "bias", "num_batches_tracked")
"""Beside one of these, running_mean and running_var are a BatchNorm's own."""
_FEATURE_ROOTS = ("observation", "action", "next")


def find_normalisation(state: StateSpec) -> list[dict[str, Any]]:
    """Every set of statistics that a policy's inputs or outputs are scaled with, in the order of the file.

    A set is mean with std or var, or min with max, of one shape below one prefix; count and quantiles go with it.
    LeRobot's processors and its older normalise modules, rl_games, rsl_rl and skrl all store them so. The running
    statistics of a BatchNorm, which stand beside weight, bias or num_batches_tracked (flax: below batch_stats), are
    none.

    Each is ``{"feature": str, "shape": [...], "tensors": {statistic: name}}``.
    """
    tensors = state.tensors
    found: dict[str, dict[str, str]] = {}
    statistic_of = STATISTICS.get
    for name in tensors:
        prefix, _, last = name.rpartition(".")
        statistic = statistic_of(last)
        if statistic is not None:
            found.setdefault(prefix, {}).setdefault(statistic, name)
    sets = []
    for prefix, names in found.items():
        below = f"{prefix}." if prefix else ""
        scaled = "mean" in names and ("std" in names or "var" in names)
        first = names["mean"] if scaled else names.get("min", "")
        if not scaled and not ("min" in names and "max" in names):
            continue
        if "batch_stats" in prefix.split(".") or (prefix and any(below + own in tensors for own in _OF_A_LAYER)):
            continue
        shape = tensors[first].shape
        if any(tensors[name].shape != shape for statistic, name in names.items() if statistic != "count"):
            continue
        sets.append({"feature": feature_of(prefix), "shape": list(shape), "tensors": names})
    return sets


def feature_of(prefix: str) -> str:
    """What is normalised: the feature's own name where the prefix holds one, else the whole prefix.

    ``a.b.observation.state`` -> ``observation.state``; ``normalize_inputs.buffer_action`` -> ``action``.
    """
    segments = prefix.split(".")
    if segments[-1].startswith("buffer_"):
        return segments[-1].removeprefix("buffer_")
    for index, segment in enumerate(segments):
        if segment in _FEATURE_ROOTS:
            return ".".join(segments[index:])
    return prefix or "(the whole file)"


def doubts(values: dict[str, list[float]]) -> list[str]:
    """What is wrong with one set of statistics, as sentences; ``values`` holds each statistic's numbers, flat.

    Dividing by a spread that is 0, negative or no number gives actions that are no numbers; a minimum above its
    maximum turns an axis round.
    """
    said = []
    for statistic in ("std", "var"):
        numbers = values.get(statistic, [])
        absent = sum(1 for x in numbers if x != x or x in (float("inf"), float("-inf")))
        low = sum(1 for x in numbers if x <= 0)
        if absent:
            said.append(f"{statistic} is NaN or infinite in {absent} of {len(numbers)} elements")
        if low:
            said.append(f"{statistic} is 0 or negative in {low} of {len(numbers)} elements: it is divided by")
    for statistic in ("mean", "min", "max"):
        numbers = values.get(statistic, [])
        absent = sum(1 for x in numbers if x != x or x in (float("inf"), float("-inf")))
        if absent:
            said.append(f"{statistic} is NaN or infinite in {absent} of {len(numbers)} elements")
    if "min" in values and "max" in values and len(values["min"]) == len(values["max"]):
        crossed = sum(1 for low_, high in zip(values["min"], values["max"], strict=True) if low_ > high)
        if crossed:
            said.append(f"min is above max in {crossed} of {len(values['min'])} elements")
    return said
