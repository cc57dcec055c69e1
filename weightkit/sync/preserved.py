"""A policy that acts and is afterwards as it was: numbers, attributes and random states."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from weightkit.arena import copy_tensor
from weightkit.sync.inventory import Item, attributes, modules
from weightkit.sync.memory import has_bytes
from weightkit.sync.objects import held_in, mutable_in

_CONTAINERS = (list, dict, deque, set)
_LARGEST_BYTES = 16 << 20
_PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))


class Preserved:
    """What a policy holds at this moment, to be put back as often as wanted."""

    def __init__(self, policy: nn.Module, items: Iterable[Item], act: object = None) -> None:
        self._items = tuple(item for item in items if has_bytes(item.tensor))
        self._numbers = {item.name: item.tensor.detach().clone() for item in self._items}
        found = {id(module): module for _, module in modules(policy)}.values()
        self._bindings = [_Bindings(module) for module in found if not isinstance(module, torch.jit.ScriptModule)]
        self.contents = Contents((*_plain_values(found), act))

    def restore(self) -> None:
        """Put everything back: numbers, and what attributes are bound to and hold."""
        for item in self._items:
            copy_tensor(self._numbers[item.name], item.tensor)
        self.restore_objects()
        self.contents.restore_arrays()

    def restore_objects(self) -> None:
        """Put back what attributes are bound to and hold, numbers aside."""
        for bindings in self._bindings:
            bindings.restore()
        self.contents.restore_objects()

    def changed(self) -> set[str]:
        """Names of the tensors whose bytes are others now."""
        return {i.name for i in self._items if not np.array_equal(_bytes(i.tensor), _bytes(self._numbers[i.name]))}

    def replaced(self) -> dict[str, object]:
        """Names of the tensors in whose place something else stands -> what stands there."""
        found = {id(was): now for bindings in self._bindings for was, now in bindings.replaced()}
        return {item.name: found[id(item.tensor)] for item in self._items if id(item.tensor) in found}


class _Bindings:
    """What the attributes, tensors and modules of one module are bound to."""

    def __init__(self, module: nn.Module) -> None:
        self._places = [vars(module), module._parameters, module._buffers, module._modules]
        self._were = [dict(place) for place in self._places]

    def replaced(self) -> Iterator[tuple[object, object]]:
        """What was bound, and what is bound to the same name now."""
        for place, were in zip(self._places, self._were, strict=True):
            for name, value in were.items():
                if place.get(name) is not value:
                    yield value, place.get(name)

    def restore(self) -> None:
        for place, were in zip(self._places, self._were, strict=True):
            for name in [name for name in place if name not in were]:
                del place[name]  # what acting has put there: a cache, a lazy attribute
            for name, value in were.items():
                if place.get(name) is not value:
                    place[name] = value


@contextmanager
def nothing_left_behind(act: object) -> Iterator[Callable[[], bool]]:
    """Around an act: what it changes of its own closure or object, which is not the policy's, is put back.

    Gives a function that says whether there was anything.
    """
    own = Contents((act,))
    try:
        yield own.changed
    finally:
        own.restore_objects()
        own.restore_arrays()


class Contents:
    """What is in the containers, objects, arrays and random generators that plain attributes lead to."""

    def __init__(self, roots: Iterable[object]) -> None:
        roots = tuple(roots)
        found = list(mutable_in(roots))
        self._arrays = [(a, a.copy()) for a in found if isinstance(a, np.ndarray) and a.nbytes <= _LARGEST_BYTES]
        rest = [value for value in found if not isinstance(value, np.ndarray)]
        self._containers = [(value, _copied(value)) for value in rest if isinstance(value, _CONTAINERS)]
        self._objects = [(vars(v), dict(vars(v))) for v in rest if not isinstance(v, _CONTAINERS)]
        held = {id(v): v for _, content in (*self._containers, *self._objects) for v in _values(content)}
        held |= {id(root): root for root in roots}
        self.generators = [value for value in held.values() if _state_of(value) is not None]
        self._states = [(value, _state_of(value)) for value in self.generators]

    @property
    def arrays(self) -> list[np.ndarray]:
        """The numeric arrays among them that are small enough to be kept."""
        return [array for array, _ in self._arrays]

    def changed(self) -> bool:
        """Whether anything of it is not as it was."""
        places = any(not _is_same(_copied(p), content) for p, content in (*self._containers, *self._objects))
        return places or any(not np.array_equal(array, content, equal_nan=True) for array, content in self._arrays)

    def restore_objects(self) -> None:
        for place, content in (*self._containers, *self._objects):
            if not _is_same(_copied(place), content):
                place.clear()
                (place.extend if isinstance(place, (list, deque)) else place.update)(content)
        for generator, state in self._states:
            _set_state(generator, state)

    def restore_arrays(self) -> None:
        for array, content in self._arrays:
            array[...] = content


class Beginning:
    """What a policy's modules were in when it was handed over: their mode, and the attributes that are no tensors.

    Histories, queues of actions and counters start from there, on a learner as on an actor.
    """

    def __init__(self, policy: nn.Module) -> None:
        found = {id(module): module for _, module in modules(policy)}.values()
        self._modules = [(m, m.training, _plain(m)) for m in found if not isinstance(m, torch.jit.ScriptModule)]
        self._contents = Contents(_plain_values(found))

    def again(self) -> None:
        """Put it back."""
        for module, training, plain in self._modules:
            vars(module)["training"] = training
            for name in _plain(module).keys() - plain.keys():
                del vars(module)[name]
            vars(module).update(plain)
        self._contents.restore_objects()

    @contextmanager
    def once_more(self, policy: nn.Module, own_state: Iterable[Item]) -> Iterator[None]:
        """Around an act: as at the beginning, and afterwards as before it."""
        now = Preserved(policy, own_state)
        try:
            self.again()
            yield
        finally:
            now.restore()


def _plain(module: nn.Module) -> dict[str, object]:
    return {n: v for n, v in attributes(module).items() if not isinstance(v, (Tensor, np.ndarray, nn.Module))}


def _plain_values(found: Iterable[nn.Module]) -> Iterator[object]:
    for module in found:
        if not isinstance(module, torch.jit.ScriptModule):
            yield from _plain(module).values()


def _values(content: Any) -> Iterable[object]:
    return content.values() if isinstance(content, dict) else content


def _copied(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _is_same(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and other[key] is value for key, value in one.items())
    return all(here is there for here, there in zip(one, other, strict=True))


def _state_of(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    return value.getstate() if isinstance(value, random.Random) else None


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)


class Randomness:
    """The common random generators of torch (on the CPU and on ``devices``), numpy and Python, put back at the end."""

    def __init__(self, devices: Iterable[torch.device], policy: nn.Module | None = None, act: object = None) -> None:
        roots = () if policy is None else [*_plain_values(module for _, module in modules(policy)), act]
        self._own = Contents(roots).generators
        self._cards = sorted({device.index or 0 for device in devices if device.type == "cuda"})

    def __enter__(self) -> Randomness:
        self._before = random.getstate(), np.random.get_state()
        self._torch = torch.random.fork_rng(devices=self._cards)
        self._torch.__enter__()
        return self

    def start(self, seed: int = 0) -> None:
        """The same numbers from here on, for the same seed. Generators of other devices go on as they were."""
        torch.default_generator.manual_seed(seed)
        for card in self._cards:
            torch.cuda.default_generators[card].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    def states(self) -> str:
        """Where all of them stand, those of the policy's own too: another text once anybody has drawn a number."""
        torches = [torch.get_rng_state(), *(torch.cuda.get_rng_state(card) for card in self._cards)]
        own = [_state_of(value) for value in self._own]
        plain = [x.tolist() if isinstance(x, Tensor) else x for x in (*torches, *own)]
        return repr(
            (plain, random.getstate(), [x.tolist() if isinstance(x, np.ndarray) else x for x in np.random.get_state()])
        )

    def __exit__(self, *error: Any) -> None:
        self._torch.__exit__(*error)
        random.setstate(self._before[0])
        np.random.set_state(self._before[1])


