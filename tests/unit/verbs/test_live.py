"""A running learner's actors: who holds what was published, who does not, who does not say."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
import torch

from folded import expand
from locations import ROOT
from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.cli.monitor import tables
from weightkit.core.group import Group, Transfer
from weightkit.core.manifest import ManifestEntry, SyncManifest
from weightkit.core.report import Report, Severity
from weightkit.core.tensor import spec
from weightkit.errors import Disconnected, SyncError, TransportTimeout, Unauthenticated
from weightkit.reporting.live import verify_live_text
from weightkit.reporting.monitor import monitor_text
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports import serve
from weightkit.transports.base import PROTOCOL, ActorStatus, Backoff, LiveState, Question, Status, Welcome
from weightkit.verbs import live
from weightkit.verbs.live import monitor, standing, verify_live

SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
PROBES = drqv2_observations(SMALL_DRQV2, 0)
DEADLINE_S = 20.0
ESCAPES = "\x1b[2J\u202e\r\n\x9b"
SENT = 22
BINDS = pytest.mark.parametrize("bind", ["memory:", "127.0.0.1:0"])


@pytest.fixture
def learner() -> Any:
    return drqv2_policy(SMALL_DRQV2, 0)


@contextmanager
def publishing(policy: Any, bind: str = "memory:") -> Iterator[Publisher]:
    """A learner that has published version 1."""
    with Publisher(policy, make_manifest(policy, drqv2_groups(policy)), act=act, probes=PROBES, bind=bind) as pub:
        pub.publish(100)
        yield pub


@contextmanager
def acting(
    pub: Publisher, policy: Any, name: str, *, polls: bool = True, simulated: bool = True
) -> Iterator[Subscriber]:
    """An actor that has acknowledged the newest version and, where it ``polls``, goes on doing so on a thread."""
    stop = threading.Event()
    failures: list[BaseException] = []
    quick = Backoff(low_s=0.001, high_s=0.01)
    with Subscriber(
        policy, pub.address, act=act, probes=PROBES, actor_id=name, simulated=simulated, backoff=quick
    ) as sub:

        def run() -> None:
            try:
                while not stop.is_set():
                    sub.poll(0.05)
            except BaseException as error:
                failures.append(error)

        version = sub.wait_for_first(DEADLINE_S)
        assert pub.wait_acked(name, version.counter, timeout_s=DEADLINE_S)
        thread = threading.Thread(target=run if polls else stop.wait)
        thread.start()
        try:
            yield sub
        finally:
            stop.set()
            thread.join(DEADLINE_S)
    assert not failures


def wait_gone(pub: Publisher, name: str) -> None:
    service = pub._service
    assert service.wait_until(
        lambda status: not any(a.connected for a in status.actors if a.actor_id == name), DEADLINE_S
    )


def weights(policy: Any) -> dict[str, torch.Tensor]:
    """What is sent, copied."""
    state = {**policy.encoder.state_dict(prefix="encoder."), **policy.actor.state_dict(prefix="actor.")}
    return {name: tensor.clone() for name, tensor in state.items()}


def flip(policy: Any) -> None:
    """One number in each of two tensors, behind the back of everybody."""
    with torch.no_grad():
        policy.encoder.front[0].weight.view(-1)[0] += 1
        policy.encoder.front[2].weight.view(-1)[0] += 1


def checked(report: Report) -> dict[str, Any]:
    """The report as --json prints it, valid; its text fits the terminal."""
    document = json.loads(json.dumps(report.to_dict()))
    jsonschema.validate(document, SCHEMA)
    assert report.exit_code == int(bool(report.errors()))
    text = monitor_text(report) if report.verb == "monitor" else verify_live_text(report)
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert len(line) <= 80 or line.startswith("WK"), line  # a name of one word stays whole where it is the subject
    return document


def by_actor(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {actor["actor"]: actor for actor in document["actors"]}


def coded(report: Report, code: str) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.subject) for finding in report.findings if finding.code == code]


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# ---- with real learners and actors


@BINDS
def test_actors_that_hold_what_was_published_pass(bind: str, learner: Any) -> None:
    with publishing(learner, bind) as pub:
        with acting(pub, drqv2_policy(SMALL_DRQV2, 1), "a"), acting(pub, drqv2_policy(SMALL_DRQV2, 2), "b"):
            report = verify_live(pub.address)
    document = checked(report)
    assert (report.exit_code, report.findings) == (0, ())
    assert (document["newest"], document["learner_step"], document["run_id"]) == (1, 100, pub.run_id)
    for actor in document["actors"]:
        assert (actor["version"], actor["lag"], actor["differing"], actor["probe_ok"]) == (1, 0, [], True)
        assert sum(group["equal"] for group in actor["groups"]) == SENT
    assert verify_live_text(report).startswith("PASS  ")
    assert "2 of 2 connected actors hold exactly what was published" in verify_live_text(report)


def test_an_actor_that_was_tampered_with_is_named_and_the_other_is_fine(learner: Any) -> None:
    tampered = drqv2_policy(SMALL_DRQV2, 1)
    with publishing(learner) as pub:
        with acting(pub, tampered, "a"), acting(pub, drqv2_policy(SMALL_DRQV2, 2), "b"):
            flip(tampered)
            report = verify_live(pub.address)
    document = checked(report)
    names = ["encoder.front.0.weight", "encoder.front.2.weight"]
    assert report.exit_code == 1
    assert by_actor(document)["a"]["differing"] == names
    assert by_actor(document)["b"]["differing"] == []
    assert coded(report, "WK320") == [(Severity.ERROR, name) for name in names]
    text = verify_live_text(report)
    assert text.startswith("FAIL  ")
    assert "1 of 2 connected actors holds" in text
    assert "WK320 error  encoder.front.{0,2}.weight\n       actor a does not hold" in text


@BINDS
def test_scrambling_brings_every_tensor_back_bit_for_bit(bind: str, learner: Any) -> None:
    tampered, other = drqv2_policy(SMALL_DRQV2, 1), drqv2_policy(SMALL_DRQV2, 2)
    with publishing(learner, bind) as pub:
        with acting(pub, tampered, "a"), acting(pub, other, "b"):
            flip(tampered)
            report = verify_live(pub.address, scramble=True)
            assert same(weights(tampered), weights(learner))
            assert same(weights(other), weights(learner))
    document = checked(report)
    assert (report.exit_code, report.findings) == (0, ())
    for actor in document["actors"]:
        assert (actor["scrambled"], actor["restored"], actor["probe_ok"]) == (SENT, SENT, True)
    assert "2 of 2 connected actors were scrambled and got every tensor back" in verify_live_text(report)


def test_an_actor_that_never_polls_is_named_and_holds_nobody_up(learner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightkit.sync.service.DEMAND_S", 0.3)
    with publishing(learner) as pub:
        with acting(pub, drqv2_policy(SMALL_DRQV2, 1), "acts"):
            with acting(pub, drqv2_policy(SMALL_DRQV2, 2), "silent", polls=False):
                report = verify_live(pub.address)
    document = checked(report)
    assert report.exit_code == 1
    assert coded(report, "WK322") == [(Severity.ERROR, "silent")]
    assert "no answer in 0.3 s" in by_actor(document)["silent"]["unanswered"]
    assert by_actor(document)["acts"]["unanswered"] == ""
    assert (document["holding"], document["connected"]) == (1, 2)


def test_what_is_not_declared_simulated_is_scrambled_by_force_only(learner: Any) -> None:
    policy = drqv2_policy(SMALL_DRQV2, 1)
    with publishing(learner) as pub:
        with acting(pub, policy, "arm", simulated=False), acting(pub, drqv2_policy(SMALL_DRQV2, 2), "sim"):
            flip(policy)
            before = weights(policy)
            spared = verify_live(pub.address, scramble=True)
            assert same(weights(policy), before)
            forced = verify_live(pub.address, scramble=True, force=True)
            assert same(weights(policy), weights(learner))
    document = checked(spared)
    assert spared.exit_code == 1
    assert coded(spared, "WK325") == [(Severity.ERROR, "arm")]
    assert {name: actor["scrambled"] for name, actor in by_actor(document).items()} == {"arm": 0, "sim": SENT}
    assert by_actor(document)["arm"]["differing"] == ["encoder.front.0.weight", "encoder.front.2.weight"]
    assert document["holding"] == 1
    assert (forced.exit_code, checked(forced)["holding"]) == (0, 2)


def test_start_values_are_recognised(learner: Any) -> None:
    policy = drqv2_policy(SMALL_DRQV2, 1)
    start = policy.encoder.state_dict()
    start = {name: tensor.clone() for name, tensor in start.items()}
    with publishing(learner) as pub, acting(pub, policy, "a"):
        policy.encoder.load_state_dict(start)
        report = verify_live(pub.address)
    document = checked(report)
    names = {f"encoder.{name}" for name in start}
    assert {subject for _, subject in coded(report, "WK321")} == names
    assert set(by_actor(document)["a"]["at_start"]) == names
    assert not coded(report, "WK320")
    line = next(line for line in verify_live_text(report).split("\n") if line.startswith("WK321"))
    assert set(expand(line.removeprefix("WK321 error  "))) == names


def test_an_actor_that_is_gone_is_a_warning_where_another_answers_and_else_an_error(learner: Any) -> None:
    with publishing(learner) as pub:
        with acting(pub, drqv2_policy(SMALL_DRQV2, 1), "stays"):
            with acting(pub, drqv2_policy(SMALL_DRQV2, 2), "goes"):
                pass
            wait_gone(pub, "goes")
            report = verify_live(pub.address)
        wait_gone(pub, "stays")
        alone = verify_live(pub.address)
    assert (report.exit_code, coded(report, "WK323")) == (0, [(Severity.WARNING, "goes")])
    assert "1 of 1 connected actor holds" in verify_live_text(report)
    assert not by_actor(checked(report))["goes"]["connected"]
    assert alone.exit_code == 1
    assert coded(alone, "WK323") == [(Severity.ERROR, name) for name in ("goes", "stays", "actors")]
    assert "no actor is connected" in verify_live_text(alone).split("\n")[0]
    checked(alone)


def test_without_agreement_nothing_is_scrambled_and_who_would_be_was_said(learner: Any) -> None:
    policy = drqv2_policy(SMALL_DRQV2, 1)
    heard: list[str] = []

    def agree(actors: Any) -> bool:
        heard.extend(actor.actor_id for actor in actors)
        return False

    with publishing(learner) as pub:
        with acting(pub, policy, "sim"), acting(pub, drqv2_policy(SMALL_DRQV2, 2), "arm", simulated=False):
            flip(policy)
            before = weights(policy)
            with pytest.raises(SyncError, match="nothing was scrambled"):
                verify_live(pub.address, scramble=True, agree=agree)
            assert same(weights(policy), before)
    assert heard == ["sim"]


def test_pinned_tensors_are_said_to_be_compared_elsewhere(learner: Any) -> None:
    policy = drqv2_policy(SMALL_DRQV2, 1)
    learner.encoder.requires_grad_(False)
    policy.encoder.load_state_dict(learner.encoder.state_dict())
    manifest = make_manifest(learner, {**drqv2_groups(learner), "encoder": "pin"})
    with Publisher(learner, manifest, act=act, probes=PROBES, bind="memory:") as pub:
        pub.publish()
        with acting(pub, policy, "a"):
            report = verify_live(pub.address)
    assert report.exit_code == 0
    assert checked(report)["pinned"] == ["encoder"]
    assert [group["name"] for group in by_actor(report.to_dict())["a"]["groups"]] == ["actor"]
    assert "pinned, compared only when an actor connects: encoder" in verify_live_text(report)


@BINDS
def test_a_learner_that_is_not_there_is_the_transports_error(bind: str, learner: Any) -> None:
    with publishing(learner, bind) as pub:
        address = pub.address
    for ask in (verify_live, monitor):
        with pytest.raises(Disconnected, match=address):
            ask(address)


@BINDS
def test_monitor_shows_how_learner_and_actors_stand(bind: str, learner: Any) -> None:
    with publishing(learner, bind) as pub, acting(pub, drqv2_policy(SMALL_DRQV2, 1), "a", polls=False):
        with torch.no_grad():
            learner.actor.head.weight.mul_(2)
        pub.publish(250)
        report = monitor(pub.address)
    document = checked(report)
    assert {key: document[key] for key in ("run_id", "newest", "learner_step", "refused")} == {
        "run_id": pub.run_id, "newest": 2, "learner_step": 250, "refused": 0,
    }  # fmt: skip
    assert document["counts"]["rejected"] == 0
    (actor,) = document["actors"]
    assert {key: actor[key] for key in ("actor", "connected", "version", "lag", "nacks", "probe_ok", "simulated")} == {
        "actor": "a", "connected": True, "version": 1, "lag": 1, "nacks": 0, "probe_ok": True, "simulated": True,
    }  # fmt: skip
    assert actor["path"] in ("shared memory", "stream")


# ---- with a learner that says what a test wants


MANIFEST = SyncManifest(
    "tiny",
    (Group("net", Transfer.SEND), Group("rest", Transfer.HOLD, "not read")),
    (
        ManifestEntry("net.a", "net", "parameter", spec("float32", 2), 0),
        ManifestEntry("net.b", "net", "parameter", spec("float32", 2), 64),
        ManifestEntry("net.empty", "net", "buffer", spec("float32", 0), 128),
        ManifestEntry("rest.c", "rest", "parameter", spec("float32", 2)),
    ),
)
ALL = ("net.a", "net.b", "net.empty")
ACTOR = ActorStatus("a", True, 3, "root", 0, 0, True, "stream", 1.25, 4_200_000, True)
STATUS = Status("run", 3, "root", 0, (ACTOR,), 9, 0.5, {"rejected": 0})
STATE = LiveState("a", 3, 3, equal=ALL, probe_ok=True)


class Scripted:
    """A learner's endpoint for those who look on."""

    def __init__(self, answer: Callable[[Question], LiveState], *statuses: Status, probe: bytes = b"p") -> None:
        self._answer, self._statuses, self._probe = answer, list(statuses or [STATUS]), probe

    def status(self) -> Status:
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]

    def describe(self) -> Welcome:
        return Welcome(PROTOCOL, "run", MANIFEST, {}, self._probe)

    def ask(self, question: Question) -> LiveState:
        return replace(self._answer(question), actor_id=question.actor_id)


