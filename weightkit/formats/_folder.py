"""Files inside a folder that is a checkpoint: reached by plain names, never through a link; JSON read strictly."""

from __future__ import annotations

import os
import stat

from weightkit.core.jsonio import parse_json
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats._source import Source, unreadable
from weightkit.formats.base import Limits


def is_plain_name(name: str) -> bool:
    """Whether ``name`` can only mean a file in the folder itself."""
    return name not in ("", ".", "..") and not any(char in name for char in "/\\\0")


def file_in(folder: str, name: str) -> Source:
    """The file called ``name`` in ``folder``. Raises FormatError where it is missing or a link."""
    return Source.at(os.path.join(folder, name), follow=False)


def named_file(folder: str, name: object, *, said_by: str) -> Source:
    """The file ``name`` in ``folder``, which the file ``said_by`` (printable) refers to. Raises FormatError.

    The name comes out of a file: it may lead nowhere else.
    """
    if not isinstance(name, str) or not is_plain_name(name):
        raise CorruptFile(
            f"{said_by}: refers to the file {printable(repr(name))}, expected the plain name of a file beside it",
            hint="do not trust it: a checkpoint has no reason to name files elsewhere",
        )
    try:
        return file_in(folder, name)
    except FormatError as error:
        raise CorruptFile(f"{error.message}; {said_by} refers to it", hint=error.hint) from None


def has_file(folder: str, name: str) -> bool:
    """Whether something that is no folder is called ``name`` in ``folder``, be it a link."""
    mode = _mode(os.path.join(folder, name))
    return mode is not None and not stat.S_ISDIR(mode)


def has_folder(folder: str, name: str) -> bool:
    """Whether a folder is called ``name`` in ``folder``. Raises FormatError where that is a link."""
    path = os.path.join(folder, name)
    mode = _mode(path)
    if mode is not None and stat.S_ISLNK(mode):
        raise FormatError(
            f"{printable(path)}: a symbolic link, which is not followed here",
            hint="copy the folder itself there, or name the folder that it leads to",
        )
    return mode is not None and stat.S_ISDIR(mode)


def names_in(folder: str) -> list[str]:
    """The names of everything in ``folder``, sorted. Raises FormatError."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise unreadable(folder, error) from None


def _mode(path: str) -> int | None:
    try:
        return os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        return None


def read_json(source: Source, limits: Limits) -> object:
    """The JSON document in ``source``: UTF-8, no key twice. Raises CorruptFile, LimitExceeded."""
    if source.size > limits.json_bytes:
        raise limits.exceeded("json_bytes", where=source.shown, found=f"JSON of {source.size} bytes")
    return json_document(bytes(source.read(0, source.size)), shown=source.shown)


def json_document(content: bytes, *, shown: str) -> object:
    """The JSON document in ``content``, for messages ``shown`` (printable). Raises CorruptFile."""
    try:
        return parse_json(content.decode("utf-8"), origin=shown)
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{shown}: not JSON: byte {error.start} is not UTF-8") from None
    except ValueError as error:
        raise CorruptFile(printable(str(error))) from None


def read_json_object(source: Source, limits: Limits) -> dict[str, object]:
    """The JSON object in ``source``. Raises CorruptFile, LimitExceeded."""
    found = read_json(source, limits)
    if not isinstance(found, dict):
        raise CorruptFile(f"{source.shown}: expected a JSON object, found {type(found).__name__}")
    return found
