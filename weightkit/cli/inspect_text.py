"""What ``weightkit inspect`` prints, drawn with what the terminal's encoding has."""

from __future__ import annotations

import sys

from weightkit.core.report import Report


def shown(report: Report, *, flat: bool = False) -> str:
    """The report as text; plain ASCII where the terminal can do no better."""
    from weightkit.reporting.inspect import inspect_text
    from weightkit.reporting.text import encodable

    encoding = getattr(sys.stdout, "encoding", None)
    drawn = "├── └── │"
    return encodable(inspect_text(report, flat=flat, ascii_only=encodable(drawn, encoding) != drawn), encoding)
