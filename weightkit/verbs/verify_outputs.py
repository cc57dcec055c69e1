"""Do two policies do the same? Two checkpoints, or a checkpoint and what the original code was recorded to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightkit.architectures import architecture_named, recognise
from weightkit.architectures.probes import Observation
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.text import printable
from weightkit.errors import ConfigError, FormatError, UsageError
from weightkit.formats import Limits, open_checkpoint
from weightkit.verbs.configure import parse_settings
from weightkit.verbs.load_policy import policy_of
from weightkit.verbs.outputs import ATOL, Comparison, Judged, compare_policies, compare_recorded, said_by
from weightkit.verbs.sync_target import read_probes

_MOST_PROBES = 4096


def verify_outputs(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    probes: int | str | os.PathLike[str] = 2,
    atol: float = ATOL,
    set: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Report:
    """The Report on whether ``a`` and ``b`` give the same outputs: exit code 0 where they do.

    ``b`` may be an .npz of recorded outputs: ``observation.*`` with ``action`` and, if wanted, ``mean``, ``std``,
    ``discrete_q_values``, ``q_values``, ``target_q_values``. ``probes``: so many observations of each kind, or an .npz
    of observations. 1 where they differ, or where the controls show that the comparison is blind. Raises FormatError,
    ConfigError, UsageError.
    """
    if not atol > 0:
        raise UsageError(f"--atol {atol}: expected a number above 0")
    settings = parse_settings(set)
    one = _judged(a, settings, limits)
    recorded = _recorded(b)
    if recorded is not None:
        observation, outputs = recorded
        found = compare_recorded(one, printable(str(b)), observation, outputs, atol=atol)
    else:
        other = _judged(b, settings, limits)
        if isinstance(probes, int):
            if not 0 < probes <= _MOST_PROBES:
                raise UsageError(f"--probes {probes}: expected 1 to {_MOST_PROBES}, or an .npz file")
            found = compare_policies(one, other, count=probes, atol=atol)
        else:
            given = read_probes(Path(probes))
            found = _on_file(one, other, given, str(probes), atol)
    return _report(a, b, found)


def _report(a: str | os.PathLike[str], b: str | os.PathLike[str], found: Comparison) -> Report:
    findings: list[Finding] = []
    if found.verdict != "equal":
        code = "WK212" if found.verdict == "different" else "WK222"
        findings.append(Finding(code, Severity.ERROR, "outputs", found.why, _HINTS[found.verdict]))
    findings += [Finding("WK212", Severity.WARNING, "outputs", note) for note in found.notes if "not compared" in note]
    facts: dict[str, object] = {"path_a": str(a), "path_b": str(b), **found.to_dict()}
    return Report("verify-outputs", tuple(findings), facts, int(found.verdict != "equal"))


_HINTS = {
    "different": "weightkit diff A B --values shows which tensors differ",
    "blind": "is this a trained policy? give observations on which its weights matter: --probes FILE.npz",
}


def _judged(path: str | os.PathLike[str], settings: Mapping[str, str], limits: Limits | None) -> Judged:
    checkpoint: Checkpoint = open_checkpoint(path, limits or Limits())
    found = recognise(checkpoint, settings)
    if found is None or found.config is None:
        why = next((f.message for f in found.findings if f.severity is Severity.ERROR), "") if found else ""
        raise FormatError(
            f"{printable(str(path))}: {why or f'no policy is recognised in its {len(checkpoint.state)} tensors'}",
            hint="convert it first: weightkit convert SRC --to LAYOUT",
        )
    inputs = architecture_named(found.architecture).inputs(found.config)
    return Judged(printable(str(path)), policy_of(checkpoint, found, cast=True), inputs)


def _recorded(path: str | os.PathLike[str]) -> tuple[Observation, dict[str, Any]] | None:
    """The observations and the recorded outputs in an .npz file; None for a checkpoint of weights."""
    if Path(path).suffix != ".npz":
        return None
    checkpoint = open_checkpoint(path)
    if "action" not in checkpoint.state or not any(name.startswith("observation.") for name in checkpoint.state):
        return None
    arrays = {name: checkpoint.read(name) for name in checkpoint.state}
    observation = {name: array for name, array in arrays.items() if name.startswith("observation.")}
    return observation, {name: array for name, array in arrays.items() if name not in observation}


def _on_file(one: Judged, other: Judged, given: list[Observation], path: str, atol: float) -> Comparison:
    try:
        return compare_policies(one, other, atol=atol, expected=("recorded",), observations={"recorded": given})
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"{printable(path)}: the policies cannot look at these observations: {said_by(error)}",
            hint="one array per observation key, axis 0 = batch; leave --probes out for random ones",
        ) from None
