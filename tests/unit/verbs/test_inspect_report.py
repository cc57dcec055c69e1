"""What inspect reports: parameters apart from buffers, wrappers, tensors that are listed only, numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from locations import FIXTURES, ROOT, SHARED
from robobase_files import robobase_spec, robobase_state, save_robobase
from strategies import SMALL_DRQV2, drqv2_policy
from weightkit.architectures import recognise
from weightkit.architectures.drqv2.config import DrQV2Config
from weightkit.core.checkpoint import Checkpoint, NotDense
from weightkit.core.dtype import numpy_dtype
from weightkit.core.report import Finding, Report, Severity
from weightkit.core.tensor import StateSpec, TensorSpec, spec
from weightkit.errors import LimitExceeded, UsageError
from weightkit.formats import Limits
from weightkit.reporting.inspect import inspect_text
from weightkit.verbs.inspect import inspect, report_on

SCHEMA = json.loads((ROOT / "schemas" / "json" / "report.v1.schema.json").read_text(encoding="utf-8"))
REAL = SHARED / "real"
DEVLOG = DrQV2Config(
    cameras=("front",),
    image_channels=3,
    image_height=84,
    image_width=84,
    frame_stack=3,
    state_dim=18,
    action_dim=4,
    encoder_channels=32,
    bottleneck_size=50,
    mlp_nodes=(256, 256),
    num_critics=2,
)


def checkpoint(tensors: dict[str, TensorSpec], **more: Any) -> Checkpoint:
    """A checkpoint in memory, all zero."""

    def read(name: str) -> np.ndarray:
        return np.zeros(tensors[name].shape, numpy_dtype(tensors[name].dtype))

    state = StateSpec(tensors, more.pop("aliases", {}))
    return Checkpoint("file.pt", "torch_zip", "", state, {}, read, **more)


def facts(report: Report) -> dict[str, Any]:
    jsonschema.validate(report.to_dict(), SCHEMA)
    json.dumps(report.to_dict(), allow_nan=False)
    return dict(report.facts)


def line_of(text: str, label: str) -> list[str]:
    """The words of the tree line with this label."""
    line = next(line for line in text.splitlines() if line.lstrip("│├└─ ").startswith(f"{label} "))
    return line.split()


def test_the_devlogs_policy_has_its_exact_counts_and_no_hidden_state_among_them() -> None:
    state = robobase_spec(DEVLOG)
    opened = Checkpoint("best.pt", "torch_zip", "agent", state, {}, lambda name: np.zeros(0))
    report = report_on(opened, recognise(opened))
    groups = facts(report)["groups"]
    assert {name: group["parameters"] for name, group in groups.items()} == {
        "encoder": 30_368,
        "actor": 2_055_676,
        "critic": 4_111_858,
        "critic_target": 4_111_858,
    }
    assert sum(group["buffers"] for group in groups.values()) == 5 * 9 * 128
    text = inspect_text(report)
    assert line_of(text, "RoboBase")[-1] == "10,309,760"
    assert line_of(text, "encoder.convs_per_cam.0")[-1] == "30,368"
    assert line_of(text, "actor:")[-1] == "2,055,676"
    assert line_of(text, "critic.qs.{0,1}")[-1] == "4,111,858"
    assert line_of(text, "critic_target.qs.{0,1}")[-1] == "4,111,858"
    assert "actor.actor_model" in text
    assert "= actor_model" in text
    assert "hidden_state" in text
    assert "buffer, 1,152 values" in text


def test_the_fixture_accounts_for_every_tensor() -> None:
    report = inspect(FIXTURES / "best_snapshot.pt")
    found = facts(report)
    parameters = sum(g["parameters"] for g in found["groups"].values())
    buffers = sum(g["buffers"] for g in found["groups"].values())
    unique = [t for t in found["tensors"] if t["alias_of"] is None]
    assert parameters + buffers == sum(math.prod(t["shape"]) for t in unique)
    assert buffers == 5 * 9 * 128
    assert line_of(inspect_text(report), "RoboBase")[-1] == f"{parameters:,}"


@pytest.mark.skipif(not (REAL / "robobase_1cam_fs3.snapshot.pt").is_file(), reason="the real file is not there")
def test_a_snapshot_of_robobase_itself_has_the_devlogs_encoder() -> None:
    groups = facts(inspect(REAL / "robobase_1cam_fs3.snapshot.pt"))["groups"]
    assert groups["encoder"]["parameters"] == 30_368
    assert groups["critic"]["parameters"] == groups["critic_target"]["parameters"]


@pytest.mark.skipif(not (REAL / "lerobot044_sac_shared").is_dir(), reason="the real file is not there")
def test_a_lerobot_processor_file_is_normalisation_and_its_policy_shows_one_encoder() -> None:
    folder = REAL / "lerobot044_sac_shared" / "pretrained_model"
    found = facts(inspect(folder / "policy_preprocessor_step_3_normalizer_processor.safetensors", stats=True))
    assert [one["feature"] for one in found["normalisation"]] == [
        "action",
        "observation.images.front",
        "observation.state",
    ]
    assert all(group["parameters"] == 0 for group in found["groups"].values())
    assert "= actor.encoder" in inspect_text(inspect(folder / "model.safetensors"))


def test_parameters_are_told_from_buffers_by_name_kind_and_layout() -> None:
    tensors = {
        "net.weight": spec("float32", 2),
        "net.running_mean": spec("float32", 2),
        "net.running_var": spec("float32", 2),
        "net.num_batches_tracked": spec("int64"),
        "mask": spec("bool", 4),
        "hidden_state": spec("float32", 5),
        "opt.w.exp_avg": spec("float32", 2),
        "action.mean": spec("float32", 3),
        "action.std": spec("float32", 3),
        "packed": spec("qint8", 7),
    }
    found = facts(report_on(checkpoint(tensors), None))
    assert found["buffers"] == [n for n in tensors if n not in ("net.weight", "hidden_state", "packed")]
    assert [one["feature"] for one in found["normalisation"]] == ["action"]
    assert "normalisation" in inspect_text(report_on(checkpoint(tensors), None))


def test_a_file_without_normalisation_says_nothing_about_it() -> None:
    report = report_on(checkpoint({"a.weight": spec("float32", 2)}), None)
    assert facts(report)["normalisation"] == []
    assert "normalisation" not in inspect_text(report)


@pytest.mark.parametrize(
    ("names", "prefixes"),
    [
        (["critic._orig_mod.a.w", "critic._orig_mod.a.b", "actor.w"], ["critic._orig_mod."]),
        (["module.a.w", "module.b.w"], ["module."]),
        (["module.a.w", "n_averaged"], ["module."]),
        (["actor.module.a.w", "critic.w"], ["actor.module."]),
        (["module._orig_mod.a.w"], ["module.", "module._orig_mod."]),
        (["module.a.w", "other.w"], []),
        (["submodule.a.w", "a.module"], []),
    ],
)
def test_wrappers_in_names_are_found(names: list[str], prefixes: list[str]) -> None:
    report = report_on(checkpoint({name: spec("float32", 1) for name in names}), None)
    found = [f for f in report.findings if f.code == "WK114"]
    assert [f.subject for f in found] == prefixes
    assert all(f.severity is Severity.INFO for f in found)
    if prefixes:
        count = sum(name.startswith(prefixes[0]) for name in names)
        assert found[0].message.startswith(f"{count} name")
        assert prefixes[0].rstrip(".") in inspect_text(report)


def test_a_tensor_that_is_listed_only_has_its_kind_its_bytes_and_one_warning() -> None:
    listed = {"a": NotDense("sparse_coo", 123, "it is sparse"), "b": NotDense("meta", 0, "it has no data")}
    said = (Finding("WK109", Severity.WARNING, "b", "said by the format"),)
    tensors = {"a": spec("float32", 9), "b": spec("float32", 2), "c": spec("float32", 1), "d": spec("complex32", 1)}
    opened = checkpoint(tensors, not_dense=listed, findings=said)
    report = report_on(opened, None)
    rows = {t["name"]: t for t in facts(report)["tensors"]}
    assert (rows["a"]["kind"], rows["a"]["nbytes"], rows["b"]["kind"]) == ("sparse_coo", 123, "meta")
    assert "kind" not in rows["c"]
    assert [f.subject for f in report.findings if f.code == "WK109"] == ["b", "a"]
    for flat in (False, True):
        assert "sparse_coo" in inspect_text(report, flat=flat)


# ---- numbers


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    state = {
        "good.weight": torch.tensor([[1.0, -1.0], [3.0, -3.0]]),
        "bad.weight": torch.tensor([1.0, math.nan, math.nan, math.inf]),
        "zero.weight": torch.zeros(3),
        "same.weight": torch.full((3,), 0.5),
        "half.weight": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "step": torch.tensor(7),
        "action.mean": torch.tensor([0.0, 1.0]),
        "action.std": torch.tensor([0.0, 1.0]),
    }
    state["tied.weight"] = state["good.weight"]
    torch.save(state, tmp_path / "odd.pt")
    return tmp_path / "odd.pt"


def test_the_numbers_of_every_tensor_are_told_once(odd: Path) -> None:
    report = inspect(odd, stats=True)
    rows = {t["name"]: t for t in facts(report)["tensors"]}
    assert rows["good.weight"]["stats"] == {
        "mean": 0.0,
        "std": math.sqrt(5),
        "min": -3.0,
        "max": 3.0,
        "nan": 0,
        "inf": 0,
        "zero": False,
        "constant": False,
    }
    assert "stats" not in rows["tied.weight"]
    bad = rows["bad.weight"]["stats"]
    assert (bad["nan"], bad["inf"], bad["mean"]) == (2, 1, 1.0)
    assert rows["half.weight"]["stats"]["mean"] == 1.5
    assert rows["zero.weight"]["stats"]["zero"]
    assert rows["same.weight"]["stats"]["constant"]
    assert report.exit_code == 0
    text = inspect_text(report)
    assert "2 NaN, 1 Inf" in text
    assert "numbers  8 tensors looked at: 1 with NaN, 1 with Inf, 1 all zero, 1 constant" in text


def test_doubtful_normalisation_is_a_warning_and_short_values_are_shown(odd: Path) -> None:
    report = inspect(odd, stats=True)
    (found,) = [f for f in report.findings if f.code == "WK110"]
    assert (found.subject, found.severity) == ("action.std", Severity.WARNING)
    assert facts(report)["normalisation"][0]["values"] == {"mean": [0.0, 1.0], "std": [0.0, 1.0]}
    assert "action.std: 0 1" in inspect_text(report)
    assert not [f for f in inspect(odd).findings if f.code == "WK110"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("nan",), ["bad.weight"]),
        (("inf",), ["bad.weight"]),
        (("zero",), ["zero.weight"]),
        (("constant",), ["zero.weight", "same.weight"]),
        (("nan", "zero"), ["bad.weight", "zero.weight"]),
    ],
)
def test_what_was_asked_to_be_absent_is_named_and_fails(odd: Path, words: tuple[str, ...], names: list[str]) -> None:
    report = inspect(odd, fail_on=words)
    assert report.exit_code == 1
    assert [f.subject for f in report.errors()] == names
    assert {f.code for f in report.errors()} == {"WK110"}
    assert "FAIL" in inspect_text(report)
    jsonschema.validate(report.to_dict(), SCHEMA)


def test_a_clean_file_passes(tmp_path: Path) -> None:
    save_robobase(tmp_path / "a.pt", robobase_state(drqv2_policy(SMALL_DRQV2, 1)))
    report = inspect(tmp_path / "a.pt", fail_on=["nan", "inf"])
    assert report.ok
    assert "PASS: asked for none of nan, inf" in inspect_text(report)


def test_an_unknown_word_is_a_usage_error_before_the_file_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none"):
        inspect(tmp_path / "missing.pt", fail_on=["nan", "none"])


def test_unsafe_beats_what_was_asked_to_be_absent(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (print, ("no",))

    torch.save({"w": torch.tensor([math.nan]), "x": Payload()}, tmp_path / "a.pt")
    report = inspect(tmp_path / "a.pt", fail_on=["nan"])
    assert report.exit_code == 4
    assert {f.code for f in report.errors()} == {"WK103", "WK110"}


def test_progress_ends_with_everything(odd: Path) -> None:
    calls: list[tuple[int, int]] = []
    inspect(odd, stats=True, progress=lambda done, everything: calls.append((done, everything)))
    assert len(calls) == 8
    assert calls[-1][0] == calls[-1][1] > 0


def test_limits_reach_the_reader(odd: Path) -> None:
    with pytest.raises(LimitExceeded):
        inspect(odd, limits=Limits(tensors=2))


def test_a_tensor_whose_numbers_cannot_be_looked_at_is_named_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"half": spec("complex32", 2), "sparse": spec("float32", 9), "w": spec("float32", 1)}
    opened = checkpoint(tensors, not_dense={"sparse": NotDense("sparse_coo", 8, "it is sparse")})
    monkeypatch.setattr("weightkit.verbs.inspect.open_checkpoint", lambda path: opened)
    report = inspect("file.pt", fail_on=["nan"])
    assert not report.ok  # what was not looked at is not said to be free of NaN
    assert inspect("file.pt", stats=True).ok
    assert facts(report)["looked_at"] == {"tensors": 1, "not_read": 2, "fail_on": ["nan"]}
    assert {f.subject for f in report.findings if f.code == "WK109"} == {"half", "sparse"}
    assert "2 could not be looked at" in inspect_text(report)
