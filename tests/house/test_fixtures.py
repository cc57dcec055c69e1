"""The committed binaries are those that fixtures/README.md describes, and the twin differs where it should."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

FIXTURES = Path(__file__).parents[2] / "fixtures"
SNAPSHOT = FIXTURES / "best_snapshot.pt"
TEXT_SUFFIXES = {".md", ".py"}
TOTAL_LIMIT_BYTES = 12_000_000
ROW = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<size>[\d,]+) \| `(?P<sha256>[0-9a-f]{64})` \|$", re.MULTILINE)
STACKED = {
    "encoder.convs_per_cam.0.0.weight": [16, 3, 3, 3],
    **{
        f"{prefix}.input_preprocess_modules.low_dim_obs.0.weight": [50, 18]
        for prefix in (
            "actor_model",
            "actor.actor_model",
            *(f"{critic}.qs.{index}" for critic in ("critic", "critic_target") for index in (0, 1)),
        )
    },
}


def binaries() -> dict[str, Path]:
    """Every file in fixtures/ that is not text, by name."""
    found = (path for path in FIXTURES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(FIXTURES)): path for path in found if path.suffix not in TEXT_SUFFIXES}


def described() -> dict[str, tuple[int, str]]:
    """Size in bytes and sha256 by name, as the table in the README has them."""
    text = (FIXTURES / "README.md").read_text(encoding="utf-8")
    return {row["name"]: (int(row["size"].replace(",", "")), row["sha256"]) for row in ROW.finditer(text)}


def test_the_readme_names_every_binary_with_its_size_and_sha256() -> None:
    found = {
        name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in binaries().items()
    }
    assert SNAPSHOT.name in found
    assert described() == found


def test_the_binaries_together_are_small_enough_to_commit() -> None:
    assert sum(path.stat().st_size for path in binaries().values()) <= TOTAL_LIMIT_BYTES


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("twin") / "fs1_twin.pt"
    subprocess.run([sys.executable, FIXTURES / "make_fs1_twin.py", SNAPSHOT, out], check=True, timeout=120)
    return out


def agent_of(path: Path) -> dict[str, Tensor]:
    agent: dict[str, Tensor] = torch.load(path, weights_only=True)["agent"]
    return agent


def test_the_twin_keeps_the_newest_frame_and_every_other_bit(twin: Path) -> None:
    before, after = agent_of(SNAPSHOT), agent_of(twin)
    assert list(after) == list(before)
    assert {name: list(after[name].shape) for name in STACKED} == STACKED
    for name, tensor in before.items():
        kept = tensor[:, -STACKED[name][1] :] if name in STACKED else tensor
        assert after[name].dtype == kept.dtype, name
        assert torch.equal(after[name], kept), name


def test_the_twin_is_the_snapshot_beside_its_agent(twin: Path) -> None:
    before, after = (torch.load(path, weights_only=True) for path in (SNAPSHOT, twin))
    assert list(after) == list(before)
    del before["agent"], after["agent"]
    assert after == before


@pytest.mark.parametrize("which", ["snapshot", "twin"])
def test_the_actor_net_has_two_names_for_one_storage(which: str, twin: Path) -> None:
    agent = agent_of(SNAPSHOT if which == "snapshot" else twin)
    doubled = [name for name in agent if name.startswith("actor_model.")]
    assert len(agent) == 98
    assert len(doubled) == 15
    assert all(agent[name].data_ptr() == agent[f"actor.{name}"].data_ptr() for name in doubled)
    assert len({tensor.data_ptr() for tensor in agent.values()}) == 98 - 15
