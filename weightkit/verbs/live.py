"""A running learner and its actors: what each of them holds, tensor by tensor, and how they stand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from weightkit.core.group import Transfer
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.text import printable
from weightkit.errors import Disconnected, SyncError, TransportError, Unauthenticated
from weightkit.transports import connect
from weightkit.transports.base import OPEN, Access, ActorStatus, Connection, LiveState, Question, Status, Welcome

MOST_AT_ONCE = 32

Agree = Callable[[Sequence[ActorStatus]], bool]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One actor: how it stood before it was asked, what it was asked to do, and its answer.

    ``state`` is None for an actor that was away before, or is since. ``spared``: not scrambled, since
    something real may move.
    """

    actor: ActorStatus
    state: LiveState | None = None
    scramble: bool = False
    spared: bool = False

    @property
    def why(self) -> str:
        """Why nothing is known of what it holds, empty where something is."""
        return "it is not connected" if self.state is None else self.state.unanswered


def verify_live(
    address: str,
    *,
    access: Access = OPEN,
    scramble: bool = False,
    force: bool = False,
    agree: Agree | None = None,
    say: Callable[[str], object] | None = None,
) -> Report:
    """What every actor of the learner at ``address`` holds, against what was published under the version it acts with.

    ``scramble``: each actor is to overwrite its weights with noise before, which the learner then sends again, so that
    what it holds afterwards has come by the connection. An actor that did not declare itself simulated is spared and
    reported, unless ``force``. ``agree`` is asked with the actors that would be scrambled. ``say`` hears what is being
    waited for.

    Raises TransportError where the learner cannot be reached or goes away, SyncError where ``agree`` does not.
    """
    connection = connect(address, access=access)
    try:
        before, offer = connection.status(), connection.describe()
        plan = [_planned(actor, scramble, force) for actor in sorted(before.actors, key=lambda actor: actor.actor_id)]
        victims = [one.actor for one in plan if one.scramble and one.actor.connected]
        if victims and agree is not None and not agree(victims):
            raise SyncError("nothing was scrambled: that was not agreed to")
        asked = _ask_all(connection, plan, force=force, say=say)
        after = connection.status()
    finally:
        connection.close()
    if len({before.run_id, offer.run_id, after.run_id}) > 1:
        raise Disconnected(f"{address}: another run has taken the learner's place meanwhile", hint="ask again")
    here = {actor.actor_id for actor in after.actors if actor.connected}
    left = [one if one.scramble or not one.why or one.actor.actor_id in here else _Asked(one.actor) for one in asked]
    return _judge(address, after, offer, left, scramble=scramble)


def _planned(actor: ActorStatus, scramble: bool, force: bool) -> _Asked:
    may = actor.simulated or force
    return _Asked(actor, None, scramble and may, scramble and actor.connected and not may)


def _ask_all(
    connection: Connection, plan: Iterable[_Asked], *, force: bool, say: Callable[[str], object] | None
) -> list[_Asked]:
    """The plan with the answers. Actors are asked at the same time, so that a silent one holds nobody up."""
    plan = list(plan)
    here = [one for one in plan if one.actor.connected]
    if not here:
        return plan
    if say is not None:
        say(f"asking {_counted(len(here), 'actor')}; each answers between two of its steps")
    pool = ThreadPoolExecutor(min(len(here), MOST_AT_ONCE), thread_name_prefix="weightkit-asking")
    try:
        answers = {
            one.actor.actor_id: pool.submit(_ask, connection, Question(one.actor.actor_id, one.scramble, force))
            for one in here
        }
        states = {actor_id: answer.result() for actor_id, answer in answers.items()}
    except BaseException:
        connection.close()  # ends the calls that are still waiting
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [_Asked(one.actor, states.get(one.actor.actor_id), one.scramble, one.spared) for one in plan]


