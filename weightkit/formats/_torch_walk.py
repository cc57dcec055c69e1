"""From a pickle's object graph to named tensors and plain metadata: iterative, bounded, in state_dict() order."""

from __future__ import annotations

import time

from weightkit.core.text import printable
from weightkit.errors import CorruptFile
from weightkit.formats._numpy_records import HeldArray, decode_array
from weightkit.formats._pickle_records import Call, Dict
from weightkit.formats._pickle_values import items_of, key_text, leaf_value, pairs_of, state_of
from weightkit.formats._torch_tensors import MalformedError, StridedTensor, decode_tensor, is_tensor_call
from weightkit.formats.base import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from weightkit.formats._pickle_records import Pair
    from weightkit.formats._torch_tensors import Tensor

    _Path = tuple[str, ...]

# Keys under which checkpoints keep the state_dict; the tensors' names then start below it.
ROOTS = ("agent", "state_dict", "model_state_dict", "model", "policy")
_CHECK_EVERY = 8192
_NUMBERS = (int, float, bool)
_FEW = 100_000  # objects that are walked without asking how many the pickle wrote
_TEXT_PER_NODE = 64  # characters of text that count as one more object


class Walked:
    """What the walk found: tensors by path, and the rest as plain values."""

    __slots__ = ("metadata", "tensors")

    def __init__(self) -> None:
        self.tensors: dict[_Path, Tensor | HeldArray] = {}
        self.metadata: dict[str, object] = {}


class _Holder:
    """A container of the metadata, and where it hangs; it is taken away again if it held tensors only."""

    __slots__ = ("content", "has_tensors", "kept", "key", "parent")

    def __init__(self, content: dict[str, object] | list[object], parent: _Holder | None, key: str | int) -> None:
        self.content = content
        self.parent = parent
        self.key = key
        self.has_tensors = False
        self.kept = 0

    def set(self, key: str | int, value: object) -> None:
        if isinstance(self.content, dict):
            self.content[str(key)] = value
        elif isinstance(key, int):
            self.content[key] = value


class _Task:
    """A node that is still to be looked at: where it stands, and where its value goes. ``length`` is its name's."""

    __slots__ = ("holder", "key", "length", "node", "path")

    def __init__(self, node: object, path: _Path, holder: _Holder, key: str | int, length: int) -> None:
        self.node = node
        self.path = path
        self.holder = holder
        self.key = key
        self.length = length


class _Leave:
    """Marks the end of a container on the stack."""

    __slots__ = ("identity",)

    def __init__(self, identity: int) -> None:
        self.identity = identity


class _Later:
    """What can only be named once every parameter has its name: ``key`` is the parameter that names it, if any."""

    __slots__ = ("holding", "key", "task")

    def __init__(self, task: _Task, key: object, holding: frozenset[int]) -> None:
        self.task = task
        self.key = key
        self.holding = holding


