"""Several files of weights as one Checkpoint: each tensor once, with the file it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from weightkit.core.checkpoint import Checkpoint, NotDense
from weightkit.core.report import Finding
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats.base import Limits

if TYPE_CHECKING:
    import numpy as np

    from weightkit.core.checkpoint import Verdict

_WORSE: tuple[Verdict | None, ...] = (None, "data", "opaque", "unsafe")


class Part(NamedTuple):
    """One file of several: ``shown`` (printable) says which, ``rename`` gives its tensors their names in the whole."""

    shown: str
    checkpoint: Checkpoint
    rename: Callable[[str], str]


def below(prefix: str) -> Callable[[str], str]:
    """Names below ``prefix``, none where it is empty."""
    return (lambda name: f"{prefix}.{name}") if prefix else (lambda name: name)


def join(
    parts: Sequence[Part],
    *,
    path: str,
    shown: str,
    format: str,
    metadata: Mapping[str, object],
    limits: Limits,
    findings: Iterable[Finding] = (),
    verdict: Verdict | None = None,
    order: Iterable[str] = (),
) -> Checkpoint:
    """All tensors of ``parts``; the verdict is the worst of theirs and ``verdict``.

    Names in ``order`` come first. Raises CorruptFile where two parts give one name, LimitExceeded where together they
    have too much.
    """
    specs: dict[str, TensorSpec] = {}
    aliases: dict[str, str] = {}
    not_dense: dict[str, NotDense] = {}
    places: dict[str, tuple[Checkpoint, str]] = {}
    collected: list[Finding] = []
    told: dict[str, str] = {}
    for part in parts:
        checkpoint = part.checkpoint
        full = {name: part.rename(whole_name(checkpoint, name)) for name in checkpoint.state}
        if len(specs) + len(full) > limits.tensors:
            found = f"{len(specs) + len(full)} tensors in its files together"
            raise limits.exceeded("tensors", where=shown, found=found)
        for inner, name in full.items():
            if name in specs:
                raise CorruptFile(
                    f"{shown}: two tensors would both be called {printable(name)!r}: "
                    f"one in {told[name]}, one in {part.shown}",
                    hint="open the two files by themselves",
                )
            if len(name) > limits.path_length:
                raise limits.exceeded("path_length", where=part.shown, found=f"a name of {len(name)} characters")
            specs[name] = checkpoint.state[inner]
            places[name] = (checkpoint, inner)
            told[name] = part.shown
        aliases.update({full[alias]: full[first] for alias, first in checkpoint.state.aliases.items()})
        not_dense.update({full[inner]: found for inner, found in checkpoint.not_dense.items()})
        collected += [_attributed(finding, part, full) for finding in checkpoint.findings]
        verdict = worse(verdict, checkpoint.verdict)
    first = [name for name in order if name in specs]
    ordered = {name: specs[name] for name in dict.fromkeys([*first, *specs])}

    def read(name: str) -> np.ndarray:
        checkpoint, inner = places[name]
        return checkpoint.read(inner)

    return Checkpoint(
        path=path,
        format=format,
        root="",
        state=StateSpec(ordered, aliases),
        metadata=metadata,
        read=read,
        verdict=verdict,
        findings=(*findings, *collected),
        not_dense=not_dense,
    )


def worse(one: Verdict | None, other: Verdict | None) -> Verdict | None:
    """The worse of two verdicts."""
    return max(one, other, key=_WORSE.index)


def whole_name(checkpoint: Checkpoint, name: str) -> str:
    """The name of a tensor with the root that opening its file by itself would leave out."""
    return f"{checkpoint.root}.{name}" if checkpoint.root else name


def _attributed(finding: Finding, part: Part, names: Mapping[str, str]) -> Finding:
    """The finding of a part, with the part's name in it and a tensor's name in the whole."""
    message = finding.message if finding.message.startswith(part.shown) else f"{part.shown}: {finding.message}"
    subject = printable(names[finding.subject]) if finding.subject in names else finding.subject
    return Finding(finding.code, finding.severity, subject, message, finding.hint)
