"""A folder that weightkit wrote: ``model.safetensors``, ``config.json``, ``plan.json``, ``report.json``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.jsonio import parse_json
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats._safetensors_file import read_safetensors
from weightkit.formats._source import Source
from weightkit.formats.base import Format, Limits

CONFIG, WEIGHTS = "config.json", "model.safetensors"
VERSION_KEY = "weightkit_format"
VERSION = 1
_MOST_CONFIG_BYTES = 16 << 20


def detect(path: Path, head: bytes) -> bool:
    """A folder whose config.json says that weightkit wrote it."""
    if head or not path.is_dir() or not (path / CONFIG).is_file():
        return False
    try:
        return VERSION_KEY in read_config(path)
    except FormatError:
        return False


def read_config(path: Path) -> dict[str, object]:
    """The config.json in the folder ``path``. Raises FormatError."""
    source = Source.at(path / CONFIG)
    if source.size > _MOST_CONFIG_BYTES:
        raise CorruptFile(f"{source.shown}: {source.size} bytes, which is too much for a configuration")
    try:
        config = parse_json(bytes(source.read(0, source.size)), origin=source.shown)
    except ValueError as error:
        raise CorruptFile(printable(str(error))) from None
    if not isinstance(config, dict):
        raise CorruptFile(f"{source.shown}: expected a JSON object")
    return config


def open_weightkit_dir(path: Path, limits: Limits) -> Checkpoint:
    """The weights in the folder, with its config.json at ``metadata["config"]``."""
    config = read_config(path)
    version = config.get(VERSION_KEY)
    if type(version) is not int or version != VERSION:
        raise CorruptFile(
            f"{printable(str(path / CONFIG))}: {VERSION_KEY} is {printable(repr(version))}, expected {VERSION}",
            hint="it was written by another version of weightkit; read it with that version",
        )
    checkpoint = read_safetensors(path / WEIGHTS, limits, name=FORMAT.name)
    return replace(checkpoint, path=str(path), metadata={**checkpoint.metadata, "config": config})


FORMAT = Format(
    name="weightkit_dir",
    description="a folder that weightkit wrote: config.json beside model.safetensors",
    endings=(),
    detect=detect,
    open=open_weightkit_dir,
)
