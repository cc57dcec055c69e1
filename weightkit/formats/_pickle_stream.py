"""The bytes of a pickle, and the stack that its opcodes work on."""

from __future__ import annotations

from weightkit.errors import CorruptFile
from weightkit.formats._pickle_records import BigInt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PADDING = 16
_MOST_INT_DIGITS = 150


class CutShort(CorruptFile):
    """The bytes end where the stream goes on."""


class Stream:
    """A stream of opcodes, read by position, and the stack of what has been built.

    ``content`` ends with ``PADDING`` zeros that are not part of the stream, so that a short fixed-width argument can be
    read without a check of its own: the next opcode is then behind ``size``.
    """

    def __init__(self, content: bytes, where: str) -> None:
        self.content = content + bytes(PADDING)
        self.size = len(content)
        self.where = where
        self.stack: list[object] = []
        self.marked: list[list[object]] = []

    def fail(self, position: int, message: str) -> NoReturn:
        raise CorruptFile(f"{self.where}: byte {position} of the pickle: {message}")

    def cut_short(self, position: int, message: str) -> NoReturn:
        raise CutShort(f"{self.where}: byte {position} of the pickle: {message}")

    def _bytes(self, position: int, length: int) -> bytes:
        if length > self.size - position:
            self.cut_short(position, f"{length} bytes announced, {max(self.size - position, 0)} remain")
        return self.content[position : position + length]

    def _number(self, position: int, width: int) -> int:
        return int.from_bytes(self._bytes(position, width), "little")

    def _line(self, position: int) -> tuple[bytes, int]:
        end = self.content.find(b"\n", position, self.size)
        if end < 0:
            self.cut_short(position, "a line without an end")
        return self.content[position:end], end + 1

    def text(self, position: int, raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.fail(position, "text that is not UTF-8")

    def _decimal(self, position: int, raw: bytes) -> int | BigInt:
        digits = raw[1:] if raw[:1] in (b"-", b"+") else raw
        if not digits.isdigit() or (len(digits) > 1 and digits.startswith(b"0")):  # which others take for octal
            self.fail(position, "a number that is not decimal")
        return int(raw) if len(digits) <= _MOST_INT_DIGITS else BigInt(len(digits))

    def pop(self, position: int) -> object:
        if not self.stack:
            self.fail(position - 1, "an opcode wants an object, the stack is empty")
        return self.stack.pop()

    def _top(self, position: int) -> object:
        if not self.stack:
            self.fail(position - 1, "an opcode wants an object, the stack is empty")
        return self.stack[-1]

    def _pop_mark(self, position: int) -> list[object]:
        if not self.marked:
            self.fail(position - 1, "an opcode wants a mark, there is none")
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def _push(self, value: object, position: int) -> int:
        self.stack.append(value)
        return position
