"""A folder that weightkit wrote: ``model.safetensors``, ``config.json``, ``plan.json``, ``report.json``.

A checkpoint of a training run holds such a folder as ``pretrained_model``, as LeRobot's do; it is read in its place.
"""

from __future__ import annotations

import os

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.jsonio import parse_json
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats._safetensors_file import read_safetensors
from weightkit.formats._source import Source, unreadable
from weightkit.formats.base import Format, Limits

CONFIG, WEIGHTS, POLICY = "config.json", "model.safetensors", "pretrained_model"
VERSION_KEY = "weightkit_format"
VERSION = 1
_MOST_CONFIG_BYTES = 16 << 20
_FILES = frozenset((CONFIG, WEIGHTS, "plan.json", "report.json", "train_config.json"))


def detect(path: str, head: bytes) -> bool:
    """A folder whose config.json says that weightkit wrote it, or that holds one as ``pretrained_model``."""
    path = _policy_in(path)
    if head or not os.path.isfile(os.path.join(path, CONFIG)):
        return False
    try:
        return VERSION_KEY in read_config(path)
    except FormatError:
        return False


def is_ours(folder: str | os.PathLike[str]) -> bool:
    """Whether weightkit wrote the folder and nobody put anything else into it: only then may it be replaced."""
    try:
        with os.scandir(folder) as entries:
            plain = all(entry.name in _FILES and entry.is_file(follow_symlinks=False) for entry in entries)
        return plain and os.path.isfile(os.path.join(folder, CONFIG)) and VERSION_KEY in read_config(folder)
    except (FormatError, OSError):
        return False


def read_config(path: str | os.PathLike[str]) -> dict[str, object]:
    """The config.json in the folder ``path``. Raises FormatError."""
    source = Source.at(os.path.join(path, CONFIG))
    if source.size > _MOST_CONFIG_BYTES:
        raise CorruptFile(f"{source.shown}: {source.size} bytes, which is too much for a configuration")
    try:
        config = parse_json(bytes(source.read(0, source.size)), origin=source.shown)
    except ValueError as error:
        raise CorruptFile(printable(str(error))) from None
    if not isinstance(config, dict):
        raise CorruptFile(f"{source.shown}: expected a JSON object")
    return config


def open_weightkit_dir(path: str, limits: Limits) -> Checkpoint:
    """The weights in the folder, with its config.json at ``metadata["config"]``.

    Raises CorruptFile where another folder took its place in between: the two files would not belong together.
    """
    given, path = path, _policy_in(path)
    before = _identity(path)
    config = read_config(path)
    version = config.get(VERSION_KEY)
    if type(version) is not int or version != VERSION:
        raise CorruptFile(
            f"{printable(os.path.join(path, CONFIG))}: {VERSION_KEY} is {printable(repr(version))}, expected {VERSION}",
            hint="it was written by another version of weightkit; read it with that version",
        )
    checkpoint = read_safetensors(Source.at(os.path.join(path, WEIGHTS)), limits, name=FORMAT.name)
    if _identity(path) != before:
        raise CorruptFile(f"{printable(path)}: the folder was replaced while it was being read", hint="read it again")
    return checkpoint.replace(path=given, metadata={**checkpoint.metadata, "config": config})


def _policy_in(path: str) -> str:
    """The folder of the policy: ``path``, or ``pretrained_model`` in it."""
    inner = os.path.join(path, POLICY)
    return inner if os.path.isdir(inner) and not os.path.exists(os.path.join(path, CONFIG)) else path


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise unreadable(path, error) from None
    return found.st_dev, found.st_ino


FORMAT = Format(
    name="weightkit_dir",
    description="a folder that weightkit wrote: config.json beside model.safetensors",
    endings=(),
    detect=detect,
    open=open_weightkit_dir,
)
