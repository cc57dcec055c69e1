"""Needs meet offers: both sides judge, by the same function, before a single byte of weights moves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor

from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Report, Severity
from weightkit.digest import tensor_digest
from weightkit.engine.coverage import check_coverage
from weightkit.errors import NeedsNotMet, PinMismatch, TransportError
from weightkit.sync.memory import has_bytes
from weightkit.sync.proof import acting_findings, group_table
from weightkit.sync.read_set import Trace
from weightkit.torch_state import spec_of
from weightkit.transports.base import PROTOCOL, Hello, Reject, Welcome


def live_digest(tensor: Tensor) -> str:
    """The digest of a tensor as it lies in a policy, on whatever device."""
    spec = spec_of(tensor)
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    content = flat.view(torch.uint8).numpy().data if spec.nbytes else b""
    return tensor_digest(content, dtype=spec.dtype.name, shape=spec.shape)


def pin_digests(tensors: Mapping[str, Tensor], manifest: SyncManifest) -> dict[str, str]:
    """Digests of the tensors that never travel and must be equal already."""
    return {name: live_digest(tensors[name]) for name in manifest.names(Transfer.PIN)}


def answer(hello: Hello, offer: Welcome) -> Welcome | Reject:
    """The learner's answer to an actor: its offer, or a refusal that names every tensor in the way."""
    if hello.protocol != PROTOCOL:
        return Reject(PROTOCOL, _skew(PROTOCOL, hello.protocol), Report("handshake", exit_code=1))
    manifest = offer.manifest
    report = _judged(hello.reads, manifest, check_coverage(hello.reads, hello.state, manifest))
    if not report.ok:
        return Reject(PROTOCOL, f"actor {hello.actor_id!r} needs what this learner does not send", report)
    return offer


def accept(reply: Welcome | Reject, *, traced: Trace, address: str) -> Welcome:
    """The offer in the learner's reply, judged again on what the actor itself has seen: it is not taken at its word.

    Raises NeedsNotMet, whose report names every tensor; TransportError naming both protocol numbers where they differ.
    """
    if reply.protocol != PROTOCOL:
        raise TransportError(f"{address}: {_skew(reply.protocol, PROTOCOL)}", hint="install one version on both sides")
    if isinstance(reply, Reject):
        raise _not_met(f"the learner at {address} refused: {reply.message}", reply.report)
    report = _judged(traced.reads, reply.manifest, acting_findings(traced, reply.manifest))
    if not report.ok:
        raise _not_met(f"the learner at {address} does not send what act() reads", report)
    return reply


def check_pins(welcome: Welcome, own: Mapping[str, Tensor]) -> None:
    """Raises PinMismatch naming every pinned tensor whose bytes are not the learner's."""
    names = [name for name in welcome.manifest.names(Transfer.PIN) if name in own]
    gone = [name for name in names if own[name].numel() and not has_bytes(own[name])]
    differing = [n for n in names if n in gone or welcome.pins.get(n) != live_digest(own[n])]
    if differing:
        raise PinMismatch(
            f"pinned, never sent, and not the same on the two sides: {', '.join(differing)}",
            hint="the learner before did not pin them, so they were taken away: start the actor again"
            if gone
            else 'load the same frozen weights on the actor, or give their group the transfer "send"',
        )


def _judged(reads: Collection[str], manifest: SyncManifest, findings: tuple[Finding, ...]) -> Report:
    facts = {"manifest_id": manifest.manifest_id, "groups": group_table(reads, manifest)}
    failed = any(finding.severity is Severity.ERROR for finding in findings)
    return Report("handshake", findings, facts, exit_code=1 if failed else 0)


def _not_met(message: str, report: Report) -> NeedsNotMet:
    hints = list(dict.fromkeys(finding.hint for finding in report.errors() if finding.hint))
    return NeedsNotMet("\n".join((message, *_lines(report.findings))), report=report, hint="\n      ".join(hints[:4]))


def _lines(findings: Iterable[Finding]) -> list[str]:
    return [f"  {f.code} {f.subject}: {f.message}" for f in findings if f.severity is Severity.ERROR]


def _skew(learner: int, actor: int) -> str:
    return f"the learner speaks protocol {learner} of weightkit.v1, the actor protocol {actor}"