def _ask(connection: Connection, question: Question) -> LiveState:
    try:
        return connection.ask(question)
    except (Disconnected, Unauthenticated):
        raise
    except TransportError as error:
        return LiveState(question.actor_id, 0, 0, unanswered=error.message)


# ---- what the answers mean


def _judge(address: str, status: Status, offer: Welcome, asked: Sequence[_Asked], *, scramble: bool) -> Report:
    groups = _sent(offer.manifest)
    answered = any(not one.why for one in asked)
    findings: list[Finding] = []
    actors: list[dict[str, object]] = []
    holding = 0
    for one in asked:
        found = [*_about_presence(one, least=Severity.WARNING if answered else Severity.ERROR)]
        found += _about_weights(one, offer.manifest, has_probe=bool(offer.probe))
        holding += not one.why and not one.spared and all(f.severity is not Severity.ERROR for f in found)
        findings += found
        actors.append(_facts(one, groups))
    if not any(one.state is not None for one in asked):
        hint = "an actor can be asked only while it is connected: start one, and ask again"
        findings.append(Finding("WK323", Severity.ERROR, "actors", "no actor is connected", hint))
    facts: dict[str, object] = {
        "live": address,
        **_learner(status),
        "scramble": scramble,
        "connected": sum(one.state is not None for one in asked),
        "holding": holding,
        "pinned": [g.name for g in offer.manifest.groups if g.transfer is Transfer.PIN],
        "actors": actors,
    }
    return Report(
        "verify-sync", tuple(findings), facts, int(any(finding.severity is Severity.ERROR for finding in findings))
    )


def _about_presence(one: _Asked, *, least: Severity) -> list[Finding]:
    """Whether it was there, answered, could be scrambled, and is up to date."""
    name = one.actor.actor_id
    if one.state is None:
        acked = f"version {one.actor.acked}" if one.actor.acked else "no version"
        message = f"not connected, so what it holds is not known; it has acknowledged {acked}"
        return [Finding("WK323", least, name, message, "start it again, if it is meant to act")]
    if one.why:
        hint = "an actor answers in Subscriber.poll(): does it still act?"
        if one.scramble:
            hint += " It may hold noise, and must not act before it has new weights"
        return [Finding("WK322", Severity.ERROR, name, f"it has not shown what it holds: {one.why}", hint)]
    found = []
    if one.spared:
        message = "it did not declare itself simulated, so it was looked at, but not scrambled"
        hint = "if nothing can move there, or everything may: --force"
        found.append(Finding("WK325", Severity.ERROR, name, message, hint))
    lag = _lag(one)
    if lag:
        message = f"acts with version {one.state.counter}, {lag} behind the newest, {one.state.newest}"
        found.append(Finding("WK324", Severity.INFO, name, message, "it follows as soon as it polls"))
    return found


def _about_weights(one: _Asked, manifest: SyncManifest, *, has_probe: bool) -> list[Finding]:
    """Whether every tensor that is sent is what was published, and was scrambled before where that was asked."""
    state = one.state
    if state is None or state.unanswered:
        return []
    who = f"actor {printable(printable(one.actor.actor_id), longest=40)}"
    version = f"version {state.counter}"
    found = []
    equal, at_start, scrambled = set(state.equal), set(state.at_start), set(state.scrambled)
    for name in manifest.names(Transfer.SEND):
        if name in equal:
            if one.scramble and name not in scrambled and manifest.by_name[name].spec.nbytes:
                message = f"{who} did not overwrite it with noise, so that it is there proves nothing"
                hint = "does the actor run this version of weightkit?"
                found.append(Finding("WK326", Severity.ERROR, name, message, hint))
        elif name in at_start:
            message = f"{who} still holds what it started with, not {version}"
            hint = "something puts old values back after each update, or the update does not reach this tensor"
            found.append(Finding("WK321", Severity.ERROR, name, message, hint))
        elif name in scrambled:
            message = f"{who} has it scrambled, and it did not come back as {version}"
            hint = "stop this actor: it acts with noise, or something else writes to its policy"
            found.append(Finding("WK326", Severity.ERROR, name, message, hint))
        else:
            message = f"{who} does not hold what was published as {version}"
            hint = "something else writes to its policy; --scramble has the published weights sent again"
            found.append(Finding("WK320", Severity.ERROR, name, message, hint))
    if not _probe_ok(one):
        message = "shown by digests alone: it was not compared whether it acts on the golden probe as the learner does"
        hint = "" if has_probe else "the learner has none: its act() samples, or its observation is no plain data"
        found.append(Finding("WK315", Severity.INFO, one.actor.actor_id, message, hint))
    return found


