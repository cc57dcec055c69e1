"""What one step of an actor is, on its way to the learner: every frame travels once.

A transition is flat: ``next.`` and an observation key for the frame that it led to, ``action`` (A,), ``reward`` (),
``terminated`` (), ``truncated`` (), ``success`` () where the episode ended well, ``intervention`` () where a person's
action was taken instead of the policy's, and its place, ``episode`` () and ``step`` (). The first of an episode,
``step`` 0, also has the frame that it began with, under the observation keys themselves; that of every other is the
one before it. Frames are single: images uint8 (C, H, W), the state float32 (D,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weightkit.architectures.drqv2.config import IMAGE_KEY, STATE_KEY, is_image_key

if TYPE_CHECKING:
    from weightkit_runners.config import RunConfig

Transition = Mapping[str, NDArray[Any]]
Frame = Mapping[str, NDArray[Any]]

NEXT = "next."
ACTION, REWARD, TERMINATED, TRUNCATED = "action", "reward", "terminated", "truncated"
SUCCESS, INTERVENTION = "success", "intervention"
EPISODE, STEP = "episode", "step"


@dataclass(frozen=True, slots=True)
class TransitionSpec:
    """Dtype and shape of what a run's transitions are made of: a frame's entries, by observation key, and the action.

    ``frame_stack`` frames make one observation of the policy.
    """

    frame: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    action_dim: int
    frame_stack: int = 1

    @property
    def frame_bytes(self) -> int:
        """Size of one frame in bytes, images and state together."""
        return sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in self.frame.values())

    def to_dict(self) -> dict[str, Any]:
        """The specification as JSON values."""
        frame = {key: [dtype.name, list(shape)] for key, (dtype, shape) in self.frame.items()}
        return {"frame": frame, "action_dim": self.action_dim, "frame_stack": self.frame_stack}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransitionSpec:
        """The specification that ``to_dict`` gave."""
        frame = {key: (np.dtype(name), tuple(shape)) for key, (name, shape) in values["frame"].items()}
        return cls(frame, values["action_dim"], values["frame_stack"])

    def check(self, transition: Transition) -> None:
        """Raise ValueError, naming the entry, for a transition with other keys, shapes, dtypes or numbers."""
        wanted = {
            **{NEXT + key: spec for key, spec in self.frame.items()},
            ACTION: (np.dtype(np.float32), (self.action_dim,)),
            **_PLAIN,
        }
        step = np.asarray(transition.get(STEP, -1))
        if step.ndim == 0 and step == 0:
            wanted |= self.frame
        if set(transition) != set(wanted):
            missing, strange = sorted(set(wanted) - set(transition)), sorted(set(transition) - set(wanted))
            raise ValueError(f"other entries than expected: without {missing or 'none'}, beyond it {strange or 'none'}")
        for key, (dtype, shape) in wanted.items():
            value = np.asarray(transition[key])
            if value.shape != shape or value.dtype != dtype:
                raise ValueError(f"{key}: expected {dtype}{list(shape)}, found {value.dtype}{list(value.shape)}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"{key}: NaN or infinite")
        if step < 0:
            raise ValueError(f"step: at least 0 is expected, found {step}")


_PLAIN: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
    REWARD: (np.dtype(np.float32), ()),
    **{key: (np.dtype(np.bool_), ()) for key in (TERMINATED, TRUNCATED, SUCCESS, INTERVENTION)},
    EPISODE: (np.dtype(np.int64), ()),
    STEP: (np.dtype(np.int64), ()),
}


def transition_spec(config: RunConfig) -> TransitionSpec:
    """What a transition of the run looks like."""
    net = config.net
    keys = config.env.features or [*(f"{IMAGE_KEY}.{camera}" for camera in net.cameras), STATE_KEY]
    image = (net.image_channels, net.image_height, net.image_width)
    frame: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
    for key in keys:
        if is_image_key(key):
            frame[key] = (np.dtype(np.uint8), image)
        elif net.state_dim:
            frame[key] = (np.dtype(np.float32), (net.state_dim,))
    discrete = int(bool(getattr(net, "num_discrete_actions", 0)))
    return TransitionSpec(frame, net.action_dim + discrete, net.frame_stack)


def make_transition(
    before: Frame | None,
    action: NDArray[Any],
    reward: float,
    after: Frame,
    *,
    episode: int,
    step: int,
    terminated: bool,
    truncated: bool = False,
    success: bool = False,
    intervention: bool = False,
) -> dict[str, NDArray[Any]]:
    """One step as it travels; ``before``, the episode's first frame, goes along at step 0 only."""
    return {
        **(dict(before) if before is not None and step == 0 else {}),
        **{NEXT + key: value for key, value in after.items()},
        ACTION: np.asarray(action, np.float32),
        REWARD: np.asarray(reward, np.float32),
        TERMINATED: np.asarray(terminated, np.bool_),
        TRUNCATED: np.asarray(truncated, np.bool_),
        SUCCESS: np.asarray(success, np.bool_),
        INTERVENTION: np.asarray(intervention, np.bool_),
        EPISODE: np.asarray(episode, np.int64),
        STEP: np.asarray(step, np.int64),
    }
