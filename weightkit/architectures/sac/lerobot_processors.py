"""What lies around a policy in LeRobot's folders: its configuration, and the processors with their statistics.

All of it goes along with the policy into any layout, under ``beside["lerobot"]``:

    config, algorithm               LeRobot's own config.json of the policy and of the algorithm
    policy_preprocessor, ...        the processors' documents
    statistics                      file of a processor's step -> name -> array as `architectures.beside` keeps it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightkit.architectures.beside import MOST_VALUES, array_to_json
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

    from weightkit.core.checkpoint import Checkpoint

BESIDE = "lerobot"
PROCESSORS = ("policy_preprocessor", "policy_postprocessor")
_BOUNDS = (("min", "max"), ("q01", "q99"), ("q10", "q90"))
NOT_APPLIED = (
    "the statistics of the processors are carried beside the weights and are no part of the net: LeRobot 0.4's actor "
    "applies none of them, later versions' actor applies them before and after the policy"
)


@dataclass(frozen=True)
class Step:
    """A processor's step that keeps statistics: the prefix of their names, its file, and its features' shapes."""

    processor: str
    prefix: str
    file: str
    features: Mapping[str, tuple[int, ...]]


def gathered(checkpoint: Checkpoint) -> tuple[dict[str, object], list[Finding]]:
    """What goes along with the policy, and what is odd about its statistics."""
    kept: dict[str, object] = {}
    findings: list[Finding] = []
    for key in ("config", "algorithm", *PROCESSORS):
        document = checkpoint.metadata.get(key)
        if isinstance(document, dict):
            kept[key] = document
    statistics: dict[str, dict[str, np.ndarray]] = {}
    by_processor: dict[str, dict[str, np.ndarray]] = {}
    steps = list(_steps(checkpoint))
    features = {key: shape for step in steps for key, shape in step.features.items()}
    for step in steps:
        found = _arrays(checkpoint, step, findings)
        if found:
            statistics[step.file] = found
            by_processor.setdefault(step.processor, {}).update(found)
            findings += _judged(step.prefix, features, found)
    findings += _agreement(by_processor)
    known = tuple(step.prefix for step in steps)
    for name in checkpoint.state:
        if name.startswith(tuple(f"{processor}." for processor in PROCESSORS)) and not name.startswith(known):
            message = "no step of its processor names it, so it does not go along"
            findings.append(Finding("WK108", Severity.WARNING, name, message))
    if statistics:
        kept["statistics"] = {
            file: {name: array_to_json(array) for name, array in arrays.items()} for file, arrays in statistics.items()
        }
        findings.append(Finding("WK108", Severity.INFO, "policy_preprocessor", NOT_APPLIED))
    return ({BESIDE: kept} if kept else {}), findings


def _steps(checkpoint: Checkpoint) -> Iterator[Step]:
    """The steps with statistics, named as `formats.lerobot_dir` names their tensors."""
    for processor in PROCESSORS:
        document = checkpoint.metadata.get(processor)
        steps = document.get("steps") if isinstance(document, dict) else None
        used: set[str] = set()
        for index, step in enumerate(steps if isinstance(steps, list) else []):
            file = step.get("state_file") if isinstance(step, dict) else None
            if not isinstance(file, str):
                continue
            stem = next(filter(_is_plain, (step.get("registry_name"), _last(step.get("class")))), f"step_{index}")
            stem = stem if stem not in used else f"{stem}_{index}"
            used.add(stem)
            yield Step(processor, f"{processor}.{stem}.", file, features_of(step))


def _last(name: object) -> str:
    return name.rsplit(".", 1)[-1] if isinstance(name, str) else ""


def _is_plain(name: object) -> bool:
    """Whether the reader of such folders calls a step so: a text that can only mean a file of a folder."""
    return isinstance(name, str) and name not in ("", ".", "..") and not any(char in name for char in "/\\\0")


def came_along(beside: Mapping[str, object]) -> Mapping[str, object]:
    """What ``kept_along`` kept of LeRobot's own documents; nothing where a policy came from elsewhere."""
    kept = beside.get(BESIDE)
    return kept if isinstance(kept, dict) else {}


def features_of(step: object) -> dict[str, tuple[int, ...]]:
    """The features of a processor's step, with their shapes; none where it has none that can be read."""
    config = step.get("config") if isinstance(step, dict) else None
    features = config.get("features") if isinstance(config, dict) else None
    found: dict[str, tuple[int, ...]] = {}
    for key, feature in features.items() if isinstance(features, dict) else ():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if isinstance(shape, list) and all(isinstance(n, int) for n in shape):
            found[key] = tuple(shape)
    return found


def _arrays(checkpoint: Checkpoint, step: Step, findings: list[Finding]) -> dict[str, np.ndarray]:
    """A step's statistics by ``<feature>.<statistic>``; those that cannot go along are named."""
    import numpy as np

    found: dict[str, np.ndarray] = {}
    for name in checkpoint.state:
        if not name.startswith(step.prefix):
            continue
        why = ""
        if checkpoint.state[name].numel > MOST_VALUES:
            why = f"{checkpoint.state[name]} is too large for a statistic"
        elif name in checkpoint.not_dense:
            why = checkpoint.not_dense[name].why
        else:
            try:
                array = checkpoint.read(name)
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    why = "it holds values that are no finite numbers"
                else:
                    found[name[len(step.prefix) :]] = array
            except FormatError as error:
                why = error.message
        if why:
            findings.append(
                Finding("WK108", Severity.WARNING, name, printable(f"this statistic does not go along: {why}"))
            )
    return found


def _judged(prefix: str, features: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> list[Finding]:
    """Whether the statistics fit their features and can be applied; those of other features are of no consequence."""
    findings: list[Finding] = []

    def warn(name: str, message: str) -> None:
        findings.append(Finding("WK108", Severity.WARNING, f"{prefix}{name}", printable(message)))

    for name, array in arrays.items():
        feature, _, statistic = name.rpartition(".")
        if feature in features and statistic != "count" and not _fits(array.shape, features[feature]):
            warn(name, f"its shape is {list(array.shape)}, that of the feature is {list(features[feature])}")
        if statistic == "std" and (array <= 0).any():
            warn(name, "a standard deviation that is not above 0: dividing by it gives no usable input")
    for low, high in _BOUNDS:
        for name, array in arrays.items():
            feature, _, statistic = name.rpartition(".")
            other = arrays.get(f"{feature}.{high}")
            if statistic == low and other is not None and other.shape == array.shape and (array > other).any():
                warn(name, f"it is above {feature}.{high}")
    return findings


def _fits(shape: tuple[int, ...], feature: tuple[int, ...]) -> bool:
    """Whether a statistic of ``shape`` can be applied to a feature entry by entry."""
    shape = shape if shape else (1,)
    padded = (1,) * (len(feature) - len(shape)) + shape
    return len(padded) == len(feature) and all(n in (1, size) for n, size in zip(padded, feature, strict=True))


def _agreement(by_processor: Mapping[str, Mapping[str, np.ndarray]]) -> list[Finding]:
    """Whether actions are scaled back with the statistics that they were scaled with."""
    before, after = (by_processor.get(processor, {}) for processor in PROCESSORS)
    findings = []
    for name in sorted({*before, *after}):
        if not name.startswith("action.") or name not in before or name not in after:
            continue
        if before[name].shape != after[name].shape or (before[name] != after[name]).any():
            message = f"pre- and postprocessor have another {name}: actions are not scaled back as they were scaled"
            findings.append(Finding("WK108", Severity.WARNING, name, printable(message)))
    return findings
