"""The opcodes of protocols 0 to 5, one method each: from the byte after the opcode to the byte after its argument.

Source: CPython's Lib/pickletools.py for the opcodes, Modules/_pickle.c for what they do.
"""

from __future__ import annotations

from weightkit.formats._pickle_literals import Literals
from weightkit.formats._pickle_policy import (
    Remark,
    judge_addition,
    judge_build,
    judge_call,
    judge_ref,
    may_be_called,
)
from weightkit.formats._pickle_records import Call, Dict, Persistent, Prefix, Ref, Set
from weightkit.formats._pickle_stream import PADDING
from weightkit.formats._pickle_tables import FROM_TYPE, IDENTITIES, REBUILDS
from weightkit.formats.base import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from weightkit.formats._pickle_records import How, Pair

    _T = TypeVar("_T")

EXTENSION_CODE = "extension code"
_MOST_REMARKS = 1000


class Opcodes(Literals):
    """A pickle machine without its loop: the memo, what was remarked, and what every opcode does to the stack."""

    def __init__(self, content: bytes, where: str, limits: Limits) -> None:
        super().__init__(content, where)
        self.limits = limits
        self.memo: list[object] = []  # entries 0, 1, 2 ...: every honest pickler counts
        self.sparse_memo: dict[int, object] = {}  # the others
        self.refs: list[Ref] = []
        self.persistents: list[Persistent] = []
        self.remarks: list[Remark] = []
        self.remarked: dict[tuple[str, bool], int] = {}
        self.frame_end = self.no_frame = self.size + PADDING + 1

    def remark(self, found: Remark | None) -> None:
        if found is None:
            return
        kind = (found.level, found.named)  # each has its own count: many harmless ones hide no payload
        self.remarked[kind] = self.remarked.get(kind, 0) + 1
        if self.remarked[kind] > _MOST_REMARKS:
            return
        self.remarks.append(found)

    # -- containers

    def _mark(self, position: int) -> int:
        self.marked.append(self.stack)
        self.stack = []
        return position

    def _empty_tuple(self, position: int) -> int:
        return self._push((), position)

    def _empty_list(self, position: int) -> int:
        return self._push([], position)

    def _empty_dict(self, position: int) -> int:
        return self._push(Dict(), position)

    def _empty_set(self, position: int) -> int:
        return self._push(Set(), position)

    def _tuple(self, position: int) -> int:
        items = tuple(self._pop_mark(position))
        return self._push(items, position)

    def _tuple_of(self, position: int, count: int) -> int:
        if len(self.stack) < count:
            self.fail(position - 1, f"a tuple of {count} from a stack of {len(self.stack)}")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return self._push(items, position)

    def _tuple1(self, position: int) -> int:
        return self._tuple_of(position, 1)

    def _tuple2(self, position: int) -> int:
        return self._tuple_of(position, 2)

    def _tuple3(self, position: int) -> int:
        return self._tuple_of(position, 3)

    def _list(self, position: int) -> int:
        items = self._pop_mark(position)
        return self._push(items, position)

    def _dict(self, position: int) -> int:
        items = self._pop_mark(position)
        return self._push(Dict(self._pairs(position, items)), position)

    def _frozenset(self, position: int) -> int:
        items = self._pop_mark(position)
        return self._push(Set(items), position)

    def _pairs(self, position: int, items: list[object]) -> list[Pair]:
        if len(items) % 2:
            self.fail(position - 1, "a key without a value")
        return list(zip(items[::2], items[1::2], strict=True))

    def _add_to(self, position: int, target: object) -> None:
        """Judge that something is added to what is on top of the stack; a tensor takes nothing."""
        if isinstance(target, Call):
            if target.path in REBUILDS or target.path == FROM_TYPE:
                self.fail(position - 1, "something is added to a tensor")
            self.remark(judge_addition(target, position - 1))

    def _extend(self, position: int, items: list[object]) -> int:
        target = self._top(position)
        self._add_to(position, target)
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, Call):
            target.appended = _longer(target.appended, items)
        else:
            self.fail(position - 1, "items are appended to something that is no list")
        return position

    def _append(self, position: int) -> int:
        item = self.pop(position)
        return self._extend(position, [item])

    def _appends(self, position: int) -> int:
        items = self._pop_mark(position)
        return self._extend(position, items)

    def _store(self, position: int, pairs: list[Pair]) -> int:
        target = self._top(position)
        self._add_to(position, target)
        if not isinstance(target, (Dict, Call)):
            self.fail(position - 1, "a key is set on something that is no dict")
        target.pairs = _longer(target.pairs, pairs)
        return position

    def _setitem(self, position: int) -> int:
        value, key = self.pop(position), self.pop(position)
        return self._store(position, [(key, value)])

    def _setitems(self, position: int) -> int:
        items = self._pop_mark(position)
        return self._store(position, self._pairs(position, items))

    def _additems(self, position: int) -> int:
        items = self._pop_mark(position)
        target = self._top(position)
        self._add_to(position, target)
        if isinstance(target, Set):
            target.members.extend(items)
        elif isinstance(target, Call):
            target.appended = _longer(target.appended, items)
        else:
            self.fail(position - 1, "members are added to something that is no set")
        return position

    # -- stack and memo

    def _drop(self, position: int) -> int:
        if self.stack:
            self.stack.pop()
        else:
            self._pop_mark(position)
        return position

    def _dup(self, position: int) -> int:
        return self._push(self._top(position), position)

    def _drop_mark(self, position: int) -> int:
        self._pop_mark(position)
        return position

    def _recall(self, position: int, index: int, end: int) -> int:
        if index < len(self.memo):
            return self._push(self.memo[index], end)
        if index not in self.sparse_memo:
            self.fail(position - 1, f"memo entry {index} was never stored")
        return self._push(self.sparse_memo[index], end)

    def _binget(self, position: int) -> int:
        return self._recall(position, self._number(position, 1), position + 1)

    def _long_binget(self, position: int) -> int:
        return self._recall(position, self._number(position, 4), position + 4)

    def _line_index(self, position: int) -> tuple[int, int]:
        raw, end = self._line(position)
        index = self._decimal(position, raw)
        if not isinstance(index, int) or not 0 <= index <= 0xFFFFFFFF:
            self.fail(position, "a memo index out of range")
        return index, end

    def _get(self, position: int) -> int:
        index, end = self._line_index(position)
        return self._recall(position, index, end)

    def remember(self, index: int) -> None:
        """Store the top of the stack, which is not empty, as the memo entry ``index``."""
        if index < len(self.memo):
            self.memo[index] = self.stack[-1]
        elif index == len(self.memo) and not self.sparse_memo:
            self.memo.append(self.stack[-1])
        else:
            self.sparse_memo[index] = self.stack[-1]

    def _remember(self, position: int, index: int, end: int) -> int:
        self._top(position)
        self.remember(index)
        return end

    def _put(self, position: int) -> int:
        index, end = self._line_index(position)
        return self._remember(position, index, end)

    def _binput(self, position: int) -> int:
        return self._remember(position, self._number(position, 1), position + 1)

    def _long_binput(self, position: int) -> int:
        return self._remember(position, self._number(position, 4), position + 4)

    def _memoize(self, position: int) -> int:
        return self._remember(position, len(self.memo) + len(self.sparse_memo), position)

    # -- what another loader would import and call

    def _new_ref(self, module: str, name: str, offset: int, end: int) -> int:
        ref = Ref(module, name, offset)
        ref.callable_as_data = may_be_called(ref)
        self.refs.append(ref)
        self.remark(judge_ref(ref))
        return self._push(ref, end)

    def _global(self, position: int) -> int:
        module, middle = self._line(position)
        name, end = self._line(middle)
        return self._new_ref(self.text(position, module), self.text(middle, name), position - 1, end)

    def _stack_global(self, position: int) -> int:
        name, module = self.pop(position), self.pop(position)
        if not isinstance(name, str) or not isinstance(module, str):
            self.fail(position - 1, "STACK_GLOBAL wants two strings")
        return self._new_ref(module, name, position - 1, position)

    def _extension(self, position: int, width: int) -> int:
        code = self._number(position, width)
        ref = Ref("copyreg extension", str(code), position - 1)
        self.refs.append(ref)
        self.remark(Remark("unsafe", position - 1, ref.path, f"{EXTENSION_CODE} {code} stands for a hidden global"))
        return self._push(ref, position + width)

    def _ext1(self, position: int) -> int:
        return self._extension(position, 1)

    def _ext2(self, position: int) -> int:
        return self._extension(position, 2)

    def _ext4(self, position: int) -> int:
        return self._extension(position, 4)

    def call(self, how: How, target: object, arguments: object, position: int, keywords: object = None) -> int:
        made = Call(how, target, arguments, keywords, position - 1)
        found = judge_call(made)
        self.remark(found)
        if found is None and made.path in IDENTITIES and isinstance(arguments, tuple):
            return self._push(arguments[0], position)
        if isinstance(arguments, tuple) and any(isinstance(argument, (list, Dict)) for argument in arguments):
            made.arguments = tuple(Prefix(each) if isinstance(each, (list, Dict)) else each for each in arguments)
        return self._push(made, position)

    def _reduce(self, position: int) -> int:
        arguments, target = self.pop(position), self.pop(position)
        return self.call("REDUCE", target, arguments, position)

    def _newobj(self, position: int) -> int:
        arguments, target = self.pop(position), self.pop(position)
        return self.call("NEWOBJ", target, arguments, position)

    def _newobj_ex(self, position: int) -> int:
        keywords, arguments, target = self.pop(position), self.pop(position), self.pop(position)
        return self.call("NEWOBJ_EX", target, arguments, position, keywords)

    def _inst(self, position: int) -> int:
        module, middle = self._line(position)
        name, end = self._line(middle)
        arguments = tuple(self._pop_mark(position))
        self._new_ref(self.text(position, module), self.text(middle, name), position - 1, end)
        target = self.stack.pop()
        self.call("INST", target, arguments, position)
        return end

    def _obj(self, position: int) -> int:
        items = self._pop_mark(position)
        if not items:
            self.fail(position - 1, "OBJ without a class")
        return self.call("OBJ", items[0], tuple(items[1:]), position)

    def _build(self, position: int) -> int:
        state = self.pop(position)
        target = self._top(position)
        if isinstance(target, Call) and (target.path in REBUILDS or target.path == FROM_TYPE):
            self.fail(position - 1, "a tensor is given a state")
        self.remark(judge_build(target, state, position - 1))
        if isinstance(target, (Call, Dict)):
            target.states = _longer(target.states, [state])
        elif not isinstance(target, Ref):
            self.fail(position - 1, "BUILD gives a state to something that has none")
        return position

    def _persid(self, position: int) -> int:
        raw, end = self._line(position)
        return self._push(self.persistent(self.text(position, raw), position - 1), end)

    def _binpersid(self, position: int) -> int:
        return self._push(self.persistent(self.pop(position), position - 1), position)

    def persistent(self, key: object, offset: int) -> object:
        """A reference out of the pickle. torch's oldest files put a class and its source text into one: the class."""
        if isinstance(key, tuple) and len(key) > 1 and _is_text(key[0], "module") and isinstance(key[1], Ref):
            return key[1]
        found = Persistent(key, offset)
        self.persistents.append(found)
        return found

    # -- framing

    def _proto(self, position: int) -> int:
        if self._number(position, 1) > 5:
            self.fail(position, f"pickle protocol {self.content[position]}; 0 to 5 are known")
        return position + 1

    def _frame(self, position: int) -> int:
        length = self._number(position, 8)
        if self.frame_end != self.no_frame or length > self.size - position - 8:
            self.fail(position - 1, f"a frame of {length} bytes inside another, or longer than what remains")
        self.frame_end = position + 8 + length
        return position + 8

    def _out_of_band(self, position: int) -> int:
        self.fail(position - 1, "an out-of-band buffer, which a file cannot have")


