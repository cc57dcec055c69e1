"""Conversions from end to end: the real file, every output form, and everything that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightkit as wk
from locations import SHARED, needs_shared
from robobase_files import cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_observations, drqv2_policy
from weightkit.architectures.drqv2.architecture import ARCHITECTURE
from weightkit.core.report import CODES
from weightkit.digest import tensor_digest
from weightkit.errors import (
    PlanError,
    UnknownFormat,
    UnsafeContent,
    UsageError,
    WeightkitError,
    WriteError,
)
from weightkit.formats import open_checkpoint

REAL = SHARED / "real" / "robobase_1cam_fs3.snapshot.pt"
CONFIG = drqv2_config(SMALL_DRQV2)
POLICY = drqv2_policy(SMALL_DRQV2, 1)
OBSERVATION = drqv2_observations(SMALL_DRQV2, 5, 1)[0]
CAMERAS = {"cameras": "front,wrist"}
FORMS = ("out.safetensors", "out.pt", "out.npz", "out")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RoboBase snapshot of POLICY, with its cfg."""
    path = tmp_path_factory.mktemp("snapshot") / "best.pt"
    return save_robobase(path, robobase_state(POLICY), cfg=cfg_of(CONFIG))


def edited(folder: Path, **tensors: Any) -> Path:
    """The snapshot with tensors replaced, added, or (None) taken out."""
    state = {**robobase_state(POLICY), **tensors}
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    return save_robobase(folder / "edited.pt", kept, cfg=cfg_of(CONFIG))


def subjects(error: PlanError) -> set[str]:
    return {finding.subject for finding in error.report.errors()}


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_acts_like(path: Path, policy: Any = POLICY) -> None:
    loaded = wk.load_policy(path)
    assert not loaded.training
    assert torch.equal(loaded.act(OBSERVATION), policy.act(OBSERVATION))
    action = policy.act(OBSERVATION)
    assert torch.equal(loaded.q_values(OBSERVATION, action), policy.q_values(OBSERVATION, action))
    assert torch.equal(loaded.target_q_values(OBSERVATION, action), policy.target_q_values(OBSERVATION, action))


# ---- the real file


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(SHARED / "real" / "robobase_1cam_fs3.outputs.npz") as file:
        return dict(file)


def real_observation(recorded: dict[str, np.ndarray], camera: str) -> dict[str, np.ndarray]:
    pixels, state = recorded["obs.rgb_front"], recorded["obs.low_dim_state"]
    batch, frames, channels, *size = pixels.shape
    return {
        f"observation.images.{camera}": pixels.reshape(batch, frames * channels, *size),
        "observation.state": state.reshape(batch, -1),
    }


@needs_shared
def test_the_real_snapshot_is_accounted_for_name_by_name(tmp_path: Path) -> None:
    report = wk.convert(REAL, to="drqv2", out=tmp_path / "out.safetensors").to_dict()
    assert (report["source_tensors"], report["target_tensors"]) == (98, 78)
    rows: Any = report["rows"]
    dropped: Any = report["dropped"]
    second: Any = report["second_names"]
    assert len(rows) + len(dropped) + len(second) == 98
    assert len(rows) == 78
    assert len(second) == 15
    assert len(dropped) == 5
    assert all(name.endswith(".hidden_state") and "live state" in why for name, why in dropped.items())
    assert report["complete"] is True
    assert report["class"] == "BIJ"


@needs_shared
def test_inspect_lists_the_real_snapshot_with_its_aliases_and_says_what_it_is_and_why() -> None:
    report = wk.inspect(REAL).to_dict()
    tensors: Any = report["tensors"]
    architecture: Any = report["architecture"]
    assert len(tensors) == 98
    assert sum(tensor["alias_of"] is not None for tensor in tensors) == 15
    assert (report["root"], report["format"], report["exit_code"]) == ("agent", "torch_zip", 0)
    assert architecture["title"] == "RoboBase DrQ-v2"
    assert len(architecture["evidence"]) >= 3


