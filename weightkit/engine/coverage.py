"""Whether an offer covers a need: the one function behind the proof, verify-sync and both sides of the handshake."""

from __future__ import annotations

from collections.abc import Collection

from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Severity
from weightkit.core.tensor import StateSpec


def check_coverage(reads: Collection[str], needs: StateSpec, offer: SyncManifest) -> tuple[Finding, ...]:
    """What stands between the actor's ``reads`` (names in ``needs``, its whole state) and the learner's ``offer``.

    Empty where every tensor that ``act()`` reads is sent or pinned with the same dtype and shape, or waived, and
    everything that is sent has its place on the actor. Each finding is an error about one tensor:

    WK301: read, but nobody sends it (it is held, or not in the manifest). WK303: sent or pinned with another dtype or
    shape, or tied to another tensor on one side only. WK304: sent, but the actor has no such tensor: the nets differ.
    """
    findings = [_unsent(name, needs, offer) for name in sorted(reads)]
    covered = set(offer.names(Transfer.SEND, Transfer.PIN))
    for entry in offer.entries:
        if (entry.alias_of or entry.name) not in covered:
            continue
        own = needs.get(entry.name)
        if own is None:
            if offer.transfer_of(entry.group) is Transfer.SEND:
                findings.append(_unknown_to_the_actor(entry.name, str(entry.spec), entry.group))
        elif own != entry.spec:
            findings.append(
                Finding(
                    "WK303",
                    Severity.ERROR,
                    entry.name,
                    f"the learner offers {entry.spec}, the actor has {own}",
                    "build both sides from one configuration (frame_stack, cameras, widths), or convert the weights",
                )
            )
    findings += [_tied(alias, first, offer) for alias, first in needs.aliases.items()]
    return tuple(finding for finding in findings if finding is not None)


def _unsent(name: str, needs: StateSpec, offer: SyncManifest) -> Finding | None:
    entry = offer.by_name.get(name)
    if offer.waiver_of(name) is not None:
        return None
    if entry is None:
        others = sorted({g.name for g in offer.groups if g.transfer is not Transfer.HOLD})
        return Finding(
            "WK301",
            Severity.ERROR,
            name,
            f"read by act() as {needs.get(name, 'a tensor')}, but not in the learner's manifest: "
            "the actor would keep its own initial values",
            f"the learner's policy has no such tensor; it sends {', '.join(others) or 'nothing'}: "
            "build both sides from one configuration",
        )
    if offer.transfer_of(entry.group) is not Transfer.HOLD:
        return None
    return Finding(
        "WK301",
        Severity.ERROR,
        name,
        f"read by act(), but the learner holds group {entry.group!r}: the actor would keep its own initial values",
        f'give group {entry.group!r} the transfer "send" in the manifest (or "pin" if it is frozen)',
    )


def _unknown_to_the_actor(name: str, spec: str, group: str) -> Finding:
    return Finding(
        "WK304",
        Severity.ERROR,
        name,
        f"the learner sends {spec} in group {group!r}, the actor has no such tensor: the two nets differ",
        f"build both sides from one configuration, or hold group {group!r} if act() does not read it",
    )


def _tied(alias: str, first: str, offer: SyncManifest) -> Finding | None:
    here, there = offer.by_name.get(alias), offer.by_name.get(first)
    if here is None or there is None or (here.alias_of or here.name) == (there.alias_of or there.name):
        return None
    if Transfer.HOLD in (offer.transfer_of(here.group), offer.transfer_of(there.group)):
        return None
    return Finding(
        "WK303",
        Severity.ERROR,
        alias,
        f"one tensor with {first!r} on the actor, two tensors on the learner",
        "tie the two on both sides, or on neither",
    )
