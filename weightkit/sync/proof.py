"""The proof, before anything runs, that a manifest covers what ``act()`` reads."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import StateSpec
from weightkit.engine.coverage import check_coverage
from weightkit.errors import NeedsNotMet, UncoveredRead
from weightkit.sync.inventory import state_of
from weightkit.sync.read_set import Act, Probes, Trace, trace


def prove_coverage(policy: nn.Module, act: Act, probes: Probes, manifest: SyncManifest) -> Report:
    """The report of a manifest that holds for ``policy``: every tensor that ``act()`` reads is sent or pinned.

    Raises UncoveredRead naming the tensors that nobody sends, NeedsNotMet where the manifest does not fit the policy
    for another reason (another shape, a tensor that ``act()`` writes, one that is in no group).
    """
    report = coverage_report(policy, act, probes, manifest)
    raise_for(report)
    return report


def raise_for(report: Report) -> None:
    """Raise what a failed coverage report stands for: UncoveredRead before all else, then NeedsNotMet."""
    errors = report.errors()
    unsent = [finding for finding in errors if finding.code == "WK301"]
    if unsent:
        raise UncoveredRead(
            [finding.subject for finding in unsent],
            hint="\n      ".join(sorted({finding.hint for finding in unsent})[:4]),
        )
    if errors:
        listed = "\n".join(f"  {f.code} {f.subject}: {f.message}" for f in errors)
        raise NeedsNotMet(f"the manifest does not fit the policy:\n{listed}", report=report, hint=errors[0].hint)


def coverage_report(
    policy: nn.Module, act: Act, probes: Probes, manifest: SyncManifest, *, verb: str = "prove-coverage"
) -> Report:
    """What ``act()`` reads against what ``manifest`` sends, by group. Does not raise for what it finds."""
    return judge(trace(policy, act, probes), manifest, verb=verb)


def judge(traced: Trace, manifest: SyncManifest, *, verb: str = "prove-coverage") -> Report:
    """The coverage report of a trace that was made already."""
    needs = state_of(traced.items)
    findings = (
        *check_coverage(traced.reads, needs, manifest),
        *_written(traced.writes, traced.reads, manifest),
        *_in_no_group(needs, traced.reads, manifest),
        *_not_read(needs, traced.reads),
        *_pinned_but_trainable(traced.reads, manifest),
    )
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    facts = {
        "architecture": manifest.architecture,
        "manifest_id": manifest.manifest_id,
        "payload_bytes": manifest.payload_bytes,
        "groups": group_table(traced.reads, manifest),
        "reads": sorted(traced.reads),
    }
    return Report(verb, findings, facts, exit_code=1 if failed else 0)


def group_table(reads: Collection[str], manifest: SyncManifest) -> list[dict[str, object]]:
    """One row a group: its tensors, how many of them ``act()`` reads, how many are offered, transfer, bytes sent."""
    rows: list[dict[str, object]] = []
    for group in manifest.groups:
        entries = [entry for entry in manifest.entries if entry.group == group.name]
        rows.append(
            {
                "name": group.name,
                "transfer": group.transfer.value,
                "tensors": len(entries),
                "read": sum(entry.name in reads for entry in entries),
                "offered": 0 if group.transfer is Transfer.HOLD else len(entries),
                "bytes": sum(entry.spec.nbytes for entry in entries if entry.offset is not None),
            }
        )
    missing = sum(name not in manifest.by_name for name in reads)
    if missing:
        rows.append({"name": "", "transfer": "", "tensors": missing, "read": missing, "offered": 0, "bytes": 0})
    return rows


def _written(writes: Collection[str], reads: Collection[str], manifest: SyncManifest) -> list[Finding]:
    findings = []
    for name in sorted(writes):
        entry = manifest.by_name.get(name)
        synced = entry is not None and manifest.transfer_of(entry.group) is not Transfer.HOLD
        findings.append(
            Finding(
                "WK306",
                Severity.ERROR if synced or name in reads else Severity.WARNING,
                name,
                "act() writes it" + (", so the actor's copy would drift from what was verified" if synced else ""),
                "put the policy into eval mode before acting (BatchNorm in train mode updates its statistics)",
            )
        )
    return findings


def _in_no_group(needs: StateSpec, reads: Collection[str], manifest: SyncManifest) -> list[Finding]:
    return [
        Finding(
            "WK305",
            Severity.ERROR,
            name,
            f"the policy holds {needs[name]}, but it is in no group of the manifest",
            "make the manifest anew from this policy",
        )
        for name in needs
        if name not in manifest.by_name and name not in reads
    ]


def _not_read(needs: StateSpec, reads: Collection[str]) -> list[Finding]:
    touched = {name.rpartition(".")[0] for name in reads}
    return [
        Finding(
            "WK302",
            Severity.WARNING,
            name,
            f"not read on the probes, though act() reads others of {name.rpartition('.')[0] or 'the policy'!r}",
            "if some observation makes act() read it, add that observation to the probes",
        )
        for name in needs
        if name not in reads and name.rpartition(".")[0] in touched
    ]


def _pinned_but_trainable(reads: Collection[str], manifest: SyncManifest) -> list[Finding]:
    return [
        Finding(
            "WK309",
            Severity.ERROR,
            entry.name,
            f"read by act() and pinned in group {entry.group!r}, but requires_grad is True: training may change it",
            "freeze it (requires_grad_(False)) or send it",
        )
        for entry in manifest.entries
        if entry.name in reads and not entry.frozen and manifest.transfer_of(entry.group) is Transfer.PIN
    ]
