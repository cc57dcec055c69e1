"""Property tests draw the same cases each time; ``HYPOTHESIS_PROFILE=random`` (``./dev campaign laws``) others."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# A shell starts what runs in the background with Ctrl-C ignored, and the programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two workers share two cores: nets this small take ten times as long where each worker has threads of its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
