"""What two policies do on the same observations, with controls that show that the comparison can see a difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Any, Literal

from weightkit.architectures.base import Inputs
from weightkit.architectures.probes import IMAGE_KEY, STATE_KEY, Observation, probes
from weightkit.core.text import printable
from weightkit.errors import ConfigError

KINDS = ("moving", "still", "black", "white")
STILL = ("still", "black", "white")
ATOL = 1e-5
_MOST_CAMERAS = 4
"""So many cameras are tried in every order, to say that two of them are swapped."""

Verdict = Literal["equal", "different", "blind", "not checked"]
Outputs = dict[str, "Any"]
"""Output -> array: "action", "mean" (before the tanh) and "std" ``(B, A)``, "discrete_q_values" ``(B, choices)``,
"q_values" and "target_q_values" ``(num_critics, B)``."""
_DISCRETE = "discrete_q_values"
OUTPUTS = frozenset({"action", "mean", "std", _DISCRETE, "q_values", "target_q_values"})
_SAME_PATH = (("action", "mean", "std"), (_DISCRETE,), ("q_values",), ("target_q_values",))
"""Outputs that the same weights make: a control must show in one of them, for a tanh hides much at its ends."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A policy with its name for people, and what it looks at."""

    name: str
    policy: Any
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Comparison:
    """The largest absolute differences of two policies' outputs, and of the controls' from the first's.

    ``differences``: kind of observation -> output -> difference; ``expected`` are the kinds on which they must agree.
    ``controls``: control -> output -> difference. ``limits``: output -> what counts as equal. ``failed``: the policies
    could not be compared, though nothing in the plan says why not.
    """

    verdict: Verdict
    why: str
    atol: float
    expected: tuple[str, ...] = ()
    observations: int = 0
    differences: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    controls: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failed: bool = False

    @property
    def worst(self) -> dict[str, float]:
        """Output -> the largest difference on the kinds that count."""
        found: dict[str, float] = {}
        for kind in self.expected:
            for output, difference in self.differences.get(kind, {}).items():
                found[output] = max(found.get(output, 0.0), difference)
        return found

    def to_dict(self) -> dict[str, object]:
        """The comparison as JSON values; an infinite difference, which a NaN is, as text."""
        return {
            "verdict": self.verdict,
            "why": self.why,
            "domain": ", ".join(self.expected),
            "probes": self.observations,
            "atol": self.atol,
            "outputs": _finite(self.worst),
            "limits": _finite(self.limits),
            "kinds": {kind: _finite(found) for kind, found in self.differences.items()},
            "controls": {control: _finite(found) for control, found in self.controls.items()},
            "notes": list(self.notes),
        }


def compare_policies(
    one: Judged,
    other: Judged,
    *,
    count: int = 2,
    atol: float = ATOL,
    expected: Sequence[str] = KINDS,
    observations: Mapping[str, Sequence[Observation]] | None = None,
) -> Comparison:
    """How far apart the outputs of two policies are on ``count`` observations of each kind, or on ``observations``.

    ``expected``: the kinds on which they must agree. Where one stacks more frames it sees the others' history too, and
    where its state has more entries they are random: an adapted policy must not care. Raises ConfigError where no
    observation can be made for both.
    """
    notes: list[str] = []
    if observations is None:
        base, cameras = _common(one, other, notes)
        made = {kind: probes(base, batch=count, kinds=(kind,)) for kind in KINDS}
    else:
        made, base, cameras = {kind: list(found) for kind, found in observations.items()}, None, {}
    differences: dict[str, dict[str, float]] = {}
    controls: dict[str, dict[str, float]] = {"fresh": {}, "permuted": {}}
    limits: dict[str, float] = {}
    nets = {"fresh": _fresh(other.policy), "permuted": _permuted(other.policy)}
    for kind, group in made.items():
        for observation in group:
            mine = observation if base is None else _fitted(observation, base, one.inputs, {})
            theirs = observation if base is None else _fitted(observation, base, other.inputs, cameras)
            reference = outputs_of(one.policy, mine)
            action = reference["action"]
            row = differences.setdefault(kind, {})
            _widen(row, _apart(reference, outputs_of(other.policy, theirs, action), heads=True))
            for output in row:
                limits[output] = max(limits.get(output, 0.0), _allowed(reference.get(output), atol))
            if kind in expected:
                for control, net in nets.items():
                    _widen(controls[control], _apart(reference, outputs_of(net, theirs, action)))
    for judged, net in ((one, other), (other, one)):
        if getattr(judged.policy, "critic", None) is None and getattr(net.policy, "critic", None) is not None:
            notes.append(f"{judged.name} has no whole critic: Q values are not compared")
    comparison = Comparison(
        "equal", "", atol, tuple(expected), sum(map(len, made.values())) * count, differences, controls, limits,
        tuple(notes),
    )  # fmt: skip
    return _judged(comparison, one, other, made, base, cameras)


