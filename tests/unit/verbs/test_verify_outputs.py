"""Two policies with the same function pass, and every way to get it wrong that shapes cannot see does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightkit as wk
from locations import FIXTURES
from strategies import SMALL_DRQV2, drqv2_config, drqv2_observations, drqv2_policy
from weightkit.architectures.probes import probes
from weightkit.architectures.sac.architecture import ARCHITECTURE
from weightkit.core.report import Report
from weightkit.errors import ConfigError, FormatError, UsageError
from weightkit.verbs.save_policy import save_policy_directory
from weightkit.verbs.verify_outputs import verify_outputs

CONFIG = drqv2_config(SMALL_DRQV2)


def saved(path: Path, policy: Any, config: Any = CONFIG) -> Path:
    save_policy_directory(policy, config, path)
    return path


def trained(kwargs: dict[str, Any] = SMALL_DRQV2, seed: int = 3) -> Any:
    """A policy whose weights are as large as a trained net's, so that its actions are not all at their ends."""
    policy = drqv2_policy(kwargs, seed)
    with torch.no_grad():
        for tensor in policy.parameters():
            tensor.mul_(0.5 if tensor.ndim < 2 else tensor[0].numel() ** -0.5)
    return policy


@pytest.fixture
def policy() -> Any:
    return trained()


@pytest.fixture
def source(policy: Any, tmp_path: Path) -> Path:
    return saved(tmp_path / "source", policy)


def verdict(report: Report) -> tuple[object, int]:
    return report.facts["verdict"], report.exit_code


def test_the_same_policy_in_another_layout_is_equal_and_the_controls_are_seen(source: Path, tmp_path: Path) -> None:
    wk.convert(source, to="lerobot-drqv2", out=tmp_path / "other.pt")
    report = verify_outputs(source, tmp_path / "other.pt")
    assert verdict(report) == ("equal", 0)
    facts: Any = report.facts
    assert set(facts["outputs"]) == {"action", "mean", "q_values", "target_q_values"}
    assert set(facts["outputs"].values()) == {0.0}
    for control in ("fresh", "permuted"):
        assert max(facts["controls"][control].values()) > 1e-3


def test_a_target_that_was_never_loaded_is_different(source: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "other", trained(seed=4))
    assert verdict(verify_outputs(source, other)) == ("different", 1)


def test_two_policies_whose_weights_do_not_matter_are_equal_and_the_check_says_it_is_blind(tmp_path: Path) -> None:
    zero = drqv2_policy(SMALL_DRQV2, 0)
    with torch.no_grad():
        for tensor in zero.parameters():
            tensor.zero_()
    report = verify_outputs(saved(tmp_path / "a", zero), saved(tmp_path / "b", zero))
    assert verdict(report) == ("blind", 1)
    assert [finding.code for finding in report.findings] == ["WK222"]


