"""An environment in a process of its own: drawing and simulating take no time from the actor's interpreter."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from weightkit_runners.envs.base import Action, Observation, Step
from weightkit_runners.experience.messages import decode_transitions, encode_transitions
from weightkit_runners.piped import PipedProcess, serve


class ProcessEnv:
    """``make_env(name, **options)`` there, the same contract here: what it raises is raised here by its kind.

    Of ``info``, what JSON can say comes back. Raises WeightkitError where the process has died.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self._there = PipedProcess(
            __name__,
            what="the process of the environment",
            hint='see what it wrote; policy.concurrency.actor "threads" runs it in the actor itself',
        )
        try:
            about = json.loads(self._asked({"name": name, "options": options, "path": sys.path}))
        except BaseException:
            self.close()
            raise
        self.features: Mapping[str, tuple[int, ...]] = {key: tuple(shape) for key, shape in about["features"].items()}
        self.action_dim = int(about["action_dim"])
        self.simulated = bool(about["simulated"])

    def reset(self, seed: int) -> Observation:
        """The first observation of the episode that ``seed`` names."""
        return _observation(self._asked({"seed": seed}))

    def step(self, action: Action) -> Step:
        """Outcome of ``action`` (A,)."""
        said = self._asked({"action": np.asarray(action, np.float64).tolist()})
        length = int.from_bytes(said[:4], "little")
        about = json.loads(said[4 : 4 + length])
        observation = _observation(said[4 + length :])
        return observation, about["reward"], about["terminated"], about["truncated"], about["info"]

    def close(self) -> None:
        """End the process."""
        self._there.close()

    def _asked(self, told: dict[str, Any]) -> bytes:
        return self._there.ask(json.dumps(told).encode())


class _There:
    """The environment in its process."""

    def __init__(self) -> None:
        self._env: Any = None

    def respond(self, message: bytes) -> bytes:
        """To what the other side says: first what to make, then seeds and actions."""
        told = json.loads(message)
        if self._env is None:
            return self._made(told)
        if "seed" in told:
            return encode_transitions([self._env.reset(told["seed"])])
        observation, reward, terminated, truncated, info = self._env.step(np.asarray(told["action"]))
        plain = {key: _plain(value) for key, value in info.items()}
        about = {
            "reward": float(reward),
            "terminated": bool(terminated),
            "truncated": bool(truncated),
            "info": {key: value for key, value in plain.items() if value is not None},
        }
        said = json.dumps(about).encode()
        return len(said).to_bytes(4, "little") + said + encode_transitions([observation])

    def _made(self, told: dict[str, Any]) -> bytes:
        from weightkit_runners.envs import make_env

        sys.path[:] = told["path"]
        self._env = env = make_env(told["name"], **told["options"])
        about = {
            "features": {key: list(shape) for key, shape in env.features.items()},
            "action_dim": env.action_dim,
            "simulated": bool(getattr(env, "simulated", False)),
        }
        return json.dumps(about).encode()

    def close(self) -> None:
        """Free it."""
        if self._env is not None:
            self._env.close()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else None


def _observation(payload: bytes) -> Observation:
    (observation,) = decode_transitions(payload)
    return observation


def main() -> None:
    """Run the process."""
    there = _There()
    try:
        serve(there.respond)
    finally:
        there.close()


if __name__ == "__main__":
    main()
