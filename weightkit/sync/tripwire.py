"""What nobody syncs is not there: a branch that no probe took and that a robot takes one day raises before it acts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from weightkit.errors import UnsyncedRead
from weightkit.sync.inventory import DEEPEST, attributes, inventory, modules
from weightkit.sync.memory import poison
from weightkit.sync.objects import mutable_in
from weightkit.sync.watching import METADATA_ONLY
from weightkit.torch_state import canonical_name

Slot = tuple[str, object, Callable[[Any], object]]


class UnsyncedTensor(Tensor):
    """Has the shape, dtype and device of a tensor, and no numbers: any operation that would look at them raises.

    Unlike a tensor on the meta device it knows its name, is on the device that code asks a policy's first parameter
    for, and cannot pass into other tensors.
    """

    path: str
    viewed: Callable[[Any, Any, Any], Any]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, like: Tensor, name: str, device: torch.device | None = None) -> UnsyncedTensor:
        made: UnsyncedTensor = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=device or like.device
        )
        made.path = name
        return made

    def __init__(self, like: Tensor, name: str, device: torch.device | None = None) -> None:
        super().__init__()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.detach.default:  # state_dict() and .data only hand it on
            return UnsyncedTensor(args[0], args[0].path)
        if func._schema.name in METADATA_ONLY:
            return func(*(_empty_like(argument) for argument in args), **kwargs)
        if _is_view(func._schema):
            return cls.viewed(func, args, kwargs)
        result = func.decompose(*args, **kwargs)  # x.to(first_parameter) asks for its device alone
        if result is not NotImplemented:
            return result
        raise unsynced(next(each.path for each in tree_leaves((args, kwargs)) if isinstance(each, UnsyncedTensor)))

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise unsynced(self.path)

    numpy = tolist = __array__ = __dlpack__ = __reduce_ex__ = _refuse
    data_ptr = storage = untyped_storage = share_memory_ = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> UnsyncedTensor:
        copied = UnsyncedTensor(self, self.path)
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)  # type: ignore[assignment]
        memo[id(self)] = copied
        return copied

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"UnsyncedTensor({self.path!r}, {list(self.shape)})"


class UnsyncedArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands where a numpy array was: has its shape and dtype; whatever takes it for numbers raises."""

    def __init__(self, like: np.ndarray, name: str) -> None:
        self.shape, self.dtype, self.ndim, self.size = like.shape, like.dtype, like.ndim, like.size
        self.name = name

    def _refuse(self, *args: object, **kwargs: object) -> Any:
        raise unsynced(self.name)

    __array__ = __array_ufunc__ = __array_function__ = __getitem__ = __iter__ = _refuse
    __bool__ = __int__ = __float__ = __index__ = __complex__ = __contains__ = _refuse

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # Python asks every object for these
            raise AttributeError(attribute)
        raise unsynced(self.name)


def unsynced(name: str) -> UnsyncedRead:
    """The error for a read of ``name``."""
    return UnsyncedRead(
        f"{name}: it has no numbers here: nobody sends it, and no probe had shown that act() reads it",
        name=name,
        hint="add an observation that takes this branch to the probes of learner and actor, and send the tensor",
    )


def warm_up() -> None:
    """Have torch import what it imports at the first operation without numbers, a second's worth: not while acting."""
    torch.empty(0, device="meta").add(0)


