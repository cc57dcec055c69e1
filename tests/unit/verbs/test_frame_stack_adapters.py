"""Line 4: a policy of single frames against a configuration of stacked ones is refused, or adapted as asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import weightkit as wk
from robobase_files import HIDDEN, cfg_of, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_config, drqv2_policy
from weightkit.core.report import Severity
from weightkit.errors import PlanError

FRAMES = 3
SINGLE: dict[str, Any] = {**SMALL_DRQV2, "frame_stack": 1}
POLICY = drqv2_policy(SINGLE, 4)
CAMERAS = SINGLE["cameras"]
FIRST = {f"encoder.{camera}.0.weight" for camera in CAMERAS}
TRUNKS = {
    f"{head}.state_trunk.0.weight"
    for head in ("actor", *(f"{c}.qs.{q}" for c in ("critic", "critic_target") for q in (0, 1)))
}
WANTED = FIRST | TRUNKS


@pytest.fixture(params=["with cfg", "without cfg"])
def snapshot(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    assert robobase_state(POLICY)["actor_model.hidden_state"].shape == HIDDEN
    cfg = cfg_of(drqv2_config(SINGLE)) if request.param == "with cfg" else None
    return save_robobase(tmp_path / "single.pt", robobase_state(POLICY), cfg=cfg)


@pytest.fixture
def stacked(tmp_path: Path) -> Path:
    """The learner's train_config.json: the same net on stacks of FRAMES frames."""
    size = [SINGLE["image_height"], SINGLE["image_width"]]
    single = {f"observation.images.{camera}": {"shape": [3, *size]} for camera in CAMERAS}
    inputs = {key: {"shape": [3 * FRAMES, *size]} for key in single}
    document = {
        "policy": {
            "type": "drqv2",
            "frame_stack": FRAMES,
            "input_features": {**inputs, "observation.state": {"shape": [SINGLE["state_dim"] * FRAMES]}},
            "output_features": {"action": {"shape": [SINGLE["action_dim"]]}},
            "encoder_channels": SINGLE["encoder_channels"],
            "num_downsample_convs": SINGLE["num_downsample_convs"],
            "num_post_downsample_convs": SINGLE["num_post_convs"],
            "bottleneck_size": SINGLE["bottleneck_dim"],
            "mlp_nodes": SINGLE["hidden_dims"],
        },
        "env": {"features": {**single, "observation.state": {"shape": [SINGLE["state_dim"]]}}},
    }
    path = tmp_path / "train_config.json"
    path.write_text(json.dumps(document))
    return path


