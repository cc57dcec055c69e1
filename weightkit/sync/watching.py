"""Watching which tensors code reads and writes: below autograd, where every operation shows the bytes it is handed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from weightkit.sync.inventory import Item
from weightkit.sync.memory import Spans, storage_of
from weightkit.sync.objects import held_in
from weightkit.torch_state import storage_identity

METADATA_ONLY = frozenset(
    f"aten::{name}"
    for name in (
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like"),
        *("new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full"),
    )
)
"""These look at shape, dtype and device alone."""
_WRITE_ONLY = frozenset(
    f"aten::{name}"
    for name in (
        *("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_", "exponential_"),
        *("geometric_", "cauchy_", "log_normal_"),
    )
)
"""These overwrite their first argument without looking at it."""
_EXPORTS = frozenset(
    (
        Tensor.numpy,
        Tensor.__array__,
        Tensor.tolist,
        Tensor.data_ptr,
        Tensor.storage,
        Tensor.untyped_storage,
        Tensor.__dlpack__,
    )
)
"""With these, bytes leave torch: what happens to them next is nobody's operation."""


class Watch:
    """Names of the watched tensors that are read and written while the watch is on, one act after the other.

    ``hidden`` collects what is read besides: tensors that are not watched, stood in no observation and were not made by
    the act itself. A tensor that an act overwrites whole before it looks at it is not read: a scratch pad.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.hidden: dict[int, Tensor] = {}
        self.is_looking = False
        self.saw_no_values = self.saw_packed = False
        self._items = tuple(items)
        self.around: set[int] = set()
        self.gave_old = False
        self._fresh: set[str] = set()
        self._known: set[int] = set()
        self._shared: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._spans = Spans((item.name, item.tensor) for item in self._items)

    def acting_on(self, observed: Iterable[Tensor]) -> _Act:
        """A context for one act: ``observed`` are the tensors of its observation."""
        self._fresh.clear()
        self._known = {storage for tensor in observed if (storage := storage_of(tensor))}
        return _Act(self)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """While the watch itself asks where tensors lie."""
        self.is_looking = True
        try:
            yield
        finally:
            self.is_looking = False

    def read(self, tensor: Tensor) -> None:
        """Bytes of ``tensor`` are looked at."""
        self.saw_no_values |= tensor.is_meta
        names = self._names(tensor)
        self.reads.update(name for name in names if name not in self._fresh)
        storage = storage_of(tensor)
        if not names and storage and storage not in self._known:
            self.hidden.setdefault(storage, tensor)  # kept, so that nothing else can come to lie there

    def written(self, tensor: Tensor, *, whole: bool) -> None:
        """Bytes of ``tensor`` are overwritten; ``whole``: all of them, unseen."""
        names = self._names(tensor)
        self.writes.update(names)
        if whole:
            identity = storage_identity(tensor)
            same = {i.name for i in self._items if i.name in names and storage_identity(i.tensor) == identity}
            self._fresh |= same - self.reads

    def handed_out(self, output: object) -> None:
        """What an act gives: what stood in ``around`` before it, it has not made."""
        for held in held_in(output):
            storage = storage_of(held.tensor)
            self.gave_old |= storage in self.around and storage not in self._known

    def made(self, tensor: Tensor) -> None:
        """The act has made ``tensor`` itself."""
        self._known.add(storage_of(tensor))

    def _names(self, tensor: Tensor) -> tuple[str, ...]:
        """The watched tensors that share a byte with ``tensor``."""
        key = storage_identity(tensor)
        if key not in self._shared:
            self._shared[key] = self._spans.sharing(tensor)
        return self._shared[key]


class _Act:
    """Both modes, on and off together."""

    def __init__(self, watch: Watch) -> None:
        operations = _beside_dynamo() if "torch._dynamo" in sys.modules else _Operations
        self._modes: tuple[Any, ...] = (operations(watch), _Exported(watch))

    def __enter__(self) -> None:
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    supports_higher_order_operators = True  # torch.cond and its like come here too

    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._watch = watch

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: torch would import its compiler, which takes longer than the proof, to keep it off this class."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with self._watch.looking():
            schema = getattr(func, "_schema", None)
            viewed = self._all_read(args, kwargs) if schema is None else self._before(schema, args, kwargs)
        result = func(*args, **kwargs)
        with self._watch.looking():
            self._after(viewed, list(_tensors(result)))
        return result

    def _all_read(self, args: Any, kwargs: Any) -> list[Tensor]:
        """An operation over operations (torch.cond) has no schema: what it is handed counts as read."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._watch.read(leaf)
        return []

    def _before(self, schema: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """Note what the operation reads and writes; the tensors of which it may only make a view."""
        watch = self._watch
        if schema.name == "aten::lift_fresh":  # torch.tensor and torch.from_numpy: it comes into being here
            for tensor in _tensors(args):
                watch.made(tensor)
        if schema.name in METADATA_ONLY:
            return []
        viewed: list[Tensor] = []
        for index, argument in enumerate(schema.arguments):
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            if isinstance(value, torch.ScriptObject):
                watch.saw_packed = True
            info = argument.alias_info
            if info is not None and not info.is_write:
                viewed += _tensors(value)
                continue
            unseen = info is not None and (argument.is_out or (index == 0 and schema.name in _WRITE_ONLY))
            for tensor in _tensors(value):
                if not unseen:
                    watch.read(tensor)
                if info is not None:
                    watch.written(tensor, whole=unseen)
        return viewed

    def _after(self, viewed: list[Tensor], outputs: list[Tensor]) -> None:
        behind, shown = {storage_of(tensor) for tensor in viewed}, {storage_of(output) for output in outputs}
        for tensor in viewed:  # a view looks at nothing; where a copy was made instead, it was read
            if storage_of(tensor) not in shown:
                self._watch.read(tensor)
        for output in outputs:
            if storage_of(output) not in behind:
                self._watch.made(output)


@lru_cache
def _beside_dynamo() -> type[_Operations]:
    """The same where torch's compiler is loaded: it must not compile what watches it."""
    watching = torch.compiler.disable(_Operations.__torch_dispatch__)  # type: ignore[no-untyped-call, unused-ignore]
    return type("_OperationsBesideDynamo", (_Operations,), {"__torch_dispatch__": watching})


class _Exported(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _EXPORTS and not self._watch.is_looking:
            with self._watch.looking():
                for tensor in _tensors(args[:1]):
                    self._watch.read(tensor)
        return func(*args, **(kwargs or {}))


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
