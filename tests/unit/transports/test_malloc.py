"""Memory that a transfer frees is kept for the next, and the user's own word about malloc is respected."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from weightkit.transports import _malloc

PROGRAM = """
import resource, sys
from weightkit.transports._malloc import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory() is (sys.argv[2] == "True")
def frames():
    return [bytes(1 << 20) + b"x" for _ in range(40)]
frames()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    frames()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str, *, done: bool = True, **environment: str) -> int:
    env = {name: value for name, value in os.environ.items() if name not in _malloc._SAID} | environment
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode, str(done)],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return int(run.stdout)


def is_glibc() -> bool:
    return sys.platform == "linux" and bool(os.confstr("CS_GNU_LIBC_VERSION"))


@pytest.mark.skipif(not is_glibc(), reason="another malloc than glibc's")
def test_frames_that_come_again_take_no_new_pages() -> None:
    assert page_faults("kept") < page_faults("plain") / 4


@pytest.mark.skipif(not is_glibc(), reason="another malloc than glibc's")
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_the_user_has_said_about_malloc_stands(name: str) -> None:
    page_faults("kept", done=False, **{name: "131072"})