class _Walk:
    def __init__(self, written: int, arrays: bool, where: str, limits: Limits) -> None:
        self.arrays = arrays
        self.where = where
        self.limits = limits
        self.most_shared = _FEW + limits.sharing * written
        self.next_check = min(_CHECK_EVERY, limits.nodes)
        self.found = Walked()
        self.holders: list[_Holder] = []
        self.first_name: dict[object, _Path] = {}  # by Call, whose hash is its identity: id() is an audit event
        self.later: list[_Later] = []
        self.active: set[int] = set()  # the containers that hold the one being walked
        self.visited = 0
        self.decoded: dict[int, Tensor] = {}
        self.content_of: dict[int, object] = {}
        self.characters = 0
        self.root = ""
        self.naming_is_done = False
        self.deadline = time.monotonic() + limits.wall_s

    def run(self, value: object) -> Walked:
        top = _Holder(self.found.metadata, None, "")
        self._drain([_Task(value, (), top, "value", 0)])
        self.root = find_root(value, [*self.found.tensors, *((*later.task.path, "") for later in self.later)])
        self.naming_is_done = True
        for later in self.later:  # grows while it is worked through
            self._catch_up(later)
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

    def _catch_up(self, later: _Later) -> None:
        task = later.task
        if later.key is not None:
            text = self._name_of(later.key)
            task.path, task.key = (*task.path, text), text
            task.length += len(text) + 1
            self._check_length(task.length)
        self.active = set(later.holding)
        self._drain([task])

    def _name_of(self, tensor: object) -> str:
        """The name of a tensor that stands for something else, below the root; a new one where it has none."""
        path = self.first_name.get(tensor)
        if path is None:
            path = self.first_name[tensor] = (f"tensor {len(self.first_name)}",)
        return ".".join(path[1:] if self.root and path[0] == self.root else path)

    def _drain(self, stack: list[_Task | _Leave]) -> None:
        while stack:
            task = stack.pop()
            if type(task) is _Leave:
                self.active.discard(task.identity)
                continue
            assert isinstance(task, _Task)
            self._count_visit()
            node = self._unwrapped(task.node)
            self.parent_length = task.length
            if is_tensor_call(node):
                self._tensor(node, task.path, task.holder, task.key)
                continue
            array = decode_array(node) if self.arrays else None
            if array is not None:
                self._keep(array, node, task.path, task.holder)
                continue
            children = self._children(node)
            if children is None:
                if isinstance(node, (str, bytes)):
                    self.visited += len(node) // _TEXT_PER_NODE
                task.holder.set(task.key, leaf_value(node))
                task.holder.kept += 1
                continue
            if id(node) in self.active:
                task.holder.set(task.key, "<itself>")
                continue
            if len(task.path) > self.limits.depth:
                raise self.limits.exceeded(
                    "depth", where=self.where, found=f"{len(task.path)} containers in each other"
                )
            if node:
                self.active.add(id(node))
                stack.append(_Leave(id(node)))
            items, as_list = children
            self._enter(task, items, as_list, stack)

    def _check_length(self, length: int) -> None:
        if length > self.limits.path_length:
            raise self.limits.exceeded("path_length", where=self.where, found=f"a name of {length} characters")

    def _count_visit(self) -> None:
        self.visited += 1
        if self.visited > self.next_check:
            self._check_limits()

    def _check_limits(self) -> None:
        self.next_check = min(self.visited + _CHECK_EVERY, self.limits.nodes)
        found = f"{self.visited} objects in the pickle"
        if self.visited > self.limits.nodes:
            raise self.limits.exceeded("nodes", where=self.where, found=found)
        if self.visited > self.most_shared:
            found += ", which holds few and refers to them again and again"
            raise self.limits.exceeded("sharing", where=self.where, found=found)
        if time.monotonic() > self.deadline:
            raise self.limits.exceeded("wall_s", where=self.where, found=f"{self.visited} objects took too long")

    def _enter(self, task: _Task, items: list[Pair], as_list: bool, stack: list[_Task | _Leave]) -> None:
        """Put the children of a container on the stack; tensors that come first are taken at once."""
        self.visited += len(items)  # whoever is referred to over and over costs as much each time
        self.parent_length = task.length + 1
        parent = task.path
        as_list = as_list and bool(parent)
        if parent:
            content: dict[str, object] | list[object] = [None] * len(items) if as_list else {}
            holder = _Holder(content, task.holder, task.key)
            task.holder.set(task.key, content)
            self.holders.append(holder)
        else:
            holder = task.holder
        tasks: list[_Task | _Leave] = []
        seen: set[str] = set()  # of texts: a file can choose numbers whose hashes collide
        longest = self.limits.path_length - task.length - 1
        parameters = len(parent) > 1 and parent[-2] == "param_groups"
        for index, (key, value) in enumerate(items):
            if type(key) is str:
                text = key
            elif is_tensor_call(key):
                self._postpone(_Task(value, parent, holder, "", task.length), key)
                continue
            else:
                found = key_text(key)
                text = f"<key {index}>" if found is None else found
            if text in seen or (isinstance(key, (int, float)) and _number_text(key) in seen):
                at = ".".join((*parent, text))
                raise CorruptFile(f"{self.where}: the key {printable(at)!r} stands twice in one dict")
            seen.add(text)
            if isinstance(key, (int, float)):
                seen.add(_number_text(key))
            if len(text) > longest:
                self._check_length(task.length + 1 + len(text))
            self.visited += len(text) // _TEXT_PER_NODE
            if value is None or type(value) in _NUMBERS:
                holder.set(index if as_list else text, value)
                holder.kept += 1
                continue
            if not tasks and is_tensor_call(value):
                self._count_visit()
                self._tensor(value, (*parent, text), holder, index if as_list else text)
                continue
            child = _Task(value, (*parent, text), holder, index if as_list else text, task.length + len(text) + 1)
            if parameters and text == "params" and not self.naming_is_done:
                self._postpone(child, None)
            else:
                tasks.append(child)
        tasks.reverse()
        stack.extend(tasks)

    def _postpone(self, task: _Task, key: object) -> None:
        self._count_visit()
        self.later.append(_Later(task, key, frozenset(self.active)))

    def _tensor(self, node: object, path: _Path, holder: _Holder, key: str | int) -> None:
        if self.naming_is_done and len(path) > 2 and path[-2] == "params" and node in self.first_name:
            holder.set(key, self._name_of(node))  # an optimizer's list of parameters refers to them
            holder.kept += 1
            return
        try:
            before = self.first_name.get(node)
            tensor = decode_tensor(node) if before is None else self.found.tensors.get(before) or decode_tensor(node)
        except MalformedError as error:
            raise CorruptFile(f"{self.where}: tensor {printable('.'.join(path))!r}: {error}") from None
        self._keep(tensor, node, path, holder)

    def _keep(self, tensor: Tensor | HeldArray, node: object, path: _Path, holder: _Holder) -> None:
        holder.has_tensors = True
        path = path or ("tensor",)
        tensors = self.found.tensors
        if len(tensors) >= self.limits.tensors:
            raise self.limits.exceeded("tensors", where=self.where, found=f"more than {self.limits.tensors} tensors")
        self.characters += len(path[-1]) + self.parent_length
        if self.characters > self.limits.names:
            raise self.limits.exceeded("names", where=self.where, found=f"names of {self.characters} characters")
        tensors[path] = tensor
        self.first_name.setdefault(node, path)

    def _unwrapped(self, node: object) -> object:
        """What an omegaconf node holds, looked up once however often it is referred to."""
        if not isinstance(node, Call) or not node.path.startswith("omegaconf."):
            return node
        if id(node) not in self.content_of:
            self.content_of[id(node)] = _unwrapped(node)
        return self.content_of[id(node)]

    def _children(self, node: object) -> tuple[list[Pair], bool] | None:
        """The pairs of a container, and whether it is a list; None for a leaf."""
        if type(node) is Dict:
            return node.pairs, False
        pairs = pairs_of(node)
        if pairs is not None:
            return pairs, False
        items = items_of(node)
        if items is not None:
            return list(enumerate(items)), True
        if isinstance(node, Call) and (node.states or node.pairs or node.appended):
            if node.path.startswith("numpy."):
                return None
            state = state_of(node)
            if node.path.startswith("__torch__."):
                return [pair for pair in state if _is_in_script_state(pair[1])], False
            module = _module_children(state)
            if module is not None:
                return module, False
            if state or node.pairs or node.appended:
                return [*state, *node.pairs, *enumerate(node.appended)], False
        if isinstance(node, Call) and isinstance(node.arguments, tuple) and any(map(is_tensor_call, node.arguments)):
            return list(enumerate(node.arguments)), False  # a named tuple, or whatever is made of tensors
        return None


