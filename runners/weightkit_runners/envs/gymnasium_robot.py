"""Any gymnasium environment as a robot: a user's own arm, or a simulated one, by its id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weightkit_runners.envs.base import IMAGE_PREFIX, Action, Observation, Step, checked_action

_ID = re.compile(r"(?:[\w.]+:)?(?:[\w-]+/)?[\w.-]+-v\d+")
WHOLE = "observation"
"""What an observation that is no dictionary is called."""


def is_gymnasium_id(name: str) -> bool:
    """Whether a name is one of gymnasium's, ``Id-v0`` or ``module:Id-v0``; the module is imported to register it."""
    return _ID.fullmatch(name) is not None


class GymnasiumRobot:
    """``gymnasium.make(name)`` with our keys, images on channels first, and actions in [-1, 1].

    ``features_map``: its observation key to ours; ``a/b`` is ``b`` in the dictionary ``a``, and ``observation`` is an
    observation that is no dictionary. Several that go to ``observation.state`` are put one after another.
    ``features``: the shapes that the policy wants. Images are uint8 (H, W, 3) or (3, H, W); with ``resize`` they are
    brought to the size wanted. Actions are scaled to the bounds of its action space. ``simulated``: nothing moves that
    is real. Success is ``info["success"]`` or ``info["is_success"]``. Further options go to ``gymnasium.make``.

    Raises ValueError where a key is missing or of another shape, and for actions that are no bounded vector.
    """

    def __init__(
        self,
        name: str,
        *,
        features: Mapping[str, tuple[int, ...]],
        features_map: Mapping[str, str],
        max_episode_steps: int | None = None,
        resize: bool = False,
        simulated: bool = False,
        **options: Any,
    ) -> None:
        import gymnasium

        self.simulated = simulated
        self.features = dict(features)
        self._resize = resize
        self._sources: dict[str, list[str]] = {key: [] for key in features}
        for theirs, ours in features_map.items():
            if ours in self._sources:
                self._sources[ours].append(theirs)
        try:
            self._env: Any = gymnasium.make(name, max_episode_steps=max_episode_steps, **options)
        except gymnasium.error.Error as error:
            raise ValueError(f"gymnasium does not make {name!r}: {error}") from None
        try:
            self._check_actions(name)
            self._check_observations(name)
        except BaseException:
            self._env.close()
            raise

    @property
    def action_dim(self) -> int:
        """Number of action components."""
        return int(self._env.action_space.shape[0])

    def reset(self, seed: int) -> Observation:
        """The first observation of the episode that ``seed`` names."""
        observation, _ = self._env.reset(seed=seed)
        return self._taken(observation)

    def step(self, action: Action) -> Step:
        """Outcome of ``action`` (A,), scaled to the bounds."""
        share = 0.5 * (checked_action(action, self.action_dim) + 1.0)
        space = self._env.action_space
        scaled = (space.low + share * (space.high.astype(np.float64) - space.low)).astype(space.dtype)
        observation, reward, terminated, truncated, info = self._env.step(scaled)
        success = bool(info.get("success", info.get("is_success", False)))
        return self._taken(observation), float(reward), bool(terminated), bool(truncated), {**info, "success": success}

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _check_actions(self, name: str) -> None:
        space = self._env.action_space
        bounded = hasattr(space, "low") and np.isfinite(space.low).all() and np.isfinite(space.high).all()
        if not bounded or len(space.shape) != 1:
            raise ValueError(f"the actions of {name!r} are {space}, expected a bounded Box of one axis")

    def _check_observations(self, name: str) -> None:
        import gymnasium

        for ours, sources in self._sources.items():
            if not sources:
                known = ", ".join(sorted(_keys(self._env.observation_space, gymnasium.spaces.Dict)))
                raise ValueError(f"features_map: nothing of {name!r} goes to {ours!r}; its keys are {known}")
        self._taken(_sample(self._env.observation_space, gymnasium.spaces.Dict))

    def _taken(self, observation: Any) -> Observation:
        found: Observation = {}
        for ours, sources in self._sources.items():
            parts = [_at(observation, source) for source in sources]
            wanted = tuple(self.features[ours])
            if ours.startswith(IMAGE_PREFIX.rstrip(".")):
                found[ours] = self._image(parts[0], wanted, sources[0])
                continue
            state = np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in parts])
            if state.shape != wanted:
                raise ValueError(f"{ours}: expected {list(wanted)}, {' + '.join(sources)} is {list(state.shape)}")
            found[ours] = state
        return found

    def _image(self, raw: Any, wanted: tuple[int, ...], source: str) -> NDArray[np.uint8]:
        image = np.asarray(raw)
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(
                f"{source}: expected an image, uint8 with three axes, found {image.dtype}{list(image.shape)}"
            )
        if image.shape[0] != wanted[0] and image.shape[2] == wanted[0]:
            image = image.transpose(2, 0, 1)
        if image.shape != wanted and self._resize and image.shape[0] == wanted[0]:
            image = _resized(image, (wanted[1], wanted[2]))
        if image.shape != wanted:
            raise ValueError(
                f"{source}: expected an image of {list(wanted)}, found {list(image.shape)}; env.options.resize true "
                "brings it to that size"
            )
        return np.ascontiguousarray(image)


def _at(observation: Any, path: str) -> Any:
    if path == WHOLE and not isinstance(observation, Mapping):
        return observation
    found = observation
    for key in path.split("/"):
        if not isinstance(found, Mapping) or key not in found:
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else "no dictionary"
            raise ValueError(f"features_map: there is no {path!r} in the observation: {there}")
        found = found[key]
    return found


def _keys(space: Any, kind: type) -> list[str]:
    if not isinstance(space, kind):
        return [WHOLE]
    found = []
    for key, below in space.spaces.items():  # type: ignore[attr-defined]
        nested = _keys(below, kind)
        found += [key] if nested == [WHOLE] else [f"{key}/{name}" for name in nested]
    return found


def _sample(space: Any, kind: type) -> Any:
    """An observation of zeros: drawing one would use up the environment's random numbers."""
    if isinstance(space, kind):
        return {key: _sample(below, kind) for key, below in space.spaces.items()}  # type: ignore[attr-defined]
    return np.zeros(space.shape, space.dtype)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """``(C, H, W) -> (C, *size)``, each pixel the mean of what it covers."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(image)).float()[None]
    smaller = torch.nn.functional.interpolate(pixels, size=size, mode="bilinear", antialias=True, align_corners=False)
    found: NDArray[np.uint8] = smaller[0].round().clamp(0, 255).to(torch.uint8).numpy()
    return found
