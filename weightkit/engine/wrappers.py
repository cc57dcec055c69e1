"""Segments that a wrapper of a module puts into the names below it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

ANYWHERE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Written by torch.compile, FullyShardedDataParallel and activation checkpointing: nobody else names a module so."""
IN_FRONT = "module"
"""Written by DataParallel and averaged models in front of a name; elsewhere it is a name like any other."""


def are_plain(names: Iterable[str]) -> bool:
    """Whether none of ``names`` can hold a wrapper's segment: one look at all of them."""
    everything = "\n".join(names)
    return "_mod" not in everything and f"{IN_FRONT}." not in everything


def by_plain_name(names: Iterable[str]) -> dict[str, str]:
    """Each name without what wrappers put there -> the name, where that is one name only."""
    found: dict[str, str] = {}
    several: set[str] = set()
    for name in names:
        plain = unwrapped(name)
        if found.setdefault(plain, name) != name:
            several.add(plain)
    return {plain: name for plain, name in found.items() if plain not in several}


def unwrapped(name: str) -> str:
    """``name`` without the segments that wrappers put there; the last segment is the tensor's own.

    ``_orig_mod.module.x``, ``module._orig_mod.x`` and ``module.x`` give ``x``, ``a._orig_mod.b`` gives ``a.b``.
    """
    *outer, last = name.split(".")
    kept: list[str] = []
    for segment in outer:
        if segment in ANYWHERE or (segment == IN_FRONT and not kept):
            continue
        kept.append(segment)
    return ".".join((*kept, last))