def verdict(endpoint: Any, **options: Any) -> Report:
    server = serve("memory:", endpoint)
    try:
        return verify_live(server.address, **options)
    finally:
        server.close()


def test_all_actors_are_asked_at_the_same_time() -> None:
    actors = tuple(replace(ACTOR, actor_id=f"a{i}") for i in range(8))
    all_here = threading.Barrier(len(actors), timeout=DEADLINE_S)

    def answer(question: Question) -> LiveState:
        all_here.wait()
        return STATE

    assert checked(verdict(Scripted(answer, replace(STATUS, actors=actors))))["holding"] == len(actors)


def test_more_actors_than_are_asked_at_once_are_all_asked() -> None:
    actors = tuple(replace(ACTOR, actor_id=f"a{i}") for i in range(live.MOST_AT_ONCE + 3))
    report = verdict(Scripted(lambda _: STATE, replace(STATUS, actors=actors)))
    assert (report.exit_code, report.facts["holding"]) == (0, len(actors))


def test_an_older_version_that_is_held_exactly_is_told_and_passes() -> None:
    report = verdict(Scripted(lambda _: replace(STATE, counter=5, newest=7)))
    assert (report.exit_code, coded(report, "WK324")) == (0, [(Severity.INFO, "a")])
    assert by_actor(checked(report))["a"]["lag"] == 2
    assert "acts with version 5, 2 behind the newest, 7" in verify_live_text(report)


