"""The door for architectures: one folder each, these tables, ``base.py`` the contracts; third parties in `plugins`."""

from __future__ import annotations

from weightkit.engine.wrappers import are_plain
from weightkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from weightkit.architectures.base import Architecture, Layout
    from weightkit.architectures.recognition import Recognition
    from weightkit.core.checkpoint import Checkpoint

ARCHITECTURES: dict[str, str] = {
    "drqv2": "weightkit.architectures.drqv2",
    "sac": "weightkit.architectures.sac",
}
"""Architecture name -> its folder: ``architecture.ARCHITECTURE`` implements it, ``recognise`` knows it at a glance."""

LAYOUTS: dict[str, str] = {
    "drqv2": "drqv2",
    "robobase-drqv2": "drqv2",
    "fb-drqv2": "drqv2",
    "lerobot-drqv2": "drqv2",
    "sac": "sac",
    "lerobot-sac": "sac",
    "lerobot-gaussian-actor": "sac",
    "sb3-sac": "sac",
}
"""Layout name -> architecture whose tensors it names. A layout called like its architecture is the net's own; another
is ``layouts.<name with _>.LAYOUT`` in the architecture's folder."""


def known_architectures() -> dict[str, str]:
    """Architecture name -> its folder: ours, and those of other installed packages."""
    from weightkit.architectures.plugins import plugins

    return {**plugins().architectures, **ARCHITECTURES}


def known_layouts() -> dict[str, str]:
    """Layout name -> architecture: ours, and those of other installed packages."""
    from weightkit.architectures.plugins import plugins

    return {**plugins().layouts, **LAYOUTS}


def architecture_named(name: str) -> Architecture:
    """The architecture called ``name``. Raises UsageError that lists those there are."""
    if name not in ARCHITECTURES and name not in known_architectures():
        raise _unknown("architecture", name, known_architectures())
    implementation: Architecture = _module(name, "architecture").ARCHITECTURE
    return implementation


def architecture_of_layout(layout: str) -> Architecture:
    """The architecture whose tensors ``layout`` names. Raises UsageError that lists the layouts there are."""
    return architecture_named(architecture_name_of(layout))


def architecture_name_of(layout: str) -> str:
    """The name of the architecture whose tensors ``layout`` names. Raises UsageError that lists the layouts."""
    if layout in LAYOUTS:
        return LAYOUTS[layout]
    found = known_layouts()
    if layout not in found:
        raise _unknown("layout", layout, found)
    return found[layout]


def layout_named(name: str) -> Layout | None:
    """The layout called ``name``; None for an architecture's own. Raises UsageError that lists those there are."""
    architecture = architecture_name_of(name)
    if name == architecture:
        return None
    if name not in LAYOUTS:
        from weightkit.architectures.plugins import plugins

        layout: Layout = plugins().objects[name]
    else:
        layout = _module(architecture, f"layouts.{name.replace('-', '_')}").LAYOUT
    return layout


def recognise(checkpoint: Checkpoint, settings: Mapping[str, str] | None = None) -> Recognition | None:
    """What the checkpoint's tensors are, None where no architecture knows them.

    What wrappers put into the names is looked through where that shows another net, or one at all.
    """
    found = _recognise(checkpoint, settings or {})
    if are_plain(checkpoint.state):
        return found
    from weightkit.architectures.wrapped import said_so, without_wrappers

    bare = without_wrappers(checkpoint)
    inside = _recognise(bare, settings or {}) if bare is not None else None
    if inside is None or (found is not None and (inside.config is None or _same(found, inside))):
        return found
    return said_so(inside, checkpoint)


def _same(one: Recognition, other: Recognition) -> bool:
    """Whether both are the same net under the same layout."""
    return (one.layout, one.config) == (other.layout, other.config)


def _recognise(checkpoint: Checkpoint, settings: Mapping[str, str]) -> Recognition | None:
    """What the tensors are as they are called."""
    if "weightkit_version" in checkpoint.metadata:
        from weightkit.architectures.own import recognise_own

        own = recognise_own(checkpoint)
        if own is not None:
            return own
    for name in ARCHITECTURES:
        for layout in _module(name, "recognise").candidates(checkpoint):
            found = layout_named(layout)
            recognition = found.recognise(checkpoint, settings) if found is not None else None
            if recognition is not None:
                return recognition
    if _may_have_plugins():
        from weightkit.architectures.plugins import recognise_by_plugins

        return recognise_by_plugins(checkpoint, settings)
    return None


def is_layout(name: str) -> bool:
    """Whether a layout is called so."""
    return name in LAYOUTS or name in known_layouts()


def grouping(architecture: str) -> Callable[[str], str]:
    """The function that gives the group of a tensor of ``architecture`` by its name."""
    if architecture not in ARCHITECTURES:
        return architecture_named(architecture).group_of
    group_of: Callable[[str], str] = _module(architecture, "recognise").group_of
    return group_of


def _may_have_plugins() -> bool:
    """Whether an installed package may add to these tables: a look at file names that costs less than `importlib`."""
    import os
    import sys

    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                try:
                    with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8") as file:
                        if "[weightkit." in file.read():
                            return True
                except (OSError, ValueError):
                    continue
    return False


def _module(name: str, module: str) -> Any:
    """A module of the architecture called ``name``."""
    folder = ARCHITECTURES.get(name) or known_architectures()[name]
    return __import__(f"{folder}.{module}", fromlist=[module])


def _unknown(what: str, name: str, table: Mapping[str, str]) -> UsageError:
    from difflib import get_close_matches

    close = get_close_matches(name, list(table), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return UsageError(f"there is no {what} {name!r}", hint=f"{hint}known: {', '.join(table)}")
