"""The door for learning rules: one file each, this table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weightkit.errors import ConfigError

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig
    from weightkit_runners.updates.drqv2 import DrQV2Update

UPDATES: dict[str, str] = {"drqv2": "weightkit_runners.updates.drqv2:DrQV2Update"}
"""Architecture name -> ``module:class`` of the rule that trains it."""


def make_update(policy: Any, config: RunConfig) -> DrQV2Update:
    """The learning rule for the run's architecture. Raises ConfigError where there is none, or not for such a net."""
    architecture = config.architecture.name
    if architecture not in UPDATES:
        raise ConfigError(
            f"$.policy.type: nothing trains {architecture!r} here; policies of it act and are converted",
            hint=f"trained are: {', '.join(UPDATES)}",
        )
    module, name = UPDATES[architecture].split(":")
    update: DrQV2Update = getattr(import_module(module), name)(policy, config.update, config.exploration, config.seed)
    return update
