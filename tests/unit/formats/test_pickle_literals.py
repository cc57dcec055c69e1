"""A quoted string of protocol 0 stands for the bytes that its escapes say."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given

from weightkit.formats._pickle_literals import unescaped

ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
SIGNS = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"\n": b""}


def by_pattern(raw: bytes) -> bytes:
    """The same by a regular expression. Raises ValueError."""

    def plain(found: re.Match[bytes]) -> bytes:
        escape = found[1]
        if escape[:1] == b"x":
            return bytes((int(escape[1:], 16),))
        if escape.isdigit():
            return bytes((int(escape, 8) & 0xFF,))
        return escape if escape in (b"\\", b"'", b'"') else SIGNS.get(escape, found[0])

    return ESCAPE.sub(plain, raw)


pieces = st.one_of(
    st.sampled_from([b"\\", b"\\\\", b"\\x", b"\\x4", b"\\x41", b"\\xg1", b"\\7", b"\\101", b"\\777", b"\\8", b"\\18"]),
    st.sampled_from([b"\\n", b"\\'", b'\\"', b"\\\n", b"\\q", b"\\N", b"x41", b"0", b"9", b"\n", b"\xff"]),
    st.binary(max_size=3),
)


@given(st.lists(pieces, max_size=12).map(b"".join))
def test_escapes_are_what_a_regular_expression_finds(raw: bytes) -> None:
    try:
        expected = by_pattern(raw)
    except ValueError:
        with pytest.raises(ValueError):
            unescaped(raw)
    else:
        assert unescaped(raw) == expected
