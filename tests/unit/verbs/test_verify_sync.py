"""verify-sync and manifest: what act() reads against what a manifest, or a saved push, sends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from learner_042 import EIGHT, NET
from locations import ROOT
from strategies import drqv2_policy
from weightkit.core.manifest import SyncManifest
from weightkit.errors import ConfigError, UnsafeContent, UsageError, WeightkitError, WriteError
from weightkit.verbs.manifest import write_manifest
from weightkit.verbs.verify_sync import verify_sync

FACTORY = """
import torch
from torch import nn

class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.head, self.value = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(3, 1)

def act(policy, observation):
    with torch.no_grad():
        return policy.head(policy.trunk(observation["x"]))

def factory():
    return Policy().eval(), act, [{"x": torch.ones(2, 3)}]

def wrong():
    return Policy()

def broken():
    raise RuntimeError("the robot is not plugged in")
"""


DOCUMENT = {
    "policy": {
        "type": "drqv2",
        "frame_stack": 3,
        "input_features": {"observation.images.front": [9, 19, 19], "observation.state": [12]},
        "output_features": {"action": [2]},
        "encoder_channels": 4,
        "bottleneck_size": 5,
        "mlp_nodes": [8, 8],
    }
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return saved(tmp_path / "train_config.json", DOCUMENT)


@pytest.fixture(scope="module")
def default_manifest(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The default manifest, as the verb writes it."""
    folder = tmp_path_factory.mktemp("manifest")
    write_manifest(folder / "m.json", config_path=saved(folder / "train_config.json", DOCUMENT))
    return (folder / "m.json").read_bytes()


@pytest.fixture
def written(config: Path, default_manifest: bytes) -> dict[str, Any]:
    """The default manifest's document; the file is ``m.json`` beside the configuration."""
    config.with_name("m.json").write_bytes(default_manifest)
    document: dict[str, Any] = json.loads(default_manifest)
    return document


@pytest.fixture
def own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """``--policy`` texts for factories in a module of the user's own."""
    name = f"own_policy_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    return lambda factory: f"{name}:{factory}"


