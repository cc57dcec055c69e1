"""The command line: quick, exact exit codes, one clear line for bad input, one Report with --json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from folded import expand
from locations import ROOT
from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy
from weightkit.cli.main import VERBS

CONFIG = drqv2_config(SMALL_DRQV2)
POLICY = drqv2_policy(SMALL_DRQV2, 1)
SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
HEAVY = ("torch", "grpc", "google", "numpy", "rich", "ml_dtypes", "jinja2")
ESCAPES = "\x1b[31m\x07\u202e\x9b"


class Answer:
    """What one call gave: exit code, stdout, stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def report(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


@pytest.fixture
def weightkit(call: Callable[..., tuple[int, str, str]]) -> Callable[..., Answer]:
    """Run the command line in this process."""
    return lambda *arguments: Answer(*call(*arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad inputs, side by side."""
    path = tmp_path_factory.mktemp("inputs")
    good = save_robobase(path / "best.pt", robobase_state(POLICY), cfg=cfg_of(CONFIG))
    (path / "truncated.pt").write_bytes(good.read_bytes()[:-2000])
    (path / "notes.txt").write_text("these are no weights\n")
    (path / "text.pt").write_text("these are no weights\n")
    (path / "empty.pt").write_bytes(b"")
    (path / "directory").mkdir()
    (path / "taken.pt").write_bytes(b"mine")
    image = {"type": "VISUAL", "shape": [6, 11, 9]}
    settings = {
        "type": "drqv2",
        "frame_stack": 2,
        "input_features": {
            "observation.images.front": image,
            "observation.images.wrist": image,
            "observation.state": [6],
        },
        "output_features": {"action": [2]},
        "encoder_channels": 2,
        "num_post_downsample_convs": 1,
        "bottleneck_size": 4,
        "mlp_nodes": [6, 5],
    }
    configs: dict[str, Any] = {
        "train_config.json": settings,
        "wrong_type.json": {**settings, "frame_stack": "two"},
        "wrong_shape.json": {**settings, "input_features": {**settings["input_features"], "observation.state": [3]}},  # type: ignore[dict-item]
    }
    for name, policy in configs.items():
        single = {"observation.images.front": {"shape": [3, 11, 9]}, "observation.state": {"shape": [3]}}
        (path / name).write_text(json.dumps({"policy": policy, "env": {"features": single}}))
    return path


# ---- quick


def modules_after(*arguments: str) -> tuple[int, set[str]]:
    """Exit code and heavy modules of a fresh process that ran the command line."""
    code = (
        "import sys\n"
        "from weightkit.cli.main import main\n"
        "code = 0\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    code = end.code or 0\n"
        f"print(code, *(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    exit_code, *modules = found.stderr.splitlines()[-1].split()
    return int(exit_code), set(modules)


def test_the_probe_for_imports_sees_an_import(folder: Path) -> None:
    assert "torch" in modules_after("verify-sync", "--config_path", str(folder / "train_config.json"))[1]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["layouts"], ["formats"], ["inspect", "--help"], ["convert", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert modules_after(*arguments) == (0, set())


@pytest.mark.parametrize("more", [[], ["--json"], ["--flat"]])
def test_inspect_imports_nothing_heavy(more: list[str], folder: Path) -> None:
    assert modules_after("inspect", str(folder / "best.pt"), *more) == (0, set())


def test_a_refused_file_imports_nothing_heavy(folder: Path) -> None:
    assert modules_after("inspect", str(folder / "truncated.pt")) == (3, set())


def test_a_conversion_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    words = ["convert", str(folder / "best.pt"), "-o", str(tmp_path / "o.pt")]
    for more in (["--to", "drqv2", "--no-check"], ["--force"]):
        code, modules = modules_after(*words, *more)
        assert code == 0
        assert not modules & {"torch", "grpc", "rich"}


def test_help_lists_every_verb_and_the_module_is_runnable() -> None:
    found = subprocess.run([sys.executable, "-m", "weightkit.cli.main", "--help"], capture_output=True, text=True)
    assert found.returncode == 0
    assert all(verb in found.stdout for verb in VERBS)


# ---- bad input: one clear line, the right exit code, no traceback

BAD: list[tuple[str, list[str], int, str]] = [
    ("missing file", ["inspect", "{d}/none.pt"], 3, "none.pt"),
    ("missing file", ["convert", "{d}/none.pt", "--to", "drqv2", "-o", "{o}"], 3, "none.pt"),
    ("directory", ["inspect", "{d}/directory"], 3, "directory"),
    ("directory", ["convert", "{d}/directory", "--to", "drqv2", "-o", "{o}"], 3, "directory"),
    ("truncated zip", ["inspect", "{d}/truncated.pt"], 3, "truncated.pt"),
    ("truncated zip", ["convert", "{d}/truncated.pt", "--to", "drqv2", "-o", "{o}"], 3, "truncated.pt"),
    ("text file", ["inspect", "{d}/notes.txt"], 3, "text"),
    ("text file named .pt", ["inspect", "{d}/text.pt"], 3, "text"),
    ("empty file", ["inspect", "{d}/empty.pt"], 3, "empty"),
    ("no config", ["verify-sync", "--config_path", "{d}/none.json"], 3, "no such file"),
    ("directory as config", ["verify-sync", "--config", "{d}"], 3, "train_config.json"),
    ("text as config", ["verify-sync", "--config_path", "{d}/notes.txt"], 3, "line 1, column 1"),
    ("checkpoint as config", ["verify-sync", "--config_path", "{d}/best.pt"], 3, "not JSON"),
    (
        "wrong type",
        ["verify-sync", "--config_path", "{d}/wrong_type.json"],
        3,
        "wrong_type.json @ $.policy.frame_stack",
    ),
    (
        "wrong type",
        ["convert", "{d}/best.pt", "--to", "drqv2", "--config_path", "{d}/wrong_type.json", "-o", "{o}"],
        3,
        "wrong_type.json @ $.policy.frame_stack: expected a whole number, found 'two'",
    ),
    (
        "shape that is not frame_stack x the env's",
        ["convert", "{d}/best.pt", "--to", "drqv2", "--config_path", "{d}/wrong_shape.json", "-o", "{o}"],
        3,
        "wrong_shape.json @ $.policy.input_features.observation.state",
    ),
    (
        "shape",
        ["manifest", "--config_path", "{d}/wrong_shape.json", "-o", "{o}"],
        3,
        "$.env.features.observation.state",
    ),
    (
        "unknown --set key",
        ["convert", "{d}/best.pt", "--to", "drqv2", "--set", "camera=a,b", "-o", "{o}"],
        2,
        "cameras",
    ),
    ("unknown --set key", ["verify-sync", "--config_path", "{d}/train_config.json", "--set", "camera=a"], 2, "cameras"),
    ("unknown layout", ["convert", "{d}/best.pt", "--to", "drqv3", "-o", "{o}"], 2, "did you mean 'drqv2'"),
    ("unknown layout", ["convert", "{d}/best.pt", "--to", "drqv2", "--from", "x", "-o", "{o}"], 2, "known: drqv2"),
    (
        "unknown adapter",
        ["convert", "{d}/best.pt", "--to", "drqv2", "--adapt", "*=blow", "-o", "{o}"],
        2,
        "inflate:newest",
    ),
    ("pattern", ["convert", "{d}/best.pt", "--to", "drqv2", "--drop", "x*", "-o", "{o}"], 2, "--drop 'x*' matches no"),
    (
        "pattern",
        ["convert", "{d}/best.pt", "--to", "drqv2", "--allow-missing", "x", "-o", "{o}"],
        2,
        "matches no target",
    ),
    ("pattern", ["convert", "{d}/best.pt", "--to", "drqv2", "--adapt", "x=inflate:mean", "-o", "{o}"], 2, "matches no"),
    ("unknown architecture", ["verify-sync", "--arch", "drq", "--config_path", "{d}/train_config.json"], 2, "drqv2"),
    ("ending", ["convert", "{d}/best.pt", "--to", "drqv2", "-o", "{o}.h5"], 2, "ending"),
    ("OUT exists", ["convert", "{d}/best.pt", "--to", "drqv2", "-o", "{d}/taken.pt"], 6, "--force"),
    ("OUT is the input", ["convert", "{d}/best.pt", "--to", "drqv2", "-o", "{d}/best.pt", "--force"], 6, "being read"),
    (
        "OUT is foreign",
        ["convert", "{d}/best.pt", "--to", "drqv2", "-o", "{d}/directory", "--force"],
        6,
        "did not write",
    ),
    ("no folder", ["convert", "{d}/best.pt", "--to", "drqv2", "-o", "{o}/x/y.pt"], 6, "does not exist"),
    ("manifest exists", ["manifest", "--config_path", "{d}/train_config.json", "-o", "{d}/taken.pt"], 6, "--force"),
]
IDS = [f"{arguments[0]}: {what}" for what, arguments, _, _ in BAD]


def filled(arguments: list[str], folder: Path, out: Path) -> list[str]:
    return [argument.replace("{d}", str(folder)).replace("{o}", str(out)) for argument in arguments]


@pytest.mark.parametrize(("what", "arguments", "code", "said"), BAD, ids=IDS)
def test_bad_input_ends_with_its_exit_code_and_one_clear_line(
    what: str, arguments: list[str], code: int, said: str, weightkit: Any, folder: Path, tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    answer = weightkit(*filled(arguments, folder, tmp_path / "out"))
    assert answer.code == code
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert said in answer.err
    lines = answer.err.splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert list(tmp_path.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(("what", "arguments", "code", "said"), BAD, ids=IDS)
def test_bad_input_with_json_is_one_report(
    what: str, arguments: list[str], code: int, said: str, weightkit: Any, folder: Path, tmp_path: Path
) -> None:
    answer = weightkit(*filled(arguments, folder, tmp_path / "out"), "--json")
    assert answer.code == code
    jsonschema.validate(answer.report, SCHEMA)
    assert (answer.report["verb"], answer.report["ok"], answer.report["exit_code"]) == (arguments[0], False, code)
    texts = [f"{finding['message']}\n{finding['hint']}" for finding in answer.report["findings"]]
    assert any(said in text for text in texts)
    assert answer.err == ""


@pytest.mark.parametrize(
    ("arguments", "finding"),
    [
        (["inspect", "{d}/none.pt"], "WK100"),
        (["inspect", "{d}/notes.txt"], "WK101"),
        (["inspect", "{d}/truncated.pt"], "WK102"),
        (["verify-sync", "--config_path", "{d}/wrong_type.json"], "WK403"),
        (["convert", "{d}/best.pt", "--to", "drqv2", "--drop", "x*"], "WK206"),
    ],
)
def test_a_failure_has_the_code_that_the_table_of_codes_gives_it(
    arguments: list[str], finding: str, weightkit: Any, folder: Path, tmp_path: Path
) -> None:
    report = weightkit(*filled(arguments, folder, tmp_path), "--json").report
    assert finding in [found["code"] for found in report["findings"]]


REFUSED_BY_CLICK = [["inspect"], ["inspect", "a", "b"], ["inspect", "a", "--colour"], ["manifest"]]


@pytest.mark.parametrize("arguments", [*REFUSED_BY_CLICK, ["no-such-verb"], ["--no-such-option"]])
def test_a_call_with_wrong_words_is_a_usage_error(arguments: list[str], weightkit: Any) -> None:
    answer = weightkit(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert "Error: " in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("arguments", REFUSED_BY_CLICK)
def test_a_call_with_wrong_words_is_one_report_where_json_is_asked_for(arguments: list[str], weightkit: Any) -> None:
    answer = weightkit(*arguments, "--json")
    assert answer.code == 2
    jsonschema.validate(answer.report, SCHEMA)


# ---- what holds, what does not


def test_inspect_lists_every_tensor_with_its_facts(weightkit: Any, folder: Path) -> None:
    report = weightkit("inspect", folder / "best.pt", "--json").report
    jsonschema.validate(report, SCHEMA)
    listed = {tensor["name"]: tensor for tensor in report["tensors"]}
    state = robobase_state(POLICY)
    assert list(listed) == list(state)
    for name, tensor in state.items():
        assert listed[name]["dtype"] == str(tensor.dtype).removeprefix("torch.")
        assert listed[name]["shape"] == list(tensor.shape)
        assert listed[name]["nbytes"] == tensor.nbytes
        twice = name.startswith("actor.actor_model.")
        assert listed[name]["alias_of"] == (name.removeprefix("actor.") if twice else None)
        assert listed[name]["group"] == name.split(".")[0].replace("actor_model", "actor")
    assert (report["root"], report["verdict"], report["format"]) == ("agent", "data", "torch_zip")
    assert report["architecture"]["layout"] == "robobase-drqv2"


def test_plain_inspect_answers_first_and_names_groups(weightkit: Any, folder: Path) -> None:
    answer = weightkit("inspect", folder / "best.pt")
    assert answer.code == 0
    assert answer.err == ""
    assert "RoboBase DrQ-v2" in answer.out.splitlines()[0]
    for group in ("encoder", "actor", "critic", "critic_target"):
        assert f"\n{group} " in answer.out


def test_convert_prints_every_group_and_where_the_file_is(weightkit: Any, folder: Path, tmp_path: Path) -> None:
    answer = weightkit("convert", folder / "best.pt", "--to", "drqv2", "-o", tmp_path / "policy")
    assert answer.code == 0
    assert answer.err == ""
    assert str(tmp_path / "policy") in answer.out.splitlines()[0]
    assert "every tensor accounted for" in answer.out
    report = weightkit(
        "convert", folder / "best.pt", "--to", "drqv2", "-o", tmp_path / "policy", "--force", "--json"
    ).report
    jsonschema.validate(report, SCHEMA)
    assert sum(group["tensors"] for group in report["groups"].values()) == report["target_tensors"]


def test_plan_only_writes_nothing(weightkit: Any, folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "best.pt"
    source.write_bytes((folder / "best.pt").read_bytes())
    answer = weightkit("convert", source, "--to", "drqv2", "--plan-only")
    assert answer.code == 0
    assert "nothing was written" in answer.out
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_a_plan_that_does_not_hold_ends_with_1_and_names_every_tensor(
    weightkit: Any, folder: Path, tmp_path: Path
) -> None:
    arguments = ["convert", folder / "best.pt", "--to", "drqv2", "--set", "frame_stack=4", "-o", tmp_path / "o.pt"]
    answer = weightkit(*arguments)
    assert answer.code == 1
    assert answer.out.startswith("REFUSED")
    report = weightkit(*arguments, "--json").report
    jsonschema.validate(report, SCHEMA)
    names = {finding["subject"] for finding in report["findings"] if finding["severity"] == "error"}
    assert len(names) == 7
    shown = [line.split("error  ")[1].split("  ") for line in answer.out.splitlines() if line.startswith("WK204 error")]
    assert {name for line in shown for folded in line for name in expand(folded)} == names
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_keeps_its_hint(weightkit: Any, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    arguments = ["convert", tmp_path / "a.pt", "--to", "drqv2", "--from", "robobase-drqv2", "-o", tmp_path / "o.pt"]
    answer = weightkit(*arguments)
    assert answer.code == 1
    assert "--config_path" in answer.out + answer.err
    jsonschema.validate(weightkit(*arguments, "--json").report, SCHEMA)


def test_verify_sync_ends_with_0_where_all_is_sent_and_with_1_where_not(
    weightkit: Any, folder: Path, tmp_path: Path
) -> None:
    config = ["--config_path", folder / "train_config.json"]
    answer = weightkit("verify-sync", *config)
    assert answer.code == 0
    assert answer.out.startswith("PASS  default manifest")
    torch.save({"policy": POLICY.actor.state_dict()}, tmp_path / "push.pt")
    answer = weightkit("verify-sync", *config, "--payload", tmp_path / "push.pt")
    assert answer.code == 1
    assert answer.out.startswith("FAIL")
    assert "WK301" in answer.out
    report = weightkit("verify-sync", *config, "--payload", tmp_path / "push.pt", "--json").report
    jsonschema.validate(report, SCHEMA)
    named = {f["subject"] for f in report["findings"] if f["code"] == "WK301"}
    assert named == {f"encoder.{name}" for name in POLICY.encoder.state_dict()}


@pytest.mark.parametrize("verb", ["layouts", "formats"])
def test_the_lists_are_reports_too(verb: str, weightkit: Any) -> None:
    report = weightkit(verb, "--json").report
    jsonschema.validate(report, SCHEMA)
    assert report[verb]
    assert all(row["name"] in weightkit(verb).out for row in report[verb])


def test_a_file_with_a_payload_ends_with_4_and_its_payload_is_named_not_run(weightkit: Any, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"agent": robobase_state(POLICY), "x": Payload()}, tmp_path / "unsafe.pt")
    answer = weightkit("inspect", tmp_path / "unsafe.pt")
    assert answer.code == 4
    assert "mkdir" in answer.out
    assert "encoder.convs_per_cam" in answer.out
    report = weightkit("inspect", tmp_path / "unsafe.pt", "--json").report
    jsonschema.validate(report, SCHEMA)
    assert (report["verdict"], report["exit_code"]) == ("unsafe", 4)
    assert weightkit("convert", tmp_path / "unsafe.pt", "--to", "drqv2", "-o", tmp_path / "o.pt").code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["unsafe.pt"]


def test_a_fault_of_our_own_ends_with_70_and_no_traceback(
    weightkit: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weightkit.reporting.inspect.fold", lambda names: 1 / 0)
    answer = weightkit("inspect", folder / "best.pt")
    assert answer.code == 70
    assert "Traceback" not in answer.err
    assert "ZeroDivisionError" in answer.err


def test_an_interrupted_call_ends_with_130(weightkit: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weightkit.verbs.inspect.open_checkpoint", interrupted)
    assert weightkit("inspect", folder / "best.pt").code == 130


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    command = f"'{sys.executable}' -m weightkit.cli.main inspect --flat '{folder / 'best.pt'}' | head -c 1"
    found = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert "Traceback" not in found.stderr
    assert "BrokenPipe" not in found.stderr


# ---- nothing from a file moves the cursor


def assert_printable(answer: Answer) -> None:
    for line in (answer.out + answer.err).split("\n"):
        assert line.isprintable(), ascii(line)


@pytest.mark.parametrize("more", [[], ["--flat"], ["--json"]])
def test_names_in_a_file_never_reach_the_terminal_raw(more: list[str], weightkit: Any, tmp_path: Path) -> None:
    state = {**robobase_state(POLICY), f"critic.{ESCAPES}\n.w": torch.zeros(2), ESCAPES: torch.zeros(1)}
    save_robobase(tmp_path / "a.pt", state, cfg={ESCAPES: ESCAPES, **cfg_of(CONFIG)})
    assert_printable(weightkit("inspect", tmp_path / "a.pt", *more))
    answer = weightkit(
        "convert", tmp_path / "a.pt", "--to", "drqv2", "-o", tmp_path / "o.pt", *[m for m in more if m == "--json"]
    )
    assert answer.code == 1
    assert_printable(answer)
    assert_printable(weightkit("convert", tmp_path / "a.pt", "-o", tmp_path / "o.pt"))


@pytest.mark.parametrize("name", [f"a.time_obs.{ESCAPES}.weight", f"view_fusion.{ESCAPES}"])
def test_the_name_of_an_unsupported_tensor_never_reaches_the_terminal_raw(
    name: str, weightkit: Any, tmp_path: Path
) -> None:
    save_robobase(tmp_path / "a.pt", {**robobase_state(POLICY), name: torch.zeros(2)}, cfg=cfg_of(CONFIG))
    assert_printable(weightkit("inspect", tmp_path / "a.pt"))
    answer = weightkit("convert", tmp_path / "a.pt", "--to", "drqv2", "-o", tmp_path / "o.pt")
    assert answer.code == 1
    assert_printable(answer)


@pytest.mark.parametrize("verb", ["inspect", "convert", "verify-sync", "manifest"])
@pytest.mark.parametrize("there", [True, False])
def test_a_path_never_reaches_the_terminal_raw(verb: str, there: bool, weightkit: Any, tmp_path: Path) -> None:
    path = tmp_path / f"{ESCAPES}.pt"
    if there:
        save_robobase(path, robobase_state(POLICY), cfg=cfg_of(CONFIG))
    arguments: dict[str, list[Any]] = {
        "inspect": ["inspect", path],
        "convert": ["convert", path, "--to", "drqv2", "-o", tmp_path / f"{ESCAPES}.safetensors"],
        "verify-sync": ["verify-sync", "--config_path", path],
        "manifest": ["manifest", "--config_path", path, "-o", tmp_path / f"{ESCAPES}.json"],
    }
    for json_ in ([], ["--json"]):
        assert_printable(weightkit(*arguments[verb], *json_))


def test_a_name_in_a_config_never_reaches_the_terminal_raw(weightkit: Any, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "train_config.json").read_text())
    document["policy"]["input_features"][f"observation.images.{ESCAPES}"] = [6, 11, 9]
    (tmp_path / "c.json").write_text(json.dumps(document))
    answer = weightkit("verify-sync", "--config_path", tmp_path / "c.json")
    assert answer.code == 3
    assert_printable(answer)
    assert len(answer.err.splitlines()) <= 2


def test_a_line_break_in_a_name_does_not_make_a_line_of_its_own(weightkit: Any, folder: Path, tmp_path: Path) -> None:
    document = json.loads((folder / "train_config.json").read_text())
    document["policy"]["type"] = "x\nerror: all is well\nhint: run this"
    (tmp_path / "c\nhint: run that.json").write_text(json.dumps(document))
    answer = weightkit("verify-sync", "--config_path", tmp_path / "c\nhint: run that.json")
    assert answer.code == 3
    assert len(answer.err.splitlines()) <= 2
