"""A pickle read as data: every opcode of protocols 0 to 5, and nothing that could import, call, hash or compare.

What the stream would build becomes inert records: a class or function is a ``Ref`` of two strings, a call is a
``Call`` with its arguments, dicts and sets are lists. Every length is compared with the bytes that remain before
anything is sliced. The commonest opcodes stand in the loop itself, for speed; ``_pickle_opcodes`` has them all.
"""

from __future__ import annotations

import struct
import time

from weightkit.core.text import printable
from weightkit.errors import CorruptFile, UnsafeContent
from weightkit.formats._pickle_opcodes import EXTENSION_CODE, TABLE, Opcodes
from weightkit.formats._pickle_policy import Remark
from weightkit.formats._pickle_records import Call, Persistent, Ref
from weightkit.formats.base import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CHECK_EVERY = 8192
_UINT4, _INT4 = struct.Struct("<I").unpack_from, struct.Struct("<i").unpack_from


class Unpickled:
    """One pickle: its object graph, what it refers to, and what stands out. ``end`` is the byte after it."""

    __slots__ = ("end", "executed", "leftovers", "persistents", "refs", "remarks", "value")

    def __init__(self, value: object, machine: _Machine, executed: int, end: int) -> None:
        self.value = value
        self.executed = executed
        self.refs: Sequence[Ref] = machine.refs
        self.persistents: Sequence[Persistent] = machine.persistents
        self.remarks: Sequence[Remark] = machine.remarks
        self.end = end
        self.leftovers = len(machine.stack) + sum(len(part) for part in machine.marked) + len(machine.marked)


def unpickle(content: bytes, *, where: str, limits: Limits, start: int = 0, by_chance: bool = False) -> Unpickled:
    """The pickle at ``start`` of ``content``; ``where`` (printable) begins every message.

    ``by_chance``: the bytes are a file of another format, of which a few may read as opcodes. Where such a stream
    breaks off, the mention of one extension code is no payload: two bytes of a length are enough for it, and only what
    the loading program itself registered has a code.

    Raises CorruptFile where the stream is malformed, UnsafeContent where it is malformed after a payload (the payload
    is named), LimitExceeded where a limit is hit.
    """
    machine = _Machine(content, where, limits)
    try:
        return machine.run(start)
    except CorruptFile as error:
        mention = by_chance and len(machine.remarks) == 1 and machine.remarks[0].message.startswith(EXTENSION_CODE)
        payloads = "" if mention else name_payloads(machine.remarks)
        if payloads:
            raise UnsafeContent(
                f"{where}: {payloads}; further on the stream is malformed ({error.message})",
                hint="do not load this file with anything that unpickles it",
            ) from None
        raise