def test_a_tensor_of_which_nothing_is_said_does_not_pass() -> None:
    report = verdict(Scripted(lambda _: replace(STATE, equal=("net.a", "net.empty"))))
    assert coded(report, "WK320") == [(Severity.ERROR, "net.b")]
    checked(report)


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (replace(STATE, scrambled=("net.a",)), ["net.b"]),
        (replace(STATE, scrambled=()), ["net.a", "net.b"]),
        (replace(STATE, equal=("net.a", "net.empty"), differing=("net.b",), scrambled=("net.a", "net.b")), ["net.b"]),
    ],
)
def test_what_was_not_scrambled_or_did_not_come_back_is_named(state: LiveState, names: list[str]) -> None:
    report = verdict(Scripted(lambda _: state), scramble=True)
    assert coded(report, "WK326") == [(Severity.ERROR, name) for name in names]
    document = checked(report)
    assert document["holding"] == 0
    assert by_actor(document)["a"]["scrambled"] == len(state.scrambled)


def test_only_what_an_actor_did_after_it_was_scrambled_counts_as_its_golden_probe() -> None:
    without = replace(STATE, probe_ok=False, scrambled=("net.a", "net.b"))
    report = verdict(Scripted(lambda _: without), scramble=True)
    assert (report.exit_code, coded(report, "WK315")) == (0, [(Severity.INFO, "a")])
    assert "not compared" in verify_live_text(report)
    assert not coded(verdict(Scripted(lambda _: without)), "WK315")


