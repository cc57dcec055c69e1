"""The door for learning rules: one file each, this table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from weightkit.errors import ConfigError

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig
    from weightkit_runners.updates.base import Update

UPDATES: Mapping[str, str] = MappingProxyType(
    {
        "drqv2": "weightkit_runners.updates.drqv2:DrQV2Update",
        "sac": "weightkit_runners.updates.sac:SACUpdate",
    }
)
"""Architecture name -> ``module:class`` of the rule that trains it."""


def make_update(policy: Any, config: RunConfig) -> Update:
    """The learning rule for the run's architecture. Raises ConfigError where there is none, or not for such a net."""
    architecture = config.architecture.name
    if architecture not in UPDATES:
        raise ConfigError(
            f"$.policy.type: nothing trains {architecture!r} here; policies of it act and are converted",
            hint=f"trained are: {', '.join(UPDATES)}",
        )
    module, name = UPDATES[architecture].split(":")
    update: Update = getattr(import_module(module), name)(policy, config.update, config.exploration, config.seed)
    return update


def begin_fresh(policy: Any, config: RunConfig) -> None:
    """Give what a learning rule sets in a fresh policy its first value: the temperature of SAC."""
    if config.architecture.name == "sac" and policy.log_alpha is not None:
        policy.log_alpha.data.fill_(math.log(config.update.temperature_init))
