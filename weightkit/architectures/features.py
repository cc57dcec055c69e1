"""Features of a configuration, as LeRobot writes them."""

from __future__ import annotations

from weightkit.core.section import Section
from weightkit.errors import ConfigError


def shape_of(features: Section, key: str, rank: int) -> tuple[int, ...]:
    """The shape of a feature, written as an object with a shape or as the bare list. Raises ConfigError."""
    raw = features.raw(key)
    if isinstance(raw, list):
        shape, where = features.sizes(key), features.where(key)
    else:
        feature = features.section(key)
        shape, where = feature.sizes("shape"), feature.where("shape")
        feature.raw("type")
    if len(shape) != rank:
        wanted = "[channels, height, width]" if rank == 3 else "[size]"
        raise ConfigError(f"{where}: expected {wanted}, found {list(shape)}")
    return shape
