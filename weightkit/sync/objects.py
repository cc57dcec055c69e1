"""Tensors that stand in Python objects of any kind: observations, outputs, closures, what a policy keeps elsewhere."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from weightkit.sync.inventory import attributes

_MOST_OBJECTS = 20_000
_DEEPEST = 12
_LIBRARIES = ("torch", "numpy", "builtins", "threading", "logging", "_thread", "concurrent", "multiprocessing")
_OPAQUE = (str, bytes, int, float, complex, type, types.ModuleType, torch.device, torch.dtype, np.dtype, np.generic)


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor, or an array's memory as one, and the path to it."""

    path: str
    tensor: Tensor


def held_in(root: object, path: str = "") -> Iterator[Held]:
    """The tensors and numeric arrays in ``root``: in containers, attributes, closures, bound objects, globals used."""
    for where, value in _reached([(path, root)], everything=True):
        if isinstance(value, Tensor):
            yield Held(where, value)
        elif isinstance(value, np.ndarray) and (tensor := _over(value)) is not None:
            yield Held(where, tensor)


def mutable_in(roots: Iterable[object]) -> Iterator[Any]:
    """The containers, plain objects and numeric arrays that code can change, in ``roots`` and whatever they hold.

    Modules and tensors are not among them; neither is what code reaches by global names.
    """
    for _, value in _reached([("", root) for root in roots], everything=False):
        if isinstance(value, np.ndarray):
            if _over(value) is not None:
                yield value
        elif isinstance(value, (list, dict, deque, set)) or _has_own_dict(value):
            yield value


def _reached(roots: Iterable[tuple[str, object]], *, everything: bool) -> Iterator[tuple[str, object]]:
    """Whatever ``roots`` hold, with its path; modules are looked into, and globals that code uses, for ``everything``.

    Every object is looked into once, nearest first, so that the path to it is its shortest; of very large graphs only
    the nearest 20,000 objects.
    """
    waiting: deque[tuple[str, object, int]] = deque((where, root, 0) for where, root in roots)
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        where, value, depth = waiting.popleft()
        if id(value) in seen or value is None or isinstance(value, _OPAQUE):
            continue
        seen.add(id(value))
        if not everything and isinstance(value, (Tensor, nn.Module)):
            continue
        yield where, value
        if depth < _DEEPEST and not isinstance(value, (Tensor, np.ndarray)):
            inside = _inside(value, globals_too=everything)
            waiting += [(_joined(where, name), inner, depth + 1) for name, inner in inside]


def _has_own_dict(value: object) -> bool:
    kind = type(value)
    return isinstance(getattr(value, "__dict__", None), dict) and not (
        isinstance(value, (types.FunctionType, types.MethodType)) or kind.__module__.partition(".")[0] in _LIBRARIES
    )


def _inside(value: Any, *, globals_too: bool) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(str(key), inner) for key, inner in value.items()]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [(str(index), inner) for index, inner in enumerate(value)]
    if isinstance(value, nn.Module):
        own = {**value._parameters, **value._buffers, **value._modules}
        return [*own.items(), *attributes(value).items()]
    if isinstance(value, types.MethodType):
        return [("", value.__self__), ("", value.__func__)]
    if isinstance(value, types.FunctionType):
        return _of_function(value, globals_too=globals_too)
    found = list(getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        names = getattr(kind, "__slots__", ())
        found += [(name, getattr(value, name, None)) for name in ((names,) if isinstance(names, str) else names)]
        found += [(name, each) for name, each in vars(kind).items() if isinstance(each, (Tensor, np.ndarray))]
    if isinstance(value, types.SimpleNamespace) or callable(value):
        call = getattr(type(value), "__call__", None)  # noqa: B004
        found += [("", call)] if isinstance(call, types.FunctionType) else []
    return found


def _of_function(function: types.FunctionType, *, globals_too: bool) -> list[tuple[str, object]]:
    """What a function can reach by itself: its closure, its defaults, and the global names that its code uses."""
    found: list[tuple[str, object]] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            found.append((name, cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    found += [(f"default {index}", value) for index, value in enumerate(function.__defaults__ or ())]
    found += list((function.__kwdefaults__ or {}).items())
    if not globals_too:
        return found
    names = [name for name in function.__code__.co_names if name in function.__globals__]
    return found + [(name, function.__globals__[name]) for name in names]


def _joined(path: str, name: str) -> str:
    return ".".join(filter(None, (path, name)))


def _over(array: np.ndarray) -> Tensor | None:
    try:
        return torch.from_numpy(array) if array.dtype.kind in "biufc" and array.flags.writeable else None
    except (TypeError, ValueError):
        return None
