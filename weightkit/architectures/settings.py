"""``--set KEY=VALUE`` texts as values of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from weightkit.errors import UsageError

Parse = Callable[[str], object]
_MOST_DIGITS = 9
IMAGE_SIZE = "image_size"
"""The key that stands for ``image_height`` and ``image_width``."""


def parse(settings: Mapping[str, str], kinds: Mapping[str, Parse], *, of: str, example: str) -> dict[str, object]:
    """The values of ``settings``, each by what ``kinds`` has for its key; ``of`` is the architecture.

    Raises UsageError for an unknown key, or a text that is no such value.
    """
    values: dict[str, object] = {}
    for key, text in settings.items():
        if key not in kinds:
            from difflib import get_close_matches

            close = get_close_matches(key, list(kinds), n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise UsageError(f"--set {key}={text}: unknown key", hint=f"{hint}{of} knows {', '.join(kinds)}")
        try:
            value = kinds[key](text)
        except ValueError as error:
            raise UsageError(
                f"--set {key}={text}: not a value of {key}: {error}", hint=f"for example {example}"
            ) from None
        if key == IMAGE_SIZE:
            assert isinstance(value, tuple)
            values["image_height"], values["image_width"] = value
        else:
            values[key] = value
    return values


def whole(least: int = 1) -> Parse:
    """A whole number from ``least`` on."""

    def read(text: str) -> int:
        number = int(text) if len(text) <= _MOST_DIGITS and text.isascii() else least - 1
        if number < least:
            raise ValueError(f"expected a whole number of at least {least}")
        return number

    return read


def wholes(text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, with commas between them."""
    return tuple(number for part in text.split(",") if isinstance(number := whole()(part), int))


def size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH``, or one number for both."""
    height, _, width = text.lower().partition("x")
    sides = wholes(f"{height},{width or height}")
    return sides[0], sides[1]


def names(text: str) -> tuple[str, ...]:
    """Texts with commas between them; none at all where nothing stands there."""
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ()


def truth(text: str) -> bool:
    """true or false."""
    return one_of("true", "false")(text.lower()) == "true"


def one_of(*choices: str) -> Parse:
    """One of ``choices``."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}")
        return text

    return read
