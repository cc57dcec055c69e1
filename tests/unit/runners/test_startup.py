"""Asking a program for its options must not wait for torch, a simulator or a network library."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.argv = ["program", "--help"]
import importlib
try:
    importlib.import_module("weightkit_runners." + sys.stdin.read()).main()
except SystemExit:
    pass
heavy = {"torch", "mujoco", "gymnasium"} & set(sys.modules)
sys.stderr.write("heavy: " + ",".join(sorted(heavy)))
"""


@pytest.mark.parametrize("program", ["learner", "actor", "rollout", "record"])
def test_help_imports_nothing_heavy(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=program, capture_output=True, text=True, timeout=60, check=True
    )
    assert "Usage" in done.stdout
    assert done.stderr.endswith("heavy: ")