def test_a_learner_without_a_golden_probe_is_told() -> None:
    endpoint = Scripted(
        lambda _: replace(STATE, probe_ok=False), replace(STATUS, actors=(replace(ACTOR, probe_ok=False),)), probe=b""
    )
    (finding,) = verdict(endpoint).findings
    assert finding.code == "WK315"
    assert "the learner has none" in finding.hint


def test_an_actor_that_goes_while_it_is_asked_is_a_warning_but_not_when_it_was_to_be_scrambled() -> None:
    both = replace(STATUS, actors=(ACTOR, replace(ACTOR, actor_id="b")))
    one = replace(STATUS, actors=(ACTOR, replace(ACTOR, actor_id="b", connected=False)))

    def answer(question: Question) -> LiveState:
        if question.actor_id == "a":
            return replace(STATE, scrambled=ALL if question.scramble else ())
        return LiveState("b", 3, 3, unanswered="it went away")

    report = verdict(Scripted(answer, both, one))
    assert (report.exit_code, coded(report, "WK323")) == (0, [(Severity.WARNING, "b")])
    report = verdict(Scripted(answer, both, one), scramble=True)
    assert (report.exit_code, coded(report, "WK322")) == (1, [(Severity.ERROR, "b")])
    assert "it went away" in verify_live_text(report)


