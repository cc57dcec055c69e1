"""The stand-in of drqv2's ``utils.Timer``, loaded under the name ``utils`` while a snapshot is saved."""

from __future__ import annotations

import time


class Timer:
    """Two moments."""

    def __init__(self) -> None:
        self._start_time = time.time()
        self._last_time = time.time()