def walk(value: object, *, written: int, arrays: bool = False, where: str, limits: Limits) -> Walked:
    """All tensors below ``value`` by path, and everything else as plain values.

    ``written`` is how many opcodes the pickle has: a few objects that refer to each other over and over are a limit.

    A container reached by two paths is listed under both; one that holds itself is not entered again. What an
    optimizer keeps for a parameter is named after it. With ``arrays`` numpy's arrays count as tensors, else as values.
    Raises CorruptFile for a tensor whose numbers contradict each other, LimitExceeded.
    """
    return _Walk(written, arrays, where, limits).run(value)


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


def _module_children(state: list[Pair]) -> list[Pair] | None:
    """What ``state_dict()`` would list of an nn.Module: parameters, persistent buffers, submodules."""
    attributes = {key: value for key, value in state if isinstance(key, str)}
    kinds = [pairs_of(attributes.get(name)) for name in ("_parameters", "_buffers", "_modules")]
    if kinds[0] is None or kinds[2] is None:
        return None
    transient = {
        name for name in items_of(attributes.get("_non_persistent_buffers_set")) or () if isinstance(name, str)
    }
    children: list[Pair] = []
    children.extend(pair for pair in kinds[0] if pair[1] is not None)
    children.extend(pair for pair in kinds[1] or () if pair[1] is not None and not _is_in(pair[0], transient))
    children.extend(pair for pair in kinds[2] if pair[1] is not None)
    return children