def test_a_call_that_gets_no_answer_in_time_is_that_actors_alone() -> None:
    def answer(question: Question) -> LiveState:
        if question.actor_id == "b":
            raise TransportTimeout("no answer in time")
        return STATE

    report = verdict(Scripted(answer, replace(STATUS, actors=(ACTOR, replace(ACTOR, actor_id="b")))))
    assert coded(report, "WK322") == [(Severity.ERROR, "b")]
    assert checked(report)["holding"] == 1


def test_a_learner_that_goes_or_is_replaced_meanwhile_gives_no_verdict() -> None:
    def gone(question: Question) -> LiveState:
        raise Disconnected("the learner went")

    with pytest.raises(Disconnected, match="the learner went"):
        verdict(Scripted(gone))
    with pytest.raises(Disconnected, match="another run has taken the learner's place"):
        verdict(Scripted(lambda _: STATE, STATUS, replace(STATUS, run_id="other")))


def test_names_from_peers_reach_no_terminal_raw_and_fit_80_columns() -> None:
    long = ESCAPES + "arm" * 40
    actors = (replace(ACTOR, actor_id=long), replace(ACTOR, actor_id=ESCAPES, connected=False, path=ESCAPES))
    status = replace(STATUS, run_id=ESCAPES, actors=actors, counts={ESCAPES: 3, "no token": 2.5})
    endpoint = Scripted(lambda _: replace(STATE, equal=("net.a",), differing=("net.b",)), status)
    endpoint.describe = lambda: Welcome(PROTOCOL, ESCAPES, MANIFEST)  # type: ignore[method-assign]
    report = verdict(endpoint)
    checked(report)
    assert len(report.errors()) == 2
    checked(standing(f"unix:{ESCAPES}", status))
    refused = replace(STATE, unanswered=ESCAPES)
    assert all(line.isprintable() for line in verify_live_text(verdict(Scripted(lambda _: refused))).split("\n"))


