"""A folder as transformers and diffusers save it: config.json beside one file of weights, or beside shards."""

from __future__ import annotations

import os
from collections.abc import Sequence

from weightkit.core.checkpoint import Checkpoint
from weightkit.core.report import Finding, Severity
from weightkit.core.text import printable
from weightkit.errors import CorruptFile, FormatError
from weightkit.formats._folder import file_in, has_file, names_in, read_json_object
from weightkit.formats._sharded import INDEX_ENDING, open_sharded
from weightkit.formats._weights import open_weights
from weightkit.formats.base import Format, Limits

_CONFIG = "config.json"
_SINGLE = ("model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
_FIRST = tuple(name + INDEX_ENDING for name in _SINGLE)


def detect(path: str, head: bytes) -> bool:
    """A folder with the index of a sharded checkpoint, or with config.json beside the one file of weights."""
    if head:
        return False
    try:
        names = names_in(path)
    except FormatError:
        return False
    return bool(_indices(names)) or (_CONFIG in names and any(name in names for name in _SINGLE))


def open_sharded_dir(path: str, limits: Limits) -> Checkpoint:
    """The tensors in the folder's shards, or in its one file, with config.json at ``metadata["config"]``."""
    names = names_in(path)
    indices = _indices(names)
    chosen = _chosen(path, indices) if indices else next(name for name in _SINGLE if name in names)
    shown = printable(path)
    source = file_in(path, chosen)
    if indices:
        checkpoint = open_sharded(source, limits, path=path, name=FORMAT.name)
    else:
        checkpoint = open_weights(source, limits, name=FORMAT.name)
    metadata = dict(checkpoint.metadata)
    if has_file(path, _CONFIG):
        metadata["config"] = read_json_object(file_in(path, _CONFIG), limits)
    findings = (*checkpoint.findings, *_not_opened(shown, [*indices, *_SINGLE], chosen, names))
    return checkpoint.replace(path=path, metadata=metadata, findings=findings)


def _indices(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(INDEX_ENDING)]


def _chosen(path: str, indices: Sequence[str]) -> str:
    """The index to open: a usual one, safetensors before torch, or the only one there is."""
    for name in _FIRST:
        if name in indices:
            return name
    if len(indices) == 1:
        return indices[0]
    listed = ", ".join(printable(name, longest=60) for name in indices[:8])
    raise CorruptFile(
        f"{printable(path)}: {len(indices)} indices of sharded checkpoints lie in it: {listed}",
        hint=f"name the one you mean: {printable(os.path.join(path, indices[0]))}",
    )


def _not_opened(shown: str, candidates: Sequence[str], chosen: str, names: Sequence[str]) -> list[Finding]:
    others = [name for name in candidates if name in names and name != chosen]
    if not others:
        return []
    listed = ", ".join(printable(name, longest=60) for name in others[:8])
    message = f"{shown}: {chosen} was opened; the folder also holds {listed}"
    return [Finding("WK106", Severity.INFO, printable(others[0]), message, "name a file to open it instead")]


FORMAT = Format(
    name="sharded_dir",
    description="a folder with weights in one file beside config.json, or in shards beside their index",
    endings=(),
    detect=detect,
    open=open_sharded_dir,
)
