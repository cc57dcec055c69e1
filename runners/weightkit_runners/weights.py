"""The weights that an actor acts with: waited for, followed, and too old to be used."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from weightkit.core.version import WeightVersion
from weightkit.errors import TransportTimeout
from weightkit.sync.staleness import Freshness, StaleGuard
from weightkit_runners.metrics import Metrics
from weightkit_runners.process import log, version_row

if TYPE_CHECKING:
    from weightkit.sync.subscriber import Subscriber

SAY_WAITING_EVERY_S = 5.0
LOOK_AT_STOP_EVERY_S = 0.5


class _StoppedError(Exception):
    """SIGTERM came while there was nothing to act with yet."""


class FollowedWeights:
    """What ``subscriber`` brings, swapped in between steps, each version a row of ``versions``.

    ``hold``: the first version is kept, later ones are not taken.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        address: str,
        versions: Metrics,
        *,
        freshness: Freshness,
        hold: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._subscriber, self._address, self._versions = subscriber, address, versions
        self._guard, self._hold, self._clock = StaleGuard(freshness, clock=clock), hold, clock

    def wait(self, stop: threading.Event, *, timeout_s: float) -> bool:
        """Block until verified weights are in the policy; False where ``stop`` was set before they came.

        Raises TransportTimeout at the deadline, NeedsNotMet where the learner offers too little.
        """
        log.info("[ACTOR] Waiting for initial parameters from Learner...")
        due = self._clock()

        def still_waiting() -> None:
            if stop.is_set():
                raise _StoppedError
            nonlocal due
            if self._clock() < due:
                return
            due = self._clock() + SAY_WAITING_EVERY_S
            trouble = self._subscriber.status()["trouble"]
            log.info("[ACTOR] ...no weights from %s yet (%s); giving up after %g s", self._address, trouble, timeout_s)

        try:
            self._subscriber.wait_for_first(
                timeout_s=timeout_s, on_waiting=still_waiting, waiting_every_s=LOOK_AT_STOP_EVERY_S
            )
        except _StoppedError:
            log.info("[ACTOR] Stopped before any weights came.")
            return False
        except TransportTimeout as error:
            raise TransportTimeout(
                f"no verified weights from the learner at {self._address} within {timeout_s:g} s; "
                "the robot did not move",
                hint=error.hint or "start weightkit-learner with the same --config_path, or check --learner HOST:PORT",
            ) from None
        self._applied(initial=True)
        return True

    def current(self, stop: threading.Event) -> WeightVersion | None:
        """At a step boundary: newer weights swapped in, the version to act with; None where ``stop`` was set.

        Waits while they are too old to act with. Raises StaleWeights where such weights end the run.
        """
        self._take()
        while not self._guard.may_act(self._subscriber.age_s, self._subscriber.lag):
            if stop.wait(LOOK_AT_STOP_EVERY_S / 10):
                return None
            self._take()
        return None if stop.is_set() else self._subscriber.version

    def _take(self) -> None:
        if not self._hold and self._subscriber.poll() is not None:
            self._applied()

    def _applied(self, *, initial: bool = False) -> None:
        version, root = self._subscriber.version, self._subscriber.root
        assert version is not None
        if "encoder" in self._subscriber.groups_applied:
            log.info("[ACTOR] Loaded encoder parameters from Learner.")
        if initial:
            log.info("[ACTOR] Loaded initial parameters from Learner.")
        log.info(
            "[ACTOR] Acting with weights v%d (learner step %d), root %s", version.counter, version.learner_step, root
        )
        self._versions.write(version.counter, version_row(version, root))
