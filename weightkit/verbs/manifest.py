"""A sync manifest for a policy, written to a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from weightkit.atomic_file import write_atomically
from weightkit.core.report import Report, Severity
from weightkit.verbs.sync_target import sync_target


def write_manifest(
    out: str | Path,
    *,
    arch: str | None = None,
    policy: str | None = None,
    config_path: str | Path | None = None,
    settings: Mapping[str, str] | None = None,
    force: bool = False,
) -> Report:
    """Write the default manifest of an architecture or of a user's policy, proven to cover what ``act()`` reads."""
    from weightkit.sync.proof import judge

    target = sync_target(arch=arch, policy=policy, config_path=config_path, settings=settings or {})
    manifest = target.default_manifest(waive=True)
    report = judge(target.traced, manifest, verb="manifest")
    # what is waived here nobody has looked at yet
    findings = (f.replace(severity=Severity.WARNING) if f.code == "WK310" else f for f in report.findings)

    def write(file: BinaryIO) -> None:
        file.write(json.dumps(manifest.to_dict(), indent=1).encode() + b"\n")

    if report.ok:
        write_atomically(Path(out), write, force=force)
    facts = {**report.facts, "out": str(out) if report.ok else None}
    return Report("manifest", (*findings, *target.findings), facts, report.exit_code)