def _number_text(key: float) -> str:
    """One text for all numbers that are one key of a dict: 1, 1.0 and True."""
    return f"number {int(key)}" if key - key == 0 and key == int(key) else f"number {key}"


def _is_in_script_state(value: object) -> bool:
    """Whether a TorchScript module's attribute is a tensor, a module or a plain value: lists of weights are seconds."""
    if isinstance(value, Call):
        return is_tensor_call(value) or value.path.startswith("__torch__.")
    return not isinstance(value, (list, tuple, Dict))


def _is_in(key: object, names: set[str]) -> bool:
    return isinstance(key, str) and key in names


def find_root(value: object, paths: Collection[_Path]) -> str:
    """The well-known key of a top-level dict below which all tensors lie, "" where there is none."""
    firsts: Mapping[str, None] = dict.fromkeys(path[0] for path in paths)
    if len(firsts) != 1 or pairs_of(value) is None:
        return ""
    (first,) = firsts
    inside = all(len(path) > 1 for path in paths)
    return first if first in ROOTS and inside else ""


def find_aliases(tensors: Mapping[str, Tensor | HeldArray]) -> dict[str, str]:
    """Second names of one tensor -> its first: same storage, offset, shape, strides and element type."""
    on_storage: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        if type(tensor) is StridedTensor:
            on_storage.setdefault(tensor.storage.key, []).append(name)
        elif type(tensor) is HeldArray and tensor.content:
            on_storage.setdefault(f"held {id(tensor.content)}", []).append(name)
    aliases: dict[str, str] = {}
    for names in on_storage.values():
        if len(names) > 1:
            firsts: dict[object, str] = {}
            for name in names:
                first = firsts.setdefault(_identity(tensors[name]), name)
                if first != name:
                    aliases[name] = first
    return aliases


def _identity(tensor: Tensor | HeldArray) -> object:
    if isinstance(tensor, HeldArray):
        return tensor.dtype.name, tensor.shape, tensor.fortran, tensor.swapped
    assert isinstance(tensor, StridedTensor)
    offset = -1 if 0 in tensor.shape else tensor.storage.start + tensor.offset * tensor.dtype.itemsize
    # A stride over one entry goes nowhere, so a file can choose it freely: many of one hash would take forever.
    strides = tuple(0 if size < 2 else step for size, step in zip(tensor.shape, tensor.strides, strict=True))
    return tensor.dtype.name, tensor.shape, strides, offset, tensor.conjugate, tensor.negative