def arm(policy: nn.Module, names: Collection[str], act: object = None) -> tuple[str, ...]:
    """Replace the tensors called ``names`` by ones that raise when they are read; those where that cannot be done.

    Wherever a module holds the tensor it is replaced, under all of its names, and in the lists and dicts that ``act``
    holds. What other code has taken hold of before stays as it is: overwrite it first.
    """
    if "torch._dynamo" in sys.modules:  # a compiler that is at work must leave it alone
        UnsyncedTensor.viewed = staticmethod(torch.compiler.disable(_viewed))  # type: ignore[no-untyped-call]
    items = [item for item in inventory(policy) if item.name in names and item.tensor.numel()]
    stand_ins: dict[int, Any] = {}
    for item in items:
        stand_in: Any = UnsyncedTensor(item.tensor, item.alias_of or item.name)
        if isinstance(item.tensor, nn.Parameter):
            stand_in = nn.Parameter(stand_in, item.tensor.requires_grad)
        stand_ins[id(item.tensor)] = stand_in
    arrays = {item.name for item in items if item.kind == "numpy attribute"}
    for name, value, put in list(_slots(policy)):
        if id(value) in stand_ins:
            put(stand_ins[id(value)])
        elif name in arrays and isinstance(value, np.ndarray):
            put(UnsyncedArray(value, name))
    _replace_in(act, stand_ins)
    armed = {name for name, value, _ in _slots(policy) if isinstance(value, (UnsyncedTensor, UnsyncedArray))}
    return tuple(item.name for item in items if item.name not in armed)


def _replace_in(act: object, others: Mapping[int, Any]) -> None:
    """Put others in the place of what stands in the lists and dicts that ``act`` holds."""
    for place in mutable_in((act,)):
        if isinstance(place, (dict, list)):
            for key, value in list(place.items() if isinstance(place, dict) else enumerate(place)):
                if id(value) in others:
                    place[key] = others[id(value)]


def disarm(policy: nn.Module, act: object = None) -> None:
    """Put tensors back where `arm` took them: poisoned ones, for what they held is gone."""
    made: dict[int, Any] = {}
    for _, value, put in list(_slots(policy)):
        if isinstance(value, UnsyncedTensor):
            if id(value) not in made:
                real: Tensor = torch.zeros(value.shape, dtype=value.dtype, device=value.device)
                poison(real)
                made[id(value)] = nn.Parameter(real, value.requires_grad) if isinstance(value, nn.Parameter) else real
            put(made[id(value)])
        elif isinstance(value, UnsyncedArray):
            real = torch.from_numpy(np.zeros(value.shape, value.dtype))
            poison(real)
            put(real.numpy())
    _replace_in(act, made)


def _is_view(schema: Any) -> bool:
    aliased = [argument.alias_info for argument in schema.arguments if argument.alias_info is not None]
    return bool(aliased) and not any(info.is_write for info in aliased)


def _viewed(func: Any, args: Any, kwargs: Any) -> Any:
    """What a view looks like, without numbers too: a view alone reads nothing."""
    first = next(each for each in tree_leaves((args, kwargs)) if isinstance(each, UnsyncedTensor))

    def shape_only(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")

    def put_back(value: Any) -> Any:
        return UnsyncedTensor(value, first.path, first.device) if isinstance(value, Tensor) else value

    return tree_map(put_back, func(*tree_map(shape_only, args), **tree_map(shape_only, kwargs)))


UnsyncedTensor.viewed = staticmethod(_viewed)


def _empty_like(value: Any) -> Any:
    return (
        torch.empty(value.shape, dtype=value.dtype, device=value.device) if isinstance(value, UnsyncedTensor) else value
    )


def _slots(policy: nn.Module) -> Iterator[Slot]:
    """Every place in the policy's modules where a tensor can stand: its name, what is there, how to replace it."""
    for prefix, module in modules(policy):
        for local, value, put in _own_slots(module):
            yield canonical_name(f"{prefix}.{local}" if prefix else local), value, put


def _own_slots(module: nn.Module) -> Iterator[Slot]:
    if isinstance(module, torch.jit.ScriptModule):
        registered = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        for name, value in (*registered, *attributes(module).items()):
            yield name, value, partial(setattr, module, name)
        return
    for place in (module._parameters, module._buffers):
        for name, value in place.items():
            yield name, value, partial(place.__setitem__, name)
    for name, value in attributes(module).items():
        yield from _nested(name, value, partial(vars(module).__setitem__, name))


def _nested(name: str, value: object, put: Callable[[Any], object], depth: int = 0) -> Iterator[Slot]:
    yield name, value, put
    if isinstance(value, (dict, list)) and depth <= DEEPEST:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _nested(f"{name}.{key}", inner, partial(value.__setitem__, key), depth + 1)
