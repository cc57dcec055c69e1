"""A checkpoint folder of LeRobot: policy, algorithm, processors' statistics and training state in one.

Read are ``pretrained_model/`` by itself and the folder that holds it beside ``training_state/`` and, in later
versions, ``algorithm/``. Source: lerobot/common/train_utils.py, lerobot/rl/learner.py, lerobot/processor/pipeline.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError, LimitExceeded
from weightkit.formats._folder import (
    file_in,
    has_file,
    has_folder,
    is_plain_name,
    named_file,
    names_in,
    read_json,
    read_json_object,
)
from weightkit.formats._joined import Part, below, join
from weightkit.formats._safetensors_file import read_safetensors
from weightkit.formats._source import Source
from weightkit.formats._weights import open_torch_weights
from weightkit.formats.base import Format, Limits

POLICY, ALGORITHM, TRAINING, CHECKPOINTS = "pretrained_model", "algorithm", "training_state", "checkpoints"
_CONFIG, _TRAIN_CONFIG, _WEIGHTS = "config.json", "train_config.json", "model.safetensors"
_PROCESSORS = ("policy_preprocessor", "policy_postprocessor")
_STEP, _SCHEDULER, _RNG = "training_step.json", "scheduler_state.json", "rng_state.safetensors"
_OPTIMIZER, _PARAM_GROUPS = "optimizer_state.safetensors", "optimizer_param_groups.json"
_INTERACTION = "training_state.pt"
_DETECTING = Limits(json_bytes=16 << 20)
_MOST_LISTED = 12


def detect(path: str, head: bytes) -> bool:
    """A policy's folder by the marks in its config.json, one that holds it, or the run that holds those."""
    if head:
        return False
    try:
        return _is_policy(path) or has_folder(path, POLICY) or bool(_checkpoints_in(path)[1])
    except LimitExceeded:
        return False
    except FormatError:
        return has_file(path, POLICY)  # a link: open says what is wrong with it


def open_lerobot_dir(path: str, limits: Limits) -> Checkpoint:
    """The tensors of policy and algorithm under their own names, the rest below the name of where they lie.

    Processors' statistics are ``policy_preprocessor.<step>.<feature>.<statistic>``, optimizers
    ``training_state.<optimizer>.state.<parameter>.<moment>``. Raises FormatError.
    """
    return _Reader(path, limits).run()


def _is_policy(folder: str) -> bool:
    """Whether config.json in ``folder`` is one of LeRobot's: a type, and what goes in and out."""
    if not has_file(folder, _CONFIG):
        return False
    try:
        config = read_json_object(file_in(folder, _CONFIG), _DETECTING)
    except FormatError:
        return False
    return isinstance(config.get("type"), str) and "input_features" in config and "output_features" in config


def _checkpoints_in(path: str) -> tuple[str, list[str]]:
    """The folder of checkpoints that ``path`` is or holds, and the checkpoints in it."""
    for folder in (os.path.join(path, CHECKPOINTS), path):
        try:
            found = [name for name in names_in(folder) if os.path.isdir(os.path.join(folder, name, POLICY))]
        except FormatError:
            continue
        if found:
            return folder, found
    return path, []


