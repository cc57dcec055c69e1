"""A learner's receiving end as a process of its own, to be killed: ``journal_learner.py FOLDER ADDRESS``.

Says "ready" on stdout when it listens.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from weightkit_runners.experience import ExperienceReceiver
from weightkit_runners.experience.journal import ExperienceJournal


def main(folder: str, address: str) -> None:
    journal = ExperienceJournal(Path(folder), capacity_bytes=1 << 20)
    receiver = ExperienceReceiver(lambda batch: None, journal=journal)
    server = grpc.server(ThreadPoolExecutor(8))
    receiver.service(server)
    server.add_insecure_port(address)
    server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