def _is_text(value: object, text: str) -> bool:
    return isinstance(value, str) and value == text


def _longer(items: list[_T] | tuple[()], more: list[_T]) -> list[_T]:
    """``items`` with ``more`` behind them; the list itself grows where there is one."""
    if isinstance(items, tuple):
        return more
    items.extend(more)
    return items


_OPCODES: dict[int, str] = {ord(code): name for code, name in {
    "N": "none", "\x88": "true", "\x89": "false", "J": "binint", "K": "binint1", "M": "binint2", "I": "int",
    "L": "long", "\x8a": "long1", "\x8b": "long4", "F": "float", "G": "binfloat", "S": "string", "T": "binstring",
    "U": "short_binstring", "V": "unicode", "\x8c": "short_binunicode", "X": "binunicode", "\x8d": "binunicode8",
    "C": "short_binbytes", "B": "binbytes", "\x8e": "binbytes8", "\x96": "binbytes8", "(": "mark",
    ")": "empty_tuple", "]": "empty_list", "}": "empty_dict", "\x8f": "empty_set", "t": "tuple", "\x85": "tuple1",
    "\x86": "tuple2", "\x87": "tuple3", "l": "list", "d": "dict", "\x91": "frozenset", "a": "append", "e": "appends",
    "s": "setitem", "u": "setitems", "\x90": "additems", "0": "drop", "2": "dup", "1": "drop_mark", "h": "binget",
    "j": "long_binget", "g": "get", "q": "binput", "r": "long_binput", "p": "put", "\x94": "memoize", "c": "global",
    "\x93": "stack_global", "\x82": "ext1", "\x83": "ext2", "\x84": "ext4", "R": "reduce", "\x81": "newobj",
    "\x92": "newobj_ex", "i": "inst", "o": "obj", "b": "build", "P": "persid", "Q": "binpersid", "\x80": "proto",
    "\x95": "frame", "\x97": "out_of_band", "\x98": "out_of_band",
}.items()}  # fmt: skip
# The methods themselves, not bound to a machine: a machine that refers to itself would outlive its use.
TABLE: dict[int, Callable[[Opcodes, int], int]] = {
    code: getattr(Opcodes, f"_{name}") for code, name in _OPCODES.items()
}
