"""The golden probe: an observation, and what the learner does on it. Digests prove numbers, this proves code."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from weightkit.core.jsonio import parse_json
from weightkit.core.manifest import SyncManifest
from weightkit.core.report import Finding, Severity
from weightkit.errors import ActsDifferently, UnsyncedRead
from weightkit.sync.preserved import Preserved, Randomness, copied_observation
from weightkit.sync.read_set import Act, Trace, eager

MOST_BYTES = 8 << 20
TOLERANCE = 1e-3
"""Relative to the largest number: devices and builds of torch round differently, other code acts differently."""
_TREE = "tree"
_COMPARE = (
    "compare what surrounds the net on both sides: pixel scale, HWC or CHW, order of cameras and of state, train or "
    "eval mode, numbers that are no tensors, the version of the code"
)
_HINT = (
    "the digests still prove that an actor holds the learner's numbers; what its code does with them is not compared"
)


def encoded(tree: Any) -> bytes | None:
    """An observation or an action as bytes without code: tensors as safetensors, around them JSON.

    None for what that cannot hold (objects, keys that are no text) and for more than 8 MiB.
    """
    tensors: dict[str, Tensor] = {}

    def described(value: Any) -> Any:
        if isinstance(value, (Tensor, np.ndarray)):
            tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
            tensors[str(len(tensors))] = tensor.detach().cpu().contiguous().clone()
            return {"tensor" if isinstance(value, Tensor) else "array": len(tensors) - 1}
        if value is None or isinstance(value, (bool, int, float, str)):
            return {"value": value}
        if type(value) in (list, tuple):
            return {type(value).__name__: [described(each) for each in value]}
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {"dict": [[key, described(each)] for key, each in value.items()]}
        raise TypeError(type(value).__name__)

    try:
        tensors[_TREE] = torch.frombuffer(bytearray(json.dumps(described(tree)).encode()), dtype=torch.uint8)
        found: bytes = save(tensors)
    except (TypeError, ValueError, RecursionError):
        return None
    return found if len(found) <= MOST_BYTES else None


def decoded(content: bytes) -> Any:
    """What `encoded` made bytes of. Raises ValueError for anything else."""
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

    ``observation`` is b"" where nothing can be compared; ``findings`` then say why.
    """

    def __init__(self, policy: nn.Module, act: Act, probe: Any, traced: Trace, manifest: SyncManifest) -> None:
        self._policy, self._act, self._probe = policy, act, probe
        self._own_state = traced.own_state
        waived = [name for name in sorted(traced.reads) if manifest.waiver_of(name) is not None]
        why = f"act() reads what each actor has of its own: {', '.join(waived)}" if waived else self._why_not()
        self.observation = b"" if why else encoded(probe) or b""
        self.findings = (Finding("WK315", Severity.INFO, "act()", why, _HINT),) if why else ()

    def action(self) -> bytes:
        """What the policy does now; the policy is left as it was."""
        return encoded(self._acted()) or b"" if self.observation else b""

    def _acted(self) -> Any:
        before = Preserved(self._policy, self._own_state)
        with eager():
            try:
                return self._act(self._policy, copied_observation(self._probe))
            finally:
                before.restore()

    def _why_not(self) -> str:
        if encoded(self._probe) is None:
            return f"the first probe is not plain data of at most {MOST_BYTES >> 20} MiB: it cannot travel to actors"
        with Randomness(parameter.device for parameter in self._policy.parameters()) as randomness:
            found = []
            for seed in range(2):
                randomness.start(seed)
                found.append(encoded(self._acted()))
        if found[0] is None:
            return "what act() gives is not plain data"
        if found[0] != found[1]:
            return "act() draws random numbers: its actions on one observation differ"
        return ""


def act_alike(policy: nn.Module, act: Act, traced: Trace, probe: bytes, golden: bytes, *, like: Any) -> None:
    """The actor's side: raises ActsDifferently where ``act()`` does not do on the probe what the learner does.

    ``like``: an observation of the actor's own; where it has the probe's structure it says on which devices to put it.
    Raises ValueError for bytes that no learner sends.
    """
    observation, expected = _placed(decoded(probe), like), decoded(golden)
    before = Preserved(policy, traced.own_state)
    try:
        found = act(policy, observation)
    except UnsyncedRead:
        raise
    except Exception as error:
        why = f"act() fails on the learner's own observation: {type(error).__name__}: {error}"
        raise ActsDifferently(why, hint=_COMPARE) from error
    finally:
        before.restore()
    apart = difference(found, expected)
    if not apart <= TOLERANCE:
        raise ActsDifferently(
            "the actor holds exactly the learner's weights, but on the learner's own observation its action is "
            + (
                "of another structure" if apart == float("inf") else f"{apart:.3g} away, relative to its largest number"
            ),
            hint=_COMPARE,
        )


def _placed(observation: Any, like: Any) -> Any:
    leaves, structure = tree_flatten(observation)
    own, other = tree_flatten(like)
    if structure != other:
        return observation
    pairs = zip(leaves, own, strict=True)
    placed = [one.to(its.device) if isinstance(one, Tensor) and isinstance(its, Tensor) else one for one, its in pairs]
    return tree_unflatten(placed, structure)


def difference(found: Any, expected: Any) -> float:
    """How far two actions are apart, relative to the largest number in the second; infinite for another structure."""
    ones, others = tree_leaves(found), tree_leaves(expected)
    if len(ones) != len(others):
        return float("inf")
    return max((_apart(one, other) for one, other in zip(ones, others, strict=True)), default=0.0)


def _apart(one: Any, other: Any) -> float:
    arrays = [np.asarray(x.detach().cpu().to(torch.float64) if isinstance(x, Tensor) else x) for x in (one, other)]
    here, there = arrays
    if here.shape != there.shape or here.dtype.kind not in "biuf" or there.dtype.kind not in "biuf":
        return 0.0 if here.shape == there.shape and bool(np.all(here == there)) else float("inf")
    here, there = here.astype(np.float64), there.astype(np.float64)
    with np.errstate(invalid="ignore"):
        apart = np.where((here == there) | (np.isnan(here) & np.isnan(there)), 0.0, np.abs(here - there))
        scale = 1 + np.abs(there[np.isfinite(there)]).max(initial=0.0)
    return float("inf") if np.isnan(apart).any() else float(apart.max(initial=0.0) / scale)