@pytest.mark.parametrize("part", ["encoder.front.2.weight", "actor.mlp.0.weight", "critic.qs.1.mlp.0.weight"])
def test_one_permuted_layer_is_different(part: str, policy: Any, source: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        tensor = dict(policy.named_parameters())[part]
        tensor.copy_(torch.roll(tensor, 1, 0))
    report = verify_outputs(source, saved(tmp_path / "other", policy))
    assert verdict(report) == ("different", 1)


def test_swapped_cameras_are_different_and_named(policy: Any, source: Path, tmp_path: Path) -> None:
    towers = policy.encoder._modules
    towers["front"], towers["wrist"] = towers["wrist"], towers["front"]
    columns = policy.actor.visual_trunk[0].weight.shape[1] // 2
    with torch.no_grad():
        for net in (policy.actor, *policy.critic.qs, *policy.critic_target.qs):
            weight = net.visual_trunk[0].weight
            weight.copy_(torch.cat([weight[:, columns:], weight[:, :columns]], dim=1))
    report = verify_outputs(source, saved(tmp_path / "other", policy))
    assert verdict(report) == ("different", 1)
    assert "two are swapped" in str(report.facts["why"])


def test_pixels_in_the_order_hwc_are_different(policy: Any, source: Path, tmp_path: Path) -> None:
    """The first kernel as another framework keeps it, its bytes taken for (out, in, h, w)."""
    with torch.no_grad():
        kernel = policy.encoder._modules["front"][0].weight
        kernel.copy_(kernel.permute(0, 2, 3, 1).contiguous().reshape(kernel.shape))
    report = verify_outputs(source, saved(tmp_path / "other", policy))
    assert verdict(report) == ("different", 1)


@pytest.mark.parametrize(("how", "expected"), [("block", ("equal", 0)), ("end", ("different", 1))])
def test_a_wider_state_is_equal_padded_by_frames_and_different_padded_at_the_end(
    how: str, expected: tuple[str, int], policy: Any, source: Path, tmp_path: Path
) -> None:
    wider = {**SMALL_DRQV2, "state_dim": SMALL_DRQV2["state_dim"] + 1}
    other = trained(wider, seed=9)
    state = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    frames, size = SMALL_DRQV2["frame_stack"], SMALL_DRQV2["state_dim"]
    for name, tensor in state.items():
        if name.endswith("state_trunk.0.weight"):
            if how == "block":
                blocks = tensor.reshape(-1, frames, size)
                state[name] = torch.nn.functional.pad(blocks, (0, 1)).reshape(len(tensor), -1)
            else:
                state[name] = torch.nn.functional.pad(tensor, (0, frames))
    other.load_state_dict(state)
    report = verify_outputs(source, saved(tmp_path / "other", other, replace(CONFIG, state_dim=size + 1)))
    assert verdict(report) == expected


@pytest.mark.parametrize("choice", ["newest", "mean"])
def test_more_frames_are_equal_where_the_adapter_says_so(choice: str, tmp_path: Path) -> None:
    one = {**SMALL_DRQV2, "frame_stack": 1}
    source = saved(tmp_path / "source", trained(one), replace(CONFIG, frame_stack=1))
    report = wk.convert(
        source, to="drqv2", set={"frame_stack": "3"}, adapt={"*": f"inflate:{choice}"}, out=tmp_path / "three"
    )
    check: Any = report.facts["function_check"]
    assert check["verdict"] == "equal"
    assert check["domain"] == ("moving, still, black, white" if choice == "newest" else "still, black, white")
    seen = verify_outputs(source, tmp_path / "three")
    assert verdict(seen) == (("equal", 0) if choice == "newest" else ("different", 1))
    kinds: Any = seen.facts["kinds"]
    assert (kinds["moving"]["mean"] > 1e-3) is (choice == "mean")
    assert kinds["still"]["mean"] < 1e-5


def test_what_other_code_was_recorded_to_do_is_compared_too(policy: Any, source: Path, tmp_path: Path) -> None:
    observation = {key: value.numpy() for key, value in drqv2_observations(SMALL_DRQV2, 1)[0].items()}
    action = policy.act(observation)
    recorded = {**observation, "action": action.numpy(), "q_values": policy.q_values(observation, action).numpy()}
    np.savez(tmp_path / "recorded.npz", **recorded)
    report = verify_outputs(source, tmp_path / "recorded.npz")
    assert verdict(report) == ("equal", 0)
    np.savez(tmp_path / "recorded.npz", **{**recorded, "q_values": recorded["q_values"] + 1e-3})
    assert verdict(verify_outputs(source, tmp_path / "recorded.npz")) == ("different", 1)


def test_what_was_recorded_and_the_policy_does_not_give_is_named(policy: Any, source: Path, tmp_path: Path) -> None:
    observation = {key: value.numpy() for key, value in drqv2_observations(SMALL_DRQV2, 1)[0].items()}
    given = {"action": policy.act(observation).numpy(), "mean": policy.means(observation).numpy()}
    np.savez(tmp_path / "recorded.npz", **observation, **given, q_value=np.zeros((2, 2)), names=np.zeros(3))
    report = verify_outputs(source, tmp_path / "recorded.npz")
    assert verdict(report) == ("equal", 0)
    assert set(report.facts["outputs"]) == {"action", "mean"}  # type: ignore[arg-type]
    messages = [f.message for f in report.findings]
    assert len(messages) == 2
    assert all("not compared" in message for message in messages)
    assert "q_value," in messages[0]
    assert "names," in messages[1]
    np.savez(tmp_path / "recorded.npz", **observation, **given | {"mean": given["mean"] + 1e-3})
    assert verdict(verify_outputs(source, tmp_path / "recorded.npz")) == ("different", 1)


@pytest.mark.parametrize(
    "change",
    [
        {"q_values": np.zeros((0, 2), np.float32)},
        {"action": np.zeros((2, 2), np.complex64)},
        {"observation.state": np.zeros((1, 6), np.float32)},
        {"observation.state": np.zeros((2, 6), np.complex64)},
    ],
)
def test_a_recording_that_cannot_be_looked_at_is_refused_in_words(
    change: dict[str, Any], policy: Any, source: Path, tmp_path: Path
) -> None:
    observation = {key: value.numpy() for key, value in drqv2_observations(SMALL_DRQV2, 1)[0].items()}
    recorded = {**observation, "action": policy.act(observation).numpy(), **change}
    np.savez(tmp_path / "recorded.npz", **recorded)
    with pytest.raises(ConfigError):
        verify_outputs(source, tmp_path / "recorded.npz")


def test_observations_of_a_file_are_what_the_policies_look_at(source: Path, tmp_path: Path) -> None:
    observation = {key: value.numpy() for key, value in drqv2_observations(SMALL_DRQV2, 1)[0].items()}
    np.savez(tmp_path / "probes.npz", **observation)
    report = verify_outputs(source, source, probes=tmp_path / "probes.npz")
    assert verdict(report) == ("equal", 0)
    kinds: Any = report.facts["kinds"]
    assert set(kinds) == {"recorded"}
    del observation["observation.state"]
    np.savez(tmp_path / "probes.npz", **observation)
    with pytest.raises(ConfigError, match=r"observation\.state"):
        verify_outputs(source, source, probes=tmp_path / "probes.npz")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_nan_that_only_one_has_is_a_difference_and_bits_that_are_moved_are_none(
    value: str, policy: Any, source: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        policy.actor.head.bias[0] = float(value)
    other = saved(tmp_path / "other", policy)
    assert verdict(verify_outputs(source, other)) == ("different", 1)
    report = wk.convert(other, to="robobase-drqv2", out=tmp_path / "moved.pt")
    check: Any = report.facts["function_check"]
    assert check["verdict"] == ("blind" if value == "nan" else "equal")  # of an action that is NaN critics say nothing
    assert set(check["outputs"].values()) == {0.0}


def test_policies_that_see_other_things_are_refused_in_words(source: Path, tmp_path: Path) -> None:
    one = {**SMALL_DRQV2, "cameras": ["front"]}
    other = saved(tmp_path / "other", trained(one), replace(CONFIG, cameras=("front",)))
    with pytest.raises(ConfigError, match="front, wrist"):
        verify_outputs(source, other)
    with pytest.raises(UsageError, match="--probes"):
        verify_outputs(source, source, probes=0)
    with pytest.raises(UsageError, match="--atol"):
        verify_outputs(source, source, atol=float("nan"))
    torch.save({"a": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(FormatError, match="no policy is recognised"):
        verify_outputs(source, tmp_path / "x.pt")


# ---- the check that convert makes by itself


def test_a_mapping_whose_shapes_fit_and_whose_function_is_another_is_refused_before_anything_is_written(
    source: Path, tmp_path: Path
) -> None:
    mapping = tmp_path / "crossed.toml"
    mapping.write_text(
        'name = "crossed"\nversion = 1\nsource_layout = "drqv2"\ntarget_layout = "drqv2"\n'
        '[[rule]]\nid = "same"\nsource = "{rest:path}"\ntarget = "{rest:path}"\n'
        + "".join(
            f'[[rule]]\nid = "{a}{k}"\nsource = "{c}.qs.{a}.{{rest:path}}"\ntarget = "{c}.qs.{1 - a}.{{rest:path}}"\n'
            'overrides = ["same"]\n'
            for k, c in enumerate(("critic",))
            for a in (0, 1)
        )
    )
    wk.convert(source, out=tmp_path / "named.pt")
    with pytest.raises(wk.PlanError) as refused:
        wk.convert(tmp_path / "named.pt", like=source, map=mapping, out=tmp_path / "out.pt")
    assert [finding.code for finding in refused.value.report.errors()] == ["WK212"]
    assert not (tmp_path / "out.pt").exists()
    wk.convert(tmp_path / "named.pt", like=source, map=mapping, out=tmp_path / "out.pt", check=False)
    assert (tmp_path / "out.pt").exists()


def test_a_lossy_step_is_measured_and_not_judged(source: Path, tmp_path: Path) -> None:
    report = wk.convert(
        source,
        to="drqv2",
        set={"frame_stack": "1"},
        adapt={"*": "take:newest"},
        allow_lossy=True,
        out=tmp_path / "o.pt",
    )
    check: Any = report.facts["function_check"]
    assert check["verdict"] == "not checked"
    assert check["kinds"]["moving"]["mean"] > 0
    assert "WK212" in {finding.code for finding in report.findings}


def test_without_critics_the_actions_are_compared(source: Path, tmp_path: Path) -> None:
    report = wk.convert(
        source, to="drqv2", drop=["critic*"], allow_missing=["critic*"], out=tmp_path / "acting.safetensors"
    )
    check: Any = report.facts["function_check"]
    assert (check["verdict"], set(check["outputs"])) == ("equal", {"action", "mean"})


def test_what_acting_reads_is_not_left_out_of_a_copy_by_a_glob(source: Path, tmp_path: Path) -> None:
    with pytest.raises(wk.PlanError):
        wk.convert(source, drop=["actor*"], out=tmp_path / "out.pt")
    wk.convert(source, to="robobase-drqv2", out=tmp_path / "robobase.pt")
    with pytest.raises(wk.PlanError):
        wk.convert(tmp_path / "robobase.pt", drop=["encoder*"], out=tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()
    wk.convert(source, drop=["critic*"], out=tmp_path / "out.pt")


@pytest.mark.parametrize("index", ["with the index", "without"])
def test_a_recording_of_a_policy_with_a_discrete_head_is_compared(index: str, tmp_path: Path) -> None:
    source = FIXTURES / "peers" / "sac" / "lerobot044_separate_compiled"
    policy = wk.load_policy(source)
    seen: Any = probes(ARCHITECTURE.inputs(policy.config))[0]
    action = policy.act(seen).numpy()[:, : None if index == "with the index" else -1]
    np.savez(tmp_path / "recorded.npz", **seen, action=action)
    assert verdict(verify_outputs(source, tmp_path / "recorded.npz"))[0] in ("equal", "blind")
    action[0, -1] += 1
    np.savez(tmp_path / "recorded.npz", **seen, action=action)
    assert verdict(verify_outputs(source, tmp_path / "recorded.npz")) == ("different", 1)


def test_a_lost_discrete_head_is_another_function(tmp_path: Path) -> None:
    source = FIXTURES / "peers" / "sac" / "lerobot044_separate_compiled"
    with pytest.raises(wk.PlanError, match="discrete_q_values"):
        wk.convert(source, to="sac", set={"num_discrete_actions": "0"}, drop=["discrete_critic*"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_spread_of_actions_is_another_function(tmp_path: Path) -> None:
    source = FIXTURES / "peers" / "sac" / "lerobot044_shared"
    policy = wk.load_policy(source)
    with torch.no_grad():
        policy.actor.log_std.bias.add_(0.1)
    save_policy_directory(policy, policy.config, tmp_path / "other")
    report = verify_outputs(source, tmp_path / "other")
    assert verdict(report) == ("different", 1)
    outputs: Any = report.facts["outputs"]
    assert outputs["action"] == 0.0
    assert outputs["std"] > 0