def _sent(manifest: SyncManifest) -> Mapping[str, tuple[str, ...]]:
    """The tensors that are sent, by group, in manifest order."""
    names = manifest.names(Transfer.SEND)
    groups = {g.name: tuple(n for n in names if manifest.by_name[n].group == g.name) for g in manifest.groups}
    return {group: tensors for group, tensors in groups.items() if tensors}


def _facts(one: _Asked, groups: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """One actor as JSON values."""
    state = None if one.why else one.state
    facts: dict[str, object] = {
        "actor": one.actor.actor_id,
        "connected": one.state is not None,
        "simulated": one.actor.simulated,
        "unanswered": one.why,
        "version": one.actor.acked if state is None else state.counter,
        "lag": _lag(one),
        "probe_ok": _probe_ok(one),
        "groups": [],
        "differing": [],
        "at_start": [],
        "scrambled": 0,
        "restored": 0,
    }
    if state is None:
        return facts
    equal = set(state.equal)
    differing = [name for names in groups.values() for name in names if name not in equal]
    return {
        **facts,
        "groups": [
            {"name": group, "tensors": len(names), "equal": sum(name in equal for name in names)}
            for group, names in groups.items()
        ],
        "differing": differing,
        "at_start": [name for name in differing if name in set(state.at_start)],
        "scrambled": len(set(state.scrambled)),
        "restored": sum(name in equal for name in set(state.scrambled)),
    }


def _lag(one: _Asked) -> int:
    return max(0, one.actor.lag if one.state is None or one.why else one.state.newest - one.state.counter)


def _probe_ok(one: _Asked) -> bool:
    """Whether it did on the golden probe what the learner does, after being scrambled where it was."""
    if one.state is None or one.why:
        return False
    return one.state.probe_ok or (one.actor.probe_ok and not one.scramble)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# ---- how they stand


def monitor(address: str, *, access: Access = OPEN) -> Report:
    """How the learner at ``address`` and its actors stand now. Raises TransportError where it cannot be reached."""
    connection = connect(address, access=access)
    try:
        return standing(address, connection.status())
    finally:
        connection.close()


def standing(address: str, status: Status) -> Report:
    """What a learner says of itself, as a Report."""
    actors = [
        {
            "actor": actor.actor_id,
            "connected": actor.connected,
            "version": actor.acked,
            "lag": actor.lag,
            "path": actor.path,
            "apply_ms": _finite(actor.apply_ms),
            "sent_bytes": actor.sent_bytes,
            "nacks": actor.nacks,
            "probe_ok": actor.probe_ok,
            "simulated": actor.simulated,
        }
        for actor in sorted(status.actors, key=lambda actor: actor.actor_id)
    ]
    counts = {name: _finite(status.counts[name]) for name in sorted(status.counts)}
    counts = {name: int(n) if n is not None and n.is_integer() else n for name, n in counts.items()}
    return Report("monitor", (), {"address": address, **_learner(status), "counts": counts, "actors": actors})


def _learner(status: Status) -> dict[str, object]:
    return {
        "run_id": status.run_id,
        "newest": status.counter,
        "learner_step": status.learner_step,
        "age_s": _finite(status.age_s) if status.counter else None,
        "refused": status.refused,
    }


def _finite(number: float) -> float | None:
    """JSON knows no infinity."""
    return float(number) if math.isfinite(number) else None
