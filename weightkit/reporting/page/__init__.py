"""A conversion as one self-contained HTML page."""

from weightkit.reporting.page.document import convert_page

__all__ = ["convert_page"]
