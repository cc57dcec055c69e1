"""The opcodes that push a constant: numbers, text and bytes, one method each."""

from __future__ import annotations

import codecs
import struct

from weightkit.formats._pickle_records import BigInt
from weightkit.formats._pickle_stream import Stream

_MOST_INT_BYTES = 64
_MOST_FLOAT_DIGITS = 150
_INFINITE = (float("inf"), float("-inf"))
_OCTAL_DIGITS, _HEX_DIGITS = frozenset(b"01234567"), frozenset(b"0123456789abcdefABCDEF")
_SHORT_ESCAPES = {
    b"\\": b"\\", b"'": b"'", b'"': b'"', b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r",
    b"t": b"\t", b"v": b"\v", b"\n": b"",
}  # fmt: skip


class Literals(Stream):
    """Each method goes from the byte after the opcode to the byte after its argument."""

    def _none(self, position: int) -> int:
        return self._push(None, position)

    def _true(self, position: int) -> int:
        return self._push(True, position)

    def _false(self, position: int) -> int:
        return self._push(False, position)

    def _binint(self, position: int) -> int:
        return self._push(int.from_bytes(self._bytes(position, 4), "little", signed=True), position + 4)

    def _binint1(self, position: int) -> int:
        return self._push(self._number(position, 1), position + 1)

    def _binint2(self, position: int) -> int:
        return self._push(self._number(position, 2), position + 2)

    def _int(self, position: int) -> int:
        raw, end = self._line(position)
        if raw in (b"00", b"01"):
            return self._push(raw == b"01", end)
        return self._push(self._decimal(position, raw), end)

    def _long(self, position: int) -> int:
        raw, end = self._line(position)
        return self._push(self._decimal(position, raw[:-1] if raw.endswith(b"L") else raw), end)

    def _sized_int(self, position: int, length: int) -> int:
        raw = self._bytes(position, length)
        small = length <= _MOST_INT_BYTES
        value = int.from_bytes(raw, "little", signed=True) if small else BigInt(8 * length)
        return self._push(value, position + length)

    def _long1(self, position: int) -> int:
        return self._sized_int(position + 1, self._number(position, 1))

    def _long4(self, position: int) -> int:
        length = int.from_bytes(self._bytes(position, 4), "little", signed=True)
        if length < 0:
            self.fail(position, "a number of negative length")
        return self._sized_int(position + 4, length)

    def _float(self, position: int) -> int:
        raw, end = self._line(position)
        if len(raw) > _MOST_FLOAT_DIGITS:
            self.fail(position, "a float of too many digits")
        if b"_" in raw or raw != raw.strip():
            self.fail(position, "a float that is not one")
        try:
            value = float(raw)
        except ValueError:
            self.fail(position, "a float that is not one")
        if value in _INFINITE and b"inf" not in raw.lower():
            self.fail(position, "a float that is too large")
        return self._push(value, end)

    def _binfloat(self, position: int) -> int:
        return self._push(struct.unpack(">d", self._bytes(position, 8))[0], position + 8)

    # -- text and bytes

    def _string(self, position: int) -> int:
        raw, end = self._line(position)
        if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
            self.fail(position, "a quoted string without its quotes")
        try:
            plain = unescaped(raw[1:-1])
        except ValueError:
            self.fail(position, "a quoted string with a malformed escape")
        return self._push_old_text(plain, end)

    def _push_old_text(self, raw: bytes, end: int) -> int:
        """Python 2 did not tell text from bytes: what decodes is text."""
        try:
            return self._push(raw.decode(), end)
        except UnicodeDecodeError:
            return self._push(raw, end)

    def _binstring(self, position: int) -> int:
        length = int.from_bytes(self._bytes(position, 4), "little", signed=True)
        if length < 0:
            self.fail(position, "a string of negative length")
        return self._push_old_text(self._bytes(position + 4, length), position + 4 + length)

    def _short_binstring(self, position: int) -> int:
        length = self._number(position, 1)
        return self._push_old_text(self._bytes(position + 1, length), position + 1 + length)

    def _unicode(self, position: int) -> int:
        raw, end = self._line(position)
        try:
            return self._push(codecs.raw_unicode_escape_decode(raw)[0], end)
        except UnicodeDecodeError:
            self.fail(position, "text with a malformed escape")

    def _sized_text(self, position: int, width: int) -> int:
        length = self._number(position, width)
        start = position + width
        return self._push(self.text(start, self._bytes(start, length)), start + length)

    def _short_binunicode(self, position: int) -> int:
        return self._sized_text(position, 1)

    def _binunicode(self, position: int) -> int:
        return self._sized_text(position, 4)

    def _binunicode8(self, position: int) -> int:
        return self._sized_text(position, 8)

    def _sized_bytes(self, position: int, width: int) -> int:
        length = self._number(position, width)
        start = position + width
        return self._push(self._bytes(start, length), start + length)

    def _short_binbytes(self, position: int) -> int:
        return self._sized_bytes(position, 1)

    def _binbytes(self, position: int) -> int:
        return self._sized_bytes(position, 4)

    def _binbytes8(self, position: int) -> int:
        return self._sized_bytes(position, 8)


def unescaped(raw: bytes) -> bytes:
    """What stands between the quotes of a bytes literal, its escapes resolved. Raises ValueError for a malformed one.

    An escape that stands for nothing stays as it is, as Python has it.
    """
    plain = bytearray()
    position = 0
    while 0 <= (found := raw.find(b"\\", position)) < len(raw) - 1:
        plain += raw[position:found]
        start = found + 1
        sign = raw[start : start + 1]
        if sign == b"x":
            digits = raw[start + 1 : start + 3]
            if len(digits) < 2 or not _HEX_DIGITS.issuperset(digits):
                raise ValueError("an escape of two hexadecimal digits without them")
            plain.append(int(digits, 16))
            position = start + 3
        elif sign.isdigit():
            position = start + 1
            while position < start + 3 and raw[position : position + 1] and raw[position] in _OCTAL_DIGITS:
                position += 1
            plain.append(int(raw[start:position], 8) & 0xFF)
        else:
            plain += _SHORT_ESCAPES.get(sign, b"\\" + sign)
            position = start + 1
    return bytes(plain + raw[position:])