# ---- the table of monitor


def test_numbers_that_json_does_not_know_are_null() -> None:
    actor = replace(ACTOR, apply_ms=float("nan"))
    report = standing("x", replace(STATUS, age_s=float("inf"), actors=(actor,), counts={"odd": float("-inf"), "n": 2}))
    document = checked(report)
    assert (document["age_s"], document["counts"], document["actors"][0]["apply_ms"]) == (
        None,
        {"n": 2, "odd": None},
        None,
    )
    assert "counted: n 2, odd ?" in monitor_text(report)


def test_the_table_has_every_actor_and_what_is_counted() -> None:
    gone = replace(ACTOR, actor_id="b", connected=False, acked=0, path="", simulated=False, probe_ok=False, lag=3)
    shared = replace(ACTOR, actor_id="c", path="shared memory", nacks=2)
    status = replace(STATUS, actors=(ACTOR, gone, shared), refused=1, counts={"wrong token": 4, "rejected": 0})
    lines = monitor_text(standing("127.0.0.1:5", status)).split("\n")
    assert lines[0] == "127.0.0.1:5  run run, version 3, learner step 9, published 0.5 s ago"
    assert lines[1] == "actors connected: 2 of 3, 1 publish refused; counted: wrong token 4"
    assert [line.split() for line in lines[4:]] == [
        ["a", "yes", "3", "0", "stream", "1.2", "4.2", "0", "yes", "yes"],
        ["b", "no", "-", "3", "-", "-", "4.2", "0", "no", "no"],
        ["c", "yes", "3", "0", "shared", "1.2", "4.2", "2", "yes", "yes"],
    ]


def test_the_table_stays_while_the_learner_is_away_and_goes_on_when_it_is_back(learner: Any) -> None:
    with publishing(learner) as pub:
        address = pub.address
        shown = tables(lambda: monitor(address))
        assert f"run {pub.run_id[:8]}, version 1" in next(shown)
    away = next(shown)
    assert f"run {pub.run_id[:8]}, version 1" in away
    assert "NO ANSWER  for 0 s, this is from before: " in away
    with publishing(learner, address) as back:
        table = next(shown)
        assert f"run {back.run_id[:8]}" in table
        assert "NO ANSWER" not in table


def test_a_learner_that_was_never_there_or_refuses_ends_the_tables() -> None:
    with pytest.raises(Disconnected):
        next(tables(lambda: monitor("memory:nobody")))
    reports = iter([standing("x", STATUS)])

    def look() -> Report:
        for report in reports:
            return report
        raise Unauthenticated("wrong token")

    shown = tables(look)
    next(shown)
    with pytest.raises(Unauthenticated):
        next(shown)