def copied_observation(observation: Any) -> Any:
    """The observation over memory of its own, so that what acting does to it is not seen by the next act."""

    def copied(leaf: Any) -> Any:
        if isinstance(leaf, (Tensor, np.ndarray)):
            return leaf.clone() if isinstance(leaf, Tensor) else leaf.copy()
        try:
            return copy.deepcopy(leaf)  # a class of its own, with tensors in it
        except Exception:
            return leaf

    return tree_map(copied, observation)


def frozen_outputs(outputs: object) -> list[object]:
    """Everything in ``outputs`` as values that compare bit for bit."""
    found: list[object] = []
    for leaf in tree_leaves(outputs):
        tensors = [leaf] if isinstance(leaf, (Tensor, np.ndarray)) else [held.tensor for held in held_in(leaf)]
        plain = repr(leaf) if isinstance(leaf, _PLAIN) else type(leaf).__name__  # others show where they lie
        found += [_frozen(tensor) for tensor in tensors] or [plain]
    return found


def _frozen(leaf: Any) -> object:
    if isinstance(leaf, Tensor):
        return str(leaf.dtype), tuple(leaf.shape), _bytes(leaf).tobytes()
    return leaf.dtype.str, leaf.shape, leaf.tobytes()


def _bytes(tensor: Tensor) -> np.ndarray:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: np.ndarray = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
    return array
