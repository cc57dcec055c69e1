"""Robot environments by name: ``ENVS`` lists all there are, and each is imported when it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

from weightkit_runners.envs.base import IMAGE_PREFIX, STATE, Action, Observation, RobotEnv, Step

__all__ = ["ENVS", "IMAGE_PREFIX", "STATE", "Action", "Observation", "RobotEnv", "Step", "make_env"]

ENVS: Mapping[str, str] = MappingProxyType(
    {
        "arm": "weightkit_runners.envs.arm:ArmEnv",
    }
)
"""Environment name -> ``module:class`` of its implementation."""


def make_env(name: str, **options: Any) -> RobotEnv:
    """The environment called ``name`` in ``ENVS``, made with its own ``options``.

    Raises:
        ValueError: ``name`` is not in ``ENVS``, or an option has a value that the environment refuses.
        ModuleNotFoundError: the implementation needs a package that is not installed.
        RenderingUnavailable: the options ask for cameras and this machine cannot draw.
    """
    if name not in ENVS:
        raise ValueError(f"env: found {name!r}, expected one of {sorted(ENVS)}")
    module_name, class_name = ENVS[name].split(":")
    constructor = cast(Callable[..., RobotEnv], getattr(import_module(module_name), class_name))
    return constructor(**options)
