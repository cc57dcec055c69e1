"""Checkpoints of a run: ``<output_dir>/checkpoints/000500``, ``last`` pointing at the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weightkit.verbs.save_policy import save_policy_directory
from weightkit_runners.config import RunConfig


def save_policy(policy: Any, config: RunConfig, learner_step: int) -> Path:
    """Write the policy as a folder that weightkit reads, whole or not at all, and move the ``last`` link to it."""
    folder = config.output_dir / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{learner_step:06d}"
    save_policy_directory(
        policy, config.net, path, facts={"learner_step": learner_step, "run": config.path}, force=True
    )
    draft = folder / ".last.new"  # one name: what a kill leaves, the next save takes away
    draft.unlink(missing_ok=True)
    draft.symlink_to(path.name)
    draft.replace(folder / "last")
    return path
