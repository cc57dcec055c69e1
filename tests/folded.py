"""Folded names read back: ``encoder.{0,2}.{bias, weight}`` stands for four names."""

from __future__ import annotations

from itertools import product


def expand(folded: str) -> list[str]:
    """Every name that a folded text stands for."""
    parts = []
    for segment in folded.split("."):
        if segment.startswith("{"):
            parts.append(segment[1:-1].replace(", ", ",").split(","))
        else:
            parts.append([segment])
    return [".".join(names) for names in product(*parts)]