def frames(seed: int, *, still: bool) -> list[dict[str, torch.Tensor]]:
    """Observations of single frames, oldest first; ``still``: all the same."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(FRAMES):
        size = (4, 3, SINGLE["image_height"], SINGLE["image_width"])
        frame: dict[str, torch.Tensor] = {
            f"observation.images.{camera}": torch.rand(size, generator=generator) for camera in CAMERAS
        }
        frame["observation.state"] = torch.randn(4, SINGLE["state_dim"], generator=generator)
        found.append(frame)
    return [found[-1]] * FRAMES if still else found


def stack(found: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([frame[key] for frame in found], dim=1) for key in found[0]}


def difference(policy: Any, found: list[dict[str, torch.Tensor]]) -> float:
    """How far the stacked policy is from the single-frame one fed the newest frame: actions and values, worst case."""
    newest, action = found[-1], POLICY.act(found[-1])
    pairs = [
        (policy.act(stack(found)), action),
        (policy.q_values(stack(found), action), POLICY.q_values(newest, action)),
        (policy.target_q_values(stack(found), action), POLICY.target_q_values(newest, action)),
    ]
    return max(float((one - other).abs().max()) for one, other in pairs)


def test_a_single_frame_snapshot_does_not_fit_a_stack_and_every_tensor_is_named(snapshot: Path, stacked: Path) -> None:
    before = sorted(stacked.parent.iterdir())
    with pytest.raises(PlanError) as refused:
        wk.convert(snapshot, to="drqv2", config=stacked, out=stacked.parent / "out")
    errors = refused.value.report.errors()
    assert {finding.subject for finding in errors} == WANTED
    assert {finding.code for finding in errors} == {"WK204"}
    assert refused.value.exit_code == 1
    for finding in errors:
        old, new = ("[2, 3, 3, 3]", "[2, 9, 3, 3]") if finding.subject in FIRST else ("[4, 3]", "[4, 9]")
        assert f"float32{old}" in finding.message
        assert f"float32{new}" in finding.message
        assert "--adapt" in finding.hint
        assert "inflate:newest" in finding.hint
        assert "inflate:mean" in finding.hint
        assert "take" not in finding.hint
    assert sorted(stacked.parent.iterdir()) == before


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("still", [False, True])
def test_with_inflate_newest_the_policy_acts_the_same_on_any_stack(
    snapshot: Path, stacked: Path, still: bool, seed: int
) -> None:
    out = stacked.parent / "out"
    wk.convert(snapshot, to="drqv2", config=stacked, adapt={"*": "inflate:newest"}, out=out)
    policy = wk.load_policy(out)
    assert policy.config.frame_stack == FRAMES
    assert difference(policy, frames(seed, still=still)) < 1e-5


def test_with_inflate_mean_it_acts_the_same_on_still_stacks_only(snapshot: Path, stacked: Path) -> None:
    out = stacked.parent / "out.safetensors"
    wk.convert(snapshot, to="drqv2", config=stacked, adapt=["*=inflate:mean"], out=out)
    policy = wk.load_policy(out)
    for seed in range(3):
        assert difference(policy, frames(seed, still=True)) < 1e-5
        assert difference(policy, frames(seed, still=False)) > 1e-3


@pytest.mark.parametrize(
    ("adapter", "where"), [("inflate:newest", "every stack"), ("inflate:mean", "still stacks only")]
)
def test_the_report_says_where_the_adapted_policy_is_the_same(
    adapter: str, where: str, snapshot: Path, stacked: Path
) -> None:
    report = wk.convert(snapshot, to="drqv2", config=stacked, adapt={"*": adapter}, out=stacked.parent / "out.pt")
    rows: Any = report.facts["rows"]
    adapted = {row["target"]: row for row in rows if row["ops"]}
    assert set(adapted) == WANTED
    assert all(where in row["preserves"][0] and row["class"] == "INJ" for row in adapted.values())
    notes = {finding.subject: finding for finding in report.findings if finding.code == "WK207"}
    assert set(notes) == WANTED
    assert all(where in note.message and note.severity is Severity.INFO for note in notes.values())
    groups: Any = report.facts["groups"]
    assert {name: group["adapted"] for name, group in groups.items()} == {
        "encoder": 2,
        "actor": 1,
        "critic": 2,
        "critic_target": 2,
    }


def test_an_adapter_for_some_tensors_leaves_the_others_refused(snapshot: Path, stacked: Path) -> None:
    with pytest.raises(PlanError) as refused:
        wk.convert(
            snapshot, to="drqv2", config=stacked, adapt={"encoder.*": "inflate:newest"}, out=stacked.parent / "o"
        )
    assert {finding.subject for finding in refused.value.report.errors()} == TRUNKS


def test_set_frame_stack_means_the_same_as_a_configuration(tmp_path: Path) -> None:
    source = save_robobase(tmp_path / "s.pt", robobase_state(POLICY), cfg=cfg_of(drqv2_config(SINGLE)))
    settings = {"frame_stack": str(FRAMES), "cameras": ",".join(CAMERAS)}
    wk.convert(source, to="drqv2", set=settings, adapt={"*": "inflate:newest"}, out=tmp_path / "out")
    assert difference(wk.load_policy(tmp_path / "out"), frames(0, still=False)) < 1e-5


def test_a_stack_goes_back_to_the_newest_frame_only_where_losing_is_allowed(snapshot: Path, stacked: Path) -> None:
    folder = stacked.parent
    wk.convert(snapshot, to="drqv2", config=stacked, adapt={"*": "inflate:newest"}, out=folder / "stacked.pt")
    back: dict[str, Any] = {"to": "drqv2", "set": {"frame_stack": "1"}, "adapt": {"*": "take:newest"}}
    with pytest.raises(PlanError) as refused:
        wk.convert(folder / "stacked.pt", out=folder / "back.pt", **back)
    assert {(f.code, f.subject) for f in refused.value.report.errors()} == {("WK208", name) for name in WANTED}
    report = wk.convert(folder / "stacked.pt", out=folder / "back.pt", allow_lossy=True, **back)
    assert report.facts["class"] == "LOSSY"
    restored = wk.load_policy(folder / "back.pt")
    frame = frames(0, still=True)[-1]
    assert torch.equal(restored.act(frame), POLICY.act(frame))
