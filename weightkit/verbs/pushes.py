"""A saved push of anybody's learner: which of a policy's tensors it holds, whatever its keys are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest, with_offsets
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import TensorSpec
from weightkit.core.text import printable
from weightkit.errors import UnsafeContent
from weightkit.formats import open_checkpoint

_ALSO_CALLED = {"policy": ("actor", ""), "model": ("",), "state_dict": ("",)}
"""What learners mean by a key that the policy has no module of: LeRobot calls the actor's state the policy."""
_UNKNOWN = "of no module"
Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Push:
    """What a push amounts to: a manifest in which it is sent and all else held.

    ``places``: a key of the push -> the module whose tensors it was taken for, "" for the whole on either side.
    """

    manifest: SyncManifest
    places: Mapping[str, str]

    def findings(self) -> tuple[Finding, ...]:
        """Where keys of the push were not taken for modules of their own name."""
        return tuple(
            Finding(
                "WK317",
                Severity.INFO,
                printable(key or "the push"),
                f"its tensors are those of {f'module {place!r}' if place else 'the whole policy'}, by names and shapes",
            )
            for key, place in self.places.items()
            if key != place
        )


def read_push(path: str | Path, own: SyncManifest) -> Push:
    """The push in a file, a dict of state_dicts or one state_dict, as a manifest over ``own``'s tensors.

    A tensor is sent under whichever of its names it was saved. Raises FormatError, UnsafeContent.
    """
    from weightkit.torch_state import canonical_name

    checkpoint = open_checkpoint(Path(path))
    if checkpoint.verdict == "unsafe":
        named = next(finding for finding in checkpoint.findings if finding.code == UnsafeContent.code)
        raise UnsafeContent(named.message, hint=named.hint)
    prefix = f"{checkpoint.root}." if checkpoint.root else ""
    saved = {canonical_name(f"{prefix}{name}"): spec for name, spec in checkpoint.state.tensors.items()}
    found, places = _placed(saved, {entry.name: entry.spec for entry in own.entries})
    first = {entry.name: entry.alias_of or entry.name for entry in own.entries}
    sent = {first.get(name, name): spec for name, spec in found.items()}
    entries = []
    for entry in own.entries:
        spec = sent.get(first[entry.name])
        group = f"{entry.group}, not pushed" if spec is None else entry.group
        entries.append(replace(entry, group=group, spec=found.get(entry.name, spec or entry.spec), offset=None))
    entries += [ManifestEntry(name, _UNKNOWN, "parameter", spec) for name, spec in found.items() if name not in first]
    groups = []
    for name in dict.fromkeys(entry.group for entry in entries):
        held = name.endswith(", not pushed")
        groups.append(Group(name, Transfer.HOLD if held else Transfer.SEND, f"{'not ' if held else ''}in {path}"))
    kept = tuple(waiver for waiver in own.waivers if not any(waiver.covers(name) for name in found))
    return Push(SyncManifest(own.architecture, tuple(groups), with_offsets(groups, entries), kept), places)


def _placed(saved: Specs, own: Specs) -> tuple[dict[str, TensorSpec], dict[str, str]]:
    """The saved tensors under the policy's names, and which of the push's keys stand for which module."""
    if all(name in own for name in saved):
        return dict(saved), {}
    modules = _modules(own)
    holding = [module for module in modules if all(f"{module}.{name}" in own for name in saved)]
    if len(holding) == 1:
        return _below(holding[0], saved), {"": holding[0]}
    found: dict[str, TensorSpec] = {}
    places: dict[str, str] = {}
    for key, part in _by_key(saved).items():
        if "" in part:  # a tensor of the top level, or one that no module holds
            found[key] = part.pop("")
        if part:
            places[key] = _place(key, part, own, modules)
            found |= _below(places[key], part)
    return found, places


def _place(key: str, part: Specs, own: Specs, modules: Iterable[str]) -> str:
    """The module whose tensors ``part`` holds: that of the key's name, one it is also called, the only one it fits."""

    def fits(module: str) -> tuple[int, int]:
        names = _below(module, part)
        return sum(name in own for name in names), sum(own.get(name) == spec for name, spec in names.items())

    best = max((key, *_ALSO_CALLED.get(key, ())), key=fits)
    if fits(best)[0] < len(part):
        holding = [module for module in modules if fits(module) == (len(part), len(part))]
        if len(holding) == 1:
            return holding[0]
    return best


def _by_key(saved: Specs) -> dict[str, dict[str, TensorSpec]]:
    parts: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in saved.items():
        key, _, rest = name.partition(".")
        parts.setdefault(key, {})[rest] = spec
    return parts


def _below(module: str, part: Specs) -> dict[str, TensorSpec]:
    return {f"{module}.{name}" if module else name: spec for name, spec in part.items()}


def _modules(own: Specs) -> list[str]:
    """Every path of a module in ``own``'s names, outer ones first."""
    paths = {".".join(parts[:depth]) for name in own for parts in [name.split(".")] for depth in range(1, len(parts))}
    return sorted(paths, key=lambda path: (path.count("."), path))
