"""People who take over: an action of theirs instead of the policy's, from a keyboard, a gamepad or a script."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from weightkit.errors import ConfigError, UsageError

Observation = Mapping[str, NDArray[Any]]

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "keyboard": "weightkit_runners.interventions:Keyboard",
        "gamepad": "weightkit_runners.interventions:Gamepad",
        "expert": "weightkit_runners.envs.expert:ExpertIntervention",
    }
)
"""Name -> ``module:class``. A source of your own needs no entry: name its factory as ``package.module:factory``."""


class InterventionSource(Protocol):
    """Asked once a step. Used by the acting thread alone."""

    def begin(self, env: Any, seed: int) -> None:
        """An episode of ``env`` begins, the environment itself as the run makes it."""

    def action(self, observation: Observation, planned: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """What to do instead of ``planned`` (A,), the policy's action on a stacked observation; None to let it."""

    def close(self) -> None:
        """Free the device; a second call does nothing."""


def make_source(name: str, action_dim: int, **options: Any) -> InterventionSource:
    """The source called ``name``, or what ``package.module:factory`` makes of ``action_dim`` and ``options``.

    Raises UsageError for a name that there is not, ConfigError where it needs what this machine lacks.
    """
    if name not in SOURCES and ":" not in name:
        raise UsageError(
            f"there is no source of interventions {name!r}",
            hint=f"known: {', '.join(SOURCES)}, or package.module:factory",
        )
    module, _, attribute = SOURCES.get(name, name).partition(":")
    try:
        factory = cast(Callable[..., InterventionSource], getattr(import_module(module), attribute))
        return factory(action_dim, **options)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"interventions by {name!r} need {error.name}, which is not installed", hint=f"pip install {error.name}"
        ) from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"interventions by {name!r}: {error}") from None


KEYS: Mapping[str, tuple[int, float]] = MappingProxyType(
    {"w": (0, 1.0), "s": (0, -1.0), "a": (1, 1.0), "d": (1, -1.0), "r": (2, 1.0), "f": (2, -1.0),
     "o": (3, 1.0), "c": (3, -1.0)}
)  # fmt: skip
"""Key -> action component and its value."""


class Keyboard:
    """Keys of the terminal that the actor runs in: w s along the first component, a d the second, r f the third, o c
    the fourth. A key holds for ``hold_s`` seconds after it was last seen, so that a held key is one movement.

    Raises ConfigError where standard input is no terminal.
    """

    def __init__(self, action_dim: int, *, hold_s: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        import termios
        import tty

        self._action_dim, self._hold_s, self._clock = action_dim, hold_s, clock
        self._pressed: dict[str, float] = {}
        if not sys.stdin.isatty():
            raise ConfigError("interventions by 'keyboard' need a terminal", hint="run the actor in one, not in a pipe")
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        self._open = True

    def begin(self, env: Any, seed: int) -> None:
        """Nothing is kept from one episode to the next."""
        self._pressed.clear()

    def action(self, observation: Observation, planned: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """What the pressed keys say, None where none is."""
        now = self._clock()
        while select.select([self._fd], [], [], 0)[0]:
            for key in os.read(self._fd, 64).decode(errors="replace"):
                if key in KEYS:
                    self._pressed[key] = now
        self._pressed = {key: since for key, since in self._pressed.items() if now - since <= self._hold_s}
        return combined(self._pressed, self._action_dim)

    def close(self) -> None:
        """Give the terminal back as it was."""
        import termios

        if self._open:
            self._open = False
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def combined(pressed: Mapping[str, float], action_dim: int) -> NDArray[np.float32] | None:
    """The action ``(A,)`` of the keys that are pressed; None where none of them means anything here."""
    action, means_something = np.zeros(action_dim, np.float32), False
    for key in pressed:
        component, value = KEYS[key]
        if component < action_dim:
            action[component] += value
            means_something = True
    return np.clip(action, -1.0, 1.0) if means_something else None


class Gamepad:
    """The first gamepad that pygame finds: its sticks are the action while the left shoulder button is held.

    ``axes``: which axis drives which component, ``deadman``: the button that must be held.
    """

    def __init__(self, action_dim: int, *, axes: tuple[int, ...] = (1, 0, 3, 2), deadman: int = 4) -> None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        import pygame

        self._pygame, self._axes, self._deadman = pygame, axes[:action_dim], deadman
        self._action_dim = action_dim
        pygame.init()
        if not pygame.joystick.get_count():
            pygame.quit()
            raise ConfigError("interventions by 'gamepad': no gamepad is connected", hint="connect one and start again")
        self._pad = pygame.joystick.Joystick(0)

    def begin(self, env: Any, seed: int) -> None:
        """Nothing is kept from one episode to the next."""

    def action(self, observation: Observation, planned: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The sticks, while the button is held."""
        self._pygame.event.pump()
        if not self._pad.get_button(self._deadman):
            return None
        action = np.zeros(self._action_dim, np.float32)
        for component, axis in enumerate(self._axes):
            action[component] = -self._pad.get_axis(axis)
        return np.clip(action, -1.0, 1.0)

    def close(self) -> None:
        """Free the gamepad."""
        self._pygame.quit()


class Scripted:
    """``decide(observation, planned)`` in place of a person."""

    def __init__(self, decide: Callable[[Observation, NDArray[np.float32]], NDArray[np.float32] | None]) -> None:
        self._decide = decide

    def begin(self, env: Any, seed: int) -> None:
        """A script keeps its own history."""

    def action(self, observation: Observation, planned: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """What the script says."""
        return self._decide(observation, planned)

    def close(self) -> None:
        """Nothing to free."""
