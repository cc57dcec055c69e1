"""One actor of the soak: follows the learner, sends numbered transitions, and tells at its end what became of them.

python -m soak.actor ADDRESS NAME stream|shared
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import Any

import numpy as np

from soak.policy import PROBES, act, make_policy
from weightkit.errors import TransportTimeout
from weightkit.sync.subscriber import Subscriber
from weightkit.transports.base import Access
from weightkit_runners.experience import ExperienceSender

STEP_S = 0.05
STEPS_A_BATCH = 10
FIRST_WEIGHTS_S = 60.0


def run(address: str, name: str, way: str, stop: threading.Event) -> dict[str, Any]:
    """Act until ``stop``; what was applied and sent."""
    access = Access(shared_memory=way == "shared")
    policy = make_policy(seed=hash(name) % 1000)
    backwards, numbered, waiting, held = 0, 0, [], 0
    sender = ExperienceSender(address, name, access=access)
    with Subscriber(policy, address, act=act, probes=PROBES, actor_id=name, access=access) as sub:
        try:
            sub.wait_for_first(FIRST_WEIGHTS_S, on_waiting=lambda: None)
            while not stop.wait(STEP_S):
                sub.poll()
                version = sub.version
                assert version is not None
                backwards += version.counter < held
                held = version.counter
                act(policy, PROBES[0])
                numbered += 1
                waiting.append({"number": np.int64(numbered), "image": np.full((3, 32, 32), numbered % 251, np.uint8)})
                if len(waiting) == STEPS_A_BATCH:
                    sender.send(waiting, version)
                    waiting = []
        except TransportTimeout:
            pass
        applied = sub.status()
    counts = sender.close(drain_timeout_s=10)
    return {"name": name, "backwards": backwards, "path": applied["path"], "discarded": applied["discarded"],
            "received": applied["received"], "reconnects": applied["reconnects"], **counts.to_dict()}  # fmt: skip


def main() -> None:
    """Run until SIGTERM and print one JSON line."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sys.stdout.write(json.dumps(run(*sys.argv[1:4], stop)) + "\n")


if __name__ == "__main__":
    main()