def compare_recorded(
    one: Judged, name: str, observation: Observation, recorded: Outputs, *, atol: float = ATOL
) -> Comparison:
    """How far a policy's outputs are from what was recorded of another; controls are the policy's own.

    ``recorded``: "action" ``(B, A)`` and any other of OUTPUTS, critics' of that action. What the policy does not give
    is noted and not compared. Raises ConfigError for an observation that the policy cannot look at.
    """
    action = recorded["action"]
    for output in OUTPUTS & recorded.keys():
        array = recorded[output]
        if array.size == 0 or array.dtype.kind not in "fiu":
            raise ConfigError(f"{name}: expected numbers at {output}, found {array.dtype.name}{list(array.shape)}")
    controls: dict[str, dict[str, float]] = {}
    try:
        found = _apart(recorded, _as_recorded(one.policy, observation, action))
        for control, net in (("fresh", _fresh(one.policy)), ("permuted", _permuted(one.policy))):
            controls[control] = _apart(recorded, _as_recorded(net, observation, action))
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ConfigError(f"{name}: {one.name} cannot look at what was recorded: {said_by(error)}") from None
    limits = {output: _allowed(recorded.get(output), atol) for output in found}
    notes = tuple(
        f"{name} holds {printable(output)}, which {one.name} does not give: it is not compared"
        for output in recorded
        if output not in found
    )
    comparison = Comparison("equal", "", atol, ("recorded",), len(action), {"recorded": found}, controls, limits, notes)
    recording = Judged(name, None, one.inputs)
    return _judged(comparison, recording, one, {}, None, {})


def _as_recorded(policy: Any, observation: Observation, action: Any) -> Outputs:
    """The policy's outputs; its action with the index of a discrete head where one was recorded."""
    whole = policy.act(observation).cpu().numpy()
    found = outputs_of(policy, observation, action[:, : policy.means(observation).shape[1]])
    return {**found, "action": whole} if whole.shape == action.shape else found


def outputs_of(policy: Any, observation: Observation, action: Any = None) -> Outputs:
    """Everything that the policy says about an observation; its critics about ``action``, else about its own."""
    means = policy.means(observation)
    chosen = policy.act(observation)[:, : means.shape[1]]  # behind it stands the index of a discrete head
    found = {"action": chosen.cpu().numpy(), "mean": means.cpu().numpy()}
    if getattr(policy, "stds", None) is not None:  # a net that samples around its mean
        found["std"] = policy.stds(observation).cpu().numpy()
    if getattr(policy, "discrete_critic", None) is not None:
        found[_DISCRETE] = policy.discrete_q_values(observation).cpu().numpy()
    if getattr(policy, "critic", None) is not None:
        judged = chosen if action is None else action
        found["q_values"] = policy.q_values(observation, judged).cpu().numpy()
        found["target_q_values"] = policy.target_q_values(observation, judged).cpu().numpy()
    return found


def said_by(error: Exception) -> str:
    """What an error of a net says, on one line."""
    words = str(error.args[0]) if error.args else type(error).__name__
    return words.partition("\n")[0]


def _judged(
    comparison: Comparison,
    one: Judged,
    other: Judged,
    made: Mapping[str, Sequence[Observation]],
    base: Inputs | None,
    cameras: Mapping[str, str],
) -> Comparison:
    """The comparison with its verdict, and why."""
    limits, worst = comparison.limits, comparison.worst
    apart = [output for output, difference in worst.items() if not difference <= limits[output]]
    if apart:
        output = max(apart, key=lambda each: worst[each] / limits[each])
        why = f"{output} of {other.name} is up to {worst[output]:.3g} away from that of {one.name}"
        if base is not None:
            why += _swapped(comparison, one, other, made, base, cameras)
        return replace(comparison, verdict="different", why=why)
    for control, found in comparison.controls.items():
        for path in _SAME_PATH:
            judged = [output for output in path if output in worst]
            if judged and all(found.get(output, 0.0) <= limits[output] for output in judged):
                what = {"fresh": "freshly initialised weights", "permuted": "one permuted layer"}[control]
                why = f"{judged[0]} does not change with {what}, so that it is equal here says nothing"
                return replace(comparison, verdict="blind", why=why)
    return replace(comparison, why=f"equal within {comparison.atol:g} on {', '.join(comparison.expected)} observations")


def _swapped(
    comparison: Comparison,
    one: Judged,
    other: Judged,
    made: Mapping[str, Sequence[Observation]],
    base: Inputs,
    cameras: Mapping[str, str],
) -> str:
    """Whether the policies agree when the cameras stand in another order: the words that say so."""
    names = other.inputs.cameras
    if not 1 < len(names) <= _MOST_CAMERAS:
        return ""
    for order in permutations(names):
        if order == names:
            continue
        swapped = {camera: cameras[seen] for camera, seen in zip(names, order, strict=True)}
        found: dict[str, float] = {}
        for kind in comparison.expected:
            for observation in made[kind]:
                reference = outputs_of(one.policy, _fitted(observation, base, one.inputs, {}))
                seen = _fitted(observation, base, other.inputs, swapped)
                _widen(found, _apart(reference, outputs_of(other.policy, seen, reference["action"])))
        if all(difference <= comparison.limits[output] for output, difference in found.items()):
            return f"; they are equal with the cameras in the order {', '.join(order)}: two are swapped"
    return ""


