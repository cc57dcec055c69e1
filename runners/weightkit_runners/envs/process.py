"""An environment in a process of its own: drawing and simulating take no time from the actor's interpreter."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from weightkit.errors import WeightkitError
from weightkit_runners.envs.base import Action, Observation, Step
from weightkit_runners.experience.messages import decode_transitions, encode_transitions

_END_TIMEOUT_S = 10.0
_FINE, _WRONG = b"+", b"-"
_KINDS: dict[str, type[Exception]] = {"ValueError": ValueError, "TypeError": TypeError, "RuntimeError": RuntimeError}


class ProcessEnv:
    """``make_env(name, **options)`` there, the same contract here. Raises what it raises, ValueError, TypeError and
    RuntimeError by their kind; ModuleNotFoundError names the package. Of ``info``, what JSON can say comes back.
    """

    def __init__(self, name: str, **options: Any) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._pipe = Connection(ours.detach())
        self._closed = False
        try:
            about = json.loads(self._asked(json.dumps({"name": name, "options": options, "path": sys.path}).encode()))
        except BaseException:
            self.close()
            raise
        self.features: Mapping[str, tuple[int, ...]] = {key: tuple(shape) for key, shape in about["features"].items()}
        self.action_dim = int(about["action_dim"])
        self.simulated = bool(about["simulated"])

    def reset(self, seed: int) -> Observation:
        """The first observation of the episode that ``seed`` names."""
        return _observation(self._asked(json.dumps({"seed": seed}).encode()))

    def step(self, action: Action) -> Step:
        """Outcome of ``action`` (A,)."""
        said = self._asked(json.dumps({"action": np.asarray(action, np.float64).tolist()}).encode())
        length = int.from_bytes(said[:4], "little")
        about = json.loads(said[4 : 4 + length])
        observation = _observation(said[4 + length :])
        return observation, about["reward"], about["terminated"], about["truncated"], about["info"]

    def close(self) -> None:
        """End the process."""
        if self._closed:
            return
        self._closed = True
        self._pipe.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _asked(self, message: bytes) -> bytes:
        try:
            self._pipe.send_bytes(message)
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError):
            self.close()
            raise WeightkitError(
                f"the process of the environment has ended, exit code {self._process.returncode}",
                hint='see what it wrote; policy.concurrency.actor "threads" runs it in the actor itself',
            ) from None
        if answer[:1] == _WRONG:
            wrong = json.loads(answer[1:])
            if wrong["kind"] == "ModuleNotFoundError":
                raise ModuleNotFoundError(wrong["message"], name=wrong["name"])
            raise _KINDS.get(wrong["kind"], WeightkitError)(wrong["message"])
        return answer[1:]


def serve(pipe: Connection) -> None:
    """The process: ends when the actor's end of the pipe is closed, whatever signals come."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    env: Any = None
    try:
        while True:
            told = json.loads(pipe.recv_bytes())
            try:
                if env is None:
                    env, answer = _made(told)
                else:
                    answer = _stepped(env, told)
                pipe.send_bytes(_FINE + answer)
            except Exception as error:
                wrong = {"kind": type(error).__name__, "message": str(error), "name": getattr(error, "name", "")}
                pipe.send_bytes(_WRONG + json.dumps(wrong).encode())
    except (EOFError, OSError):
        pass
    finally:
        if env is not None:
            env.close()


def _made(told: dict[str, Any]) -> tuple[Any, bytes]:
    from weightkit_runners.envs import make_env

    sys.path[:] = told["path"]
    env = make_env(told["name"], **told["options"])
    about = {
        "features": {key: list(shape) for key, shape in env.features.items()},
        "action_dim": env.action_dim,
        "simulated": bool(getattr(env, "simulated", False)),
    }
    return env, json.dumps(about).encode()


def _stepped(env: Any, told: dict[str, Any]) -> bytes:
    if "seed" in told:
        return encode_transitions([env.reset(told["seed"])])
    observation, reward, terminated, truncated, info = env.step(np.asarray(told["action"]))
    plain = {key: _plain(value) for key, value in info.items()}
    about = {
        "reward": float(reward),
        "terminated": bool(terminated),
        "truncated": bool(truncated),
        "info": {key: value for key, value in plain.items() if value is not None},
    }
    said = json.dumps(about).encode()
    return len(said).to_bytes(4, "little") + said + encode_transitions([observation])


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str)) else None


def _observation(payload: bytes) -> Observation:
    (observation,) = decode_transitions(payload)
    return observation


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