class _Machine(Opcodes):
    def run(self, position: int) -> Unpickled:
        content, memo, sparse, stack = self.content, self.memo, self.sparse_memo, self.stack
        marked, size, no_frame, frame_end = self.marked, self.size, self.no_frame, self.no_frame
        executed, chunk = 0, min(_CHECK_EVERY, self.limits.opcodes + 1)
        deadline = time.monotonic() + self.limits.wall_s
        while True:
            for count in range(chunk):
                if position >= frame_end:
                    if position != frame_end:
                        self.fail(position, "an opcode runs over the end of its frame")
                    self.frame_end = frame_end = no_frame
                code = content[position]
                position += 1
                if code >= 0x58:
                    if code == 0x68 and content[position] < len(memo):  # BINGET
                        stack.append(memo[content[position]])
                        position += 1
                        continue
                    if code == 0x86 and len(stack) > 1:  # TUPLE2
                        last = stack.pop()
                        stack[-1] = (stack[-1], last)
                    elif code == 0x58:  # BINUNICODE
                        start = position + 4
                        end = start + _UINT4(content, position)[0]
                        if end > size:
                            self.cut_short(position, f"{end - start} bytes announced, {max(size - start, 0)} remain")
                        stack.append(self.text(start, content[start:end]))
                        position = end
                    elif code == 0x74 and marked:  # TUPLE
                        items = tuple(stack)
                        self.stack = stack = marked.pop()
                        stack.append(items)
                    elif code == 0x89:  # NEWFALSE
                        stack.append(False)
                        continue
                    elif code == 0x94 and stack and not sparse:  # MEMOIZE
                        memo.append(stack[-1])
                        continue
                    elif code == 0x85 and stack:  # TUPLE1
                        stack[-1] = (stack[-1],)
                    else:
                        position = self._other(code, position)
                        stack, frame_end = self.stack, self.frame_end
                        continue
                elif code == 0x4B:  # BININT1
                    stack.append(content[position])
                    position += 1
                    continue
                elif code == 0x28:  # MARK
                    marked.append(stack)
                    self.stack = stack = []
                    continue
                elif (
                    code == 0x52
                    and len(stack) > 1
                    and type(stack[-2]) is Ref
                    and type(stack[-1]) is tuple
                    and stack[-2].callable_as_data > bool(stack[-1])
                ):
                    arguments = stack.pop()  # REDUCE
                    stack[-1] = Call("REDUCE", stack[-1], arguments, None, position - 1)
                elif code == 0x29:  # EMPTY_TUPLE
                    stack.append(())
                    continue
                elif code == 0x4A:  # BININT
                    stack.append(_INT4(content, position)[0])
                    position += 4
                    continue
                elif code == 0x51 and stack:  # BINPERSID
                    stack[-1] = self.persistent(stack[-1], position - 1)
                    continue
                elif code == 0x4D:  # BININT2
                    stack.append(content[position] | content[position + 1] << 8)
                    position += 2
                    continue
                elif code == 0x2E:  # STOP
                    self._check_limits(executed + count + 1, deadline)
                    return self._stop(position, executed + count + 1)
                else:
                    position = self._other(code, position)
                    stack, frame_end = self.stack, self.frame_end
                    continue
                # Picklers store what they have just built: LONG_BINPUT, with the next index.
                if content[position] == 0x72 and not sparse and _UINT4(content, position + 1)[0] == len(memo):
                    memo.append(stack[-1])
                    position += 5
            executed += chunk
            self._check_limits(executed, deadline)

    def _other(self, code: int, position: int) -> int:
        """Carry out one of the opcodes that do not stand in the loop; the position behind its argument."""
        if position > self.size:
            self.cut_short(self.size, "the pickle ends without STOP: it was cut short")
        step = TABLE.get(code)
        if step is None:
            self.fail(position - 1, f"byte {code:#04x} is no pickle opcode")
        return step(self, position)

    def _stop(self, position: int, executed: int) -> Unpickled:
        if position != self.frame_end and self.frame_end != self.no_frame:
            self.fail(position, f"STOP inside a frame that goes on to byte {self.frame_end}")
        value = self.pop(position)
        return Unpickled(value, self, executed, position)

    def _check_limits(self, executed: int, deadline: float) -> None:
        if executed > self.limits.opcodes:
            raise self.limits.exceeded("opcodes", where=self.where, found=f"{executed} pickle opcodes")
        if len(self.marked) > self.limits.marks:
            raise self.limits.exceeded("marks", where=self.where, found=f"{len(self.marked)} marks are open")
        remembered = len(self.memo) + len(self.sparse_memo)
        if remembered > self.limits.memo:
            raise self.limits.exceeded("memo", where=self.where, found=f"{remembered} memo entries")
        if time.monotonic() > deadline:
            raise self.limits.exceeded("wall_s", where=self.where, found=f"{executed} pickle opcodes took too long")


def name_payloads(remarks: Sequence[Remark]) -> str:
    """The first unsafe remarks in one line, for messages; "" where there is none."""
    unsafe = sorted((remark for remark in remarks if remark.level == "unsafe"), key=lambda remark: remark.named)
    return "; ".join(printable(f"byte {remark.offset}: {remark.message}") for remark in unsafe[:5])
