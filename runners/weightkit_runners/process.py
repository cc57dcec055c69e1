"""What learner, actor and rollout share as processes: logging, signals, the printed notes of a configuration."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from weightkit.core.report import Report, Severity
from weightkit.core.version import WeightVersion
from weightkit_runners.config import RunConfig

log = logging.getLogger("weightkit_runners")


def start_logging() -> None:
    """Log lines as they are, on stderr."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_ToStderr()], force=True)
    for name in ("weightkit", "weightkit_runners"):
        logging.getLogger(name).setLevel(logging.INFO)


class _ToStderr(logging.StreamHandler[Any]):
    """Writes to what stderr is at the moment: a live display in the terminal puts itself in its place."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def limit_threads(wanted: int, *, leave: int = 0) -> None:
    """Let torch use ``wanted`` threads; where that is 0, all this process may use but ``leave``, at least one.

    Two processes whose thread pools share the same cores wait for each other: measured on 2 cores, an update of the
    demo's policy took ten times as long with two threads beside an actor as with one.
    """
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(wanted or max(1, cores - leave))


def stop_on_sigterm() -> threading.Event:
    """An event that SIGTERM sets, so that a run can drain and end with exit code 0."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    return stop


def log_findings(config: RunConfig, who: str) -> None:
    """Say once what the configuration holds that changes nothing."""
    for finding in config.findings:
        level = logging.WARNING if finding.severity is Severity.WARNING else logging.INFO
        hint = f" ({finding.hint})" if finding.hint else ""
        log.log(level, "[%s] %s %s: %s%s", who, finding.code, finding.subject, finding.message, hint)


def log_report(text: Callable[[Report], str], report: Report) -> None:
    """A Report's text, line by line."""
    for line in text(report).splitlines():
        log.info("%s", line)


def version_row(version: WeightVersion, root: str) -> dict[str, Any]:
    """One set of weights as both sides note it in their ``*_versions.jsonl``."""
    return {**asdict(version), "root": root}
