"""The proof, before anything runs, that a manifest covers what ``act()`` reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn
from torch.optim import Optimizer

from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import StateSpec
from weightkit.engine.coverage import check_coverage
from weightkit.errors import NeedsNotMet, UncoveredRead
from weightkit.sync.inventory import state_of
from weightkit.sync.memory import Spans
from weightkit.sync.read_set import Act, Hidden, Probes, Trace, trace

Optimizers = Iterable[Optimizer] | Optimizer


def prove_coverage(
    policy: nn.Module,
    act: Act,
    probes: Probes,
    manifest: SyncManifest,
    *,
    optimizers: Optimizers = (),
) -> Report:
    """The report of a manifest that holds for ``policy``: all that ``act()`` reads is sent, pinned or waived.

    ``optimizers``: all of the learner's: what they hold changes, so where it is read it must be sent.

    Raises UncoveredRead naming the tensors that nobody sends, NeedsNotMet where the manifest does not fit the policy
    for another reason (another shape, a tensor that ``act()`` writes, one that is in no group or in an optimizer).
    """
    report = judge(trace(policy, act, probes), manifest, optimizers=optimizers)
    raise_for(report)
    return report


def raise_for(report: Report) -> None:
    """Raise what a failed coverage report stands for: UncoveredRead before all else, then NeedsNotMet."""
    errors = report.errors()
    unsent = [finding for finding in errors if finding.code in ("WK301", "WK311")]
    if unsent:
        aliases = report.facts.get("aliases")
        names = [finding.subject for finding in unsent]
        raise UncoveredRead(
            names,
            aliases=aliases if isinstance(aliases, dict) else {},
            hint="\n      ".join(sorted({finding.hint for finding in unsent})[:4]),
        )
    if errors:
        listed = "\n".join(f"  {f.code} {f.subject}: {f.message}" for f in errors)
        raise NeedsNotMet(f"the manifest does not fit the policy:\n{listed}", report=report, hint=errors[0].hint)


def judge(
    traced: Trace,
    manifest: SyncManifest,
    *,
    verb: str = "prove-coverage",
    optimizers: Optimizers = (),
) -> Report:
    """The coverage report of a trace that was made already."""
    needs = state_of(traced.items)
    findings = (
        *acting_findings(traced, manifest),
        *_in_no_group(needs, traced.reads, manifest),
        *_trained(traced, manifest, (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers)),
        *_not_read(needs, traced.reads),
    )
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    facts = {
        "architecture": manifest.architecture,
        "manifest_id": manifest.manifest_id,
        "payload_bytes": manifest.payload_bytes,
        "groups": group_table(traced.reads, manifest),
        "reads": sorted(traced.reads),
        "aliases": dict(needs.aliases),
    }
    return Report(verb, findings, facts, exit_code=1 if failed else 0)


def acting_findings(traced: Trace, manifest: SyncManifest) -> tuple[Finding, ...]:
    """What stands between acting as it was traced and ``manifest``, on the learner as on an actor."""
    return (
        *check_coverage(traced.reads, state_of(traced.items), manifest),
        *_hidden(traced.hidden),
        *_written(traced.writes, traced.reads, manifest),
        *_waived(traced.reads, manifest),
        *_not_seen(traced),
    )


def group_table(reads: Collection[str], manifest: SyncManifest) -> list[dict[str, object]]:
    """One row a group: its tensors, how many of them ``act()`` reads, how many are offered, transfer, bytes sent.

    A tensor counts once, whatever number of names it has.
    """
    rows: list[dict[str, object]] = []
    for group in manifest.groups:
        entries = [entry for entry in manifest.entries if entry.group == group.name and entry.alias_of is None]
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
        if manifest.waiver_of(name) is not None:
            continue
        entry = manifest.by_name.get(name)
        synced = entry is not None and manifest.transfer_of(entry.group) is not Transfer.HOLD
        findings.append(
            Finding(
                "WK306",
                Severity.ERROR if synced or name in reads else Severity.WARNING,
                name,
                "act() writes it" + (", so the actor's copy would drift from what was verified" if synced else ""),
                "put the policy into eval mode before acting (BatchNorm in train mode updates its statistics); "
                "what is each actor's own state can be held and waived",
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


def _trained(traced: Trace, manifest: SyncManifest, optimizers: tuple[Optimizer, ...]) -> list[Finding]:
    """What is read and does not travel although training changes it; what travels and no optimizer changes."""
    spans = Spans((item.name, item.tensor) for item in traced.items)
    held = (tensor for optimizer in optimizers for group in optimizer.param_groups for tensor in group["params"])
    optimized_names = {name for tensor in held for name in spans.sharing(tensor)}
    findings = []
    for item in traced.items:
        entry = manifest.by_name.get(item.name)
        if entry is None or item.name not in traced.reads:
            continue
        optimized = item.name in optimized_names
        transfer = manifest.transfer_of(entry.group)
        trainable = not entry.frozen and item.alias_of is None
        if transfer is Transfer.SEND:
            if optimizers and trainable and not optimized:
                message = "sent and trainable, but none of the learner's optimizers holds it: it never changes"
                hint = "was the optimizer built over another copy of the policy?"
                findings.append(Finding("WK313", Severity.WARNING, item.name, message, hint))
        elif optimized or (transfer is Transfer.PIN and not entry.frozen):
            why = "an optimizer of the learner holds it" if optimized else "requires_grad is True"
            does = "pinned" if transfer is Transfer.PIN else "held"
            message = f"read by act() and {does} in group {entry.group!r}, but {why}: training may change it"
            hint = "send it, or freeze it (requires_grad_(False)) and take it out of the optimizer"
            findings.append(Finding("WK309", Severity.ERROR, item.name, message, hint))
    return findings


def _hidden(hidden: Collection[Hidden]) -> list[Finding]:
    findings = []
    for found in hidden:
        subject = found.where or f"a tensor {found.what}"
        what = f"read by act() as {found.what}, but the policy does not hold it, so it cannot be sent"
        if found.carried:
            what = (
                f"kept by act() as {found.what} from one call to the next: after a push it still holds what was before"
            )
        if found.trainable and not found.carried:
            hint = "make the net that it belongs to a module of the policy"
        else:
            hint = "a constant of the program is harmless; anything that is trained must be a tensor of the policy"
        severity = Severity.ERROR if found.trainable and not found.carried else Severity.WARNING
        findings.append(Finding("WK311", severity, subject, what, hint))
    return findings


def _waived(reads: Collection[str], manifest: SyncManifest) -> list[Finding]:
    found = [(name, manifest.waiver_of(name)) for name in sorted(reads)]
    return [
        Finding("WK310", Severity.INFO, name, f"read by act() and sent by nobody, which is waived: {waiver.why}")
        for name, waiver in found
        if waiver is not None
    ]


def _not_seen(traced: Trace) -> list[Finding]:
    """What the trace says of itself: that it may have missed something."""
    found = []
    if traced.stale:
        message = "it handed out an action that it had made before it was watched, out of a queue: its net did not run"
        found.append(Finding("WK318", Severity.ERROR, "act()", message, "hand the policy over as after a reset"))
    if traced.packed:
        message = "it reads weights that are packed into objects and are no tensors, so nobody can send them"
        hint = "this is a quantised module: synchronise the policy before it is quantised"
        found.append(Finding("WK311", Severity.ERROR, "act()", message, hint))
    if not traced.repeats:
        message = (
            "on the same probes, with everything put back, act() gives other actions: "
            "what it reads outside torch (numpy, other threads) cannot be told"
        )
        hint = "give act() without what differs from call to call: time, state in objects that nobody can put back"
        found.append(Finding("WK312", Severity.WARNING, "act()", message, hint))
    return found
