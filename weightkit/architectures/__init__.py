"""The door for architectures: one folder each, this table, ``base.py`` the contract."""

from __future__ import annotations

from weightkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from weightkit.architectures.base import Architecture
    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint

ARCHITECTURES: dict[str, str] = {"drqv2": "weightkit.architectures.drqv2"}
"""Architecture name -> its folder: ``architecture.ARCHITECTURE`` implements it, ``recognise`` knows it at a glance."""

LAYOUTS: dict[str, str] = {"drqv2": "drqv2", "robobase-drqv2": "drqv2"}
"""Layout name -> architecture whose tensors it names."""


def architecture_named(name: str) -> Architecture:
    """The architecture called ``name``. Raises UsageError that lists those there are."""
    if name not in ARCHITECTURES:
        raise _unknown("architecture", name, ARCHITECTURES)
    implementation: Architecture = _module(name, "architecture").ARCHITECTURE
    return implementation


def architecture_of_layout(layout: str) -> Architecture:
    """The architecture whose tensors ``layout`` names. Raises UsageError that lists the layouts there are."""
    if layout not in LAYOUTS:
        raise _unknown("layout", layout, LAYOUTS)
    return architecture_named(LAYOUTS[layout])


def recognise(checkpoint: Checkpoint, settings: Mapping[str, str] | None = None) -> Recognition | None:
    """What the checkpoint's tensors are, None where no architecture knows them."""
    for name in ARCHITECTURES:
        found: Recognition | None = _module(name, "recognise").recognise(checkpoint, settings or {})
        if found is not None:
            return found
    return None


def grouping(architecture: str) -> Callable[[str], str]:
    """The function that gives the group of a tensor of ``architecture`` by its name."""
    group_of: Callable[[str], str] = _module(architecture, "recognise").group_of
    return group_of


def _module(name: str, module: str) -> Any:
    """A module of the architecture called ``name``."""
    return __import__(f"{ARCHITECTURES[name]}.{module}", fromlist=[module])


def _unknown(what: str, name: str, table: Mapping[str, str]) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(name, list(table), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"there is no {what} {name!r}", hint=f"{hint}known: {', '.join(table)}")
