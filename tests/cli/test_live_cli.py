"""``verify-sync --live`` and ``monitor`` as they are typed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from locations import ROOT
from strategies import SMALL_DRQV2, act, drqv2_groups, drqv2_observations, drqv2_policy
from weightkit.sync.grouping import make_manifest
from weightkit.sync.publisher import Publisher
from weightkit.sync.subscriber import Subscriber
from weightkit.transports.base import Access

Call = Callable[..., tuple[int, str, str]]
SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
PROBES = drqv2_observations(SMALL_DRQV2, 0)
DEADLINE_S = 20.0
NAME = "arm\x1b[31m\r1"
SHOWN = r"arm\x1b[31m\x0d1"


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Any]]:
    """The address of a learner with one simulated actor, and that actor's policy."""
    learner, policy = drqv2_policy(SMALL_DRQV2, 0), drqv2_policy(SMALL_DRQV2, 1)
    manifest = make_manifest(learner, drqv2_groups(learner))
    stop = threading.Event()
    with Publisher(learner, manifest, act=act, probes=PROBES, bind="127.0.0.1:0") as pub:
        pub.publish(100)
        with Subscriber(policy, pub.address, act=act, probes=PROBES, actor_id=NAME, simulated=True) as sub:

            def run() -> None:
                while not stop.is_set():
                    sub.poll(0.05)

            sub.wait_for_first(DEADLINE_S)
            assert pub.wait_acked(NAME, 1, timeout_s=DEADLINE_S)
            thread = threading.Thread(target=run)
            thread.start()
            try:
                yield pub.address, policy
            finally:
                stop.set()
                thread.join(DEADLINE_S)


