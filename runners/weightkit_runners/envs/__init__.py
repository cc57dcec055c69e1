"""Robot environments by name: ``ENVS`` lists all there are, and each is imported when it is made.

A robot of your own needs no entry: name its factory as ``package.module:factory``, or its gymnasium id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

from weightkit_runners.envs.base import IMAGE_PREFIX, STATE, Action, Observation, RobotEnv, Step
from weightkit_runners.envs.gymnasium_robot import GymnasiumRobot, is_gymnasium_id

__all__ = ["ENVS", "IMAGE_PREFIX", "STATE", "Action", "Observation", "RobotEnv", "Step", "make_env"]

ENVS: Mapping[str, str] = MappingProxyType(
    {
        "arm": "weightkit_runners.envs.arm:ArmEnv",
        "synthetic": "weightkit_runners.envs.synthetic:SyntheticEnv",
    }
)
"""Environment name -> ``module:class`` of its implementation."""


def make_env(name: str, **options: Any) -> RobotEnv:
    """The environment called ``name`` in ``ENVS``, what ``package.module:factory`` makes, or gymnasium's of that id.

    Raises:
        ValueError: ``name`` is none of these, or an option is refused.
        ModuleNotFoundError: the implementation needs a package that is not installed.
        RenderingUnavailable: the options ask for cameras and this machine cannot draw.
    """
    if is_gymnasium_id(name):
        return GymnasiumRobot(name, **options)
    if name not in ENVS and ":" not in name:
        raise ValueError(
            f"env: found {name!r}, expected one of {sorted(ENVS)}, package.module:factory or a gymnasium id such as "
            "module:Id-v0"
        )
    module_name, _, attribute = ENVS.get(name, name).partition(":")
    found = getattr(import_module(module_name), attribute, None)
    if not callable(found):
        raise ValueError(f"env: module {module_name!r} has no {attribute!r} to make an environment with")
    constructor = cast(Callable[..., RobotEnv], found)
    return constructor(**options)
