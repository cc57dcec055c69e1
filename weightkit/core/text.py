"""Text from files and peers, made fit for a terminal."""

from __future__ import annotations


def printable(text: str, *, longest: int = 400) -> str:
    """``text`` with every control, escape, bidi and other invisible character as a visible escape.

    Names and paths are attacker's bytes: printed raw they could move the cursor, recolour or reorder what a person
    reads. Text above ``longest`` characters loses its middle.
    """
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}...{text[-half:]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
