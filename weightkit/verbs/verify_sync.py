"""Does an actor get every tensor that its action reads?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from weightkit.core.report import Finding, Report, Severity
from weightkit.errors import UsageError
from weightkit.verbs.pushes import read_push
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
    a dict of state_dicts as LeRobot sends it, or one state_dict; see `read_push`.
    """
    from weightkit.sync.proof import judge

    if manifest is not None and payload is not None:
        raise UsageError("--manifest and --payload are two answers to what is sent: give one")
    target = sync_target(arch=arch, policy=policy, config_path=config_path, settings=settings or {}, probes=probes)
    findings: tuple[Finding, ...] = ()
    if payload is not None:
        push = read_push(payload, target.default_manifest(), target.policy.state_dict())
        offered, against, findings = push.manifest, f"payload {payload}", push.findings
    elif manifest is not None:
        offered, against = read_manifest(manifest), f"manifest {manifest}"
    else:
        offered, against = target.default_manifest(), "default manifest"
        message = f"no --manifest was given: this says what {target.name}'s default sends, not what your learner does"
        hint = "give --manifest M.json of your learner, or --payload of a saved push"
        findings = (Finding("WK307", Severity.INFO, target.name, message, hint),)
    report = judge(target.traced, offered, verb="verify-sync")
    fleeting = {entry.name for entry in offered.entries if entry.kind == "non-persistent buffer"}
    seen = report.findings
    if payload is not None:
        seen = tuple(_about_a_push(finding, fleeting) for finding in seen)
    if not report.facts["reads"]:
        message = "it reads none of the policy's tensors, so there is nothing to prove"
        hint = "is this how the actor acts, with this policy?"
        findings = (*findings, Finding("WK318", Severity.ERROR, "act()", message, hint))
    exit_code = int(any(finding.severity is Severity.ERROR for finding in (*seen, *findings)))
    facts = {
        **report.facts,
        "against": against,
        "probes": len(target.probes),
        "policy": target.name,
        "pushed": payload is not None,
    }
    return Report("verify-sync", (*seen, *findings, *target.findings), facts, exit_code)


def _about_a_push(finding: Finding, fleeting: set[str]) -> Finding:
    """The finding in the words of who saved a push: there is no manifest that could be changed.

    ``fleeting``: names of buffers that no state_dict has.
    """
    if finding.code == "WK304":
        message = "in the push, but the policy has no such tensor: nothing of it would take effect"
        return finding.replace(severity=Severity.WARNING, message=message, hint="")
    if finding.code == "WK303":
        return finding.replace(
            message=finding.message.replace("the learner offers", "the push holds").replace("actor has", "policy has"),
            hint="build both sides from one configuration, and push what the policy computes with",
        )
    if finding.code != "WK301":
        return finding
    if finding.subject in fleeting:
        return finding.replace(
            severity=Severity.WARNING,
            message="read by act(), but it is a buffer that is not persistent: no state_dict has it",
            hint="it is right where both sides make it the same; if it ever changes, register it as a buffer",
        )
    return finding.replace(
        message="read by act(), but not in the push: the actor would keep its own initial values",
        hint="push it too: every tensor that act() reads must be in the dict of state_dicts",
    )
