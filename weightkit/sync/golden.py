"""The golden probe: an observation, and what the learner does on it. Digests prove numbers, this proves code."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from weightkit.core.jsonio import parse_json
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Severity
from weightkit.errors import ActsDifferently, UnsyncedRead
from weightkit.sync.preserved import Beginning, Preserved, Randomness, copied_observation, nothing_left_behind
from weightkit.sync.read_set import Act, Trace, eager

logger = logging.getLogger(__name__)
MOST_BYTES = 8 << 20
TOLERANCE = 1e-2
"""Relative to the largest number: half precision on one side alone moves an action by 0.003, other code by more."""
_LEAST = 1e-6
_TREE = "tree"
_COMPARE = (
    "compare what surrounds the net on both sides: pixel scale, HWC or CHW, order of cameras and of state, train or "
    "eval mode, numbers that are no tensors, the version of the code"
)
_CHANGES = "act() changes something of its own that is not the policy's, such as a queue in its closure"
_HINT = (
    "the digests still prove that an actor holds the learner's numbers; what its code does with them is not compared"
)


def encoded(tree: Any) -> bytes | None:
    """An observation or an action as bytes without code: tensors as safetensors, around them JSON.

    None for what that cannot hold (objects, keys that are no text) and for more than 8 MiB.
    """
    tensors: dict[str, Tensor] = {}

    def described(value: Any) -> Any:
        if type(value) in (Tensor, np.ndarray, nn.Parameter):
            tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
            tensors[str(len(tensors))] = tensor.detach().cpu().contiguous().clone()
            return {"tensor" if isinstance(value, Tensor) else "array": len(tensors) - 1}
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return {"value": value}
        if type(value) in (list, tuple):
            return {type(value).__name__: [described(each) for each in value]}
        if type(value) is dict and all(type(key) is str for key in value):
            return {"dict": [[key, described(each)] for key, each in value.items()]}
        raise TypeError(type(value).__name__)

    try:
        tensors[_TREE] = torch.frombuffer(bytearray(json.dumps(described(tree)).encode()), dtype=torch.uint8)
        found: bytes = save(tensors)
    except Exception:  # whatever a library says to a tensor that it does not write
        return None
    return found if len(found) <= MOST_BYTES else None


def decoded(content: bytes) -> Any:
    """What `encoded` made bytes of. Raises ValueError for anything else."""
    if len(content) > MOST_BYTES:
        raise ValueError(f"the golden probe has {len(content)} bytes, of at most {MOST_BYTES}")
    try:
        tensors = load(content)
        document = parse_json(tensors.pop(_TREE).numpy().tobytes(), origin="the golden probe")
        return _built(document, tensors)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"the golden probe is malformed: {type(error).__name__}") from None


def _built(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = node.items()
    if kind in ("tensor", "array"):
        found = tensors[str(value)]
        return found if kind == "tensor" else found.numpy()
    if kind in ("list", "tuple"):
        inner = [_built(each, tensors) for each in value]
        return inner if kind == "list" else tuple(inner)
    if kind == "dict":
        return {str(key): _built(each, tensors) for key, each in value}
    if kind != "value" or not (value is None or isinstance(value, (bool, int, float, str))):
        raise ValueError("the golden probe is malformed")
    return value


class GoldenProbe:
    """The learner's side: one observation as bytes, and what ``act()`` does on it with the weights of the moment.

    It acts in the mode, and with the attributes, in which the policy was handed over. ``observation`` is b"" where
    nothing can be compared; ``findings`` then say why.
    """

    def __init__(self, policy: nn.Module, act: Act, probe: Any, traced: Trace, manifest: SyncManifest) -> None:
        self._policy, self._act, self._probe = policy, act, probe
        self._own_state, self._beginning = traced.own_state, Beginning(policy)
        waived = [name for name in sorted(traced.reads) if manifest.waiver_of(name) is not None]
        why = f"act() reads what each actor has of its own: {', '.join(waived)}" if waived else self._why_not()
        self.observation = b"" if why else encoded(probe) or b""
        self.findings = (Finding("WK315", Severity.INFO, "act()", why, _HINT),) if why else ()

    def action(self) -> bytes:
        """What the policy does now; the policy is left as it was."""
        return self._acted() or b"" if self.observation else b""

    def _acted(self) -> bytes | None:
        with self._beginning.once_more(self._policy, self._own_state), eager():
            return encoded(self._act(self._policy, copied_observation(self._probe)))

    def _why_not(self) -> str:
        if encoded(self._probe) is None:
            return f"the first probe is not plain data of at most {MOST_BYTES >> 20} MiB: it cannot travel to actors"
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_flatten(self._probe)[0]):
            return "the first probe wants gradients, which do not travel"
        devices = [parameter.device for parameter in self._policy.parameters()]
        with (
            Randomness(devices, self._policy, self._act) as randomness,
            nothing_left_behind(self._act) as changes_its_own,
            self._beginning.once_more(self._policy, self._own_state),
        ):
            before = randomness.states()
            with eager():
                first = encoded(self._act(self._policy, copied_observation(self._probe)))
            if changes_its_own():
                return _CHANGES
            drew = randomness.states() != before
        if first is None:
            return "what act() gives is not plain data"
        if drew:
            return "act() draws random numbers"
        if first != self._acted():
            return "act() does not repeat itself: its actions on one observation differ"
        return ""


class GoldenTrial:
    """The actor's side: does its ``act()`` do on the learner's probe what the learner does?

    ``like``: an observation of the actor's own; where it has the probe's structure it says on which devices to put it.
    """

    def __init__(self, policy: nn.Module, act: Act, traced: Trace, *, like: Any) -> None:
        self._policy, self._act, self._own_state, self._like = policy, act, traced.own_state, like
        self._beginning = Beginning(policy)
        devices = [parameter.device for parameter in policy.parameters()]
        with (
            Randomness(devices),
            nothing_left_behind(act) as changes_its_own,
            self._beginning.once_more(policy, self._own_state),
        ):
            act(policy, copied_observation(like))
            self.why_not = _CHANGES if changes_its_own() else ""

    def compare(self, probe: bytes, golden: bytes) -> float:
        """How far the action is from the learner's, acting from where the policy stands, attributes and all."""
        now = Preserved(self._policy, self._own_state)
        try:
            return difference(self._acted(self._observation(probe)), decoded(golden))
        except Exception as error:
            logger.info("from where it stands act() fails on the learner's observation: %s", error)
            return float("inf")
        finally:
            now.restore()

    def check(self, probe: bytes, golden: bytes) -> None:
        """Raises ActsDifferently where the action differs, acting in the mode and from the attributes of the beginning;
        ValueError for bytes that no learner sends.
        """
        observation, expected = self._observation(probe), decoded(golden)
        with self._beginning.once_more(self._policy, self._own_state):
            try:
                found = self._acted(observation)
            except UnsyncedRead:
                raise
            except Exception as error:
                why = f"act() fails on the learner's own observation: {type(error).__name__}: {error}"
                raise ActsDifferently(why, hint=_COMPARE) from error
        apart = difference(found, expected)
        if apart <= TOLERANCE:
            return
        far = "of another structure" if apart == float("inf") else f"{apart:.3g} of its largest number away"
        raise ActsDifferently(
            f"the actor holds exactly the learner's weights, but on the learner's own observation its action is {far}",
            hint=_COMPARE,
        )

    def try_probes(self, probes: Iterable[Any]) -> None:
        """Act on the actor's own probes; nothing is changed by it."""
        devices = [parameter.device for parameter in self._policy.parameters()]
        for probe in probes:
            with Randomness(devices), self._beginning.once_more(self._policy, self._own_state):
                self._act(self._policy, copied_observation(probe))

    def _observation(self, probe: bytes) -> Any:
        return _placed(decoded(probe), self._like)

    def _acted(self, observation: Any) -> Any:
        return copied_observation(self._act(self._policy, observation))


