"""A saved push of anybody's learner: which of a policy's tensors it holds, whatever its keys are called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest, with_offsets
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import TensorSpec
from weightkit.core.text import printable
from weightkit.errors import FormatError, UnsafeContent
from weightkit.formats import open_checkpoint

_WHOLE = ("policy", "model", "state_dict", "module", "params", "weights", "agent")
_ALSO_CALLED = {"policy": ("actor", ""), "model": ("",), "state_dict": ("",)}
"""What learners mean by a key that the policy has no module of: LeRobot calls the actor's state the policy."""
_UNKNOWN = "of no module"
Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class Push:
    """What a push amounts to: a manifest in which it is sent and all else held; ``findings`` about how it was read."""

    manifest: SyncManifest
    findings: tuple[Finding, ...]


def read_push(path: str | Path, own: SyncManifest, loaded: Iterable[str]) -> Push:
    """The push in a file, a dict of state_dicts or one state_dict, as a manifest over ``own``'s tensors.

    A tensor is sent under whichever of its names it was saved. ``loaded``: the names in the policy's ``state_dict()``.
    Raises FormatError, UnsafeContent.
    """
    from weightkit.torch_state import canonical_name

    checkpoint = open_checkpoint(Path(path))
    if checkpoint.verdict == "unsafe":
        named = next(finding for finding in checkpoint.findings if finding.code == UnsafeContent.code)
        raise UnsafeContent(named.message, hint=named.hint)
    if not checkpoint.state.tensors:
        raise FormatError(
            f"{printable(str(path))}: there is no tensor in it",
            hint="save the push with torch.save, its numpy arrays as tensors: {name: torch.as_tensor(array)}",
        )
    prefix = f"{checkpoint.root}." if checkpoint.root else ""
    saved = {f"{prefix}{name}": spec for name, spec in checkpoint.state.tensors.items()}
    places = _Places({entry.name: entry.spec for entry in own.entries}, canonical_name)
    found = places.of(saved)
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
    manifest = SyncManifest(own.architecture, tuple(groups), with_offsets(groups, entries), kept)
    return Push(manifest, (*places.findings, *_wrapped(places.spelled, first, set(loaded))))


def _wrapped(spelled: Mapping[str, str], own: Collection[str], loaded: set[str]) -> tuple[Finding, ...]:
    """Where only one of push and policy has what torch.compile or DataParallel put into names."""
    unlike = sorted(written for name, written in spelled.items() if name in own and written not in loaded)
    if not unlike:
        return ()
    message = (
        f"{len(unlike)} names of the push are not those of state_dict(), but for what torch.compile or DataParallel "
        f"puts there: {printable(unlike[0])}; load_state_dict would refuse them, and with strict=False load nothing"
    )
    hint = "does the actor strip these segments, or wrap its policy too?"
    return (Finding("WK317", Severity.WARNING, "the push", message, hint),)


class _Places:
    """Which of a push's tensors are which of the policy's. ``spelled``: the policy's name -> as the push has it."""

    def __init__(self, own: Specs, plain: Callable[[str], str]) -> None:
        self._own, self._plain = own, plain
        self._modules = _modules(own)
        self.findings: tuple[Finding, ...] = ()
        self.spelled: dict[str, str] = {}

    def of(self, saved: Specs) -> dict[str, TensorSpec]:
        """The saved tensors under the policy's names."""
        if self._known("", saved) == len(saved):
            return self._at("", saved)
        parts = _by_key(saved)
        if len(parts) == 1 and "" not in next(iter(parts.values())):
            ((key, part),) = parts.items()
            if key in _WHOLE and not any(self._known(place, part) for place in (key, *_ALSO_CALLED.get(key, ()))):
                return self.of(part)  # a dict around it all
        holding = [module for module in self._modules if self._known(module, saved) == len(saved)]
        if len(holding) == 1:
            self._say("the push", holding[0], Severity.INFO)
            return self._at(holding[0], saved)
        found: dict[str, TensorSpec] = {}
        for key, part in parts.items():
            if "" in part:  # a tensor of the top level, or one that no module holds
                found |= self._at("", {key: part.pop("")})
            if part:
                found |= self._at(self._place(key, part), part)
        return found

    def _place(self, key: str, part: Specs) -> str:
        """The module whose tensors ``part`` holds: that of the key's name, or one that the key also stands for."""
        candidates = (key, *_ALSO_CALLED.get(key, ()))
        best = max(candidates, key=lambda module: (self._known(module, part), self._equal(module, part)))
        if best != key:
            self._say(key, best, Severity.INFO)
        elif not self._known(key, part):
            fits = [module for module in self._modules if self._known(module, part) == len(part)]
            if len(fits) == 1:
                self._say(key, fits[0], Severity.WARNING)
        return best

    def _say(self, key: str, module: str, severity: Severity) -> None:
        what = f"module {module!r}" if module else "the whole policy"
        if severity is Severity.INFO:
            message, hint = f"its tensors are those of {what}, by names and shapes", ""
        else:
            message = f"its tensors would be those of {what}, but nothing says that the actor loads them there"
            hint = f"call the key {module!r} if it does"
        self.findings += (Finding("WK317", severity, printable(key), message, hint),)

    def _named(self, module: str, name: str) -> str:
        """The policy's name of ``name`` in ``module``: as it is, or without what wrappers put there."""
        for inner in (name, self._plain(name)):
            whole = self._plain(f"{module}.{inner}" if module else inner)
            if whole in self._own:
                return whole
        return self._plain(f"{module}.{name}" if module else name)

    def _known(self, module: str, part: Specs) -> int:
        return sum(self._named(module, name) in self._own for name in part)

    def _equal(self, module: str, part: Specs) -> int:
        return sum(self._own.get(self._named(module, name)) == spec for name, spec in part.items())

    def _at(self, module: str, part: Specs) -> dict[str, TensorSpec]:
        for name in part:
            self.spelled[self._named(module, name)] = f"{module}.{name}" if module else name
        return {self._named(module, name): spec for name, spec in part.items()}


def _by_key(saved: Specs) -> dict[str, dict[str, TensorSpec]]:
    parts: dict[str, dict[str, TensorSpec]] = {}
    for name, spec in saved.items():
        key, _, rest = name.partition(".")
        parts.setdefault(key, {})[rest] = spec
    return parts


def _modules(own: Specs) -> list[str]:
    """Every path of a module in ``own``'s names, outer ones first."""
    paths = {".".join(parts[:depth]) for name in own for parts in [name.split(".")] for depth in range(1, len(parts))}
    return sorted(paths, key=lambda path: (path.count("."), path))