def saved(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def laid_out(document: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the offsets that its groups and entries ask for."""
    sent = {group["name"] for group in document["groups"] if group["transfer"] == "send"}
    end = 0
    for entry in document["entries"]:
        travels = entry["group"] in sent and entry["alias_of"] is None
        entry["offset"] = end if travels else None
        end += -(-entry["nbytes"] // 64) * 64 if travels else 0
    return document


# ---- against a manifest


def test_without_a_manifest_the_report_holds_and_says_that_it_is_the_default(config: Path) -> None:
    report = verify_sync(config_path=config)
    assert report.exit_code == 0
    assert report.facts["against"] == "default manifest"
    note = next(finding for finding in report.findings if finding.code == "WK307")
    assert "not what your learner does" in note.message
    assert "--manifest" in note.hint


def test_the_manifest_that_the_verb_writes_holds(config: Path, written: dict[str, Any]) -> None:
    report = verify_sync(config_path=config, manifest=config.with_name("m.json"))
    assert report.exit_code == 0
    assert report.errors() == ()
    assert "WK307" not in {finding.code for finding in report.findings}
    assert str(config.with_name("m.json")) in str(report.facts["against"])


def test_an_encoder_that_is_held_fails_and_its_eight_tensors_are_named(config: Path, written: dict[str, Any]) -> None:
    next(group for group in written["groups"] if group["name"] == "encoder")["transfer"] = "hold"
    report = verify_sync(config_path=config, manifest=saved(config.with_name("held.json"), laid_out(written)))
    assert report.exit_code == 1
    assert {(f.code, f.subject) for f in report.errors()} == {("WK301", name) for name in EIGHT}
    groups: Any = report.facts["groups"]
    row = next(group for group in groups if group["name"] == "encoder")
    assert (row["read"], row["offered"], row["transfer"]) == (8, 0, "hold")


def test_a_manifest_of_a_policy_without_the_encoder_fails_and_names_it(config: Path, written: dict[str, Any]) -> None:
    written["entries"] = [entry for entry in written["entries"] if entry["group"] != "encoder"]
    report = verify_sync(config_path=config, manifest=saved(config.with_name("gone.json"), laid_out(written)))
    assert report.exit_code == 1
    assert {(f.code, f.subject) for f in report.errors()} == {("WK301", name) for name in EIGHT}


def test_a_manifest_of_another_frame_stack_fails_and_names_both_shapes(config: Path, written: dict[str, Any]) -> None:
    document = json.loads(config.read_text())
    document["policy"] |= {"frame_stack": 1}
    document["policy"]["input_features"] = {"observation.images.front": [3, 19, 19], "observation.state": [4]}
    report = verify_sync(
        config_path=saved(config.with_name("single.json"), document), manifest=config.with_name("m.json")
    )
    assert report.exit_code == 1
    found = {f.subject: f for f in report.errors()}
    assert {name for name in found if name.startswith(("encoder", "actor"))} == {
        "encoder.front.0.weight",
        "actor.state_trunk.0.weight",
    }
    assert {f.code for f in found.values()} == {"WK303"}
    for shape in ("[4, 9, 3, 3]", "[4, 3, 3, 3]"):
        assert shape in found["encoder.front.0.weight"].message


@pytest.mark.parametrize(
    ("damage", "address"),
    [
        ({"schema": "weightkit.manifest.v0"}, "$.schema"),
        ({"groups": {}}, "$.groups"),
        ({"groups": [{"name": "encoder", "transfer": "give"}]}, "$.groups[0].transfer"),
        ({"groups": [{"transfer": "send"}]}, "$.groups[0].name"),
        ({"entries": [7]}, "$.entries[0]"),
        ({"entries": None}, "$.entries"),
        ({"architecture": None}, "$.architecture"),
    ],
)
def test_a_malformed_manifest_is_refused_at_its_address(
    damage: dict[str, Any], address: str, config: Path, written: dict[str, Any]
) -> None:
    path = saved(config.with_name("bad.json"), {**written, **damage})
    with pytest.raises(ConfigError) as refused:
        verify_sync(config_path=config, manifest=path)
    assert str(refused.value).startswith(f"{path} @ {address}")
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dtype", "float99"),
        ("shape", [1, -2]),
        ("shape", "all"),
        ("nbytes", 3),
        ("frozen", 0),
        ("kind", "idea"),
        ("name", 7),
        ("alias_of", 7),
    ],
)
def test_a_malformed_entry_is_refused_at_its_address(
    key: str, value: Any, config: Path, written: dict[str, Any]
) -> None:
    written["entries"][2][key] = value
    path = saved(config.with_name("bad.json"), written)
    with pytest.raises(ConfigError) as refused:
        verify_sync(config_path=config, manifest=path)
    assert f"{path} @ $.entries[2].{key}" in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1, "a": 2}', "NaN", "\x00"])
def test_a_manifest_that_is_no_json_object_is_refused_with_its_path(text: str, config: Path) -> None:
    path = saved(config.with_name("bad.json"), text)
    with pytest.raises(ConfigError) as refused:
        verify_sync(config_path=config, manifest=path)
    assert str(path) in str(refused.value)


def test_a_manifest_with_a_tensor_in_an_undeclared_group_is_refused_with_its_path(
    config: Path, written: dict[str, Any]
) -> None:
    written["entries"][0]["group"] = "nobody"
    path = saved(config.with_name("bad.json"), written)
    with pytest.raises(ConfigError) as refused:
        verify_sync(config_path=config, manifest=path)
    assert "nobody" in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_manifest_that_is_not_there_is_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        verify_sync(config_path=config, manifest=config.with_name("none.json"))


# ---- against a saved push


@pytest.mark.parametrize("holder", ["policy only", "policy and encoder"])
def test_a_saved_push_of_the_actor_alone_fails_and_with_the_encoder_passes(holder: str, config: Path) -> None:
    learner = drqv2_policy(NET, 0)
    push = {"policy": learner.actor.state_dict()}
    if holder == "policy and encoder":
        push["encoder"] = learner.encoder.state_dict()
    torch.save(push, config.with_name("push.pt"))
    report = verify_sync(config_path=config, payload=config.with_name("push.pt"))
    assert str(config.with_name("push.pt")) in str(report.facts["against"])
    if holder == "policy only":
        assert report.exit_code == 1
        assert {(f.code, f.subject) for f in report.errors()} == {("WK301", name) for name in EIGHT}
    else:
        assert report.errors() == ()
        assert report.exit_code == 0


def test_a_saved_push_with_other_shapes_fails_by_name(config: Path) -> None:
    learner = drqv2_policy({**NET, "frame_stack": 1}, 0)
    torch.save(
        {"policy": learner.actor.state_dict(), "encoder": learner.encoder.state_dict()}, config.with_name("p.pt")
    )
    report = verify_sync(config_path=config, payload=config.with_name("p.pt"))
    assert {(f.code, f.subject) for f in report.errors()} == {
        ("WK303", "encoder.front.0.weight"),
        ("WK303", "actor.state_trunk.0.weight"),
    }


def test_a_saved_push_of_a_compiled_actor_is_the_same_push(config: Path) -> None:
    learner = drqv2_policy(NET, 0)
    actor = {f"_orig_mod.{name}": tensor for name, tensor in learner.actor.state_dict().items()}
    torch.save({"policy": actor, "encoder": learner.encoder.state_dict()}, config.with_name("push.pt"))
    assert verify_sync(config_path=config, payload=config.with_name("push.pt")).errors() == ()


def test_manifest_and_payload_together_are_refused(config: Path) -> None:
    with pytest.raises(UsageError):
        verify_sync(config_path=config, manifest="m.json", payload="p.pt")


def test_a_push_with_a_payload_is_named_for_what_it_is(config: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (print, ("no",))

    torch.save({"policy": {"w": torch.zeros(2)}, "x": Payload()}, tmp_path / "p.pt")
    with pytest.raises(UnsafeContent, match=r"builtins\.print"):
        verify_sync(config_path=config, payload=tmp_path / "p.pt")


# ---- a policy of the user's own


def test_a_policy_of_ones_own_is_traced_and_what_it_reads_is_sent(own_policy: Callable[[str], str]) -> None:
    report = verify_sync(policy=own_policy("factory"))
    assert report.exit_code == 0
    groups: Any = report.facts["groups"]
    assert {group["name"]: group["transfer"] for group in groups} == {"trunk": "send", "head": "send", "value": "hold"}
    assert report.facts["reads"] == ["head.bias", "head.weight", "trunk.bias", "trunk.weight"]


def test_a_policy_of_ones_own_fails_against_a_push_without_a_module(
    own_policy: Callable[[str], str], tmp_path: Path
) -> None:
    torch.save({"head": torch.nn.Linear(4, 2).state_dict()}, tmp_path / "push.pt")
    report = verify_sync(policy=own_policy("factory"), payload=tmp_path / "push.pt")
    assert {f.subject for f in report.errors()} == {"trunk.weight", "trunk.bias"}


def test_probes_from_a_file_are_what_act_sees(config: Path, tmp_path: Path) -> None:
    pixels, state = np.zeros((2, 9, 19, 19), np.uint8), np.zeros((2, 12), np.float32)
    np.savez(tmp_path / "probes.npz", **{"observation.images.front": pixels, "observation.state": state})
    report = verify_sync(config_path=config, probes=tmp_path / "probes.npz")
    assert (report.exit_code, report.facts["probes"]) == (0, 1)


@pytest.mark.parametrize(
    "arrays",
    [
        {"observation.images.front": np.zeros((2, 9, 19, 19), np.uint8)},
        {"observation.images.front": np.zeros((2, 9, 18, 19), np.uint8), "observation.state": np.zeros((2, 12))},
        {"observation.images.front": np.zeros((2, 9, 19, 19), np.uint8), "observation.state": np.zeros((3, 12))},
        {"observation.state": np.float32(1)},
    ],
    ids=["a key is missing", "a wrong shape", "two batch sizes", "no batch axis"],
)
def test_probes_that_the_policy_cannot_act_on_are_refused_in_words(
    arrays: dict[str, Any], config: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "probes.npz", **arrays)
    with pytest.raises(WeightkitError):
        verify_sync(config_path=config, probes=tmp_path / "probes.npz")


@pytest.mark.parametrize("text", ["no_such_module_here:factory", "json:no_such_factory", "json"])
def test_a_factory_that_cannot_be_found_is_a_usage_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UsageError, match="--policy"):
        verify_sync(policy=text)


def test_a_factory_that_returns_something_else_is_a_usage_error(own_policy: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match="policy, act, probes"):
        verify_sync(policy=own_policy("wrong"))


def test_a_factory_that_fails_is_not_called_a_fault_of_weightkit(own_policy: Callable[[str], str]) -> None:
    with pytest.raises(UsageError, match="the robot is not plugged in"):
        verify_sync(policy=own_policy("broken"))


def test_policy_and_configuration_together_are_refused(own_policy: Callable[[str], str], config: Path) -> None:
    with pytest.raises(UsageError, match="builds the net itself"):
        verify_sync(policy=own_policy("factory"), config_path=config)


# ---- which policy


def test_a_bare_call_reads_the_train_config_in_the_current_folder(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    assert verify_sync().exit_code == 0


def test_a_bare_call_without_a_config_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"there is no train_config\.json") as refused:
        verify_sync()
    assert "--config_path" in refused.value.hint


def test_settings_alone_can_describe_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"cameras": "front", "image_size": "19", "image_channels": "3", "frame_stack": "3", "state_dim": "4"}
    report = verify_sync(arch="drqv2", settings={**settings, "action_dim": "2", "mlp_nodes": "8"})
    assert report.exit_code == 0


# ---- the manifest verb


def test_a_written_manifest_is_valid_and_reads_back(config: Path, written: dict[str, Any]) -> None:
    schema = json.loads((ROOT / "schemas" / "json" / "manifest.v1.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(written, schema)
    manifest = SyncManifest.from_dict(written)
    assert manifest.to_dict() == written
    transfers = {group.name: group.transfer.value for group in manifest.groups}
    assert transfers == {"encoder": "send", "actor": "send", "critic": "hold", "critic_target": "hold"}
    assert all(group.why for group in manifest.groups)


def test_the_reported_manifest_id_is_that_of_the_file(config: Path) -> None:
    report = write_manifest(config.with_name("m.json"), config_path=config)
    manifest = SyncManifest.from_dict(json.loads(config.with_name("m.json").read_text()))
    assert report.facts["manifest_id"] == manifest.manifest_id
    assert report.facts["out"] == str(config.with_name("m.json"))


def test_an_existing_manifest_is_replaced_with_force_only(config: Path, written: dict[str, Any]) -> None:
    before = config.with_name("m.json").read_bytes()
    with pytest.raises(WriteError, match="exists already"):
        write_manifest(config.with_name("m.json"), config_path=config)
    write_manifest(config.with_name("m.json"), config_path=config, force=True)
    assert config.with_name("m.json").read_bytes() == before


def test_a_manifest_of_ones_own_policy_reads_back(own_policy: Callable[[str], str], tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.json", policy=own_policy("factory"))
    assert verify_sync(policy=own_policy("factory"), manifest=tmp_path / "m.json").exit_code == 0


# ---- as text


@pytest.mark.parametrize("case", ["sac", "drqv2", "payload"])
def test_the_text_is_read_in_80_columns_and_starts_with_the_answer(case: str, config: Path, tmp_path: Path) -> None:
    from weightkit.reporting.sync import verify_sync_text

    if case == "payload":
        torch.save({"policy": drqv2_policy(NET, 0).actor.state_dict()}, tmp_path / "push.pt")
        report = verify_sync(config_path=config, payload=tmp_path / "push.pt")
    else:
        settings = {"shared_encoder": "false", "num_discrete_actions": "3"} if case == "sac" else {}
        report = verify_sync(arch=case, settings=settings)
    lines = verify_sync_text(report).splitlines()
    assert lines[0].startswith(("PASS  ", "FAIL  "))
    assert lines[0].startswith("PASS  ") is report.ok
    unbroken = [line for line in lines if len(line) > 80]  # a path has no place to break it
    assert all(str(tmp_path) in line for line in unbroken)
    groups: Any = report.facts["groups"]
    assert {row["name"] for row in groups} <= {line.split("  ")[0] for line in lines}


# ---- code of the user's that is not what it should be


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("1 / 0", "ZeroDivisionError"),
        ("def factory(:", "SyntaxError"),
        ("def factory():\n    raise SystemExit(0)", "SystemExit"),
        ("import torch\ndef factory():\n    return torch.nn.Linear(1, 1), lambda p, x: p(x), None", "probes"),
        ("import torch\ndef factory():\n    return torch.nn.Linear(1, 1), None, [torch.ones(1)]", "act"),
        ("def factory():\n    return object(), lambda p, x: x, [1]", "nn.Module"),
        ("import torch\ndef factory():\n    return torch.nn.Linear(1, 1), lambda p, x: p(x), {'x': 1}", "probes"),
    ],
)
def test_user_code_that_ends_or_gives_something_else_is_an_error_and_never_a_pass(
    body: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"odd_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=said):
        verify_sync(policy=f"{name}:factory")


def test_an_act_that_reads_nothing_or_ends_the_process_is_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "idle_robot.py").write_text(
        "import sys\nimport torch\nprint('loading')\n"
        "def factory():\n    return torch.nn.Linear(2, 2), lambda p, x: x * 2, [torch.ones(1, 2)]\n"
        "def ending():\n    return torch.nn.Linear(2, 2), lambda p, x: sys.exit(0), [torch.ones(1, 2)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = verify_sync(policy="idle_robot:factory")
    assert (report.exit_code, [f.code for f in report.errors()]) == (1, ["WK318"])
    assert "loading" not in capsys.readouterr().out  # stdout is the report's
    with pytest.raises(ConfigError, match="SystemExit"):
        verify_sync(policy="idle_robot:ending")


def test_a_manifest_of_a_recurrent_policy_is_written_with_its_state_waived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recurrent_robot.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.cell = torch.nn.GRUCell(2, 3)\n"
        "        self.register_buffer('hidden', torch.zeros(1, 3))\n"
        "    @torch.no_grad()\n"
        "    def forward(self, x):\n"
        "        self.hidden.copy_(self.cell(x, self.hidden))\n"
        "        return self.hidden * 1\n"
        "def factory():\n    return Net().eval(), lambda p, x: p(x), [torch.ones(1, 2)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    report = write_manifest(tmp_path / "m.json", policy="recurrent_robot:factory")
    assert [(f.code, f.severity.value, f.subject) for f in report.findings] == [("WK310", "warning", "hidden")]
    written = json.loads((tmp_path / "m.json").read_text())
    assert [waiver["name"] for waiver in written["waivers"]] == ["hidden"]
    assert verify_sync(policy="recurrent_robot:factory", manifest=tmp_path / "m.json").exit_code == 0
    assert verify_sync(policy="recurrent_robot:factory").exit_code == 1  # nobody has said that it may be so
