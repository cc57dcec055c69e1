"""Files of other projects: what their own code computed, what stock code loads, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import weightkit as wk
from locations import ROOT, SHARED, needs_shared
from robobase_files import cfg_of, robobase_spec, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_observations
from weightkit.architectures import known_layouts, recognise
from weightkit.architectures.beside import array_of_json, array_to_json
from weightkit.errors import PlanError, WeightkitError
from weightkit.formats import open_checkpoint
from weightkit.verbs.convert import save_plan
from weightkit.verbs.listing import list_layouts
from weightkit.verbs.verify_outputs import verify_outputs
from weightkit_runners.templates import write_template
from whole_agents import importable, save_drqv2

PEERS = ROOT / "fixtures" / "peers"
SMALL = drqv2_config(SMALL_DRQV2)


def small_robobase(path: Path, **changes: torch.Tensor) -> Path:
    """A RoboBase snapshot of a small net with random weights."""
    generator = torch.Generator().manual_seed(5)
    spec = robobase_spec(SMALL)
    state = {name: torch.randn(spec[name].shape, generator=generator) * 0.3 for name in spec.unique()}
    state |= {alias: state[of] for alias, of in spec.aliases.items()}
    return save_robobase(path, {**state, **changes}, cfg=cfg_of(SMALL))


# ---- the same numbers as the original code


def test_a_robobase_policy_with_two_cameras_time_and_a_distribution_computes_what_was_recorded(tmp_path: Path) -> None:
    recorded = np.load(PEERS / "robobase_distributional_time_2cam.outputs.npz")
    source = PEERS / "robobase_distributional_time_2cam.snapshot.pt"
    cameras = ["front", "wrist"]
    observation: dict[str, Any] = {}
    for camera in cameras:
        pixels = recorded[f"obs.rgb_{camera}"]
        observation[f"observation.images.{camera}"] = pixels.reshape(len(pixels), -1, *pixels.shape[3:])
    observation["observation.state"] = recorded["obs.low_dim_state"].reshape(4, -1)
    observation["observation.time"] = recorded["obs.time"][:, -1].astype(np.float32)
    for layout in ("drqv2", "robobase-drqv2", "lerobot-drqv2"):
        out = tmp_path / f"{layout}.safetensors"
        wk.convert(source, to=layout, set={"cameras": ",".join(cameras)}, out=out)
        policy = wk.load_policy(out)
        assert policy.cameras == tuple(cameras)
        action = policy.act(observation)
        assert float(abs(action.numpy() - recorded["action"][:, 0]).max()) < 1e-5
        for q, name in ((policy.q_values, "q"), (policy.target_q_values, "q_target")):
            assert float(abs(q(observation, action).numpy() - recorded[name].T).max()) < 1e-5


def test_a_pickled_drqv2_agent_computes_what_its_own_modules_compute(tmp_path: Path) -> None:
    agent = save_drqv2(tmp_path / "snapshot.pt", (6, 2, 2, 3, 4))
    pixels = torch.randint(0, 256, (2, 6, 84, 84), dtype=torch.uint8)
    with importable(), torch.no_grad():
        features = agent.encoder.convnet(pixels.float() / 255.0 - 0.5).flatten(1)
        action = torch.tanh(agent.actor.policy(agent.actor.trunk(features)))
        seen = torch.cat([agent.critic.trunk(features), action], dim=1)
        values = torch.stack([agent.critic.Q1(seen), agent.critic.Q2(seen)]).squeeze(2)
    observation = {"observation.images.cam0": pixels}
    for source in (tmp_path / "snapshot.pt", *converted(tmp_path, "snapshot.pt")):
        policy = wk.load_policy(source)
        assert float(abs(policy.act(observation) - action).max()) < 1e-5
        assert float(abs(policy.q_values(observation, action) - values).max()) < 1e-5


def converted(folder: Path, name: str) -> list[Path]:
    """The file in every other layout of its architecture."""
    outs = []
    for layout in ("drqv2", "robobase-drqv2", "lerobot-drqv2", "fb-drqv2"):
        outs.append(folder / f"{layout}.pt")
        wk.convert(folder / name, to=layout, out=outs[-1])
    return outs


def test_separate_critic_trunks_become_one_only_where_they_are_equal(tmp_path: Path) -> None:
    save_drqv2(tmp_path / "snapshot.pt", (6, 2, 2, 3, 4))
    wk.convert(tmp_path / "snapshot.pt", to="robobase-drqv2", out=tmp_path / "equal.pt")
    wk.convert(tmp_path / "equal.pt", to="fb-drqv2", out=tmp_path / "back.pt")
    document = torch.load(tmp_path / "equal.pt", weights_only=True)
    state = document["state_dict"]
    name = "critic.qs.1.input_preprocess_modules.fused_view_feats.0.weight"
    state[name] = state[name] + 1e-3
    torch.save(document, tmp_path / "apart.pt")
    with pytest.raises(PlanError, match="is not the first"):
        wk.convert(tmp_path / "apart.pt", to="fb-drqv2", out=tmp_path / "no.pt")
    assert not (tmp_path / "no.pt").exists()


# ---- pixels


@pytest.mark.parametrize("layout", ["drqv2", "robobase-drqv2", "lerobot-drqv2", "fb-drqv2"])
def test_float_images_above_one_are_refused_and_the_report_says_the_sources_scale(layout: str, tmp_path: Path) -> None:
    save_drqv2(tmp_path / "snapshot.pt", (6, 2, 2, 3, 4))
    report = wk.convert(tmp_path / "snapshot.pt", to=layout, out=tmp_path / "out.pt")
    policy = wk.load_policy(tmp_path / "out.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 6, 84, 84)).astype(np.uint8)
    action = policy.act({"observation.images.cam0": pixels})
    assert float(abs(policy.act({"observation.images.cam0": pixels.astype(np.float32) / 255}) - action).max()) < 1e-5
    with pytest.raises(ValueError, match=r"float images must lie in 0\.\.1"):
        policy.act({"observation.images.cam0": pixels.astype(np.float32)})
    conventions: Any = report.facts["conventions"]
    assert conventions["source"]["pixels"] == "0..255"
    assert "divides by 255" in conventions["source"]["images"]
    assert {"layout", "pixels", "images", "state", "action", "trap", "stock"} == set(conventions["target"])
    warned = [finding.message for finding in report.findings if finding.code == "WK221"]
    assert bool(warned) is (layout == "lerobot-drqv2")
    assert all("multiply by 255" in message for message in warned)


# ---- the fork's policy


class StandIn(nn.Module):
    """A module with exactly these names: parameters that share a tensor are the same parameter."""

    def __init__(self, table: dict[str, Any]) -> None:
        super().__init__()
        made: dict[str, nn.Parameter] = {}
        for name, entry in table.items():
            *path, last = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module._modules[part]  # type: ignore[assignment]
            of = entry.get("alias_of") or name
            made.setdefault(of, nn.Parameter(torch.full(entry["shape"], float("nan"))))
            module.register_parameter(last, made[of])


@needs_shared
def test_what_is_written_for_the_fork_loads_strictly_into_a_module_of_its_names(tmp_path: Path) -> None:
    table = json.loads((SHARED / "facts/keys/lerobot_fork_drqv2_1cam_fs3_mlp256.json").read_text(encoding="utf-8"))
    wk.convert(ROOT / "fixtures/best_snapshot.pt", to="lerobot-drqv2", set={"cameras": "front"}, out=tmp_path / "o.pt")
    state = torch.load(tmp_path / "o.pt", weights_only=True)["state_dict"]
    # the table is of 84x84 images and 32 channels; the fixture is smaller, its names are the same
    stand_in = StandIn({name: {**entry, "shape": list(state[name].shape)} for name, entry in table.items()})
    assert set(state) == set(table)
    found = stand_in.load_state_dict(state, strict=True)
    assert not found.missing_keys
    assert not found.unexpected_keys
    assert all(bool(torch.isfinite(tensor).all()) for tensor in stand_in.state_dict().values())
    wk.convert(ROOT / "fixtures/best_snapshot.pt", to="lerobot-drqv2", set={"cameras": "front"}, out=tmp_path / "dir")
    from safetensors.torch import load_model

    assert load_model(stand_in, tmp_path / "dir" / "model.safetensors", strict=True) == (set(), [])


def test_a_folder_for_the_fork_is_a_lerobot_folder_that_is_read_again(tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    wk.convert(source, to="lerobot-drqv2", set={"cameras": "front,wrist"}, out=tmp_path / "policy")
    config = json.loads((tmp_path / "policy" / "config.json").read_text(encoding="utf-8"))
    assert config["type"] == "drqv2"
    assert list(config["input_features"]) == [
        "observation.images.front", "observation.images.wrist", "observation.state",
    ]  # fmt: skip
    found = recognise(open_checkpoint(tmp_path / "policy"))
    assert found is not None
    assert (found.layout, found.config.cameras, found.confidence) == ("lerobot-drqv2", ("front", "wrist"), "certain")
    for name in ("plan.json", "report.json"):
        (tmp_path / "policy" / name).unlink()
    weights = open_checkpoint(tmp_path / "policy" / "model.safetensors")
    from safetensors.torch import save_file

    save_file({name: torch.from_numpy(weights.read(name)) for name in weights.state.unique()},
              tmp_path / "policy" / "model.safetensors")  # fmt: skip
    found = recognise(open_checkpoint(tmp_path / "policy"))
    assert found is not None
    assert (found.layout, found.config) == ("lerobot-drqv2", wk.load_policy(tmp_path / "policy").config)
    assert found.config.cameras == ("front", "wrist")


def test_a_folder_that_somebody_put_something_into_is_not_replaced(tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    wk.convert(source, to="lerobot-drqv2", out=tmp_path / "policy")
    wk.convert(source, to="lerobot-drqv2", out=tmp_path / "policy", force=True)
    (tmp_path / "policy" / "notes.txt").write_text("mine")
    with pytest.raises(WeightkitError, match="did not write"):
        wk.convert(source, to="lerobot-drqv2", out=tmp_path / "policy", force=True)
    assert (tmp_path / "policy" / "notes.txt").read_text() == "mine"


# ---- RoboBase's own


def test_hidden_state_starts_at_zero_for_as_many_environments_as_are_asked_for(tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    wk.convert(source, to="drqv2", out=tmp_path / "native.pt")
    for settings, envs in ((["num_train_envs=3"], 3), ([], 1)):
        wk.convert(tmp_path / "native.pt", to="robobase-drqv2", set=settings, out=tmp_path / "back.pt", force=True)
        back, original = open_checkpoint(tmp_path / "back.pt"), open_checkpoint(source)
        assert set(back.state) == set(original.state)
        for name in original.state:
            if name.endswith("hidden_state"):
                assert back.state[name].shape == (1, envs + 1, 128)
                assert not back.read(name).any()
            else:
                assert back.read(name).tobytes() == original.read(name).tobytes()
    wk.convert(source, to="robobase-drqv2", out=tmp_path / "again.pt")
    assert open_checkpoint(tmp_path / "again.pt").state["actor_model.hidden_state"].shape == (1, 9, 128)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("actor.actor_model.time_dim_rnn.weight_ih_l0", "GRU"),
        ("view_fusion._pos_embed_encode", "attention"),
        ("intrinsic_reward_module.net.0.weight", "intrinsic"),
    ],
)
def test_a_variant_that_our_net_is_not_is_refused_by_its_name(name: str, what: str, tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt", **{name: torch.zeros(2, 2)})
    with pytest.raises(PlanError, match=what) as refused:
        wk.convert(source, to="drqv2", out=tmp_path / "out.pt")
    assert [finding.subject for finding in refused.value.report.errors()] == [name]
    assert not (tmp_path / "out.pt").exists()


def test_a_policy_without_images_and_one_without_its_encoder_are_told_apart(tmp_path: Path) -> None:
    full = torch.load(small_robobase(tmp_path / "full.pt"), weights_only=True)["agent"]
    lost = {name: tensor for name, tensor in full.items() if not name.startswith("encoder.")}
    blind = {name: tensor for name, tensor in lost.items() if "fused_view_feats" not in name}
    for agent, what in ((lost, "encoder's tensors are not in the file"), (blind, "without images")):
        torch.save({"agent": agent}, tmp_path / "a.pt")
        with pytest.raises(PlanError, match=what):
            wk.convert(tmp_path / "a.pt", to="drqv2", out=tmp_path / "out.pt")


# ---- LeRobot's own folder, there and back


@needs_shared
def test_the_real_lerobot_policy_computes_what_was_recorded_in_every_layout_and_comes_back_byte_for_byte(
    tmp_path: Path,
) -> None:
    real = SHARED / "real" / "lerobot044_sac_shared"
    recorded = np.load(SHARED / "real" / "lerobot044_sac_shared.outputs.npz")
    observation = {key.removeprefix("obs."): recorded[key] for key in recorded.files if key.startswith("obs.")}
    wk.convert(real, to="sac", out=tmp_path / "native")
    wk.convert(tmp_path / "native", to="lerobot-sac", out=tmp_path / "back")
    wk.convert(tmp_path / "back", to="lerobot-gaussian-actor", out=tmp_path / "later")
    wk.convert(tmp_path / "later", to="lerobot-sac", out=tmp_path / "again")
    for source in (real, tmp_path / "native", tmp_path / "back", tmp_path / "later", tmp_path / "again"):
        policy = wk.load_policy(source)
        assert float(abs(policy.act(observation).numpy() - recorded["action"]).max()) < 1e-5
        assert float(abs(policy.q_values(observation, recorded["action"]).numpy() - recorded["q"]).max()) < 1e-5
        targets = policy.target_q_values(observation, recorded["action"]).numpy()
        assert float(abs(targets - recorded["q_target"]).max()) < 1e-5
    from safetensors.numpy import load_file

    original = load_file(real / "pretrained_model" / "model.safetensors")
    for folder in ("back", "again"):
        written = load_file(tmp_path / folder / "model.safetensors")
        assert written.keys() == original.keys()
        assert all(written[name].tobytes() == original[name].tobytes() for name in original)
    configs = [json.loads((folder / "config.json").read_text(encoding="utf-8"))
               for folder in (real / "pretrained_model", tmp_path / "back")]  # fmt: skip
    assert configs[0] == configs[1]
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        assert json.loads((tmp_path / "back" / name).read_text()) == json.loads(
            (real / "pretrained_model" / name).read_text()
        )
    for path in (real / "pretrained_model").glob("policy_*.safetensors"):
        before, after = load_file(path), load_file(tmp_path / "back" / path.name)
        assert before.keys() == after.keys()
        assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_drqv2_does_not_become_sac_and_the_reason_is_said(tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    with pytest.raises(PlanError, match="no sac net computes what it does"):
        wk.convert(source, to="lerobot-sac", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_layout_is_listed_with_its_architecture() -> None:
    rows: Any = list_layouts().facts["layouts"]
    assert {row["name"]: row["architecture"] for row in rows} == known_layouts()
    assert all(row["title"] and row["from"] == "weightkit" for row in rows)


def test_an_observation_as_the_net_wants_it_acts(tmp_path: Path) -> None:
    policy = wk.load_policy(small_robobase(tmp_path / "source.pt"))
    observation = drqv2_observations({**SMALL_DRQV2, "cameras": ["cam0", "cam1"]}, 0)[0]
    assert policy.act(observation).shape == (2, SMALL.action_dim)


# ---- what a file states counts


@pytest.mark.parametrize(
    ("settings", "what"),
    [(["cameras=cam1,cam0"], None), (["fusion=average"], "outputs"), (["value_limit=3"], "outputs")],
)
def test_a_setting_that_contradicts_what_the_file_states_changes_the_function_and_is_refused(
    settings: list[str], what: str | None, tmp_path: Path
) -> None:
    config = replace(SMALL, fusion="sum", num_atoms=5)
    generator = torch.Generator().manual_seed(5)
    spec = robobase_spec(config)
    state = {name: torch.randn(spec[name].shape, generator=generator) * 0.3 for name in spec.unique()}
    source = save_robobase(
        tmp_path / "s.pt", state | {a: state[of] for a, of in spec.aliases.items()}, cfg=cfg_of(config)
    )
    if what is None:  # RoboBase does not store names: whoever gives them says what they are
        wk.convert(source, to="drqv2", set=settings, out=tmp_path / "out.pt")
        return
    with pytest.raises(PlanError, match=what):
        wk.convert(source, to="drqv2", set=settings, out=tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_cameras_that_the_file_names_are_not_swapped_by_a_setting(tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    wk.convert(source, to="lerobot-drqv2", set={"cameras": "front,wrist"}, out=tmp_path / "policy")
    weights = open_checkpoint(tmp_path / "policy" / "model.safetensors")
    from safetensors.torch import save_file

    genuine = tmp_path / "genuine"
    genuine.mkdir()
    (genuine / "config.json").write_bytes((tmp_path / "policy" / "config.json").read_bytes())
    arrays = {name: torch.from_numpy(weights.read(name)) for name in weights.state.unique()}
    save_file(arrays, genuine / "model.safetensors")
    for folder in (tmp_path / "policy", genuine):
        with pytest.raises(PlanError, match="two are swapped"):
            wk.convert(folder, to="drqv2", set={"cameras": "wrist,front"}, out=tmp_path / "out.pt")
        report = wk.convert(folder, to="drqv2", set={"cameras": "top,side"}, out=tmp_path / "renamed.pt", force=True)
        assert wk.load_policy(tmp_path / "renamed.pt").cameras == ("top", "side")
        check: Any = report.facts["function_check"]
        assert check["verdict"] == "equal"
        assert "by their order" in check["notes"][0]
    document = json.loads((genuine / "config.json").read_text())
    del document["input_features"]["observation.images.wrist"]
    (genuine / "config.json").write_text(json.dumps(document))
    assert wk.inspect(genuine).exit_code == 0
    with pytest.raises(PlanError, match="names the cameras front"):
        wk.convert(genuine, to="drqv2", out=tmp_path / "none.pt")


@needs_shared
def test_a_plan_into_a_lerobot_folder_is_undone_although_statistics_lie_beside_the_weights(tmp_path: Path) -> None:
    real = SHARED / "real" / "lerobot044_sac_shared"
    wk.convert(real, to="sac", out=tmp_path / "native.safetensors")
    save_plan(tmp_path / "native.safetensors", tmp_path / "plan.json", to="lerobot-sac")
    wk.convert(tmp_path / "native.safetensors", plan=tmp_path / "plan.json", out=tmp_path / "lerobot")
    wk.convert(tmp_path / "lerobot", invert=tmp_path / "plan.json", out=tmp_path / "again.safetensors")
    before, after = open_checkpoint(tmp_path / "native.safetensors"), open_checkpoint(tmp_path / "again.safetensors")
    assert set(before.state) == set(after.state)
    assert all(before.read(name).tobytes() == after.read(name).tobytes() for name in before.state)


# ---- folders: what is replaced, what goes along


@pytest.mark.parametrize("change", ["overwritten", "added", "folder", "link", "forged", "deep"])
def test_a_folder_that_is_not_as_it_was_written_is_not_replaced(change: str, tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    for layout in ("drqv2", "lerobot-drqv2"):
        policy = tmp_path / layout
        wk.convert(source, to=layout, out=policy)
        if change == "overwritten" and layout == "lerobot-drqv2":
            (policy / "model.safetensors").write_bytes(b"three weeks of training")
        elif change == "added":
            (policy / "notes.txt").write_text("mine")
        elif change == "folder":
            (policy / "plan.json").unlink()
            (policy / "plan.json").mkdir()
            (policy / "plan.json" / "mine.txt").write_text("mine")
        elif change == "link":
            (policy / "linked").symlink_to(tmp_path)
        elif change == "forged" and layout == "lerobot-drqv2":
            report = json.loads((policy / "report.json").read_text())
            report["files"]["thesis.docx"] = "0" * 32
            (policy / "report.json").write_text(json.dumps(report))
            (policy / "thesis.docx").write_text("mine")
        elif change == "deep" and layout == "lerobot-drqv2":
            (policy / "report.json").write_text("[" * 200_000)
        else:
            continue
        before = sorted(path.relative_to(policy) for path in policy.rglob("*"))
        with pytest.raises(WeightkitError, match="did not write"):
            wk.convert(source, to=layout, out=policy, force=True)
        assert sorted(path.relative_to(policy) for path in policy.rglob("*")) == before


@needs_shared
@pytest.mark.parametrize("name", ["a/b", "..", 5, [1], "\x1b[31m"])
def test_statistics_of_a_step_with_an_odd_name_go_along_or_are_named(name: object, tmp_path: Path) -> None:
    import shutil

    real = SHARED / "real" / "lerobot044_sac_shared" / "pretrained_model"
    shutil.copytree(real, tmp_path / "odd")
    path = tmp_path / "odd" / "policy_preprocessor.json"
    path.chmod(0o644)
    document = json.loads(path.read_text())
    next(step for step in document["steps"] if "state_file" in step)["registry_name"] = name
    (tmp_path / "odd").chmod(0o755)
    path.write_text(json.dumps(document))
    wk.convert(tmp_path / "odd", to="sac", out=tmp_path / "native.safetensors")
    wk.convert(tmp_path / "native.safetensors", to="lerobot-sac", out=tmp_path / "back")
    for file in real.glob("policy_*.safetensors"):
        assert (tmp_path / "back" / file.name).exists()


@pytest.mark.parametrize(
    "value",
    [
        {"dtype": "uint8", "shape": [1], "values": [300]},
        {"dtype": "complex32", "shape": [1], "values": [1]},
        {"dtype": "float32", "shape": [None], "values": [1]},
        {"dtype": "float32", "shape": [2], "values": [[0] * 600] * 2},
        {"dtype": "none", "shape": [1], "values": [1]},
        {"dtype": "float32", "shape": [3], "values": [1]},
        "statistics",
    ],
)
def test_statistics_that_make_no_sense_are_refused(value: object) -> None:
    with pytest.raises(ValueError):
        array_of_json(value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bfloat16", "bool", "uint8"])
def test_statistics_survive_json_bit_for_bit(dtype: str) -> None:
    import ml_dtypes

    wanted = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    array = np.random.default_rng(0).uniform(0, 200, (3, 2)).astype(wanted)
    again = array_of_json(json.loads(json.dumps(array_to_json(array))))
    assert again.dtype == array.dtype
    assert again.tobytes() == array.tobytes()


@pytest.mark.parametrize("settings", [["num_train_envs=²"], ["num_train_envs=" + "9" * 5000], ["value_limit=inf"]])
def test_a_setting_that_is_no_number_is_refused_in_words(settings: list[str], tmp_path: Path) -> None:
    with pytest.raises(WeightkitError):
        wk.convert(small_robobase(tmp_path / "s.pt"), to="robobase-drqv2", set=settings, out=tmp_path / "o.pt")


def test_a_configuration_of_a_million_layers_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="too many"):
        replace(SMALL, mlp_nodes=(1,) * 200_000)
    with pytest.raises(ValueError, match="too many"):
        replace(SMALL, cameras=tuple(f"c{i}" for i in range(10_000)))


# ---- what reviewers tried


@needs_shared
def test_frames_are_stacked_into_lerobots_channels_newest_last(tmp_path: Path) -> None:
    real = SHARED / "real" / "lerobot044_sac_shared"
    settings = {"frame_stack": "3", "processors": "false"}
    report = wk.convert(real, to="lerobot-sac", set=settings, adapt={"*": "inflate:newest"}, out=tmp_path / "three")
    check: Any = report.facts["function_check"]
    assert (check["verdict"], check["domain"]) == ("equal", "moving, still, black, white")
    one, three = wk.load_policy(real), wk.load_policy(tmp_path / "three")
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2, 3, 3, 64, 64)).astype(np.uint8)
    states = random.standard_normal((2, 3, 18)).astype(np.float32)
    key = f"observation.images.{one.cameras[0]}"
    newest = one.act({key: frames[:, -1], "observation.state": states[:, -1]})
    stacked = three.act({key: frames.reshape(2, 9, 64, 64), "observation.state": states.reshape(2, -1)})
    assert float(abs(stacked - newest).max()) < 1e-5


@needs_shared
@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".npz"])
def test_a_copy_of_a_lerobot_folder_is_still_what_it_was(ending: str, tmp_path: Path) -> None:
    real = SHARED / "real" / "lerobot044_sac_shared"
    report = wk.convert(real, drop=["training_state.*"], out=tmp_path / f"copy{ending}")
    groups: Any = report.facts["groups"]
    copy = open_checkpoint(tmp_path / f"copy{ending}").state
    assert sum(group["parameters"] for group in groups.values()) == sum(copy[name].numel for name in copy.unique())
    found = recognise(open_checkpoint(tmp_path / f"copy{ending}"))
    assert found is not None
    assert (found.layout, found.config) == ("lerobot-sac", wk.load_policy(real).config)


def test_cameras_that_a_configuration_names_are_those_of_a_source_that_names_none(tmp_path: Path) -> None:
    config = write_template("demo_arm", tmp_path / "train_config.json")
    for layout in ("robobase-drqv2", "lerobot-drqv2"):
        out = tmp_path / f"{layout}.pt"
        wk.convert(ROOT / "fixtures" / "best_snapshot.pt", to=layout, config=config, out=out)
        assert wk.load_policy(out).cameras == ("front",)


def test_critics_that_are_not_whole_are_said_not_to_be_compared(tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    wk.convert(source, to="drqv2", out=tmp_path / "whole")
    wk.convert(source, to="drqv2", drop=["critic.*"], allow_missing=["critic.*"], out=tmp_path / "part")
    report = verify_outputs(tmp_path / "whole", tmp_path / "part")
    assert report.exit_code == 0
    assert any("not compared" in finding.message for finding in report.findings)


def test_statistics_that_a_snapshot_does_not_hold_are_named(tmp_path: Path) -> None:
    full = torch.load(small_robobase(tmp_path / "full.pt"), weights_only=True)
    full["cfg"]["norm_obs"] = True
    torch.save(full, tmp_path / "normed.pt")
    report = wk.convert(tmp_path / "normed.pt", to="drqv2", out=tmp_path / "out.pt")
    assert "cfg.norm_obs" in {finding.subject for finding in report.findings if finding.severity == "warning"}


def test_what_the_projects_own_code_does_not_load_is_said(tmp_path: Path) -> None:
    save_drqv2(tmp_path / "snapshot.pt", (6, 2, 2, 3, 4))
    report = wk.convert(tmp_path / "snapshot.pt", to="fb-drqv2", out=tmp_path / "small.pt")
    assert "WK223" in {finding.code for finding in report.findings}


@pytest.mark.parametrize("change", [{"mlp_nodes": [7]}, {"cameras": ["front"]}, {"num_critics": 3}])
def test_a_saved_plan_whose_configuration_is_of_another_net_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    source = small_robobase(tmp_path / "source.pt")
    save_plan(source, tmp_path / "plan.json", to="drqv2")
    wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "whole")
    document = json.loads((tmp_path / "plan.json").read_text())
    document["config"] |= change
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match="configuration is of a net"):
        wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


WRAPPERS: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "data parallel": lambda name: f"module.{name}",
    "both": lambda name: f"_orig_mod.module.{name}",
    "each module": lambda name: name.replace(".", "._orig_mod.", 1),
    "only the critics": lambda name: name.replace("critic.", "critic._orig_mod.", 1),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    "layout", ["robobase-drqv2", "lerobot-drqv2", "lerobot-sac", "lerobot-sac compiled", "sb3-sac"]
)
def test_a_wrapped_policy_is_recognised_and_becomes_the_same_as_without(
    layout: str, wrapper: str, tmp_path: Path
) -> None:
    if layout == "robobase-drqv2":
        source = small_robobase(tmp_path / "source.pt")
    elif layout == "lerobot-drqv2":
        source = tmp_path / "source.pt"
        wk.convert(small_robobase(tmp_path / "snapshot.pt"), to=layout, out=source)
    elif layout == "sb3-sac":
        source = PEERS / "sac" / "sb3_tanh.zip"
    else:
        folder = "lerobot044_separate_compiled" if "compiled" in layout else "lerobot044_shared"
        source = PEERS / "sac" / folder / "model.safetensors"
    checkpoint = open_checkpoint(source)
    arrays = {name: torch.from_numpy(checkpoint.read(name)) for name in checkpoint.state}
    torch.save(arrays, tmp_path / "plain.pt")
    torch.save({WRAPPERS[wrapper](name): array for name, array in arrays.items()}, tmp_path / "wrapped.pt")
    to = known_layouts()[layout.split()[0]]
    size = {"image_size": f"{SMALL.image_height}x{SMALL.image_width}"} if to == "drqv2" else {}
    plain = wk.convert(tmp_path / "plain.pt", to=to, out=tmp_path / "plain.safetensors", set=size)
    wrapped = wk.convert(tmp_path / "wrapped.pt", to=to, out=tmp_path / "wrapped.safetensors", set=size)
    assert wrapped.facts["source_layout"] == plain.facts["source_layout"] == layout.split()[0]
    check: Any = wrapped.facts["function_check"]
    assert check["verdict"] == "equal"
    ours, theirs = (open_checkpoint(tmp_path / f"{name}.safetensors") for name in ("wrapped", "plain"))
    assert ours.metadata["config"] == theirs.metadata["config"]
    assert list(ours.state) == list(theirs.state)
    for name in theirs.state:
        assert ours.read(name).tobytes() == theirs.read(name).tobytes(), name
    seen: list[Any] = [wk.inspect(tmp_path / name).facts["groups"] for name in ("wrapped.pt", "plain.pt")]
    assert seen[0] == seen[1]


def test_a_policy_that_is_there_with_and_without_a_wrapper_is_a_collision_that_names_both(tmp_path: Path) -> None:
    name = "critic.qs.0.out_mlp.0.weight"
    small_robobase(tmp_path / "both.pt", **{f"_orig_mod.{name}": torch.zeros(robobase_spec(SMALL)[name].shape)})
    with pytest.raises(PlanError) as caught:
        wk.convert(tmp_path / "both.pt", to="drqv2", out=tmp_path / "out.safetensors")
    assert caught.value.report is not None
    assert any(f"_orig_mod.{name}" in finding.message for finding in caught.value.report.findings)
