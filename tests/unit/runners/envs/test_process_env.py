"""An environment in a process of its own is the same environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from weightkit.errors import WeightkitError
from weightkit_runners.envs import make_env
from weightkit_runners.envs.process import ProcessEnv

OPTIONS: dict[str, Any] = {"cameras": ("front",), "image_size": (24, 20), "max_episode_steps": 6}


def test_it_gives_what_the_environment_itself_gives() -> None:
    here, there = make_env("synthetic", **OPTIONS), ProcessEnv("synthetic", **OPTIONS)
    try:
        assert dict(there.features) == dict(here.features)
        assert (there.action_dim, there.simulated) == (here.action_dim, True)
        for seed in (0, 5):
            assert _equal(here.reset(seed), there.reset(seed))
            for step in range(6):
                action = np.full(4, 0.1 * step, np.float32)
                mine, theirs = here.step(action), there.step(action)
                assert _equal(mine[0], theirs[0])
                assert mine[1:] == theirs[1:]
    finally:
        there.close()
        here.close()


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return set(one) == set(other) and all(
        one[key].dtype == other[key].dtype and np.array_equal(one[key], other[key]) for key in one
    )


@pytest.mark.parametrize(
    ("name", "options", "error", "what"),
    [
        ("nothing", OPTIONS, ValueError, "found 'nothing'"),
        ("synthetic", {**OPTIONS, "nonsense": 1}, TypeError, "nonsense"),
        ("no_such_module_at_all:thing", {}, ModuleNotFoundError, "no_such_module_at_all"),
    ],
)
def test_what_goes_wrong_there_is_raised_here_by_its_kind(
    name: str, options: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        ProcessEnv(name, **options)


def test_a_step_that_is_refused_does_not_end_it() -> None:
    env = ProcessEnv("synthetic", **OPTIONS)
    try:
        with pytest.raises(RuntimeError, match="before reset"):
            env.step(np.zeros(4, np.float32))
        env.reset(0)
        with pytest.raises(ValueError, match="shape"):
            env.step(np.zeros(3, np.float32))
        assert env.step(np.zeros(4, np.float32))[2] is False
    finally:
        env.close()


def test_a_process_that_dies_is_named_and_closing_is_quiet() -> None:
    env = ProcessEnv("synthetic", **OPTIONS)
    env._there.process.kill()
    with pytest.raises(WeightkitError, match=r"has ended, exit code -9"):
        env.reset(0)
    env.close()


def test_it_ends_with_whoever_started_it() -> None:
    """Killed outright, a parent leaves no process behind."""
    program = (
        "import os, sys, time\n"
        "from weightkit_runners.envs.process import ProcessEnv\n"
        f"env = ProcessEnv('synthetic', **{OPTIONS!r})\n"
        "print(env._there.process.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        child = int(parent.stdout.readline())
        watched = os.pidfd_open(child)
        parent.send_signal(signal.SIGKILL)
        import select

        ended, _, _ = select.select([watched], [], [], 20)
        os.close(watched)
        assert ended