class _Reader:
    """One reading: the parts, the metadata and the findings gathered so far."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.path = path
        self.shown = printable(path)
        self.limits = limits
        self.parts: list[Part] = []
        self.metadata: dict[str, object] = {}
        self.findings: list[Finding] = []

    def run(self) -> Checkpoint:
        policy = self.path
        if has_folder(self.path, POLICY):
            policy = os.path.join(self.path, POLICY)
        elif not has_file(self.path, _CONFIG):
            raise self._a_run()
        self._policy(policy)
        places = [self.path] if policy == self.path else [self.path, policy]
        algorithms = [os.path.join(place, ALGORITHM) for place in places if has_folder(place, ALGORITHM)]
        if len(algorithms) > 1:
            listed = " and ".join(printable(folder) for folder in algorithms)
            raise CorruptFile(f"{self.shown}: two folders hold an algorithm: {listed}", hint="remove the outdated one")
        for folder in algorithms:
            self._algorithm(folder)
        if has_folder(self.path, TRAINING):
            self._training(os.path.join(self.path, TRAINING))
        return join(
            self.parts,
            path=self.path,
            shown=self.shown,
            format=FORMAT.name,
            metadata=self.metadata,
            limits=self.limits,
            findings=self.findings,
        )

    def _a_run(self) -> FormatError:
        folder, found = _checkpoints_in(self.path)
        listed = ", ".join(printable(name, longest=60) for name in found[:_MOST_LISTED])
        more = f" and {len(found) - _MOST_LISTED} more" if len(found) > _MOST_LISTED else ""
        newest = "last" if "last" in found else found[-1] if found else POLICY
        return FormatError(
            f"{self.shown}: a run of LeRobot with {len(found)} checkpoints, expected one checkpoint: {listed}{more}",
            hint=f"name one of them: {printable(os.path.join(folder, newest))}",
        )

    def _policy(self, folder: str) -> None:
        checkpoint = self._weights(folder, _WEIGHTS, lambda name: name)
        self.metadata.update(checkpoint.metadata)
        self.metadata["config"] = self._object(folder, _CONFIG)
        if has_file(folder, _TRAIN_CONFIG):
            self.metadata["train_config"] = self._object(folder, _TRAIN_CONFIG)
        used: set[str] = set()
        for processor in _PROCESSORS:
            if has_file(folder, f"{processor}.json"):
                self._processor(folder, processor, used)
        unused = [
            name
            for name in names_in(folder)
            if name.startswith(_PROCESSORS) and name.endswith(".safetensors") and name not in used
        ]
        self._left_over(folder, unused, "no processor's step names them")

    def _processor(self, folder: str, processor: str, used: set[str]) -> None:
        """The statistics that a processor's steps keep in files of their own."""
        shown = printable(os.path.join(folder, f"{processor}.json"))
        document = self.metadata[processor] = self._object(folder, f"{processor}.json")
        steps = document.get("steps", [])
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            raise CorruptFile(f"{shown}: expected a list of objects at steps")
        stems: set[str] = set()
        for index, step in enumerate(steps):
            state_file = step.get("state_file")
            if state_file is None:
                continue
            if isinstance(state_file, str) and state_file in used:
                raise CorruptFile(f"{shown}: two steps keep their state in {printable(state_file)!r}")
            stem = _stem(step, index)
            stem = stem if stem not in stems else f"{stem}_{index}"
            stems.add(stem)
            self._part(named_file(folder, state_file, said_by=shown), below(f"{processor}.{stem}"))
            used.add(str(state_file))

    def _algorithm(self, folder: str) -> None:
        self._weights(folder, _WEIGHTS, lambda name: name)
        if has_file(folder, _CONFIG):
            self.metadata["algorithm"] = self._object(folder, _CONFIG)

    def _training(self, folder: str) -> None:
        names = names_in(folder)
        state: dict[str, object] = {}
        if _STEP in names:
            self.metadata["training_step"] = self._object(folder, _STEP)
        if _SCHEDULER in names:
            state["scheduler_state"] = self._json(folder, _SCHEDULER)
        if _RNG in names:
            self._weights(folder, _RNG, below(f"{TRAINING}.rng_state"))
        if _INTERACTION in names:
            state[_INTERACTION] = self._interaction(folder)
        known = {_STEP, _SCHEDULER, _RNG, _OPTIMIZER, _PARAM_GROUPS, _INTERACTION}
        self._optimizer(folder, TRAINING, state)
        for name in names:
            if name not in known and has_folder(folder, name):
                known.add(name)
                kept: dict[str, object] = {}
                self._optimizer(os.path.join(folder, name), f"{TRAINING}.{name}", kept)
                if kept:
                    state[name] = kept
        self._left_over(folder, [name for name in names if name not in known], "they are no part that is known here")
        if state:
            self.metadata[TRAINING] = state

    def _optimizer(self, folder: str, prefix: str, kept: dict[str, object]) -> None:
        if has_file(folder, _OPTIMIZER):
            self._weights(folder, _OPTIMIZER, lambda name: f"{prefix}.{name.replace('/', '.')}")
        if has_file(folder, _PARAM_GROUPS):
            kept["param_groups"] = self._json(folder, _PARAM_GROUPS)

    def _interaction(self, folder: str) -> object:
        """The one pickle in the folder: judged, since LeRobot loads it with everything that it would execute."""
        source = file_in(folder, _INTERACTION)
        checkpoint = open_torch_weights(source, self.limits, name=FORMAT.name)
        self.parts.append(Part(source.shown, checkpoint, below(f"{TRAINING}.{TRAINING}")))
        return dict(checkpoint.metadata)

    def _weights(self, folder: str, name: str, rename: Callable[[str], str]) -> Checkpoint:
        return self._part(file_in(folder, name), rename)

    def _part(self, source: Source, rename: Callable[[str], str]) -> Checkpoint:
        checkpoint = read_safetensors(source, self.limits, name=FORMAT.name)
        self.parts.append(Part(source.shown, checkpoint, rename))
        return checkpoint

    def _json(self, folder: str, name: str) -> object:
        return read_json(file_in(folder, name), self.limits)

    def _object(self, folder: str, name: str) -> dict[str, object]:
        return read_json_object(file_in(folder, name), self.limits)

    def _left_over(self, folder: str, names: list[str], why: str) -> None:
        if names:
            listed = ", ".join(printable(name, longest=80) for name in names[:5])
            message = f"{printable(folder)}: {len(names)} files were not read, {why}: {listed}"
            self.findings.append(Finding("WK106", Severity.WARNING, printable(names[0]), message))


def _stem(step: dict[str, object], index: int) -> str:
    """What a processor's step is called: its registered name, the class it comes from, or its place."""
    for key in ("registry_name", "class"):
        found = step.get(key)
        if isinstance(found, str) and found:
            name = found if key == "registry_name" else found.rsplit(".", 1)[-1]
            if is_plain_name(name):
                return name
    return f"step_{index}"


FORMAT = Format(
    name="lerobot_dir",
    description="a checkpoint folder of LeRobot: pretrained_model by itself, or with training_state and algorithm",
    endings=(),
    detect=detect,
    open=open_lerobot_dir,
)