@pytest.fixture
def tampered(running: tuple[str, Any]) -> Iterator[str]:
    """The same, while its actor holds one wrong number."""
    address, policy = running
    first = policy.encoder.front[0].weight.view(-1)[:1]
    before = first.detach().clone()
    with torch.no_grad():
        first += 1
    yield address
    with torch.no_grad():
        first.copy_(before)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Somebody sits at a terminal, and types."""

    def types(words: str) -> None:
        typed = io.StringIO(words)
        for stream in (typed, sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        monkeypatch.setattr("sys.stdin", typed)

    return types


def document(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    return found


def test_actors_that_hold_what_was_published_end_with_0(call: Call, running: tuple[str, Any]) -> None:
    code, out, err = call("verify-sync", "--live", running[0])
    assert (code, err) == (0, "")
    assert out.startswith(f"PASS  {running[0]}: 1 of 1 connected actor holds exactly what was published\n")
    assert SHOWN in out
    code, out, err = call("verify-sync", "--live", running[0], "--json")
    assert (code, err, document(out)["holding"]) == (0, "", 1)


def test_an_actor_with_a_wrong_number_ends_with_1_and_is_named(call: Call, tampered: str) -> None:
    code, out, _ = call("verify-sync", "--live", tampered)
    assert code == 1
    assert out.startswith("FAIL  ")
    assert "WK320 error  encoder.front.0.weight\n" in out
    code, out, _ = call("verify-sync", "--live", tampered, "--json")
    assert (code, document(out)["exit_code"]) == (1, 1)


def test_without_a_terminal_nothing_is_scrambled_unless_it_was_agreed_to(call: Call, tampered: str) -> None:
    code, out, err = call("verify-sync", "--live", tampered, "--scramble")
    assert (code, out) == (2, "")
    assert "no terminal to ask at" in err
    assert call("verify-sync", "--live", tampered)[0] == 1
    code, out, err = call("verify-sync", "--live", tampered, "--scramble", "--yes")
    assert (code, err) == (0, "")
    assert "1 of 1 connected actor was scrambled and got every tensor back" in out
    assert call("verify-sync", "--live", tampered)[0] == 0


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("", 130)])
def test_at_a_terminal_it_is_asked_first_and_said_what_happens(
    answer: str, code: int, call: Call, tampered: str, terminal: Callable[[str], None]
) -> None:
    terminal(answer)
    found, out, err = call("verify-sync", "--live", tampered, "--scramble")
    assert found == code
    assert f"  {SHOWN}  (simulated)\n" in err
    assert "overwritten with noise" in err
    assert "each stops acting until its weights have been sent again" in err
    assert ("PASS" in out) == (code == 0)
    assert call("verify-sync", "--live", tampered)[0] == (0 if code == 0 else 1)


WRONG: list[tuple[list[str], str]] = [
    (["--live", "127.0.0.1:1", "--arch", "drqv2"], "--arch: not with --live"),
    (["--live", "127.0.0.1:1", "--policy", "a:b"], "--policy: not with --live"),
    (["--live", "127.0.0.1:1", "--payload", "x", "--manifest", "y"], "--manifest, --payload: not with --live"),
    (["--live", "127.0.0.1:1", "--config_path", "x", "--set", "a=b"], "--config_path, --set: not with --live"),
    (["--live", "127.0.0.1:1", "--probes", "x"], "--probes: not with --live"),
    (["--live", "127.0.0.1:1", "--yes"], "--yes: only with --scramble"),
    (["--live", "127.0.0.1:1", "--force"], "--force: only with --scramble"),
    (["--live", "nonsense"], "'nonsense' is no address"),
    (["--live", "192.0.2.1:5000"], "in plain text"),
    (["--scramble"], "--scramble: only with --live"),
    (["--arch", "drqv2", "--insecure", "--tls", "x"], "--tls, --insecure: only with --live"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_options_that_do_not_go_together_are_a_usage_error(options: list[str], said: str, call: Call) -> None:
    code, out, err = call("verify-sync", *options)
    assert (code, out) == (2, "")
    assert said in err
    code, out, err = call("verify-sync", *options, "--json")
    assert (code, err) == (2, "")
    assert said in document(out)["findings"][-1]["message"]


@pytest.mark.parametrize("words", [["monitor", "{}"], ["monitor", "{}", "--once"], ["verify-sync", "--live", "{}"]])
def test_a_learner_that_is_not_there_ends_with_1_and_the_transports_words(words: list[str], call: Call) -> None:
    code, out, err = call(*(word.format("memory:nobody") for word in words))
    assert (code, out, err) == (1, "", "error: memory:nobody: nobody listens there\n")
    code, out, err = call(*(word.format("memory:nobody") for word in words), "--json")
    assert (code, err, document(out)["verb"]) == (1, "", words[0])


@pytest.mark.parametrize("words", [["monitor", "127.0.0.1:1"], ["verify-sync", "--live", "127.0.0.1:1"]])
def test_a_token_that_cannot_be_read_is_bad_input_and_a_report_with_json(
    words: list[str], call: Call, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("short")
    for name, said in (("none", "cannot be read"), ("token", "at least 16")):
        code, out, err = call(*words, "--token-file", tmp_path / name)
        assert (code, out) == (3, "")
        assert said in err
        code, out, err = call(*words, "--token-file", tmp_path / name, "--json")
        assert (code, err, document(out)["verb"]) == (3, "", words[0])


def test_a_learner_with_a_token_is_looked_at_with_it_only(call: Call, tmp_path: Path) -> None:
    learner, token = drqv2_policy(SMALL_DRQV2, 0), "0123456789abcdef"
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "token").chmod(0o600)
    manifest = make_manifest(learner, drqv2_groups(learner))
    with Publisher(learner, manifest, act=act, probes=PROBES, bind="127.0.0.1:0", access=Access(token=token)) as pub:
        code, out, err = call("monitor", pub.address, "--once", "--token-file", tmp_path / "token")
        assert (code, err) == (0, "")
        assert "nothing published yet" in out
        for words in (["monitor", pub.address, "--once"], ["verify-sync", "--live", pub.address]):
            code, out, err = call(*words)
            assert (code, out) == (1, "")
            assert "token" in err


@pytest.mark.parametrize("more", [[], ["--once"], ["--every", "0.5"]])
def test_without_a_terminal_monitor_prints_one_table(more: list[str], call: Call, running: tuple[str, Any]) -> None:
    code, out, err = call("monitor", running[0], *more)
    assert (code, err) == (0, "")
    assert out.startswith(f"{running[0]}  run ")
    assert out.count(SHOWN[:11]) == 1
    assert all(line.isprintable() and len(line) <= 80 for line in out.split("\n"))


def test_monitor_prints_a_report_with_json_also_at_a_terminal(
    call: Call, running: tuple[str, Any], terminal: Callable[[str], None]
) -> None:
    terminal("")
    code, out, err = call("monitor", running[0], "--json")
    assert (code, err) == (0, "")
    assert [actor["actor"] for actor in document(out)["actors"]] == [NAME]


@pytest.mark.parametrize("every", ["0", "-1", "nan", "inf", "1e9"])
def test_monitor_looks_neither_without_a_pause_nor_never(every: str, call: Call) -> None:
    code, _, err = call("monitor", "memory:nobody", f"--every={every}")
    assert code == 2
    assert "expected seconds from 0.1 to 3600" in err


def test_monitor_shows_table_after_table_until_it_is_interrupted(
    call: Call, running: tuple[str, Any], terminal: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("weightkit.cli.monitor.sleep", pause)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    terminal("")
    code, out, err = call("monitor", running[0], "--every", "0.25")
    assert (code, err) == (130, "\ninterrupted\n")
    assert pauses == [0.25] * 3
    assert out.count(SHOWN[:11]) >= 3
    assert NAME not in out


def test_an_encoding_that_lacks_a_letter_is_no_fault(running: tuple[str, Any]) -> None:
    words = [sys.executable, "-m", "weightkit", "monitor", running[0], "--once"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(running[0])


def test_looking_at_a_learner_imports_no_torch_and_the_commands_no_grpc() -> None:
    code = (
        "import sys\n"
        "import weightkit.cli.options, weightkit.cli.monitor, weightkit.cli.verify_sync\n"
        "print(sorted({'torch', 'grpc', 'google', 'numpy', 'rich'} & set(sys.modules)))\n"
        "import weightkit.verbs.live, weightkit.reporting.live, weightkit.reporting.monitor\n"
        "import weightkit.transports.grpc\n"
        "print(sorted({'torch', 'rich'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
