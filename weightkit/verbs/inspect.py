"""What a checkpoint file holds, without executing anything in it."""

from __future__ import annotations

from pathlib import Path

from weightkit.architectures import architecture_named, recognise
from weightkit.architectures.base import Recognition
from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Report, Severity
from weightkit.errors import UnsafeContent
from weightkit.formats import open_checkpoint


def inspect(path: str | Path) -> Report:
    """Every tensor of the file, what policy it is and how sure that is. Raises FormatError for an unreadable file.

    Exit code 4 where another loader would execute something in it: the tensors are listed all the same.
    """
    checkpoint = open_checkpoint(Path(path))
    return report_on(checkpoint, recognise(checkpoint))


def report_on(checkpoint: Checkpoint, recognition: Recognition | None) -> Report:
    """The inspect Report of an opened checkpoint."""
    state = checkpoint.state
    group_of = architecture_named(recognition.architecture).group_of if recognition else _first_segment
    groups: dict[str, dict[str, int]] = {}
    tensors = []
    for name, spec in state.tensors.items():
        group = group_of(name)
        alias_of = state.aliases.get(name)
        total = groups.setdefault(group, {"tensors": 0, "aliases": 0, "parameters": 0, "nbytes": 0})
        if alias_of is None:
            total["tensors"] += 1
            total["parameters"] += spec.numel
            total["nbytes"] += spec.nbytes
        else:
            total["aliases"] += 1
        tensors.append(
            {
                "name": name,
                "dtype": spec.dtype.name,
                "shape": list(spec.shape),
                "nbytes": spec.nbytes,
                "group": group,
                "alias_of": alias_of,
            }
        )
    findings = list(checkpoint.findings)
    if recognition is None:
        findings.append(
            Finding(
                "WK107",
                Severity.INFO,
                checkpoint.path,
                "no architecture knows these tensors",
                "`weightkit layouts` lists those that are known",
            )
        )
    else:
        findings.extend(recognition.findings)
    facts: dict[str, object] = {
        "path": checkpoint.path,
        "format": checkpoint.format,
        "verdict": checkpoint.verdict,
        "root": checkpoint.root,
        "tensors": tensors,
        "groups": groups,
        "metadata": sorted(checkpoint.metadata),
        "architecture": None if recognition is None else architecture_facts(recognition),
    }
    return Report("inspect", tuple(findings), facts, UnsafeContent.exit_code if checkpoint.verdict == "unsafe" else 0)


def architecture_facts(recognition: Recognition) -> dict[str, object]:
    """What was recognised, as JSON values."""
    return {
        "name": recognition.architecture,
        "layout": recognition.layout,
        "title": recognition.title,
        "confidence": recognition.confidence,
        "evidence": list(recognition.evidence),
        "config": None if recognition.config is None else recognition.config.to_dict(),
    }


def _first_segment(name: str) -> str:
    return name.split(".", 1)[0]
