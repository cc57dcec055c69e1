"""Memory that several processes map: found by its name, read by all, written by one, gone with the last."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from weightkit.shared_memory import SharedBuffer, SharedRef, attach

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no anonymous files")
READER = """
import sys
from weightkit.shared_memory import SharedRef, attach
array = attach(SharedRef(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
print(int(array.sum()), array.flags.writeable)
"""


def test_another_process_reads_what_this_one_wrote() -> None:
    shared = SharedBuffer(1000)
    shared.array[:] = 7
    ref = shared.ref
    command = [sys.executable, "-c", READER, str(ref.pid), str(ref.descriptor), ref.name, str(ref.nbytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["7000", "False"]


def test_what_is_written_later_is_seen_and_what_is_closed_stays_mapped() -> None:
    shared = SharedBuffer(64)
    seen = attach(shared.ref)
    shared.array[3] = 9
    assert seen[3] == 9
    shared.close()
    shared.array[3] = 8
    assert seen[3] == 8
    with pytest.raises(OSError):
        attach(shared.ref)


def test_nobody_else_can_write_to_it_or_cut_it() -> None:
    shared = SharedBuffer(64)
    descriptor = os.open(f"/proc/{shared.ref.pid}/fd/{shared.ref.descriptor}", os.O_RDWR)
    try:
        for attempt in (
            lambda: mmap.mmap(descriptor, 64),
            lambda: os.write(descriptor, b"x"),
            lambda: os.ftruncate(descriptor, 1),
            lambda: os.ftruncate(descriptor, 4096),
        ):
            with pytest.raises(PermissionError):
                attempt()
    finally:
        os.close(descriptor)


def test_what_is_not_meant_is_never_opened(tmp_path: object) -> None:
    shared, read_end = SharedBuffer(64), os.pipe()
    ref = shared.ref
    try:
        for wrong in (
            replace(ref, name="weightkit-another"),
            replace(ref, nbytes=63),
            replace(ref, descriptor=read_end[0]),
            replace(ref, descriptor=10**6),
            replace(ref, pid=2**31 - 2),
            SharedRef(os.getpid(), 0, "", 0),
        ):
            with pytest.raises(OSError):
                attach(wrong)
    finally:
        for descriptor in read_end:
            os.close(descriptor)


def test_memory_that_could_shrink_is_refused() -> None:
    name = "weightkit-unsealed"
    descriptor = os.memfd_create(name)
    try:
        os.ftruncate(descriptor, 64)
        with pytest.raises(PermissionError, match="shrink"):
            attach(SharedRef(os.getpid(), descriptor, name, 64))
    finally:
        os.close(descriptor)


def test_nothing_of_it_is_left_when_it_is_dropped() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = descriptors()
    buffers = [SharedBuffer(4096) for _ in range(5)]
    views = [attach(buffer.ref) for buffer in buffers]
    assert all(isinstance(view, np.ndarray) for view in views)
    del buffers, views
    gc.collect()
    assert descriptors() == before


def test_an_empty_payload_has_memory_too() -> None:
    shared = SharedBuffer(0)
    assert attach(shared.ref).shape == shared.array.shape == (0,)
