"""The door for learning rules: one file each, this table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig
    from weightkit_runners.updates.drqv2 import DrQV2Update

UPDATES: dict[str, str] = {"drqv2": "weightkit_runners.updates.drqv2:DrQV2Update"}
"""Architecture name -> ``module:class`` of the rule that trains it."""


def make_update(policy: Any, config: RunConfig) -> DrQV2Update:
    """The learning rule for the run's architecture."""
    module, name = UPDATES[config.architecture.name].split(":")
    update: DrQV2Update = getattr(import_module(module), name)(policy, config.update, config.exploration, config.seed)
    return update