@needs_shared
@pytest.mark.parametrize("source", ["the snapshot", "its conversion"])
def test_the_real_policy_acts_as_its_own_project_recorded(
    source: str, tmp_path: Path, recorded: dict[str, np.ndarray]
) -> None:
    path, camera = REAL, "cam0"
    if source == "its conversion":
        path, camera = tmp_path / "policy", "front"
        wk.convert(REAL, to="drqv2", set={"cameras": "front"}, out=path)
    policy = wk.load_policy(path)
    assert policy.cameras == (camera,)
    observation = real_observation(recorded, camera)
    action = policy.act(observation)
    np.testing.assert_allclose(action.numpy(), recorded["action"][:, 0], atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(policy.encode(observation), recorded["encoder_features"][:, 0], atol=1e-5)
    for name, values in (("q", policy.q_values), ("q_target", policy.target_q_values)):
        got = values(observation, recorded["action"][:, 0]).numpy()
        np.testing.assert_allclose(got, recorded[name].reshape(4, 2).T, atol=1e-5)


@needs_shared
def test_the_real_outputs_are_missed_by_frames_in_the_wrong_order(recorded: dict[str, np.ndarray]) -> None:
    policy = wk.load_policy(REAL)
    observation = real_observation({**recorded, "obs.rgb_front": recorded["obs.rgb_front"][:, ::-1]}, "cam0")
    assert np.abs(policy.act(observation).numpy() - recorded["action"][:, 0]).max() > 1e-4


# ---- every output form


@pytest.mark.parametrize("form", FORMS)
def test_every_output_form_loads_to_the_same_policy(form: str, snapshot: Path, tmp_path: Path) -> None:
    report = wk.convert(snapshot, to="drqv2", set=CAMERAS, out=tmp_path / form)
    assert report.ok
    assert report.facts["out"] == str(tmp_path / form)
    assert listing(tmp_path) == [form]
    assert_acts_like(tmp_path / form)
    assert wk.load_policy(tmp_path / form).config == CONFIG
    opened = open_checkpoint(tmp_path / form)
    for name, tensor in POLICY.state_dict().items():
        assert opened.read(name).tobytes() == tensor.numpy().tobytes()


def test_a_folder_holds_config_plan_and_report_beside_the_weights(snapshot: Path, tmp_path: Path) -> None:
    wk.convert(snapshot, to="drqv2", set=CAMERAS, out=tmp_path / "policy")
    assert listing(tmp_path / "policy") == ["config.json", "model.safetensors", "plan.json", "report.json"]
    plan = json.loads((tmp_path / "policy" / "plan.json").read_text())
    report = json.loads((tmp_path / "policy" / "report.json").read_text())
    assert plan["schema"] == "weightkit.plan.v1"
    assert len(plan["steps"]) == len(POLICY.state_dict())
    assert (report["verb"], report["ok"]) == ("convert", True)


@pytest.mark.parametrize("form", ["out.safetensors", "out.pt", "out.npz"])
def test_one_file_holds_its_configuration_and_where_each_tensor_comes_from(
    form: str, snapshot: Path, tmp_path: Path
) -> None:
    report = wk.convert(snapshot, to="drqv2", set=CAMERAS, out=tmp_path / form)
    metadata: Any = open_checkpoint(tmp_path / form).metadata
    assert metadata["config"] == CONFIG.to_dict()
    lineage = metadata["lineage"]
    assert lineage["complete"] is True
    assert lineage["plan"] == report.facts["plan_digest"]
    assert lineage["source"]["name"] == "best.pt"
    rows = {row["target"]: row for row in report.to_dict()["rows"]}  # type: ignore[attr-defined]
    for name, row in lineage["tensors"].items():
        assert row["digest"] == tensor_digest(open_checkpoint(tmp_path / form).read(name))
        assert row["source_digests"] == [tensor_digest(open_checkpoint(snapshot).read(row["sources"][0]))]
        assert (row["digest"], row["source_digests"]) == (rows[name]["digest"], rows[name]["source_digests"])
    assert set(lineage["tensors"]) == set(POLICY.state_dict())
    assert lineage["tensors"]["encoder.wrist.2.bias"]["sources"] == ["encoder.convs_per_cam.1.3.bias"]


def test_a_pt_output_is_what_torch_loads_without_trust(snapshot: Path, tmp_path: Path) -> None:
    wk.convert(snapshot, to="drqv2", set=CAMERAS, out=tmp_path / "out.pt")
    loaded = torch.load(tmp_path / "out.pt", weights_only=True)["state_dict"]
    copy = ARCHITECTURE.build(CONFIG)
    copy.load_state_dict(loaded, strict=True)
    assert torch.equal(copy.act(OBSERVATION), POLICY.act(OBSERVATION))


def test_without_an_output_name_the_file_lies_beside_its_source(snapshot: Path, tmp_path: Path) -> None:
    source = tmp_path / "best.pt"
    source.write_bytes(snapshot.read_bytes())
    report = wk.convert(source, to="drqv2", set=CAMERAS)
    assert listing(tmp_path) == ["best.drqv2.safetensors", "best.pt"]
    assert report.facts["out"] == str(tmp_path / "best.drqv2.safetensors")
    assert_acts_like(tmp_path / "best.drqv2.safetensors")


def test_an_ending_that_nobody_writes_is_refused_before_anything_is_written(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ending"):
        wk.convert(snapshot, to="drqv2", out=tmp_path / "out.h5")
    assert listing(tmp_path) == []


# ---- OUT refused


@pytest.mark.parametrize("form", FORMS)
def test_an_existing_output_is_replaced_with_force_only(form: str, snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / form
    wk.convert(snapshot, to="drqv2", out=out)
    with pytest.raises(WriteError, match="exists already") as refused:
        wk.convert(snapshot, to="drqv2", set=CAMERAS, out=out)
    assert refused.value.exit_code == 6
    assert wk.load_policy(out).cameras == ("cam0", "cam1")
    wk.convert(snapshot, to="drqv2", set=CAMERAS, out=out, force=True)
    assert_acts_like(out)
    assert listing(tmp_path) == [form]


def test_a_folder_that_weightkit_did_not_write_is_refused_even_with_force(snapshot: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "precious"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"mine": true}')
    with pytest.raises(WriteError, match="did not write"):
        wk.convert(snapshot, to="drqv2", out=foreign, force=True)
    assert (foreign / "config.json").read_text() == '{"mine": true}'
    assert listing(tmp_path) == ["precious"]


@pytest.mark.parametrize("force", [False, True])
def test_the_input_as_output_is_refused(snapshot: Path, tmp_path: Path, force: bool) -> None:
    source = tmp_path / "best.pt"
    source.write_bytes(snapshot.read_bytes())
    with pytest.raises(WriteError):
        wk.convert(source, to="drqv2", out=source, force=force)
    assert source.read_bytes() == snapshot.read_bytes()


@pytest.mark.parametrize("out", ["policy", "policy/model.safetensors"])
def test_an_input_folder_as_output_is_refused_even_with_force(snapshot: Path, tmp_path: Path, out: str) -> None:
    wk.convert(snapshot, to="drqv2", out=tmp_path / "policy")
    before = {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()}
    with pytest.raises(WriteError):
        wk.convert(tmp_path / "policy", to="drqv2", out=tmp_path / out, force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "policy").iterdir()} == before


def test_a_missing_folder_is_named_and_nothing_is_written(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="does not exist"):
        wk.convert(snapshot, to="drqv2", out=tmp_path / "nowhere" / "out.pt")
    assert listing(tmp_path) == []


# ---- parts of a policy


def test_a_policy_without_its_critics_acts_and_says_that_it_has_no_critic(snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "actor.safetensors"
    report = wk.convert(snapshot, to="drqv2", set=CAMERAS, drop=["critic*"], allow_missing=["critic*"], out=out)
    assert report.facts["complete"] is False
    assert {f.code for f in report.findings if f.subject.startswith("critic")} == {"WK209"}
    metadata: Any = open_checkpoint(out).metadata
    assert metadata["lineage"]["complete"] is False
    policy = wk.load_policy(out)
    assert torch.equal(policy.act(OBSERVATION), POLICY.act(OBSERVATION))
    with pytest.raises(ValueError, match="no critic"):
        policy.q_values(OBSERVATION, policy.act(OBSERVATION))


@pytest.mark.parametrize("gone", ["critic_target", "critic"])
def test_what_convert_wrote_without_one_of_the_critics_still_acts(gone: str, snapshot: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    wk.convert(snapshot, to="drqv2", set=CAMERAS, drop=[f"{gone}.*"], allow_missing=[f"{gone}.*"], out=out)
    assert torch.equal(wk.load_policy(out).act(OBSERVATION), POLICY.act(OBSERVATION))


def test_a_glob_cannot_leave_out_what_acting_reads(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as refused:
        wk.convert(
            snapshot, to="drqv2", set=CAMERAS, drop=["*.out_mlp.*"], allow_missing=["*.head.*"], out=tmp_path / "o.pt"
        )
    assert subjects(refused.value) == {"actor.head.weight", "actor.head.bias"}
    assert all("--allow-missing 'actor.head." in finding.hint for finding in refused.value.report.errors())
    assert listing(tmp_path) == []


def test_what_acting_reads_is_left_out_when_named_one_by_one_and_such_a_file_does_not_load(tmp_path: Path) -> None:
    source = edited(tmp_path, **{"actor.actor_model.out_mlp.0.bias": None, "actor_model.out_mlp.0.bias": None})
    out = tmp_path / "out.safetensors"
    report = wk.convert(source, to="drqv2", set=CAMERAS, allow_missing=["actor.head.bias"], out=out)
    assert report.facts["left_out"] == {"actor.head.bias": "--allow-missing 'actor.head.bias'"}
    assert "actor.head.bias" not in open_checkpoint(out).state
    for path in (out, source):
        with pytest.raises(WeightkitError) as refused:
            wk.load_policy(path)
        findings = refused.value.report.errors() if isinstance(refused.value, PlanError) else ()
        assert "actor.head.bias" in " ".join([str(refused.value), *(f.subject for f in findings)])


def test_a_missing_tensor_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    source = edited(tmp_path, **{"encoder.convs_per_cam.1.3.bias": None})
    with pytest.raises(PlanError) as refused:
        wk.convert(source, to="drqv2", set=CAMERAS, out=tmp_path / "out")
    assert subjects(refused.value) == {"encoder.wrist.2.bias"}
    assert refused.value.report.exit_code == refused.value.exit_code == 1
    assert listing(tmp_path) == ["edited.pt"]


def test_copies_that_differ_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    name = "actor_model.out_mlp.0.bias"
    source = edited(tmp_path, **{name: torch.full((2,), 9.0)})
    with pytest.raises(PlanError) as refused:
        wk.convert(source, to="drqv2", set=CAMERAS, out=tmp_path / "out.pt")
    assert subjects(refused.value) == {name}
    assert listing(tmp_path) == ["edited.pt"]


def test_another_element_type_is_a_choice_that_must_be_named(tmp_path: Path) -> None:
    name = "critic.qs.1.out_mlp.0.bias"
    source = edited(tmp_path, **{name: torch.tensor([0.25], dtype=torch.float16)})
    with pytest.raises(PlanError) as refused:
        wk.convert(source, to="drqv2", set=CAMERAS, out=tmp_path / "out.pt")
    assert subjects(refused.value) == {"critic.qs.1.head.bias"}
    assert "cast:float32" in refused.value.report.errors()[0].hint
    wk.convert(source, to="drqv2", set=CAMERAS, adapt={"*": "cast:float32"}, out=tmp_path / "out.pt")
    assert float(open_checkpoint(tmp_path / "out.pt").read("critic.qs.1.head.bias")[0]) == 0.25


def test_a_narrowing_cast_is_lossy_and_one_that_overflows_writes_nothing(tmp_path: Path) -> None:
    name = "critic.qs.1.out_mlp.0.bias"
    source = edited(tmp_path, **{name: torch.tensor([1e300], dtype=torch.float64)})
    choice: dict[str, Any] = {"to": "drqv2", "set": CAMERAS, "adapt": ["*=cast:float32"], "out": tmp_path / "out.pt"}
    with pytest.raises(PlanError) as refused:
        wk.convert(source, **choice)
    assert [(f.code, f.subject) for f in refused.value.report.errors()] == [("WK208", "critic.qs.1.head.bias")]
    with pytest.raises(PlanError) as refused:
        wk.convert(source, allow_lossy=True, **choice)
    assert [(f.code, f.subject) for f in refused.value.report.errors()] == [("WK205", "critic.qs.1.head.bias")]
    assert listing(tmp_path) == ["edited.pt"]


# ---- same names


@pytest.mark.parametrize("form", ["out.safetensors", "out.pt", "out.npz"])
def test_a_conversion_to_the_same_names_keeps_every_name_and_tie(form: str, snapshot: Path, tmp_path: Path) -> None:
    report = wk.convert(snapshot, out=tmp_path / form)
    before, after = open_checkpoint(snapshot), open_checkpoint(tmp_path / form)
    assert dict(after.state.tensors) == dict(before.state.tensors)
    assert after.state.aliases == before.state.aliases
    assert len(after.state.aliases) > 0
    assert all(after.read(name).tobytes() == before.read(name).tobytes() for name in before.state)
    assert report.facts["class"] == "BIJ"


def test_a_conversion_to_the_same_names_keeps_what_the_file_says_about_the_policy(
    snapshot: Path, tmp_path: Path
) -> None:
    wk.convert(snapshot, out=tmp_path / "out.pt")
    before, after = wk.inspect(snapshot).to_dict(), wk.inspect(tmp_path / "out.pt").to_dict()
    configs: Any = [before["architecture"], after["architecture"]]
    assert configs[0]["config"] == configs[1]["config"]


def test_a_policy_of_weightkits_own_keeps_its_configuration_in_another_container(
    snapshot: Path, tmp_path: Path
) -> None:
    wk.convert(snapshot, to="drqv2", set=CAMERAS, out=tmp_path / "a.pt")
    wk.convert(tmp_path / "a.pt", out=tmp_path / "b")
    assert_acts_like(tmp_path / "b")
    assert wk.load_policy(tmp_path / "b").config == CONFIG


def test_a_name_can_be_dropped_from_a_conversion_to_the_same_names(snapshot: Path, tmp_path: Path) -> None:
    wk.convert(snapshot, drop=["*.hidden_state"], out=tmp_path / "out.pt")
    names = set(open_checkpoint(tmp_path / "out.pt").state)
    assert names == {name for name in open_checkpoint(snapshot).state if not name.endswith("hidden_state")}


def test_a_file_in_the_target_layout_stays_as_it_is_and_the_report_says_so(snapshot: Path, tmp_path: Path) -> None:
    wk.convert(snapshot, to="drqv2", set=CAMERAS, out=tmp_path / "a.pt")
    report = wk.convert(tmp_path / "a.pt", to="drqv2", out=tmp_path / "b.pt")
    assert list(open_checkpoint(tmp_path / "b.pt").state) == list(open_checkpoint(tmp_path / "a.pt").state)
    note = next(finding for finding in report.findings if "already" in finding.message)
    assert "pattern" not in CODES[note.code], f"{note.code} means: {CODES[note.code]}"


# ---- refusals


def test_a_file_with_a_payload_is_refused_and_its_payload_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"agent": robobase_state(POLICY), "x": Payload()}, tmp_path / "unsafe.pt")
    for to in (None, "drqv2"):
        with pytest.raises(UnsafeContent) as refused:
            wk.convert(tmp_path / "unsafe.pt", to=to, out=tmp_path / "out.pt")
        assert refused.value.exit_code == 4
    with pytest.raises(UnsafeContent):
        wk.load_policy(tmp_path / "unsafe.pt")
    assert wk.inspect(tmp_path / "unsafe.pt").exit_code == 4
    assert listing(tmp_path) == ["unsafe.pt"]


def test_tensors_of_no_known_policy_are_refused_with_what_to_say(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(UnknownFormat, match="no layout is recognised") as refused:
        wk.convert(tmp_path / "a.pt", to="drqv2", out=tmp_path / "b.pt")
    assert "--from" in refused.value.hint
    with pytest.raises(PlanError) as unplanned:
        wk.convert(tmp_path / "a.pt", to="drqv2", from_="robobase-drqv2", out=tmp_path / "b.pt")
    assert "--config_path" in str(unplanned.value)
    assert listing(tmp_path) == ["a.pt"]


@pytest.mark.parametrize(
    ("choices", "what"),
    [
        ({"to": "drqv3"}, "did you mean 'drqv2'"),
        ({"to": "drqv2", "from_": "robobase"}, "did you mean 'robobase-drqv2'"),
        ({"to": "robobase-drqv2", "set": {"num_train_envs": "none"}}, "num_train_envs"),
        ({"set": CAMERAS}, "no --to LAYOUT"),
        ({"to": "drqv2", "set": ["cameras"]}, "expected KEY=VALUE"),
        ({"to": "drqv2", "set": {"camera": "a,b"}}, "did you mean 'cameras'"),
        ({"to": "drqv2", "adapt": ["*=blow_up"]}, "adapters: inflate:newest"),
        ({"to": "drqv2", "adapt": ["inflate:newest"]}, "PATTERN=ADAPTER"),
        ({"to": "drqv2", "drop": ["encodr.*"]}, "--drop 'encodr.*' matches no source tensor"),
        ({"to": "drqv2", "adapt": ["encodr.*=inflate:newest"]}, "--adapt 'encodr.*' matches no target tensor"),
        ({"to": "drqv2", "allow_missing": ["encodr.*"]}, "--allow-missing 'encodr.*' matches no target tensor"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_words(
    choices: dict[str, Any], what: str, snapshot: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as refused:
        wk.convert(snapshot, out=tmp_path / "out.pt", **choices)
    assert what in str(refused.value)
    assert refused.value.exit_code == 2
    assert listing(tmp_path) == []


def test_two_adapters_for_one_tensor_are_not_decided_by_their_order(tmp_path: Path) -> None:
    single = {**SMALL_DRQV2, "frame_stack": 1}
    policy = drqv2_policy(single, 3)
    source = save_robobase(tmp_path / "a.pt", robobase_state(policy), cfg=cfg_of(drqv2_config(single)))
    one, other = "*=inflate:newest", "encoder.*=inflate:mean"
    outcomes = []
    for adapt in ([one, other], [other, one]):
        try:
            report = wk.convert(
                source, to="drqv2", set={"frame_stack": "2"}, adapt=adapt, out=tmp_path / "b.pt", force=True
            )
            outcomes.append(report.facts["plan_digest"])
        except (PlanError, UsageError) as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]


def test_a_damaged_configuration_inside_a_file_is_named_and_not_passed_over(snapshot: Path, tmp_path: Path) -> None:
    wk.convert(snapshot, to="drqv2", out=tmp_path / "policy")
    path = tmp_path / "policy" / "config.json"
    path.write_text(
        path.read_text().replace('"bottleneck_size":', '"bottleneck_sise":').replace('"action_dim":', '"x":')
    )
    (finding,) = [f for f in wk.inspect(tmp_path / "policy").findings if f.code == "WK107"]
    assert "action_dim" in finding.message
    with pytest.raises(wk.PlanError, match="action_dim"):
        wk.load_policy(tmp_path / "policy")
