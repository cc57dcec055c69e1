"""From a pickle's object graph to named tensors and plain metadata: iterative, bounded, in state_dict() order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats._pickle_records import Call
from weightkit.formats._pickle_values import items_of, key_text, leaf_value, pairs_of, state_of
from weightkit.formats._torch_tensors import (
    MalformedError,
    StridedTensor,
    UnsupportedError,
    decode_tensor,
    is_tensor_call,
)
from weightkit.formats.base import Limits

# Keys under which checkpoints keep the state_dict; the tensors' names then start below it.
ROOTS = ("agent", "state_dict", "model_state_dict", "model", "policy")
_Path = tuple[str, ...]


@dataclass(slots=True)
class Walked:
    """What the walk found: tensors by path, the rest as plain values, and tensors of kinds that are not read."""

    tensors: dict[_Path, StridedTensor] = field(default_factory=dict)
    metadata: dict[str, object] = field(default_factory=dict)
    unsupported: list[tuple[_Path, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Holder:
    """A container of the metadata, and where it hangs; it is taken away again if it held tensors only."""

    content: dict[str, object] | list[object]
    parent: _Holder | None
    key: str | int
    has_tensors: bool = False
    kept: int = 0

    def set(self, key: str | int, value: object) -> None:
        if isinstance(self.content, dict):
            self.content[str(key)] = value
        elif isinstance(key, int):
            self.content[key] = value


@dataclass(slots=True)
class _Task:
    node: object
    path: _Path
    holder: _Holder
    key: str | int
    length: int


@dataclass(slots=True)
class _Leave:
    """Marks the end of a container on the stack."""

    identity: int


class _Walk:
    def __init__(self, where: str, limits: Limits) -> None:
        self.where = where
        self.limits = limits
        self.found = Walked()
        self.holders: list[_Holder] = []
        self.first_name: dict[int, _Path] = {}
        self.keyed_by_tensor: list[tuple[_Task, object, frozenset[int]]] = []
        self.active: set[int] = set()  # the containers that hold the one being walked
        self.visited = 0
        self.deadline = time.monotonic() + limits.wall_s

    def run(self, value: object) -> Walked:
        top = _Holder(self.found.metadata, None, "")
        self._drain([_Task(value, (), top, "value", 0)])
        for task, key, holding in self.keyed_by_tensor:  # optimizer state: by now every parameter has its name
            path = self.first_name.get(id(key))
            text = ".".join(path) if path else f"tensor {len(self.first_name)}"
            self.first_name.setdefault(id(key), (text,))
            task.path, task.key = (*task.path, text), text
            self.active = set(holding)
            self._drain([task])
        for holder in reversed(self.holders):
            if holder.parent is None:
                continue
            if holder.has_tensors and not holder.kept:
                if isinstance(holder.parent.content, dict):
                    holder.parent.content.pop(str(holder.key), None)
                holder.parent.has_tensors = True
            else:
                holder.parent.kept += 1
        return self.found

    def _drain(self, stack: list[_Task | _Leave]) -> None:
        while stack:
            task = stack.pop()
            if isinstance(task, _Leave):
                self.active.discard(task.identity)
                continue
            self.visited += 1
            if self.visited > self.limits.nodes:
                raise self.limits.exceeded("nodes", where=self.where, found=f"{self.visited} objects in the pickle")
            if self.visited % 8192 == 0 and time.monotonic() > self.deadline:
                raise self.limits.exceeded("wall_s", where=self.where, found=f"{self.visited} objects took too long")
            node = _unwrapped(task.node)
            if is_tensor_call(node):
                self._tensor(node, task)
                continue
            children = self._children(node)
            if children is None:
                self._set(task, leaf_value(node))
                task.holder.kept += 1
                continue
            if id(node) in self.active:
                self._set(task, "<itself>")
                continue
            if len(task.path) > self.limits.depth:
                raise self.limits.exceeded(
                    "depth", where=self.where, found=f"{len(task.path)} containers in each other"
                )
            if node:
                self.active.add(id(node))
                stack.append(_Leave(id(node)))
            self._enter(task, children, stack)

    def _enter(self, task: _Task, children: _Children, stack: list[_Task | _Leave]) -> None:
        as_list = children.as_list and bool(task.path)
        content: dict[str, object] | list[object] = [None] * len(children.items) if as_list else {}
        if task.path:
            holder = _Holder(content, task.holder, task.key)
            self._set(task, content)
            self.holders.append(holder)
        else:
            holder = task.holder
        tasks: list[_Task | _Leave] = []
        seen: set[str] = set()
        for index, (key, value) in enumerate(children.items):
            if is_tensor_call(key):
                inner = _Task(value, task.path, holder, "", task.length)
                self.keyed_by_tensor.append((inner, key, frozenset(self.active)))
                continue
            text = key_text(key)
            text = f"<key {index}>" if text is None else text
            if text in seen:
                at = ".".join((*task.path, text))
                raise CorruptFile(f"{self.where}: the key {printable(at)!r} stands twice in one dict")
            seen.add(text)
            length = task.length + len(text) + 1
            if length > self.limits.path_length:
                raise self.limits.exceeded("path_length", where=self.where, found=f"a name of {length} characters")
            tasks.append(_Task(value, (*task.path, text), holder, index if as_list else text, length))
        stack.extend(reversed(tasks))

    def _set(self, task: _Task, value: object) -> None:
        task.holder.set(task.key, value)

    def _tensor(self, node: object, task: _Task) -> None:
        task.holder.has_tensors = True
        path = task.path or ("tensor",)
        if len(self.found.tensors) >= self.limits.tensors:
            raise self.limits.exceeded("tensors", where=self.where, found=f"more than {self.limits.tensors} tensors")
        try:
            tensor = decode_tensor(node)
        except MalformedError as error:
            raise CorruptFile(f"{self.where}: tensor {printable('.'.join(path))!r}: {error}") from None
        except UnsupportedError as error:
            self.found.unsupported.append((path, str(error)))
            return
        self.found.tensors[path] = tensor
        self.first_name.setdefault(id(node), path)

    def _children(self, node: object) -> _Children | None:
        pairs = pairs_of(node)
        if pairs is not None:
            return _Children(pairs)
        items = items_of(node)
        if items is not None:
            return _Children([(index, item) for index, item in enumerate(items)], as_list=True)
        if isinstance(node, Call) and (node.states or node.pairs or node.appended):
            if node.path.startswith("numpy."):
                return None
            state = state_of(node)
            module = _module_children(state)
            if module is not None:
                return _Children(module)
            appended: list[tuple[object, object]] = [(index, item) for index, item in enumerate(node.appended)]
            if state or node.pairs or appended:
                return _Children([*state, *node.pairs, *appended])
        return None


@dataclass(slots=True)
class _Children:
    items: list[tuple[object, object]]
    as_list: bool = False


def walk(value: object, *, where: str, limits: Limits) -> Walked:
    """All tensors below ``value`` by path, and everything else as plain values.

    A container reached by two paths is listed under both; one that holds itself is not entered again. Raises
    CorruptFile for a tensor whose numbers contradict each other, LimitExceeded.
    """
    return _Walk(where, limits).run(value)


def _unwrapped(node: object) -> object:
    """What an omegaconf node holds: its content or its value; anything else is itself."""
    for _ in range(8):
        if not isinstance(node, Call) or not node.path.startswith("omegaconf.") or not node.states:
            break
        state = {key: value for key, value in state_of(node) if isinstance(key, str)}
        if "_content" in state:
            node = state["_content"]
        elif "_val" in state:
            node = state["_val"]
        else:
            break
    return node


def _module_children(state: list[tuple[object, object]]) -> list[tuple[object, object]] | None:
    """What ``state_dict()`` would list of an nn.Module: parameters, persistent buffers, submodules."""
    attributes = {key: value for key, value in state if isinstance(key, str)}
    kinds = [pairs_of(attributes.get(name)) for name in ("_parameters", "_buffers", "_modules")]
    if kinds[0] is None or kinds[2] is None:
        return None
    transient = {
        name for name in items_of(attributes.get("_non_persistent_buffers_set")) or () if isinstance(name, str)
    }
    children: list[tuple[object, object]] = []
    children.extend(pair for pair in kinds[0] if pair[1] is not None)
    children.extend(pair for pair in kinds[1] or () if pair[1] is not None and not _is_in(pair[0], transient))
    children.extend(pair for pair in kinds[2] if pair[1] is not None)
    return children


def _is_in(key: object, names: set[str]) -> bool:
    return isinstance(key, str) and key in names


def find_root(value: object, paths: Iterable[_Path]) -> str:
    """The well-known key of a top-level dict below which all tensors lie, "" where there is none."""
    firsts: Mapping[str, None] = dict.fromkeys(path[0] for path in paths)
    if len(firsts) != 1 or pairs_of(value) is None:
        return ""
    (first,) = firsts
    inside = all(len(path) > 1 for path in paths)
    return first if first in ROOTS and inside else ""


def find_aliases(tensors: Mapping[str, StridedTensor]) -> dict[str, str]:
    """Second names of one tensor -> its first: same storage, offset, shape, strides and element type."""
    firsts: dict[object, str] = {}
    aliases: dict[str, str] = {}
    for name, tensor in tensors.items():
        if 0 in tensor.shape:
            identity: object = (tensor.storage.key, tensor.dtype.name, tensor.shape, tensor.strides)
        else:
            identity = (tensor.storage.key, tensor.dtype.name, tensor.shape, tensor.strides, tensor.offset,
                        tensor.conjugate, tensor.negative)  # fmt: skip
        first = firsts.setdefault(identity, name)
        if first != name:
            aliases[name] = first
    return aliases
