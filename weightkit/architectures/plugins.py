"""Architectures, layouts and mappings of other installed packages, by their entry points.

    [project.entry-points."weightkit.architectures"]
    mynet = "mypkg.mynet"                 # a package like weightkit.architectures.drqv2, without recognise.py
    [project.entry-points."weightkit.layouts"]
    their-drqv2 = "mypkg.layout:LAYOUT"   # meets base.Layout, and says its ``architecture``
    [project.entry-points."weightkit.mappings"]
    their-names = "mypkg.mapping:PATH"    # the path of a TOML mapping, for --map their-names

What is built in cannot be replaced. A plugin that does not load is a finding with the name of its distribution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from weightkit.architectures import ARCHITECTURES, LAYOUTS
from weightkit.architectures.recognition import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import UsageError

_METHODS = ("conventions", "recognise", "mapping", "fitted", "extras", "folder")
GROUPS = ("weightkit.architectures", "weightkit.layouts", "weightkit.mappings")


@dataclass(slots=True)
class Plugins:
    """What other packages add. ``origins``: name -> distribution."""

    architectures: dict[str, str] = field(default_factory=dict)
    layouts: dict[str, str] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)
    mappings: dict[str, Path] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@lru_cache(maxsize=1)
def plugins() -> Plugins:
    """What the installed packages add to weightkit. Imports the modules of their layouts."""
    found = Plugins()
    for group in GROUPS:
        for point in sorted(entry_points(group=group), key=lambda point: point.name):
            try:
                _add(found, group, point)
            except (Exception, SystemExit) as error:  # whatever another package does at import
                found.findings.append(_broken(point, f"{type(error).__name__}: {error}"))
    return found


def broken_plugins() -> list[Finding]:
    """A warning for each plugin that does not load, with the name of its distribution."""
    return list(plugins().findings)


def origin_of_layout(name: str) -> str:
    """The distribution that a plugin's layout comes from."""
    return plugins().origins.get(name, "")


def recognise_by_plugins(checkpoint: Checkpoint, settings: Mapping[str, str]) -> Recognition | None:
    """What a plugin's layout says that the checkpoint is, None where none knows it.

    A recogniser that fails is passed over, and `weightkit layouts` says so: inspecting a file must not fail by it.
    """
    found = plugins()
    for name, layout in found.objects.items():
        try:
            recognition = layout.recognise(checkpoint, settings)
            if recognition is None:
                continue
            if not isinstance(recognition, Recognition):
                raise TypeError(f"it gives a {type(recognition).__name__}, not a Recognition")
            if (recognition.architecture, recognition.layout) != (layout.architecture, name):
                raise ValueError(f"it says {recognition.layout!r} of {recognition.architecture!r}")
            return recognition
        except (Exception, SystemExit) as error:
            if settings and isinstance(error, UsageError):
                raise
            message = f"its recogniser failed: {type(error).__name__}: {error}"
            found.findings.append(Finding("WK117", Severity.WARNING, name, printable(message)))
    return None


def mapping_named(name: str) -> Path | None:
    """The mapping that a plugin calls ``name``, None where there is none."""
    return plugins().mappings.get(name)


def _add(found: Plugins, group: str, point: EntryPoint) -> None:
    name, origin = point.name, point.dist.name if point.dist is not None else "?"
    taken = name in ARCHITECTURES or name in LAYOUTS
    if taken and group != "weightkit.mappings":
        found.findings.append(_broken(point, f"{name!r} is built in and cannot be replaced"))
        return
    if group == "weightkit.architectures":
        if import_module(f"{point.value}.architecture").ARCHITECTURE.name != name:
            found.findings.append(_broken(point, f"it gives no architecture called {name!r}"))
            return
        found.architectures[name] = point.value
        found.layouts[name] = name
    elif group == "weightkit.layouts":
        layout = point.load()
        whole = all(isinstance(getattr(layout, key, None), str) for key in ("name", "architecture", "title"))
        whole = whole and layout.name == name and isinstance(getattr(layout, "options", None), Mapping)
        if not whole or not all(callable(getattr(layout, key, None)) for key in _METHODS):
            found.findings.append(_broken(point, f"it gives no whole layout called {name!r}"))
            return
        if layout.architecture not in {**found.architectures, **ARCHITECTURES}:
            found.findings.append(_broken(point, f"its architecture {layout.architecture!r} is not known"))
            return
        found.layouts[name], found.objects[name] = layout.architecture, layout
    else:
        found.mappings[name] = Path(point.load())
    found.origins[name] = origin


def _broken(point: EntryPoint, why: str) -> Finding:
    origin = point.dist.name if point.dist is not None else "an unnamed distribution"
    message = f"the plugin {point.name!r} of {origin} ({point.value}) is not used: {printable(why)}"
    return Finding("WK117", Severity.WARNING, origin, message, f"update or remove {origin}")
