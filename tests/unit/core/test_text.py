"""Text from files is shown with everything invisible spelled out."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from weightkit.core.text import printable


@given(st.text(st.characters(), max_size=600))
def test_what_is_shown_is_printable_and_encodable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("encoder.0.weight", "encoder.0.weight"),
        ("größe 重み", "größe 重み"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb", "a\\x0ab"),
        ("\u202eabc", "\\u202eabc"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_invisible_characters_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_loses_its_middle() -> None:
    assert printable("a" * 50 + "b" * 50, longest=10) == "aaaaa...bbbbb"
