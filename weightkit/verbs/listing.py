"""What weightkit knows: layouts and formats."""

from __future__ import annotations

from weightkit.architectures import LAYOUTS, architecture_named, known_layouts, layout_named
from weightkit.architectures.plugins import broken_plugins, origin_of_layout
from weightkit.core.report import Report
from weightkit.formats import FORMATS, format_named


def list_layouts() -> Report:
    """Every layout, the architecture whose tensors it names, where it comes from and the settings it has of its own.

    Each converts to and from every other of its architecture, where the net can be expressed in both.
    """
    rows = []
    for name, architecture in known_layouts().items():
        layout = layout_named(name)
        rows.append(
            {
                "name": name,
                "architecture": architecture,
                "title": layout.title if layout is not None else architecture_named(architecture).title,
                "options": dict(layout.options) if layout is not None else {},
                "from": "weightkit" if name in LAYOUTS else origin_of_layout(name),
                "read": True,
                "written": True,
            }
        )
    return Report("layouts", tuple(broken_plugins()), {"layouts": rows})


def list_formats() -> Report:
    """Every file format, its endings, and whether it is written too."""
    rows = []
    for name in FORMATS:
        found = format_named(name)
        rows.append(
            {
                "name": name,
                "description": found.description,
                "endings": list(found.endings),
                "written": found.write is not None,
            }
        )
    return Report("formats", (), {"formats": rows})
