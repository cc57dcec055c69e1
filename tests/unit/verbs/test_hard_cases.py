"""Conversions that other tools get wrong, on real files: wrappers, ties, depth, buffers, moments, changed bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weightkit as wk
from weightkit.core.dtype import dtype_named
from weightkit.core.tensor import StateSpec, TensorSpec
from weightkit.errors import PlanError
from weightkit.formats import open_checkpoint, writer_for
from weightkit.verbs.convert import save_plan

Arrays = dict[str, np.ndarray]
KEEP = """
name = "keep"
version = 1
source_layout = "a"
target_layout = "b"
[[rule]]
id = "all"
source = "{rest:path}"
target = "{rest:path}"
"""


def write(path: Path, arrays: Arrays, *, aliases: dict[str, str] | None = None, metadata: Any = None) -> Path:
    tensors = {name: TensorSpec(dtype_named(array.dtype.name), array.shape) for name, array in arrays.items()}
    state = StateSpec({**tensors, **{a: tensors[of] for a, of in (aliases or {}).items()}}, aliases or {})
    with path.open("wb") as file:
        writer_for(path)(file, arrays.items(), spec=state, metadata=metadata or {})
    return path


def arrays(*names: str) -> Arrays:
    return {name: np.full((2, 3), number + 1.5, np.float32) for number, name in enumerate(names)}


def read(path: Path) -> Arrays:
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.read(name) for name in checkpoint.state}


def problems(refused: pytest.ExceptionInfo[PlanError]) -> list[tuple[str, str]]:
    return [(found.code, found.subject) for found in refused.value.report.errors()]


# ---- wrappers


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        ("_orig_mod.module.x", "x"),
        ("module._orig_mod.x", "x"),
        ("module.module.x", "x"),
        ("a._orig_mod.b", "a.b"),
        ("_orig_mod.a._orig_mod.b.weight", "a.b.weight"),
        ("_fsdp_wrapped_module.a._checkpoint_wrapped_module.w", "a.w"),
    ],
)
@pytest.mark.parametrize("direction", ["off", "on"])
def test_what_a_wrapper_put_into_names_is_taken_off_and_put_back(
    wrapped: str, plain: str, direction: str, tmp_path: Path
) -> None:
    before, after = (wrapped, plain) if direction == "off" else (plain, wrapped)
    source = write(tmp_path / "in.safetensors", arrays(before))
    like = write(tmp_path / "like.safetensors", {after: np.zeros((2, 3), np.float32)})
    wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    made = read(tmp_path / "out.safetensors")
    assert list(made) == [after]
    assert np.array_equal(made[after], arrays(before)[before])


def test_a_module_that_is_called_module_is_no_wrapper(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("net.module.w"))
    like = write(tmp_path / "like.safetensors", arrays("net.w"))
    with pytest.raises(PlanError) as refused:
        wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK201", "net.module.w"), ("WK202", "net.w")]


@pytest.mark.parametrize("other", ["module.a", "_orig_mod.a", "module._orig_mod.a"])
def test_a_name_with_and_without_its_wrapper_is_a_collision_that_names_both(other: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("a", other))
    like = write(tmp_path / "like.safetensors", arrays("a"))
    with pytest.raises(PlanError) as refused:
        wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    (finding,) = refused.value.report.errors()
    assert (finding.code, finding.subject) == ("WK203", "a")
    assert f"a, {other}" in finding.message
    assert not (tmp_path / "out.safetensors").exists()


def test_one_of_the_two_can_be_dropped(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("a", "module.a"))
    like = write(tmp_path / "like.safetensors", arrays("a"))
    wk.convert(source, like=like, drop=["a"], out=tmp_path / "out.safetensors")
    assert np.array_equal(read(tmp_path / "out.safetensors")["a"], arrays("a", "module.a")["module.a"])


# ---- a file that is converted already


def test_a_mapping_that_was_applied_before_is_not_applied_again(tmp_path: Path) -> None:
    mapping = tmp_path / "m.toml"
    mapping.write_text(KEEP.replace('target = "{rest:path}"', 'target = "encoder.{rest:path}"'), encoding="utf-8")
    source = write(tmp_path / "in.safetensors", arrays("conv.weight", "conv.bias"))
    wk.convert(source, map=mapping, out=tmp_path / "once.safetensors")
    like = write(tmp_path / "like.safetensors", arrays("encoder.conv.weight", "encoder.conv.bias"))
    report = wk.convert(tmp_path / "once.safetensors", map=mapping, like=like, out=tmp_path / "twice.safetensors")
    assert [found.code for found in report.findings] == ["WK213"]
    assert set(read(tmp_path / "twice.safetensors")) == {"encoder.conv.weight", "encoder.conv.bias"}
    assert wk.diff(tmp_path / "once.safetensors", tmp_path / "twice.safetensors", values=True).ok


# ---- ties


def test_a_tie_goes_along_as_one_copy_and_both_names_are_accounted_for(tmp_path: Path) -> None:
    source = write(tmp_path / "in.pt", arrays("embed"), aliases={"head": "embed"})
    report: Any = wk.convert(source, out=tmp_path / "out.safetensors").to_dict()
    made = open_checkpoint(tmp_path / "out.safetensors")
    assert made.state.aliases == {"head": "embed"}
    assert os.path.getsize(tmp_path / "out.safetensors") < 4000
    assert report["source_tensors"] == report["used"] + len(report["second_names"]) + len(report["dropped"]) == 2


def test_where_the_target_has_two_tensors_a_tie_is_copied(tmp_path: Path) -> None:
    source = write(tmp_path / "in.pt", arrays("embed"), aliases={"head": "embed"})
    like = write(tmp_path / "like.safetensors", arrays("embed", "head"))
    wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    made = open_checkpoint(tmp_path / "out.safetensors")
    assert not made.state.aliases
    assert np.array_equal(made.read("embed"), made.read("head"))


def test_where_the_target_ties_them_equal_tensors_become_one(tmp_path: Path) -> None:
    two = {"embed": np.ones((2, 3), np.float32), "head": np.ones((2, 3), np.float32)}
    source = write(tmp_path / "in.safetensors", two)
    like = write(tmp_path / "like.pt", arrays("embed"), aliases={"head": "embed"})
    wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    assert open_checkpoint(tmp_path / "out.safetensors").state.aliases == {"head": "embed"}


def test_tensors_that_differ_are_not_tied(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("embed", "head"))
    like = write(tmp_path / "like.pt", arrays("embed"), aliases={"head": "embed"})
    with pytest.raises(PlanError) as refused:
        wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK211", "head")]
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("kept", ["embed", "head"])
def test_a_file_that_left_out_one_of_two_tied_names_is_whole(kept: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays(kept))
    like = write(tmp_path / "like.pt", arrays("embed"), aliases={"head": "embed"})
    report: Any = wk.convert(source, like=like, out=tmp_path / "out.safetensors").to_dict()
    made = read(tmp_path / "out.safetensors")
    assert np.array_equal(made["embed"], arrays(kept)[kept])
    assert np.array_equal(made["head"], arrays(kept)[kept])
    assert report["target_tensors"] == len(report["rows"]) + len(report["repeated"]) == 2


# ---- what stands beside the tensors


def test_every_value_beside_the_tensors_is_listed_as_carried_or_not(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    payload = {"state_dict": {"w": torch.ones(2)}, "epoch": 3, "args": {"lr": 0.1, "deep": {"name": "x"}}, "none": None}
    torch.save(payload, tmp_path / "in.pt")
    kept: Any = wk.convert(tmp_path / "in.pt", out=tmp_path / "out.pt").to_dict()
    assert set(kept["carried"]) == {"epoch", "args.lr", "args.deep.name", "none"}
    assert not kept["not_carried"]
    assert open_checkpoint(tmp_path / "out.pt").metadata["args"] == {"lr": 0.1, "deep": {"name": "x"}}
    mapping = tmp_path / "m.toml"
    mapping.write_text(KEEP, encoding="utf-8")
    renamed: Any = wk.convert(tmp_path / "in.pt", map=mapping, out=tmp_path / "mapped.pt").to_dict()
    assert set(renamed["not_carried"]) == {"epoch", "args.lr", "args.deep.name", "none"}


# ---- depth, buffers, moments


def layers(count: int) -> Arrays:
    return arrays(*(f"layers.{number}.{kind}" for number in range(count) for kind in ("weight", "bias")))


@pytest.mark.parametrize(("have", "want", "code"), [(12, 16, "WK202"), (16, 12, "WK201")])
def test_another_depth_is_refused_with_every_layer_named(have: int, want: int, code: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", layers(have))
    like = write(tmp_path / "like.safetensors", layers(want))
    with pytest.raises(PlanError) as refused:
        wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    expected = set(layers(max(have, want))) - set(layers(min(have, want)))
    assert {subject for _, subject in problems(refused)} == expected
    assert {found for found, _ in problems(refused)} == {code}


def test_counters_stay_whole_and_running_statistics_travel(tmp_path: Path) -> None:
    before: Arrays = {
        "norm.weight": np.ones(3, np.float32),
        "norm.running_mean": np.array([1, 2, 3], np.float32),
        "norm.running_var": np.array([4, 5, 6], np.float32),
        "norm.num_batches_tracked": np.array(2**40 + 1, np.int64),
        "normalize.observation.state.mean": np.array([0.5], np.float64),
    }
    source = write(tmp_path / "in.safetensors", before)
    mapping = tmp_path / "m.toml"
    mapping.write_text(KEEP.replace('target = "{rest:path}"', 'target = "net.{rest:path}"'), encoding="utf-8")
    wk.convert(source, map=mapping, out=tmp_path / "out.pt")
    made = read(tmp_path / "out.pt")
    for name, array in before.items():
        assert made[f"net.{name}"].dtype == array.dtype
        assert made[f"net.{name}"].tobytes() == array.tobytes()


def test_a_buffer_that_the_target_wants_and_nobody_gives_is_missing_like_any_tensor(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("norm.weight"))
    like = write(tmp_path / "like.safetensors", arrays("norm.weight", "norm.running_mean"))
    with pytest.raises(PlanError) as refused:
        wk.convert(source, like=like, out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK202", "norm.running_mean")]


MOMENTS = """
name = "moments"
version = 1
source_layout = "a"
target_layout = "b"
[[rule]]
id = "fc"
source = "fc.weight"
target = "dense.kernel"
ops = [{op = "transpose"}]
[[companions]]
prefix = "optimizer.state"
suffixes = ["exp_avg", "exp_avg_sq"]
scalars = ["step"]
"""


def test_an_optimizers_moments_travel_with_their_parameter(tmp_path: Path) -> None:
    before = arrays("fc.weight", "optimizer.state.fc.weight.exp_avg", "optimizer.state.fc.weight.exp_avg_sq")
    before["optimizer.state.fc.weight.step"] = np.array(7.0, np.float32)
    source = write(tmp_path / "in.safetensors", before)
    mapping = tmp_path / "m.toml"
    mapping.write_text(MOMENTS, encoding="utf-8")
    wk.convert(source, map=mapping, out=tmp_path / "out.safetensors")
    made = read(tmp_path / "out.safetensors")
    assert set(made) == {
        "dense.kernel",
        *(f"optimizer.state.dense.kernel.{suffix}" for suffix in ("exp_avg", "exp_avg_sq", "step")),
    }
    for suffix in ("exp_avg", "exp_avg_sq"):
        moved = made[f"optimizer.state.dense.kernel.{suffix}"]
        assert np.array_equal(moved, before[f"optimizer.state.fc.weight.{suffix}"].T)


def test_a_rule_that_would_rename_a_moment_and_leave_its_numbers_is_refused(tmp_path: Path) -> None:
    """The parameter is transposed, so a moment that only another rule renames would be wrong at the right shape."""
    source = write(tmp_path / "in.safetensors", arrays("fc.weight", "optimizer.state.fc.weight.exp_avg"))
    mapping = tmp_path / "m.toml"
    catch_all = '[[rule]]\nid = "rest"\nsource = "optimizer.{rest:path}"\ntarget = "optimizer.{rest:path}"\n'
    mapping.write_text(MOMENTS + catch_all, encoding="utf-8")
    with pytest.raises(PlanError) as refused:
        wk.convert(source, map=mapping, out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK210", "optimizer.state.fc.weight.exp_avg")]


def test_moments_without_a_place_are_refused_or_dropped_with_a_reason(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("fc.weight", "optimizer.state.fc.weight.exp_avg"))
    like = write(tmp_path / "like.safetensors", {"dense.kernel": np.zeros((3, 2), np.float32)})
    mapping = tmp_path / "m.toml"
    mapping.write_text(MOMENTS, encoding="utf-8")
    with pytest.raises(PlanError) as refused:
        wk.convert(source, map=mapping, like=like, out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK201", "optimizer.state.fc.weight.exp_avg")]
    report: Any = wk.convert(
        source, map=mapping, like=like, drop=["optimizer.*"], out=tmp_path / "out.safetensors"
    ).to_dict()
    assert report["dropped"] == {"optimizer.state.fc.weight.exp_avg": "--drop 'optimizer.*'"}


# ---- saved plans


def test_one_changed_byte_is_refused_with_the_tensors_name_and_nothing_is_written(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("a", "b", "c"))
    save_plan(source, tmp_path / "plan.json")
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    source.write_bytes(content)
    with pytest.raises(PlanError) as refused:
        wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK215", "c")]
    assert refused.value.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "plan.json"]


def test_a_changed_byte_in_a_tensor_that_is_dropped_is_noticed_too(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("a", "b"))
    save_plan(source, tmp_path / "plan.json", drop=["b"])
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    source.write_bytes(content)
    with pytest.raises(PlanError) as refused:
        wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK215", "b")]


def test_a_saved_plan_is_replayed_and_undone_byte_for_byte(tmp_path: Path) -> None:
    mapping = tmp_path / "m.toml"
    mapping.write_text(MOMENTS, encoding="utf-8")
    source = write(tmp_path / "in.safetensors", arrays("fc.weight", "optimizer.state.fc.weight.exp_avg"))
    save_plan(source, tmp_path / "plan.json", map=mapping)
    wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "out.pt")
    wk.convert(tmp_path / "out.pt", invert=tmp_path / "plan.json", out=tmp_path / "back.safetensors")
    before, after = read(source), read(tmp_path / "back.safetensors")
    assert list(before) == list(after)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_a_plan_with_padding_is_undone_and_not_where_training_used_the_padding(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("w"))
    like = write(tmp_path / "like.safetensors", {"w": np.zeros((2, 5), np.float32)})
    save_plan(source, tmp_path / "plan.json", like=like, adapt={"w": "pad:end"})
    wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "out.safetensors")
    wk.convert(tmp_path / "out.safetensors", invert=tmp_path / "plan.json", out=tmp_path / "back.safetensors")
    assert read(tmp_path / "back.safetensors")["w"].tobytes() == read(source)["w"].tobytes()
    trained = read(tmp_path / "out.safetensors")["w"]
    trained[0, 4] = 0.25
    write(tmp_path / "trained.safetensors", {"w": trained})
    with pytest.raises(PlanError) as refused:
        wk.convert(tmp_path / "trained.safetensors", invert=tmp_path / "plan.json", out=tmp_path / "no.safetensors")
    assert problems(refused) == [("WK205", "w")]
    assert not (tmp_path / "no.safetensors").exists()


def test_a_lossy_plan_is_not_undone_and_its_steps_are_listed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("w", "x", "y"))
    like = write(tmp_path / "like.safetensors", {"w": np.zeros((2, 2), np.float32), "x": np.zeros((2, 3), np.float16)})
    adapt = {"w": "slice:first", "x": "cast:float16"}
    wanted: dict[str, Any] = {"like": like, "adapt": adapt, "drop": ["y"], "allow_lossy": True}
    save_plan(source, tmp_path / "plan.json", **wanted)
    wk.convert(source, plan=tmp_path / "plan.json", out=tmp_path / "out.safetensors")
    with pytest.raises(PlanError) as refused:
        wk.convert(tmp_path / "out.safetensors", invert=tmp_path / "plan.json", out=tmp_path / "no.safetensors")
    assert sorted(problems(refused)) == [("WK208", "w"), ("WK208", "x"), ("WK208", "y")]


def test_losing_something_wants_to_be_said(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("w"))
    like = write(tmp_path / "like.safetensors", {"w": np.zeros((2, 2), np.float32)})
    with pytest.raises(PlanError) as refused:
        wk.convert(source, like=like, adapt={"w": "slice:first"}, out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK208", "w")]


def test_a_plan_for_another_file_names_what_differs(tmp_path: Path) -> None:
    source = write(tmp_path / "in.safetensors", arrays("a", "b"))
    save_plan(source, tmp_path / "plan.json")
    other = write(tmp_path / "other.safetensors", {**arrays("a"), "c": np.zeros(1, np.float32)})
    with pytest.raises(PlanError) as refused:
        wk.convert(other, plan=tmp_path / "plan.json", out=tmp_path / "out.safetensors")
    assert problems(refused) == [("WK215", "b"), ("WK215", "c")]


def test_two_plans_can_be_compared(tmp_path: Path) -> None:
    from weightkit.verbs.diff_plans import diff_plans

    source = write(tmp_path / "in.safetensors", arrays("a", "b"))
    save_plan(source, tmp_path / "one.json")
    save_plan(source, tmp_path / "same.json")
    save_plan(source, tmp_path / "other.json", drop=["b"])
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "same.json").read_bytes()
    assert diff_plans(tmp_path / "one.json", tmp_path / "same.json").ok
    report = diff_plans(tmp_path / "one.json", tmp_path / "other.json")
    assert report.exit_code == 1
    assert {found.subject for found in report.findings} == {"b"}


def test_a_saved_plan_says_what_its_schema_says(tmp_path: Path) -> None:
    import jsonschema

    from locations import ROOT

    source = write(tmp_path / "in.pt", arrays("embed"), aliases={"head": "embed"})
    save_plan(source, tmp_path / "plan.json")
    schema = json.loads((ROOT / "schemas" / "json" / "plan.v1.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((tmp_path / "plan.json").read_bytes()), schema)