def _placed(observation: Any, like: Any) -> Any:
    leaves, structure = tree_flatten(observation)
    own, other = tree_flatten(like)
    if structure != other:
        return observation
    pairs = zip(leaves, own, strict=True)
    placed = [one.to(its.device) if isinstance(one, Tensor) and isinstance(its, Tensor) else one for one, its in pairs]
    return tree_unflatten(placed, structure)


def difference(found: Any, expected: Any) -> float:
    """How far two actions are apart, relative to the largest number in the second; infinite for another structure.

    Whole numbers, text and None must be equal; a tensor, an array and a list of the same numbers are equal.
    """
    if isinstance(expected, dict) or isinstance(found, dict):
        if not (isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys()):
            return float("inf")
        return max((difference(found[key], expected[key]) for key in expected), default=0.0)
    shapes = [x.shape for x in (found, expected) if isinstance(x, (Tensor, np.ndarray))]
    if len(shapes) == 2 and tuple(shapes[0]) != tuple(shapes[1]):
        return float("inf")
    here, there = _array(found), _array(expected)
    if here is None or there is None:
        if not isinstance(found, (list, tuple)) or not isinstance(expected, (list, tuple)):
            return 0.0 if type(found) is type(expected) and found == expected else float("inf")
        if len(found) != len(expected):
            return float("inf")
        return max((difference(*pair) for pair in zip(found, expected, strict=True)), default=0.0)
    if here.shape != there.shape:
        return float("inf")
    if here.dtype.kind not in "fc" and there.dtype.kind not in "fc":
        return 0.0 if np.array_equal(here, there) else float("inf")
    with np.errstate(invalid="ignore"):
        apart = np.where((here == there) | (np.isnan(here) & np.isnan(there)), 0.0, np.abs(here - there))
        scale = max(np.abs(there[np.isfinite(there)]).max(initial=0.0), _LEAST)
    return float("inf") if np.isnan(apart).any() else float(apart.max(initial=0.0) / scale)


def _array(value: Any) -> Any:
    """The numbers in ``value``; None where it is no array of numbers."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        wide = torch.complex128 if tensor.is_complex() else torch.float64 if tensor.is_floating_point() else None
        return (tensor if wide is None else tensor.to(wide)).numpy()
    numbers = isinstance(value, (list, tuple)) and all(isinstance(each, (bool, int, float)) for each in value)
    if numbers or isinstance(value, (np.ndarray, np.generic, bool, int, float)):
        array = np.asarray(value)
        return array if array.dtype.kind in "biufc" else None
    return None
