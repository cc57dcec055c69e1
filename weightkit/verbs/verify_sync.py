"""Does an actor get every tensor that its action reads?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest, with_offsets
from weightkit.core.report import Finding, Report, Severity
from weightkit.errors import UnsafeContent, UsageError
from weightkit.formats import open_checkpoint
from weightkit.verbs.sync_target import read_manifest, sync_target


def verify_sync(
    *,
    arch: str | None = None,
    policy: str | None = None,
    config_path: str | Path | None = None,
    settings: Mapping[str, str] | None = None,
    probes: str | Path | None = None,
    manifest: str | Path | None = None,
    payload: str | Path | None = None,
) -> Report:
    """What ``act()`` reads against what a manifest, or a saved push, sends: the check of the live handshake.

    ``manifest`` is a JSON file, None the architecture's default (and the report says so). ``payload`` is a saved push,
    a dict of state_dicts as LeRobot sends it: ``policy`` is the actor's, other keys are the policy's modules.
    """
    from weightkit.sync.proof import coverage_report

    if manifest is not None and payload is not None:
        raise UsageError("--manifest and --payload are two answers to what is sent: give one")
    target = sync_target(arch=arch, policy=policy, config_path=config_path, settings=settings or {}, probes=probes)
    findings: tuple[Finding, ...] = ()
    if payload is not None:
        offered, against = _from_payload(payload, target.default_manifest()), f"payload {payload}"
    elif manifest is not None:
        offered, against = read_manifest(manifest), f"manifest {manifest}"
    else:
        offered, against = target.default_manifest(), "default manifest"
        message = f"no --manifest was given: this says what {target.name}'s default sends, not what your learner does"
        hint = "give --manifest M.json of your learner, or --payload of a saved push"
        findings = (Finding("WK307", Severity.INFO, target.name, message, hint),)
    with target.acting_on(probes):
        report = coverage_report(target.policy, target.act, target.probes, offered, verb="verify-sync")
    facts = {**report.facts, "against": against, "probes": len(target.probes), "policy": target.name}
    seen = report.findings if payload is None else tuple(map(_about_a_push, report.findings))
    return Report("verify-sync", (*seen, *findings, *target.findings), facts, report.exit_code)


def _about_a_push(finding: Finding) -> Finding:
    """The finding in the words of who saved a push: there is no manifest that could be changed."""
    if finding.code != "WK301":
        return finding
    return finding.replace(
        message="read by act(), but not in the push: the actor would keep its own initial values",
        hint="push it too: every tensor that act() reads must be in the dict of state_dicts",
    )


def _from_payload(path: str | Path, own: SyncManifest) -> SyncManifest:
    """The manifest that a saved push amounts to: what is in it is sent, everything else is held."""
    from weightkit.torch_state import canonical_name

    checkpoint = open_checkpoint(Path(path))
    if checkpoint.verdict == "unsafe":
        named = next(finding for finding in checkpoint.findings if finding.code == UnsafeContent.code)
        raise UnsafeContent(named.message, hint=named.hint)
    specs = {}
    prefix = f"{checkpoint.root}." if checkpoint.root else ""
    for name, spec in checkpoint.state.tensors.items():
        module, _, rest = canonical_name(f"{prefix}{name}").partition(".")
        specs[f"actor.{rest}" if module == "policy" else f"{module}.{rest}"] = spec
    entries = [ManifestEntry(name, "sent", "parameter", spec) for name, spec in specs.items()]
    for entry in own.entries:
        if entry.name not in specs:
            entries.append(ManifestEntry(entry.name, f"{entry.group}, not in the push", entry.kind, entry.spec))
    held = sorted({entry.group for entry in entries if entry.group != "sent"})
    groups = (
        Group("sent", Transfer.SEND, f"in {path}"),
        *(Group(name, Transfer.HOLD, f"not in {path}") for name in held),
    )
    return SyncManifest(own.architecture, groups, with_offsets(groups, entries))
