"""Checkpoints of a run: ``<output_dir>/checkpoints/000500``, ``last`` pointing at the newest.

Laid out as LeRobot lays out its own: ``pretrained_model`` is the policy with the run's configuration,
``training_state`` what a learner needs to go on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from weightkit.atomic_file import write_atomically, write_directory_atomically
from weightkit.errors import ConfigError, UsageError
from weightkit.formats.weightkit_dir import POLICY, is_ours
from weightkit.verbs.save_policy import save_policy_directory
from weightkit_runners.config import RunConfig

if TYPE_CHECKING:
    from torch import Tensor

    from weightkit_runners.training import Training

CHECKPOINTS, LAST = "checkpoints", "last"
STATE = "training_state"
JOURNAL_FOLDER = "experience"
PUT_ASIDE = (CHECKPOINTS, JOURNAL_FOLDER, "run.json")
TRAIN_CONFIG, OPTIMIZERS, STEP = "train_config.json", "optimizer_state.safetensors", "training_step.json"


@dataclass(frozen=True, slots=True)
class SavedTraining:
    """A checkpoint to go on from: the folder, and ``learner_step`` updates that were done."""

    path: Path
    learner_step: int

    @property
    def policy(self) -> Path:
        """The folder of its policy."""
        return self.path / POLICY

    @property
    def train_config(self) -> Path:
        """The configuration that it was trained with, defaults filled in."""
        return self.policy / TRAIN_CONFIG

    def optimizers(self) -> dict[str, Tensor]:
        """The optimizers' tensors, as `Training.state` names them. Raises ConfigError for a damaged file."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path / STATE / OPTIMIZERS
        try:
            found: dict[str, Tensor] = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path}: no training state can be read: {error}", hint=_ANOTHER) from None
        return found


_ANOTHER = "resume from another checkpoint of the run, or begin from this one's weights with --pretrained"


def save_training(training: Training, config: RunConfig) -> Path:
    """Write a checkpoint, whole or not at all, and move the ``last`` link to it."""
    from safetensors.torch import save

    step = training.learner_step
    folder = config.output_dir / CHECKPOINTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{step:06d}"

    def fill(draft: Path) -> None:
        facts = {"learner_step": step, "run": config.path}
        save_policy_directory(training.policy, config.net, draft / POLICY, facts=facts)
        _write(draft / POLICY / TRAIN_CONFIG, _json(config.document))
        (draft / STATE).mkdir()
        _write(draft / STATE / OPTIMIZERS, save(training.state()))
        _write(draft / STATE / STEP, _json({"step": step, "env_step": training.env_step}))

    write_directory_atomically(path, fill, force=True, is_ours=_is_checkpoint)
    draft = folder / ".last.new"  # one name: what a kill leaves, the next save takes away
    draft.unlink(missing_ok=True)
    draft.symlink_to(path.name)
    draft.replace(folder / LAST)
    return path


def find_training(path: str | Path) -> SavedTraining:
    """The checkpoint at ``path``, or the last one of the run there. Raises ConfigError where there is none."""
    given = Path(path)
    for folder in (given, given / LAST, given / CHECKPOINTS / LAST):
        if not (folder / STATE / STEP).is_file():
            continue
        where = folder / STATE / STEP
        try:
            step = json.loads(where.read_text(encoding="utf-8"))["step"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where}: no step can be read from it: {error!r}", hint=_ANOTHER) from None
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ConfigError(f"{where}: expected a number of updates, found {step!r}", hint=_ANOTHER)
        return SavedTraining(folder.resolve(), step)
    raise ConfigError(
        f"{given}: there is no checkpoint to go on from; nothing was started",
        hint="name a run's output_dir, or a folder such as checkpoints/000500 with training_state in it",
    )


def going_on(config: RunConfig, *, resume: str | Path | None = None, anew: bool = False) -> SavedTraining | None:
    """The checkpoint to go on from, as ``resume`` or the configuration says; None for a run that begins.

    ``anew``: an earlier run's checkpoints and transitions in the folder are put aside. Raises UsageError where there
    are checkpoints and neither was said, or where ``resume`` is of another run than the configuration's.
    """
    folder = config.output_dir
    if config.resume or resume is not None:
        saved = find_training(folder if resume is None else resume)
        run = saved.path.parent.parent
        if run != folder.resolve():
            raise UsageError(
                f"--resume {resume}: a checkpoint of the run in {run}, where its actors' transitions are; output_dir "
                f"is {folder}, so nothing was started",
                hint=f"go on there with --set output_dir={run}, or begin with its weights: --pretrained {saved.policy}",
            )
        return saved
    if anew:
        for name in PUT_ASIDE:
            _put_aside(folder / name)
        return None
    if (folder / CHECKPOINTS / LAST / STATE / STEP).is_file():
        saved = find_training(folder)
        raise UsageError(
            f"{folder}: a run was trained here already, up to update {saved.learner_step}; nothing was started",
            hint=f"go on with --resume {folder}, put it aside with --anew, or choose another output_dir",
        )
    return None


def _put_aside(folder: Path) -> None:
    """Give a folder a name that is free."""
    if folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.{number}")).exists():
            number += 1
        folder.rename(aside)


def _is_checkpoint(folder: Path) -> bool:
    names = {entry.name for entry in folder.iterdir()}
    return names == {POLICY, STATE} and is_ours(folder / POLICY)


def _write(path: Path, content: bytes) -> None:
    def write(file: BinaryIO) -> None:
        file.write(content)

    write_atomically(path, write)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"
