"""What weightkit knows: layouts and formats."""

from __future__ import annotations

from weightkit.architectures import LAYOUTS
from weightkit.core.report import Report
from weightkit.formats import FORMATS, format_named


def list_layouts() -> Report:
    """Every layout, the architecture whose tensors it names, and what convert can do with it."""
    rows = [
        {"name": name, "architecture": architecture, "read": True, "written": name == architecture}
        for name, architecture in LAYOUTS.items()
    ]
    return Report("layouts", (), {"layouts": rows})


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
