"""The corpus: every case of every module, each under a name of its own."""

from __future__ import annotations

from functools import cache

from corpus import (
    differentials,
    good,
    live_attacks,
    live_files,
    live_gadgets,
    live_libraries,
    live_opcodes,
    npz_cases,
    pickle_hostile,
    places,
    safetensors_cases,
    tensors,
    truncated,
    zips,
)
from corpus.case import Case, can_run

SOURCES = (
    live_opcodes, live_gadgets, live_libraries, live_files, live_attacks, differentials, zips, pickle_hostile, tensors,
    safetensors_cases, npz_cases, truncated, good, places,
)  # fmt: skip


@cache
def corpus() -> tuple[Case, ...]:
    """All cases that mean something on this interpreter, in a fixed order."""
    found: dict[str, Case] = {}
    for source in SOURCES:
        for case in source.cases():
            assert case.name not in found, case.name
            found[case.name] = case
    return tuple(case for case in found.values() if can_run(case.needs))


def of_kind(*kinds: str) -> list[Case]:
    """The cases of these kinds."""
    return [case for case in corpus() if case.kind in kinds]