def _common(one: Judged, other: Judged, notes: list[str]) -> tuple[Inputs, dict[str, str]]:
    """What observations must hold so that both policies can look at them, and the second's cameras by the first's."""
    a, b = one.inputs, other.inputs
    for what in ("channels", "height", "width", "environment_dim", "time_dim", "action_dim"):
        mine, theirs = getattr(a, what), getattr(b, what)
        if mine != theirs and (a.cameras or what not in ("channels", "height", "width")):
            found = f"{what} is {mine} in {one.name}, {theirs} in {other.name}"
            raise ConfigError(f"the policies cannot be compared: {found}")
    if len(a.cameras) != len(b.cameras) or bool(a.state_dim) != bool(b.state_dim):
        raise ConfigError(
            f"the policies cannot be compared: {one.name} sees {_seen(a)}, {other.name} sees {_seen(b)}",
            hint="convert both with the same cameras and state",
        )
    cameras = {camera: camera for camera in b.cameras}
    if set(a.cameras) != set(b.cameras):
        cameras = dict(zip(b.cameras, a.cameras, strict=True))
        notes.append(f"cameras by their order: {', '.join(f'{y} is {x}' for x, y in cameras.items())}")
    if a.frames != b.frames:
        few, many = sorted((a.frames, b.frames))
        notes.append(f"one stacks {few} frames, the other {many}: the first sees the newest of them")
    if a.state_dim != b.state_dim:
        notes.append(f"states of {a.state_dim} and {b.state_dim} entries: the further ones are random")
    return replace(a, frames=max(a.frames, b.frames), state_dim=max(a.state_dim, b.state_dim)), cameras


def _seen(inputs: Inputs) -> str:
    return ", ".join((*inputs.cameras, *(("a state",) if inputs.state_dim else ())))


def _fitted(observation: Observation, base: Inputs, inputs: Inputs, cameras: Mapping[str, str]) -> dict[str, Any]:
    """The part of an observation made for ``base`` that a policy sees: its newest frames, the first of its state."""
    found = dict(observation)
    for camera in base.cameras:
        found.pop(f"{IMAGE_KEY}.{camera}")
    for camera in inputs.cameras:
        images = observation[f"{IMAGE_KEY}.{cameras.get(camera, camera)}"]
        stacked = images.reshape(len(images), base.frames, base.channels, base.height, base.width)
        shape = (len(images), inputs.frames * base.channels, base.height, base.width)
        found[f"{IMAGE_KEY}.{camera}"] = stacked[:, -inputs.frames :].reshape(shape)
    if inputs.state_dim:
        state = observation[STATE_KEY]
        stacked = state.reshape(len(state), base.frames, base.state_dim)
        found[STATE_KEY] = stacked[:, -inputs.frames :, : inputs.state_dim].reshape(len(state), -1)
    return found


def _apart(one: Outputs, other: Outputs, *, heads: bool = False) -> dict[str, float]:
    """The largest absolute difference of each output that both have; with ``heads``, a discrete one that one lacks."""
    found = {output: _difference(one[output], other[output]) for output in one if output in other}
    if heads and (_DISCRETE in one) != (_DISCRETE in other):
        found[_DISCRETE] = float("inf")
    return found


def _difference(one: Any, other: Any) -> float:
    """The largest absolute difference; none where both hold the same infinity or a NaN, infinite where one does."""
    import numpy as np

    if one.shape != other.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        apart = np.where((one == other) | (np.isnan(one) & np.isnan(other)), 0.0, abs(one - other))
    return float("inf") if np.isnan(apart).any() else float(apart.max(initial=0.0))


def _allowed(reference: Any, atol: float) -> float:
    """What counts as equal: ``atol`` times the largest number, which rounding grows with, at least ``atol``."""
    import numpy as np

    finite = reference[np.isfinite(reference)] if reference is not None else np.zeros(0)
    return atol * max(1.0, float(abs(finite).max(initial=0.0)))


def _widen(found: dict[str, float], more: Mapping[str, float]) -> None:
    for output, difference in more.items():
        found[output] = max(found.get(output, 0.0), difference)


def _fresh(policy: Any) -> Any:
    """The same net as nobody has trained it."""
    import torch

    net = deepcopy(policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            if tensor.ndim >= 2:
                scale = (tensor[0].numel()) ** -0.5
                tensor.copy_(torch.randn(tensor.shape, generator=generator).to(tensor) * scale)
            else:
                tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    return net


def _permuted(policy: Any) -> Any:
    """The same net, the rows of one layer of each of its parts turned by one: what reads them is not."""
    import torch

    net = deepcopy(policy)
    done: set[str] = set()
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            part = name.split(".", 1)[0]
            if part in done or tensor.ndim < 2:
                continue
            turned = torch.roll(tensor, 1, 0)
            if not torch.equal(turned, tensor):
                tensor.copy_(turned)
                done.add(part)
    return net


def _finite(found: Mapping[str, float]) -> dict[str, object]:
    return {key: value if value < float("inf") else "inf" for key, value in found.items()}
