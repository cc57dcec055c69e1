"""How training goes, as one line at the bottom of a terminal; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightkit.sync.publisher import Publisher
    from weightkit_runners.training import Training

EVERY_S = 0.5


class Display:
    """``show`` as often as you like: it draws twice a second, after ``total`` updates the bar is full."""

    def __init__(self, total: int) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._due = time.monotonic()
        self._seen = (0, time.monotonic())
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("update {task.completed:.0f}"), BarColumn(24), TextColumn("{task.fields[said]}"))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=total, said="")
        self._progress.start()

    def show(self, training: Training, publisher: Publisher) -> None:
        """Draw, where it is time to."""
        now = time.monotonic()
        if self._progress is None or now < self._due:
            return
        self._due = now + EVERY_S
        done, then = self._seen
        self._seen = (training.learner_step, now)
        per_s = (training.learner_step - done) / max(now - then, 1e-9)
        state = publisher.state()
        lag = max((actor.lag for actor in state.actors if actor.connected), default=0)
        self._progress.update(
            self._task, completed=training.learner_step, said=line(training, per_s, state.counter, lag)
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()


def line(training: Training, updates_per_s: float, version: int, lag: int) -> str:
    """What is said beside the bar."""
    row = training.episodes.row()
    parts = [f"{updates_per_s:.1f}/s", f"transitions {training.env_step}", f"episodes {row['episodes']:.0f}"]
    if "return" in row:
        parts += [f"return {row['return']:.2f}", f"success {100 * row['success']:.0f} %"]
    return "  ".join([*parts, f"v{version}", f"lag {lag}"])
