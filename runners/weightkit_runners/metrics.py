"""What a run measures, as it goes: JSON lines always, TensorBoard events where they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from weightkit.errors import ConfigError
from weightkit.transports.base import Status


class Metrics:
    """Rows of one kind, appended to ``path``; with ``tensorboard`` their numbers also under ``<folder>/tensorboard``.

    Raises ConfigError where TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, *, tensorboard: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: Any = _writer(path.parent / "tensorboard" / path.stem) if tensorboard else None
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """One row, at ``step`` of whatever this kind counts by. On disk when this returns, so far as the kernel is."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, (int, float)):
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sync_row(state: Status, publish_ms: float, experience: Mapping[str, Any]) -> dict[str, Any]:
    """How weights and transitions travel, as of a push: what is counted on the learner's side."""
    here = [actor for actor in state.actors if actor.connected]
    return {
        "run_id": state.run_id,
        "counter": state.counter,
        "learner_step": state.learner_step,
        "publish_ms": publish_ms,
        "refused_versions": state.refused,
        "actors": len(here),
        "lag_most": max((actor.lag for actor in here), default=0),
        "apply_ms_most": max((actor.apply_ms for actor in here), default=0.0),
        "nacks": sum(actor.nacks for actor in state.actors),
        "sent_bytes": sum(actor.sent_bytes for actor in here),
        "turned_away": dict(state.counts),
        "experience": {**experience, "actors": {n: a for n, a in experience["actors"].items() if a["connected"]}},
    }


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "tensorboard is true, and the package tensorboard is not installed",
            hint="pip install 'weightkit[tensorboard]', or leave the key out: the JSON lines are written anyway",
        ) from None
    writer: Any = SummaryWriter
    return writer(str(folder))
