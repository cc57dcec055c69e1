"""A process that answers bytes with bytes over a pipe, and ends when the other end of the pipe is closed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

from weightkit.errors import ConfigError, WeightkitError

END_TIMEOUT_S = 10.0
_FINE, _WRONG = b"+", b"-"
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (ConfigError, ValueError, TypeError, RuntimeError)
}


class PipedProcess:
    """``python -m MODULE``, which calls `serve`. ``what`` names it in errors, ``hint`` is for when it has died.

    Whatever signals come, and however this process ends, it ends with it.
    """

    def __init__(self, module: str, *, what: str, hint: str) -> None:
        self._what, self._hint = what, hint
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [sys.executable, "-m", module, str(theirs.fileno())]
            self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._pipe = Connection(ours.detach())
        self._closed = False

    def send(self, message: bytes) -> None:
        """Without waiting for an answer. Raises WeightkitError where it has died."""
        try:
            self._pipe.send_bytes(message)
        except OSError:
            raise self._ended() from None

    def answer(self) -> bytes:
        """The next answer. What went wrong there is raised: ConfigError, ValueError, TypeError, RuntimeError by kind,
        ModuleNotFoundError with the module's name, WeightkitError else, and where it has died.
        """
        try:
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise self._ended() from None
        if answer[:1] == _FINE:
            return answer[1:]
        wrong = json.loads(answer[1:])
        if wrong["kind"] == "ModuleNotFoundError":
            raise ModuleNotFoundError(wrong["message"], name=wrong["name"])
        raise _KINDS.get(wrong["kind"], WeightkitError)(wrong["message"])

    def ask(self, message: bytes) -> bytes:
        """The answer to ``message``."""
        self.send(message)
        return self.answer()

    def close(self) -> None:
        """End it; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._pipe.close()
        try:
            self.process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ended(self) -> WeightkitError:
        self.close()
        return WeightkitError(f"{self._what} has ended, exit code {self.process.returncode}", hint=self._hint)


def serve(
    respond: Callable[[bytes], bytes],
    *,
    is_told: Callable[[bytes], bool] = lambda message: False,
    idle: Callable[[], object] = lambda: None,
) -> None:
    """In the process: answer until the pipe is closed. ``idle`` is called when no message waits.

    A message that ``is_told`` has no answer: what goes wrong with it is the answer to the next that has one.
    """
    failed: Exception | None = None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    pipe = Connection(int(sys.argv[1]))
    try:
        while True:
            if not pipe.poll():
                idle()
            message = pipe.recv_bytes()
            answer = b""
            try:
                answer = respond(message)
            except Exception as error:
                failed = failed or error
            if is_told(message):
                continue
            pipe.send_bytes(_FINE + answer if failed is None else _WRONG + _said(failed))
            failed = None
    except (EOFError, OSError):
        return


def _said(error: Exception) -> bytes:
    about = {"kind": type(error).__name__, "message": str(error), "name": getattr(error, "name", "")}
    return json.dumps(about).encode()
