"""What a run measures: one JSON line a row, TensorBoard where it is asked for."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from weightkit.errors import ConfigError
from weightkit.transports.base import ActorStatus, Status
from weightkit_runners.metrics import Metrics, sync_row


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_a_line_on_disk_when_it_is_written_and_a_second_run_appends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    with Metrics(path) as metrics:
        metrics.write(1, {"loss": 0.5})
        assert rows(path) == [{"loss": 0.5}]
    with Metrics(path) as metrics:
        metrics.write(2, {"loss": 0.25, "name": "a", "by": {"x": 1}})
    assert rows(path) == [{"loss": 0.5}, {"loss": 0.25, "name": "a", "by": {"x": 1}}]


def test_tensorboard_gets_the_numbers_and_only_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "tensorboard" / "sync")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars.append((name, value, step))

        def close(self) -> None:
            scalars.append(("closed", 0, 0))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    with Metrics(tmp_path / "sync.jsonl", tensorboard=True) as metrics:
        metrics.write(7, {"counter": 7, "run_id": "r", "by": {"x": 1}, "ms": 1.5})
    assert scalars == [("counter", 7, 7), ("ms", 1.5, 7), ("closed", 0, 0)]


def test_tensorboard_that_is_not_installed_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="not installed"):
        Metrics(tmp_path / "sync.jsonl", tensorboard=True)


def test_a_push_is_a_row_of_what_is_there_and_what_was_turned_away() -> None:
    here = ActorStatus("a", True, 3, "r", 1, 2, True, "stream", 1.5, 100)
    gone = ActorStatus("b", False, 1, "r", 3, 1, True, "stream", 9.0, 50)
    status = Status("run", 4, "root", 1, (here, gone), 40, 0.1, {"malformed": 2})
    row = sync_row(status, 6.5, {"accepted": 5, "actors": {"a": {"connected": True}, "b": {"connected": False}}})
    assert (row["actors"], row["lag_most"], row["apply_ms_most"], row["nacks"], row["sent_bytes"]) == (
        1,
        1,
        1.5,
        3,
        100,
    )
    assert (row["counter"], row["learner_step"], row["publish_ms"], row["refused_versions"]) == (4, 40, 6.5, 1)
    assert row["turned_away"] == {"malformed": 2}
    assert row["experience"] == {"accepted": 5, "actors": {"a": {"connected": True}}}
    assert json.loads(json.dumps(row)) == row
